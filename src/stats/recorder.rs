//! Counts while a run goes, and takes snapshots of the counts from anywhere.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::tally::{Series, Tally};
use super::time_line::TimeLine;
use super::window::counts;
use super::{EndpointStats, Rates, Stats, Window};
use crate::answer::{Fault, Label};
use crate::descent::LevelStats;
use crate::error::{FailureKind, ItemErrorKind};
#[cfg(feature = "metrics")]
use crate::metrics::Meters;
use crate::outcome::Outcome;
use crate::run::kind_of_fault;
use crate::server::wire::Usage;
use crate::server::{EndpointSnapshot, Pool};
use crate::tuning::TuningReport;

/// Gives the [`Stats`] of a run at any time, from any task, also after the run has ended or was dropped. Cheap to clone.
///
/// A snapshot takes some tens of microseconds, during which the run cannot count: every second is fine, every millisecond
/// is not.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use slugline::testing::SimulatedServer;
/// use futures_util::{StreamExt, stream};
/// # use slugline::{Categorizer, NewsItem, Taxonomy};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let server = SimulatedServer::builder().start().await?;
/// # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
/// # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
/// let items = stream::iter((0..30).map(|n| NewsItem::new(n.to_string(), format!("Cup final {n}"), "")));
/// let outcomes = categorizer.stream(items);
/// let stats = outcomes.stats_handle();
/// let watch = tokio::spawn(async move {
///     loop {
///         let now = stats.snapshot();
///         println!("{} items, {:.1} requests/s", now.categorized, now.last_minute.rates.requests_per_second);
///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
///     }
/// });
/// assert_eq!(outcomes.count().await, 30);
/// watch.abort();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct StatsHandle {
    recorder: Arc<Mutex<Recorder>>,
    /// Those of all items, and the one with the stronger model.
    pools: Arc<[Arc<Pool>]>,
    /// Those of a walk, whose runs count for it what they do at the servers.
    walk: Option<Box<StatsHandle>>,
    /// None where a walk has them.
    #[cfg(feature = "metrics")]
    meters: Option<Arc<Meters>>,
}

#[derive(Debug)]
struct Recorder {
    started: Instant,
    ended: Option<Instant>,
    /// The time of the current round of the run, so that not every count has to ask for it.
    now: Instant,
    run: Series,
    /// Those of the first pool, then those of the second.
    endpoints: Vec<EndpointRecorder>,
    time_line: TimeLine,
    requests_in_flight: usize,
    items_in_flight: usize,
    /// Items that were taken in and are not handed on.
    unsettled: usize,
    max_in_flight: usize,
    tuning: Option<TuningReport>,
    #[cfg(feature = "embedded")]
    first_opinion: Option<crate::embedded::FirstOpinionStats>,
    #[cfg(feature = "gpu")]
    gpus: Vec<crate::gpu::GpuSample>,
    levels: Vec<LevelStats>,
}

#[derive(Debug)]
struct EndpointRecorder {
    series: Series,
    time_line: TimeLine,
}

/// An endpoint of a run: the number of its pool, and its own in there.
pub(crate) type EndpointNumber = (usize, usize);

