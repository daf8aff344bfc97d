//! One item at a time, from any number of tasks: their items share requests.

mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::queue::{Items, Queue};
use crate::categorizer::Categorizer;
use crate::error::{Error, ItemErrorKind, Status};
use crate::outcome::Outcome;
use crate::run::Course;
use crate::stats::{Stats, StatsHandle};
use crate::{NewsItem, server};

/// How a [`Service`] treats its callers.
///
/// Defaults: a queue of 256 items, a deadline of 30 seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    queue_items: usize,
    deadline: Option<Duration>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { queue_items: 256, deadline: Some(Duration::from_secs(30)) }
    }
}

impl ServiceOptions {
    /// The most items that wait for a request, those beyond the requests in flight, at least 1. More are turned away with
    /// [`ServiceError::Overloaded`]. Default: 256.
    ///
    /// A queue that is longer than the servers can work off within the deadline only makes everybody wait: choose at most
    /// items per second × (deadline − latency of a request).
    #[must_use]
    pub fn queue(mut self, items: usize) -> Self {
        self.queue_items = items.max(1);
        self
    }

    /// How long a call may take that has no deadline of its own. Default: 30 seconds.
    ///
    /// An attempt may take the [timeout](crate::CategorizerBuilder::timeout) of the categorizer, so a deadline below twice
    /// that leaves no time for another attempt after a server has hung: lower the timeout with it.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Lets calls take as long as they do. What bounds them then is the [patience](crate::CategorizerBuilder::patience) of
    /// the categorizer.
    #[must_use]
    pub fn no_deadline(mut self) -> Self {
        self.deadline = None;
        self
    }
}

/// Why a call to a [`Service`] has no outcome.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The queue is full. The item was not taken; nothing was asked.
    #[error("{waiting_items} items wait already, as many as the queue takes; try again later")]
    Overloaded {
        /// The items that wait.
        waiting_items: usize,
    },
    /// There was no answer by the deadline, or no time was left to get one.
    #[error("no answer by the deadline, after {:.1} s", .waited.as_secs_f64())]
    DeadlineExceeded {
        /// How long the item waited.
        waited: Duration,
    },
    /// No endpoint can be asked; what it would be for a run is inside. The service tries again with the next call.
    #[error(transparent)]
    Unavailable(Error),
    /// The service was shut down, or its runtime was.
    #[error("the service is shut down")]
    Stopped,
}

impl ServiceError {
    /// Whether trying again can help.
    pub fn status(&self) -> Status {
        match self {
            Self::Overloaded { .. } | Self::DeadlineExceeded { .. } => Status::Temporary,
            Self::Unavailable(error) => error.status(),
            Self::Stopped => Status::Permanent,
        }
    }
}

/// What a [`Service`] has measured since its start.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Items that wait for a request now.
    pub waiting_items: usize,
    /// Calls that are under way now, those that wait included.
    pub callers: usize,
    /// Calls whose item was taken, since the start.
    pub accepted: u64,
    /// Calls that were turned away since the queue was full.
    pub overloaded: u64,
    /// Calls that had no answer by their deadline.
    pub deadline_exceeded: u64,
    /// Calls that ended since no endpoint could be asked.
    pub unavailable: u64,
    /// What the run underneath has measured. An item whose caller gave up may still be counted here as categorized.
    pub run: Stats,
}

/// Categorizes single items that come from any number of tasks; made by [`Categorizer::service`].
///
/// Items that come together share requests: an item waits for others at most the
/// [pack wait](crate::CategorizerBuilder::pack_wait), 20 milliseconds by default, and not at all while no request is in
/// flight. Exact copies of an item that is on its way, or was answered among the last 50,000 texts, are not asked again.
///
/// Cheap to clone; all clones share one queue. Beside the [options](ServiceOptions) everything is as the categorizer was
/// built, escalation and tuning included. Three things differ from a run over a stream:
///
/// - A pack that failed while other requests were answered is split at once, so that neighbours of a bad item do not wait
///   for all of its retries.
/// - When no endpoint can be asked any more, the calls under way end with [`ServiceError::Unavailable`] and the service
///   goes on: the next call tries the endpoints anew.
/// - Under load, an item is given up before it is asked when less time is left to its deadline than answers usually take.
///
/// A caller that gives up, by its deadline or by dropping the future, gives the place in the queue back at once. An item
/// whose request is in flight is finished, and its outcome dropped. When the last clone is dropped, everything ends.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use slugline::testing::SimulatedServer;
/// use slugline::{Categorizer, NewsItem, ServiceOptions, Taxonomy};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let server = SimulatedServer::builder().start().await?;
/// # let base_url = server.base_url();
/// let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
/// let categorizer = Categorizer::builder(taxonomy).endpoint(base_url).model("simulated").build()?;
/// let service = categorizer.service(ServiceOptions::default());
///
/// // In each of many tasks:
/// let outcome = service.categorize_one(NewsItem::new("a1", "Striker signs", "The club confirmed the transfer.")).await?;
/// assert!(outcome.result.is_ok());
///
/// // At the end:
/// service.shutdown().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    categorizer: Categorizer,
    deadline: Option<Duration>,
    queue: Arc<Queue>,
    run: Arc<Mutex<Course<Items>>>,
    task: JoinHandle<()>,
}

