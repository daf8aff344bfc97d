//! The state of a batch between two files: what has to be asked still.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Batch;
use crate::prompt::clean::CleanText;
use crate::run;
use crate::server::{Dialect, Request};

/// The version of the file that a round is kept in.
const VERSION: u32 = 1;

/// What a batch has to ask still: requests, each with its items.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    pub(super) number: u32,
    /// All items of the batch.
    pub(super) items: u64,
    /// Those that have an outcome.
    pub(super) settled: u64,
    pub(super) dialect: Dialect,
    pub(super) asks: Vec<Ask>,
}

/// A request and its items, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) custom_id: String,
    pub(super) items: Vec<Pending>,
}

/// An item without an outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) index: u64,
    pub(super) id: String,
    pub(super) text: Arc<CleanText>,
    /// The requests with it that were answered or failed.
    pub(super) attempts: u32,
    /// The answers that had no valid label for it.
    pub(super) content_failures: u32,
    /// The requests with it that failed while others were answered.
    pub(super) transport_failures: u32,
    /// Whether it was refused once already, asked alone.
    pub(super) has_been_refused: bool,
    pub(super) alone: bool,
    /// The index and id of items with the same text.
    pub(super) copies: Vec<(u64, String)>,
}

impl Round {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How many requests it has.
    pub fn len(&self) -> usize {
        self.asks.len()
    }

    /// Whether it has no request.
    pub fn is_empty(&self) -> bool {
        self.asks.is_empty()
    }

    /// Whether every item of the batch has its outcome.
    pub fn is_done(&self) -> bool {
        self.is_empty()
    }

    /// All items of the batch, and those that have an outcome.
    pub fn items(&self) -> (u64, u64) {
        (self.items, self.settled)
    }

    /// The requests, each with its `custom_id`.
    pub(super) fn requests<'a>(&'a self, batch: &'a Batch) -> impl Iterator<Item = (&'a str, Request)> {
        self.asks.iter().map(|ask| {
            (&*ask.custom_id, run::request(&batch.shared, &ask.texts(), self.dialect, Arc::clone(&batch.model)))
        })
    }

    pub(super) fn save(&self, batch: &Batch, mut out: impl Write) -> io::Result<()> {
        let header = Header {
            slugline_batch: VERSION,
            round: self.number,
            items: self.items,
            settled: self.settled,
            requests: self.asks.len(),
            model: batch.model.to_string(),
            taxonomy: batch.shared.taxonomy.hash().to_owned(),
            prompt_version: batch.shared.prefix.version().as_str().to_owned(),
            dialect: self.dialect,
        };
        write_line(&mut out, &header)?;
        self.asks.iter().try_for_each(|ask| write_line(&mut out, ask))?;
        out.flush()
    }

    pub(super) fn load(batch: &Batch, from: impl BufRead) -> Result<Self, BatchError> {
        let mut lines = from.lines().zip(1_usize..);
        let first = lines.next().map_or_else(|| Ok(String::new()), |(line, _)| line)?;
        let torn = |line: usize, reason: &serde_json::Error| BatchError::Unreadable {
            line,
            // The message of a parser can quote what it read.
            reason: format!("{:?} error at column {}", reason.classify(), reason.column()).to_lowercase(),
        };
        let found: Version = serde_json::from_str(&first).map_err(|error| torn(1, &error))?;
        if found.slugline_batch != VERSION {
            return Err(BatchError::OtherVersion { found: found.slugline_batch });
        }
        let header: Header = serde_json::from_str(&first).map_err(|error| torn(1, &error))?;
        let here = |what, found: &str, expected: &str| {
            let other = || BatchError::OtherBatch { what, found: found.to_owned(), expected: expected.to_owned() };
            if found == expected { Ok(()) } else { Err(other()) }
        };
        here("model", &header.model, &batch.model)?;
        here("taxonomy", &header.taxonomy, batch.shared.taxonomy.hash())?;
        here("prompt version", &header.prompt_version, batch.shared.prefix.version().as_str())?;
        let mut asks: Vec<Ask> = Vec::new();
        for (line, number) in lines {
            asks.push(serde_json::from_str(&line?).map_err(|error| torn(number, &error))?);
        }
        let items = asks.iter().flat_map(|ask| &ask.items);
        let unsettled = items.map(|item| 1 + item.copies.len() as u64).sum::<u64>();
        if asks.len() != header.requests || header.settled.checked_add(unsettled) != Some(header.items) {
            let reason = format!("{} of {} requests are there", asks.len(), header.requests);
            return Err(BatchError::Unreadable { line: asks.len() + 1, reason });
        }
        let Header { round, items, settled, dialect, .. } = header;
        Ok(Self { number: round, items, settled, dialect, asks })
    }
}

impl Ask {
    pub(super) fn texts(&self) -> Vec<Arc<CleanText>> {
        self.items.iter().map(|item| Arc::clone(&item.text)).collect()
    }
}

/// The first line of a round's file.
#[derive(Serialize, Deserialize)]
struct Header {
    slugline_batch: u32,
    round: u32,
    items: u64,
    settled: u64,
    requests: usize,
    model: String,
    taxonomy: String,
    prompt_version: String,
    dialect: Dialect,
}

/// What the first line of every version has.
#[derive(Deserialize)]
struct Version {
    slugline_batch: u32,
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Why a round cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The file cannot be read.
    #[error("the round of the batch cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is not whole, or no file of a round.
    #[error("line {line} of the round of the batch cannot be used, {reason}: restore the file or begin again")]
    Unreadable {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is of a version that this one does not know.
    #[error("the round of the batch has version {found}, this program knows up to {VERSION}: use a newer one")]
    OtherVersion {
        /// The file's version.
        found: u32,
    },
    /// The file belongs to a batch whose answers would mean something else.
    #[error("the round of the batch has {what} {found}, not {expected}: go on with what it was begun with")]
    OtherBatch {
        /// What differs: the model, the taxonomy or the prompt version.
        what: &'static str,
        /// That of the file.
        found: String,
        /// That of this batch.
        expected: String,
    },
}
