//! Measuring quality and speed together, on labelled items of your own.
//!
//! Pure functions from graded items to figures; asking a server is up to the caller. The example `evaluate` does both: it
//! runs several settings over a labelled file and writes what came of it as JSON and as a page.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use slugline::evaluate::{self, About, Evaluation, GradedItem, Setting, Throughput};
//! use slugline::{Categorizer, NewsItem, Taxonomy};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = slugline::testing::SimulatedServer::builder().start().await?;
//! # let base_url = server.base_url();
//! let taxonomy = Taxonomy::load("categories/ag-news.toml")?;
//! let items = [NewsItem::new("a1", "Late goal wins the championship game", ""), NewsItem::new("a2", "Oil prices up", "")];
//! let truths = evaluate::match_labels(&taxonomy, [(1, "Sports"), (2, "Business")])?;
//!
//! let mut evaluation = Evaluation::new(About::new("simulated", &taxonomy), &taxonomy);
//! for pack_size in [1, 3] {
//!     let categorizer =
//!         Categorizer::builder(taxonomy.clone()).endpoint(base_url.as_str()).model("simulated").pack_size(pack_size).build()?;
//!     let report = categorizer.categorize(items.clone()).await;
//!     let graded: Vec<_> =
//!         report.outcomes.iter().zip(&truths).map(|(outcome, truth)| GradedItem::new(outcome, truth.clone())).collect();
//!     let throughput = Throughput::from_stats(&report.stats, &graded);
//!     evaluation.add(Setting::new(format!("packs of {pack_size}"), pack_size, "objects"), graded, throughput)?;
//! }
//! println!("{:.3}", evaluation.settings[0].metrics.accuracy);
//! let page = evaluation.to_html();
//! # assert!(page.contains("packs of 3") && evaluation.settings[1].metrics.items == 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compare;
mod html;
mod interval;
mod item;
mod labels;
mod mapping;
mod metrics;
mod reliability;
mod report;
mod sample;
mod several;

pub use self::compare::Paired;
pub use self::interval::Interval;
#[cfg(feature = "embedded")]
pub(crate) use self::interval::Z_99;
pub use self::item::{GradedItem, Prediction};
pub use self::labels::{UnknownLabels, match_labels};
pub use self::mapping::Mapping;
pub use self::metrics::{CategoryMetrics, ConfusionMatrix, ConfusionRow, Metrics, UnknownTruth};
pub use self::reliability::{RELIABILITY_BINS, Reliability, ReliabilityBin};
pub use self::report::{
    About, Comparison, Evaluation, FORMAT, ListedCategory, Point, ReadError, Setting, SettingReport, Throughput,
};
pub use self::sample::{halves, skewed};
pub use self::several::{GradedSet, SeveralMetrics};
