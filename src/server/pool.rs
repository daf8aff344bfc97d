//! The endpoints of a categorizer, and admission to them: the one place where requests wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dialect::{Dialect, Refused};
use super::endpoint::{EndpointSnapshot, EndpointState, Phase, Signal};
use super::transport::Transport;
use super::wire::Usage;
use crate::error::{Error, Failure};
use crate::limit::rate::{Paid, Rate};

/// How the next endpoint is chosen among those that may be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balance {
    /// Of two at random, the one with fewer requests in flight relative to its limit and weight: close to the best choice,
    /// without the herd that runs to one server when many clients see the same figures (Mitzenmacher, 2001). The default.
    #[default]
    TwoChoices,
    /// The one with the fewest requests in flight relative to its limit and weight.
    FewestInFlight,
    /// One after the other.
    RoundRobin,
}

/// How much more of its limit the home of a prefix may have in use than the endpoint with the least to do; one request is
/// always allowed.
const HOME_LEAD: f64 = 0.25;

/// One endpoint: what never changes of it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) base_url: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) key: Option<SecretString>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) weight: u32,
    pub(crate) rate: Rate,
}

#[derive(Debug)]
pub(crate) struct PoolConfig {
    pub(crate) balance: Balance,
    /// How long to wait while no endpoint answers.
    pub(crate) patience: Duration,
    /// The same while none has ever answered.
    pub(crate) first_patience: Duration,
    pub(crate) seed: Option<u64>,
}

/// All endpoints, shared by all clones of a categorizer.
#[derive(Debug)]
pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    config: PoolConfig,
    state: Mutex<PoolState>,
    changed: Notify,
    /// Admission is first come, first served: whoever holds it is next, however large the request.
    gate: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(crate) struct PoolState {
    endpoints: Vec<EndpointState>,
    random: fastrand::Rng,
    round_robin: usize,
    /// Requests that wait for a place.
    waiting: usize,
    /// Since when no endpoint has answered; none while they do.
    down_since: Option<Instant>,
    ever_answered: bool,
    /// Answers of all endpoints, bad ones and refusals included, as evidence that a failure is the request's own fault.
    answers: u64,
}

impl Pool {
    pub(crate) fn new(endpoints: Vec<(Endpoint, EndpointState)>, config: PoolConfig) -> Self {
        let (endpoints, states) = endpoints.into_iter().unzip();
        let random = config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let state = PoolState {
            endpoints: states,
            random,
            round_robin: 0,
            waiting: 0,
            down_since: None,
            ever_answered: false,
            answers: 0,
        };
        Self {
            endpoints,
            config,
            state: Mutex::new(state),
            changed: Notify::new(),
            gate: tokio::sync::Mutex::default(),
        }
    }

    /// A new run begins: unless others are under way, what an earlier one held against the endpoints is forgotten.
    pub(crate) fn begin_run(&self) {
        let mut state = self.state();
        if self.is_quiet(&state) {
            state.down_since = None;
            state.endpoints.iter_mut().for_each(EndpointState::forgive);
        }
    }

    /// Whether nobody asks. After the end of the patience, what is in flight is being cancelled.
    fn is_quiet(&self, state: &PoolState) -> bool {
        let is_over = state.down_since.is_some_and(|since| since.elapsed() >= self.patience(state));
        state.waiting == 0 && (is_over || state.endpoints.iter().all(|endpoint| endpoint.in_flight == 0))
    }

    fn patience(&self, state: &PoolState) -> Duration {
        if state.ever_answered { self.config.patience } else { self.config.first_patience }
    }

    /// Somebody asks again after a time in which nobody did: an endpoint that was not asked has not failed to answer.
    pub(crate) fn resume(&self) {
        let mut state = self.state();
        if self.is_quiet(&state) {
            state.down_since = None;
        }
    }

    /// Whether what the endpoint at this address rejects may be held against items for good.
    #[cfg(feature = "ledger")]
    pub(crate) fn is_trusted_to_reject(&self, base_url: &str) -> bool {
        let state = self.state();
        let mut endpoints = self.endpoints.iter().zip(&state.endpoints);
        endpoints.any(|(endpoint, state)| *endpoint.base_url == *base_url && state.is_trusted_to_reject())
    }

