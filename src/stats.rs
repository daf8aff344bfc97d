//! What a run measured.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::time::Instant;

use crate::descent::LevelStats;
use crate::error::{FailureKind, ItemErrorKind};
use crate::outcome::Outcome;
use crate::server::{EndpointSnapshot, wire::Usage};
use crate::tuning::TuningReport;

/// What a run has measured so far. Counts are totals since its start.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Since the start of the run, in seconds.
    pub elapsed_s: f64,
    /// Items that were taken in.
    pub items: u64,
    /// Items that have a category.
    pub categorized: u64,
    /// Items that were given up, by kind.
    pub failed: BTreeMap<&'static str, u64>,
    /// Items whose model chose the category that means "none of these".
    pub fallback: u64,
    /// Items that were answered as copies of another, near ones included.
    pub duplicates: u64,
    /// Items that have their category from the ledger (feature `ledger`), without a request.
    pub from_ledger: u64,
    /// Those among them whose text was similar, not equal.
    pub near_duplicates: u64,
    /// Items that were asked about in a request, copies and those from the ledger left out; of a tree, once for each level.
    pub asked_items: u64,
    /// Attempts that were sent.
    pub requests: u64,
    /// Attempts that the model answered.
    pub answered: u64,
    /// Attempts that failed, by kind.
    pub failures: BTreeMap<String, u64>,
    /// Packs that were sent again after a failure.
    pub retries: u64,
    /// Items that were asked again since their answer was not valid.
    pub reasked: u64,
    /// Packs that were split to find a bad item.
    pub splits: u64,
    /// Items that were asked alone since they speak the language of prompts, and might sway the answers to others.
    pub suspects: u64,
    /// Items whose category a calibration changed.
    pub relabelled: u64,
    /// Items that were asked again since their first answer was not sure enough.
    pub escalated: u64,
    /// Those whose category changed by it.
    pub escalations_changed: u64,
    /// Items that kept an unsure answer since escalation had used up its share of requests.
    pub escalations_refused: u64,
    /// Items that were cut shorter since they did not fit the context.
    pub shortened: u64,
    /// Answers whose server counted their tokens: the counts below are of these alone.
    pub answers_with_usage: u64,
    /// Prompt tokens as the servers counted them.
    pub prompt_tokens: u64,
    /// Prompt tokens that came from the servers' prefix caches; none when no server says.
    pub cached_tokens: Option<u64>,
    /// Prompt tokens of the answers whose server did say how many were cached.
    pub prompt_tokens_with_known_cache: u64,
    /// Generated tokens as the servers counted them.
    pub output_tokens: u64,
    /// Latency of answered attempts, from admission to the last byte.
    pub latency: Latency,
    /// The most requests that were in flight at once.
    pub max_in_flight: usize,
    /// What was found about pack sizes, where they are chosen by measurement.
    pub tuning: Option<TuningReport>,
    /// What the engine in the process settled, where there is one.
    #[cfg(feature = "embedded")]
    pub first_opinion: Option<crate::embedded::FirstOpinionStats>,
    /// The levels of a tree that was walked, from the top; empty otherwise.
    pub levels: Vec<LevelStats>,
    /// The endpoints as they are now.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// Percentiles in milliseconds; all zero when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// The median.
    pub p50_ms: u64,
    /// 95 of 100 are not longer.
    pub p95_ms: u64,
    /// 99 of 100 are not longer.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Stats {
    /// Items settled per second, failed ones included, but not those that were never attempted.
    pub fn items_per_second(&self) -> f64 {
        let not_attempted = self.failed.get(ItemErrorKind::NotAttempted.as_str()).copied().unwrap_or(0);
        let settled = self.categorized + self.failed.values().sum::<u64>() - not_attempted;
        if self.elapsed_s > 0.0 { settled as f64 / self.elapsed_s } else { 0.0 }
    }

    /// The share of prompt tokens that came from the servers' prefix caches, among those where the server said.
    pub fn cached_share(&self) -> Option<f64> {
        let known = self.prompt_tokens_with_known_cache;
        self.cached_tokens.filter(|_| known > 0).map(|cached| cached as f64 / known as f64)
    }
}

