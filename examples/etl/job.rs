//! The loop that joins the outcomes of the run, the rows that are no items, and the clock.
//!
//! Whatever ends the run before its time - the run itself, a signal, an input - ends the source of items, and the loop goes on
//! until what is under way is settled and written. Only a file that cannot be written ends everything at once.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use serde_json::Value;
use slugline::{NewsItem, Outcome, OutcomeStream};
use tokio::sync::mpsc;

use super::files::about;
use super::position::Position;
use super::progress::{Counts, Measured, Progress};
use super::read::{Notice, Place, Reject, Row};
use super::stop::Stop;
use super::write::{Lines, Output, Settled};

/// A run under way.
pub(crate) struct Job<'a, S> {
    pub(crate) outcomes: OutcomeStream<S>,
    pub(crate) notices: mpsc::Receiver<Notice>,
    pub(crate) output: (Output, &'a Path),
    pub(crate) rejects: (Lines, &'a Path),
    pub(crate) under_way: UnderWay,
    pub(crate) position: Arc<Position>,
    pub(crate) stop: Stop,
    pub(crate) progress: Progress,
    pub(crate) tally: Tally,
}

/// Where every row went.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tally {
    /// Rows that were taken from the inputs: items and rejects.
    pub(crate) rows: u64,
    /// Those that were rejected.
    pub(crate) rejected: u64,
    /// Those that are in the output with a category.
    pub(crate) categorized: u64,
    /// Those that are in the output with an error.
    pub(crate) failed: u64,
    /// Rows of the output, counted by what writes them.
    pub(crate) written: u64,
    /// The same by file.
    pub(crate) files: BTreeMap<Arc<str>, FileTally>,
    /// Items by category.
    pub(crate) categories: BTreeMap<String, u64>,
    /// Rejects by what is wrong, without what differs from row to row.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Files whose text may not be what was meant.
    pub(crate) damaged: Vec<Arc<str>>,
}

/// What became of the rows of a file.
#[derive(Debug, Default, Serialize)]
pub(crate) struct FileTally {
    pub(crate) rows: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// Whether every row that was taken is accounted for, once.
    pub(crate) fn adds_up(&self) -> bool {
        self.rows == self.rejected + self.categorized + self.failed && self.written == self.categorized + self.failed
    }

    fn take(&mut self, file: &Arc<str>) -> &mut FileTally {
        self.rows += 1;
        let tally = self.files.entry(Arc::clone(file)).or_default();
        tally.rows += 1;
        tally
    }

    fn reject(&mut self, reject: &Reject) {
        self.take(&reject.file).rejected += 1;
        self.rejected += 1;
        *self.reasons.entry(kind_of(&reject.reason)).or_default() += 1;
    }

    fn settle(&mut self, place: &Place, outcome: &Outcome) {
        if let Ok(assignment) = &outcome.result {
            self.categorized += 1;
            *self.categories.entry(assignment.category.to_string()).or_default() += 1;
        } else {
            self.failed += 1;
            self.files.entry(Arc::clone(&place.file)).or_default().failed += 1;
        }
    }
}

/// A reason without its numbers, so that the same reasons are counted together.
fn kind_of(reason: &str) -> String {
    let mut kind = String::with_capacity(reason.len());
    for c in reason.chars() {
        match c {
            c if !c.is_ascii_digit() => kind.push(c),
            _ if kind.ends_with('…') => {}
            _ => kind.push('…'),
        }
    }
    kind
}

/// What is kept of items while they are under way, by their numbers.
#[derive(Clone, Default)]
pub(crate) struct UnderWay(Arc<Mutex<HashMap<u64, (Place, Vec<Value>)>>>);

impl UnderWay {
    fn put(&self, index: u64, place: Place, kept: Vec<Value>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index, (place, kept));
    }

    fn take(&self, index: u64) -> (Place, Vec<Value>) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&index);
        taken.unwrap_or_else(|| (Place { file: "-".into(), line: 0 }, Vec::new()))
    }
}

