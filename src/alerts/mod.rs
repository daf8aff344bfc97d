//! When to worry about a run: thresholds on what it measures, on its servers and on the quality of its labels.
//!
//! [`Alerts`] is given [`Measurement`]s again and again, of a run ([`of_stats`]), of GPUs ([`gpu`](crate::gpu)) and of labels
//! ([`Quality`]), and says what changed by its [`Rules`]: to a callback, as a stream, and as the result of each look. It has
//! no task and no clock of its own but tokio's; look every few seconds.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # use slugline::testing::SimulatedServer;
//! use std::time::Duration;
//! use futures_util::{StreamExt, stream};
//! use slugline::alerts::{self, Alerts, Rules};
//! # use slugline::{Categorizer, NewsItem, Taxonomy};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = SimulatedServer::builder().start().await?;
//! # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
//! # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
//! # let items = stream::iter((0..30).map(|n| NewsItem::new(n.to_string(), format!("Cup final {n}"), "")));
//! let outcomes = categorizer.stream(items);
//! let stats = outcomes.stats_handle();
//! let mut alerts = Alerts::new(Rules::default()).on_change(|change| eprintln!("{change}"));
//! let watch = tokio::spawn(async move {
//!     loop {
//!         alerts.look(&alerts::of_stats(&stats.snapshot()));
//!         tokio::time::sleep(Duration::from_secs(5)).await;
//!     }
//! });
//! assert_eq!(outcomes.count().await, 30);
//! watch.abort();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod file;
mod quality;
mod rule;
mod signal;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

pub use self::file::{RuleProblem, RulesError};
pub use self::quality::{Mix, Quality, distance};
pub use self::rule::{Rule, Rules};
pub use self::signal::{Measurement, Signal, of_stats};

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing to worry about.
    #[default]
    Fine,
    /// Look at it today.
    Warning,
    /// Wake somebody.
    Critical,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// An alert fired, rose, fell or cleared.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// What it is about.
    pub signal: Signal,
    /// Whose signal it is, where there are several.
    pub subject: Option<Arc<str>>,
    /// The level before.
    pub from: Level,
    /// The level now; [`Level::Fine`] means that the alert cleared.
    pub to: Level,
    /// The value that was measured last.
    pub value: f64,
    /// The threshold that was passed, in one direction or the other.
    pub threshold: f64,
}

impl fmt::Display for Change {
    /// Such as `critical: success-share is 0.871, below 0.9`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.to, self.signal)?;
        if let Some(subject) = &self.subject {
            write!(formatter, " of {subject}")?;
        }
        let is_worse = self.to > self.from;
        let side = if is_worse == self.signal.is_better_high() { "below" } else { "above" };
        let value = (self.value * 1_000.0).round() / 1_000.0;
        let again = if is_worse { "" } else { "again " };
        write!(formatter, " is {value}, {again}{side} {}", self.threshold)
    }
}

/// An alert that has fired.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alert {
    /// What it is about.
    pub signal: Signal,
    /// Whose signal it is, where there are several.
    pub subject: Option<Arc<str>>,
    /// How bad it is.
    pub level: Level,
    /// The value that was measured last.
    pub value: f64,
    /// How long it has been at this level.
    pub lasts: Duration,
}

/// Watches measurements by rules and tells what changes.
///
/// What is not measured neither fires an alert nor clears one: without requests there is no success share, and an alert
/// that has fired stays until a value says that it is over.
pub struct Alerts {
    rules: Rules,
    states: BTreeMap<(Signal, Option<Arc<str>>), State>,
    callback: Option<Box<dyn FnMut(&Change) + Send>>,
    streams: Vec<UnboundedSender<Change>>,
}

/// The changes of [`Alerts`] as a stream; it ends when these are dropped.
#[derive(Debug)]
pub struct Changes(UnboundedReceiver<Change>);

/// What is known of one signal of one subject.
#[derive(Clone, Debug)]
struct State {
    warning: Latch,
    critical: Latch,
    since: Instant,
    value: f64,
}

/// One threshold: whether it has fired, and since when its value says otherwise.
#[derive(Clone, Debug, Default)]
struct Latch {
    has_fired: bool,
    otherwise_since: Option<Instant>,
}

