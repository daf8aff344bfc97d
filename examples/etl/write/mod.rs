//! Writes outcomes and rejects.

mod file;
mod parquet;
mod table;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use slugline::Outcome;

pub(crate) use self::file::partial;
use self::file::{Raw, Target};
use self::table::{COLUMNS, cells};
use super::compression::{Compression, Encoder};
use super::format::Format;
use super::read::Place;

/// The longest time that a row stays in the buffer, while it is asked to look. Parquet has it until its row group is full.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(1);

/// An outcome with where its item stood, and what is carried over from there.
pub(crate) struct Settled<'a> {
    pub(crate) outcome: &'a Outcome,
    pub(crate) place: &'a Place,
    pub(crate) kept: &'a [Value],
}

/// Where outcomes go. The file has its name only when it is whole.
pub(crate) struct Output {
    writer: Writer,
    target: Target,
    /// The columns that are carried over.
    keep: Vec<String>,
    flushed: Instant,
    rows: u64,
}

enum Writer {
    Jsonl(Encoder<Raw>),
    Csv(Box<csv::Writer<Encoder<Raw>>>),
    Parquet(parquet::Writer<Raw>),
}

impl Output {
    /// Creates a file, or takes standard output for `-`.
    pub(crate) fn create(path: &Path, format: Format, compression: Compression, keep: &[String]) -> io::Result<Self> {
        let (target, raw) = Target::create(path)?;
        let writer = match format {
            Format::Parquet => Writer::Parquet(parquet::Writer::new(raw, keep)?),
            Format::Csv | Format::Tsv => {
                let encoder = Encoder::new(raw, compression)?;
                let mut writer = csv::WriterBuilder::new().delimiter(format.delimiter()).from_writer(encoder);
                writer.write_record(COLUMNS.iter().map(|(name, _)| *name).chain(keep.iter().map(String::as_str)))?;
                Writer::Csv(Box::new(writer))
            }
            Format::Jsonl | Format::Feed => Writer::Jsonl(Encoder::new(raw, compression)?),
        };
        Ok(Self { writer, target, keep: keep.to_vec(), flushed: Instant::now(), rows: 0 })
    }

    /// Writes a row.
    pub(crate) fn row(&mut self, settled: &Settled<'_>) -> io::Result<()> {
        match &mut self.writer {
            Writer::Jsonl(encoder) => write_line(encoder, &JsonRow::new(settled, &self.keep))?,
            Writer::Csv(writer) => writer.write_record(cells(settled).into_iter().map(table::Cell::into_text))?,
            Writer::Parquet(writer) => writer.row(cells(settled))?,
        }
        self.rows += 1;
        self.flush_if_due()
    }

    /// Passes the buffer on if that is due. To be called at least every second.
    pub(crate) fn flush_if_due(&mut self) -> io::Result<()> {
        if self.flushed.elapsed() >= BETWEEN_FLUSHES {
            match &mut self.writer {
                Writer::Jsonl(encoder) => encoder.flush()?,
                Writer::Csv(writer) => writer.flush()?,
                Writer::Parquet(_) => {}
            }
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// Writes the end, brings everything to the disk and gives the file its name. A disk may be found to be full only now.
    /// Of a run that had to stop, gives the name under which the file was left where an earlier one has its own.
    pub(crate) fn finish(self, is_whole: bool) -> io::Result<Option<PathBuf>> {
        let raw = match self.writer {
            Writer::Jsonl(encoder) => encoder.finish()?,
            Writer::Csv(writer) => writer.into_inner().map_err(csv::IntoInnerError::into_error)?.finish()?,
            Writer::Parquet(writer) => writer.finish()?,
        };
        self.target.finish(raw, is_whole)
    }

    /// The rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Where the rows are that were written when it cannot be finished.
    pub(crate) fn left_in(&self) -> Option<PathBuf> {
        self.target.partial()
    }
}

/// Why columns cannot be carried over; none if they can.
pub(crate) fn cannot_keep(keep: &[String]) -> Option<String> {
    let is_taken = |name: &str| {
        let in_json = [
            "below_threshold",
            "calibration",
            "category_hash",
            "error",
            "first_answer",
            "pack_size",
            "path",
            "prompt_version",
            "secondary",
            "similarity",
            "written",
        ];
        COLUMNS.iter().any(|(column, _)| *column == name) || in_json.contains(&name)
    };
    let twice = |at: usize| keep[..at].contains(&keep[at]);
    let at = (0..keep.len()).find(|&at| is_taken(&keep[at]) || twice(at))?;
    Some(format!("--keep {:?}: the output has a column of that name already", keep[at]))
}

/// Where lines of JSON go: the rejects.
pub(crate) struct Lines {
    encoder: Encoder<Raw>,
    target: Target,
    flushed: Instant,
}

impl Lines {
    /// Creates a file, compressed if its name says so, or takes standard output for `-`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let (target, raw) = Target::create(path)?;
        let encoder = Encoder::new(raw, Format::of_name(path).1)?;
        Ok(Self { encoder, target, flushed: Instant::now() })
    }

    /// Writes a value as a line.
    pub(crate) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        write_line(&mut self.encoder, value)?;
        self.flush_if_due()
    }

    /// Passes the buffer on if that is due.
    pub(crate) fn flush_if_due(&mut self) -> io::Result<()> {
        if self.flushed.elapsed() >= BETWEEN_FLUSHES {
            self.encoder.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// The same as for an [`Output`].
    pub(crate) fn finish(self, is_whole: bool) -> io::Result<Option<PathBuf>> {
        self.target.finish(self.encoder.finish()?, is_whole)
    }
}

fn write_line(mut writer: impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut writer, value)?;
    writer.write_all(b"\n")
}

/// A row as JSON: all that an outcome has, then its place, then what is carried over.
#[derive(Serialize)]
struct JsonRow<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    file: &'a str,
    line: u64,
    #[serde(flatten)]
    kept: BTreeMap<&'a str, &'a Value>,
}

impl<'a> JsonRow<'a> {
    fn new(settled: &Settled<'a>, keep: &'a [String]) -> Self {
        let Settled { outcome, place, kept } = *settled;
        Self { outcome, file: &place.file, line: place.line, kept: keep.iter().map(String::as_str).zip(kept).collect() }
    }
}
