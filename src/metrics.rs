//! What runs count, for the [`metrics`](https://docs.rs/metrics) facade: install an exporter **before** a run begins, and its
//! counts go there as they are made. Without one they cost next to nothing.
//!
//! | name | type | unit | labels |
//! |---|---|---|---|
//! | `slugline_items_total` | counter | items taken in | |
//! | `slugline_items_categorized_total` | counter | items with a category | |
//! | `slugline_items_failed_total` | counter | items given up | `kind` |
//! | `slugline_items_below_threshold_total` | counter | items without a category that was probable enough | |
//! | `slugline_items_fallback_total` | counter | items in the category "none of these" | |
//! | `slugline_items_copied_total` | counter | items answered as copies | |
//! | `slugline_items_from_ledger_total` | counter | items answered by the ledger | |
//! | `slugline_items_reasked_total` | counter | items asked again for a valid answer | |
//! | `slugline_items_escalated_total` | counter | items asked again for a surer answer | |
//! | `slugline_retries_total` | counter | packs sent again | `cause` |
//! | `slugline_splits_total` | counter | packs split to find a bad item | |
//! | `slugline_item_latency_seconds` | histogram | seconds, from taken in to settled | |
//! | `slugline_requests_total` | counter | attempts sent | `endpoint`, `model` |
//! | `slugline_requests_answered_total` | counter | attempts answered | `endpoint`, `model` |
//! | `slugline_requests_failed_total` | counter | attempts failed | `endpoint`, `model`, `kind` |
//! | `slugline_request_latency_seconds` | histogram | seconds, of answered attempts | `endpoint`, `model` |
//! | `slugline_admission_wait_seconds` | histogram | seconds, of packs before they are sent | `endpoint`, `model` |
//! | `slugline_labels_valid_total` | counter | labels that kept the contract | `endpoint`, `model` |
//! | `slugline_labels_invalid_total` | counter | items without a valid label in an answer | `endpoint`, `model` |
//! | `slugline_prompt_tokens_total` | counter | tokens | `endpoint`, `model` |
//! | `slugline_prompt_tokens_with_known_cache_total` | counter | tokens where the server says what was cached | `endpoint`, `model` |
//! | `slugline_cached_tokens_total` | counter | tokens | `endpoint`, `model` |
//! | `slugline_output_tokens_total` | counter | tokens | `endpoint`, `model` |
//! | `slugline_waiting_items` | gauge | items taken in that wait | |
//! | `slugline_endpoint_up` | gauge | 1 while it can be asked, else 0 | `endpoint`, `model` |
//! | `slugline_endpoint_in_flight` | gauge | requests | `endpoint`, `model` |
//! | `slugline_endpoint_concurrency_limit` | gauge | requests | `endpoint`, `model` |
//! | `slugline_server_waiting_requests` | gauge | requests that wait inside the server | `endpoint`, `model` |
//! | `slugline_server_running_requests` | gauge | requests that the server works on | `endpoint`, `model` |
//! | `slugline_server_kv_cache_share` | gauge | share in use, 0 to 1 | `endpoint`, `model` |
//! | `slugline_signal` | gauge | the unit of the [signal](crate::alerts::Signal) that [`Alerts`](crate::alerts::Alerts) looked at | `signal`, `subject` |
//! | `slugline_alert_level` | gauge | 0 fine, 1 warning, 2 critical | `signal`, `subject` |
//! | `slugline_gpu_utilization_share` | gauge | share of time, 0 to 1 (feature `gpu`) | `gpu` |
//! | `slugline_gpu_memory_share` | gauge | share in use, 0 to 1 (feature `gpu`) | `gpu` |
//!
//! Counters begin at zero with the first run, so that rates are right from the start. Gauges are set whenever
//! [`StatsHandle::snapshot`](crate::StatsHandle::snapshot) is called: call it before a scrape, or every few seconds. Those of
//! the servers need [`watch_server_metrics`](crate::CategorizerBuilder::watch_server_metrics).
//!
//! `dashboards/` in the repository has a Grafana dashboard and Prometheus alert rules over these names.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram};

