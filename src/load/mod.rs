//! Measuring how much a server takes: the same items with more and more requests in flight, or at higher and higher rates.
//!
//! A step is [measured](measure) with a [`Categorizer`](crate::Categorizer) as a job uses it, with all it does for an answer: packs, retries, fewer
//! requests after overload. A [`Probe`] beneath it sees every request leave and come back. A [`Sweep`] of steps has a knee and
//! a recommended concurrency with its reason, and can be compared with what is [expected](expectations) of the reference
//! deployment. The example `load_test` does all of this and writes it as JSON, CSV and a page; [`plan`](crate::plan) goes on from there.
//!
//! In a **closed loop** each answer lets the next request go, so the requests in flight are given and the rate is measured;
//! latency is that of a request. In an **open loop** requests are due at given times, whatever became of earlier ones, and
//! latency is counted from when an item was **due**, not from when its request could be sent: a server that stalls delays
//! what is sent next, and a latency that began with the sending would leave out just the waiting that it caused. Gil Tene
//! named this "coordinated omission"; his `wrk2` (<https://github.com/giltene/wrk2>) describes it. On the two kinds of loop
//! see Schroeder, Wierman and Harchol-Balter, "Open Versus Closed: A Cautionary Tale" (NSDI 2006).
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! use slugline::load::{self, About, Length, Order, Probe, Sweep, Targets};
//! use slugline::{Categorizer, EndpointConfig, Taxonomy};
//! # use slugline::testing::SimulatedServer;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = SimulatedServer::builder().start().await?;
//! # let base_url = server.base_url();
//! let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! let mut sweep = Sweep::new(About::new("simulated"), Targets::default());
//! for concurrency in [1, 5] {
//!     let probe = Probe::new();
//!     let transport = probe.over(slugline::server::http_transport(&base_url, None)?);
//!     let categorizer = Categorizer::builder(taxonomy.clone())
//!         .endpoint(EndpointConfig::new(base_url.as_str()).transport(transport))
//!         .model("simulated")
//!         .concurrency(concurrency)
//!         .max_concurrency(concurrency)
//!         .build()?;
//!     let order = Order::closed(Length::Requests(20)).warm_up(concurrency as u64);
//!     sweep.add(load::measure(&categorizer, &probe, load::generated_items(1), &order).await);
//! }
//! println!("{}", sweep.advice.reason);
//! # assert_eq!(sweep.steps[1].valid_items, 60);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advice;
mod html;
mod items;
mod length;
mod order;
mod probe;
mod reference;
mod run;
mod step;
mod sweep;

pub use self::advice::{Advice, Targets};
pub use self::items::{generated_items, generated_items_of, item_tokens_for};
pub use self::length::{LengthFound, Lengthening, find_lengthening};
pub use self::order::{Arrivals, InvalidRate, Length, Order};
pub use self::probe::{Probe, Probed, Progress};
pub use self::reference::{Check, Expectation, Standing, compare, expectations};
pub use self::run::{measure, measure_until};
pub use self::step::{InFlight, LatencySummary, Step};
pub use self::sweep::{About, FORMAT, ReadError, Sweep};
