//! Prefix caches: by blocks of tokens, as vLLM has one, where a block is found again when it and all blocks before it are
//! the same; and by slots, as llama.cpp has them, where each keeps the last prompt that ran in it.

use std::collections::{BTreeMap, HashMap};

use super::hash::chain;

/// Remembers which blocks of tokens were computed, the least recently used forgotten first.
#[derive(Debug)]
pub(super) struct PrefixCache {
    block_tokens: usize,
    capacity_blocks: usize,
    /// The hash of a block and all before it, with the time of its last use.
    blocks: HashMap<u64, u64>,
    /// The same the other way round, oldest first.
    by_age: BTreeMap<u64, u64>,
    clock: u64,
}

impl PrefixCache {
    /// An empty cache; with a capacity of 0 nothing is ever found.
    pub(super) fn new(block_tokens: usize, capacity_blocks: usize) -> Self {
        let (blocks, by_age) = (HashMap::new(), BTreeMap::new());
        Self { block_tokens: block_tokens.max(1), capacity_blocks, blocks, by_age, clock: 0 }
    }

    /// How many leading tokens of a prompt are in the cache, whole blocks only. The last token of a prompt is always
    /// computed, or there would be nothing to continue from.
    pub(super) fn cached_tokens(&self, prompt: &[u64]) -> usize {
        let usable = &prompt[..prompt.len().saturating_sub(1)];
        let hits = self.block_hashes(usable).take_while(|hash| self.blocks.contains_key(hash)).count();
        hits * self.block_tokens
    }

    /// Puts all whole blocks of a prompt in, as the most recently used ones.
    pub(super) fn insert(&mut self, prompt: &[u64]) {
        if self.capacity_blocks == 0 {
            return;
        }
        // The end of a prompt is of use only together with its beginning, so the beginning is made the youngest.
        let hashes: Vec<_> = self.block_hashes(prompt).collect();
        for hash in hashes.into_iter().rev() {
            self.clock += 1;
            if let Some(age) = self.blocks.insert(hash, self.clock) {
                self.by_age.remove(&age);
            }
            self.by_age.insert(self.clock, hash);
        }
        while self.blocks.len() > self.capacity_blocks {
            let Some((_, oldest)) = self.by_age.pop_first() else { break };
            self.blocks.remove(&oldest);
        }
    }

    /// Forgets everything, as a restarted server does.
    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.by_age.clear();
    }

    fn block_hashes<'a>(&self, prompt: &'a [u64]) -> impl Iterator<Item = u64> + use<'a> {
        prompt.chunks_exact(self.block_tokens).scan(0, |before, block| {
            *before = block.iter().fold(*before, |hash, token| chain(hash, *token));
            Some(*before)
        })
    }
}

/// Places to run, each of which remembers its last prompt.
#[derive(Debug)]
pub(super) struct SlotCache {
    slots: Vec<Slot>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    prompt: Vec<u64>,
    is_busy: bool,
    used_at: u64,
}

/// How much of a prompt must be in a slot, as one part in so many, for the slot to be chosen for it (llama.cpp's
/// `--slot-prompt-similarity`).
const LEAST_SIMILAR_PART: usize = 10;

impl SlotCache {
    pub(super) fn new(slots: usize) -> Self {
        Self { slots: vec![Slot::default(); slots.max(1)], clock: 0 }
    }

    /// Takes a free slot, the one with the most of the prompt if that is enough, else the one that was left alone the
    /// longest. Gives its number and how many leading tokens of the prompt are in it. There must be no more requests than
    /// slots; if there are, they share the first.
    pub(super) fn take(&mut self, prompt: &[u64]) -> (usize, usize) {
        let common = |slot: &Slot| slot.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.is_busy);
        let similar = free()
            .map(|(number, slot)| (common(slot), number))
            .filter(|(common, _)| LEAST_SIMILAR_PART * common > prompt.len())
            .max();
        let oldest = || free().min_by_key(|(_, slot)| slot.used_at).map_or(0, |(number, _)| number);
        let number = similar.map_or_else(oldest, |(_, number)| number);
        let cached_tokens = common(&self.slots[number]).min(prompt.len().saturating_sub(1));
        self.clock += 1;
        self.slots[number] = Slot { prompt: prompt.to_vec(), is_busy: true, used_at: self.clock };
        (number, cached_tokens)
    }

    /// Gives a slot back; its prompt stays.
    pub(super) fn give_back(&mut self, number: usize) {
        self.slots[number].is_busy = false;
    }

    /// Forgets all prompts.
    pub(super) fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.prompt.clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(prefix_tokens: u64, rest: u64) -> Vec<u64> {
        (0..prefix_tokens).chain((0..100).map(|token| rest * 1_000 + token)).collect()
    }

    #[test]
    fn whole_leading_blocks_are_found_again() {
        let mut cache = PrefixCache::new(16, 1_000);
        assert_eq!(cache.cached_tokens(&prompt(100, 1)), 0);
        cache.insert(&prompt(100, 1));
        assert_eq!(cache.cached_tokens(&prompt(100, 2)), 96);
        assert_eq!(cache.cached_tokens(&prompt(100, 1)), 192);
        assert_eq!(cache.cached_tokens(&prompt(15, 1)), 0);
        cache.clear();
        assert_eq!(cache.cached_tokens(&prompt(100, 1)), 0);
    }

    #[test]
    fn a_prompt_is_never_cached_to_its_last_token() {
        let mut cache = PrefixCache::new(16, 1_000);
        let prompt: Vec<u64> = (0..32).collect();
        cache.insert(&prompt);
        assert_eq!(cache.cached_tokens(&prompt), 16);
        assert_eq!(cache.cached_tokens(&[]), 0);
    }

    #[test]
    fn the_least_recently_used_blocks_go_first() {
        let mut cache = PrefixCache::new(16, 20);
        for rest in 0..50 {
            cache.insert(&prompt(96, rest));
            assert!(cache.blocks.len() <= 20 && cache.by_age.len() == cache.blocks.len());
        }
        assert_eq!(cache.cached_tokens(&prompt(96, 999)), 96, "the shared prefix stays");
        assert_eq!(cache.cached_tokens(&prompt(96, 0)), 96, "the rest of the first prompt is gone");
        let mut none = PrefixCache::new(16, 0);
        none.insert(&prompt(96, 0));
        assert_eq!(none.cached_tokens(&prompt(96, 0)), 0);
    }

    #[test]
    fn each_slot_computes_a_prefix_once() {
        let mut slots = SlotCache::new(2);
        assert_eq!(slots.take(&prompt(100, 1)), (0, 0));
        assert_eq!(slots.take(&prompt(100, 2)), (1, 0), "the first is busy");
        slots.give_back(1);
        slots.give_back(0);
        assert_eq!(slots.take(&prompt(100, 3)).1, 100);
        assert_eq!(slots.take(&prompt(100, 4)).1, 100);
        (0..2).for_each(|slot| slots.give_back(slot));
        let (slot, cached) = slots.take(&prompt(0, 5));
        assert_eq!(cached, 0);
        slots.give_back(slot);
        assert_eq!(slots.take(&prompt(0, 5)), (slot, 99), "never to the last token");
        slots.clear();
        assert_eq!(slots.take(&prompt(100, 3)).1, 0);
    }
}