use crate::alerts::{Level, Measurement};
use crate::error::{FailureKind, ItemErrorKind};
use crate::outcome::Outcome;
use crate::server::EndpointSnapshot;
use crate::server::wire::Usage;
use crate::stats::Stats;

/// The counters of a run. Taken out of the exporter once, so that counting is one atomic addition.
pub(crate) struct Meters {
    items: Counter,
    categorized: Counter,
    failed: BTreeMap<ItemErrorKind, Counter>,
    below_threshold: Counter,
    fallback: Counter,
    copied: Counter,
    from_ledger: Counter,
    pub(crate) reasked: Counter,
    pub(crate) escalated: Counter,
    retries: BTreeMap<FailureKind, Counter>,
    pub(crate) splits: Counter,
    item_latency: Histogram,
    waiting_items: Gauge,
    endpoints: Vec<EndpointMeters>,
}

struct EndpointMeters {
    requests: Counter,
    answered: Counter,
    failed: BTreeMap<FailureKind, Counter>,
    latency: Histogram,
    admission_wait: Histogram,
    valid: Counter,
    invalid: Counter,
    prompt_tokens: Counter,
    prompt_tokens_with_known_cache: Counter,
    cached_tokens: Counter,
    output_tokens: Counter,
    up: Gauge,
    in_flight: Gauge,
    limit: Gauge,
    labels: Vec<Label>,
}

impl Meters {
    pub(crate) fn new(endpoints: &[EndpointSnapshot]) -> Self {
        Self {
            items: counter!("slugline_items_total"),
            categorized: counter!("slugline_items_categorized_total"),
            failed: ItemErrorKind::ALL
                .map(|kind| (kind, counter!("slugline_items_failed_total", "kind" => kind.as_str())))
                .into(),
            below_threshold: counter!("slugline_items_below_threshold_total"),
            fallback: counter!("slugline_items_fallback_total"),
            copied: counter!("slugline_items_copied_total"),
            from_ledger: counter!("slugline_items_from_ledger_total"),
            reasked: counter!("slugline_items_reasked_total"),
            escalated: counter!("slugline_items_escalated_total"),
            retries: FailureKind::ALL
                .map(|kind| (kind, counter!("slugline_retries_total", "cause" => kind.to_string())))
                .into(),
            splits: counter!("slugline_splits_total"),
            item_latency: histogram!("slugline_item_latency_seconds"),
            waiting_items: gauge!("slugline_waiting_items"),
            endpoints: endpoints.iter().map(EndpointMeters::new).collect(),
        }
    }

    pub(crate) fn taken_in(&self) {
        self.items.increment(1);
    }

    pub(crate) fn handed_on(&self, outcome: &Outcome) {
        match &outcome.result {
            Ok(assignment) => {
                self.categorized.increment(1);
                self.fallback.increment(u64::from(assignment.is_fallback));
                self.copied.increment(u64::from(assignment.origin.duplicate_of.is_some()));
                self.from_ledger.increment(u64::from(assignment.origin.from_ledger));
            }
            Err(error) if error.kind == ItemErrorKind::BelowThreshold => self.below_threshold.increment(1),
            Err(error) => add(&self.failed, &error.kind),
        }
    }

    pub(crate) fn item_took(&self, latency: Duration) {
        self.item_latency.record(latency);
    }

    pub(crate) fn retried(&self, cause: FailureKind) {
        add(&self.retries, &cause);
    }

    pub(crate) fn sent(&self, place: usize, waited: Duration) {
        let Some(endpoint) = self.endpoints.get(place) else { return };
        endpoint.requests.increment(1);
        endpoint.admission_wait.record(waited);
    }

    pub(crate) fn answered(&self, place: usize, latency: Duration, usage: Option<Usage>, valid: u64, invalid: u64) {
        let Some(endpoint) = self.endpoints.get(place) else { return };
        endpoint.answered.increment(1);
        endpoint.latency.record(latency);
        endpoint.valid.increment(valid);
        endpoint.invalid.increment(invalid);
        let Some(usage) = usage else { return };
        endpoint.prompt_tokens.increment(usage.prompt_tokens);
        endpoint.output_tokens.increment(usage.output_tokens);
        if let Some(cached) = usage.cached_tokens {
            endpoint.cached_tokens.increment(cached);
            endpoint.prompt_tokens_with_known_cache.increment(usage.prompt_tokens);
        }
    }

