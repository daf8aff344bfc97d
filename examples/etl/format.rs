//! The formats, and what the name of a file says about its own.

use std::path::Path;

use clap::ValueEnum;

use super::compression::Compression;

/// How rows stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object per line
    Jsonl,
    /// Comma-separated, with a header
    Csv,
    /// Separated by tabs, with a header
    Tsv,
    Parquet,
    /// RSS, Atom or JSON Feed
    Feed,
}

impl Format {
    /// What a name says: `news.csv.gz` is CSV in gzip.
    pub(crate) fn of_name(path: &Path) -> (Option<Self>, Compression) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (name, compression) = Compression::of_name(&name);
        let format = match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("jsonl" | "ndjson") => Some(Self::Jsonl),
            Some("csv") => Some(Self::Csv),
            Some("tsv") => Some(Self::Tsv),
            Some("parquet") => Some(Self::Parquet),
            Some("rss" | "atom" | "xml" | "rdf") => Some(Self::Feed),
            _ => None,
        };
        (format, compression)
    }

    /// Between the fields of a row.
    pub(crate) fn delimiter(self) -> u8 {
        if self == Self::Tsv { b'\t' } else { b',' }
    }
}
