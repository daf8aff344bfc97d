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
pub(crate) mod job;
pub(crate) mod packer;
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
use self::job::{Item, Pack};
use self::packer::Packer;
use crate::NewsItem;
use crate::answer::schema::Schemas;
use crate::dedup::{Dedup, Seen};
use crate::error::{Error, ItemError, ItemErrorKind};
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

    /// The estimated tokens that the texts and frames of a pack may take.
    fn pack_budget_tokens(&self) -> usize {
        let context = self.pool.context_tokens().unwrap_or(usize::MAX).min(self.settings.context_tokens);
        let around = self.estimator.predict(self.prefix.tokens(), CLOSING_TOKENS)
            + self.max_output_tokens(self.settings.pack_size);
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

/// One run over a stream of items.
pub(crate) struct Run<S> {
    shared: Arc<Shared>,
    source: Option<Pin<Box<S>>>,
    packer: Packer,
    /// Packs that go next, before new ones.
    ready: VecDeque<Pack>,
    /// Packs that wait for their time.
    delayed: Vec<(Instant, Pack)>,
    /// The pack that waits for a place.
    admitting: Option<(Pack, BoxFuture<'static, Result<Admission, Error>>)>,
    attempts: JoinSet<Finished>,
    in_flight: HashMap<Id, Pack>,
    /// The look at a server's queue that is under way.
    queue_watch: JoinSet<()>,
    queue_seen_at: Option<Instant>,
    outcomes: VecDeque<Outcome>,
    dedup: Dedup,
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
        shared.pool.begin_run();
        let settings = &shared.settings;
        Self {
            packer: Packer::new(settings.pack_size, settings.pack_wait),
            random: settings.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            source: Some(Box::pin(source)),
            ready: VecDeque::new(),
            delayed: Vec::new(),
            admitting: None,
            attempts: JoinSet::new(),
            in_flight: HashMap::new(),
            queue_watch: JoinSet::new(),
            queue_seen_at: None,
            outcomes: VecDeque::new(),
            dedup: Dedup::default(),
            budget: RetryBudget::default(),
            recorder: Recorder::new(),
            span: tracing::debug_span!(
                "run",
                taxonomy = shared.taxonomy.hash(),
                prompt_version = %shared.prefix.version(),
                endpoints = shared.pool.len(),
                pack_size = settings.pack_size,
            ),
            unsettled: 0,
            stopped: stop.stopped(),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            error: None,
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
        loop {
            self.send_on();
            let Some((_, admission)) = &mut self.admitting else { break };
            let Poll::Ready(admission) = admission.as_mut().poll(cx) else { break };
            self.admitted(admission);
            has_changed = true;
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
        self.recorder.snapshot(self.shared.pool.snapshots())
    }

    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// How many items may be on their way.
    fn room(&self) -> usize {
        (PACKS_PER_PLACE * self.shared.pool.capacity() + PACKS_ASIDE) * self.shared.settings.pack_size
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
            Seen::New => self.packer.push(Item::new(index, item.id, text)),
            Seen::Waits => {}
            Seen::Answered(outcome) => self.emit(*outcome),
        }
    }

    /// Moves packs whose time has come, and starts waiting for a place for the next one.
    fn send_on(&mut self) {
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
                self.ready.push_back(pack);
            } else {
                self.delayed[at].0 = now + BUDGET_PAUSE;
                at += 1;
            }
        }
        if self.admitting.is_some() {
            return;
        }
        let Some(pack) = self.ready.pop_front().or_else(|| self.new_pack()) else { return };
        let texts = self.texts_of(&pack);
        let prompt = self.shared.estimator.predict(self.shared.prefix.tokens(), items_tokens(&texts));
        let tokens = u32::try_from(prompt + self.shared.max_output_tokens(texts.len())).unwrap_or(u32::MAX);
        let pool = Arc::clone(&self.shared.pool);
        let avoid = pack.avoid;
        let admission = async move { pool.admit(tokens, avoid).await };
        self.admitting = Some((pack, Box::pin(admission)));
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

    fn new_pack(&mut self) -> Option<Pack> {
        // A part-filled pack leaves early only when nothing could still join it.
        let flush = self.source.is_none() && self.in_flight.is_empty() && self.delayed.is_empty();
        let flush = flush || (self.source.is_none() && self.packer.len() <= self.shared.settings.pack_size);
        let mut pack = self.packer.take(self.shared.pack_budget_tokens(), flush)?;
        if pack.items.iter().any(|item| item.content_failures > 0) {
            self.random.shuffle(&mut pack.items);
        }
        if pack.items.iter().all(|item| item.attempts == 0) {
            self.budget.deposit();
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

    fn admitted(&mut self, admission: Result<Admission, Error>) {
        let Some((mut pack, _)) = self.admitting.take() else { return };
        let admission = match admission {
            Ok(admission) => admission,
            Err(error) => {
                self.ready.push_front(pack);
                return self.end(error);
            }
        };
        let now = Instant::now();
        if pack.waits == 0 {
            pack.answers_seen = self.shared.pool.answers();
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
        let mut left: Vec<Item> = self.packer.drain().collect();
        let packs = self.ready.drain(..).chain(self.delayed.drain(..).map(|(_, pack)| pack));
        left.extend(packs.chain(self.admitting.take().map(|(pack, _)| pack)).flat_map(|pack| pack.items));
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
        let part_filled = if self.admitting.is_none() { self.packer.deadline() } else { None };
        self.delayed.iter().map(|(at, _)| *at).chain(part_filled).min()
    }

    fn fail(&mut self, item: Item, kind: ItemErrorKind) {
        let error = item.error(kind);
        self.settled(item, Err(error));
    }

    /// Settles an item and its copies.
    fn settled(&mut self, item: Item, result: Result<Assignment, ItemError>) {
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
        self.recorder.settled(&outcome);
        self.outcomes.push_back(outcome);
    }
}

impl<S> std::fmt::Debug for Run<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Run").field("unsettled", &self.unsettled).finish_non_exhaustive()
    }
}
