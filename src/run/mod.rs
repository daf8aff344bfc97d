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
#[cfg(feature = "ledger")]
mod recall;
mod settle;

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, Sleep};
use tracing::{Instrument, Span};

use self::attempt::{Finished, attempt, items_tokens};
use self::job::{Item, Pack, Tier};
use self::lane::Lane;
use self::packer::Packer;
use crate::NewsItem;
use crate::answer::AnswerForm;
use crate::answer::schema::Schemas;
use crate::calibration::{self, PriorCounts};
use crate::dedup::{Dedup, Seen};
use crate::error::{Error, ItemError, ItemErrorKind};
use crate::escalation::Escalation;
use crate::limit::budget::RetryBudget;
use crate::outcome::{Assignment, Outcome};
use crate::prompt::Prefix;
use crate::prompt::clean::CleanText;
use crate::prompt::frame::CLOSING_TOKENS;
use crate::prompt::tokens::{self, CountTokens, TokenEstimator};
use crate::server::{Admission, BoxFuture, Pool};
use crate::stats::{Recorder, Stats};
use crate::taxonomy::Taxonomy;

/// What the runs of a categorizer share.
pub(crate) struct Shared {
    pub(crate) taxonomy: Taxonomy,
    pub(crate) prefix: Prefix,
    pub(crate) schemas: Schemas,
    pub(crate) estimator: TokenEstimator,
    pub(crate) tokens: Option<Arc<dyn CountTokens>>,
    pub(crate) pool: Arc<Pool>,
    /// The endpoint with the stronger model, where the escalation has one.
    pub(crate) stronger: Option<Arc<Pool>>,
    pub(crate) escalation: Option<Escalation>,
    /// Where answers are kept, and what they are kept under.
    #[cfg(feature = "ledger")]
    pub(crate) ledger: Option<(crate::ledger::Ledger, crate::ledger::Questions)>,
    /// At most one for each model.
    pub(crate) calibrations: Vec<calibration::Ready>,
    pub(crate) settings: Settings,
    pub(crate) longest_label_tokens: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("taxonomy", &self.taxonomy.name())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// How a categorizer works; the builder documents each.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) pack_size: usize,
    pub(crate) answer_form: AnswerForm,
    pub(crate) evens_positions: bool,
    pub(crate) item_tokens: usize,
    pub(crate) context_tokens: usize,
    pub(crate) temperature: f32,
    pub(crate) transport_retries: u32,
    pub(crate) content_retries: u32,
    pub(crate) pack_wait: Duration,
    pub(crate) waits_by_gauge: bool,
    pub(crate) seed: Option<u64>,
}

/// Tokens of one object of an answer beside its label, with the blanks that vLLM writes after colons and commas.
const OBJECT_TOKENS: usize = 16;
/// Tokens of the answer around its objects, the wrapper of an object root included.
const AROUND_TOKENS: usize = 16;

impl Shared {
    /// The most tokens that an answer for so many items may take: tight, since a constrained decoder can loop in white
    /// space until the limit.
    pub(crate) fn max_output_tokens(&self, pack_len: usize) -> usize {
        AROUND_TOKENS + pack_len * (OBJECT_TOKENS + self.longest_label_tokens)
    }

    /// The estimated tokens that the texts and frames of a pack of so many items may take.
    fn pack_budget_tokens(&self, pack_size: usize) -> usize {
        let context = self.pool.context_tokens().unwrap_or(usize::MAX).min(self.settings.context_tokens);
        let around = self.estimator.predict(self.prefix.tokens(), CLOSING_TOKENS) + self.max_output_tokens(pack_size);
        // A tenth stays free, since these are estimates.
        let free = context.saturating_sub(around) * 9 / 10;
        let one_estimated = self.estimator.predict(0, 1_000).max(1);
        free * 1_000 / one_estimated
    }
}

/// The tokens of a taxonomy's longest label at worst: about one for three letters.
pub(crate) fn longest_label_tokens(taxonomy: &Taxonomy) -> usize {
    let tokens = |label: &str| tokens::estimate(label).max(label.len().div_ceil(3));
    taxonomy.categories().map(|category| tokens(category.id.as_str())).max().unwrap_or(1)
}