/// The items as a stream that ends when the run is stopped, which drops the receiver and so ends the reading thread.
pub(crate) fn until_stopped(
    mut rows: mpsc::Receiver<Row>,
    under_way: UnderWay,
    stop: Stop,
) -> impl Stream<Item = NewsItem> {
    let rows = stream::poll_fn(move |cx| rows.poll_recv(cx)).take_until(Box::pin(stop.stopped()));
    rows.enumerate().map(move |(index, Row { place, item, kept })| {
        under_way.put(index as u64, place, kept);
        item
    })
}

impl<S: Stream<Item = NewsItem>> Job<'_, S> {
    /// Works until everything is settled and written, and gives the reason if that was before the end of the inputs.
    ///
    /// An error means that the output or the rejects cannot be written: nothing that is still under way could be kept.
    pub(crate) async fn work(&mut self) -> Result<Option<String>, String> {
        let mut stopped_by = None;
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        let (mut is_settled, mut is_read) = (false, false);
        while !(is_settled && is_read) {
            tokio::select! {
                outcome = self.outcomes.next(), if !is_settled => match outcome {
                    Some(outcome) => self.settle(&outcome)?,
                    None => is_settled = true,
                },
                notice = self.notices.recv(), if !is_read => match notice {
                    Some(Notice::Reject(reject)) => self.reject(&reject)?,
                    Some(Notice::Damaged(file)) => self.tally.damaged.push(file),
                    Some(Notice::End(end)) => {
                        is_read = true;
                        stopped_by = stopped_by.or(end.err());
                    }
                    None => {
                        is_read = true;
                        stopped_by = stopped_by.or_else(|| Some("the reading of the input broke down".to_owned()));
                    }
                },
                _ = every_second.tick() => self.look()?,
            }
            if let Some(error) = self.outcomes.error() {
                stopped_by = Some(error.to_string());
                self.stop.stop();
            }
            // A stopped source may never end by itself: its thread may wait for a row that does not come.
            is_read |= is_settled && self.stop.is_stopped();
        }
        self.look()?;
        // A stop that came between the last two looks at the run has ended the source, too.
        let was_stopped = stopped_by.is_none() && self.stop.is_stopped();
        Ok(if was_stopped { Some(slugline::Error::Stopped.to_string()) } else { stopped_by })
    }

    fn settle(&mut self, outcome: &Outcome) -> Result<(), String> {
        let (place, kept) = self.under_way.take(outcome.index);
        self.tally.take(&place.file);
        self.tally.settle(&place, outcome);
        let (output, path) = &mut self.output;
        let written = output.row(&Settled { outcome, place: &place, kept: &kept });
        written.map_err(|error| about("write output", path, &error))
    }

    fn reject(&mut self, reject: &Reject) -> Result<(), String> {
        self.tally.reject(reject);
        let (rejects, path) = &mut self.rejects;
        rejects.line(reject).map_err(|error| about("write rejects", path, &error))
    }

    /// What is due every second.
    fn look(&mut self) -> Result<(), String> {
        let (output, path) = &mut self.output;
        output.flush_if_due().map_err(|error| about("write output", path, &error))?;
        let (rejects, path) = &mut self.rejects;
        rejects.flush_if_due().map_err(|error| about("write rejects", path, &error))?;
        let Tally { rows, rejected, failed, .. } = self.tally;
        let stats = self.outcomes.stats();
        self.progress.update(Counts {
            done: rows,
            before: stats.from_ledger,
            failed: failed + rejected,
            total: self.position.estimated_total().map(|total| total.max(rows)),
            measured: Some(Measured::from(&stats)),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_numbers_are_one() {
        assert_eq!(kind_of("not UTF-8 at byte 1234"), kind_of("not UTF-8 at byte 7"));
        assert_eq!(kind_of("3 fields where the header has 12"), "… fields where the header has …");
    }
}
