//! Requests and tokens per minute, by governor's GCRA.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// The rates of one endpoint. It never waits: it says how long to wait, so that one place can weigh all endpoints.
///
/// Whoever asks must be the only one asking (the pool's gate sees to that), else a large request starves behind small ones.
#[derive(Debug)]
pub(crate) struct Rate {
    requests: Option<Limit>,
    tokens: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    limiter: RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>,
    clock: TokioClock,
    burst: NonZeroU32,
}

/// What of a request has been paid for already: governor gives nothing back, so a request that has its tokens and waits
/// for its turn must not pay them twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Paid {
    tokens: bool,
    request: bool,
}

impl Rate {
    /// Rates per minute; none means unlimited. Bursts are one second's worth, and for tokens at least the largest request.
    pub(crate) fn new(
        requests_per_minute: Option<NonZeroU32>,
        tokens_per_minute: Option<NonZeroU32>,
        largest_request_tokens: u32,
    ) -> Self {
        let second = |per_minute: NonZeroU32| per_minute.get().div_ceil(60);
        Self {
            requests: requests_per_minute.map(|rate| Limit::new(rate, second(rate))),
            tokens: tokens_per_minute.map(|rate| Limit::new(rate, second(rate).max(largest_request_tokens))),
        }
    }

    /// Takes a request of `tokens` if the rates allow it now; else says how long to wait before asking again.
    pub(crate) fn take(&self, tokens: u32, paid: &mut Paid) -> Result<(), Duration> {
        if let (Some(limit), false) = (&self.tokens, paid.tokens) {
            limit.take(tokens)?;
            paid.tokens = true;
        }
        if let (Some(limit), false) = (&self.requests, paid.request) {
            limit.take(1)?;
            paid.request = true;
        }
        Ok(())
    }
}

impl Limit {
    fn new(per_minute: NonZeroU32, burst: u32) -> Self {
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let clock = TokioClock { start: Instant::now() };
        let quota = Quota::per_minute(per_minute).allow_burst(burst);
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock, burst }
    }

    fn take(&self, cells: u32) -> Result<(), Duration> {
        // More than the burst would never pass; a request that large empties the bucket and goes.
        let cells = NonZeroU32::new(cells.min(self.burst.get())).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(cells) {
            // Nothing is refused for its size, which was bounded above.
            Ok(Ok(())) | Err(_) => Ok(()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now()).max(Duration::from_millis(1))),
        }
    }
}

/// governor's clock on tokio's time.
#[derive(Clone, Debug)]
struct TokioClock {
    start: Instant,
}

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        // A nanosecond count of u64 lasts 584 years.
        Nanos::from(self.start.elapsed())
    }
}

const _: fn() = || {
    fn is_reference<T: Reference>() {}
    is_reference::<Nanos>();
};

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded_seconds(start: Instant) -> u64 {
        start.elapsed().as_secs_f64().round() as u64
    }

    async fn wait_for(rate: &Rate, tokens: u32) {
        let mut paid = Paid::default();
        while let Err(wait) = rate.take(tokens, &mut paid) {
            tokio::time::sleep(wait).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_spread_over_the_minute() {
        let rate = Rate::new(NonZeroU32::new(120), None, 0);
        let start = Instant::now();
        for _ in 0..22 {
            wait_for(&rate, 1_000).await;
        }
        // Two at once, then one every half second.
        assert_eq!(rounded_seconds(start), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_paid_once_however_long_the_request_waits() {
        let rate = Rate::new(NonZeroU32::new(60), NonZeroU32::new(60_000), 2_000);
        let start = Instant::now();
        for _ in 0..12 {
            wait_for(&rate, 2_000).await;
        }
        // The first empties the burst, each further one needs two seconds' worth.
        assert_eq!(rounded_seconds(start), 22);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_above_the_burst_still_passes() {
        let rate = Rate::new(None, NonZeroU32::new(600), 100);
        wait_for(&rate, 1_000_000).await;
        wait_for(&rate, 0).await;
    }
}
