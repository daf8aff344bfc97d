//! Places to run, the queue before them, and the passing of time while a request runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::latency::Latency;

/// How many output tokens pass between two looks at the number of running requests.
const SLICE_TOKENS: usize = 8;

/// The simulated batch: who runs, who waits, and how long a token takes.
#[derive(Debug)]
pub(super) struct Schedule {
    latency: Latency,
    max_waiting: Option<usize>,
    places: Semaphore,
    /// Prompts are computed one after the other, in the order in which they began to run.
    prefill: Mutex<()>,
    running: Gauge,
    waiting: Gauge,
    held_tokens: AtomicUsize,
}

/// The queue is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

impl Schedule {
    pub(super) fn new(latency: Latency, max_num_seqs: usize, max_waiting: Option<usize>) -> Self {
        let places = max_num_seqs.min(latency.max_running).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            latency,
            max_waiting,
            places: Semaphore::new(places),
            prefill: Mutex::new(()),
            running: Gauge::default(),
            waiting: Gauge::default(),
            held_tokens: AtomicUsize::new(0),
        }
    }

    /// Waits for a place to run, first come, first served. Dropping the place, or this future, gives everything back.
    pub(super) async fn admit(&self, held_tokens: usize) -> Result<Place<'_>, QueueFull> {
        let permit = if let Ok(permit) = self.places.try_acquire() {
            Some(permit)
        } else {
            if self.max_waiting.is_some_and(|most| self.waiting.now() >= most) {
                return Err(QueueFull);
            }
            let _waiting = self.waiting.enter();
            // Fails only for a closed semaphore, and this one is never closed.
            self.places.acquire().await.ok()
        };
        self.held_tokens.fetch_add(held_tokens, Ordering::Relaxed);
        Ok(Place { schedule: self, held_tokens, _running: self.running.enter(), _permit: permit })
    }

    pub(super) fn running(&self) -> &Gauge {
        &self.running
    }

    pub(super) fn waiting(&self) -> &Gauge {
        &self.waiting
    }

    /// The prompt and output tokens of all running requests.
    pub(super) fn held_tokens(&self) -> usize {
        self.held_tokens.load(Ordering::Relaxed)
    }
}

/// A request that runs.
#[derive(Debug)]
pub(super) struct Place<'a> {
    schedule: &'a Schedule,
    held_tokens: usize,
    _running: Entered<'a>,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Place<'_> {
    /// Lets the time pass that the prompt takes.
    pub(super) async fn prefill(&self, uncached_tokens: usize) {
        let time = self.schedule.latency.prefill_time(uncached_tokens);
        if !time.is_zero() {
            let _turn = self.schedule.prefill.lock().await;
            tokio::time::sleep(time).await;
        }
    }

    /// Lets the time pass that the output takes, each token `pace` times its usual time.
    pub(super) async fn write(&self, output_tokens: usize, pace: f64) {
        let mut left = output_tokens;
        // By the time when a slice is due, since a sleep that is a little too long would otherwise be so for every slice.
        let mut due = Instant::now();
        while left > 0 {
            let slice = left.min(SLICE_TOKENS);
            let time = self.schedule.latency.token_time(self.schedule.running.now());
            if time.is_zero() {
                return;
            }
            due += (time * slice as u32).mul_f64(pace);
            tokio::time::sleep_until(due).await;
            left -= slice;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.schedule.held_tokens.fetch_sub(self.held_tokens, Ordering::Relaxed);
    }
}

/// A number that goes up and down, with the most it has been.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    /// One more, until the result is dropped.
    pub(super) fn enter(&self) -> Entered<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Entered(self)
    }

    pub(super) fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

/// One that a [`Gauge`] counts.
#[derive(Debug)]
pub(super) struct Entered<'a>(&'a Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::time::Instant;

    use super::*;

    fn latency() -> Latency {
        Latency::new(1_000.0, Duration::from_millis(10), Duration::from_millis(1))
    }

    async fn run(schedule: &Schedule, prompt_tokens: usize, output_tokens: usize) -> Duration {
        let start = Instant::now();
        let place = schedule.admit(prompt_tokens).await.unwrap();
        place.prefill(prompt_tokens).await;
        place.write(output_tokens, 1.0).await;
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_alone_takes_its_prompt_and_its_tokens() {
        let schedule = Schedule::new(latency(), 4, None);
        assert_eq!(run(&schedule, 500, 100).await, Duration::from_millis(500 + 100 * 11));
        assert_eq!((schedule.running().now(), schedule.held_tokens()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_together_slow_each_other_and_the_rest_wait() {
        let schedule = Schedule::new(latency(), 4, None);
        let times = join_all((0..8).map(|_| run(&schedule, 0, 80))).await;
        // Four run from the start; the slices of one may begin when another has just ended.
        let round = 80.0 * 0.014;
        assert!(times[..4].iter().all(|time| (0.97..=1.0).contains(&(time.as_secs_f64() / round))), "{times:?}");
        assert!(times[4..].iter().all(|time| (1.94..=2.0).contains(&(time.as_secs_f64() / round))), "{times:?}");
        assert_eq!((schedule.running().most(), schedule.waiting().most()), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn prompts_are_computed_one_after_the_other() {
        let schedule = Schedule::new(latency(), 4, None);
        let times = join_all((0..3).map(|_| run(&schedule, 200, 0))).await;
        assert_eq!(times, [200, 400, 600].map(Duration::from_millis));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_turns_away_and_a_dropped_request_leaves_it() {
        let schedule = Schedule::new(latency(), 1, Some(1));
        let place = schedule.admit(10).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(5), schedule.admit(10));
        let (waited, turned_away) = tokio::join!(waiting, schedule.admit(10));
        assert!(waited.is_err());
        assert_eq!(turned_away.err(), Some(QueueFull));
        assert_eq!((schedule.waiting().now(), schedule.held_tokens()), (0, 10));
        drop(place);
        assert!(schedule.admit(10).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_ignores_the_number_of_places() {
        let schedule = Schedule::new(Latency::one_at_a_time(), 128, None);
        join_all((0..3).map(|_| run(&schedule, 0, 10))).await;
        assert_eq!(schedule.running().most(), 1);
    }
}
