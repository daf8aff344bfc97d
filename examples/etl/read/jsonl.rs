//! JSONL: an object per line.

use std::io::{BufReader, Read};

use super::super::columns::Fields;
use super::super::lines::{content, object_text, read_line, reason_of};
use super::{Result, Sink};

/// A buffer that grew beyond this many bytes is not kept for the next line.
const KEPT_BUFFER_BYTES: usize = 256 * 1024;

pub(super) fn read(source: impl Read, sink: &mut Sink) -> Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, source);
    let mut line = Vec::new();
    let mut number = 0;
    while read_line(&mut reader, &mut line)?.is_some() {
        number += 1;
        let text = content(&line, number);
        if text.is_empty() {
            sink.blank();
            continue;
        }
        let fields =
            object_text(text).and_then(|text| serde_json::from_str::<Fields>(text).map_err(|error| reason_of(&error)));
        match fields {
            Ok(fields) => sink.fields(number, &fields)?,
            Err(reason) => sink.reject(number, None, reason)?,
        }
        if line.capacity() > KEPT_BUFFER_BYTES {
            line = Vec::new();
        }
    }
    Ok(())
}
