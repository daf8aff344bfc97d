//! The items that wait for a pack at one category.

use std::collections::VecDeque;

use super::route::Route;

/// A path of an item that is to be asked about at the next level.
#[derive(Debug)]
pub(super) struct Ask {
    /// The item's number in the input.
    pub(super) index: u64,
    pub(super) route: Route,
}

/// Items that wait until they fill a pack.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Ask>,
    /// The packs of all categories that had left when the first of them came.
    since_packs: u64,
}

impl Queue {
    /// Takes an item in, when so many packs have left.
    pub(super) fn push(&mut self, ask: Ask, packs: u64) {
        if self.waiting.is_empty() {
            self.since_packs = packs;
        }
        self.waiting.push_back(ask);
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the first has waited while more than `most` packs left.
    pub(super) fn is_due(&self, packs: u64, most: u64) -> bool {
        !self.waiting.is_empty() && packs - self.since_packs > most
    }

    /// Takes the first out, a pack's worth at most.
    pub(super) fn take(&mut self, pack_size: usize, packs: u64) -> impl Iterator<Item = Ask> + '_ {
        self.since_packs = packs;
        self.waiting.drain(..pack_size.min(self.waiting.len()))
    }
}
