//! How many requests an endpoint has in flight: additive increase, multiplicative decrease.
//!
//! Chiu and Jain (1989) showed that this pair converges to a fair and efficient share; TCP has used it since. The signal
//! is explicit overload or a timeout, never plain latency: latency follows the length of the answers, and a limiter on
//! latency takes long answers for congestion.

use tokio::time::Instant;

/// What remains of the limit after overload.
const DECREASE: f64 = 0.7;
/// A KV cache of which less is left has no room for one more request of the usual size.
const FULL_CACHE: f64 = 0.95;

/// The limit of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConcurrencyLimit {
    limit: f64,
    max: f64,
    decreased_at: Option<Instant>,
}

impl ConcurrencyLimit {
    /// A limit that begins at `start` and stays within 1 and `max`.
    pub(crate) fn new(start: usize, max: usize) -> Self {
        let max = max.max(1) as f64;
        Self { limit: (start as f64).clamp(1.0, max), max, decreased_at: None }
    }

    /// The requests that may be in flight, at least 1.
    pub(crate) fn current(&self) -> usize {
        self.limit as usize
    }

    /// A request succeeded: one more after a limit's worth of them, while the limit is in use.
    pub(crate) fn succeeded(&mut self, in_flight: usize) {
        if in_flight >= self.current() {
            self.limit = (self.limit + 1.0 / self.limit).min(self.max);
        }
    }

    /// The server says how many requests wait inside it: more than a few mean that the limit has outgrown it. A queue that
    /// is short keeps the server busy between two requests and is left alone.
    ///
    /// `admitted_at` is that of a request which has just been answered: if it was sent before the last decrease, the queue
    /// is still that of the higher limit.
    pub(crate) fn queue_seen(&mut self, waiting: u64, admitted_at: Instant) {
        if waiting as f64 > self.limit / 4.0 {
            self.overloaded(admitted_at);
        }
    }

    /// The server says what share of its KV cache is in use. When it is full, the next requests wait or push others out,
    /// whose work is then done twice. `admitted_at` as for the queue.
    pub(crate) fn cache_seen(&mut self, in_use: f64, admitted_at: Instant) {
        if in_use >= FULL_CACHE {
            self.overloaded(admitted_at);
        }
    }

    /// A request met overload. Those sent before the last decrease say nothing new.
    pub(crate) fn overloaded(&mut self, admitted_at: Instant) {
        if self.decreased_at.is_none_or(|decreased_at| admitted_at > decreased_at) {
            self.limit = (self.limit * DECREASE).max(1.0);
            self.decreased_at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_full_cache_lowers_the_limit_once_for_what_was_sent_before() {
        let mut limit = ConcurrencyLimit::new(20, 25);
        let sent = Instant::now();
        limit.cache_seen(0.94, sent);
        assert_eq!(limit.current(), 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        limit.cache_seen(0.97, sent);
        limit.cache_seen(0.99, sent);
        assert_eq!(limit.current(), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_for_a_limit_s_worth_of_successes_in_use() {
        let mut limit = ConcurrencyLimit::new(10, 25);
        (0..50).for_each(|_| limit.succeeded(3));
        assert_eq!(limit.current(), 10, "the limit was not in use");
        (0..11).for_each(|_| limit.succeeded(11));
        assert_eq!(limit.current(), 11);
        (0..10_000).for_each(|_| limit.succeeded(25));
        assert_eq!(limit.current(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_in_the_server_lowers_the_limit_once_for_each_round_of_requests() {
        let mut limit = ConcurrencyLimit::new(20, 25);
        tokio::time::advance(Duration::from_secs(1)).await;
        let admitted_at = Instant::now();
        limit.queue_seen(5, admitted_at);
        assert_eq!(limit.current(), 20, "a short queue is left alone");
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..5).for_each(|_| limit.queue_seen(12, admitted_at));
        assert_eq!(limit.current(), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn one_decrease_for_all_requests_of_one_overload() {
        let mut limit = ConcurrencyLimit::new(20, 25);
        let admitted_at = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..20).for_each(|_| limit.overloaded(admitted_at));
        assert_eq!(limit.current(), 14);
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..50 {
            tokio::time::advance(Duration::from_secs(1)).await;
            limit.overloaded(Instant::now());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(limit.current(), 1, "never below one");
    }
}
