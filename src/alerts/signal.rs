//! What alerts can be about, and what was measured of it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::stats::Stats;

/// What an alert is about. Its name in rules is in kebab case, for example `success-share`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Signal {
    /// Attempts that the model answered, of those that ended in the last minute, 0 to 1.
    SuccessShare,
    /// The 95th percentile of the latency of attempts in the last minute, in seconds.
    LatencyP95,
    /// GPU memory in use, of all, 0 to 1. Its subject is the GPU.
    GpuMemoryShare,
    /// Requests that wait inside the server. Its subject is the endpoint.
    QueueDepth,
    /// Items in the category that means "none of these", of those that got a category in the last minute, 0 to 1.
    FallbackShare,
    /// Items of packs without a valid label, of all that answers were to label in the last minute, 0 to 1.
    InvalidShare,
    /// Prompt tokens from the prefix caches, of all, in the last minute, 0 to 1.
    CachedShare,
    /// How far the labels of a source are from those of a baseline, 0 to 1 ([`distance`](super::distance)). Its subject is
    /// the source.
    LabelDrift,
    /// Items with a known label that got it, 0 to 1.
    CanaryAccuracy,
}

impl Signal {
    /// All signals.
    pub const ALL: [Self; 9] = [
        Self::SuccessShare,
        Self::LatencyP95,
        Self::GpuMemoryShare,
        Self::QueueDepth,
        Self::FallbackShare,
        Self::InvalidShare,
        Self::CachedShare,
        Self::LabelDrift,
        Self::CanaryAccuracy,
    ];

    /// Its name in rules, in kebab case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuccessShare => "success-share",
            Self::LatencyP95 => "latency-p95",
            Self::GpuMemoryShare => "gpu-memory-share",
            Self::QueueDepth => "queue-depth",
            Self::FallbackShare => "fallback-share",
            Self::InvalidShare => "invalid-share",
            Self::CachedShare => "cached-share",
            Self::LabelDrift => "label-drift",
            Self::CanaryAccuracy => "canary-accuracy",
        }
    }

    /// The signal with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }

    /// Whether more is better.
    pub fn is_better_high(self) -> bool {
        matches!(self, Self::SuccessShare | Self::CachedShare | Self::CanaryAccuracy)
    }

    /// Whether it is a share, 0 to 1.
    pub fn is_share(self) -> bool {
        !matches!(self, Self::LatencyP95 | Self::QueueDepth)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What was measured of a signal.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Measurement {
    /// What was measured.
    pub signal: Signal,
    /// Whose it is, where there are several: a GPU, an endpoint, a source.
    pub subject: Option<Arc<str>>,
    /// The value, in the unit of the signal.
    pub value: f64,
    /// How many events it rests on: requests, items, prompt tokens. A rule can ask for a least number.
    pub samples: u64,
}

impl Measurement {
    /// A measurement of your own, of nothing in particular.
    pub fn new(signal: Signal, value: f64, samples: u64) -> Self {
        Self { signal, subject: None, value, samples }
    }

    /// The same of this subject.
    #[must_use]
    pub fn of(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

/// What the last minute of a run says: success, latency, "other", invalid answers and the cached share in all, and the
/// queue of each endpoint. What was not measured is not there.
pub fn of_stats(stats: &Stats) -> Vec<Measurement> {
    let minute = &stats.last_minute;
    let rates = &minute.rates;
    let ended = minute.answered + minute.failures.values().sum::<u64>();
    let labels = minute.valid_answers + minute.invalid_answers.values().sum::<u64>();
    let latency = &minute.latency;
    let p95_s = (latency.count > 0).then_some(latency.p95_ms as f64 / 1_000.0);
    let of_all = [
        (Signal::SuccessShare, rates.success_share, ended),
        (Signal::LatencyP95, p95_s, latency.count),
        (Signal::FallbackShare, rates.fallback_share, minute.categorized),
        (Signal::InvalidShare, rates.invalid_share, labels),
        (Signal::CachedShare, rates.cached_share, minute.answered),
    ];
    let queues = stats.endpoints.iter().filter_map(|endpoint| {
        let depth = endpoint.queue_depth()? as f64;
        Some(Measurement::new(Signal::QueueDepth, depth, 1).of(Arc::clone(&endpoint.endpoint)))
    });
    let of_all =
        of_all.into_iter().filter_map(|(signal, value, samples)| Some(Measurement::new(signal, value?, samples)));
    of_all.chain(queues).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_serde_and_found_again() {
        for signal in Signal::ALL {
            assert_eq!(serde_json::to_value(signal).unwrap(), signal.as_str());
            assert_eq!(Signal::from_name(signal.as_str()), Some(signal));
        }
        assert_eq!(Signal::from_name("p95"), None);
    }
}
