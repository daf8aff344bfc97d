//! The proof of the prefix: how much of it an endpoint's cache really has, beside what it could have, and why not more.

use std::collections::VecDeque;

use serde::Serialize;

use super::looks::Looks;
use super::metrics::{Engine, ServerMetrics};
use super::prefix_advice;
use super::wire::Usage;

/// Why an endpoint's cache has the prefix, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrefixVerdict {
    /// At least nine tenths of the prefix's tokens are cached.
    Fine,
    /// The server does not say.
    NotReported,
    /// Prefix caching is off.
    Disabled,
    /// The prefix is shorter than what hosted providers cache, 1,024 tokens.
    TooShort,
    /// The server caches in blocks that leave much of the prefix over.
    CoarseBlocks {
        /// The tokens of a block as the metrics say, else the fewest that explain what is seen.
        block_tokens: u64,
    },
    /// Each slot, or each server behind the address, has a cache of its own and computed the prefix once more.
    SlotCache,
    /// The cache is on, but the prefix is not the same tokens each time, or meets different servers.
    Unstable,
    /// The prefix was cached and is so no more.
    Evicted,
}

/// Where the cached tokens are known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CacheSource {
    /// From the `usage` of each answer.
    Usage,
    /// From the counters of `/metrics`, which count the requests of all clients.
    Metrics,
}

/// How much of the prefix an endpoint has cached, since the categorizer was built. The first answer of the endpoint, which
/// fills the cache, is left out of the shares.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PrefixCacheSnapshot {
    /// The answers seen, the first one included.
    pub answers: u64,
    /// The prefix's tokens as estimated, corrected by what the server counts; 0 before the first answer.
    pub prefix_tokens: u64,
    /// The tokens of a block where the metrics say it.
    pub block_tokens: Option<u64>,
    /// The share of the prefix's tokens that whole blocks can hold, 0 to 1: `floor(prefix / block) · block / prefix`, with
    /// blocks of 16 or less where the server does not say.
    pub expected_share: Option<f64>,
    /// The share of the prefix's tokens that were cached, 0 to 1: the mean of `min(cached, prefix) / prefix`.
    pub cached_share: Option<f64>,
    /// Where the cached tokens are known from.
    pub source: Option<CacheSource>,
    /// What that means; none before it can be told, after nine answers at the earliest.
    pub verdict: Option<PrefixVerdict>,
    /// What is the matter and how to mend it; none when nothing is.
    pub advice: Option<String>,
}

/// The share of the prefix from which its caching is fine. Blocks of 16 leave 2 % over, the estimate of the prefix's
/// tokens can be 5 % off.
const FINE_SHARE: f64 = 0.9;
/// How far off the estimate of the prefix's tokens may be.
const ESTIMATE_ERROR: f64 = 0.05;
/// The block where a server does not say: vLLM's default on GPUs.
const USUAL_BLOCK_TOKENS: u64 = 16;
/// Hosted providers cache prompts from this length on (OpenAI, "Prompt caching": in steps of 128 from 1,024).
pub(super) const PROVIDER_LEAST_TOKENS: u64 = 1_024;
/// The answers after the first one before anything is judged, and between two judgements.
const JUDGED_EVERY: u64 = 8;
/// The latest answers that are judged. Two of so many may have nothing cached without harm.
const WINDOW: usize = 32;

/// Counts for one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixCache {
    answers: u64,
    /// The latest estimate.
    prefix_tokens: u64,
    /// Whether any answer said how many tokens were cached. Where one does, silence means none: vLLM leaves a zero out.
    is_reported: bool,
    /// The cached tokens of the latest answers after the first.
    recent: VecDeque<u64>,
    /// The greatest common divisor of all cached tokens, which the block divides.
    divisor_tokens: u64,
    /// Of the answers after the first.
    cached_prefix_tokens: u64,
    all_prefix_tokens: u64,
    /// Of all answers.
    prompt_tokens: u64,
    looks: Looks,
    was_fine: bool,
    verdict: Option<PrefixVerdict>,
    has_warned: bool,
}

