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

/// Reads the first `limit` items. A field for the language, where one is named, takes the place of the item's own.
pub(crate) fn read(
    path: &Path,
    label_field: &str,
    language_field: Option<&str>,
    limit: usize,
) -> Result<Vec<Labelled>, String> {
    items::read(path, "labelled items", limit, |content, line| labelled(content, label_field, language_field, line))
}

fn labelled(content: &[u8], label_field: &str, language_field: Option<&str>, line: u64) -> Result<Labelled, String> {
    let text = object_text(content)?;
    let mut item: NewsItem = serde_json::from_str(text).map_err(|error| reason_of(&error))?;
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
    if let Some(name) = language_field {
        item.language = match fields.get(name) {
            Some(Value::String(language)) => Some(language.clone()),
            Some(Value::Null) | None => None,
            Some(_) => return Err(format!("the language in `{name}` is no string")),
        };
    }
    Ok(Labelled { item, label, others: labels.collect(), line })
}
