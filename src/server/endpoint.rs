//! What is known of one endpoint.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::dialect::Dialect;
use super::metrics::ServerMetrics;
use super::prefix_cache::{PrefixCache, PrefixCacheSnapshot};
use crate::error::Failure;
use crate::limit::concurrency::ConcurrencyLimit;

/// What an attempt says about its endpoint.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Signal {
    /// An answer came, after this long.
    Answered(Duration),
    /// The server works, but refuses this request for what it says.
    Rejected(Failure),
    /// The server is overloaded, and may have said how long to wait.
    Overloaded(Failure, Option<Duration>),
    /// No whole answer in time.
    TimedOut(Failure),
    /// No usable answer.
    Unavailable(Failure),
    /// The key or the model is refused.
    Refused(Failure),
    /// An answer came in which no item has a valid label.
    Garbage,
    /// The request's form was refused, and another will be tried.
    Renegotiated,
}

/// Whether an endpoint may be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    /// Never answered, or just back from a cool-down: one request at a time. This also lets the first request fill the
    /// server's prefix cache before the others need it.
    Probing,
    /// Answers: as many requests as its limit allows.
    Open,
    /// Left alone until then.
    Cooling { until: Instant },
    /// Refuses the key or the model: not asked again in this run.
    Refused,
}

/// Failures in a row that send an endpoint to cool down. One or two happen to a healthy server; at a failure rate of 15 %
/// five come in a row once in 13,000 requests.
const FAILURES_TO_COOL: u32 = 5;
/// Rejections in a row that make an endpoint useless if it never answered anything.
const REJECTIONS_TO_REFUSE: u32 = 16;
/// Rejections in a row after which a server that used to answer may have gone wrong itself, whatever the requests say.
const REJECTIONS_TO_DOUBT: u32 = 32;
/// Rejections in a row that say nothing yet against a server that used to answer.
#[cfg(feature = "ledger")]
const REJECTIONS_TO_TRUST: u32 = 16;
/// The first cool-down; it doubles with each failed probe.
const FIRST_COOL_DOWN: Duration = Duration::from_secs(1);
/// The longest cool-down.
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(30);
/// The longest wait that a server may ask for.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);
/// What a server said of itself longer ago is no longer its state.
const SERVER_METRICS_HOLD: Duration = Duration::from_secs(60);
/// The longest timeout that a slow endpoint is given.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// What is known of an endpoint. Its fields change under the pool's lock alone.
#[derive(Clone, Debug)]
pub(crate) struct EndpointState {
    pub(crate) phase: Phase,
    pub(crate) in_flight: usize,
    pub(crate) limit: ConcurrencyLimit,
    pub(crate) timeout: Duration,
    /// The timeout as it was configured.
    usual_timeout: Duration,
    pub(crate) dialect: Dialect,
    /// The context length in tokens that the server stated.
    pub(crate) context_tokens: Option<usize>,
    pub(crate) prefix_cache: PrefixCache,
    /// What the server said of itself last, and when.
    server: Option<(ServerMetrics, Instant)>,
    pub(crate) last_failure: Option<Failure>,
    pub(crate) has_answered: bool,
    failures_in_row: u32,
    rejections_in_row: u32,
    cool_downs_in_row: u32,
    /// Until when the server itself asked to be left alone.
    asked_to_wait_until: Option<Instant>,
    pub(crate) requests: u64,
    pub(crate) answers: u64,
}

impl EndpointState {
    pub(crate) fn new(limit: ConcurrencyLimit, timeout: Duration, dialect: Dialect) -> Self {
        Self {
            phase: Phase::Probing,
            in_flight: 0,
            limit,
            timeout,
            usual_timeout: timeout,
            dialect,
            context_tokens: None,
            prefix_cache: PrefixCache::default(),
            server: None,
            last_failure: None,
            has_answered: false,
            failures_in_row: 0,
            rejections_in_row: 0,
            cool_downs_in_row: 0,
            asked_to_wait_until: None,
            requests: 0,
            answers: 0,
        }
    }

    /// The requests that may be in flight now.
    pub(crate) fn capacity(&self) -> usize {
        match self.phase {
            Phase::Probing => 1,
            Phase::Open => self.limit.current(),
            Phase::Cooling { .. } | Phase::Refused => 0,
        }
    }

