//! What an output already has, so that a run that was ended at any moment goes on where it was.
//!
//! With `--ledger` every output line says which line of the input it is for. On start the output is read: whole lines stay,
//! a torn end is cut off, and lines with an error that may pass are taken out, so that their items are tried again. What
//! the ledger has is answered from there, so an output that lost its last seconds is filled up without a request.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::Deserialize;

use super::files::is_standard;

/// The lines of the input that have their line in the output.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Each with a hash of its id, to notice another input.
    lines: HashMap<u64, u64>,
    last: u64,
    /// Those that are errors, and those that are no valid items.
    pub(crate) failed: u64,
    pub(crate) invalid: u64,
}

/// What every line of an output begins with.
const BEGINNING: &[u8] = b"{\"id\":";

/// A line of the output, as far as it matters here.
#[derive(Deserialize)]
struct Written {
    id: Option<String>,
    line: u64,
    error: Option<WrittenError>,
}

#[derive(Deserialize)]
struct WrittenError {
    kind: String,
    status: Option<String>,
}

impl Done {
    /// Reads an output and leaves only what stays in it: all but errors that may pass, or all errors of items.
    ///
    /// # Errors
    /// It cannot be read or written, or was written by something else: then it is left as it is.
    pub(crate) fn of_output(path: &Path, retries_permanent: bool) -> io::Result<Self> {
        let mut done = Self::default();
        if is_standard(path) || !path.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Ok(done);
        }
        let (mut end, mut passing) = (0, 0_u64);
        let rest = each_line(path, |number, line| {
            let Ok(written) = serde_json::from_slice::<Written>(line) else { return Ok(false) };
            end += line.len() as u64;
            if written.may_pass(retries_permanent) {
                passing += 1;
            } else if !done.add(&written) {
                return Err(foreign(number, "stands for a line that was there already"));
            }
            Ok(true)
        })?;
        // After a loss of power the last lines may be anything, but no line stands after what is not one.
        let is_ours = end > 0 || BEGINNING.starts_with(&rest[..rest.len().min(BEGINNING.len())]);
        if !is_ours {
            return Err(foreign(1, "is not of a run with --ledger"));
        }
        if passing > 0 {
            rewrite(path, retries_permanent)?;
        } else if !rest.is_empty() {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(end)?;
            file.sync_all()?;
        }
        Ok(done)
    }

    /// Whether a line of the input has its line in the output.
    ///
    /// # Errors
    /// The output has the line for an item with another id.
    pub(crate) fn has(&self, line: u64, id: Option<&str>) -> io::Result<bool> {
        match self.lines.get(&line) {
            None => Ok(false),
            Some(known) if *known == hash(id) => Ok(true),
            Some(_) => Err(io::Error::other(format!(
                "the output has line {line} for another id, so it is of another input; name another output"
            ))),
        }
    }

    /// The last line of the input that is in the output.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    /// Takes a line in; not if it was there.
    fn add(&mut self, written: &Written) -> bool {
        self.last = self.last.max(written.line);
        if let Some(error) = &written.error {
            self.failed += 1;
            self.invalid += u64::from(error.kind == "invalid-line");
        }
        self.lines.insert(written.line, hash(written.id.as_deref())).is_none()
    }
}

impl Written {
    /// Whether it is an error that another attempt may take away.
    fn may_pass(&self, is_permanent_too: bool) -> bool {
        let status = self.error.as_ref().and_then(|error| error.status.as_deref());
        status.is_some_and(|status| is_permanent_too || status != "permanent")
    }
}

/// Takes the lines out whose errors may pass. The output is there at any moment, the old one or the new one.
fn rewrite(path: &Path, retries_permanent: bool) -> io::Result<()> {
    let path = path.canonicalize()?;
    let mut new_path = OsString::from(&path);
    new_path.push(".new");
    let mut new = BufWriter::new(File::create(&new_path)?);
    each_line(&path, |_, line| {
        let Ok(written) = serde_json::from_slice::<Written>(line) else { return Ok(false) };
        if !written.may_pass(retries_permanent) {
            new.write_all(line)?;
        }
        Ok(true)
    })?;
    new.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(new_path, path)
}

/// Gives each whole line, with its end, until one is not wanted or torn. Gives the beginning of what is left, which is
/// empty at the end of the file. What is left must not have a line that could be wanted.
fn each_line(path: &Path, mut take: impl FnMut(u64, &[u8]) -> io::Result<bool>) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    let mut rest = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !rest.is_empty() && line.starts_with(BEGINNING) && line.ends_with(b"}\n") {
            return Err(foreign(number - 1, "is not of a run with --ledger"));
        }
        if rest.is_empty() && !(line.ends_with(b"\n") && take(number, &line)?) {
            rest.extend_from_slice(&line);
        }
    }
    Ok(rest)
}

fn foreign(number: u64, what: &str) -> io::Error {
    let words = format!("line {number} of it {what}; move it away or name another output");
    io::Error::new(io::ErrorKind::InvalidData, words)
}

fn hash(id: Option<&str>) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}
