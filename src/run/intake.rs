//! How items come in: as many as there is room for, each text once.

use std::task::{Context, Poll};

use futures_core::Stream;

use super::job::{Item, Tier};
use super::{Run, Tuner};
use crate::NewsItem;
use crate::dedup::Seen;
use crate::error::{ItemError, ItemErrorKind};
use crate::prompt::clean::CleanText;
use crate::prompt::suspect;

/// How many packs' worth of items may be on their way for each request that may be in flight: enough to keep requests
/// full while some wait for a retry.
const PACKS_PER_PLACE: usize = 4;
/// The same beside the requests in flight.
const PACKS_ASIDE: usize = 16;
/// Outcomes that may wait for the consumer before no more items are taken in.
const MOST_WAITING_OUTCOMES: usize = 64;

impl<S: Stream<Item = NewsItem>> Run<S> {
    pub(super) fn poll_source(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        let room = self.room();
        while self.unsettled < room && self.outcomes.len() < MOST_WAITING_OUTCOMES && self.takes_more() {
            let Some(source) = &mut self.source else { break };
            let Poll::Ready(item) = source.as_mut().poll_next(cx) else { break };
            has_changed = true;
            match item {
                Some(item) => self.take_in(item),
                None => self.source = None,
            }
        }
        has_changed
    }

    /// How many items may be on their way.
    fn room(&self) -> usize {
        let room = (PACKS_PER_PLACE * self.shared.pool.capacity() + PACKS_ASIDE) * self.largest_pack();
        #[cfg(feature = "embedded")]
        let room = room + self.first_look.room();
        room
    }

    /// Whether the next item of the source may be taken in, room aside.
    pub(crate) fn takes_more(&self) -> bool {
        // What waits inside a run cannot be given up, so a run that serves takes no more than its next pack.
        let has_pack = self.serves && self.lanes[0].packer.len() >= self.largest_pack();
        #[cfg(feature = "ledger")]
        let has_pack = has_pack || self.recall.is_full();
        // Nor before those that failed of an error are handed on, since it forgets the error with the next item.
        #[cfg(feature = "ledger")]
        let has_pack = has_pack || (self.serves && self.error.is_some() && !self.recall.is_empty());
        self.taken_in < self.take_below && !has_pack
    }

    /// Lets only items below this index be taken in.
    pub(crate) fn take_below(&mut self, index: u64) {
        self.take_below = index;
    }

    /// The most items that a pack may have.
    fn largest_pack(&self) -> usize {
        self.tuner.as_ref().map_or(self.pack_size, Tuner::largest)
    }

    fn take_in(&mut self, item: NewsItem) {
        let index = self.taken_in;
        self.taken_in += 1;
        let now = self.recorder.taken_in();
        self.unsettled += 1;
        if self.serves && self.error.take().is_some() {
            self.shared.pool.begin_run();
        } else if self.unsettled == 1 {
            self.shared.pool.resume();
        }
        if self.error.is_some() {
            return self.outcome(index, item.id, Err(ItemError::of(ItemErrorKind::NotAttempted)));
        }
        let Some(text) = CleanText::of(&item, self.shared.settings.item_tokens) else {
            return self.outcome(index, item.id, Err(ItemError::of(ItemErrorKind::Empty)));
        };
        let text = match &self.shared.tokens {
            Some(tokens) => text.counted_with(&**tokens),
            None => text,
        };
        let is_suspect = suspect::is_suspect(&item);
        self.ask_or_copy(Item {
            alone: is_suspect,
            is_suspect,
            taken_in: Some(now),
            ..Item::new(index, item.id, text)
        });
    }

    /// Asks an item, unless the answer to another is its answer, too.
    pub(super) fn ask_or_copy(&mut self, item: Item) {
        if self.error.is_some() {
            return self.fail(item, ItemErrorKind::NotAttempted);
        }
        match self.dedup.see(item) {
            Seen::New(item) => {
                if item.is_suspect {
                    self.recorder.count(|counts| counts.suspects += 1);
                }
                self.ask(item);
            }
            Seen::Waits => {}
            Seen::Answered(outcome) => self.emit(*outcome),
        }
    }

    /// Asks for the first time, unless the ledger has the answer.
    pub(super) fn ask(&mut self, item: Item) {
        #[cfg(feature = "ledger")]
        let Some(item) = self.recall(item) else { return };
        self.pass_on(item);
    }

    /// Lets an item that no answer is known to join a pack, after the engine in the process where there is one.
    pub(super) fn pass_on(&mut self, item: Item) {
        #[cfg(feature = "embedded")]
        let Some(item) = self.look_at(item) else { return };
        self.lane(Tier::First).packer.push(item);
    }
}
