//! Puts news items into the categories of a taxonomy by asking a large language model behind an OpenAI-compatible server.

mod answer;
mod builder;
mod categorizer;
mod dedup;
mod error;
mod item;
mod limit;
mod outcome;
pub mod prompt;
mod run;
pub mod server;
pub mod stats;
pub mod taxonomy;
#[cfg(feature = "testing")]
pub mod testing;

pub use self::builder::CategorizerBuilder;
pub use self::categorizer::{Categorizer, OutcomeStream, StopHandle};
pub use self::error::{Error, ErrorKind, Failure, FailureKind, ItemError, ItemErrorKind, Status};
pub use self::item::NewsItem;
pub use self::outcome::{Assignment, Origin, Outcome, Report};
pub use self::server::{Api, Balance, EndpointConfig};
pub use self::stats::Stats;
pub use self::taxonomy::{Category, CategoryId, Taxonomy, TaxonomyError};
