//! Reads a whole file of items, a JSON object per line.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::files::{about, is_standard};
use super::lines::{content, read_line};

/// The most bad lines that an error names.
const MOST_NAMED: usize = 10;

/// Reads the first `limit` items. Blank lines do not count. `parse` gets a line and its number, from 1. An error names the
/// lines that are none of `what`: to leave them out would make figures of something else than the file.
pub(crate) fn read<T>(
    path: &Path,
    what: &str,
    limit: usize,
    parse: impl Fn(&[u8], u64) -> Result<T, String>,
) -> Result<Vec<T>, String> {
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
            content => match parse(content, number) {
                Ok(item) => items.push(item),
                Err(reason) => bad.push(format!("line {number}: {reason}")),
            },
        }
    }
    if !bad.is_empty() {
        let more = bad.len().saturating_sub(MOST_NAMED);
        let and_more = if more > 0 { format!("; and {more} more lines") } else { String::new() };
        bad.truncate(MOST_NAMED);
        return Err(format!("input {} has lines that are no {what}: {}{and_more}", path.display(), bad.join("; ")));
    }
    if items.is_empty() {
        return Err(format!("input {} has no items", path.display()));
    }
    Ok(items)
}
