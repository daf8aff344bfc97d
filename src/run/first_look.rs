//! How the engine in the process looks at items before the LLM is asked: many at once, off the runtime.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::job::Item;
use super::{LOST_FOR, Run, Shared, Tier};
use crate::NewsItem;
use crate::answer::Label;
use crate::dedup::TextHash;
use crate::embedded::{Counts, Decision, Desk, EmbedError, FirstOpinionStats, Opinion};
use crate::error::{Error, ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Engine, Origin};

/// The items that are looked at at once: a second or two of work on a small machine.
const BATCH_ITEMS: usize = 64;
/// Audited items that may wait for the LLM before the engine goes on: one that is much faster would else settle thousands of items
/// before a drift is noticed.
const MOST_OPEN_AUDITS: usize = 30;
/// What stands for an address in the origin of its answers.
const ENDPOINT: &str = "embedded";

/// A run's dealings with its engine.
#[derive(Debug, Default)]
pub(super) struct FirstLook {
    engine: Option<Arc<Desk>>,
    waiting: VecDeque<Item>,
    /// The items that are looked at now, and the work on a thread that may block.
    looking: Vec<Item>,
    work: JoinSet<Result<Vec<Opinion>, EmbedError>>,
    /// It has failed, and when: everything goes on to the LLM.
    lost: Option<(Instant, EmbedError)>,
    /// Audited items that have no outcome yet.
    open_audits: usize,
    counts: Counts,
}

impl FirstLook {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { engine: shared.engine.clone(), ..Self::default() }
    }

    /// How many items may be on their way beside the others: a batch at work and one that waits.
    pub(super) fn room(&self) -> usize {
        if self.engine.is_some() { 2 * BATCH_ITEMS } else { 0 }
    }

    /// Whether no item waits for it.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.looking.is_empty()
    }

    /// Takes the items out that it has not begun with.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Item> {
        self.waiting.drain(..)
    }

    pub(super) fn stats(&self) -> Option<FirstOpinionStats> {
        let mut stats = self.engine.as_ref()?.stats(&self.counts);
        stats.lost_because = self.lost.as_ref().map(|(_, error)| error.to_string());
        Some(stats)
    }
}

impl<S: Stream<Item = NewsItem>> Run<S> {
    /// Lets an item wait for the engine. Gives it back if there is none.
    pub(super) fn look_at(&mut self, item: Item) -> Option<Item> {
        // A run that serves goes on for days: it tries a lost engine again after a while.
        if self.serves {
            self.first_look.lost.take_if(|(lost_at, _)| lost_at.elapsed() >= LOST_FOR);
        }
        if self.first_look.engine.is_none() || self.first_look.lost.is_some() {
            return Some(item);
        }
        self.first_look.waiting.push_back(item);
        None
    }

    pub(super) fn poll_first_look(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        while let Poll::Ready(Some(looked)) = self.first_look.work.poll_join_next(cx) {
            has_changed = true;
            let items = std::mem::take(&mut self.first_look.looking);
            match looked.unwrap_or_else(|_| Err(EmbedError::failed("it panicked"))) {
                Ok(opinions) => items.into_iter().zip(opinions).for_each(|(item, opinion)| self.hear(item, &opinion)),
                Err(error) => self.lose_engine(items, error),
            }
        }
        if has_changed {
            self.report_first_opinion();
        }
        has_changed | self.begin_look()
    }

    fn begin_look(&mut self) -> bool {
        let look = &mut self.first_look;
        let Some(engine) = look.engine.clone() else { return false };
        if !look.looking.is_empty() || look.waiting.is_empty() || look.open_audits >= MOST_OPEN_AUDITS {
            return false;
        }
        let count = look.waiting.len().min(BATCH_ITEMS);
        look.looking = look.waiting.drain(..count).collect();
        let texts: Vec<_> = look.looking.iter().map(|item| Arc::clone(&item.text)).collect();
        look.work.spawn_blocking(move || engine.look(&texts));
        true
    }

    /// The engine has said what it thinks of an item.
    fn hear(&mut self, mut item: Item, opinion: &Opinion) {
        let Some(engine) = self.first_look.engine.clone() else { return };
        let label = label_of(opinion.shares.clone());
        let corrected = self.shared.calibrated(&label, 1, 1, engine.name());
        let shares = corrected.as_ref().map_or(&opinion.shares, |corrected| &corrected.probabilities);
        let (kind, label, corrected) =
            match engine.decide(number_of(&item), opinion, shares, &mut self.first_look.counts) {
                Decision::Settle(kind) => (kind, label, corrected),
                Decision::SettleByHead(shares) => (Engine::LearnedHead, label_of(shares), None),
                Decision::Ask(sampled) => {
                    item.sampled = sampled;
                    self.first_look.open_audits += usize::from(item.is_audit());
                    return self.ask_llm(item);
                }
            };
        let origin = Origin { engine: kind, ..self.shared.origin(&ENDPOINT.into(), engine.name()) };
        match self.shared.assignment(&label, corrected.as_ref(), origin) {
            Some(assignment) => {
                self.recorder.count(|counts| counts.relabelled += u64::from(assignment.origin.written.is_some()));
                self.conclude(item, Ok(assignment));
            }
            None => self.ask_llm(item),
        }
    }

    fn ask_llm(&mut self, item: Item) {
        if self.error.is_some() {
            return self.fail(item, ItemErrorKind::NotAttempted);
        }
        self.lane(Tier::First).packer.push(item);
    }

    /// The engine failed: with an LLM behind it the items go there, else the run ends.
    fn lose_engine(&mut self, items: Vec<Item>, error: EmbedError) {
        if self.first_look.engine.as_ref().is_some_and(|engine| engine.is_alone()) {
            if self.error.is_none() {
                self.end(Error::Embedding(error));
            }
        } else {
            tracing::warn!(%error, "the first opinion is lost; all items are asked");
            self.first_look.lost = Some((Instant::now(), error));
        }
        let waiting: Vec<Item> = self.first_look.drain().collect();
        items.into_iter().chain(waiting).for_each(|item| self.ask_llm(item));
    }

    /// Lets the engine know what the LLM said of an item that was chosen to be asked at both.
    pub(super) fn compare(&mut self, item: &Item, result: &Result<Assignment, ItemError>) {
        self.first_look.open_audits = self.first_look.open_audits.saturating_sub(usize::from(item.is_audit()));
        let (Some(engine), Some(sampled), Ok(assignment)) = (&self.first_look.engine, &item.sampled, result) else {
            return;
        };
        if let Some(category) = self.shared.taxonomy.position(assignment.category.as_str()) {
            engine.answered(number_of(item), sampled, category, &mut self.first_look.counts);
        }
    }
}

/// What chance goes by: the text of an item, so that it is the same in every run.
fn number_of(item: &Item) -> u64 {
    TextHash::of(&item.text).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The label of the greatest share; the shares are highest first.
fn label_of(shares: Vec<(usize, f32)>) -> Label {
    Label { category: shares.first().map_or(0, |best| best.0), probabilities: shares, secondary: Vec::new() }
}
