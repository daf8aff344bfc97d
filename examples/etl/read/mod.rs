//! Reads rows in a thread of its own, file after file, at the pace at which they are taken.
//!
//! A row that is no item is rejected with its place and never ends the reading. What ends it is an input that cannot be
//! read on: then it is not known how many rows are missing.

mod csv;
mod feed;
mod files;
mod jsonl;
mod parquet;

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use slugline::NewsItem;
use tokio::sync::mpsc;

use self::files::Input;
pub(crate) use self::files::{Inputs, list};
use super::columns::{Columns, Fields};
use super::compression::{Compression, decompressed};
use super::files::lower_case;
use super::format::Format;
use super::position::{Position, id_of};

/// Rows that are read ahead. Few, since each may be long.
const READ_AHEAD: usize = 32;

/// Where a row stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    /// The line, the row of a Parquet file, or the entry of a feed, from 1.
    pub(crate) line: u64,
}

/// A row that is an item.
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) item: NewsItem,
    /// What is carried over, in the order of the columns to be kept.
    pub(crate) kept: Vec<Value>,
}

/// A row that is none; without a line a whole file that has no rows to be read.
#[derive(Debug, Serialize)]
pub(crate) struct Reject {
    pub(crate) file: Arc<str>,
    pub(crate) line: Option<u64>,
    pub(crate) id: Option<String>,
    pub(crate) reason: String,
}

/// What is not an item.
pub(crate) enum Notice {
    Reject(Reject),
    /// A file that was read, with characters that are no longer known.
    Damaged(Arc<str>),
    /// The end, or what prevents it from being reached.
    End(Result<(), String>),
}

/// What comes of the inputs while they are read. Dropping the rows ends the reading.
pub(crate) struct Reading {
    pub(crate) rows: mpsc::Receiver<Row>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) position: Arc<Position>,
}

/// Begins to read, in a thread that ends with the inputs or when nobody takes their rows. A thread of its own, because a
/// read of a terminal or a pipe cannot be called off, and a runtime would wait for it.
pub(crate) fn start(inputs: Inputs, columns: Columns) -> io::Result<Reading> {
    let (row_sender, rows) = mpsc::channel(READ_AHEAD);
    let (notice_sender, notices) = mpsc::channel(READ_AHEAD);
    let position = Arc::new(Position::new(inputs.size_bytes));
    let mut sink = Sink {
        place: None,
        has_items: false,
        rows: row_sender,
        notices: notice_sender,
        position: Arc::clone(&position),
        columns,
    };
    std::thread::Builder::new().name("input".into()).spawn(move || {
        let end = inputs.files.iter().try_for_each(|input| {
            sink.place = Some(Place { file: Arc::clone(&input.name), line: 0 });
            read(input, &mut sink)
        });
        let end = match end {
            Ok(()) | Err(Ended::NobodyListens) => Ok(()),
            Err(Ended::Unreadable(error)) => Err(sink.explain(&error)),
        };
        // Nobody listens any more when the run has stopped.
        let _ = sink.notices.blocking_send(Notice::End(end));
    })?;
    Ok(Reading { rows, notices, position })
}

/// Why a file is not read to its end.
enum Ended {
    NobodyListens,
    Unreadable(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

type Result<T, E = Ended> = std::result::Result<T, E>;

fn read(input: &Input, sink: &mut Sink) -> Result<()> {
    let raw: Box<dyn Read + Send> = match &input.path {
        None => Box::new(io::stdin()),
        // Its reader goes to and fro in it.
        Some(path) if input.format == Format::Parquet && Format::of_name(path).1 == Compression::None => {
            return parquet::read_file(File::open(path)?, sink);
        }
        Some(path) => Box::new(File::open(path)?),
    };
    let content = decompressed(Counted { raw, position: Arc::clone(&sink.position) })?;
    match input.format {
        Format::Jsonl => jsonl::read(content, sink),
        Format::Csv | Format::Tsv => csv::read(content, input.format.delimiter(), sink),
        Format::Parquet => parquet::read(content, sink),
        Format::Feed => feed::read(content, sink),
    }
}

/// Where readers put what they find.
struct Sink {
    /// The file, and the row that was read last.
    place: Option<Place>,
    has_items: bool,
    rows: mpsc::Sender<Row>,
    notices: mpsc::Sender<Notice>,
    position: Arc<Position>,
    columns: Columns,
}

impl Sink {
    /// A row of fields, which is an item or not.
    fn fields(&mut self, line: u64, fields: &Fields) -> Result<()> {
        match self.columns.item(fields) {
            Ok((item, kept)) => self.item(line, item, kept),
            Err(reason) => {
                let id = fields.get(self.columns.id_column.as_deref().unwrap_or("id")).and_then(id_of);
                self.reject(line, id, reason)
            }
        }
    }

    fn item(&mut self, line: u64, item: NewsItem, kept: Vec<Value>) -> Result<()> {
        let place = Place { line, ..self.count_row(line) };
        self.has_items = true;
        self.rows.blocking_send(Row { place, item, kept }).map_err(|_| Ended::NobodyListens)
    }

    fn reject(&mut self, line: u64, id: Option<String>, reason: String) -> Result<()> {
        let Place { file, .. } = self.count_row(line);
        self.notice(Notice::Reject(Reject { file, line: Some(line), id, reason }))
    }

    /// Rejects a file whole.
    fn reject_file(&mut self, reason: String) -> Result<()> {
        let Place { file, .. } = self.count_row(0);
        self.notice(Notice::Reject(Reject { file, line: None, id: None, reason }))
    }

    /// Tells that the text of the file is not all that it was.
    fn damaged(&self) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| self.notice(Notice::Damaged(Arc::clone(&place.file))))
    }

    fn blank(&self) {
        self.position.add_blank();
    }

    fn notice(&self, notice: Notice) -> Result<()> {
        self.notices.blocking_send(notice).map_err(|_| Ended::NobodyListens)
    }

    fn count_row(&mut self, line: u64) -> Place {
        self.position.add_row();
        let place = self.place.get_or_insert_with(|| Place { file: "-".into(), line });
        place.line = line;
        place.clone()
    }

    fn explain(&self, error: &io::Error) -> String {
        let words = lower_case(error);
        match &self.place {
            Some(Place { file, line: 0 }) => format!("cannot read {file}: {words}"),
            Some(Place { file, line }) => format!("cannot read {file} on after row {line}: {words}"),
            None => format!("cannot read: {words}"),
        }
    }
}

/// Counts bytes as they are read.
struct Counted<R> {
    raw: R,
    position: Arc<Position>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.raw.read(buffer)?;
        self.position.add_bytes(bytes as u64);
        Ok(bytes)
    }
}