impl PrefixCache {
    /// Learns from an answer to a prompt whose prefix has about `prefix_tokens`.
    pub(crate) fn answered(&mut self, usage: Option<Usage>, prefix_tokens: usize) {
        let usage = usage.unwrap_or_default();
        self.answers += 1;
        self.prefix_tokens = prefix_tokens as u64;
        self.prompt_tokens = self.prompt_tokens.saturating_add(usage.prompt_tokens);
        self.is_reported |= usage.cached_tokens.is_some();
        let cached = usage.cached_tokens.unwrap_or(0);
        self.divisor_tokens = greatest_common_divisor(self.divisor_tokens, cached);
        if self.answers == 1 {
            return;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(cached);
        self.cached_prefix_tokens += cached.min(self.prefix_tokens);
        self.all_prefix_tokens += self.prefix_tokens;
        if self.answers % JUDGED_EVERY == 1 {
            self.judge();
        }
    }

    /// Whether a look at the server's metrics would tell something new.
    pub(crate) fn wants_metrics(&self) -> bool {
        self.looks.are_wanted(self.answers, self.is_reported)
    }

    /// Learns from the server's metrics; none means that it has none.
    pub(crate) fn metrics_read(&mut self, metrics: Option<&ServerMetrics>) {
        self.looks.take(metrics, self.answers, self.prompt_tokens);
        if self.answers > JUDGED_EVERY {
            self.judge();
        }
    }

    /// What is the matter, once.
    pub(crate) fn take_warning(&mut self) -> Option<String> {
        if self.has_warned {
            return None;
        }
        let advice = self.advice();
        self.has_warned = advice.is_some();
        advice
    }

    pub(crate) fn snapshot(&self) -> PrefixCacheSnapshot {
        let source = if self.is_reported {
            Some(CacheSource::Usage)
        } else {
            self.looks.mean_cached_tokens().map(|_| CacheSource::Metrics)
        };
        PrefixCacheSnapshot {
            answers: self.answers,
            prefix_tokens: self.prefix_tokens,
            block_tokens: self.looks.block_tokens(),
            expected_share: expected_share(self.prefix_tokens, self.assumed_block_tokens()),
            cached_share: self.cached_share(),
            source,
            verdict: self.verdict,
            advice: self.advice(),
        }
    }

    fn cached_share(&self) -> Option<f64> {
        if !self.is_reported {
            let cached = self.looks.mean_cached_tokens().filter(|_| self.prefix_tokens > 0)?;
            return Some((cached / self.prefix_tokens as f64).min(1.0));
        }
        (self.all_prefix_tokens > 0).then(|| self.cached_prefix_tokens as f64 / self.all_prefix_tokens as f64)
    }

    fn assumed_block_tokens(&self) -> u64 {
        let bound = if self.divisor_tokens == 0 { USUAL_BLOCK_TOKENS } else { self.divisor_tokens };
        self.looks.block_tokens().unwrap_or(bound.min(USUAL_BLOCK_TOKENS))
    }

    fn judge(&mut self) {
        if let Some(verdict) = self.new_verdict() {
            self.was_fine |= verdict == PrefixVerdict::Fine;
            self.verdict = Some(verdict);
        }
    }

    /// None when it cannot be told yet.
    fn new_verdict(&self) -> Option<PrefixVerdict> {
        if self.looks.prefix_caching() == Some(false) {
            return Some(PrefixVerdict::Disabled);
        }
        if self.is_reported {
            return self.verdict_on(&self.recent_counts());
        }
        match self.looks.mean_cached_tokens() {
            Some(mean) => self.verdict_on(&[mean as u64]),
            None => (!self.looks.are_pending()).then_some(PrefixVerdict::NotReported),
        }
    }

    fn verdict_on(&self, counts: &[u64]) -> Option<PrefixVerdict> {
        let prefix = self.prefix_tokens;
        let is_fine = |cached: u64| cached as f64 >= FINE_SHARE * prefix as f64;
        if counts.is_empty() || prefix == 0 {
            return None;
        }
        if mean_share(counts, prefix) >= FINE_SHARE {
            return Some(PrefixVerdict::Fine);
        }
        if self.was_fine {
            return Some(PrefixVerdict::Evicted);
        }
        if !self.looks.have_begun() {
            return None;
        }
        if counts.iter().any(|&cached| is_fine(cached)) {
            return self.verdict_on_misses(counts, is_fine);
        }
        if let Some(block_tokens) = self.coarse_block(counts) {
            return Some(PrefixVerdict::CoarseBlocks { block_tokens });
        }
        let is_on = self.looks.prefix_caching() == Some(true);
        Some(if is_on || counts.iter().any(|&cached| cached > 0) {
            PrefixVerdict::Unstable
        } else if self.looks.engine().is_none() && prefix < PROVIDER_LEAST_TOKENS {
            PrefixVerdict::TooShort
        } else {
            PrefixVerdict::Disabled
        })
    }

    /// Some answers had the whole prefix cached, others not: at the start a matter of slots, if it goes on another.
    fn verdict_on_misses(&self, counts: &[u64], is_fine: impl Fn(u64) -> bool) -> Option<PrefixVerdict> {
        let later_half = &counts[counts.len() / 2..];
        if self.looks.engine() == Some(Engine::LlamaCpp) || later_half.iter().all(|&cached| is_fine(cached)) {
            return Some(PrefixVerdict::SlotCache);
        }
        (counts.len() == WINDOW || counts.len() == 1).then_some(PrefixVerdict::Unstable)
    }

    /// The block that leaves so much of the prefix over that it explains the counts, if one does.
    fn coarse_block(&self, counts: &[u64]) -> Option<u64> {
        let prefix = self.prefix_tokens;
        let least_prefix = (prefix as f64 * (1.0 - ESTIMATE_ERROR)) as u64;
        if let Some(block) = self.looks.block_tokens() {
            let is_coarse = whole_blocks(prefix, block) as f64 / (prefix as f64) < FINE_SHARE;
            let is_met = counts.iter().all(|&cached| cached >= whole_blocks(least_prefix, block));
            return (is_coarse && is_met).then_some(block);
        }
        // Without a word from the server: one count, of whole blocks, the next of which would be beyond the prefix.
        let cached = counts.first().copied().filter(|&cached| self.is_reported && cached > 0)?;
        if counts.iter().any(|&other| other != cached) {
            return None;
        }
        (1..=cached).find(|block| cached % block == 0 && cached + block > least_prefix)
    }

    fn advice(&self) -> Option<String> {
        let verdict = self.verdict.filter(|verdict| *verdict != PrefixVerdict::Fine)?;
        let share = if self.is_reported {
            mean_share(&self.recent_counts(), self.prefix_tokens)
        } else {
            self.cached_share().unwrap_or(0.0)
        };
        prefix_advice::of(verdict, self.looks.engine(), self.prefix_tokens, share)
    }

    fn recent_counts(&self) -> Vec<u64> {
        self.recent.iter().copied().collect()
    }
}

/// The tokens of a prefix that whole blocks can hold.
pub(super) fn whole_blocks(prefix_tokens: u64, block_tokens: u64) -> u64 {
    prefix_tokens - prefix_tokens % block_tokens.max(1)
}

fn expected_share(prefix_tokens: u64, block_tokens: u64) -> Option<f64> {
    (prefix_tokens > 0).then(|| whole_blocks(prefix_tokens, block_tokens) as f64 / prefix_tokens as f64)
}

fn mean_share(counts: &[u64], prefix_tokens: u64) -> f64 {
    let cached: u64 = counts.iter().map(|&cached| cached.min(prefix_tokens)).sum();
    cached as f64 / (prefix_tokens * counts.len() as u64).max(1) as f64
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: usize = 700;

    fn usage(cached_tokens: Option<u64>) -> Usage {
        Usage { prompt_tokens: 1_000, cached_tokens, output_tokens: 40 }
    }

    /// A cache after the first answer, which found nothing, of a server without metrics.
    fn cold() -> PrefixCache {
        let mut cache = PrefixCache::default();
        cache.metrics_read(None);
        cache.answered(Some(usage(Some(0))), PREFIX);
        cache
    }

    fn after(mut cache: PrefixCache, counts: impl IntoIterator<Item = u64>) -> PrefixCache {
        counts.into_iter().for_each(|cached| cache.answered(Some(usage(Some(cached))), PREFIX));
        cache
    }

    fn with_metrics(mut cache: PrefixCache, change: impl FnOnce(&mut ServerMetrics)) -> PrefixCache {
        let mut metrics = ServerMetrics { engine: Some(Engine::Vllm), ..ServerMetrics::default() };
        change(&mut metrics);
        cache.metrics_read(Some(&metrics));
        cache
    }

    fn verdict(cache: &PrefixCache) -> Option<PrefixVerdict> {
        let snapshot = cache.snapshot();
        let is_told = snapshot.verdict.is_some_and(|verdict| verdict != PrefixVerdict::Fine);
        assert_eq!(snapshot.advice.is_some(), is_told, "{snapshot:?}");
        snapshot.verdict
    }

    #[test]
    fn the_share_is_of_the_prefix_and_leaves_the_first_answer_out() {
        let cache = with_metrics(after(cold(), [688; 8]), |metrics| metrics.block_tokens = Some(16));
        let snapshot = cache.snapshot();
        assert_eq!((snapshot.answers, snapshot.prefix_tokens, snapshot.block_tokens), (9, 700, Some(16)));
        assert_eq!(snapshot.cached_share, Some(688.0 / 700.0));
        assert_eq!(snapshot.expected_share, snapshot.cached_share);
        assert_eq!((snapshot.source, verdict(&cache)), (Some(CacheSource::Usage), Some(PrefixVerdict::Fine)));
        // Items that were asked before are no part of the prefix.
        assert_eq!(after(cold(), [900; 8]).snapshot().cached_share, Some(1.0));
        assert_eq!(PrefixCache::default().snapshot(), PrefixCacheSnapshot::default());
    }

    #[test]
    fn blocks_that_nobody_states_are_at_most_what_divides_all_counts() {
        let expected = |counts: &[u64]| after(cold(), counts.iter().copied()).snapshot().expected_share;
        assert_eq!(expected(&[]), Some(688.0 / 700.0));
        assert_eq!(expected(&[688, 704]), Some(688.0 / 700.0));
        assert_eq!(expected(&[701, 699, 704]), Some(1.0));
        assert_eq!(expected(&[696, 704]), Some(696.0 / 700.0));
    }

    #[test]
    fn nothing_is_judged_before_eight_answers_after_the_first() {
        assert_eq!(verdict(&after(cold(), [0; 7])), None);
        assert_eq!(verdict(&after(cold(), [0; 8])), Some(PrefixVerdict::TooShort));
        // Nor before the metrics, which may tell the reason.
        let unseen = after(PrefixCache::default(), [0; 30]);
        assert_eq!(verdict(&unseen), None);
        assert_eq!(verdict(&with_metrics(unseen, |_| ())), Some(PrefixVerdict::Disabled));
    }

    #[test]
    fn no_cached_token_has_the_reason_that_the_evidence_allows() {
        let none = || after(cold(), [0; 8]);
        assert_eq!(verdict(&with_metrics(none(), |_| ())), Some(PrefixVerdict::Disabled));
        assert_eq!(verdict(&with_metrics(none(), |it| it.prefix_caching = Some(false))), Some(PrefixVerdict::Disabled));
        assert_eq!(verdict(&with_metrics(none(), |it| it.prefix_caching = Some(true))), Some(PrefixVerdict::Unstable));
        assert_eq!(
            verdict(&with_metrics(none(), |it| it.block_tokens = Some(1_040))),
            Some(PrefixVerdict::CoarseBlocks { block_tokens: 1_040 })
        );
        let mut long = cold();
        (0..8).for_each(|_| long.answered(Some(usage(Some(0))), 1_100));
        assert_eq!(verdict(&long), Some(PrefixVerdict::Disabled));
    }

    #[test]
    fn coarse_blocks_are_known_or_told_from_one_count_that_fits() {
        let coarse = |block_tokens| Some(PrefixVerdict::CoarseBlocks { block_tokens });
        assert_eq!(verdict(&with_metrics(after(cold(), [528; 8]), |it| it.block_tokens = Some(528))), coarse(528));
        assert_eq!(verdict(&after(cold(), [512; 8])), coarse(256));
        // Of blocks of 16 so few cannot be the whole prefix, and no block explains different counts.
        assert_eq!(
            verdict(&with_metrics(after(cold(), [512; 8]), |it| it.block_tokens = Some(16))),
            Some(PrefixVerdict::Unstable)
        );
        assert_eq!(verdict(&after(cold(), [256, 512, 256, 512, 256, 512, 256, 512])), Some(PrefixVerdict::Unstable));
        assert_eq!(verdict(&after(cold(), [48; 8])), Some(PrefixVerdict::Unstable));
        // Blocks of 128 leave less than a tenth over here.
        assert_eq!(verdict(&after(cold(), [640; 8])), Some(PrefixVerdict::Fine));
    }

    #[test]
    fn misses_at_the_start_are_those_of_slots_and_pass() {
        let cache = after(cold(), [0, 0, 0, 702, 701, 702, 703, 701]);
        assert_eq!(verdict(&cache), Some(PrefixVerdict::SlotCache));
        assert_eq!(verdict(&after(cache, [702; 24])), Some(PrefixVerdict::Fine));
        let seven_slots = after(cold(), [0, 0, 0, 0, 0, 0, 701, 702]);
        assert_eq!(verdict(&seven_slots), None, "it could be more than that");
        assert_eq!(
            verdict(&with_metrics(seven_slots, |it| it.engine = Some(Engine::LlamaCpp))),
            Some(PrefixVerdict::SlotCache)
        );
    }

    #[test]
    fn misses_that_go_on_are_not_those_of_slots() {
        let every_third = (0..32).map(|number| if number % 3 == 0 { 0 } else { 688 });
        assert_eq!(verdict(&after(cold(), every_third)), Some(PrefixVerdict::Unstable));
    }

    #[test]
    fn what_was_fine_and_is_no_more_was_evicted() {
        let fine = || after(cold(), [688; 40]);
        assert_eq!(verdict(&after(fine(), [0, 688, 688, 0, 688, 688, 688, 688])), Some(PrefixVerdict::Fine), "two");
        assert_eq!(verdict(&after(fine(), [0; 8])), Some(PrefixVerdict::Evicted));
        assert_eq!(verdict(&after(after(fine(), [0; 8]), [688; 32])), Some(PrefixVerdict::Fine), "it came back");
    }

    #[test]
    fn silence_is_unknown_until_the_server_has_once_said_a_number() {
        let silent = |cache: &mut PrefixCache, answers: usize| {
            (0..answers).for_each(|_| cache.answered(Some(usage(None)), PREFIX));
        };
        let mut cache = PrefixCache::default();
        silent(&mut cache, 9);
        assert_eq!((cache.snapshot().cached_share, verdict(&cache)), (None, None), "the metrics may tell");
        assert!(cache.wants_metrics());
        cache.metrics_read(None);
        assert_eq!((verdict(&cache), cache.wants_metrics()), (Some(PrefixVerdict::NotReported), false));
        // vLLM leaves a zero out.
        let mut sometimes = PrefixCache::default();
        sometimes.metrics_read(None);
        silent(&mut sometimes, 5);
        let sometimes = after(sometimes, [688; 4]);
        assert_eq!(sometimes.snapshot().cached_share, Some(688.0 / 1_400.0));
        assert_eq!(verdict(&sometimes), Some(PrefixVerdict::SlotCache));
    }

    #[test]
    fn counters_of_the_metrics_stand_in_for_a_silent_usage() {
        let look = |cache: PrefixCache, queries, hits| {
            assert!(cache.wants_metrics());
            with_metrics(cache, |it| {
                it.prefix_cache_queries_tokens = Some(queries);
                it.prefix_cache_hits_tokens = Some(hits);
                it.prefix_caching = Some(true);
                it.block_tokens = Some(16);
            })
        };
        let run = |queries: u64, hits: u64| {
            let mut cache = PrefixCache::default();
            cache.answered(None, PREFIX);
            let mut cache = look(cache, 5_000, 1_000);
            (0..32).for_each(|_| cache.answered(Some(usage(None)), PREFIX));
            assert_eq!(verdict(&cache), None);
            look(cache, 5_000 + queries, 1_000 + hits)
        };
        let cache = run(40_000, 27_520);
        assert_eq!(cache.snapshot().source, Some(CacheSource::Metrics));
        assert_eq!((cache.snapshot().cached_share, verdict(&cache)), (Some(688.0 / 700.0), Some(PrefixVerdict::Fine)));
        assert!(!cache.wants_metrics());
        assert_eq!(verdict(&run(40_000, 0)), Some(PrefixVerdict::Unstable));
        let foreign = run(400_000, 380_000);
        assert_eq!((foreign.snapshot().cached_share, verdict(&foreign)), (None, Some(PrefixVerdict::NotReported)));
    }

    #[test]
    fn it_warns_once_and_of_no_more_than_one_thing() {
        let mut cache = after(cold(), [0; 8]);
        assert!(cache.take_warning().is_some_and(|advice| advice.contains("1024")));
        assert_eq!(after(cache, [0; 8]).take_warning(), None);
        assert_eq!(after(cold(), [688; 8]).take_warning(), None);
    }

    #[test]
    fn odd_numbers_do_not_derail_it() {
        let mut cache = PrefixCache::default();
        for (prompt_tokens, cached, prefix) in [(0, u64::MAX, 0), (u64::MAX, 0, 1), (1, u64::MAX, 5), (u64::MAX, 3, 0)]
        {
            let usage = Usage { prompt_tokens, cached_tokens: Some(cached), output_tokens: 0 };
            (0..20).for_each(|_| cache.answered(Some(usage), prefix));
            let cache = with_metrics(cache.clone(), |it| it.block_tokens = Some(u64::MAX));
            assert!(cache.snapshot().cached_share.is_none_or(|share| (0.0..=1.0).contains(&share)));
        }
    }
}
