//! What a run measured: totals since its start, the last minute beside them, and both for each endpoint.
//!
//! Always on. Each event is counted once, in one place, under a lock that nobody else holds; sums are made when somebody
//! asks, with [`StatsHandle::snapshot`], while the run goes or after it. Times are those of tokio's clock.

mod recorder;
mod tally;
mod time_line;
mod times;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

pub use self::recorder::StatsHandle;
pub(crate) use self::recorder::{EndpointNumber, Recording};
pub(crate) use self::tally::Tally;
pub use self::time_line::Moment;
pub use self::times::Latency;
use crate::descent::LevelStats;
use crate::server::EndpointSnapshot;
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
    /// Items that were given no category since none was as probable as was asked for: no failures.
    pub below_threshold: u64,
    /// Items whose model chose the category that means "none of these".
    pub fallback: u64,
    /// Items that were answered as copies of another, near ones included.
    pub duplicates: u64,
    /// Items that have their category from the ledger (feature `ledger`), without a request.
    pub from_ledger: u64,
    /// Those among them whose answer is of an earlier version of the taxonomy and still holds; of a tree, once for each level.
    pub kept_across_versions: u64,
    /// Items whose answer of an earlier version did not hold any more, so that they were asked again.
    pub changed_since_version: u64,
    /// Those among the copies whose text was similar, not equal.
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
    /// The same by the kind of the failure.
    pub retries_by_cause: BTreeMap<String, u64>,
    /// Labels that kept the contract of an answer, one for each item of a pack.
    pub valid_answers: u64,
    /// Items of packs for which the answer had no valid label, by what was wrong.
    pub invalid_answers: BTreeMap<&'static str, u64>,
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
    /// From the moment an item was taken in until it was settled, of items that were asked.
    pub item_latency: Latency,
    /// How long packs waited for a place at an endpoint, and for its rates.
    pub admission_wait: Latency,
    /// Rates and shares since the start.
    pub rates: Rates,
    /// The last minute by itself.
    pub last_minute: Window,
    /// Requests of this run in flight now.
    pub in_flight: usize,
    /// The most of them that were in flight at once.
    pub max_in_flight: usize,
    /// The most requests in flight that all endpoints together allow now.
    pub concurrency_limit: usize,
    /// Items that were taken in and are neither in flight nor settled now: in packs that wait or will be tried again, or
    /// copies of such.
    pub waiting_items: usize,
    /// Requests that wait inside the server, of several the most of one, as the servers said in the last minute; none where
    /// they do not say. See [`watch_server_metrics`](crate::CategorizerBuilder::watch_server_metrics).
    pub queue_depth: Option<u64>,
    /// What was found about pack sizes, where they are chosen by measurement.
    pub tuning: Option<TuningReport>,
    /// What the engine in the process settled, where there is one.
    #[cfg(feature = "embedded")]
    pub first_opinion: Option<crate::embedded::FirstOpinionStats>,
    /// The GPUs as the run was told of them last ([`StatsHandle::set_gpus`]); empty where it was not.
    #[cfg(feature = "gpu")]
    pub gpus: Vec<crate::gpu::GpuSample>,
    /// The levels of a tree that was walked, from the top; empty otherwise. In a snapshot of a [`StatsHandle`] they are those
    /// of the last look at the walk itself, or of its end.
    pub levels: Vec<LevelStats>,
    /// What this run had of each endpoint, in the order of [`endpoints`](Self::endpoints).
    pub by_endpoint: Vec<EndpointStats>,
    /// Requests in flight over time, at most 120 moments.
    pub time_line: Vec<Moment>,
    /// The endpoints as they are now.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// What happened in a stretch of time, in all or at one endpoint.
///
/// At one endpoint, what concerns items as a whole is zero: an item may have been at several.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Window {
    /// How long it was, in seconds.
    pub seconds: f64,
    /// Items that got a category. Not by endpoint.
    pub categorized: u64,
    /// Items that were given up, by kind. Not by endpoint.
    pub failed: BTreeMap<&'static str, u64>,
    /// Items that were given no category since none was as probable as was asked for. Not by endpoint.
    pub below_threshold: u64,
    /// Items whose model chose the category that means "none of these". Not by endpoint.
    pub fallback: u64,
    /// Attempts that were sent.
    pub requests: u64,
    /// Attempts that the model answered.
    pub answered: u64,
    /// Attempts that failed, by kind.
    pub failures: BTreeMap<String, u64>,
    /// Packs that were sent again after a failure. Not by endpoint.
    pub retries: u64,
    /// Labels that kept the contract of an answer.
    pub valid_answers: u64,
    /// Items of packs for which the answer had no valid label, by what was wrong.
    pub invalid_answers: BTreeMap<&'static str, u64>,
    /// Items that were asked again since their answer was not valid. Not by endpoint.
    pub reasked: u64,
    /// Packs that were split to find a bad item. Not by endpoint.
    pub splits: u64,
    /// Items that were asked again since their first answer was not sure enough. Not by endpoint.
    pub escalated: u64,
    /// Prompt tokens as the servers counted them.
    pub prompt_tokens: u64,
    /// Prompt tokens that came from the servers' prefix caches; none when no server says.
    pub cached_tokens: Option<u64>,
    /// Generated tokens as the servers counted them.
    pub output_tokens: u64,
    /// Latency of answered attempts, from admission to the last byte.
    pub latency: Latency,
    /// From the moment an item was taken in until it was settled, of items that were asked. Not by endpoint.
    pub item_latency: Latency,
    /// How long packs waited for a place and for rates.
    pub admission_wait: Latency,
    /// Rates and shares.
    pub rates: Rates,
}

/// Rates and shares of a stretch of time. Shares are 0 to 1, and none where there is nothing that they could be a share of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Rates {
    /// Attempts sent per second.
    pub requests_per_second: f64,
    /// Items settled per second, failed ones included, but not those that were never attempted.
    pub items_per_second: f64,
    /// Attempts that the model answered, of those that ended.
    pub success_share: Option<f64>,
    /// Items of packs without a valid label, of all that answers were to label.
    pub invalid_share: Option<f64>,
    /// Items in the category that means "none of these", of those that have a category.
    pub fallback_share: Option<f64>,
    /// Prompt tokens from the servers' prefix caches, of those where the server said.
    pub cached_share: Option<f64>,
    /// Prompt tokens per second.
    pub prompt_tokens_per_second: f64,
    /// Those from prefix caches; none when no server says.
    pub cached_tokens_per_second: Option<f64>,
    /// Generated tokens per second.
    pub output_tokens_per_second: f64,
    /// Prompt tokens for each valid label.
    pub prompt_tokens_per_item: Option<f64>,
    /// Those from prefix caches.
    pub cached_tokens_per_item: Option<f64>,
    /// Generated tokens for each valid label.
    pub output_tokens_per_item: Option<f64>,
}

/// What a run had of one endpoint.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointStats {
    /// Its base address.
    pub endpoint: Arc<str>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// Since the start of the run.
    pub total: Window,
    /// The last minute.
    pub last_minute: Window,
    /// Its requests in flight over time, those of other runs of the categorizer included; at most 120 moments.
    pub time_line: Vec<Moment>,
}

impl Stats {
    /// Items settled per second, failed ones included, but not those that were never attempted.
    pub fn items_per_second(&self) -> f64 {
        self.rates.items_per_second
    }

    /// The share of prompt tokens that came from the servers' prefix caches, among those where the server said.
    pub fn cached_share(&self) -> Option<f64> {
        self.rates.cached_share
    }
}