impl Alerts {
    /// Alerts by these rules. One that cannot work, such as a share above 1, is named in the log; a file with such a rule is
    /// [refused](Rules::from_toml).
    pub fn new(rules: Rules) -> Self {
        for (rule, problem) in rules.0.iter().flat_map(|rule| rule.problems().into_iter().map(move |of| (rule, of))) {
            tracing::warn!(signal = %rule.signal, problem, "an alert rule cannot work as it is");
        }
        Self { rules, states: BTreeMap::new(), callback: None, streams: Vec::new() }
    }

    /// Calls this for each change, during [`look`](Self::look). It must not block.
    #[must_use]
    pub fn on_change(mut self, callback: impl FnMut(&Change) + Send + 'static) -> Self {
        self.callback = Some(Box::new(callback));
        self
    }

    /// The changes from now on. What is not read is kept, so read it or drop it.
    pub fn changes(&mut self) -> Changes {
        let (sender, receiver) = unbounded_channel();
        self.streams.push(sender);
        Changes(receiver)
    }

    /// Takes in what was measured now, and gives what changed by it.
    pub fn look(&mut self, measurements: &[Measurement]) -> Vec<Change> {
        let now = Instant::now();
        let mut changes = Vec::new();
        // What a threshold says must be said without a break.
        for (key, state) in &mut self.states {
            if !measurements.iter().any(|of| (of.signal, &of.subject) == (key.0, &key.1)) {
                state.warning.otherwise_since = None;
                state.critical.otherwise_since = None;
            }
        }
        for measurement in measurements {
            let Some(rule) = self.rules.rule_for(measurement.signal, measurement.subject.as_deref()) else { continue };
            let key = (measurement.signal, measurement.subject.clone());
            let state = self.states.entry(key).or_insert_with(|| State::new(now));
            changes.extend(state.measured(rule, measurement, now));
            #[cfg(feature = "metrics")]
            crate::metrics::signal(measurement, state.level());
        }
        for change in &changes {
            tracing::info!(signal = %change.signal, level = %change.to, value = change.value, "an alert changed");
            if let Some(callback) = &mut self.callback {
                callback(change);
            }
            self.streams.retain(|stream| stream.send(change.clone()).is_ok());
        }
        changes
    }

    /// The alerts that have fired and not cleared, the worst first.
    pub fn firing(&self) -> Vec<Alert> {
        let alert = |((signal, subject), state): (&(Signal, Option<Arc<str>>), &State)| Alert {
            signal: *signal,
            subject: subject.clone(),
            level: state.level(),
            value: state.value,
            lasts: state.since.elapsed(),
        };
        let mut alerts: Vec<Alert> = self.states.iter().map(alert).filter(|alert| alert.level > Level::Fine).collect();
        alerts.sort_by_key(|alert| std::cmp::Reverse(alert.level));
        alerts
    }
}

impl fmt::Debug for Alerts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Alerts")
            .field("rules", &self.rules)
            .field("firing", &self.firing())
            .finish_non_exhaustive()
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        self.0.poll_recv(cx)
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self { warning: Latch::default(), critical: Latch::default(), since: now, value: 0.0 }
    }

    fn level(&self) -> Level {
        match (self.critical.has_fired, self.warning.has_fired) {
            (true, _) => Level::Critical,
            (false, true) => Level::Warning,
            (false, false) => Level::Fine,
        }
    }

    fn measured(&mut self, rule: &Rule, measurement: &Measurement, now: Instant) -> Option<Change> {
        let is_enough = measurement.samples >= rule.least_samples && measurement.value.is_finite();
        if !is_enough {
            self.warning.otherwise_since = None;
            self.critical.otherwise_since = None;
            return None;
        }
        self.value = measurement.value;
        let from = self.level();
        self.warning.measured(rule, rule.warning, self.value, now);
        self.critical.measured(rule, rule.critical, self.value, now);
        let to = self.level();
        let threshold = match from.max(to) {
            Level::Critical => rule.critical,
            _ => rule.warning,
        };
        if from == to {
            return None;
        }
        self.since = now;
        let Measurement { signal, subject, value, .. } = measurement.clone();
        Some(Change { signal, subject, from, to, value, threshold: threshold.unwrap_or(value) })
    }
}

