//! Writes outcomes, one JSON object per line.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::files::is_standard;

/// The longest time that an outcome stays in the buffer, while it is asked to look.
const BETWEEN_FLUSHES: Duration = Duration::from_secs(1);

/// Where outcomes go.
pub(crate) struct Output {
    writer: BufWriter<Box<dyn Write>>,
    /// The same file, where it is one that can be brought to the disk.
    file: Option<File>,
    flushed: Instant,
    lines: u64,
}

impl Output {
    /// Creates a file, or takes standard output for `-`.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().write(true).create(true).truncate(true), 0)
    }

    /// The same, but adds to a file that is there and has so many lines.
    pub(crate) fn append(path: &Path, lines: u64) -> io::Result<Self> {
        Self::open(path, OpenOptions::new().append(true).create(true), lines)
    }

    fn open(path: &Path, options: &OpenOptions, lines: u64) -> io::Result<Self> {
        let (sink, file): (Box<dyn Write>, _) = if is_standard(path) {
            (Box::new(io::stdout()), None)
        } else {
            let file = options.open(path)?;
            let synced = if file.metadata()?.is_file() { Some(file.try_clone()?) } else { None };
            (Box::new(file), synced)
        };
        Ok(Self { writer: BufWriter::with_capacity(64 * 1024, sink), file, flushed: Instant::now(), lines })
    }

    /// Writes a value as a line.
    pub(crate) fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")?;
        self.lines += 1;
        self.flush_if_due()
    }

    /// Passes the buffer on if that is due. To be called at least every second.
    pub(crate) fn flush_if_due(&mut self) -> io::Result<()> {
        if self.flushed.elapsed() >= BETWEEN_FLUSHES {
            self.writer.flush()?;
            self.flushed = Instant::now();
        }
        Ok(())
    }

    /// Brings everything to where it belongs. A disk may be found to be full only now.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.writer.flush()?;
        self.file.map_or(Ok(()), |file| file.sync_all())
    }

    /// The lines that were written so far, or were there.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}
