//! The report of a run: where every row went, and what it took.

mod html;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use slugline::{Categorizer, Stats};

use super::args::Args;
use super::job::Tally;
use super::read::Inputs;

/// The version of the form in which reports are written. It changes with the meaning of a field, not with a new one.
const FORMAT: u32 = 1;

/// A run in figures, without text of the items.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    format: u32,
    pub(crate) exit: Exit,
    pub(crate) about: About,
    pub(crate) rows: Tally,
    /// Blank lines, which are no rows.
    pub(crate) blank_lines: u64,
    /// Whether every row that was read is in the output or in the rejects, once.
    pub(crate) adds_up: bool,
    pub(crate) items_per_second: f64,
    pub(crate) cached_share: Option<f64>,
    pub(crate) stats: Stats,
}

/// How a run ended.
#[derive(Debug, Serialize)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    pub(crate) reason: String,
}

/// What was run.
#[derive(Debug, Serialize)]
pub(crate) struct About {
    inputs: Vec<String>,
    files: usize,
    /// Files of the directories that were passed over.
    skipped: Vec<String>,
    output: String,
    rejects: String,
    model: String,
    taxonomy: String,
    taxonomy_hash: String,
    /// Seconds since 1970.
    started_at_s: u64,
    slugline: &'static str,
}

impl About {
    pub(crate) fn new(args: &Args, inputs: &Inputs, categorizer: &Categorizer) -> Self {
        let taxonomy = categorizer.taxonomy();
        let path = |path: &Path| path.display().to_string();
        Self {
            inputs: args.input.iter().map(|input| path(input)).collect(),
            files: inputs.names().len(),
            skipped: inputs.skipped.iter().map(|skipped| path(skipped)).collect(),
            output: path(&args.output),
            rejects: path(&args.rejects),
            model: args.server.model.clone().unwrap_or_default(),
            taxonomy: format!("{} {}", taxonomy.name(), taxonomy.version()),
            taxonomy_hash: taxonomy.hash().to_string(),
            started_at_s: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            slugline: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl Exit {
    /// The inputs were read to their end.
    pub(crate) fn finished(tally: &Tally) -> Self {
        let Tally { failed, rejected, .. } = tally;
        if failed + rejected == 0 {
            return Self { code: 0, reason: "all items are categorized".to_owned() };
        }
        Self { code: 2, reason: format!("finished; {failed} items have errors, {rejected} rows were rejected") }
    }

    /// Something ended it before, and what was done is written, where there were earlier files under these other names.
    pub(crate) fn stopped(reason: &str, tally: &Tally, left: &[PathBuf]) -> Self {
        let Tally { written, rejected, .. } = tally;
        let names: Vec<_> = left.iter().map(|path| path.display().to_string()).collect();
        let left = if names.is_empty() {
            String::new()
        } else {
            format!("; the earlier files are as they were, these rows are in {}", names.join(" and "))
        };
        Self { code: 1, reason: format!("{reason} (stopped with {written} rows written, {rejected} rejected{left})") }
    }

    /// The output or the rejects could not be written.
    pub(crate) fn unwritten(error: &str, left_in: Option<&Path>) -> Self {
        let left_in = left_in.map(|path| format!("; what was written before may be in {}", path.display()));
        Self { code: 1, reason: format!("{error}{}", left_in.unwrap_or_default()) }
    }
}

impl Report {
    /// A run that did not account for each row has failed, whatever else.
    pub(crate) fn new(about: About, exit: Exit, rows: Tally, blank_lines: u64, stats: Stats) -> Self {
        let adds_up = rows.adds_up();
        let exit = if adds_up || exit.code == 1 {
            exit
        } else {
            Exit { code: 1, reason: "the rows do not add up, which is an error of this program".to_owned() }
        };
        let (items_per_second, cached_share) = (stats.items_per_second(), stats.cached_share());
        Self { format: FORMAT, exit, about, rows, blank_lines, adds_up, items_per_second, cached_share, stats }
    }

    /// Where the rows went, in a line or two.
    pub(crate) fn rows_in_words(&self) -> Vec<String> {
        let Tally { rows, rejected, categorized, failed, files, .. } = &self.rows;
        let sum = if self.adds_up { "=" } else { "DOES NOT ADD UP:" };
        let mut lines =
            vec![format!("rows      {rows} {sum} {categorized} categorized + {failed} failed + {rejected} rejected")];
        lines.push(format!("files     {} with rows, {} passed over", files.len(), self.about.skipped.len()));
        lines.extend(self.damage().map(|words| format!("damaged   {words}")));
        lines
    }

    /// What is known of text that was not read as it was meant.
    fn damage(&self) -> Option<String> {
        let damaged = &self.rows.damaged;
        let some: Vec<_> = damaged.iter().take(5).map(|file| &**file).collect();
        let more = if damaged.len() > some.len() { ", …" } else { "" };
        let count = damaged.len();
        (count > 0).then(|| {
            format!("{count} feeds have bytes that are not of the charset that they name: {}{more}", some.join(", "))
        })
    }

    /// The report as a page: one HTML file without scripts or anything from elsewhere.
    pub(crate) fn to_html(&self) -> String {
        html::page(self)
    }
}