impl Latch {
    fn measured(&mut self, rule: &Rule, threshold: Option<f64>, value: f64, now: Instant) {
        let is_beyond = threshold.is_some_and(|threshold| rule.is_beyond(value, threshold, self.has_fired));
        if is_beyond == self.has_fired {
            self.otherwise_since = None;
            return;
        }
        let since = *self.otherwise_since.get_or_insert(now);
        let needed = if self.has_fired { rule.clear_after } else { rule.hold };
        if now.duration_since(since) >= needed {
            self.has_fired = is_beyond;
            self.otherwise_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every five seconds at this value, and gives the changes with the second at which they came.
    async fn run(alerts: &mut Alerts, signal: Signal, values: impl IntoIterator<Item = f64>) -> Vec<(u64, Level)> {
        let start = Instant::now();
        let mut changes = Vec::new();
        for value in values {
            let found = alerts.look(&[Measurement::new(signal, value, 100)]);
            changes.extend(found.into_iter().map(|change| (start.elapsed().as_secs(), change.to)));
            tokio::time::advance(Duration::from_secs(5)).await;
        }
        changes
    }

    fn repeat(value: f64, seconds: usize) -> impl Iterator<Item = f64> {
        std::iter::repeat_n(value, seconds / 5)
    }

    #[tokio::test(start_paused = true)]
    async fn it_takes_a_while_to_fire_and_a_while_to_clear() {
        let mut alerts = Alerts::new(Rules::default());
        let values = repeat(0.99, 10).chain(repeat(0.93, 60)).chain(repeat(0.85, 60)).chain(repeat(1.0, 100));
        let changes = run(&mut alerts, Signal::SuccessShare, values).await;
        assert_eq!(changes, [(40, Level::Warning), (100, Level::Critical), (190, Level::Fine)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_swings_around_its_threshold_changes_nothing() {
        let mut alerts = Alerts::new(Rules::default());
        let swings = |a: f64, b: f64| repeat(0.0, 600).enumerate().map(move |(n, _)| if n % 2 == 0 { a } else { b });
        assert_eq!(run(&mut alerts, Signal::LatencyP95, swings(4.1, 3.9)).await, []);
        assert_eq!(run(&mut alerts, Signal::LatencyP95, repeat(4.1, 60)).await, [(30, Level::Warning)]);
        // Back, but by less than the margin of a twentieth.
        assert_eq!(run(&mut alerts, Signal::LatencyP95, repeat(3.9, 600)).await, []);
        assert_eq!(run(&mut alerts, Signal::LatencyP95, repeat(3.7, 100)).await, [(60, Level::Fine)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_measured_changes_nothing() {
        let mut alerts = Alerts::new(Rules::default());
        run(&mut alerts, Signal::InvalidShare, repeat(0.1, 25)).await;
        alerts.look(&[Measurement::new(Signal::InvalidShare, 0.1, 3)]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(run(&mut alerts, Signal::InvalidShare, repeat(0.1, 60)).await, [(30, Level::Warning)]);
        alerts.look(&[]);
        tokio::time::advance(Duration::from_secs(600)).await;
        let firing = alerts.firing();
        assert_eq!((firing.len(), firing[0].level, firing[0].value), (1, Level::Warning, 0.1));
        assert!(firing[0].lasts > Duration::from_secs(600));
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_told_in_words() {
        let mut alerts = Alerts::new(Rules::default());
        let mut told = Vec::new();
        for value in [101.0, 101.0, 60.0, 60.0, 1.0, 1.0] {
            let measurement = Measurement::new(Signal::QueueDepth, value, 1).of("http://a/v1");
            told.extend(alerts.look(&[measurement]).iter().map(ToString::to_string));
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        let expected = [
            "critical: queue-depth of http://a/v1 is 101, above 100",
            "warning: queue-depth of http://a/v1 is 60, again below 100",
            "fine: queue-depth of http://a/v1 is 1, again below 50",
        ];
        assert_eq!(told, expected);
    }
}
