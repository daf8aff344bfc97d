//! A prefix cache by blocks of tokens, as vLLM has one: a block is found again when it and all blocks before it are the
//! same.

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
}
