//! The public type and the stream of outcomes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::{StreamExt, stream};

use crate::NewsItem;
use crate::builder::CategorizerBuilder;
use crate::calibration::{Calibration, CalibrationError, content_free_items};
use crate::descent::Nodes;
use crate::error::Error;
use crate::outcome::{Outcome, Report};
use crate::prompt::{Prefix, PromptVersion};
use crate::run::{Course, Run, Shared, Stop};
use crate::server::EndpointSnapshot;
use crate::stats::{Stats, StatsHandle};
use crate::taxonomy::Taxonomy;

/// The requests for each pack size that measure a prior.
const PRIOR_REQUESTS: usize = 4;

/// Puts news items into the categories of a taxonomy.
///
/// Cheap to clone; all clones share their endpoints, limits and what was learned of them. Runs need a tokio runtime with
/// time enabled.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use slugline::testing::SimulatedServer;
/// use slugline::{Categorizer, Category, NewsItem, Taxonomy};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let server = SimulatedServer::builder().start().await?;
/// # let base_url = server.base_url();
/// let taxonomy = Taxonomy::new("desk", "1", [
///     Category::new("sport", "Sport", "Matches, goals, athletes and clubs."),
///     Category::new("business", "Business", "Companies, markets and jobs."),
/// ])?;
/// let categorizer = Categorizer::builder(taxonomy).endpoint(base_url).model("simulated").build()?;
/// let report = categorizer.categorize([NewsItem::new("a1", "Late goal wins the cup", "The club won both matches.")]).await;
/// assert_eq!(report.outcomes[0].result.as_ref().unwrap().category.as_str(), "sport");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Categorizer {
    /// What the runs share; of a tree that is walked, those over its top level.
    pub(crate) shared: Arc<Shared>,
    /// The tree, where it is walked level by level.
    pub(crate) nodes: Option<Arc<Nodes>>,
}

impl Categorizer {
    /// Begins to configure a categorizer for a taxonomy.
    pub fn builder(taxonomy: Taxonomy) -> CategorizerBuilder {
        CategorizerBuilder::new(taxonomy)
    }

    /// Categorizes all items and waits for the last: one outcome per item, in their order. Memory grows with the number of
    /// items; for more than a million use [`stream`](Self::stream).
    ///
    /// What stops the run is in [`Report::error`]; the items that were not settled then say so themselves.
    pub fn categorize(&self, items: impl IntoIterator<Item = NewsItem>) -> impl Future<Output = Report> + Send {
        // Collected first, so that the future is `Send` whatever the iterator is.
        let items: Vec<NewsItem> = items.into_iter().collect();
        async move {
            let mut stream = self.stream(stream::iter(items));
            let mut outcomes = Vec::new();
            while let Some(outcome) = stream.next().await {
                outcomes.push(outcome);
            }
            outcomes.sort_unstable_by_key(|outcome| outcome.index);
            Report { outcomes, stats: stream.stats(), error: stream.error().cloned() }
        }
    }

    /// Categorizes a stream of items of any length: exactly one outcome per item, each as soon as it is settled.
    ///
    /// The stream of outcomes must be polled for anything to happen; requests under way go on by themselves in between, and
    /// keep their places at the endpoints. So poll it all the time, in a task of its own where the outcomes take long to
    /// handle: other runs of this categorizer and its clones wait for those places. Two streams of one categorizer must not
    /// wait for each other, as `zip` would have them do.
    /// It takes items from the source only as fast as outcomes are taken from it, so memory is bounded by what is in
    /// flight. Dropping it cancels the requests in flight. For outcomes in the order of the
    /// items see [`stream_ordered`](Self::stream_ordered), for channels and iterators [`recipes`](crate::recipes).
    pub fn stream<S: Stream<Item = NewsItem>>(&self, items: S) -> OutcomeStream<S> {
        let stop = Stop::new();
        OutcomeStream { course: Course::new(&self.shared, self.nodes.as_ref(), items, &stop), stop }
    }

