//! Requests in flight over time, in bounded memory.

use std::time::Duration;

use serde::Serialize;

/// How much was under way at a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Moment {
    /// Since the start of the run, in seconds.
    pub at_s: f64,
    /// Requests in flight: the most of the moments that this one stands for.
    pub in_flight: usize,
    /// The most requests in flight that were allowed.
    pub concurrency_limit: usize,
    /// Requests that waited inside the server, of several the most of one, where they say.
    pub queue_depth: Option<u64>,
}

/// The most moments that are kept. When there are more, two become one and moments are taken half as often: every second
/// for the first two minutes, every eight seconds after a quarter of an hour.
const MOST_MOMENTS: usize = 120;
const FIRST_PERIOD: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub(super) struct TimeLine {
    period: Duration,
    due: Duration,
    moments: Vec<Moment>,
}

impl TimeLine {
    pub(super) fn new() -> Self {
        Self { period: FIRST_PERIOD, due: Duration::ZERO, moments: Vec::new() }
    }

    /// Whether the next moment is to be taken, so long after the start.
    pub(super) fn is_due(&self, at: Duration) -> bool {
        at >= self.due
    }

    pub(super) fn push(&mut self, at: Duration, in_flight: usize, concurrency_limit: usize, queue_depth: Option<u64>) {
        if self.moments.len() == MOST_MOMENTS {
            self.moments = self.moments.chunks(2).filter_map(both).collect();
            self.period *= 2;
        }
        self.due = at + self.period;
        self.moments.push(Moment { at_s: at.as_secs_f64(), in_flight, concurrency_limit, queue_depth });
    }

    pub(super) fn moments(&self) -> Vec<Moment> {
        self.moments.clone()
    }
}

/// One moment for two.
fn both(moments: &[Moment]) -> Option<Moment> {
    moments.iter().copied().reduce(|first, second| Moment {
        at_s: first.at_s,
        in_flight: first.in_flight.max(second.in_flight),
        concurrency_limit: second.concurrency_limit,
        queue_depth: first.queue_depth.max(second.queue_depth),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_fits_and_keeps_its_peak() {
        let mut line = TimeLine::new();
        for second in 0..86_400 {
            let at = Duration::from_secs(second);
            if line.is_due(at) {
                line.push(at, if second < 100 { 25 } else { 3 }, 25, (second == 50).then_some(9));
            }
        }
        let moments = line.moments();
        assert!((MOST_MOMENTS / 2..=MOST_MOMENTS).contains(&moments.len()), "{}", moments.len());
        assert_eq!((moments[0].in_flight, moments[0].queue_depth), (25, Some(9)));
        assert!(moments.is_sorted_by(|a, b| a.at_s < b.at_s));
        assert!(moments.last().unwrap().at_s > 80_000.0);
    }
}