/// Where the caller asks a run to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    fn stopped(&self) -> BoxFuture<'static, ()> {
        let mut receiver = self.0.subscribe();
        Box::pin(async move {
            if receiver.wait_for(|is_stopped| *is_stopped).await.is_err() {
                // Nobody is left who could ask.
                std::future::pending::<()>().await;
            }
        })
    }
}

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
    /// Whether unsure answers are asked again.
    escalates: bool,
    source: Option<Pin<Box<S>>>,
    /// One for each tier.
    lanes: Vec<Lane>,
    /// Packs that wait for their time.
    delayed: Vec<(Instant, Pack)>,
    attempts: JoinSet<Finished>,
    in_flight: HashMap<Id, Pack>,
    /// The look at a server's queue that is under way.
    queue_watch: JoinSet<()>,
    queue_seen_at: Option<Instant>,
    outcomes: VecDeque<Outcome>,
    #[cfg(feature = "ledger")]
    recall: recall::Recall,
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
        #[cfg_attr(not(feature = "ledger"), expect(unused_mut, reason = "only a ledger is set"))]
        let mut run = Self::with_pack_size(shared, source, stop, pack_size, true);
        #[cfg(feature = "ledger")]
        run.use_ledger();
        run
    }

    /// A run whose packs have another size than the settings say, and which uses no ledger.
    pub(crate) fn with_pack_size(
        shared: Arc<Shared>,
        source: S,
        stop: &Stop,
        pack_size: usize,
        escalates: bool,
    ) -> Self {
        shared.pool.begin_run();
        let settings = &shared.settings;
        let first = Lane::new(Arc::clone(&shared.pool), Packer::new(pack_size, settings.pack_wait));
        let stronger = shared.stronger.as_ref().map(|pool| {
            pool.begin_run();
            Lane::new(Arc::clone(pool), Packer::new(pack_size, STRONGER_PACK_WAIT))
        });
        Self {
            lanes: std::iter::once(first).chain(stronger).collect(),
            random: settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            source: Some(Box::pin(source)),
            delayed: Vec::new(),
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            queue_watch: JoinSet::new(),
            queue_seen_at: None,
            outcomes: VecDeque::new(),
            #[cfg(feature = "ledger")]
            recall: recall::Recall::default(),
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
            #[cfg(feature = "ledger")]
            let has_changed = has_changed | self.poll_ledger(cx);
            if has_changed {
                continue;
            }
            let is_done = self.unsettled == 0 && self.source.is_none();
            #[cfg(feature = "ledger")]
            let is_done = is_done && self.recall.is_empty();
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
            #[cfg(feature = "ledger")]
            if self.recall.is_full() {
                break;
            }
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
        self.recorder.snapshot(self.shared.pool.snapshots().into_iter().chain(stronger).collect())
    }

    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// How many items may be on their way.
    fn room(&self) -> usize {
        (PACKS_PER_PLACE * self.shared.pool.capacity() + PACKS_ASIDE) * self.pack_size
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
        match self.dedup.see(&text, index, &item.id) {
            Seen::New => self.ask(Item::new(index, item.id, text)),
            Seen::Waits => {}
            Seen::Answered(outcome) => self.emit(*outcome),
        }
    }

    /// Asks for the first time, unless the ledger has the answer.
    fn ask(&mut self, item: Item) {
        #[cfg(feature = "ledger")]
        let Some(item) = self.recall(item) else { return };
        self.lane(Tier::First).packer.push(item);
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
        let budget_tokens = self.shared.pack_budget_tokens(self.pack_size);
        let mut pack = self.lane(tier).packer.take(budget_tokens, flush)?;
        pack.tier = tier;
        // Positions can be compared only where chance put the items there, whatever the order of the source.
        let is_shuffled = self.shared.settings.evens_positions;
        if is_shuffled || pack.items.iter().any(|item| item.content_failures > 0 || item.escalated.is_some()) {
            self.random.shuffle(&mut pack.items);
        }
        if pack.items.iter().all(|item| item.attempts == 0) {
            self.budget.deposit();
            self.first_requests += 1;
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

    /// Looks at the queue of the server that has just answered, now and then.
    fn watch_queue(&mut self, at: usize, admitted_at: Instant) {
        while self.queue_watch.try_join_next().is_some() {}
        let is_recent = self.queue_seen_at.is_some_and(|seen_at| seen_at.elapsed() < QUEUE_WATCH_PERIOD);
        if self.shared.settings.waits_by_gauge && !is_recent && self.queue_watch.is_empty() {
            self.queue_seen_at = Some(Instant::now());
            self.queue_watch.spawn(Arc::clone(&self.shared.pool).watch_queue(at, admitted_at));
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
        #[cfg(feature = "ledger")]
        self.record(&item, &result);
        self.conclude(item, result);
    }

    fn conclude(&mut self, item: Item, result: Result<Assignment, ItemError>) {
        let copies = self.dedup.settle(item.index, &item.id, &result);
        self.outcome(item.index, item.id, result);
        for copy in copies {
            self.emit(copy);
        }
    }

    fn outcome(&mut self, index: u64, id: String, result: Result<Assignment, ItemError>) {
        self.emit(Outcome { id, index, result });
    }

    fn emit(&mut self, outcome: Outcome) {
        self.unsettled -= 1;
        #[cfg(feature = "ledger")]
        let Some(outcome) = self.recall.hold(outcome) else { return };
        self.hand_on(outcome);
    }

    fn hand_on(&mut self, outcome: Outcome) {
        self.recorder.settled(&outcome);
        self.outcomes.push_back(outcome);
    }
}

impl<S> std::fmt::Debug for Run<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("unsettled", &self.unsettled).finish_non_exhaustive()
    }
}
