//! What a step is to do.

use std::time::Duration;

/// How long a step lasts. What is in flight at its end is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Length {
    /// So many requests' worth of items.
    Requests(u64),
    /// As many as are begun in this time.
    Time(Duration),
}

/// When the requests of an open loop are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrivals {
    /// One after the other at equal distances.
    Regular,
    /// As if from many callers that know nothing of each other (a Poisson process), the same times for the same seed.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// What a step is to do: a closed or an open loop, for how long, after what warm-up.
///
/// Default: no warm-up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Order {
    pub(super) open: Option<(f64, Arrivals)>,
    pub(super) length: Length,
    pub(super) warm_up_requests: u64,
}

/// The greatest rate of an open loop: beyond it the timer's own resolution would be measured.
const MOST_PER_SECOND: f64 = 10_000.0;
/// The most requests of an open loop, whose times are kept.
const MOST_REQUESTS: f64 = 10_000_000.0;

/// A rate that no open loop can have.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a rate must be above 0 and at most {MOST_PER_SECOND} requests per second, not {requests_per_second}")]
pub struct InvalidRate {
    requests_per_second: f64,
}

impl Order {
    /// A closed loop: the categorizer's own limits decide what is in flight.
    pub fn closed(length: Length) -> Self {
        Self { open: None, length, warm_up_requests: 0 }
    }

    /// An open loop: requests are due at this rate, whatever becomes of them. Each brings a pack's worth of items.
    ///
    /// # Errors
    /// The rate is not above 0, or above 10,000 a second.
    pub fn open(requests_per_second: f64, arrivals: Arrivals, length: Length) -> Result<Self, InvalidRate> {
        if requests_per_second > 0.0 && requests_per_second <= MOST_PER_SECOND {
            Ok(Self { open: Some((requests_per_second, arrivals)), length, warm_up_requests: 0 })
        } else {
            Err(InvalidRate { requests_per_second })
        }
    }

    /// So many requests before anything is counted, for connections, caches and the first request of an endpoint, which
    /// goes alone. Default: none.
    #[must_use]
    pub fn warm_up(mut self, requests: u64) -> Self {
        self.warm_up_requests = requests;
        self
    }

    /// When the requests are due, from the start of the step; none in a closed loop.
    pub(super) fn due_times(&self) -> Option<Vec<Duration>> {
        let (per_second, arrivals) = self.open?;
        let mut random = match arrivals {
            Arrivals::Regular => None,
            Arrivals::Random { seed } => Some(fastrand::Rng::with_seed(seed)),
        };
        let mut due_s = 0.0;
        let mut next = move || {
            let now_s: f64 = due_s;
            // The distances of a Poisson process are distributed exponentially.
            due_s += random.as_mut().map_or(1.0, |random| -(1.0 - random.f64()).ln()) / per_second;
            now_s
        };
        let (most, until_s) = match self.length {
            Length::Requests(requests) => (requests as f64, f64::INFINITY),
            Length::Time(time) => (MOST_REQUESTS, time.as_secs_f64()),
        };
        let most = most.min(MOST_REQUESTS) as usize;
        let times = std::iter::repeat_with(&mut next).take(most).take_while(|due_s| *due_s < until_s);
        Some(times.map(Duration::from_secs_f64).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_rate() {
        let order = Order::open(4.0, Arrivals::Regular, Length::Requests(3)).unwrap();
        assert_eq!(order.due_times().unwrap(), [0, 250, 500].map(Duration::from_millis));
        let random = Order::open(50.0, Arrivals::Random { seed: 1 }, Length::Time(Duration::from_secs(100))).unwrap();
        let times = random.due_times().unwrap();
        assert!((4_700..5_300).contains(&times.len()), "{}", times.len());
        assert!(times.is_sorted() && times.last().unwrap().as_secs() < 100);
        // The spread of an exponential distribution is its mean.
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1].abs_diff(pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((0.9..1.1).contains(&(variance.sqrt() / mean)), "{mean} {variance}");
    }

    #[test]
    fn rates_that_cannot_be_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Order::open(rate, Arrivals::Regular, Length::Requests(1)).is_err(), "{rate}");
        }
        assert_eq!(Order::closed(Length::Requests(9)).due_times(), None);
    }
}
