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
mod escalate;
mod job;
mod lane;
mod packer;
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
use tracing::{Instrument, Span};

pub(crate) use self::attempt::request;
use self::attempt::{Finished, attempt, items_tokens};
pub(crate) use self::job::{Item, kind_of_failure, kind_of_fault};
use self::job::{Pack, Tier};
use self::lane::Lane;
pub(crate) use self::packer::Packer;
pub(crate) use self::shared::{Settings, Shared, longest_label_tokens};
pub(crate) use self::stop::Stop;
use self::tuner::Tuner;
use crate::NewsItem;
use crate::calibration::PriorCounts;
use crate::dedup::{Dedup, Seen};
use crate::error::{Error, ItemError, ItemErrorKind};
use crate::limit::budget::RetryBudget;
use crate::outcome::{Assignment, Outcome};
use crate::prompt::clean::CleanText;
use crate::prompt::suspect;
use crate::server::{Admission, BoxFuture};
use crate::stats::{Recorder, Stats};

/// How many packs' worth of items may be on their way for each request that may be in flight: enough to keep requests
/// full while some wait for a retry.
const PACKS_PER_PLACE: usize = 4;
/// The same beside the requests in flight.
const PACKS_ASIDE: usize = 16;
/// Outcomes that may wait for the consumer before no more items are taken in.
const MOST_WAITING_OUTCOMES: usize = 64;
/// How often the queues of the servers are looked at, where that is wanted.
const QUEUE_WATCH_PERIOD: Duration = Duration::from_secs(1);
/// How long a retry that the budget does not allow now waits before it asks again.
const BUDGET_PAUSE: Duration = Duration::from_millis(500);
/// How long an item that is asked again at a stronger model waits for others to share its request: longer than at first,
/// since such items are few.
const STRONGER_PACK_WAIT: Duration = Duration::from_secs(1);