impl StatsHandle {
    /// What the run has measured so far.
    pub fn snapshot(&self) -> Stats {
        let snapshots: Vec<EndpointSnapshot> = self.pools.iter().flat_map(|pool| pool.snapshots()).collect();
        let mut recorder = self.lock();
        let now = recorder.ended.unwrap_or_else(Instant::now);
        recorder.tick(now);
        let stats = recorder.stats(now, snapshots);
        drop(recorder);
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.publish(&stats));
        stats
    }

    /// Puts the GPUs of the servers into the statistics, as [`GpuWatch::latest`](crate::gpu::GpuWatch::latest) gives them.
    #[cfg(feature = "gpu")]
    pub fn set_gpus(&self, gpus: Vec<crate::gpu::GpuSample>) {
        self.lock().gpus = gpus;
    }

    pub(crate) fn new(pools: impl IntoIterator<Item = Arc<Pool>>) -> Self {
        let pools: Arc<[Arc<Pool>]> = pools.into_iter().collect();
        let now = Instant::now();
        let endpoint = || EndpointRecorder { series: Series::new(now), time_line: TimeLine::new() };
        let recorder = Recorder {
            started: now,
            ended: None,
            now,
            run: Series::new(now),
            endpoints: pools.iter().flat_map(|pool| std::iter::repeat_with(endpoint).take(pool.len())).collect(),
            time_line: TimeLine::new(),
            requests_in_flight: 0,
            items_in_flight: 0,
            unsettled: 0,
            max_in_flight: 0,
            tuning: None,
            #[cfg(feature = "embedded")]
            first_opinion: None,
            #[cfg(feature = "gpu")]
            gpus: Vec::new(),
            levels: Vec::new(),
        };
        Self {
            recorder: Arc::new(Mutex::new(recorder)),
            #[cfg(feature = "metrics")]
            meters: Some(Arc::new(Meters::new(&pools.iter().flat_map(|pool| pool.snapshots()).collect::<Vec<_>>()))),
            walk: None,
            pools,
        }
    }

    /// Lets what is done at the servers count for a walk as well.
    pub(crate) fn count_for(&mut self, walk: &Self) {
        self.walk = Some(Box::new(walk.clone()));
        #[cfg(feature = "metrics")]
        {
            self.meters = None;
        }
    }

    /// All that was counted.
    pub(crate) fn total(&self) -> Tally {
        let recorder = self.lock();
        let mut total = recorder.run.total();
        recorder.endpoints.iter().for_each(|endpoint| total.add(&endpoint.series.total()));
        total
    }

    /// A round of the run begins.
    pub(crate) fn round(&self) {
        let mut recorder = self.lock();
        let now = Instant::now();
        recorder.tick(now);
        let since_start = now - recorder.started;
        if recorder.time_line.is_due(since_start) {
            let snapshots: Vec<_> = self.pools.iter().flat_map(|pool| pool.loads()).collect();
            recorder.sample(since_start, &snapshots);
        }
    }

    /// The run is over: the clock stops.
    pub(crate) fn end(&self) {
        let mut recorder = self.lock();
        recorder.ended.get_or_insert_with(Instant::now);
        recorder.requests_in_flight = 0;
        recorder.items_in_flight = 0;
    }

    /// Counts something of the run as a whole.
    pub(crate) fn count(&self, add: impl Fn(&mut Tally)) {
        self.count_here_and_above(&add);
    }

    /// Without a type parameter, of which each level would make a new one without end.
    fn count_here_and_above(&self, add: &dyn Fn(&mut Tally)) {
        if let Some(walk) = &self.walk {
            walk.count_here_and_above(add);
        }
        add(self.lock().run.current());
    }

    /// An item was taken in. Gives the time of the current round.
    pub(crate) fn taken_in(&self) -> Instant {
        let mut recorder = self.lock();
        recorder.unsettled += 1;
        recorder.run.current().items += 1;
        #[cfg(feature = "metrics")]
        self.meter(super::super::metrics::Meters::taken_in);
        recorder.now
    }

    pub(crate) fn handed_on(&self, outcome: &Outcome) {
        let mut recorder = self.lock();
        recorder.unsettled = recorder.unsettled.saturating_sub(1);
        recorder.run.current().settled(outcome);
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.handed_on(outcome));
    }

    /// An item is asked again since its answer was not valid.
    pub(crate) fn reasked(&self) {
        self.count(|counts| counts.reasked += 1);
        #[cfg(feature = "metrics")]
        self.walk.as_deref().unwrap_or(self).meter(|meters| meters.reasked.increment(1));
    }

    /// An item is asked again since its answer was not sure enough.
    pub(crate) fn escalated(&self) {
        self.count(|counts| counts.escalated += 1);
        #[cfg(feature = "metrics")]
        self.walk.as_deref().unwrap_or(self).meter(|meters| meters.escalated.increment(1));
    }

    /// A pack was split.
    pub(crate) fn split(&self) {
        self.count(|counts| counts.splits += 1);
        #[cfg(feature = "metrics")]
        self.walk.as_deref().unwrap_or(self).meter(|meters| meters.splits.increment(1));
    }

    /// An item that was asked is settled; it was taken in at that time.
    pub(crate) fn item_took(&self, since: Instant) {
        let mut recorder = self.lock();
        let latency = recorder.now.saturating_duration_since(since);
        recorder.run.current().item_latency.record(latency);
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.item_took(latency));
    }

    /// A pack was sent, after waiting so long for a place.
    pub(crate) fn sent(&self, at: EndpointNumber, items: usize, waited: Duration) {
        if let Some(walk) = &self.walk {
            walk.sent(at, items, waited);
        }
        let place = self.place(at);
        let mut recorder = self.lock();
        recorder.requests_in_flight += 1;
        recorder.items_in_flight += items;
        recorder.max_in_flight = recorder.max_in_flight.max(recorder.requests_in_flight);
        let Some(tally) = recorder.tally_of(place) else { return };
        tally.requests += 1;
        tally.admission_wait.record(waited);
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.sent(place, waited));
    }

    /// A request has ended, however it did.
    pub(crate) fn returned(&self, items: usize) {
        if let Some(walk) = &self.walk {
            walk.returned(items);
        }
        let mut recorder = self.lock();
        recorder.requests_in_flight = recorder.requests_in_flight.saturating_sub(1);
        recorder.items_in_flight = recorder.items_in_flight.saturating_sub(items);
    }

    pub(crate) fn answered(
        &self,
        at: EndpointNumber,
        latency: Duration,
        usage: Option<Usage>,
        labels: &[Result<Label, Fault>],
    ) {
        if let Some(walk) = &self.walk {
            walk.answered(at, latency, usage, labels);
        }
        let place = self.place(at);
        let mut recorder = self.lock();
        let Some(tally) = recorder.tally_of(place) else { return };
        let mut valid = 0;
        for label in labels {
            match label {
                Ok(_) => valid += 1,
                Err(fault) => *tally.invalid_answers.entry(kind_of_fault(*fault)).or_default() += 1,
            }
        }
        tally.answered(latency, usage, valid);
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.answered(place, latency, usage, valid, labels.len() as u64 - valid));
    }

    pub(crate) fn attempt_failed(&self, at: EndpointNumber, kind: FailureKind) {
        if let Some(walk) = &self.walk {
            walk.attempt_failed(at, kind);
        }
        let place = self.place(at);
        if let Some(tally) = self.lock().tally_of(place) {
            *tally.failures.entry(kind).or_default() += 1;
        }
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.failed(place, kind));
    }

    /// A pack goes again that failed in this way.
    pub(crate) fn retried(&self, cause: Option<FailureKind>) {
        if let Some(walk) = &self.walk {
            walk.retried(cause);
        }
        let cause = cause.unwrap_or(FailureKind::Interrupted);
        *self.lock().run.current().retries.entry(cause).or_default() += 1;
        #[cfg(feature = "metrics")]
        self.meter(|meters| meters.retried(cause));
    }

    pub(crate) fn walked(&self, levels: Vec<LevelStats>) {
        self.lock().levels = levels;
    }

    pub(crate) fn tuned(&self, report: TuningReport) {
        self.lock().tuning = Some(report);
    }

    #[cfg(feature = "embedded")]
    pub(crate) fn looked(&self, stats: crate::embedded::FirstOpinionStats) {
        self.lock().first_opinion = Some(stats);
    }

    #[cfg(feature = "metrics")]
    fn meter(&self, count: impl FnOnce(&Meters)) {
        if let Some(meters) = &self.meters {
            count(meters);
        }
    }

    fn place(&self, (pool, at): EndpointNumber) -> usize {
        self.pools.iter().take(pool).map(|pool| pool.len()).sum::<usize>() + at
    }

    fn lock(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's own handle: when it is dropped, the run is over.
#[derive(Debug)]
pub(crate) struct Recording(pub(crate) StatsHandle);

impl Deref for Recording {
    type Target = StatsHandle;

    fn deref(&self) -> &StatsHandle {
        &self.0
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end();
    }
}

impl Recorder {
    fn tick(&mut self, now: Instant) {
        self.now = now;
        self.run.tick(now);
        self.endpoints.iter_mut().for_each(|endpoint| endpoint.series.tick(now));
    }

    fn tally_of(&mut self, place: usize) -> Option<&mut Tally> {
        Some(self.endpoints.get_mut(place)?.series.current())
    }

    /// Takes a moment of the time lines; of each endpoint its requests in flight, its limit and its queue.
    fn sample(&mut self, at: Duration, loads: &[(usize, usize, Option<u64>)]) {
        let limit = loads.iter().map(|load| load.1).sum();
        let queue_depth = loads.iter().filter_map(|load| load.2).max();
        self.time_line.push(at, self.requests_in_flight, limit, queue_depth);
        for (endpoint, (in_flight, limit, queue_depth)) in self.endpoints.iter_mut().zip(loads) {
            endpoint.time_line.push(at, *in_flight, *limit, *queue_depth);
        }
    }

    fn stats(&self, now: Instant, endpoints: Vec<EndpointSnapshot>) -> Stats {
        let elapsed_s = now.saturating_duration_since(self.started).as_secs_f64();
        let by_endpoint: Vec<_> = self
            .endpoints
            .iter()
            .zip(&endpoints)
            .map(|(recorder, snapshot)| {
                let (minute, seconds) = recorder.series.last_minute(now);
                EndpointStats {
                    endpoint: Arc::clone(&snapshot.endpoint),
                    model: Arc::clone(&snapshot.model),
                    total: Window::of(&recorder.series.total(), elapsed_s),
                    last_minute: Window::of(&minute, seconds),
                    time_line: recorder.time_line.moments(),
                }
            })
            .collect();
        let (mut minute, seconds) = self.run.last_minute(now);
        let mut total = self.run.total();
        for endpoint in &self.endpoints {
            minute.add(&endpoint.series.last_minute(now).0);
            total.add(&endpoint.series.total());
        }
        let retries_by_cause = counts(&total.retries, |kind| kind.to_string());
        Stats {
            elapsed_s,
            items: total.items,
            categorized: total.categorized,
            failed: counts(&total.failed, ItemErrorKind::as_str),
            below_threshold: total.below_threshold,
            fallback: total.fallback,
            duplicates: total.duplicates,
            from_ledger: total.from_ledger,
            kept_across_versions: total.kept_across_versions,
            changed_since_version: total.changed_since_version,
            near_duplicates: total.near_duplicates,
            asked_items: total.asked_items,
            requests: total.requests,
            answered: total.answered,
            failures: counts(&total.failures, |kind| kind.to_string()),
            retries: total.retries.values().sum(),
            retries_by_cause,
            valid_answers: total.valid_answers,
            invalid_answers: counts(&total.invalid_answers, ItemErrorKind::as_str),
            reasked: total.reasked,
            splits: total.splits,
            suspects: total.suspects,
            relabelled: total.relabelled,
            escalated: total.escalated,
            escalations_changed: total.escalations_changed,
            escalations_refused: total.escalations_refused,
            shortened: total.shortened,
            answers_with_usage: total.answers_with_usage,
            prompt_tokens: total.usage.prompt_tokens,
            cached_tokens: total.usage.cached_tokens,
            prompt_tokens_with_known_cache: total.prompt_tokens_with_known_cache,
            output_tokens: total.usage.output_tokens,
            latency: total.latency.latency(),
            item_latency: total.item_latency.latency(),
            admission_wait: total.admission_wait.latency(),
            rates: Rates::of(&total, elapsed_s),
            last_minute: Window::of(&minute, seconds),
            in_flight: self.requests_in_flight,
            max_in_flight: self.max_in_flight,
            concurrency_limit: endpoints.iter().map(|endpoint| endpoint.concurrency_limit).sum(),
            waiting_items: self.unsettled.saturating_sub(self.items_in_flight),
            queue_depth: endpoints.iter().filter_map(EndpointSnapshot::queue_depth).max(),
            tuning: self.tuning.clone(),
            #[cfg(feature = "embedded")]
            first_opinion: self.first_opinion.clone(),
            #[cfg(feature = "gpu")]
            gpus: self.gpus.clone(),
            levels: self.levels.clone(),
            by_endpoint,
            time_line: self.time_line.moments(),
            endpoints,
        }
    }
}