    /// Measures what the models give each label when an item says nothing, alone and at each position of a pack, by asking
    /// for a few items without content: a correction that needs no labelled items. Takes four requests for single items and
    /// four for packs, to one model: with several among the endpoints, build a categorizer for each.
    ///
    /// Keep it with [`Calibration::save`](crate::calibration::Calibration::save); it holds for this model, taxonomy and prompt.
    ///
    /// # Errors
    /// The items were not answered, or without log-probabilities, or by more than one model.
    pub async fn measure_prior(&self) -> Result<Calibration, CalibrationError> {
        self.shared.begin_run();
        let mut outcomes = Vec::new();
        let mut sizes = vec![1, self.shared.settings.pack_size];
        sizes.dedup();
        for pack_size in sizes {
            let items = stream::iter(content_free_items(PRIOR_REQUESTS * pack_size));
            let stop = Stop::new();
            let run = Run::with_pack_size(Arc::clone(&self.shared), items, &stop, pack_size, false);
            let mut stream = OutcomeStream { course: Course::List(Box::new(run)), stop };
            while let Some(outcome) = stream.next().await {
                outcomes.push(outcome);
            }
        }
        let assignments = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
        Calibration::of_content_free(&self.shared.taxonomy, assignments).map_err(|error| {
            let failure = outcomes.iter().find_map(|outcome| outcome.result.as_ref().err());
            match failure {
                Some(failure) => CalibrationError::NotAnswered { reason: failure.to_string() },
                None => error,
            }
        })
    }

    /// The taxonomy.
    pub fn taxonomy(&self) -> &Taxonomy {
        self.nodes.as_ref().map_or(&self.shared.taxonomy, |nodes| nodes.taxonomy())
    }

    /// The prefix that all prompts share; of a tree that is walked, the one of the top level.
    pub fn prefix(&self) -> &Prefix {
        &self.shared.prefix
    }

    /// The version of the prompt, as it stands in outcomes.
    pub fn prompt_version(&self) -> &PromptVersion {
        self.shared.prefix.version()
    }

    /// The linear head that was learned from the answers so far, to be saved; none while there is none that is sure enough.
    #[cfg(feature = "embedded")]
    pub fn learned_head(&self) -> Option<crate::embedded::LearnedHead> {
        self.shared.engine.as_ref()?.head()
    }

    /// What is known of each endpoint.
    pub fn endpoints(&self) -> Vec<EndpointSnapshot> {
        self.shared.pool.snapshots()
    }
}

/// The outcomes of a run, as they are settled; see [`Categorizer::stream`].
#[derive(Debug)]
pub struct OutcomeStream<S> {
    course: Course<S>,
    stop: Stop,
}

impl<S: Stream<Item = NewsItem>> OutcomeStream<S> {
    /// What the run has measured so far.
    pub fn stats(&self) -> Stats {
        self.course.stats()
    }

    /// Gives what the run measures to other tasks, while it goes and after it.
    pub fn stats_handle(&self) -> StatsHandle {
        self.course.stats_handle()
    }

    /// Why the run stopped before its end, if it did. The items that were not settled then come as outcomes that say so.
    pub fn error(&self) -> Option<&Error> {
        self.course.error()
    }
}

impl<S: Stream<Item = NewsItem>> OutcomeStream<S> {
    /// Lets only items below this index be taken from the source.
    pub(crate) fn take_below(&mut self, index: u64) {
        self.course.take_below(index);
    }
}

impl<S> OutcomeStream<S> {
    /// A handle that stops the run from elsewhere, for example on Ctrl-C.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.stop.clone())
    }
}

// The run keeps its source in a box of its own and moves freely.
impl<S> Unpin for OutcomeStream<S> {}

impl<S: Stream<Item = NewsItem>> Stream for OutcomeStream<S> {
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        self.course.poll_next(cx)
    }
}

/// Stops a run gracefully: what is in flight is settled, within its timeout; everything else comes back as not attempted.
///
/// Items are still taken from the source, so that each has its outcome: a source without an end must be ended as well.
#[derive(Clone, Debug)]
pub struct StopHandle(Stop);

impl StopHandle {
    /// Asks the run to stop. Asking again changes nothing.
    pub fn stop(&self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_categorizer_can_go_anywhere() {
        fn is_portable<T: Clone + Send + Sync + 'static>() {}
        fn is_send<T: Send>() {}
        is_portable::<Categorizer>();
        is_send::<OutcomeStream<stream::Empty<NewsItem>>>();
    }
}
