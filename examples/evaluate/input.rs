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
    /// Further labels, where the field holds a list.
    pub(crate) others: Vec<String>,
    /// The number of its line, from 1.
    pub(crate) line: u64,
}

/// Reads the first `limit` items.
pub(crate) fn read(path: &Path, label_field: &str, limit: usize) -> Result<Vec<Labelled>, String> {
    items::read(path, "labelled items", limit, |content, line| {
        labelled(content, label_field).map(|(item, label, others)| Labelled { item, label, others, line })
    })
}

fn labelled(content: &[u8], label_field: &str) -> Result<(NewsItem, String, Vec<String>), String> {
    let text = object_text(content)?;
    let item: NewsItem = serde_json::from_str(text).map_err(|error| reason_of(&error))?;
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| reason_of(&error))?;
    let text_of = |label: &Value| match label {
        Value::String(label) => Ok(label.clone()),
        Value::Number(label) => Ok(label.to_string()),
        _ => Err(format!("the label in `{label_field}` is neither a string nor a number, nor a list of them")),
    };
    let mut labels = match fields.get(label_field) {
        Some(Value::Array(labels)) => labels.iter().map(text_of).collect::<Result<Vec<_>, _>>()?,
        Some(label) => vec![text_of(label)?],
        None => return Err(format!("no field `{label_field}`, which --label-field names")),
    }
    .into_iter();
    let label = labels.next().ok_or_else(|| format!("the list in `{label_field}` is empty"))?;
    Ok((item, label, labels.collect()))
}
