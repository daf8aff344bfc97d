//! The run: one loop that owns the state of every item until it is settled.
//!
//! ```text
//! source -> clean -> copy? -> packer -> ready -> admission -> attempt (a task) -> settle -> outcomes
//!                                ^        ^                                          |
//!                                |        +---- the same pack later, or its halves --+
//!                                +------------- items to be asked again -------------+
//! ```
//!
//! The loop is driven by whoever polls it and spawns nothing but attempts, which it aborts when it is dropped. It takes
//! an item from the source only when there is room, so a slow consumer slows the source down.

mod attempt;
mod course;
mod escalate;
#[cfg(feature = "embedded")]
mod first_look;
mod intake;
pub(crate) mod job;
mod lane;
pub(crate) mod packer;
#[cfg(feature = "ledger")]
mod recall;
mod send;
mod settle;
mod shared;
mod stop;
mod tuner;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, Sleep};
use tracing::Span;

use self::attempt::Finished;
pub(crate) use self::attempt::request;
pub(crate) use self::course::Course;
pub(crate) use self::job::{Item, kind_of_failure, kind_of_fault};
use self::job::{Pack, Tier};
use self::lane::Lane;
pub(crate) use self::packer::Packer;
pub(crate) use self::shared::{Settings, Shared, longest_label_tokens};
pub(crate) use self::stop::Stop;
use self::tuner::Tuner;
use crate::NewsItem;
use crate::calibration::PriorCounts;
use crate::dedup::Dedup;
use crate::error::{Error, ItemErrorKind};
use crate::limit::budget::RetryBudget;
use crate::outcome::Outcome;
use crate::server::BoxFuture;
use crate::stats::{Recording, Stats, StatsHandle, Tally};

/// How long an item that is asked again at a stronger model, or that an engine in the process leaves to the LLM, waits for
/// others to share its request: longer than at first, since such items are few.
const SLOW_PACK_WAIT: Duration = Duration::from_secs(1);
/// How long a run that serves does without the endpoint with the stronger model, or the engine in the process, once it is lost.
const LOST_FOR: Duration = Duration::from_secs(60);

/// One run over a stream of items.
pub(crate) struct Run<S> {
    shared: Arc<Shared>,
    /// The most items of a new pack.
    pack_size: usize,
    /// Chooses the pack size, where that is wanted.
    tuner: Option<Tuner>,
    /// Whether unsure answers are asked again.
    escalates: bool,
    /// Whether callers wait for single items: packs then wait for nobody while the server is idle, part from a bad item
    /// early, and the run outlives its errors.
    serves: bool,
    /// Items from this index on are not taken in yet.
    take_below: u64,
    source: Option<Pin<Box<S>>>,
    /// One for each tier.
    lanes: Vec<Lane>,
    /// Packs that wait for their time.
    delayed: Vec<(Instant, Pack)>,
    attempts: JoinSet<Finished>,
    in_flight: HashMap<Id, Pack>,
    /// The look at a server's metrics that is under way.
    metrics_look: JoinSet<()>,
    /// When each server was looked at last.
    looked_at: HashMap<usize, Instant>,
    outcomes: VecDeque<Outcome>,
    #[cfg(feature = "ledger")]
    recall: recall::Recall,
    #[cfg(feature = "embedded")]
    first_look: first_look::FirstLook,
    dedup: Dedup,
    /// What the model gives each label at each position, where positions are to be evened out.
    priors: PriorCounts,
    /// The requests for first answers, and those that escalation has cost so far.
    first_requests: u64,
    escalation_requests: f64,
    stronger_lost_at: Option<Instant>,
    budget: RetryBudget,
    random: fastrand::Rng,
    recorder: Recording,
    /// The items that were taken in.
    taken_in: u64,
    /// The run's span: its packs are its children, their attempts theirs.
    span: Span,
    /// Items that were taken in and have no outcome yet.
    unsettled: usize,
    stopped: BoxFuture<'static, ()>,
    timer: Pin<Box<Sleep>>,
    /// Why the run stops before its end.
    error: Option<Error>,
}

