//! What a run does with its ledger: it asks nothing that is there, and hands on nothing that is not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::job::Item;
use super::{Run, Shared};
use crate::NewsItem;
use crate::error::{Error, ItemError, ItemErrorKind, Status};
use crate::ledger::{self, Recalled};
use crate::outcome::{Assignment, Outcome};

/// Outcomes that may wait to be written before no more items are taken in: as many as a fast run settles during a slow
/// sync.
const MOST_HELD: usize = 4_096;

/// A run's dealings with its ledger.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// Items whose records are being read, by index.
    reading: HashMap<u64, Item>,
    replies: Option<(UnboundedSender<Recalled>, UnboundedReceiver<Recalled>)>,
    /// Outcomes that wait until the record with this number is safe.
    held: VecDeque<(u64, Outcome)>,
    /// The run's last record, and the last that is known to be safe.
    written: u64,
    safe: u64,
}

impl Recall {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { replies: shared.ledger.is_some().then(unbounded_channel), ..Self::default() }
    }

    /// Gives an outcome back if nothing that was written before is still to become safe; else keeps it.
    pub(super) fn hold(&mut self, outcome: Outcome) -> Option<Outcome> {
        if self.held.is_empty() && self.written <= self.safe {
            return Some(outcome);
        }
        self.held.push_back((self.written, outcome));
        None
    }

    /// Whether no outcome waits.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.held.len() >= MOST_HELD
    }
}

impl<S: Stream<Item = NewsItem>> Run<S> {
    /// Looks an item up. Gives it back if it must be asked.
    pub(super) fn recall(&mut self, item: Item) -> Option<Item> {
        let shared = Arc::clone(&self.shared);
        let (Some((ledger, questions)), Some((reply, _))) = (&shared.ledger, &self.recall.replies) else {
            return Some(item);
        };
        let Some(text) = self.dedup.text_of(item.index) else { return Some(item) };
        let own = questions.answers(text).chain(std::iter::once(questions.failure(text)));
        let keys = own.chain(questions.standing(text));
        match ledger.look_up(keys, item.index, reply) {
            Ok(true) => {
                self.recall.reading.insert(item.index, item);
                None
            }
            Ok(false) => Some(item),
            Err(error) => {
                self.end(Error::Ledger(error));
                self.fail(item, ItemErrorKind::NotAttempted);
                None
            }
        }
    }

    /// Writes what became of an item.
    pub(super) fn record(&mut self, item: &Item, result: &Result<Assignment, ItemError>) {
        let shared: &Shared = &self.shared;
        let (Some((ledger, questions)), Some(_)) = (&shared.ledger, &self.recall.replies) else { return };
        let Some(text) = self.dedup.text_of(item.index) else { return };
        if let Ok(assignment) = result
            && let Some(key) = questions.standing_of(text, &assignment.origin.model)
            && let Some(payload) = ledger::of_standing(key, assignment, &shared.taxonomy)
        {
            self.recall.written = ledger.append(&payload);
        }
        let payload = match result {
            Ok(assignment) => questions
                .answer(text, &assignment.origin.model)
                .and_then(|key| ledger::of_answer(key, assignment, &shared.taxonomy)),
            Err(error) if is_doubtful(error, shared) => None,
            Err(error) => ledger::of_failure(questions.failure(text), error),
        };
        if let Some(payload) = payload {
            self.recall.written = ledger.append(&payload);
        }
    }

    pub(super) fn poll_ledger(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        while let Some((_, replies)) = &mut self.recall.replies {
            let Poll::Ready(Some((index, payload))) = replies.poll_recv(cx) else { break };
            self.recalled(index, payload.as_deref());
            has_changed = true;
        }
        let shared = Arc::clone(&self.shared);
        while let (Some((number, _)), Some((ledger, _))) = (self.recall.held.front(), &shared.ledger) {
            match ledger.poll_safe(*number, cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(safe)) => self.hand_on_up_to(safe),
                Poll::Ready(Err(error)) => self.give_up(Error::Ledger(error)),
            }
            has_changed = true;
        }
        has_changed
    }

    /// A record was read: settles its item, or asks it after all.
    fn recalled(&mut self, index: u64, payload: Option<&[u8]>) {
        let Some(item) = self.recall.reading.remove(&index) else { return };
        let shared = Arc::clone(&self.shared);
        if let Some(payload) = payload.filter(|payload| ledger::is_standing(payload)) {
            let with_rivals = shared.across_versions == Some(ledger::AcrossVersions::SameRivals);
            if let Some(assignment) = ledger::read_standing(payload, &shared.taxonomy, with_rivals) {
                self.recorder.count(|counts| counts.kept_across_versions += 1);
                return self.conclude(item, Ok(named(assignment, &shared)));
            }
            self.recorder.count(|counts| counts.changed_since_version += 1);
        }
        let found = payload.and_then(|payload| ledger::read(payload, &shared.taxonomy, shared.prefix.version()));
        let retries_permanent = shared.ledger.as_ref().is_some_and(|(ledger, _)| ledger.retries_permanent());
        match found {
            Some(Ok(assignment)) => self.conclude(item, Ok(named(assignment, &shared))),
            Some(Err(error)) if error.status() == Status::Permanent && !retries_permanent => {
                self.conclude(item, Err(error));
            }
            _ if self.error.is_some() => self.fail(item, ItemErrorKind::NotAttempted),
            _ => self.pass_on(item),
        }
    }

    fn hand_on_up_to(&mut self, safe: u64) {
        self.recall.safe = safe;
        while let Some((_, outcome)) = self.recall.held.pop_front_if(|(number, _)| *number <= safe) {
            self.hand_on(outcome);
        }
    }

    /// Nothing can be written any more: the run ends, and what is not written is not handed on as done.
    fn give_up(&mut self, error: Error) {
        if !matches!(self.error, Some(Error::Ledger(_))) {
            self.end(error);
        }
        for (_, mut outcome) in std::mem::take(&mut self.recall.held) {
            let is_written = match &outcome.result {
                Ok(assignment) => assignment.origin.from_ledger,
                Err(error) => matches!(error.kind, ItemErrorKind::Empty | ItemErrorKind::NotAttempted),
            };
            if !is_written {
                outcome.result = Err(ItemError::of(ItemErrorKind::NotAttempted));
            }
            self.hand_on(outcome);
        }
    }
}

/// Whether a failure may be the server's fault though it looks like the item's.
fn is_doubtful(error: &ItemError, shared: &Shared) -> bool {
    match error.kind {
        // Where nothing was answered lately, the server or the form of the request may be wrong.
        ItemErrorKind::Rejected => {
            !error.failure.as_ref().is_some_and(|failure| shared.pool.is_trusted_to_reject(&failure.endpoint))
        }
        // An item is cut shorter before: what does not fit is the prompt around it.
        ItemErrorKind::TooLong => true,
        _ => false,
    }
}

/// The same answer with the category's name as it is given out.
fn named(assignment: Assignment, shared: &Shared) -> Assignment {
    let category = shared.taxonomy.find(assignment.category.as_str());
    let name = category.map_or_else(|| Arc::clone(&assignment.name), |category| shared.name_of(category));
    Assignment { name, ..assignment }
}
