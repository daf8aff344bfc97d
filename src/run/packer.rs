//! Groups items into packs: by count and token budget, similar lengths together, nobody waiting for ever.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::job::{Item, Pack};
use crate::prompt::frame::FRAME_TOKENS;

/// How many packs' worth of items are looked at for neighbours of similar length.
const WINDOW_PACKS: usize = 8;

/// Items that wait for their pack.
#[derive(Debug)]
pub(crate) struct Packer {
    max_wait: Duration,
    /// In the order of arrival, each with its arrival.
    waiting: VecDeque<(Instant, Item)>,
}

impl Packer {
    pub(crate) fn new(max_wait: Duration) -> Self {
        Self { max_wait, waiting: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.waiting.push_back((Instant::now(), item));
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the oldest item has waited long enough for its pack to leave part-filled.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().and_then(|(since, _)| since.checked_add(self.max_wait))
    }

    /// Everything that waits.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Item> + '_ {
        self.waiting.drain(..).map(|(_, item)| item)
    }

    /// The next pack of so many items, if one is full or must not wait any longer (`flush`: because nothing more will come). It always has
    /// the item that waits longest, and those nearest to it in length, up to `budget_tokens` with their frames.
    pub(crate) fn take(&mut self, pack_size: usize, budget_tokens: usize, flush: bool) -> Option<Pack> {
        let is_due = self.deadline().is_some_and(|deadline| deadline <= Instant::now());
        let (_, oldest) = self.waiting.front()?;
        let has_full = self.waiting.len() >= pack_size;
        if !(has_full || flush || is_due || oldest.alone) {
            return None;
        }
        if oldest.alone || pack_size == 1 {
            let (_, item) = self.waiting.pop_front()?;
            return Some(Pack { avoid: item.refused_by, ..Pack::new(vec![item]) });
        }
        let anchor = oldest.text.tokens;
        let mut candidates: Vec<(usize, usize)> = self
            .waiting
            .iter()
            .enumerate()
            .skip(1)
            .take(WINDOW_PACKS * pack_size)
            .filter(|(_, (_, item))| !item.alone)
            .map(|(at, (_, item))| (item.text.tokens.abs_diff(anchor), at))
            .collect();
        candidates.sort_unstable();

        let mut tokens = anchor + FRAME_TOKENS;
        let mut picked = vec![0];
        for (_, at) in candidates {
            if picked.len() == pack_size {
                break;
            }
            let more = self.waiting[at].1.text.tokens + FRAME_TOKENS;
            if tokens + more <= budget_tokens {
                tokens += more;
                picked.push(at);
            }
        }
        picked.sort_unstable();
        // From the back, so that the places of the others stay; the window is near the front, where removing is cheap.
        let taken = picked.iter().rev().filter_map(|&at| self.waiting.remove(at));
        let mut items: Vec<Item> = taken.map(|(_, item)| item).collect();
        items.reverse();
        Some(Pack::new(items))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::clean::CleanText;

    fn item(index: u64, tokens: usize) -> Item {
        Item::new(index, index.to_string(), CleanText { title: "T".into(), body: String::new(), tokens })
    }

    fn indices(pack: Option<Pack>) -> Vec<u64> {
        pack.map(|pack| pack.items.iter().map(|item| item.index).collect()).unwrap_or_default()
    }

    fn packer(tokens: &[usize]) -> Packer {
        let mut packer = Packer::new(Duration::from_millis(20));
        (0..).zip(tokens).for_each(|(index, &tokens)| packer.push(item(index, tokens)));
        packer
    }

    #[tokio::test(start_paused = true)]
    async fn similar_lengths_share_a_pack_and_the_oldest_is_always_in_it() {
        let mut packer = packer(&[100, 10, 90, 12, 11, 95]);
        assert_eq!(indices(packer.take(3, 10_000, false)), [0, 2, 5]);
        assert_eq!(indices(packer.take(3, 10_000, false)), [1, 3, 4]);
        assert!(packer.take(3, 10_000, true).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_filled_pack_leaves_when_its_wait_is_over_or_nothing_more_comes() {
        let mut packer = packer(&[10, 10]);
        assert!(packer.take(3, 10_000, false).is_none());
        tokio::time::advance(Duration::from_millis(20)).await;
        assert_eq!(indices(packer.take(3, 10_000, false)), [0, 1]);
        packer.push(item(7, 10));
        assert_eq!(indices(packer.take(3, 10_000, true)), [7]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_bounds_the_pack_but_never_drops_an_item() {
        let mut packer = packer(&[900, 900, 900]);
        assert_eq!(indices(packer.take(3, 1_000, false)), [0]);
        packer.push(item(3, 5_000));
        assert_eq!(indices(packer.take(3, 1_000, true)), [1]);
        assert_eq!(indices(packer.take(3, 1_000, true)), [2]);
        assert_eq!(indices(packer.take(3, 1_000, true)), [3]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_must_be_alone_is() {
        let mut packer = packer(&[10, 10, 10]);
        packer.waiting[0].1.alone = true;
        packer.waiting[2].1.alone = true;
        assert_eq!(indices(packer.take(3, 1_000, false)), [0]);
        assert_eq!(indices(packer.take(3, 1_000, true)), [1]);
        assert_eq!(indices(packer.take(3, 1_000, true)), [2]);
    }
}
