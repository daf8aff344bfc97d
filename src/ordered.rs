//! The outcomes of a stream in the order of its items.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::categorizer::{OutcomeStream, StopHandle};
use crate::error::Error;
use crate::outcome::Outcome;
use crate::stats::{Stats, StatsHandle};
use crate::{Categorizer, NewsItem};

/// The outcomes of a run in the order of its items; see [`Categorizer::stream_ordered`].
#[derive(Debug)]
pub struct OrderedOutcomes<S> {
    outcomes: OutcomeStream<S>,
    window: usize,
    /// What is settled out of turn; the first place is that of the outcome that comes next.
    early: VecDeque<Option<Outcome>>,
    next: u64,
}

/// The items and outcomes of an ordered stream that may be under way or wait for their turn, unless it is set.
const DEFAULT_WINDOW: usize = 1_024;

impl Categorizer {
    /// Categorizes a stream of items as [`stream`](Self::stream) does, with the outcomes in the order of the items.
    ///
    /// An outcome that is settled out of turn waits for those before it, and no item is taken from the source that is a
    /// [window](OrderedOutcomes::window) of 1,024 or more after the outcome that comes next. So memory stays bounded, and an
    /// item that is asked again for long stops the stream when it is that far behind.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// # use slugline::testing::SimulatedServer;
    /// use futures_util::{StreamExt, stream};
    /// # use slugline::{Categorizer, NewsItem, Taxonomy};
    ///
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # let server = SimulatedServer::builder().start().await?;
    /// # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
    /// # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
    /// let items = stream::iter((0..100).map(|n| NewsItem::new(n.to_string(), format!("Cup final {n}"), "")));
    /// let mut outcomes = categorizer.stream_ordered(items);
    /// let mut number = 0;
    /// while let Some(outcome) = outcomes.next().await {
    ///     assert_eq!(outcome.id, number.to_string());
    ///     number += 1;
    /// }
    /// # assert_eq!(number, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream_ordered<S: Stream<Item = NewsItem>>(&self, items: S) -> OrderedOutcomes<S> {
        OrderedOutcomes { outcomes: self.stream(items), window: DEFAULT_WINDOW, early: VecDeque::new(), next: 0 }
    }
}

impl<S> OrderedOutcomes<S> {
    /// How many items may be under way or wait for their turn, at least 1. Choose at least a few times the items in flight,
    /// requests × pack size. Default: 1,024.
    #[must_use]
    pub fn window(mut self, items: usize) -> Self {
        self.window = items.max(1);
        self
    }

    /// A handle that stops the run from elsewhere, for example on Ctrl-C.
    pub fn stop_handle(&self) -> StopHandle {
        self.outcomes.stop_handle()
    }
}

impl<S: Stream<Item = NewsItem>> OrderedOutcomes<S> {
    /// What the run has measured so far.
    pub fn stats(&self) -> Stats {
        self.outcomes.stats()
    }

    /// Gives what the run measures to other tasks, while it goes and after it.
    pub fn stats_handle(&self) -> StatsHandle {
        self.outcomes.stats_handle()
    }

    /// Why the run stopped before its end, if it did. The items that were not settled then come as outcomes that say so.
    pub fn error(&self) -> Option<&Error> {
        self.outcomes.error()
    }
}

// As the stream underneath.
impl<S> Unpin for OrderedOutcomes<S> {}

impl<S: Stream<Item = NewsItem>> Stream for OrderedOutcomes<S> {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        loop {
            if let Some(outcome) = self.early.front_mut().and_then(Option::take) {
                self.early.pop_front();
                self.next += 1;
                return Poll::Ready(Some(outcome));
            }
            let below = self.next.saturating_add(self.window as u64);
            self.outcomes.take_below(below);
            let Some(outcome) = std::task::ready!(Pin::new(&mut self.outcomes).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            // Every index comes once, and none before `next`.
            let place = (outcome.index - self.next) as usize;
            if self.early.len() <= place {
                self.early.resize_with(place + 1, || None);
            }
            self.early[place] = Some(outcome);
        }
    }
}