    /// Remembers what the server says of itself; nothing says nothing new.
    pub(crate) fn server_said(&mut self, metrics: Option<&ServerMetrics>) {
        if let Some(metrics) = metrics {
            self.server = Some((metrics.clone(), Instant::now()));
        }
    }

    /// The requests that wait inside the server, if it said so lately.
    pub(crate) fn queue_depth(&self) -> Option<u64> {
        let (metrics, at) = self.server.as_ref()?;
        metrics.waiting_requests.filter(|_| at.elapsed() <= SERVER_METRICS_HOLD)
    }

    /// Ends a cool-down whose time has come.
    pub(crate) fn wake(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Cooling { until } if until <= now) {
            self.phase = Phase::Probing;
        }
    }

    /// Forgets what a new run should find out for itself. How long the server asked to be left alone is not ours to forget.
    pub(crate) fn forgive(&mut self) {
        let is_asked_to_wait = self.asked_to_wait_until.is_some_and(|until| until > Instant::now());
        if self.phase == Phase::Refused || (matches!(self.phase, Phase::Cooling { .. }) && !is_asked_to_wait) {
            self.phase = Phase::Probing;
            self.failures_in_row = 0;
            self.rejections_in_row = 0;
            self.cool_downs_in_row = 0;
        }
    }

    /// Learns from an attempt that was admitted at `admitted_at`, which is still counted as in flight.
    pub(crate) fn learn(&mut self, signal: Signal, admitted_at: Instant) {
        match signal {
            Signal::Answered(latency) => {
                self.recovered();
                // A timeout that was doubled for a request that hung, not for a slow server, comes down again.
                self.timeout = latency.saturating_mul(4).clamp(self.usual_timeout, self.timeout);
                self.answers += 1;
                self.has_answered = true;
                self.rejections_in_row = 0;
                self.limit.succeeded(self.in_flight);
            }
            Signal::Rejected(failure) => {
                self.last_failure = Some(failure);
                self.rejections_in_row += 1;
                if !self.has_answered && self.rejections_in_row >= REJECTIONS_TO_REFUSE {
                    self.phase = Phase::Refused;
                } else if self.rejections_in_row >= REJECTIONS_TO_DOUBT {
                    self.failed();
                } else {
                    self.recovered();
                }
            }
            Signal::Overloaded(failure, retry_after) => {
                self.last_failure = Some(failure);
                self.limit.overloaded(admitted_at);
                self.failed();
                if let Some(wait) = retry_after {
                    let wait = wait.min(LONGEST_RETRY_AFTER);
                    self.asked_to_wait_until = self.asked_to_wait_until.max(Some(Instant::now() + wait));
                    self.cool(wait);
                }
            }
            Signal::TimedOut(failure) => {
                self.last_failure = Some(failure);
                self.limit.overloaded(admitted_at);
                // Alone and still too slow: the timeout is wrong for this server, not the load.
                if self.would_get_more_time() {
                    self.timeout = (2 * self.timeout).min(LONGEST_TIMEOUT);
                    tracing::warn!(
                        timeout_s = self.timeout.as_secs_f64(),
                        "a single request timed out; the timeout is doubled"
                    );
                } else {
                    self.failed();
                }
            }
            Signal::Unavailable(failure) => {
                if failure.kind == crate::FailureKind::Connect {
                    self.limit.overloaded(admitted_at);
                }
                self.last_failure = Some(failure);
                self.failed();
            }
            Signal::Refused(failure) => {
                self.last_failure = Some(failure);
                self.phase = Phase::Refused;
            }
            Signal::Garbage => self.failed(),
            Signal::Renegotiated => {}
        }
    }

    /// Whether a timeout now leads to a longer timeout instead of counting as a failure.
    pub(crate) fn would_get_more_time(&self) -> bool {
        self.in_flight == 1 && self.timeout < LONGEST_TIMEOUT
    }

    /// Whether one more rejection would put the server in doubt, and not the request.
    pub(crate) fn rejects_in_doubt(&self) -> bool {
        self.rejections_in_row + 1 >= REJECTIONS_TO_DOUBT
    }

    /// Whether what it rejects may be held against items for good.
    #[cfg(feature = "ledger")]
    pub(crate) fn is_trusted_to_reject(&self) -> bool {
        self.has_answered && self.rejections_in_row < REJECTIONS_TO_TRUST
    }

    fn recovered(&mut self) {
        self.failures_in_row = 0;
        self.cool_downs_in_row = 0;
        if self.phase == Phase::Probing {
            self.phase = Phase::Open;
        }
    }

    fn failed(&mut self) {
        self.failures_in_row += 1;
        let is_probe = self.phase == Phase::Probing;
        if is_probe || (self.phase == Phase::Open && self.failures_in_row >= FAILURES_TO_COOL) {
            let length = FIRST_COOL_DOWN.saturating_mul(1 << self.cool_downs_in_row.min(5)).min(LONGEST_COOL_DOWN);
            self.cool_downs_in_row += 1;
            self.failures_in_row = 0;
            self.cool(length);
        }
    }

    fn cool(&mut self, length: Duration) {
        let until = Instant::now() + length;
        match self.phase {
            Phase::Refused => {}
            Phase::Cooling { until: earlier } if earlier >= until => {}
            _ => self.phase = Phase::Cooling { until },
        }
    }
}