impl<S: Stream<Item = NewsItem>> Run<S> {
    pub(crate) fn new(shared: Arc<Shared>, source: S, stop: &Stop) -> Self {
        let pack_size = shared.settings.pack_size;
        let tuner = shared.settings.tuning.as_ref().map(|tuning| Tuner::new(tuning, pack_size));
        let run = Self {
            tuner,
            dedup: Dedup::new(&shared.settings),
            #[cfg(feature = "ledger")]
            recall: recall::Recall::new(&shared),
            #[cfg(feature = "embedded")]
            first_look: first_look::FirstLook::new(&shared),
            ..Self::with_pack_size(shared, source, stop, pack_size, true)
        };
        run.report_tuning();
        run
    }

    /// A run that goes on for as long as its source, for callers that wait for single items.
    pub(crate) fn serving(shared: Arc<Shared>, source: S) -> Self {
        let pack_wait = shared.settings.pack_wait;
        let mut run = Self { serves: true, ..Self::new(shared, source, &Stop::new()) };
        run.lanes.iter_mut().for_each(|lane| lane.packer = Packer::new(pack_wait));
        run
    }

    /// A run whose packs have another size than the settings say, which uses no ledger and answers exact copies alone.
    pub(crate) fn with_pack_size(
        shared: Arc<Shared>,
        source: S,
        stop: &Stop,
        pack_size: usize,
        escalates: bool,
    ) -> Self {
        let settings = &shared.settings;
        let pack_wait = settings.pack_wait;
        // What an engine leaves to the LLM comes in spurts.
        #[cfg(feature = "embedded")]
        let pack_wait = if shared.engine.is_some() { pack_wait.max(SLOW_PACK_WAIT) } else { pack_wait };
        let first = Lane::new(Arc::clone(&shared.pool), Packer::new(pack_wait));
        let stronger = shared.stronger.as_ref().map(|pool| Lane::new(Arc::clone(pool), Packer::new(SLOW_PACK_WAIT)));
        Self {
            lanes: std::iter::once(first).chain(stronger).collect(),
            random: settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            source: Some(Box::pin(source)),
            delayed: Vec::new(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            metrics_look: JoinSet::new(),
            looked_at: HashMap::new(),
            outcomes: VecDeque::new(),
            #[cfg(feature = "ledger")]
            recall: recall::Recall::default(),
            #[cfg(feature = "embedded")]
            first_look: first_look::FirstLook::default(),
            dedup: Dedup::default(),
            priors: PriorCounts::new(shared.taxonomy.len()),
            first_requests: 0,
            escalation_requests: 0.0,
            stronger_lost_at: None,
            budget: RetryBudget::default(),
            recorder: Recording(StatsHandle::new(std::iter::once(&shared.pool).chain(&shared.stronger).cloned())),
            taken_in: 0,
            span: tracing::debug_span!(
                "run",
                taxonomy = shared.taxonomy.hash(),
                prompt_version = %shared.prefix.version(),
                endpoints = shared.pool.len(),
                pack_size,
            ),
            unsettled: 0,
            stopped: stop.stopped(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            error: None,
            pack_size,
            tuner: None,
            escalates,
            serves: false,
            take_below: u64::MAX,
            shared,
        }
    }

    /// The next outcome, in the order in which items are settled; none when all are.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        loop {
            if let Some(outcome) = self.outcomes.pop_front() {
                return Poll::Ready(Some(outcome));
            }
            self.recorder.round();
            let has_changed = self.poll_stop(cx)
                | self.poll_attempts(cx)
                | self.poll_source(cx)
                | self.poll_admission(cx)
                | self.poll_timer(cx);
            #[cfg(feature = "ledger")]
            let has_changed = has_changed | self.poll_ledger(cx);
            #[cfg(feature = "embedded")]
            let has_changed = has_changed | self.poll_first_look(cx);
            if has_changed {
                continue;
            }
            let is_done = self.unsettled == 0 && self.source.is_none();
            #[cfg(feature = "ledger")]
            let is_done = is_done && self.recall.is_empty();
            if is_done {
                // A request without items, such as a canary, may still be under way: nobody waits for it, and a stream that
                // is kept for its statistics must not keep a place at an endpoint.
                self.cancel();
                #[cfg(feature = "embedded")]
                self.report_first_opinion();
                self.recorder.end();
                return Poll::Ready(None);
            }
            return Poll::Pending;
        }
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let is_stopped = self.error.is_none() && self.stopped.as_mut().poll(cx).is_ready();
        if is_stopped {
            self.end(Error::Stopped);
        }
        is_stopped
    }

