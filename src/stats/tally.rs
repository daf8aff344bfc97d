//! What is counted in a stretch of time, and the stretches of the last minute.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::times::Times;
use crate::error::{FailureKind, ItemErrorKind};
use crate::outcome::Outcome;
use crate::server::wire::Usage;

/// Counts of a stretch of time. What concerns one endpoint is counted there, everything else for the run as a whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) items: u64,
    pub(crate) categorized: u64,
    pub(super) failed: BTreeMap<ItemErrorKind, u64>,
    pub(super) below_threshold: u64,
    pub(crate) fallback: u64,
    pub(super) duplicates: u64,
    pub(super) near_duplicates: u64,
    pub(super) from_ledger: u64,
    pub(crate) kept_across_versions: u64,
    pub(crate) changed_since_version: u64,
    pub(crate) asked_items: u64,
    pub(crate) requests: u64,
    pub(super) answered: u64,
    pub(super) failures: BTreeMap<FailureKind, u64>,
    pub(super) retries: BTreeMap<FailureKind, u64>,
    pub(super) valid_answers: u64,
    pub(super) invalid_answers: BTreeMap<ItemErrorKind, u64>,
    pub(crate) reasked: u64,
    pub(crate) splits: u64,
    pub(crate) suspects: u64,
    pub(crate) relabelled: u64,
    pub(crate) escalated: u64,
    pub(crate) escalations_changed: u64,
    pub(crate) escalations_refused: u64,
    pub(crate) shortened: u64,
    pub(super) answers_with_usage: u64,
    /// The items that those gave a valid label, and those whose cached tokens are known: what tokens per item go by.
    pub(super) valid_with_usage: u64,
    pub(super) valid_with_known_cache: u64,
    pub(crate) usage: Usage,
    pub(super) prompt_tokens_with_known_cache: u64,
    pub(super) latency: Times,
    pub(super) item_latency: Times,
    pub(super) admission_wait: Times,
}

impl Tally {
    pub(super) fn settled(&mut self, outcome: &Outcome) {
        match &outcome.result {
            Ok(assignment) => {
                self.categorized += 1;
                self.fallback += u64::from(assignment.is_fallback);
                self.duplicates += u64::from(assignment.origin.duplicate_of.is_some());
                self.from_ledger += u64::from(assignment.origin.from_ledger);
                self.near_duplicates += u64::from(assignment.origin.similarity.is_some());
            }
            Err(error) if error.kind == ItemErrorKind::BelowThreshold => self.below_threshold += 1,
            Err(error) => *self.failed.entry(error.kind).or_default() += 1,
        }
    }

    /// An answer came that gave so many items a valid label.
    pub(super) fn answered(&mut self, latency: Duration, usage: Option<Usage>, valid: u64) {
        self.answered += 1;
        self.latency.record(latency);
        self.valid_answers += valid;
        let Some(usage) = usage else { return };
        self.answers_with_usage += 1;
        self.valid_with_usage += valid;
        self.add_usage(usage);
        if usage.cached_tokens.is_some() {
            self.valid_with_known_cache += valid;
            self.prompt_tokens_with_known_cache =
                self.prompt_tokens_with_known_cache.saturating_add(usage.prompt_tokens);
        }
    }

    fn add_usage(&mut self, usage: Usage) {
        let own = &mut self.usage;
        own.prompt_tokens = own.prompt_tokens.saturating_add(usage.prompt_tokens);
        own.output_tokens = own.output_tokens.saturating_add(usage.output_tokens);
        if let Some(cached) = usage.cached_tokens {
            own.cached_tokens = Some(own.cached_tokens.unwrap_or(0).saturating_add(cached));
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.items, other.items),
            (&mut self.categorized, other.categorized),
            (&mut self.below_threshold, other.below_threshold),
            (&mut self.fallback, other.fallback),
            (&mut self.duplicates, other.duplicates),
            (&mut self.near_duplicates, other.near_duplicates),
            (&mut self.from_ledger, other.from_ledger),
            (&mut self.kept_across_versions, other.kept_across_versions),
            (&mut self.changed_since_version, other.changed_since_version),
            (&mut self.asked_items, other.asked_items),
            (&mut self.requests, other.requests),
            (&mut self.answered, other.answered),
            (&mut self.valid_answers, other.valid_answers),
            (&mut self.reasked, other.reasked),
            (&mut self.splits, other.splits),
            (&mut self.suspects, other.suspects),
            (&mut self.relabelled, other.relabelled),
            (&mut self.escalated, other.escalated),
            (&mut self.escalations_changed, other.escalations_changed),
            (&mut self.escalations_refused, other.escalations_refused),
            (&mut self.shortened, other.shortened),
            (&mut self.answers_with_usage, other.answers_with_usage),
            (&mut self.valid_with_usage, other.valid_with_usage),
            (&mut self.valid_with_known_cache, other.valid_with_known_cache),
        ];
        sums.into_iter().for_each(|(own, more)| *own += more);
        add_each(&mut self.failed, &other.failed);
        add_each(&mut self.failures, &other.failures);
        add_each(&mut self.retries, &other.retries);
        add_each(&mut self.invalid_answers, &other.invalid_answers);
        self.add_usage(other.usage);
        self.prompt_tokens_with_known_cache =
            self.prompt_tokens_with_known_cache.saturating_add(other.prompt_tokens_with_known_cache);
        self.latency.add(&other.latency);
        self.item_latency.add(&other.item_latency);
        self.admission_wait.add(&other.admission_wait);
    }

    /// The same counts at zero, in the memory of the old ones.
    fn cleared(mut self) -> Self {
        self.latency.clear();
        self.item_latency.clear();
        self.admission_wait.clear();
        let Self { latency, item_latency, admission_wait, .. } = self;
        Self { latency, item_latency, admission_wait, ..Self::default() }
    }
}