/// Counts while a run goes.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    started: Instant,
    pub(crate) items: u64,
    categorized: u64,
    failed: BTreeMap<&'static str, u64>,
    fallback: u64,
    duplicates: u64,
    from_ledger: u64,
    near_duplicates: u64,
    pub(crate) asked_items: u64,
    pub(crate) requests: u64,
    answered: u64,
    failures: BTreeMap<String, u64>,
    pub(crate) retries: u64,
    pub(crate) reasked: u64,
    pub(crate) splits: u64,
    pub(crate) suspects: u64,
    pub(crate) relabelled: u64,
    pub(crate) escalated: u64,
    pub(crate) escalations_changed: u64,
    pub(crate) escalations_refused: u64,
    pub(crate) shortened: u64,
    answers_with_usage: u64,
    usage: Usage,
    prompt_tokens_with_known_cache: u64,
    latency_ms: Histogram<u32>,
    pub(crate) max_in_flight: usize,
}

/// Latencies above this many milliseconds are counted as this long.
const LONGEST_MS: u64 = 3_600_000;

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            items: 0,
            categorized: 0,
            failed: BTreeMap::new(),
            fallback: 0,
            duplicates: 0,
            from_ledger: 0,
            near_duplicates: 0,
            asked_items: 0,
            requests: 0,
            answered: 0,
            failures: BTreeMap::new(),
            retries: 0,
            reasked: 0,
            splits: 0,
            suspects: 0,
            relabelled: 0,
            escalated: 0,
            escalations_changed: 0,
            escalations_refused: 0,
            shortened: 0,
            answers_with_usage: 0,
            usage: Usage::default(),
            prompt_tokens_with_known_cache: 0,
            latency_ms: histogram(),
            max_in_flight: 0,
        }
    }

    pub(crate) fn settled(&mut self, outcome: &Outcome) {
        match &outcome.result {
            Ok(assignment) => {
                self.categorized += 1;
                self.fallback += u64::from(assignment.is_fallback);
                self.duplicates += u64::from(assignment.origin.duplicate_of.is_some());
                self.from_ledger += u64::from(assignment.origin.from_ledger);
                self.near_duplicates += u64::from(assignment.origin.similarity.is_some());
            }
            Err(error) => self.failed(error.kind),
        }
    }

    fn failed(&mut self, kind: ItemErrorKind) {
        *self.failed.entry(kind.as_str()).or_default() += 1;
    }

    pub(crate) fn answered(&mut self, latency: Duration, usage: Option<Usage>) {
        self.answered += 1;
        self.latency_ms.saturating_record(latency.as_millis().try_into().unwrap_or(LONGEST_MS));
        let Some(usage) = usage else { return };
        self.answers_with_usage += 1;
        self.usage.prompt_tokens = self.usage.prompt_tokens.saturating_add(usage.prompt_tokens);
        self.usage.output_tokens = self.usage.output_tokens.saturating_add(usage.output_tokens);
        if let Some(cached) = usage.cached_tokens {
            self.usage.cached_tokens = Some(self.usage.cached_tokens.unwrap_or(0).saturating_add(cached));
            self.prompt_tokens_with_known_cache =
                self.prompt_tokens_with_known_cache.saturating_add(usage.prompt_tokens);
        }
    }

    pub(crate) fn attempt_failed(&mut self, kind: FailureKind) {
        *self.failures.entry(kind.to_string()).or_default() += 1;
    }

    /// Adds what another run has asked, and what it cost; not what became of its items.
    pub(crate) fn add_requests(&mut self, other: &Self) {
        for (kind, count) in &other.failures {
            *self.failures.entry(kind.clone()).or_default() += count;
        }
        let counts = [
            (&mut self.asked_items, other.asked_items),
            (&mut self.requests, other.requests),
            (&mut self.answered, other.answered),
            (&mut self.retries, other.retries),
            (&mut self.reasked, other.reasked),
            (&mut self.splits, other.splits),
            (&mut self.suspects, other.suspects),
            (&mut self.relabelled, other.relabelled),
            (&mut self.escalated, other.escalated),
            (&mut self.escalations_changed, other.escalations_changed),
            (&mut self.escalations_refused, other.escalations_refused),
            (&mut self.shortened, other.shortened),
            (&mut self.answers_with_usage, other.answers_with_usage),
            (&mut self.usage.prompt_tokens, other.usage.prompt_tokens),
            (&mut self.usage.output_tokens, other.usage.output_tokens),
            (&mut self.prompt_tokens_with_known_cache, other.prompt_tokens_with_known_cache),
        ];
        for (sum, count) in counts {
            *sum = sum.saturating_add(count);
        }
        if let Some(cached) = other.usage.cached_tokens {
            self.usage.cached_tokens = Some(self.usage.cached_tokens.unwrap_or(0).saturating_add(cached));
        }
        // Both have the same bounds.
        let _ = self.latency_ms.add(&other.latency_ms);
    }

    pub(crate) fn snapshot(&self, endpoints: Vec<EndpointSnapshot>) -> Stats {
        let quantile = |q: f64| if self.latency_ms.is_empty() { 0 } else { self.latency_ms.value_at_quantile(q) };
        Stats {
            elapsed_s: self.started.elapsed().as_secs_f64(),
            items: self.items,
            categorized: self.categorized,
            failed: self.failed.clone(),
            fallback: self.fallback,
            duplicates: self.duplicates,
            from_ledger: self.from_ledger,
            near_duplicates: self.near_duplicates,
            asked_items: self.asked_items,
            requests: self.requests,
            answered: self.answered,
            failures: self.failures.clone(),
            retries: self.retries,
            reasked: self.reasked,
            splits: self.splits,
            suspects: self.suspects,
            relabelled: self.relabelled,
            escalated: self.escalated,
            escalations_changed: self.escalations_changed,
            escalations_refused: self.escalations_refused,
            shortened: self.shortened,
            answers_with_usage: self.answers_with_usage,
            prompt_tokens: self.usage.prompt_tokens,
            cached_tokens: self.usage.cached_tokens,
            prompt_tokens_with_known_cache: self.prompt_tokens_with_known_cache,
            output_tokens: self.usage.output_tokens,
            latency: Latency {
                p50_ms: quantile(0.5),
                p95_ms: quantile(0.95),
                p99_ms: quantile(0.99),
                max_ms: quantile(1.0),
            },
            max_in_flight: self.max_in_flight,
            tuning: None,
            #[cfg(feature = "embedded")]
            first_opinion: None,
            levels: Vec::new(),
            endpoints,
        }
    }
}

fn histogram() -> Histogram<u32> {
    // Two significant digits up to an hour: a few kilobytes.
    Histogram::new_with_bounds(1, LONGEST_MS, 2).expect("constant bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_unknown_cache_is_not_an_empty_one() {
        let mut recorder = Recorder::new();
        let usage = |cached_tokens| Some(Usage { prompt_tokens: 1_000, cached_tokens, output_tokens: 40 });
        recorder.answered(Duration::from_millis(100), usage(None));
        assert_eq!(recorder.snapshot(Vec::new()).cached_share(), None);
        recorder.answered(Duration::from_millis(200), usage(Some(900)));
        recorder.answered(Duration::from_secs(1_000_000), None);
        let stats = recorder.snapshot(Vec::new());
        assert_eq!(stats.cached_share(), Some(0.9));
        assert_eq!((stats.prompt_tokens, stats.output_tokens), (2_000, 80));
        assert!(stats.latency.p50_ms.abs_diff(200) <= 2, "{:?}", stats.latency);
    }
}
