//! The retry budget: a failing server must not see many more requests than a healthy one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far back requests count.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries allowed per request of the window.
const SHARE: f64 = 0.2;
/// Retries allowed in any window, so that a small run can retry at all.
const RESERVE: f64 = 10.0;

/// Counts requests and retries over a sliding window of ten seconds. A retry is allowed while there are fewer than a fifth
/// as many retries as first requests, plus ten.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
    /// First requests and retries by second, oldest first.
    seconds: VecDeque<(Instant, u32, u32)>,
}

impl RetryBudget {
    /// Counts a first request.
    pub(crate) fn deposit(&mut self) {
        self.second().1 += 1;
    }

    /// Counts a retry if it is allowed now.
    pub(crate) fn withdraw(&mut self) -> bool {
        self.second();
        let (requests, retries) =
            self.seconds.iter().fold((0, 0), |(requests, retries), second| (requests + second.1, retries + second.2));
        let allowed = f64::from(retries) < SHARE * f64::from(requests) + RESERVE;
        if allowed {
            self.second().2 += 1;
        }
        allowed
    }

    fn second(&mut self) -> &mut (Instant, u32, u32) {
        let now = Instant::now();
        while self.seconds.front().is_some_and(|(start, ..)| now.duration_since(*start) > WINDOW) {
            self.seconds.pop_front();
        }
        let is_over = |(start, ..): &(Instant, u32, u32)| now.duration_since(*start) >= Duration::from_secs(1);
        if self.seconds.back().is_none_or(is_over) {
            self.seconds.push_back((now, 0, 0));
        }
        let last = self.seconds.len() - 1;
        &mut self.seconds[last]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_requests_and_a_reserve() {
        let mut budget = RetryBudget::default();
        (0..100).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 30);
        tokio::time::advance(Duration::from_secs(12)).await;
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10, "old requests no longer count");
    }

    #[tokio::test(start_paused = true)]
    async fn in_the_long_run_the_share_holds() {
        let mut budget = RetryBudget::default();
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit();
            retries += u32::from(budget.withdraw());
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert!((1_900..2_250).contains(&retries), "{retries}");
    }
}