fn add_each<K: Copy + Ord>(own: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (kind, count) in more {
        *own.entry(*kind).or_default() += count;
    }
}

/// The last minute is kept in stretches of this length, and one more that is being filled.
const STRETCH: Duration = Duration::from_secs(5);
const STRETCHES: usize = 11;

/// Counts since the start and in the last minute. Only the current stretch is written to.
#[derive(Debug)]
pub(super) struct Series {
    started: Instant,
    current: Tally,
    current_since: Instant,
    /// The stretches before it, the latest last.
    recent: VecDeque<Tally>,
    /// All stretches but the current.
    before: Tally,
}

impl Series {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            started: now,
            current: Tally::default(),
            current_since: now,
            recent: VecDeque::new(),
            before: Tally::default(),
        }
    }

    pub(super) fn current(&mut self) -> &mut Tally {
        &mut self.current
    }

    /// Begins new stretches if their time has come.
    pub(super) fn tick(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.current_since);
        // Nearly always: the division below costs as much as all the counting.
        if since < STRETCH {
            return;
        }
        let mut over = since.as_nanos() / STRETCH.as_nanos();
        if over > (STRETCHES + 1) as u128 {
            // Nothing of the last minute is left but silence.
            self.before.add(&self.current);
            self.current = Tally::default();
            self.recent.clear();
            self.current_since = now;
            over = 0;
        }
        for _ in 0..over {
            self.before.add(&self.current);
            let reused = if self.recent.len() < STRETCHES { None } else { self.recent.pop_front() };
            let next = reused.map(Tally::cleared).unwrap_or_default();
            self.recent.push_back(std::mem::replace(&mut self.current, next));
            self.current_since += STRETCH;
        }
    }

    pub(super) fn total(&self) -> Tally {
        let mut total = self.before.clone();
        total.add(&self.current);
        total
    }

    /// The counts of the last minute, and how many seconds they cover: 55 to 60, fewer at the start.
    pub(super) fn last_minute(&self, now: Instant) -> (Tally, f64) {
        let mut sum = self.current.clone();
        self.recent.iter().for_each(|stretch| sum.add(stretch));
        let covered = now.saturating_duration_since(self.current_since) + STRETCH * self.recent.len() as u32;
        let since_start = now.saturating_duration_since(self.started);
        // After a silence the stretches before it are gone, and were empty.
        let seconds = covered.max(since_start.min(STRETCH * STRETCHES as u32));
        (sum, seconds.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(series: &mut Series, at: Instant, requests: u64) {
        series.tick(at);
        series.current().requests += requests;
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_minute_forgets_and_the_total_does_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut series = Series::new(start);
        (0..120).for_each(|second| count(&mut series, at(second), 1));
        let (minute, seconds) = series.last_minute(at(120));
        assert_eq!((series.total().requests, minute.requests), (120, 60));
        assert!((seconds - 60.0).abs() < 1e-9, "{seconds}");

        count(&mut series, at(10_000), 7);
        let (minute, seconds) = series.last_minute(at(10_001));
        assert_eq!((series.total().requests, minute.requests), (127, 7));
        assert!((55.0..=60.0).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_start_it_covers_what_there_was() {
        let start = Instant::now();
        let mut series = Series::new(start);
        count(&mut series, start + Duration::from_secs(12), 3);
        let (minute, seconds) = series.last_minute(start + Duration::from_secs(12));
        assert_eq!((minute.requests, seconds), (3, 12.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stretch_that_is_used_again_is_empty() {
        let start = Instant::now();
        let mut series = Series::new(start);
        for stretch in 0..40 {
            series.tick(start + STRETCH * stretch);
            series.current().answered(Duration::from_millis(10), None, 0);
        }
        let (minute, _) = series.last_minute(start + STRETCH * 39);
        assert_eq!((minute.answered, minute.latency.latency().count), (12, 12));
        assert_eq!(series.total().latency.latency().count, 40);
    }
}
