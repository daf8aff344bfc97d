//! How long things took: percentiles of what a histogram has counted.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles in milliseconds, to 1 %; all zero when nothing was measured.
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
    /// How many were measured.
    pub count: u64,
}

/// What lasts longer is counted as this long.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Values differ by less than 1 % within a step.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Counts durations in a few kilobytes, none before the first.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Option<Histogram<u32>>);

impl Times {
    pub(super) fn record(&mut self, time: Duration) {
        if self.0.is_none() {
            self.0 = Histogram::new(SIGNIFICANT_DIGITS).ok();
        }
        if let Some(histogram) = &mut self.0 {
            // It grows to what it is given, which is bounded.
            let _ = histogram.record(time.min(LONGEST).as_millis() as u64);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let Some(others) = &other.0 else { return };
        match &mut self.0 {
            Some(own) => {
                let _ = own.add(others);
            }
            None => self.0 = Some(others.clone()),
        }
    }

    /// Forgets what was counted, and keeps its memory.
    pub(super) fn clear(&mut self) {
        if let Some(histogram) = &mut self.0 {
            histogram.reset();
        }
    }

    pub(super) fn latency(&self) -> Latency {
        let Some(histogram) = self.0.as_ref().filter(|histogram| !histogram.is_empty()) else {
            return Latency::default();
        };
        Latency {
            p50_ms: histogram.value_at_quantile(0.5),
            p95_ms: histogram.value_at_quantile(0.95),
            p99_ms: histogram.value_at_quantile(0.99),
            max_ms: histogram.value_at_quantile(1.0),
            count: histogram.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut times = Times::default();
        assert_eq!(times.latency(), Latency::default());
        (1..=100).for_each(|n| times.record(Duration::from_millis(10 * n)));
        let Latency { p50_ms, p95_ms, p99_ms, max_ms, count } = times.latency();
        for (found, expected) in [(p50_ms, 500), (p95_ms, 950), (p99_ms, 990), (max_ms, 1_000)] {
            assert!(u64::abs_diff(found, expected) <= expected / 100, "{found} {expected}");
        }
        assert_eq!(count, 100);
    }

    #[test]
    fn sums_hold_both_and_endless_times_are_an_hour() {
        let (mut one, mut other) = (Times::default(), Times::default());
        other.record(Duration::MAX);
        one.add(&other);
        one.record(Duration::ZERO);
        one.add(&Times::default());
        let latency = one.latency();
        assert_eq!((latency.count, latency.p50_ms), (2, 0));
        assert!(latency.max_ms.abs_diff(3_600_000) <= 36_000, "{latency:?}");
        one.clear();
        assert_eq!(one.latency(), Latency::default());
    }
}
