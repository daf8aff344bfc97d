//! Looks at a server's metrics for the proof of the prefix: what the server says of its cache once, and the cached tokens by
//! its counters where its answers do not say them.

use super::metrics::{Engine, ServerMetrics};

/// The answers between the first look at the counters and the second; later ones are ever rarer.
const ANSWERS_BETWEEN_LOOKS: u64 = 32;
/// The counters are those of all clients: beyond this many times our own prompt tokens they say too little of ours.
const MOST_FOREIGN_TOKENS: u64 = 2;

/// What the looks at one endpoint's metrics brought.
#[derive(Clone, Debug, Default)]
pub(super) struct Looks {
    said: Option<ServerMetrics>,
    /// The server has no metrics.
    is_absent: bool,
    counted: Option<Counters>,
    /// Whether the counters were seen twice.
    has_compared: bool,
    /// The next look at the counters is due after so many answers.
    next_at: u64,
    mean_cached_tokens: Option<f64>,
}

/// What the server had counted at a time, beside what we had.
#[derive(Clone, Copy, Debug)]
struct Counters {
    queries_tokens: u64,
    hits_tokens: u64,
    answers: u64,
    prompt_tokens: u64,
}

impl Looks {
    /// Whether a look would tell something new after so many answers: once after the first, and again now and then where
    /// the answers do not say what was cached.
    pub(super) fn are_wanted(&self, answers: u64, is_reported: bool) -> bool {
        let is_due = || !is_reported && self.counted.is_some() && answers >= self.next_at;
        answers > 0 && !self.is_absent && (self.said.is_none() || is_due())
    }

    /// Takes in what the server said after so many answers to our prompts; none means that it has no metrics.
    pub(super) fn take(&mut self, metrics: Option<&ServerMetrics>, answers: u64, prompt_tokens: u64) {
        let Some(metrics) = metrics else {
            // One that had metrics before is perhaps busy.
            self.is_absent = self.said.is_none();
            self.next_at = answers + ANSWERS_BETWEEN_LOOKS;
            return;
        };
        self.said = Some(metrics.clone());
        if answers < self.next_at {
            return;
        }
        self.next_at = (2 * answers).max(answers + ANSWERS_BETWEEN_LOOKS);
        let Some(now) = Counters::of(metrics, answers, prompt_tokens) else { return };
        if let Some(before) = self.counted.replace(now) {
            self.mean_cached_tokens = now.mean_cached_tokens_since(before);
            self.has_compared = true;
        }
    }

    /// Whether the first look is over, whatever it brought.
    pub(super) fn have_begun(&self) -> bool {
        self.said.is_some() || self.is_absent
    }

    /// Whether a look that is still to come may tell what is cached.
    pub(super) fn are_pending(&self) -> bool {
        !self.have_begun() || (self.counted.is_some() && !self.has_compared)
    }

    /// The cached tokens of one of our answers in the mean, between the last two looks.
    pub(super) fn mean_cached_tokens(&self) -> Option<f64> {
        self.mean_cached_tokens
    }

    pub(super) fn engine(&self) -> Option<Engine> {
        self.said.as_ref()?.engine
    }

    pub(super) fn block_tokens(&self) -> Option<u64> {
        self.said.as_ref()?.block_tokens
    }

    pub(super) fn prefix_caching(&self) -> Option<bool> {
        self.said.as_ref()?.prefix_caching
    }
}

impl Counters {
    fn of(metrics: &ServerMetrics, answers: u64, prompt_tokens: u64) -> Option<Self> {
        let queries_tokens = metrics.prefix_cache_queries_tokens?;
        let hits_tokens = metrics.prefix_cache_hits_tokens?;
        Some(Self { queries_tokens, hits_tokens, answers, prompt_tokens })
    }

    /// None when most of what the server counted was not ours, or it was started anew.
    fn mean_cached_tokens_since(self, before: Self) -> Option<f64> {
        let queries = self.queries_tokens.checked_sub(before.queries_tokens).filter(|&queries| queries > 0)?;
        let hits = self.hits_tokens.checked_sub(before.hits_tokens)?;
        let ours = self.prompt_tokens.saturating_sub(before.prompt_tokens);
        let answers = self.answers.saturating_sub(before.answers);
        let is_ours = queries <= ours.saturating_mul(MOST_FOREIGN_TOKENS) && answers > 0;
        is_ours.then(|| hits as f64 / queries as f64 * ours as f64 / answers as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(queries: u64, hits: u64) -> ServerMetrics {
        ServerMetrics {
            prefix_cache_queries_tokens: Some(queries),
            prefix_cache_hits_tokens: Some(hits),
            ..ServerMetrics::default()
        }
    }

    #[test]
    fn the_facts_are_read_once_and_the_counters_ever_more_rarely() {
        let mut looks = Looks::default();
        assert!(!looks.are_wanted(0, false) && looks.are_wanted(1, true));
        looks.take(Some(&metrics(0, 0)), 1, 1_000);
        assert!(!looks.are_wanted(500, true), "the answers say it");
        assert!(!looks.are_wanted(32, false) && looks.are_wanted(33, false) && looks.are_pending());
        looks.take(Some(&metrics(32_000, 16_000)), 33, 33_000);
        assert_eq!((looks.mean_cached_tokens(), looks.are_pending()), (Some(500.0), false));
        assert!(!looks.are_wanted(65, false) && looks.are_wanted(66, false));
        looks.take(None, 66, 66_000);
        assert!(looks.are_wanted(98, false), "it had metrics before");
    }

    #[test]
    fn a_server_without_metrics_is_not_asked_again() {
        let mut looks = Looks::default();
        looks.take(None, 1, 0);
        assert!(!looks.are_wanted(1_000, false) && !looks.are_pending());
    }

    #[test]
    fn counters_that_are_not_ours_or_start_anew_tell_nothing() {
        for (queries, hits) in [(90_000, 80_000), (500, 100), (5_000, 0)] {
            let mut looks = Looks::default();
            looks.take(Some(&metrics(5_000, 1_000)), 1, 1_000);
            looks.take(Some(&metrics(queries, hits)), 40, 40_000);
            assert_eq!((looks.mean_cached_tokens(), looks.are_pending()), (None, false), "{queries} {hits}");
        }
    }
}
