//! Which of several prefixes an endpoint was sent last, and so may have cached.

use std::collections::VecDeque;

/// How many prefixes an endpoint is taken to have cached: about as many of 500 tokens as a cache of 32,000 holds.
const KEPT: usize = 64;

/// The prefixes that were sent last, the latest at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct WarmPrefixes(VecDeque<usize>);

impl WarmPrefixes {
    pub(crate) fn has(&self, prefix: usize) -> bool {
        self.0.contains(&prefix)
    }

    /// Notes that a prefix was sent.
    pub(crate) fn extend_with(&mut self, prefix: Option<usize>) {
        let Some(prefix) = prefix.filter(|prefix| self.0.back() != Some(prefix)) else { return };
        self.0.retain(|known| *known != prefix);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefixes_sent_last_are_warm() {
        let mut warm = WarmPrefixes::default();
        warm.extend_with(None);
        (0..KEPT).for_each(|prefix| warm.extend_with(Some(prefix)));
        warm.extend_with(Some(0));
        warm.extend_with(Some(KEPT));
        assert!(warm.has(0) && warm.has(KEPT) && !warm.has(1), "{warm:?}");
    }
}
