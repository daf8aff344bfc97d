//! How fast the simulated server is.

use std::time::Duration;

use super::hash;

/// The speed of a [`SimulatedServer`](super::SimulatedServer): a model of continuous batching, not a measurement.
///
/// A request first waits for one of the places to run, then its prompt tokens that are not cached are computed (one
/// request after the other, at [`prefill_tokens_per_second`](Self::prefill_tokens_per_second)), then it writes its output.
/// Each output token takes [`token`](Self::token) plus [`token_per_running`](Self::token_per_running) for every request
/// that runs at that time. Prefill does not slow the output of others down, which is a simplification.
///
/// Default: [`Latency::instant`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Latency {
    /// Uncached prompt tokens computed per second, for all requests together. Infinite: no time at all.
    pub prefill_tokens_per_second: f64,
    /// The time of one output token, whatever the load.
    pub token: Duration,
    /// The time that each running request adds to every output token, its own included.
    pub token_per_running: Duration,
    /// The number of running requests from which each further one adds [`token_per_running_beyond`](Self::token_per_running_beyond).
    pub knee_running: usize,
    /// What each running request beyond the knee adds to every output token, on top. When it is more than
    /// [`token`](Self::token) divided by the knee, the server's throughput falls beyond the knee.
    pub token_per_running_beyond: Duration,
    /// How much faster or slower the output of one request is written than that of another: evenly spread from `1 - spread`
    /// to `1 + spread` times the usual time, decided by the bytes of its prompt. 0 to 0.9.
    pub spread: f64,
    /// The most requests that run at once, whatever `max_num_seqs` says; others wait.
    pub max_running: usize,
}

impl Default for Latency {
    fn default() -> Self {
        Self::instant()
    }
}

impl Latency {
    /// No waiting at all.
    pub fn instant() -> Self {
        Self::new(f64::INFINITY, Duration::ZERO, Duration::ZERO)
    }

    /// A speed without a knee: uncached prompt tokens per second, the time of an output token, and what each running
    /// request adds to it.
    pub fn new(prefill_tokens_per_second: f64, token: Duration, token_per_running: Duration) -> Self {
        Self {
            prefill_tokens_per_second,
            token,
            token_per_running,
            knee_running: usize::MAX,
            token_per_running_beyond: Duration::ZERO,
            spread: 0.0,
            max_running: usize::MAX,
        }
    }

    /// What is expected of the reference server, a 7B model on one RTX 4080, for prompts of 1,100 tokens of which 650 are
    /// cached and answers of 200 tokens: about 0.42 requests a second alone, 3.6 at 10 in flight (2.7 s each, p95 3.0 s), 7.2
    /// at 25, 11.5 at 50 (p99 4.8 s) and 14.5 at 100 (8 s at most). Prefill is faster than such a card's, since here what it
    /// costs the requests that run is part of the time of their tokens.
    pub fn reference() -> Self {
        Self { spread: 0.125, ..Self::new(100_000.0, Duration::from_micros(11_800), Duration::from_micros(180)) }
            .with_knee(50, Duration::from_micros(65))
    }

    /// One request after the other at a laptop's speed, as Ollama does by default: 500 prompt tokens and 25 output tokens
    /// a second.
    pub fn one_at_a_time() -> Self {
        Self { max_running: 1, ..Self::new(500.0, Duration::from_millis(40), Duration::ZERO) }
    }

    /// The same speed with a knee: beyond `running` requests, each further one adds this to every output token.
    #[must_use]
    pub fn with_knee(mut self, running: usize, token_per_running_beyond: Duration) -> Self {
        self.knee_running = running;
        self.token_per_running_beyond = token_per_running_beyond;
        self
    }

    /// The time of one output token while `running` requests run.
    pub fn token_time(&self, running: usize) -> Duration {
        let times = |running: usize| u32::try_from(running).unwrap_or(u32::MAX);
        let beyond = self.token_per_running_beyond.saturating_mul(times(running.saturating_sub(self.knee_running)));
        self.token.saturating_add(self.token_per_running.saturating_mul(times(running))).saturating_add(beyond)
    }

    /// How many times its usual time an output token of this prompt takes.
    pub(super) fn pace_of(&self, prompt: &[u64]) -> f64 {
        if self.spread.is_nan() || self.spread <= 0.0 {
            return 1.0;
        }
        let share = hash::unit(prompt.iter().fold(0, |hash, token| hash::chain(hash, *token)));
        1.0 + self.spread.min(0.9) * (2.0 * share - 1.0)
    }

    /// The time to compute some prompt tokens, alone.
    pub fn prefill_time(&self, uncached_tokens: usize) -> Duration {
        let seconds = uncached_tokens as f64 / self.prefill_tokens_per_second;
        // Not finite for a speed of nothing; an hour is as good as for ever.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_hours(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_time_follows_the_load_and_the_knee() {
        let latency = Latency::new(1_000.0, Duration::from_millis(10), Duration::from_millis(1));
        assert_eq!(latency.token_time(1), Duration::from_millis(11));
        assert_eq!(latency.token_time(20), Duration::from_millis(30));
        let knee = latency.with_knee(15, Duration::from_millis(4));
        assert_eq!(knee.token_time(15), latency.token_time(15));
        assert_eq!(knee.token_time(20), Duration::from_millis(50));
        let throughput = |running: usize| running as f64 / knee.token_time(running).as_secs_f64();
        assert!(throughput(40) < throughput(15));
    }

    #[test]
    fn nothing_divides_by_nothing() {
        assert_eq!(Latency::instant().prefill_time(5_000), Duration::ZERO);
        assert_eq!(Latency::instant().token_time(usize::MAX), Duration::ZERO);
        assert_eq!(Latency::new(0.0, Duration::ZERO, Duration::ZERO).prefill_time(1), Duration::from_hours(1));
        assert_eq!(Latency::new(0.0, Duration::ZERO, Duration::ZERO).prefill_time(0), Duration::from_hours(1));
        assert_eq!(Latency::new(2_000.0, Duration::ZERO, Duration::ZERO).prefill_time(500), Duration::from_millis(250));
    }
}