    pub(crate) fn failed(&self, place: usize, kind: FailureKind) {
        if let Some(endpoint) = self.endpoints.get(place) {
            add(&endpoint.failed, &kind);
        }
    }

    /// Sets the gauges.
    pub(crate) fn publish(&self, stats: &Stats) {
        self.waiting_items.set(stats.waiting_items as f64);
        for (meters, now) in self.endpoints.iter().zip(&stats.endpoints) {
            meters.up.set(f64::from(u8::from(matches!(now.phase, "open" | "probing"))));
            meters.in_flight.set(now.in_flight as f64);
            meters.limit.set(now.concurrency_limit as f64);
            // A server that does not say is not at zero, so its gauges come with the first figure.
            let Some(server) = &now.server else { continue };
            let labels = || meters.labels.clone();
            if let Some(waiting) = now.queue_depth() {
                gauge!("slugline_server_waiting_requests", labels()).set(waiting as f64);
            }
            if let Some(running) = server.running_requests {
                gauge!("slugline_server_running_requests", labels()).set(running as f64);
            }
            if let Some(share) = server.kv_cache_use {
                gauge!("slugline_server_kv_cache_share", labels()).set(share);
            }
        }
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Meters").field("endpoints", &self.endpoints.len()).finish_non_exhaustive()
    }
}

impl EndpointMeters {
    fn new(endpoint: &EndpointSnapshot) -> Self {
        let labels = vec![
            Label::new("endpoint", endpoint.endpoint.to_string()),
            Label::new("model", endpoint.model.to_string()),
        ];
        let of = || labels.clone();
        let with_kind = |kind: FailureKind| {
            let labels: Vec<Label> = labels.iter().cloned().chain([Label::new("kind", kind.to_string())]).collect();
            (kind, counter!("slugline_requests_failed_total", labels))
        };
        Self {
            requests: counter!("slugline_requests_total", of()),
            answered: counter!("slugline_requests_answered_total", of()),
            failed: FailureKind::ALL.map(with_kind).into(),
            latency: histogram!("slugline_request_latency_seconds", of()),
            admission_wait: histogram!("slugline_admission_wait_seconds", of()),
            valid: counter!("slugline_labels_valid_total", of()),
            invalid: counter!("slugline_labels_invalid_total", of()),
            prompt_tokens: counter!("slugline_prompt_tokens_total", of()),
            prompt_tokens_with_known_cache: counter!("slugline_prompt_tokens_with_known_cache_total", of()),
            cached_tokens: counter!("slugline_cached_tokens_total", of()),
            output_tokens: counter!("slugline_output_tokens_total", of()),
            up: gauge!("slugline_endpoint_up", of()),
            in_flight: gauge!("slugline_endpoint_in_flight", of()),
            limit: gauge!("slugline_endpoint_concurrency_limit", of()),
            labels,
        }
    }
}

/// Sets the gauges of a signal that alerts looked at.
pub(crate) fn signal(measurement: &Measurement, level: Level) {
    let subject = measurement.subject.as_deref().unwrap_or_default().to_owned();
    let labels = vec![Label::new("signal", measurement.signal.as_str()), Label::new("subject", subject)];
    gauge!("slugline_signal", labels.clone()).set(measurement.value);
    let level = match level {
        Level::Fine => 0,
        Level::Warning => 1,
        Level::Critical => 2,
    };
    gauge!("slugline_alert_level", labels).set(f64::from(level));
}

/// Sets the gauges of a GPU.
#[cfg(feature = "gpu")]
pub(crate) fn gpu(sample: &crate::gpu::GpuSample) {
    let index = sample.index.to_string();
    if let Some(share) = sample.utilization {
        gauge!("slugline_gpu_utilization_share", "gpu" => index.clone()).set(share);
    }
    if let Some(share) = sample.memory_share() {
        gauge!("slugline_gpu_memory_share", "gpu" => index).set(share);
    }
}

fn add<K: Ord>(counters: &BTreeMap<K, Counter>, kind: &K) {
    if let Some(counter) = counters.get(kind) {
        counter.increment(1);
    }
}
