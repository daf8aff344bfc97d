//! Reads items line by line in a thread of its own, at the pace at which they are taken.
//!
//! A line that is not a valid item is a notice with its number and never ends the reading; a line of any length and any
//! bytes is read without being kept whole beyond a limit.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use slugline::NewsItem;
use tokio::sync::mpsc;

use super::lines::{content, object_text, read_line, reason_of};
use super::position::{self, Position};
use super::resume::Done;

/// Items and notices that are read ahead. Few, since each may have a long line.
const READ_AHEAD: usize = 32;
/// A buffer that grew beyond this many bytes is not kept for the next line.
const KEPT_BUFFER_BYTES: usize = 256 * 1024;

/// An input that was opened and not read yet.
pub(crate) struct Source {
    reader: Box<dyn Read + Send>,
    /// Its size where it has one.
    size_bytes: Option<u64>,
}

/// What comes of an input while it is read. Dropping the items ends the reading.
pub(crate) struct Input {
    /// The items, each with the number of its line.
    pub(crate) items: mpsc::Receiver<(u64, NewsItem)>,
    /// Everything else, with the end of the input last.
    pub(crate) notices: mpsc::Receiver<Notice>,
    /// How far the reading is.
    pub(crate) position: Arc<Position>,
}

/// What is not an item.
pub(crate) enum Notice {
    /// A line that is no valid item.
    Invalid(InvalidLine),
    /// The end, or what prevents it from being reached.
    End(io::Result<()>),
}

/// A line that is no valid item, in the form of an outcome: `{"id", "line", "error": {"kind", "message"}}`.
#[derive(Serialize)]
pub(crate) struct InvalidLine {
    id: Option<String>,
    line: u64,
    error: LineError,
}

#[derive(Serialize)]
struct LineError {
    kind: &'static str,
    message: String,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self { reader: Box::new(io::stdin()), size_bytes: None });
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let size_bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { reader: Box::new(file), size_bytes })
    }

    /// Begins to read, in a thread that ends with the input or when nobody takes its items. A thread of its own, because
    /// a read of a terminal or a pipe cannot be called off, and a runtime would wait for it. Lines that are done are passed
    /// over.
    pub(crate) fn read(self, done: Done) -> io::Result<Input> {
        let (item_sender, items) = mpsc::channel(READ_AHEAD);
        let (notice_sender, notices) = mpsc::channel(READ_AHEAD);
        let position = Arc::new(Position::new(self.size_bytes));
        let reading = Reading {
            reader: BufReader::with_capacity(64 * 1024, self.reader),
            items: item_sender,
            notices: notice_sender,
            position: Arc::clone(&position),
            done,
        };
        std::thread::Builder::new().name("input".into()).spawn(move || reading.run())?;
        Ok(Input { items, notices, position })
    }
}

/// The reading thread's side.
struct Reading<R> {
    reader: BufReader<R>,
    items: mpsc::Sender<(u64, NewsItem)>,
    notices: mpsc::Sender<Notice>,
    position: Arc<Position>,
    done: Done,
}

impl<R: Read> Reading<R> {
    fn run(mut self) {
        let end = self.read_lines();
        // Nobody listens any more when the run has stopped.
        let _ = self.notices.blocking_send(Notice::End(end));
    }

    fn read_lines(&mut self) -> io::Result<()> {
        let mut line = Vec::new();
        let mut number = 0;
        while let Some(length_bytes) = read_line(&mut self.reader, &mut line)? {
            self.position.add_bytes(length_bytes);
            number += 1;
            let row = item_of(content(&line, number), number);
            if row.is_some() {
                self.position.add_row();
            } else {
                self.position.add_blank();
            }
            let is_taken = match row {
                None => true,
                Some(Ok(item)) if self.done.has(number, Some(&item.id))? => true,
                Some(Err(invalid)) if self.done.has(number, invalid.id.as_deref())? => true,
                Some(Ok(item)) => self.items.blocking_send((number, item)).is_ok(),
                Some(Err(invalid)) => self.notices.blocking_send(Notice::Invalid(invalid)).is_ok(),
            };
            if !is_taken {
                return Ok(());
            }
            if line.capacity() > KEPT_BUFFER_BYTES {
                line = Vec::new();
            }
        }
        if number < self.done.last() {
            let last = self.done.last();
            return Err(io::Error::other(format!(
                "the output has line {last}, so it is of another input; name another output"
            )));
        }
        Ok(())
    }
}

/// The item of a line; none for a blank line.
fn item_of(text: &[u8], number: u64) -> Option<Result<NewsItem, InvalidLine>> {
    let invalid = |reason: &str| {
        let error = LineError { kind: "invalid-line", message: format!("line {number}: {reason}") };
        Some(Err(InvalidLine { id: id_of(text), line: number, error }))
    };
    if text.is_empty() {
        return None;
    }
    let text = match object_text(text) {
        Ok(text) => text,
        Err(reason) => return invalid(&reason),
    };
    match serde_json::from_str(text) {
        Ok(item) => Some(Ok(item)),
        Err(error) => invalid(&reason_of(&error)),
    }
}

/// The id of a line that has one, whatever is wrong with the rest.
fn id_of(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: serde_json::Value,
    }
    let OnlyId { id } = serde_json::from_slice(text).ok()?;
    position::id_of(&id)
}
