//! How far an input is read, for whoever shows the progress of it from another thread.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

/// Counts of what was read.
#[derive(Debug, Default)]
pub(crate) struct Position {
    size_bytes: Option<u64>,
    bytes: AtomicU64,
    rows: AtomicU64,
    blank: AtomicU64,
}

impl Position {
    /// The beginning of an input with its size, where it has one.
    pub(crate) fn new(size_bytes: Option<u64>) -> Self {
        Self { size_bytes, ..Self::default() }
    }

    /// So many bytes more.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A row more.
    pub(crate) fn add_row(&self) {
        self.rows.fetch_add(1, Ordering::Relaxed);
    }

    /// A blank line more, which is no row.
    pub(crate) fn add_blank(&self) {
        self.blank.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Blank lines so far.
    pub(crate) fn blank(&self) -> u64 {
        self.blank.load(Ordering::Relaxed)
    }

    /// The rows of the whole input, estimated by its size. Unknown for a pipe, and for a file that turns out to be longer than
    /// it was.
    pub(crate) fn estimated_total(&self) -> Option<u64> {
        let (size, bytes) = (self.size_bytes?, self.bytes.load(Ordering::Relaxed));
        let is_usable = bytes > 0 && bytes <= size;
        is_usable.then(|| (self.rows() as f64 * size as f64 / bytes as f64).round() as u64)
    }
}

/// The id in a row whose other fields may be wrong.
pub(crate) fn id_of(value: &Value) -> Option<String> {
    match value {
        Value::String(id) => Some(id.clone()).filter(|id| !id.is_empty()),
        Value::Number(id) if id.is_i64() || id.is_u64() => Some(id.to_string()),
        _ => None,
    }
}
