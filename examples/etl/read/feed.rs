//! Feeds: RSS, Atom, JSON Feed.

use std::io::Read;

use serde_json::Value;
use slugline::NewsItem;
use slugline::feeds::{self, MAX_FEED_BYTES};

use super::super::columns::{Columns, Fields};
use super::{Result, Sink};

/// Reads a feed. One that cannot be read is rejected whole: among a thousand feeds there is always one.
pub(super) fn read(source: impl Read, sink: &mut Sink) -> Result<()> {
    let mut bytes = Vec::new();
    source.take(MAX_FEED_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let feed = match feeds::read(&bytes, None) {
        Ok(feed) => feed,
        Err(error) => return sink.reject_file(error.to_string()),
    };
    drop(bytes);
    if feed.is_damaged {
        sink.damaged()?;
    }
    for (line, entry) in (1..).zip(feed.entries) {
        match entry {
            Ok(item) => {
                let kept = kept(&sink.columns, &item);
                sink.item(line, item, kept)?;
            }
            Err(error) => sink.reject(line, None, error.to_string())?,
        }
    }
    Ok(())
}

/// The columns of a feed are the fields of an item, whatever the columns of other files are.
fn kept(columns: &Columns, item: &NewsItem) -> Vec<Value> {
    if columns.keep.is_empty() {
        return Vec::new();
    }
    match serde_json::to_value(item) {
        Ok(Value::Object(fields)) => columns.kept(&fields),
        _ => columns.kept(&Fields::new()),
    }
}