impl Categorizer {
    /// Starts a service for callers that have one item at a time: a task that lives as long as the handle and its clones.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    #[expect(clippy::needless_pass_by_value, reason = "options to come may be more than numbers")]
    pub fn service(&self, options: ServiceOptions) -> Service {
        let queue = Arc::new(Queue::new(options.queue_items));
        let run = Course::serving(&self.shared, self.nodes.as_ref(), Items(Arc::clone(&queue)));
        let run = Arc::new(Mutex::new(run));
        let task = tokio::spawn(drive(Arc::clone(&run), AbandonOnDrop(Arc::clone(&queue))));
        Service(Arc::new(Inner { categorizer: self.clone(), deadline: options.deadline, queue, run, task }))
    }
}

impl Service {
    /// Categorizes an item, within the deadline of the [options](ServiceOptions).
    ///
    /// The outcome's [`index`](Outcome::index) counts the items of the service in the order in which they were asked.
    ///
    /// # Errors
    /// The queue is full, the deadline has passed, no endpoint can be asked, or the service is shut down. An item that was
    /// asked in vain is no error of the service: it is in the [`result`](Outcome::result) of the outcome.
    pub async fn categorize_one(&self, item: NewsItem) -> Result<Outcome, ServiceError> {
        self.call(item, self.0.deadline).await
    }

    /// The same with a deadline of its own.
    ///
    /// # Errors
    /// As [`categorize_one`](Self::categorize_one).
    pub async fn categorize_within(&self, item: NewsItem, deadline: Duration) -> Result<Outcome, ServiceError> {
        self.call(item, Some(deadline)).await
    }

    /// Ends the service gracefully: new calls are refused with [`ServiceError::Stopped`], those under way are settled, each
    /// within its deadline. Requests that nobody waits for are cancelled.
    pub async fn shutdown(&self) {
        self.0.queue.close();
        self.0.queue.until_no_caller().await;
        self.0.task.abort();
        lock(&self.0.run).cancel();
    }

    /// What has been measured so far.
    pub fn stats(&self) -> ServiceStats {
        let run = lock(&self.0.run).stats();
        self.0.queue.stats(run)
    }

    /// Gives what the run underneath measures to other tasks, without a lock that the service needs.
    pub fn stats_handle(&self) -> StatsHandle {
        lock(&self.0.run).stats_handle()
    }

    /// What is known of each endpoint.
    pub fn endpoints(&self) -> Vec<server::EndpointSnapshot> {
        self.0.categorizer.endpoints()
    }

    async fn call(&self, item: NewsItem, deadline: Option<Duration>) -> Result<Outcome, ServiceError> {
        let queue = &self.0.queue;
        let started = Instant::now();
        // A deadline beyond what the clock can count is none.
        let deadline = deadline.and_then(|deadline| started.checked_add(deadline));
        let result = match queue.enter(item, deadline) {
            Ok(mut place) => match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, place.answer())
                    .await
                    .unwrap_or_else(|_| Err(ServiceError::DeadlineExceeded { waited: started.elapsed() })),
                None => place.answer().await,
            },
            Err(error) => Err(error),
        };
        queue.count(&result);
        result
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Polls the run and hands its outcomes to their callers, until the queue is closed and empty.
async fn drive(run: Arc<Mutex<Course<Items>>>, queue: AbandonOnDrop) {
    loop {
        let next = std::future::poll_fn(|cx| {
            let mut run = lock(&run);
            run.poll_next(cx).map(|outcome| outcome.map(|outcome| (outcome, run.error().cloned())))
        });
        let Some((outcome, error)) = next.await else { return };
        let is_lost = matches!(&outcome.result, Err(item) if item.kind == ItemErrorKind::NotAttempted);
        match error.filter(|_| is_lost) {
            Some(error) => queue.0.answer(outcome.index, Err(ServiceError::Unavailable(error))),
            None => queue.0.answer(outcome.index, Ok(outcome)),
        }
    }
}

/// However the task ends, even before its first poll, nobody waits for it any longer.
struct AbandonOnDrop(Arc<Queue>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_can_go_anywhere_and_so_can_its_calls() {
        fn is_portable<T: Clone + Send + Sync + 'static>() {}
        fn is_send<T: Send>(_: impl Fn(Service, NewsItem) -> T) {}
        is_portable::<Service>();
        is_send(|service, item| async move { service.categorize_one(item).await });
    }

    #[test]
    fn errors_say_what_happened_and_whether_to_try_again() {
        let overloaded = ServiceError::Overloaded { waiting_items: 256 };
        assert_eq!(overloaded.to_string(), "256 items wait already, as many as the queue takes; try again later");
        let late = ServiceError::DeadlineExceeded { waited: Duration::from_millis(2_340) };
        assert_eq!(late.to_string(), "no answer by the deadline, after 2.3 s");
        let statuses = [overloaded, late, ServiceError::Stopped, ServiceError::Unavailable(Error::Stopped)];
        let statuses = statuses.map(|error| error.status());
        assert_eq!(statuses, [Status::Temporary, Status::Temporary, Status::Permanent, Status::Temporary]);
    }
}
