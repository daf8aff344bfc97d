//! Reads labelled items.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value};
use slugline::NewsItem;

use super::files::{about, is_standard};
use super::lines::{content, object_text, read_line, reason_of};

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

/// The most bad lines that an error names.
const MOST_NAMED: usize = 10;

/// Reads the first `limit` items. Blank lines do not count. An error names the lines that are no labelled items: to leave
/// them out would make figures of something else than the file.
pub(crate) fn read(path: &Path, label_field: &str, limit: usize) -> Result<Vec<Labelled>, String> {
    let file: Box<dyn Read> = if is_standard(path) {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| about("open input", path, &error))?)
    };
    let mut reader = BufReader::new(file);
    let (mut items, mut bad, mut line, mut number) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while items.len() < limit {
        let read = read_line(&mut reader, &mut line).map_err(|error| about("read input", path, &error))?;
        if read.is_none() {
            break;
        }
        number += 1;
        match content(&line, number) {
            [] => {}
            content => match labelled(content, label_field) {
                Ok((item, label, others)) => items.push(Labelled { item, label, others, line: number }),
                Err(reason) => bad.push(format!("line {number}: {reason}")),
            },
        }
    }
    if !bad.is_empty() {
        let more = bad.len().saturating_sub(MOST_NAMED);
        let and_more = if more > 0 { format!("; and {more} more lines") } else { String::new() };
        bad.truncate(MOST_NAMED);
        return Err(format!(
            "input {} has lines that are no labelled items: {}{and_more}",
            path.display(),
            bad.join("; ")
        ));
    }
    if items.is_empty() {
        return Err(format!("input {} has no items", path.display()));
    }
    Ok(items)
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