/// One run over a stream of items.
pub(crate) struct Run<S> {
    shared: Arc<Shared>,
    /// The most items of a new pack.
    pack_size: usize,
    /// Chooses the pack size, where that is wanted.
    tuner: Option<Tuner>,
    /// Whether unsure answers are asked again.
    escalates: bool,
    source: Option<Pin<Box<S>>>,
    /// One for each tier.
    lanes: Vec<Lane>,
    /// Packs that wait for their time.
    delayed: Vec<(Instant, Pack)>,
    attempts: JoinSet<Finished>,
    in_flight: HashMap<Id, Pack>,
    /// The look at a server's metrics that is under way.
    metrics_look: JoinSet<()>,
    queue_seen_at: Option<Instant>,
    outcomes: VecDeque<Outcome>,
    dedup: Dedup,
    /// What the model gives each label at each position, where positions are to be evened out.
    priors: PriorCounts,
    /// The requests for first answers, and those that escalation has cost so far.
    first_requests: u64,
    escalation_requests: f64,
    stronger_is_lost: bool,
    budget: RetryBudget,
    random: fastrand::Rng,
    recorder: Recorder,
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
        let dedup = Dedup::new(&shared.settings);
        Self { tuner, dedup, ..Self::with_pack_size(shared, source, stop, pack_size, true) }
    }

    /// A run whose packs have another size than the settings say, and which answers exact copies alone.
    pub(crate) fn with_pack_size(
        shared: Arc<Shared>,
        source: S,
        stop: &Stop,
        pack_size: usize,
        escalates: bool,
    ) -> Self {
        shared.pool.begin_run();
        let settings = &shared.settings;
        let first = Lane::new(Arc::clone(&shared.pool), Packer::new(settings.pack_wait));
        let stronger = shared.stronger.as_ref().map(|pool| {
            pool.begin_run();
            Lane::new(Arc::clone(pool), Packer::new(STRONGER_PACK_WAIT))
        });
        Self {
            lanes: std::iter::once(first).chain(stronger).collect(),
            random: settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            source: Some(Box::pin(source)),
            delayed: Vec::new(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            metrics_look: JoinSet::new(),
            queue_seen_at: None,
            outcomes: VecDeque::new(),
            dedup: Dedup::default(),
            priors: PriorCounts::new(shared.taxonomy.len()),
            first_requests: 0,
            escalation_requests: 0.0,
            stronger_is_lost: false,
            budget: RetryBudget::default(),
            recorder: Recorder::new(),
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
            shared,
        }
    }

    /// The next outcome, in the order in which items are settled; none when all are.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        loop {
            if let Some(outcome) = self.outcomes.pop_front() {
                return Poll::Ready(Some(outcome));
            }
            let has_changed = self.poll_stop(cx)
                | self.poll_attempts(cx)
                | self.poll_source(cx)
                | self.poll_admission(cx)
                | self.poll_timer(cx);
            if has_changed {
                continue;
            }
            let is_done = self.unsettled == 0 && self.source.is_none();
            return if is_done { Poll::Ready(None) } else { Poll::Pending };
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

    fn poll_source(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        let room = self.room();
        while self.unsettled < room && self.outcomes.len() < MOST_WAITING_OUTCOMES {
            let Some(source) = &mut self.source else { break };
            let Poll::Ready(item) = source.as_mut().poll_next(cx) else { break };
            has_changed = true;
            match item {
                Some(item) => self.take_in(item),
                None => self.source = None,
            }
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
        let stronger = self.shared.stronger.iter().flat_map(|pool| pool.snapshots());
        Stats {
            tuning: self.tuner.as_ref().map(Tuner::report),
            ..self.recorder.snapshot(self.shared.pool.snapshots().into_iter().chain(stronger).collect())
        }
    }

    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// How many items may be on their way.
    fn room(&self) -> usize {
        (PACKS_PER_PLACE * self.shared.pool.capacity() + PACKS_ASIDE) * self.largest_pack()
    }

    /// The most items that a pack may have.
    fn largest_pack(&self) -> usize {
        self.tuner.as_ref().map_or(self.pack_size, Tuner::largest)
    }

    fn take_in(&mut self, item: NewsItem) {
        let index = self.recorder.items;
        self.recorder.items += 1;
        self.unsettled += 1;
        if self.error.is_some() {
            return self.outcome(index, item.id, Err(ItemError::of(ItemErrorKind::NotAttempted)));
        }
        let Some(text) = CleanText::of(&item, self.shared.settings.item_tokens) else {
            return self.outcome(index, item.id, Err(ItemError::of(ItemErrorKind::Empty)));
        };
        let text = match &self.shared.tokens {
            Some(tokens) => text.counted_with(&**tokens),
            None => text,
        };
        let is_suspect = suspect::is_suspect(&item);
        self.ask_or_copy(Item { alone: is_suspect, is_suspect, ..Item::new(index, item.id, text) });
    }

    /// Asks an item, unless the answer to another is its answer, too.
    fn ask_or_copy(&mut self, item: Item) {
        if self.error.is_some() {
            return self.fail(item, ItemErrorKind::NotAttempted);
        }
        match self.dedup.see(item) {
            Seen::New(item) => {
                self.recorder.suspects += u64::from(item.is_suspect);
                self.lane(Tier::First).packer.push(item);
            }
            Seen::Waits => {}
            Seen::Answered(outcome) => self.emit(*outcome),
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

    /// Moves packs whose time has come.
    fn wake_delayed(&mut self) {
        if self.error.is_some() {
            return;
        }
        let now = Instant::now();
        let mut at = 0;
        while at < self.delayed.len() {
            if self.delayed[at].0 > now {
                at += 1;
            } else if self.budget.withdraw() {
                self.recorder.retries += 1;
                let (_, pack) = self.delayed.swap_remove(at);
                self.lane(pack.tier).ready.push_back(pack);
            } else {
                self.delayed[at].0 = now + BUDGET_PAUSE;
                at += 1;
            }
        }
    }

    /// Starts waiting for a place for the next pack.
    fn send_on(&mut self, tier: Tier) {
        if self.error.is_some() || self.lane(tier).admitting.is_some() {
            return;
        }
        let Some(pack) = self.lane(tier).ready.pop_front().or_else(|| self.new_pack(tier)) else { return };
        let texts = self.texts_of(&pack);
        let prompt = self.shared.estimator.predict(self.shared.prefix.tokens(), items_tokens(&texts));
        let tokens = u32::try_from(prompt + self.shared.max_output_tokens(texts.len())).unwrap_or(u32::MAX);
        self.lane(tier).admit(pack, tokens);
    }

    /// The texts of a pack; those of a canary are made up from the taxonomy.
    fn texts_of(&self, pack: &Pack) -> Vec<Arc<CleanText>> {
        if let Some(check) = &pack.check {
            return vec![Arc::clone(&check.item.text)];
        }
        if pack.items.is_empty() {
            let made_up =
                self.shared.taxonomy.at(0).map(|category| NewsItem::new("", &*category.name, &*category.description));
            return made_up
                .and_then(|item| CleanText::of(&item, self.shared.settings.item_tokens))
                .map(Arc::new)
                .into_iter()
                .collect();
        }
        pack.items.iter().map(|item| Arc::clone(&item.text)).collect()
    }

    fn new_pack(&mut self, tier: Tier) -> Option<Pack> {
        // A part-filled pack leaves early only when nothing could still join it.
        let is_last = self.source.is_none() && self.in_flight.is_empty() && self.delayed.is_empty();
        let waiting = self.lane(Tier::First).packer.len();
        let flush = is_last || (self.source.is_none() && tier == Tier::First && waiting <= self.pack_size);
        let tuner = self.tuner.as_mut().filter(|_| tier == Tier::First);
        let measured = tuner.map(|tuner| tuner.next_size(self.in_flight.len(), &mut self.random));
        let pack_size = measured.unwrap_or(self.pack_size);
        let budget_tokens = self.shared.pack_budget_tokens(pack_size);
        let mut pack = self.lane(tier).packer.take(pack_size, budget_tokens, flush)?;
        pack.tier = tier;
        // Positions can be compared only where chance put the items there, whatever the order of the source.
        let is_shuffled = self.shared.settings.evens_positions;
        if is_shuffled || pack.items.iter().any(|item| item.content_failures > 0 || item.escalated.is_some()) {
            self.random.shuffle(&mut pack.items);
        }
        if pack.items.iter().all(|item| item.attempts == 0) {
            self.budget.deposit();
            self.first_requests += 1;
            if let (Some(tuner), true) = (&mut self.tuner, measured == Some(pack.len())) {
                pack.measures = tuner.sent().then_some((pack.len(), 0));
            }
        }
        pack.span = tracing::debug_span!(
            parent: &self.span,
            "pack",
            first_item = pack.items.first().map_or(0, |item| item.index),
            items = pack.len(),
            text_tokens = pack.items.iter().map(|item| item.text.tokens).sum::<usize>(),
        );
        Some(pack)
    }

    fn admitted(&mut self, tier: Tier, admission: Result<Admission, Error>) {
        let Some((mut pack, _)) = self.lane(tier).admitting.take() else { return };
        let admission = match admission {
            Ok(admission) => admission,
            Err(error) => {
                self.lane(tier).ready.push_front(pack);
                return match tier {
                    Tier::First => self.end(error),
                    Tier::Stronger => self.lose_stronger(&error),
                };
            }
        };
        let now = Instant::now();
        if pack.waits == 0 {
            pack.answers_seen = self.lane(tier).pool.answers();
        }
        for item in &mut pack.items {
            item.attempts += 1;
            item.first_attempt.get_or_insert(now);
        }
        if let Some((_, in_flight)) = &mut pack.measures {
            *in_flight = self.in_flight.len() + 1;
        }
        self.recorder.requests += 1;
        self.recorder.max_in_flight = self.recorder.max_in_flight.max(self.in_flight.len() + 1);
        let texts = self.texts_of(&pack);
        let span = tracing::debug_span!(
            parent: &pack.span,
            "attempt",
            endpoint = %admission.endpoint().base_url,
            items = pack.len(),
            number = pack.items.first().map_or(0, |item| item.attempts),
        );
        let task = self.attempts.spawn(attempt(Arc::clone(&self.shared), texts, admission).instrument(span));
        self.in_flight.insert(task.id(), pack);
    }

    /// Looks at the metrics of the server that has just answered: for its prefix cache once or twice, for its queue now and
    /// then where that is wanted.
    fn look_at_metrics(&mut self, at: usize, admitted_at: Instant) {
        while self.metrics_look.try_join_next().is_some() {}
        let is_recent = self.queue_seen_at.is_some_and(|seen_at| seen_at.elapsed() < QUEUE_WATCH_PERIOD);
        let watches_queue = self.shared.settings.waits_by_gauge && !is_recent;
        if (watches_queue || self.shared.pool.wants_metrics(at)) && self.metrics_look.is_empty() {
            if watches_queue {
                self.queue_seen_at = Some(Instant::now());
            }
            self.metrics_look.spawn(Arc::clone(&self.shared.pool).read_metrics(at, admitted_at, watches_queue));
        }
    }

    /// Ends the run before its time: what is not in flight is not attempted. A fatal error ends what is in flight, too.
    fn end(&mut self, error: Error) {
        tracing::warn!(%error, "the run ends early");
        let is_fatal = !matches!(error, Error::Stopped);
        self.error = Some(error);
        let mut left: Vec<Item> = self.lanes.iter_mut().flat_map(Lane::drain).collect();
        left.extend(self.delayed.drain(..).flat_map(|(_, pack)| pack.items));
        if is_fatal {
            self.attempts = JoinSet::new();
            left.extend(self.in_flight.drain().flat_map(|(_, pack)| pack.items));
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

    fn fail(&mut self, item: Item, kind: ItemErrorKind) {
        if item.escalated.is_some() {
            return self.settle_escalated(item);
        }
        let error = item.error(kind);
        self.settled(item, Err(error));
    }

    /// Settles an item and its copies.
    fn settled(&mut self, item: Item, result: Result<Assignment, ItemError>) {
        let copies = self.dedup.settle(item.index, &item.id, &result);
        self.outcome(item.index, item.id, result);
        for copy in copies.settled {
            self.emit(copy);
        }
        for item in copies.unsettled {
            self.ask_or_copy(item);
        }
    }

    fn outcome(&mut self, index: u64, id: String, result: Result<Assignment, ItemError>) {
        self.emit(Outcome { id, index, result });
    }

    fn emit(&mut self, outcome: Outcome) {
        self.unsettled -= 1;
        self.recorder.settled(&outcome);
        self.outcomes.push_back(outcome);
    }
}

impl<S> std::fmt::Debug for Run<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("unsettled", &self.unsettled).finish_non_exhaustive()
    }
}
