//! From counts to figures.

use std::collections::BTreeMap;

use super::tally::Tally;
use super::{Rates, Window};
use crate::error::ItemErrorKind;

impl Window {
    pub(super) fn of(tally: &Tally, seconds: f64) -> Self {
        Self {
            seconds,
            categorized: tally.categorized,
            failed: counts(&tally.failed, ItemErrorKind::as_str),
            below_threshold: tally.below_threshold,
            fallback: tally.fallback,
            requests: tally.requests,
            answered: tally.answered,
            failures: counts(&tally.failures, |kind| kind.to_string()),
            retries: tally.retries.values().sum(),
            valid_answers: tally.valid_answers,
            invalid_answers: counts(&tally.invalid_answers, ItemErrorKind::as_str),
            reasked: tally.reasked,
            splits: tally.splits,
            escalated: tally.escalated,
            prompt_tokens: tally.usage.prompt_tokens,
            cached_tokens: tally.usage.cached_tokens,
            output_tokens: tally.usage.output_tokens,
            latency: tally.latency.latency(),
            item_latency: tally.item_latency.latency(),
            admission_wait: tally.admission_wait.latency(),
            rates: Rates::of(tally, seconds),
        }
    }
}

impl Rates {
    pub(super) fn of(tally: &Tally, seconds: f64) -> Self {
        let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let failures: u64 = tally.failures.values().sum();
        let invalid: u64 = tally.invalid_answers.values().sum();
        let not_attempted = tally.failed.get(&ItemErrorKind::NotAttempted).copied().unwrap_or(0);
        let settled = tally.categorized + tally.below_threshold + tally.failed.values().sum::<u64>() - not_attempted;
        let usage = &tally.usage;
        let per_item = |tokens: u64| share(tokens, tally.valid_answers).filter(|_| tally.answers_with_usage > 0);
        Self {
            requests_per_second: per_second(tally.requests),
            items_per_second: per_second(settled),
            success_share: share(tally.answered, tally.answered + failures),
            invalid_share: share(invalid, tally.valid_answers + invalid),
            fallback_share: share(tally.fallback, tally.categorized),
            cached_share: usage.cached_tokens.and_then(|cached| share(cached, tally.prompt_tokens_with_known_cache)),
            prompt_tokens_per_second: per_second(usage.prompt_tokens),
            cached_tokens_per_second: usage.cached_tokens.map(per_second),
            output_tokens_per_second: per_second(usage.output_tokens),
            prompt_tokens_per_item: per_item(usage.prompt_tokens),
            cached_tokens_per_item: usage.cached_tokens.and_then(per_item),
            output_tokens_per_item: per_item(usage.output_tokens),
        }
    }
}

/// The same counts by the names of what was counted.
pub(super) fn counts<K: Copy, N: Ord>(counts: &BTreeMap<K, u64>, name: impl Fn(K) -> N) -> BTreeMap<N, u64> {
    counts.iter().map(|(kind, count)| (name(*kind), *count)).collect()
}