/// What is known of an endpoint, for statistics.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Its base address.
    pub endpoint: Arc<str>,
    /// The model that is asked for.
    pub model: Arc<str>,
    /// `probing`, `open`, `cooling` or `refused`.
    pub phase: &'static str,
    /// Requests in flight now.
    pub in_flight: usize,
    /// The most requests in flight that are allowed now.
    pub concurrency_limit: usize,
    /// The timeout of one attempt, in seconds.
    pub timeout_s: f64,
    /// The form in which it takes requests.
    pub dialect: Dialect,
    /// The context length in tokens that it stated, where it did.
    pub context_tokens: Option<usize>,
    /// Attempts made since the categorizer was built.
    pub requests: u64,
    /// Attempts that were answered.
    pub answers: u64,
    /// How much of the prefix it has cached.
    pub prefix_cache: PrefixCacheSnapshot,
    /// What the server said of itself last.
    pub server: Option<ServerMetrics>,
    /// How long ago that was, in seconds.
    pub server_seen_ago_s: Option<f64>,
    /// The last failure in words.
    pub last_failure: Option<String>,
}

impl EndpointSnapshot {
    /// The requests that wait inside the server, if it said so in the last minute.
    pub fn queue_depth(&self) -> Option<u64> {
        let is_recent = self.server_seen_ago_s.is_some_and(|ago| ago <= SERVER_METRICS_HOLD.as_secs_f64());
        self.server.as_ref()?.waiting_requests.filter(|_| is_recent)
    }
}

