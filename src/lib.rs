//! Puts news items into the categories of a taxonomy by asking a large language model behind an OpenAI-compatible server:
//! vLLM first, also llama.cpp, SGLang, Ollama and OpenAI.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use slugline::{Categorizer, NewsItem, Taxonomy};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = slugline::testing::SimulatedServer::builder().model("Qwen/Qwen2.5-7B-Instruct-AWQ").start().await?;
//! # let base_url = server.base_url();
//! let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! let categorizer = Categorizer::builder(taxonomy)
//!     .endpoint(base_url) // "http://localhost:8000/v1"; several are balanced
//!     .model("Qwen/Qwen2.5-7B-Instruct-AWQ")
//!     .build()?;
//!
//! let items = vec![NewsItem::new("a1", "Striker signs for the champions", "The club confirmed the transfer.")];
//! let report = categorizer.categorize(items).await;
//! for outcome in &report.outcomes {
//!     match &outcome.result {
//!         Ok(assignment) => println!("{}: {} ({:?})", outcome.id, assignment.category, assignment.confidence),
//!         Err(error) => println!("{}: {error}", outcome.id),
//!     }
//! }
//! if let Some(error) = report.error {
//!     return Err(error.into()); // what ended the run before its time, such as a refused key
//! }
//! # assert_eq!(report.outcomes.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How to think of it
//!
//! - A [`Taxonomy`] is loaded once and checked whole. A [`Categorizer`] holds it with the endpoints; clones share everything.
//! - A run takes [`NewsItem`]s, a collection by [`Categorizer::categorize`] or a stream of any length by
//!   [`Categorizer::stream`], and gives **exactly one [`Outcome`] per item**: a category of the taxonomy, or an
//!   [`ItemError`] with its kind. Errors of items are data; what stops a run is an [`Error`].
//! - A taxonomy that is a tree and too large for one prompt, such as IPTC Media Topics, is walked level by level ([`Descent`]);
//!   each outcome has its [path](CategoryPath). Several categories for an item: [`AnswerForm::Several`].
//! - The fallback is a category that the model chose; [below a threshold](CategorizerBuilder::abstain_below) and failed are two
//!   other things.
//! - A [`Service`] takes one item at a time from any number of tasks, with deadlines and a bounded queue.
//! - Items share requests ("packs"), and all requests share a prefix of the same bytes, so that the server computes it once.
//! - Every failure of servers, networks and models is handled below you: retried, asked again, split, waited out, within
//!   stated bounds. Do not wrap it in another retry loop; look at [`Error::status`] and [`ItemError::status`].
//! - How it fits to channels, actors, rayon and plain iterators is in [`recipes`].
//! - A nightly archive needs no server while it runs: [`batch`] writes requests to files and reads results from files.
//! - What a run does is in [`stats`] at any time; when to worry about it, in [`alerts`].
//! - How many labels are right, and what they cost, is measured on labelled items of your own: [`evaluate`].
//! - How many requests a server takes at once is measured by [`load`], and how many servers that makes is worked out by
//!   [`plan`].
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `rustls` | yes | TLS by rustls with the platform's certificates; without it and `native-tls`, addresses must be `http` |
//! | `native-tls` | no | TLS by the operating system's library |
//! | `tokenizers` | no | exact token counts from a `tokenizer.json` |
//! | `embedded` | no | [`embedded`]: an embedding model in the process, by itself or as a first opinion |
//! | `ledger` | no | [`ledger`]: answers kept in a file, so that nothing is asked twice |
//! | `gpu` | no | [`gpu`]: use and memory of the GPUs of this machine, by `nvidia-smi` |
//! | `metrics` | no | [`metrics`]: counts for the `metrics` facade, and so for Prometheus and others |
//! | `near-duplicates` | no | [`near_duplicates`]: reprints are answered with the item that they are nearly the same as |
//! | `feeds` | no | [`feeds`]: RSS, Atom and JSON feeds as items, whatever their charset, HTML reduced to text |
//! | `testing` | no | [`testing`]: a scripted transport and a simulated server with faults, for your tests |
//!
//! # What it does not do
//!
//! It runs no language model itself and streams no partial answers. It never takes a key or the address of a server from the
//! environment; proxies that the environment names (`HTTPS_PROXY`, `NO_PROXY` and so on) are used for all servers but those on
//! this machine.
//!
//! How it works, with formulas and sources, is in [`design`].

pub mod alerts;
mod answer;
pub mod batch;
mod builder;
pub mod calibration;
mod categorizer;
mod dedup;
mod descent;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod escalation;
pub mod evaluate;
#[cfg(feature = "feeds")]
pub mod feeds;
#[cfg(feature = "gpu")]
pub mod gpu;
mod item;
#[cfg(feature = "ledger")]
pub mod ledger;
mod limit;
pub mod load;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "near-duplicates")]
pub mod near_duplicates;
mod ordered;
mod outcome;
mod page;
pub mod plan;

pub mod prompt;
pub mod recipes;
mod run;
pub mod server;
mod service;
pub mod stats;
pub mod taxonomy;
#[cfg(feature = "testing")]
pub mod testing;
mod tuning;

#[cfg(doc)]
#[doc = include_str!("../DESIGN.md")]
pub mod design {}

#[cfg(doc)]
#[doc = include_str!("../CHANGELOG.md")]
pub mod changelog {}

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use self::answer::AnswerForm;
pub use self::builder::CategorizerBuilder;
pub use self::categorizer::{Categorizer, OutcomeStream, StopHandle};
pub use self::descent::{CategoryPath, Descent, LevelStats, PathEnd, PathStep};
pub use self::error::{Error, ErrorKind, Failure, FailureKind, ItemError, ItemErrorKind, Status};
pub use self::escalation::Escalation;
pub use self::item::NewsItem;
#[cfg(feature = "ledger")]
pub use self::ledger::Ledger;
#[cfg(feature = "near-duplicates")]
pub use self::near_duplicates::NearDuplicates;
pub use self::ordered::OrderedOutcomes;
pub use self::outcome::{Assignment, Engine, Origin, Outcome, Report};
pub use self::server::{Api, Balance, EndpointConfig};
pub use self::service::{Service, ServiceError, ServiceOptions, ServiceStats};
pub use self::stats::{Stats, StatsHandle};
pub use self::taxonomy::{Category, CategoryId, Taxonomy, TaxonomyError};
pub use self::tuning::{SizeEvidence, Tuning, TuningReport};
