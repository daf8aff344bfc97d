//! CSV and TSV with a header.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use serde_json::Value;

use super::super::columns::Fields;
use super::super::lines::MAX_LINE_BYTES;
use super::{Result, Sink};

pub(super) fn read(source: impl Read, delimiter: u8, sink: &mut Sink) -> Result<()> {
    let since_row = Rc::new(Cell::new(0));
    let bounded = Bounded { source, since_row: Rc::clone(&since_row) };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).buffer_capacity(64 * 1024).from_reader(bounded);
    let header = reader.headers().map_err(io_error)?.clone();
    if header.is_empty() {
        return sink.reject_file("it is empty, without even a header".to_owned());
    }
    if let Err(problem) = sink.columns.check(|name| header.iter().any(|column| column == name)) {
        // After items of other files, the columns that are asked for are right.
        return if sink.has_items { sink.reject_file(problem) } else { Err(io::Error::other(problem).into()) };
    }

    let mut record = csv::ByteRecord::new();
    loop {
        since_row.set(0);
        if !reader.read_byte_record(&mut record).map_err(io_error)? {
            return Ok(());
        }
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != header.len() {
            let reason = format!("{} fields where the header has {}", record.len(), header.len());
            sink.reject(line, None, reason)?;
            continue;
        }
        match fields_of(&header, &record, sink) {
            Ok(fields) => sink.fields(line, &fields)?,
            Err(column) => sink.reject(line, None, format!("column {column:?} is not UTF-8"))?,
        }
    }
}

/// The fields that are looked at; the name of one that is not text, if there is one. Of columns with one name the first counts.
fn fields_of(header: &csv::StringRecord, record: &csv::ByteRecord, sink: &Sink) -> Result<Fields, String> {
    let mut fields = Fields::new();
    for (column, value) in header.iter().zip(record).filter(|(column, _)| sink.columns.uses(column)) {
        let text = std::str::from_utf8(value).map_err(|_| column.to_owned())?;
        fields.entry(column).or_insert_with(|| Value::String(text.to_owned()));
    }
    Ok(fields)
}

/// The error without the parser's words, which may quote.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        csv::ErrorKind::Utf8 { .. } => io::Error::new(io::ErrorKind::InvalidData, "its header is not UTF-8"),
        _ => io::Error::new(io::ErrorKind::InvalidData, "no CSV"),
    }
}

/// Ends the reading of a row that has no end: after a quote that is never closed, the rest of the file would be one field.
struct Bounded<R> {
    source: R,
    since_row: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.since_row.get() > MAX_LINE_BYTES {
            let limit = MAX_LINE_BYTES / 1024 / 1024;
            let words = format!("a row is longer than {limit} MiB; a quote that is never closed does that");
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        let bytes = self.source.read(buffer)?;
        self.since_row.set(self.since_row.get() + bytes);
        Ok(bytes)
    }
}
