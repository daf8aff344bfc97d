//! Where the items of calls wait, and the way of their answers back.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{ServiceError, ServiceStats, lock};
use crate::NewsItem;
use crate::outcome::Outcome;
use crate::stats::Stats;

/// The items that wait, and the callers of those that the run has taken.
#[derive(Debug)]
pub(super) struct Queue {
    max_waiting: usize,
    state: Mutex<State>,
    /// The calls under way.
    callers: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    /// By number, in the order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    /// Those that the run works on, by their index in it.
    taken: HashMap<u64, Taken>,
    /// The number of the next call, and the index of the next item of the run.
    next_number: u64,
    next_index: u64,
    is_closed: bool,
    /// The run, while it waits for items.
    waker: Option<Waker>,
    usual: UsualTime,
    overloaded: u64,
    deadline_exceeded: u64,
    unavailable: u64,
}

type Answer = Result<Outcome, ServiceError>;

#[derive(Debug)]
struct Waiting {
    item: NewsItem,
    since: Instant,
    deadline: Option<Instant>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug)]
struct Taken {
    at: Instant,
    answer: oneshot::Sender<Answer>,
}

/// A call's place; dropping it gives up what still waits.
#[derive(Debug)]
pub(super) struct Place<'a> {
    queue: &'a Queue,
    number: u64,
    answer: oneshot::Receiver<Answer>,
}

/// The waiting items as the source of a run.
#[derive(Debug)]
pub(super) struct Items(pub(super) Arc<Queue>);

impl Queue {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self { max_waiting, state: Mutex::default(), callers: watch::Sender::new(0) }
    }

    /// Lets an item wait, if there is room.
    pub(super) fn enter(&self, item: NewsItem, deadline: Option<Instant>) -> Result<Place<'_>, ServiceError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(ServiceError::Stopped);
        }
        let waiting_items = state.waiting.len();
        if waiting_items >= self.max_waiting {
            return Err(ServiceError::Overloaded { waiting_items });
        }
        let number = state.next_number;
        state.next_number += 1;
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(number, Waiting { item, since: Instant::now(), deadline, answer: sender });
        self.callers.send_modify(|callers| *callers += 1);
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        Ok(Place { queue: self, number, answer: receiver })
    }

    /// Hands an answer to whoever asked for the item with this index, if they still wait.
    pub(super) fn answer(&self, index: u64, answer: Answer) {
        let mut state = self.state();
        let Some(taken) = state.taken.remove(&index) else { return };
        // What is known already says nothing about the time that answers take.
        let assignment = answer.as_ref().ok().and_then(|outcome| outcome.result.as_ref().ok());
        if assignment.is_some_and(|of| of.origin.duplicate_of.is_none() && !of.origin.from_ledger) {
            state.usual.seen(taken.at.elapsed());
        }
        let _ = taken.answer.send(answer);
    }

    /// Takes no more calls; what waits is still taken by the run.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Ends all calls: nobody is left to answer them.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.waiting.clear();
        state.taken.clear();
    }

    pub(super) async fn until_no_caller(&self) {
        // Fails only when the sender is gone, which is ours.
        let _ = self.callers.subscribe().wait_for(|callers| *callers == 0).await;
    }

    /// Counts how a call ended.
    pub(super) fn count(&self, result: &Answer) {
        let mut state = self.state();
        match result {
            Err(ServiceError::Overloaded { .. }) => state.overloaded += 1,
            Err(ServiceError::DeadlineExceeded { .. }) => state.deadline_exceeded += 1,
            Err(ServiceError::Unavailable(_)) => state.unavailable += 1,
            Ok(_) | Err(ServiceError::Stopped) => {}
        }
    }

    pub(super) fn stats(&self, run: Stats) -> ServiceStats {
        let state = self.state();
        ServiceStats {
            waiting_items: state.waiting.len(),
            callers: *self.callers.borrow(),
            accepted: state.next_number,
            overloaded: state.overloaded,
            deadline_exceeded: state.deadline_exceeded,
            unavailable: state.unavailable,
            run,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Place<'_> {
    pub(super) async fn answer(&mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Err(ServiceError::Stopped))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.state().waiting.remove(&self.number);
        self.queue.callers.send_modify(|callers| *callers -= 1);
    }
}

impl Stream for Items {
    type Item = NewsItem;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NewsItem>> {
        let mut state = self.0.state();
        let now = Instant::now();
        while let Some((_, waiting)) = state.waiting.pop_first() {
            // Asking for items that will be late would leave no time for those behind them. The last one goes in any case, so
            // that an estimate from bad times is corrected.
            if !state.waiting.is_empty() && state.usual.is_late(now, waiting.deadline) {
                let waited = now - waiting.since;
                let _ = waiting.answer.send(Err(ServiceError::DeadlineExceeded { waited }));
                continue;
            }
            let index = state.next_index;
            state.next_index += 1;
            state.taken.insert(index, Taken { at: now, answer: waiting.answer });
            return Poll::Ready(Some(waiting.item));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// How long an item usually takes from its pack to its answer: smoothed mean and deviation, as TCP estimates its round
/// trips (Jacobson, *Congestion Avoidance and Control*, 1988; RFC 6298).
#[derive(Debug, Default)]
struct UsualTime {
    mean: Duration,
    deviation: Duration,
}

impl UsualTime {
    fn seen(&mut self, time: Duration) {
        if self.mean.is_zero() {
            (self.mean, self.deviation) = (time, time / 2);
            return;
        }
        self.deviation = (3 * self.deviation + self.mean.abs_diff(time)) / 4;
        self.mean = (7 * self.mean + time) / 8;
    }

    /// Whether an answer that is asked for now would probably come after the deadline.
    fn is_late(&self, now: Instant, deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|deadline| deadline.saturating_duration_since(now) < self.mean + self.deviation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_usual_time_follows_what_is_seen() {
        let mut usual = UsualTime::default();
        let in_ms = |ms| Some(Instant::now() + Duration::from_millis(ms));
        assert!(!usual.is_late(Instant::now(), in_ms(1)), "nothing is known yet");
        (0..50).for_each(|_| usual.seen(Duration::from_secs(1)));
        assert!(usual.is_late(Instant::now(), in_ms(990)));
        assert!(!usual.is_late(Instant::now(), in_ms(1_010)));
        assert!(!usual.is_late(Instant::now(), None));
        (0..50).for_each(|_| usual.seen(Duration::from_millis(100)));
        assert!(!usual.is_late(Instant::now(), in_ms(150)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_place_is_free_again() {
        let queue = Queue::new(1);
        let place = queue.enter(NewsItem::new("a", "T", ""), None).unwrap();
        let full = queue.enter(NewsItem::new("b", "T", ""), None).unwrap_err();
        assert!(matches!(full, ServiceError::Overloaded { waiting_items: 1 }));
        drop(place);
        assert!(queue.enter(NewsItem::new("b", "T", ""), None).is_ok());
        queue.until_no_caller().await;
    }
}