impl EndpointState {
    pub(crate) fn snapshot(&mut self, endpoint: &Arc<str>, model: &Arc<str>) -> EndpointSnapshot {
        // A cool-down that is over has ended, though nobody has asked since.
        self.wake(Instant::now());
        EndpointSnapshot {
            endpoint: Arc::clone(endpoint),
            model: Arc::clone(model),
            phase: match self.phase {
                Phase::Probing => "probing",
                Phase::Open => "open",
                Phase::Cooling { .. } => "cooling",
                Phase::Refused => "refused",
            },
            in_flight: self.in_flight,
            concurrency_limit: self.limit.current(),
            timeout_s: self.timeout.as_secs_f64(),
            dialect: self.dialect,
            context_tokens: self.context_tokens,
            requests: self.requests,
            answers: self.answers,
            prefix_cache: self.prefix_cache.snapshot(),
            server: self.server.as_ref().map(|(metrics, _)| metrics.clone()),
            server_seen_ago_s: self.server.as_ref().map(|(_, at)| at.elapsed().as_secs_f64()),
            last_failure: self.last_failure.as_ref().map(ToString::to_string),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;
    use crate::server::Api;

    fn state() -> EndpointState {
        let mut state =
            EndpointState::new(ConcurrencyLimit::new(10, 25), Duration::from_secs(10), Dialect::new(Api::Chat, true));
        state.in_flight = 2;
        state
    }

    fn failure(kind: FailureKind) -> Failure {
        Failure { kind, endpoint: "a".into(), http_status: None, words: None, request_id: None }
    }

    fn unavailable() -> Signal {
        Signal::Unavailable(failure(FailureKind::ServerError))
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_opens_with_its_first_answer() {
        let mut state = state();
        assert_eq!(state.capacity(), 1);
        state.learn(Signal::Answered(Duration::from_millis(100)), Instant::now());
        assert_eq!(state.capacity(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_cool_down_and_probes_bring_back() {
        let mut state = state();
        state.learn(Signal::Answered(Duration::from_millis(100)), Instant::now());
        for _ in 0..FAILURES_TO_COOL - 1 {
            state.learn(unavailable(), Instant::now());
        }
        assert_eq!(state.phase, Phase::Open);
        state.learn(unavailable(), Instant::now());
        assert_eq!(state.capacity(), 0);
        let mut waited = Duration::ZERO;
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            let Phase::Cooling { until } = state.phase else { panic!("not cooling") };
            assert_eq!(until - Instant::now(), Duration::from_secs(expected));
            tokio::time::advance(Duration::from_secs(expected)).await;
            waited += Duration::from_secs(expected);
            state.wake(Instant::now());
            assert_eq!(state.capacity(), 1);
            state.learn(unavailable(), Instant::now());
        }
        tokio::time::advance(LONGEST_COOL_DOWN).await;
        state.wake(Instant::now());
        state.learn(Signal::Answered(Duration::from_millis(100)), Instant::now());
        assert_eq!(state.phase, Phase::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_asks_to_wait_is_left_alone_that_long() {
        let mut state = state();
        state.learn(Signal::Answered(Duration::from_millis(100)), Instant::now());
        let ask = |seconds| Signal::Overloaded(failure(FailureKind::Overloaded), Some(Duration::from_secs(seconds)));
        state.learn(ask(20), Instant::now());
        state.learn(ask(3), Instant::now());
        assert_eq!(state.phase, Phase::Cooling { until: Instant::now() + Duration::from_secs(20) });
        state.forgive();
        assert_eq!(state.capacity(), 0, "also in the next run");
        state.learn(ask(100_000), Instant::now());
        assert_eq!(state.phase, Phase::Cooling { until: Instant::now() + LONGEST_RETRY_AFTER });
        tokio::time::advance(LONGEST_RETRY_AFTER).await;
        state.wake(Instant::now());
        state.learn(unavailable(), Instant::now());
        assert_eq!(state.capacity(), 0);
        state.forgive();
        assert_eq!(state.capacity(), 1, "what it did not ask for is forgiven");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_gets_more_time_only_when_it_has_one_request() {
        let mut state = state();
        let timed_out = || Signal::TimedOut(failure(FailureKind::Timeout));
        state.learn(timed_out(), Instant::now());
        assert_eq!(state.timeout, Duration::from_secs(10));
        state.in_flight = 1;
        (0..6).for_each(|_| state.learn(timed_out(), Instant::now()));
        assert_eq!(state.timeout, LONGEST_TIMEOUT);
        state.learn(Signal::Answered(Duration::from_secs(25)), Instant::now());
        assert_eq!(state.timeout, Duration::from_secs(100), "the server is slow");
        state.learn(Signal::Answered(Duration::from_secs(2)), Instant::now());
        assert_eq!(state.timeout, Duration::from_secs(10), "the server is fast, and a request hung");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_rejects_everything_is_given_up() {
        let reject = || Signal::Rejected(failure(FailureKind::Rejected));
        let mut useless = state();
        (0..REJECTIONS_TO_REFUSE).for_each(|_| useless.learn(reject(), Instant::now()));
        assert_eq!(useless.phase, Phase::Refused);
        let mut picky = state();
        picky.learn(Signal::Answered(Duration::ZERO), Instant::now());
        (1..REJECTIONS_TO_DOUBT).for_each(|_| picky.learn(reject(), Instant::now()));
        assert_eq!(picky.phase, Phase::Open);
        for _ in 0..FAILURES_TO_COOL {
            assert!(picky.rejects_in_doubt());
            picky.learn(reject(), Instant::now());
        }
        assert_eq!(picky.capacity(), 0);
        tokio::time::advance(FIRST_COOL_DOWN).await;
        assert_eq!(picky.snapshot(&"a".into(), &"m".into()).phase, "probing");
        picky.learn(Signal::Answered(Duration::ZERO), Instant::now());
        assert!(picky.phase == Phase::Open && !picky.rejects_in_doubt(), "it was the requests");
    }
}
