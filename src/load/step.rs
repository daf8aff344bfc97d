//! What was measured in a step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::probe::Attempt;

/// What was measured with a number of requests in flight, or at a rate. Rates are over the whole step, the time in which its
/// last requests end included. None is unknown, not zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Step {
    /// The requests in flight that were allowed at each server. After overload the client allows fewer.
    pub concurrency: usize,
    /// The servers.
    pub servers: usize,
    /// The rate at which requests were due; none in a closed loop.
    #[serde(default)]
    pub due_per_second: Option<f64>,
    /// From the first request to the end of the last, in seconds.
    pub seconds: f64,
    /// Requests that were sent, those sent again included.
    pub requests: u64,
    /// Requests that the model answered.
    pub answered: u64,
    /// Requests that failed, by kind.
    #[serde(default)]
    pub failures: BTreeMap<String, u64>,
    /// Packs that were sent again after a failure.
    #[serde(default)]
    pub retries: u64,
    /// Items that were settled.
    pub items: u64,
    /// Items that got a category.
    pub valid_items: u64,
    /// Answered requests per second.
    pub requests_per_second: f64,
    /// Settled items per second.
    pub items_per_second: f64,
    /// Items with a category per second.
    pub valid_items_per_second: f64,
    /// Prompt tokens per second, cached ones included, as the servers count.
    pub prompt_tokens_per_second: Option<f64>,
    /// Generated tokens per second, as the servers count.
    pub output_tokens_per_second: Option<f64>,
    /// Prompt tokens of an answered request.
    pub prompt_tokens_per_request: Option<f64>,
    /// Generated tokens of an answered request.
    pub output_tokens_per_request: Option<f64>,
    /// The share of requests that were answered, 0 to 1.
    pub success_share: f64,
    /// The latency of answered requests, from sending to the last byte; none when none was answered.
    pub latency: Option<LatencySummary>,
    /// In an open loop the latency of categorized items, from when they were due.
    #[serde(default)]
    pub latency_from_due: Option<LatencySummary>,
    /// The mean time to the first token in seconds, as the servers measure it themselves: answers are not streamed to this client.
    #[serde(default)]
    pub first_token_s: Option<f64>,
    /// The share of prompt tokens that came from prefix caches, 0 to 1.
    pub cached_share: Option<f64>,
    /// The mean of the requests in flight, at all servers together.
    pub mean_in_flight: f64,
    /// The most of them.
    pub max_in_flight: usize,
    /// The requests in flight over time.
    #[serde(default)]
    pub in_flight: Vec<InFlight>,
    /// Why the step stopped before its end.
    #[serde(default)]
    pub error: Option<String>,
}

impl Step {
    /// The latency that a caller has: from when an item was due in an open loop, of a request in a closed one.
    pub fn caller_latency(&self) -> Option<&LatencySummary> {
        if self.due_per_second.is_some() { self.latency_from_due.as_ref() } else { self.latency.as_ref() }
    }

    /// What the step is at: the rate in an open loop, else the requests in flight.
    pub fn level(&self) -> f64 {
        self.due_per_second.unwrap_or(self.concurrency as f64)
    }
}

/// Latencies in seconds. The percentiles are latencies that occurred (nearest rank).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LatencySummary {
    /// The mean.
    pub mean_s: f64,
    /// The median.
    pub p50_s: f64,
    /// 95 of 100 are not longer.
    pub p95_s: f64,
    /// 99 of 100 are not longer.
    pub p99_s: f64,
    /// The longest.
    pub max_s: f64,
}

impl LatencySummary {
    /// None of nothing.
    pub(super) fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let (count, max_s) = (seconds.len(), *seconds.last()?);
        let at = |share: f64| seconds[((count as f64 * share).ceil() as usize).clamp(1, count) - 1];
        let mean_s = seconds.iter().sum::<f64>() / count as f64;
        Some(Self { mean_s, p50_s: at(0.5), p95_s: at(0.95), p99_s: at(0.99), max_s })
    }
}

/// The requests in flight in a part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InFlight {
    /// The middle of the part, in seconds from the start of the step.
    pub at_s: f64,
    /// The mean over the part.
    pub requests: f64,
}

/// The parts into which a step is divided.
const PARTS: usize = 60;

/// The mean requests in flight in each part of a step.
pub(super) fn in_flight(attempts: &[Attempt], start: Instant, seconds: f64) -> Vec<InFlight> {
    if seconds <= 0.0 {
        return Vec::new();
    }
    let width = seconds / PARTS as f64;
    let mut busy_s = [0.0; PARTS];
    for attempt in attempts {
        let at = |time: Instant| time.saturating_duration_since(start).as_secs_f64().min(seconds);
        let (from, to) = (at(attempt.sent), at(attempt.ended));
        let first = ((from / width) as usize).min(PARTS - 1);
        for (part, busy_s) in busy_s.iter_mut().enumerate().skip(first) {
            let (begin, end) = (part as f64 * width, (part + 1) as f64 * width);
            if begin >= to {
                break;
            }
            *busy_s += (to.min(end) - from.max(begin)).max(0.0);
        }
    }
    let part = |(part, busy_s): (usize, f64)| InFlight { at_s: (part as f64 + 0.5) * width, requests: busy_s / width };
    busy_s.into_iter().enumerate().map(part).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn percentiles_are_latencies_that_occurred() {
        let summary = LatencySummary::of((1..=100).rev().map(f64::from).collect()).unwrap();
        let LatencySummary { mean_s, p50_s, p95_s, p99_s, max_s } = summary;
        assert_eq!(format!("{mean_s} {p50_s} {p95_s} {p99_s} {max_s}"), "50.5 50 95 99 100");
        assert_eq!(LatencySummary::of(vec![2.0]).map(|summary| summary.p99_s), Some(2.0));
        assert_eq!(LatencySummary::of(Vec::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_in_flight_are_spread_over_the_parts() {
        let start = Instant::now();
        let attempt = |from: u64, to: u64| Attempt {
            sent: start + Duration::from_millis(from),
            ended: start + Duration::from_millis(to),
            is_answered: true,
        };
        let parts = in_flight(&[attempt(0, 6_000), attempt(0, 3_000), attempt(2_950, 3_050)], start, 6.0);
        assert_eq!(parts.len(), PARTS);
        let at = |part: usize| (parts[part].requests * 100.0).round() as u32;
        // The third request is in flight for half of the two parts around the middle.
        assert_eq!([at(0), at(28), at(29), at(30), at(31), at(59)], [200, 200, 250, 150, 100, 100]);
        assert_eq!(in_flight(&[], start, 0.0), []);
    }
}
