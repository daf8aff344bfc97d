//! Reads labelled items.

use std::path::Path;

use serde_json::{Map, Value};
use slugline::NewsItem;

use super::items;
use super::lines::{object_text, reason_of};

/// An item with its label as it stands in the file.
#[derive(Debug)]
pub(crate) struct Labelled {
    pub(crate) item: NewsItem,
    pub(crate) label: String,
    /// The number of its line, from 1.
    pub(crate) line: u64,
}

/// Reads the first `limit` items.
pub(crate) fn read(path: &Path, label_field: &str, limit: usize) -> Result<Vec<Labelled>, String> {
    items::read(path, "labelled items", limit, |content, line| {
        labelled(content, label_field).map(|(item, label)| Labelled { item, label, line })
    })
}

fn labelled(content: &[u8], label_field: &str) -> Result<(NewsItem, String), String> {
    let text = object_text(content)?;
    let item: NewsItem = serde_json::from_str(text).map_err(|error| reason_of(&error))?;
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| reason_of(&error))?;
    let label = match fields.get(label_field) {
        Some(Value::String(label)) => label.clone(),
        Some(Value::Number(label)) => label.to_string(),
        Some(_) => return Err(format!("the label in `{label_field}` is neither a string nor a number")),
        None => return Err(format!("no field `{label_field}`, which --label-field names")),
    };
    Ok((item, label))
}
