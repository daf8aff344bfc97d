//! Invented news items, as Parquet.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;

use crate::Result;

/// Words that the descriptions of the taxonomy `newsroom` have too, so that a simulated server finds categories for them.
const SUBJECTS: [&str; 6] = [
    "athletes and clubs prepare for the matches of the season",
    "companies and markets wait for figures on trade and jobs",
    "museums and concerts draw visitors from abroad",
    "hospitals and vaccines are the subject of a new report",
    "storms and rainfall are forecast for the coast",
    "parties argue over the elections and the government's policy",
];
const PLACES: [&str; 7] =
    ["the north", "the capital", "the islands", "the valley", "the harbour", "the border", "the old town"];

#[derive(Args)]
pub(crate) struct Generate {
    /// The folder, which is made.
    #[arg(long)]
    out: PathBuf,
    #[arg(long, default_value_t = 100_000)]
    items: usize,
    /// The files that they are spread over.
    #[arg(long, default_value_t = 20)]
    files: usize,
}

impl Generate {
    pub(crate) fn run(&self) -> Result<()> {
        let files = self.files.clamp(1, self.items.max(1));
        fs::create_dir_all(&self.out)?;
        for file in 0..files {
            let (first, end) = (file * self.items / files, (file + 1) * self.items / files);
            write(&self.out.join(format!("part-{file:04}.parquet")), &(first..end).map(item).collect::<Vec<_>>())?;
        }
        println!("{} items in {files} files in {}", self.items, self.out.display());
        Ok(())
    }
}

/// Id, title and body.
pub(crate) type Row = (String, Option<String>, Option<String>);

/// Item number `number`; no two have the same text.
fn item(number: usize) -> Row {
    let (subject, place) = (SUBJECTS[number % SUBJECTS.len()], PLACES[number / SUBJECTS.len() % PLACES.len()]);
    let body = format!(
        "In {place} {subject}. Correspondents who were there send report number {number}, which says what was decided, \
         who spoke, and what comes next. A second report is expected by the evening."
    );
    (format!("item-{number:07}"), Some(format!("Report {number}: {subject}")), Some(body))
}

/// Writes one Parquet file.
pub(crate) fn write(path: &Path, rows: &[Row]) -> Result<()> {
    let ids: StringArray = rows.iter().map(|row| Some(&row.0)).collect();
    let titles: StringArray = rows.iter().map(|row| row.1.as_ref()).collect();
    let bodies: StringArray = rows.iter().map(|row| row.2.as_ref()).collect();
    let columns: [(&str, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("title", Arc::new(titles)), ("body", Arc::new(bodies))];
    let batch = RecordBatch::try_from_iter(columns)?;
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}
