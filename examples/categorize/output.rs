//! Writes outcomes, one JSON object per line, and makes sure that nothing is overwritten that is still needed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The longest time that an outcome stays in the buffer, while it is asked to look.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(1);

/// Where outcomes go.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// The same file, where it is one that can be brought to the disk.
    file: Option<File>,
    flushed: Instant,
    lines: u64,
}

impl Output {
    /// Creates a file, or takes standard output for `-`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true), 0)
    }

    /// The same, but adds to a file that is there and has so many lines.
    pub(crate) fn append(path: &Path, lines: u64) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().append(true).create(true), lines)
    }

    fn open(path: &Path, options: &OpenOptions, lines: u64) -> io::Result<Self> {
        let (sink, file): (Box<dyn Write>, _) = if is_standard(path) {
            (Box::new(io::stdout()), None)
        } else {
            let file = options.open(path)?;
            let synced = if file.metadata()?.is_file() { Some(file.try_clone()?) } else { None };
            (Box::new(file), synced)
        };
        Ok(Self { writer: BufWriter::with_capacity(64 * 1024, sink), file, flushed: Instant::now(), lines })
    }

    /// Writes a value as a line.
    pub(crate) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")?;
        self.lines += 1;
        self.flush_if_due()
    }

    /// Passes the buffer on if that is due. To be called at least every second.
    pub(crate) fn flush_if_due(&mut self) -> io::Result<()> {
        if self.flushed.elapsed() >= BETWEEN_FLUSHES {
            self.writer.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// Brings everything to where it belongs. A disk may be found to be full only now.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.file.map_or(Ok(()), |file| file.sync_all())
    }

    /// The lines that were written so far, or were there.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}

/// Whether a path means standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path == OsStr::new("-")
}

/// Whether writing to `target` would destroy the file `needed`. Devices and pipes cannot be destroyed.
pub(crate) fn is_same_file(target: &Path, needed: &Path) -> bool {
    if is_standard(target) || is_standard(needed) || needed.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return false;
    }
    real_path(target) == real_path(needed)
}

/// The path without links and detours, also of a file that does not exist yet.
fn real_path(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}
