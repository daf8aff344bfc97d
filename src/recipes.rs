//! Recipes: how a categorizer fits to channels, actors, threads and plain iterators.
//!
//! All of them keep **backpressure**: nothing is taken from the source before there is room for it, and nothing waits without
//! bound. A run has at most `(4 × requests + 16) × pack size` items on their way, twice as many where it walks a tree, where
//! `requests` is what the endpoints take at that time (10 to begin with, 25 at most, each), and 64 outcomes that wait for the
//! consumer.
//!
//! | what comes | what to use |
//! |---|---|
//! | a collection | [`Categorizer::categorize`](crate::Categorizer::categorize) |
//! | a stream or a channel | [`Categorizer::stream`](crate::Categorizer::stream), or [`stream_ordered`](crate::Categorizer::stream_ordered) |
//! | single items from many tasks or threads | [`Categorizer::service`](crate::Categorizer::service) |
//! | an iterator, in code without `async` | a stream of it and a runtime, below |
//!
//! # From a channel to a channel
//!
//! Both channels are bounded, so a slow receiver slows the sender down, through the servers in between. With several stages this
//! is the pipeline of actors: each is a task that owns its state and two ends of channels.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # use slugline::testing::SimulatedServer;
//! use futures_util::{StreamExt, stream};
//! use slugline::{Categorizer, NewsItem, Outcome, Taxonomy};
//! use tokio::sync::mpsc;
//!
//! /// Categorizes what comes until all senders are gone, then ends; the next stage then ends likewise.
//! async fn categorizing(categorizer: Categorizer, mut items: mpsc::Receiver<NewsItem>, outcomes: mpsc::Sender<Outcome>) {
//!     let items = stream::poll_fn(move |cx| items.poll_recv(cx));
//!     let mut settled = categorizer.stream(items);
//!     while let Some(outcome) = settled.next().await {
//!         if outcomes.send(outcome).await.is_err() {
//!             return; // Nobody wants more: dropping the stream cancels what is in flight.
//!         }
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = SimulatedServer::builder().start().await?;
//! # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
//! let (to_categorize, items) = mpsc::channel(100);
//! let (settled, mut outcomes) = mpsc::channel(100);
//! tokio::spawn(categorizing(categorizer, items, settled));
//! tokio::spawn(async move {
//!     for n in 0..500 {
//!         let item = NewsItem::new(n.to_string(), format!("Cup final {n}"), "");
//!         if to_categorize.send(item).await.is_err() {
//!             return;
//!         }
//!     }
//! });
//! let mut count = 0;
//! while let Some(outcome) = outcomes.recv().await {
//!     count += usize::from(outcome.result.is_ok());
//! }
//! # assert_eq!(count, 500);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # An actor that is asked
//!
//! [`Service`](crate::Service) is such an actor already: a task, a bounded mailbox, answers by oneshot. An actor of your own
//! keeps a clone and awaits it; so that its mailbox is not blocked meanwhile, it spawns the call.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # use slugline::testing::SimulatedServer;
//! use slugline::{Categorizer, NewsItem, Service, ServiceOptions, Taxonomy};
//! use tokio::sync::{mpsc, oneshot};
//!
//! struct Story { item: NewsItem, reply: oneshot::Sender<String> }
//!
//! async fn newsdesk(mut mailbox: mpsc::Receiver<Story>, service: Service) {
//!     while let Some(Story { item, reply }) = mailbox.recv().await {
//!         let service = service.clone();
//!         tokio::spawn(async move {
//!             let text = match service.categorize_one(item).await {
//!                 Ok(outcome) => outcome.result.map_or_else(|error| error.to_string(), |found| found.category.to_string()),
//!                 Err(error) => error.to_string(),
//!             };
//!             let _ = reply.send(text);
//!         });
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = SimulatedServer::builder().start().await?;
//! # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
//! let (mailbox, stories) = mpsc::channel(100);
//! tokio::spawn(newsdesk(stories, categorizer.service(ServiceOptions::default())));
//! let (reply, answer) = oneshot::channel();
//! let item = NewsItem::new("a1", "Cup final", "The club won the match.");
//! mailbox.send(Story { item, reply }).await?;
//! println!("{}", answer.await?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A plain iterator, without `async`
//!
//! A runtime of your own and [`block_on`](tokio::runtime::Runtime::block_on) for each outcome make an iterator of outcomes out
//! of an iterator of items. Requests under way go on between two calls of `next` on a multi-threaded runtime. The items are read
//! on the thread that calls `next`, so an iterator that reads a file does not block the runtime.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # use slugline::testing::SimulatedServer;
//! use futures_util::{StreamExt, stream};
//! use slugline::{Categorizer, NewsItem, Outcome, Taxonomy};
//! use tokio::runtime::Runtime;
//!
//! fn outcomes<'a>(
//!     runtime: &'a Runtime,
//!     categorizer: &Categorizer,
//!     items: impl Iterator<Item = NewsItem> + 'a,
//! ) -> impl Iterator<Item = Outcome> + 'a {
//!     let _context = runtime.enter();
//!     let mut settled = categorizer.stream_ordered(stream::iter(items));
//!     std::iter::from_fn(move || runtime.block_on(settled.next()))
//! }
//!
//! let runtime = Runtime::new()?;
//! # let server = runtime.block_on(SimulatedServer::builder().start())?;
//! # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
//! let titles = ["Cup final", "Shares fall", "Rain at noon"].map(String::from);
//! let items = titles.iter().map(|title| NewsItem::new(title, title, "")); // Borrowed: nothing need be 'static.
//! let ids: Vec<String> = outcomes(&runtime, &categorizer, items).map(|outcome| outcome.id).collect();
//! assert_eq!(ids, titles);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Rayon and other threads
//!
//! A [`Service`](crate::Service) may be called from any thread through a handle of the runtime. Each thread waits for its own
//! item, so there are as many items on their way as threads; that is enough when few come, or when the threads have other work
//! to do. To keep the servers busy give the pool about `requests × pack size` threads of its own, 75 for one endpoint at its
//! limit, or collect a batch and hand it to [`Categorizer::categorize`](crate::Categorizer::categorize) as one.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # use slugline::testing::SimulatedServer;
//! use slugline::{Categorizer, NewsItem, ServiceOptions, Taxonomy};
//! use tokio::runtime::Runtime;
//!
//! let runtime = Runtime::new()?;
//! # let server = runtime.block_on(SimulatedServer::builder().start())?;
//! # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
//! let service = runtime.block_on(async { categorizer.service(ServiceOptions::default()) });
//! let handle = runtime.handle();
//! let categorize = |item: NewsItem| handle.block_on(service.categorize_one(item));
//!
//! // With rayon: items.into_par_iter().map(categorize).collect(). The same with plain threads:
//! let items: Vec<_> = (0..30).map(|n| NewsItem::new(n.to_string(), format!("Cup final {n}"), "")).collect();
//! let count: usize = std::thread::scope(|scope| {
//!     let threads: Vec<_> = items
//!         .chunks(5)
//!         .map(|part| scope.spawn(|| part.iter().cloned().map(&categorize).filter(Result::is_ok).count()))
//!         .collect();
//!     threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
//! });
//! assert_eq!(count, 30);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `block_on` must not be called from a thread of the runtime itself: in `async` code await the call, and put long work of the
//! processor on [`spawn_blocking`](tokio::task::spawn_blocking) or rayon.
