//! The rows of a result: written, and checked.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionContext};
use futures_util::TryStreamExt;

use crate::Result;

/// Writes the rows as they come, and gives their number. The file gets its name when it is whole.
pub(crate) async fn write(frame: DataFrame, path: &Path) -> Result<usize> {
    let mut batches = frame.execute_stream().await?;
    let part = path.with_added_extension("part");
    let mut writer = ArrowWriter::try_new(File::create(&part)?, batches.schema(), None)?;
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.num_rows();
        writer.write(&batch)?;
    }
    writer.close()?;
    fs::rename(part, path)?;
    Ok(rows)
}

/// What a result has for a table of items.
#[derive(Debug, PartialEq)]
pub(crate) struct Tally {
    pub(crate) items: i64,
    pub(crate) rows: i64,
    pub(crate) categorized: i64,
    pub(crate) failed: i64,
}

const TALLY: &str = "SELECT (SELECT count(*) FROM news) AS items, count(*) AS rows, count(category) AS categorized, \
    count(error) AS failed, count(DISTINCT id) AS ids, \
    (SELECT count(*) FROM news n WHERE NOT EXISTS (SELECT 1 FROM result r WHERE r.id = n.id)) AS missing FROM result";

/// Counts with DataFusion alone, not with what made the result.
///
/// # Errors
/// An item has no row, or more than one, or a row has neither category nor error, or both.
pub(crate) async fn check(news: &Path, result: &Path) -> Result<Tally> {
    let context = SessionContext::new();
    for (name, path) in [("news", news), ("result", result)] {
        context.register_parquet(name, path.to_string_lossy(), ParquetReadOptions::default()).await?;
    }
    let batches = context.sql(TALLY).await?.collect().await?;
    let counts = batches.iter().find(|batch| batch.num_rows() == 1).ok_or("the count has no row")?;
    let count = |column: usize| counts.column(column).as_primitive::<Int64Type>().value(0);
    let tally = Tally { items: count(0), rows: count(1), categorized: count(2), failed: count(3) };
    let (ids, missing) = (count(4), count(5));
    if missing > 0 || ids != tally.rows || tally.rows != tally.items || tally.categorized + tally.failed != tally.rows {
        return Err(format!("not one row for each item: {tally}, {ids} ids, {missing} items without a row").into());
    }
    Ok(tally)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items, {} rows, {} categorized, {} failed", self.items, self.rows, self.categorized, self.failed)
    }
}