    fn poll_attempts(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        while let Poll::Ready(Some(finished)) = self.attempts.poll_join_next_with_id(cx) {
            self.finish(finished);
            has_changed = true;
        }
        has_changed
    }

    fn poll_admission(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        self.wake_delayed();
        for tier in [Tier::First, Tier::Stronger].into_iter().take(self.lanes.len()) {
            loop {
                self.send_on(tier);
                let Some((_, admission)) = &mut self.lane(tier).admitting else { break };
                let Poll::Ready(admission) = admission.as_mut().poll(cx) else { break };
                self.admitted(tier, admission);
                has_changed = true;
            }
        }
        has_changed
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.next_timer() else { return false };
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    pub(crate) fn stats(&self) -> Stats {
        #[cfg(feature = "embedded")]
        self.report_first_opinion();
        self.recorder.snapshot()
    }

    pub(crate) fn stats_handle(&self) -> StatsHandle {
        self.recorder.0.clone()
    }

    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Lets what this run does at the servers count for a walk, too, which has many runs.
    pub(crate) fn counting_for(mut self, walk: &StatsHandle) -> Self {
        self.recorder.0.count_for(walk);
        self
    }

    /// All that the run has counted.
    pub(crate) fn total(&self) -> Tally {
        self.recorder.total()
    }

    /// Whether a request is in flight, or waits, be it one without items.
    pub(crate) fn has_requests(&self) -> bool {
        !self.in_flight.is_empty() || self.lanes.iter().any(|lane| !lane.is_empty())
    }

    /// Cancels the requests in flight; their items get no outcome. The run must not be polled again.
    pub(crate) fn cancel(&mut self) {
        self.attempts = JoinSet::new();
        self.metrics_look = JoinSet::new();
        self.in_flight.drain().for_each(|(_, pack)| self.recorder.returned(pack.len()));
        // What waits for a place would keep the turn of all other runs.
        self.lanes.iter_mut().for_each(|lane| drop(lane.drain()));
    }

    /// Lets the statistics know what the tuner has found.
    fn report_tuning(&self) {
        if let Some(tuner) = &self.tuner {
            self.recorder.tuned(tuner.report());
        }
    }

    #[cfg(feature = "embedded")]
    fn report_first_opinion(&self) {
        if let Some(stats) = self.first_look.stats() {
            self.recorder.looked(stats);
        }
    }

    fn lane(&mut self, tier: Tier) -> &mut Lane {
        let at = match tier {
            Tier::First => 0,
            // A run without such an endpoint has no pack for it.
            Tier::Stronger => self.lanes.len() - 1,
        };
        &mut self.lanes[at]
    }

    /// Ends the run before its time: what is not in flight is not attempted. A fatal error ends what is in flight, too.
    fn end(&mut self, error: Error) {
        tracing::warn!(%error, "the run ends early");
        let is_fatal = !matches!(error, Error::Stopped);
        self.error = Some(error);
        let mut left: Vec<Item> = self.lanes.iter_mut().flat_map(Lane::drain).collect();
        left.extend(self.delayed.drain(..).flat_map(|(_, pack)| pack.items));
        #[cfg(feature = "embedded")]
        left.extend(self.first_look.drain());
        if is_fatal {
            self.attempts = JoinSet::new();
            for (_, pack) in self.in_flight.drain() {
                self.recorder.returned(pack.len());
                left.extend(pack.items);
            }
        }
        left.sort_unstable_by_key(|item| item.index);
        for item in left {
            self.fail(item, ItemErrorKind::NotAttempted);
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        // While a pack waits for a place, no other can be formed.
        let part_filled =
            self.lanes.iter().filter(|lane| lane.admitting.is_none()).filter_map(|lane| lane.packer.deadline());
        self.delayed.iter().map(|(at, _)| *at).chain(part_filled).min()
    }
}

impl<S> std::fmt::Debug for Run<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("unsettled", &self.unsettled).finish_non_exhaustive()
    }
}