    /// Waits until some endpoint takes a request of about `tokens`, which should not be `avoid` if there is another. Of
    /// several prefixes, `prefix` is the number of the one that it begins with.
    ///
    /// # Errors
    /// All endpoints refuse, or none has answered for longer than the patience allows.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        tokens: u32,
        avoid: Option<usize>,
        prefix: Option<usize>,
    ) -> Result<Admission, Error> {
        let _waiting = Waiting::new(self);
        let _turn = self.gate.lock().await;
        let mut paid = vec![Paid::default(); self.endpoints.len()];
        loop {
            // Armed before looking, so that no change is missed in between.
            let changed = self.changed.notified();
            let wait = match self.choose(tokens, avoid, prefix, &mut paid)? {
                Choice::Admitted(admission) => return Ok(admission),
                Choice::Wait(until) => until,
            };
            match wait {
                Some(until) => {
                    let _ = tokio::time::timeout_at(until, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Admits now, or says until when to wait at the latest.
    fn choose(
        self: &Arc<Self>,
        tokens: u32,
        avoid: Option<usize>,
        prefix: Option<usize>,
        paid: &mut [Paid],
    ) -> Result<Choice, Error> {
        let now = Instant::now();
        let mut state = self.state();
        state.endpoints.iter_mut().for_each(|endpoint| endpoint.wake(now));
        if state.endpoints.iter().all(|endpoint| endpoint.phase == Phase::Refused) {
            return Err(Error::Refused { failures: state.failures() });
        }
        let patience = self.patience(&state);
        if let Some(since) = state.down_since.filter(|since| now.duration_since(*since) >= patience) {
            return Err(Error::OutOfPatience { waited: now - since, failures: state.failures() });
        }
        let mut until = state.down_since.and_then(|since| since.checked_add(patience));
        let mut wait_until = |at: Instant| until = Some(until.map_or(at, |earlier| earlier.min(at)));

        let mut free: Vec<usize> = (0..self.endpoints.len())
            .filter(|&at| state.endpoints[at].in_flight < state.endpoints[at].capacity())
            .collect();
        // Worth waiting for is one that answers. One that is being probed may hang, and all others would wait with it.
        let is_better = |at: usize| match state.endpoints[at].phase {
            Phase::Open => true,
            Phase::Probing => free.contains(&at),
            Phase::Cooling { .. } | Phase::Refused => false,
        };
        if let Some(avoid) = avoid
            && (0..self.endpoints.len()).any(|at| at != avoid && is_better(at))
        {
            free.retain(|&at| at != avoid);
        }
        while !free.is_empty() {
            let picked = state.pick(&self.endpoints, &free, self.config.balance, prefix);
            let at = free.swap_remove(picked);
            match self.endpoints[at].rate.take(tokens, &mut paid[at]) {
                Ok(()) => {
                    let endpoint = &mut state.endpoints[at];
                    endpoint.in_flight += 1;
                    endpoint.requests += 1;
                    return Ok(Choice::Admitted(Admission {
                        timeout: endpoint.timeout,
                        dialect: endpoint.dialect,
                        pool: Arc::clone(self),
                        at,
                        admitted_at: now,
                    }));
                }
                Err(wait) => wait_until(now + wait),
            }
        }
        for endpoint in &state.endpoints {
            if let Phase::Cooling { until } = endpoint.phase {
                wait_until(until);
            }
        }
        Ok(Choice::Wait(until))
    }

    pub(crate) fn snapshots(&self) -> Vec<EndpointSnapshot> {
        let mut state = self.state();
        self.endpoints
            .iter()
            .zip(&mut state.endpoints)
            .map(|(endpoint, state)| state.snapshot(&endpoint.base_url, &endpoint.model))
            .collect()
    }

    /// The endpoints, in the order of their snapshots.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Of each endpoint the requests in flight, its limit and its queue.
    pub(crate) fn loads(&self) -> Vec<(usize, usize, Option<u64>)> {
        let load = |state: &EndpointState| (state.in_flight, state.limit.current(), state.queue_depth());
        self.state().endpoints.iter().map(load).collect()
    }

    /// The requests that all endpoints together would take now, at least 1.
    pub(crate) fn capacity(&self) -> usize {
        self.state().endpoints.iter().map(EndpointState::capacity).sum::<usize>().max(1)
    }

    /// The answers that came so far from any endpoint.
    pub(crate) fn answers(&self) -> u64 {
        self.state().answers
    }

    /// The shortest context that an endpoint has stated, in tokens.
    pub(crate) fn context_tokens(&self) -> Option<usize> {
        self.state().endpoints.iter().filter_map(|endpoint| endpoint.context_tokens).min()
    }

    /// Whether an endpoint's metrics would tell something new about its prefix cache.
    pub(crate) fn wants_metrics(&self, at: usize) -> bool {
        self.state().endpoints.get(at).is_some_and(|endpoint| endpoint.prefix_cache.wants_metrics())
    }

    /// Reads an endpoint's metrics, for the proof of the prefix and, if `watches_queue`, to lower its limit when many
    /// requests wait inside it or its KV cache is full. `admitted_at` is that of a request which it has just answered.
    pub(crate) async fn read_metrics(self: Arc<Self>, at: usize, admitted_at: Instant, watches_queue: bool) {
        let Some(endpoint) = self.endpoints.get(at) else { return };
        let metrics = endpoint.transport.metrics().await;
        let mut state = self.state();
        state.endpoints[at].server_said(metrics.as_ref());
        if let Some(metrics) = metrics.as_ref().filter(|_| watches_queue) {
            let limit = &mut state.endpoints[at].limit;
            metrics.waiting_requests.into_iter().for_each(|waiting| limit.queue_seen(waiting, admitted_at));
            metrics.kv_cache_use.into_iter().for_each(|in_use| limit.cache_seen(in_use, admitted_at));
        }
        state.endpoints[at].prefix_cache.metrics_read(metrics.as_ref());
        state.warn_of_prefix(at, &endpoint.base_url);
    }

    /// The models of the endpoints.
    pub(crate) fn models(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(|endpoint| &*endpoint.model)
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolState {
    /// Says once what keeps an endpoint from having the prefix cached.
    fn warn_of_prefix(&mut self, at: usize, endpoint: &Arc<str>) {
        if let Some(advice) = self.endpoints[at].prefix_cache.take_warning() {
            tracing::warn!(%endpoint, %advice, "the prefix is not cached as it could be");
        }
    }

    fn failures(&self) -> Vec<Failure> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.last_failure.clone()).collect()
    }

    /// Picks one of the free endpoints; gives its position in `free`, which is not empty. Each of several prefixes
    /// has a home, so that the endpoints divide them among their caches: the endpoint of the highest hash of the two
    /// (rendezvous hashing, Thaler and Ravishankar 1998) that has not clearly more to do than another (bounded loads,
    /// Mirrokni, Thorup and Zadimoghaddam 2018).
    fn pick(&mut self, endpoints: &[Endpoint], free: &[usize], balance: Balance, prefix: Option<usize>) -> usize {
        let first = self.random.usize(..free.len());
        let second = (first + 1 + self.random.usize(..free.len().max(2) - 1)) % free.len();
        let load = |position: usize| {
            let (endpoint, state) = (&endpoints[free[position]], &self.endpoints[free[position]]);
            state.in_flight as f64 / (state.capacity() as f64 * f64::from(endpoint.weight))
        };
        let lighter = |a: usize, b: usize| if load(b) < load(a) { b } else { a };
        let lightest = (0..free.len()).reduce(lighter).unwrap_or(0);
        if let Some(prefix) = prefix {
            let most_ahead = |at: usize| HOME_LEAD.max(1.0 / self.endpoints[free[at]].capacity() as f64);
            let is_idle = |at: &usize| load(*at) <= load(lightest) + most_ahead(*at);
            return (0..free.len()).filter(is_idle).max_by_key(|&at| rank(prefix, free[at])).unwrap_or(lightest);
        }
        match balance {
            Balance::TwoChoices => lighter(first, second),
            Balance::FewestInFlight => lightest,
            Balance::RoundRobin => {
                let next = (0..free.len()).min_by_key(|&position| {
                    (free[position] + endpoints.len() - self.round_robin % endpoints.len()) % endpoints.len()
                });
                let picked = next.unwrap_or(0);
                self.round_robin = free[picked] + 1;
                picked
            }
        }
    }
}

/// How much a prefix wants to be at an endpoint: a number that looks random (the mixer of splitmix64, Steele et al. 2014).
fn rank(prefix: usize, endpoint: usize) -> u64 {
    let mut mixed = (prefix as u64).wrapping_shl(32) ^ endpoint as u64;
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        mixed = (mixed ^ (mixed >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 31)
}

/// A request that waits for a place.
struct Waiting(Arc<Pool>);

impl Waiting {
    fn new(pool: &Arc<Pool>) -> Self {
        pool.state().waiting += 1;
        Self(Arc::clone(pool))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

enum Choice {
    Admitted(Admission),
    Wait(Option<Instant>),
}

/// The right to send one request to one endpoint. Dropping it gives the place back and judges nobody.
#[derive(Debug)]
pub(crate) struct Admission {
    pool: Arc<Pool>,
    /// The number of the endpoint.
    pub(crate) at: usize,
    pub(crate) admitted_at: Instant,
    pub(crate) timeout: Duration,
    pub(crate) dialect: Dialect,
}

impl Admission {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.pool.endpoints[self.at]
    }

    /// Gives the place back and tells the pool what the attempt says about the endpoint.
    pub(crate) fn settle(self, signal: Signal) {
        let mut state = self.pool.state();
        // With nobody else to turn to, bad answers are better than none.
        let signal = match signal {
            Signal::Garbage if self.pool.len() == 1 => Signal::Answered(self.admitted_at.elapsed()),
            signal => signal,
        };
        match signal {
            Signal::Rejected(_) if state.endpoints[self.at].rejects_in_doubt() => {
                state.down_since.get_or_insert_with(Instant::now);
            }
            Signal::Answered(_) | Signal::Rejected(_) | Signal::Garbage => {
                state.down_since = None;
                state.ever_answered = true;
                state.answers += 1;
            }
            Signal::Renegotiated => state.down_since = None,
            Signal::Overloaded(..) | Signal::TimedOut(_) | Signal::Unavailable(_) | Signal::Refused(_) => {
                // A slow server that is given more time is not down.
                let gets_more_time =
                    matches!(signal, Signal::TimedOut(_)) && state.endpoints[self.at].would_get_more_time();
                if !gets_more_time {
                    state.down_since.get_or_insert_with(Instant::now);
                }
                // A server that says it is overloaded, or still loading its model, is there.
                state.ever_answered |= matches!(signal, Signal::Overloaded(..));
            }
        }
        state.endpoints[self.at].learn(signal, self.admitted_at);
        // The place itself is given back by the drop.
    }

    /// Falls back from a part of the request's form. False when there is no simpler form left.
    pub(crate) fn fall_back(&self, refused: Refused) -> bool {
        let mut state = self.pool.state();
        let endpoint = &mut state.endpoints[self.at];
        if endpoint.dialect != self.dialect {
            // Another request learned it first.
            return true;
        }
        let Some(simpler) = endpoint.dialect.without(refused) else { return false };
        tracing::warn!(endpoint = %self.endpoint().base_url, ?refused, "the server refuses a part of the request's form; falling back");
        endpoint.dialect = simpler;
        true
    }

    /// Whether the endpoint rejects one request after another, so that a rejection says more of it than of the request.
    pub(crate) fn rejects_in_doubt(&self) -> bool {
        self.pool.state().endpoints[self.at].rejects_in_doubt()
    }

    /// Learns what the answer's usage says of the prefix, which has about `prefix_tokens`.
    pub(crate) fn learn_usage(&self, usage: Option<Usage>, prefix_tokens: usize) {
        let mut state = self.pool.state();
        state.endpoints[self.at].prefix_cache.answered(usage, prefix_tokens);
        state.warn_of_prefix(self.at, &self.endpoint().base_url);
    }

    /// Remembers the context length that the endpoint stated.
    pub(crate) fn learn_context(&self, tokens: usize) {
        self.pool.state().endpoints[self.at].context_tokens = Some(tokens);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.pool.state().endpoints[self.at].in_flight -= 1;
        self.pool.changed.notify_waiters();
    }
}
