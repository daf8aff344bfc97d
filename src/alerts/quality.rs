//! The quality of labels while a run goes, without anybody who looks at them: how far their mix has moved from a baseline,
//! and whether items with known labels still get them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::signal::{Measurement, Signal};
use crate::outcome::Outcome;
use crate::taxonomy::CategoryId;

/// How often each label was given.
///
/// It is saved and loaded with serde, as an object of labels and counts.
///
/// ```
/// use slugline::alerts::{Mix, distance};
///
/// let (mut then, mut now) = (Mix::default(), Mix::default());
/// (0..50).for_each(|n| then.add(if n < 25 { "sport" } else { "politics" }));
/// (0..50).for_each(|n| now.add(if n < 40 { "sport" } else { "politics" }));
/// assert!((distance(&then, &now) - 0.3).abs() < 1e-9);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mix(BTreeMap<String, u64>);

impl Mix {
    /// Counts a label.
    pub fn add(&mut self, label: &str) {
        match self.0.get_mut(label) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(label.to_owned(), 1);
            }
        }
    }

    /// The labels that were counted.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn remove(&mut self, label: &str) {
        if let Some(count) = self.0.get_mut(label) {
            *count = count.saturating_sub(1);
        }
    }
}

/// How far two mixes of labels are apart, 0 to 1: the total variation distance, `½ Σ |p − q|`, which is the share of items
/// that would need another label for the mixes to be equal (Levin, Peres and Wilmer, *Markov Chains and Mixing Times*, 2009,
/// chapter 4).
pub fn distance(one: &Mix, other: &Mix) -> f64 {
    shares(one, other).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
}

/// What the distance would be in the mean if both were samples of the same mix: `½ Σ √(2 r (1−r) (1/m + 1/n) / π)`, with
/// `r` the shares of both together, from the mean absolute deviation of the normal distribution, `σ √(2/π)`.
fn distance_by_chance(one: &Mix, other: &Mix) -> f64 {
    let (m, n) = (one.total().max(1) as f64, other.total().max(1) as f64);
    let deviation = |(p, q): (f64, f64)| {
        let r = (p * m + q * n) / (m + n);
        (2.0 * r * (1.0 - r).max(0.0) * (1.0 / m + 1.0 / n) / std::f64::consts::PI).sqrt()
    };
    shares(one, other).map(deviation).sum::<f64>() / 2.0
}

/// The shares of each label in both.
fn shares<'a>(one: &'a Mix, other: &'a Mix) -> impl Iterator<Item = (f64, f64)> + 'a {
    let only_in_other = other.0.keys().filter(|label| !one.0.contains_key(*label));
    let totals = (one.total().max(1) as f64, other.total().max(1) as f64);
    let count = |mix: &Mix, label: &String| mix.0.get(label).copied().unwrap_or(0) as f64;
    one.0.keys().chain(only_in_other).map(move |label| (count(one, label) / totals.0, count(other, label) / totals.1))
}

/// Watches the outcomes of a run for [`Signal::LabelDrift`] and [`Signal::CanaryAccuracy`].
///
/// Defaults: the last 500 items of each source, the last 100 canaries.
///
/// **Drift.** The mix of the last labels of a source against its baseline, by [`distance`], less what chance alone would
/// make of so few items, so that a small source does not cry wolf. Sources without a baseline are not watched. A baseline
/// is learned from a run that was good: with [`learn`](Self::learn) on all of its outcomes, then saved.
///
/// **Canaries.** Items with known labels that the caller mixes into the stream. Only those that were asked count: a text that
/// the run or its ledger has seen before is answered from memory, so give each canary a text of its own, and rotate them.
///
/// ```
/// # #[cfg(feature = "testing")] {
/// # use slugline::testing::SimulatedServer;
/// use slugline::alerts::{Quality, Signal};
/// # use slugline::{Categorizer, NewsItem, Taxonomy};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let server = SimulatedServer::builder().start().await?;
/// # let taxonomy = Taxonomy::load("categories/newsroom.toml")?;
/// # let categorizer = Categorizer::builder(taxonomy).endpoint(server.base_url()).model("simulated").build()?;
/// let mut quality = Quality::new().canary("canary-1", "sport");
/// let items = [NewsItem::new("canary-1", "Late goal wins the cup", "The club won both matches.")];
/// for outcome in categorizer.categorize(items).await.outcomes {
///     quality.observe(Some("wire"), &outcome);
/// }
/// assert!(quality.measurements().iter().any(|of| of.signal == Signal::CanaryAccuracy));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Quality {
    baseline: BTreeMap<String, Mix>,
    recent: BTreeMap<String, Recent>,
    window_items: usize,
    canaries: HashMap<String, String>,
    canaries_right: VecDeque<bool>,
}

/// The last labels of a source.
#[derive(Clone, Debug, Default)]
struct Recent {
    labels: VecDeque<CategoryId>,
    mix: Mix,
}

const DEFAULT_WINDOW_ITEMS: usize = 500;
const WINDOW_CANARIES: usize = 100;

impl Default for Quality {
    fn default() -> Self {
        Self::new()
    }
}

impl Quality {
    /// Watches nothing yet.
    pub fn new() -> Self {
        Self {
            baseline: BTreeMap::new(),
            recent: BTreeMap::new(),
            window_items: DEFAULT_WINDOW_ITEMS,
            canaries: HashMap::new(),
            canaries_right: VecDeque::new(),
        }
    }

    /// The mix of labels that each source should have.
    #[must_use]
    pub fn baseline(mut self, sources: impl IntoIterator<Item = (String, Mix)>) -> Self {
        self.baseline.extend(sources);
        self
    }

    /// An item with a known label, by its id.
    #[must_use]
    pub fn canary(mut self, id: impl Into<String>, label: impl Into<String>) -> Self {
        self.canaries.insert(id.into(), label.into());
        self
    }

    /// How many of the last items of a source are compared with its baseline, at least 1. Default: 500.
    #[must_use]
    pub fn window_items(mut self, items: usize) -> Self {
        self.window_items = items.max(1);
        self
    }

    /// Takes an outcome of an item of this source into account. Items without a source are watched for canaries alone.
    pub fn observe(&mut self, source: Option<&str>, outcome: &Outcome) {
        let assignment = outcome.result.as_ref().ok();
        if let Some(label) = self.canaries.get(&outcome.id) {
            let was_asked = assignment.is_none_or(|of| of.origin.duplicate_of.is_none() && !of.origin.from_ledger);
            if was_asked {
                self.canaries_right.push_back(assignment.is_some_and(|of| of.category.as_str() == label));
                self.canaries_right.drain(..self.canaries_right.len().saturating_sub(WINDOW_CANARIES));
            }
            return;
        }
        let (Some(assignment), Some(source)) = (assignment, source) else { return };
        if !self.baseline.contains_key(source) {
            return;
        }
        let recent = self.recent.entry(source.to_owned()).or_default();
        recent.mix.add(assignment.category.as_str());
        recent.labels.push_back(assignment.category.clone());
        if recent.labels.len() > self.window_items
            && let Some(oldest) = recent.labels.pop_front()
        {
            recent.mix.remove(oldest.as_str());
        }
    }

    /// Takes an outcome into a baseline that is being learned. Canaries are left out.
    pub fn learn(&mut self, source: &str, outcome: &Outcome) {
        if self.canaries.contains_key(&outcome.id) {
            return;
        }
        if let Ok(assignment) = &outcome.result {
            self.baseline.entry(source.to_owned()).or_default().add(assignment.category.as_str());
        }
    }

    /// The mix of labels of each source that is held against the last ones, to be saved.
    pub fn baselines(&self) -> &BTreeMap<String, Mix> {
        &self.baseline
    }

    /// The drift of each source that has been seen, and the accuracy of the canaries.
    pub fn measurements(&self) -> Vec<Measurement> {
        let drift = self.recent.iter().filter_map(|(source, recent)| {
            let baseline = self.baseline.get(source)?;
            let value = (distance(baseline, &recent.mix) - distance_by_chance(baseline, &recent.mix)).max(0.0);
            Some(Measurement::new(Signal::LabelDrift, value, recent.labels.len() as u64).of(source.as_str()))
        });
        let asked = self.canaries_right.len();
        let right = self.canaries_right.iter().filter(|right| **right).count();
        let accuracy =
            (asked > 0).then(|| Measurement::new(Signal::CanaryAccuracy, right as f64 / asked as f64, asked as u64));
        drift.chain(accuracy).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::assignment;

    fn outcome(id: &str, label: &str) -> Outcome {
        Outcome { id: id.into(), index: 0, result: Ok(assignment(&[(label.into(), 1.0)], 1, 1)), path: None }
    }

    fn mix(counts: &[(&str, u64)]) -> Mix {
        Mix(counts.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect())
    }

    #[test]
    fn the_distance_is_that_of_the_book() {
        assert!((distance(&mix(&[("a", 10), ("b", 10)]), &mix(&[("a", 30), ("c", 10)])) - 0.5).abs() < 1e-9);
        let is = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
        assert!(is(distance(&mix(&[("a", 1)]), &mix(&[("b", 5)])), 1.0));
        assert!(is(distance(&mix(&[("a", 1), ("b", 0)]), &mix(&[("a", 9)])), 0.0));
        assert!(is(distance(&Mix::default(), &Mix::default()), 0.0));
        let back: Mix = serde_json::from_str(&serde_json::to_string(&mix(&[("a", 3)])).unwrap()).unwrap();
        assert_eq!(back, mix(&[("a", 3)]));
    }

    /// Draws so many labels of even shares, and gives the mean of distance and expectation over many draws.
    #[test]
    fn what_chance_makes_is_what_is_expected_of_it() {
        let mut random = fastrand::Rng::with_seed(1);
        let labels = ["a", "b", "c", "d", "e"];
        let mut draw = |count: usize| {
            let mut mix = Mix::default();
            (0..count).for_each(|_| mix.add(labels[random.usize(..5)]));
            mix
        };
        let (mut found, mut expected) = (0.0, 0.0);
        for _ in 0..300 {
            let (one, other) = (draw(400), draw(50));
            found += distance(&one, &other) / 300.0;
            expected += distance_by_chance(&one, &other) / 300.0;
        }
        assert!((found - expected).abs() < 0.1 * expected, "{found} {expected}");
    }

    #[test]
    fn drift_is_that_of_the_last_items_of_a_source_with_a_baseline() {
        let mut quality = Quality::new().window_items(100);
        (0..1_000).for_each(|n| quality.learn("wire", &outcome("x", if n % 2 == 0 { "a" } else { "b" })));
        let drift = |quality: &Quality| quality.measurements().iter().map(|of| of.value).next();
        assert_eq!(drift(&quality), None);
        (0..100).for_each(|n| quality.observe(Some("wire"), &outcome("x", if n % 2 == 0 { "a" } else { "b" })));
        assert_eq!(drift(&quality), Some(0.0));
        (0..100).for_each(|_| quality.observe(Some("wire"), &outcome("x", "a")));
        (0..100).for_each(|_| quality.observe(Some("blog"), &outcome("x", "a")));
        (0..100).for_each(|_| quality.observe(None, &outcome("x", "a")));
        let found = quality.measurements();
        assert_eq!((found.len(), found[0].subject.as_deref(), found[0].samples), (1, Some("wire"), 100));
        assert!(found[0].value > 0.4 && found[0].value <= 0.5, "{}", found[0].value);
    }

    #[test]
    fn canaries_count_where_they_were_asked() {
        let mut quality = Quality::new().canary("c", "a").baseline([("wire".to_owned(), mix(&[("a", 9)]))]);
        quality.observe(Some("wire"), &outcome("c", "a"));
        quality.observe(Some("wire"), &outcome("c", "b"));
        let mut copy = outcome("c", "b");
        copy.result.as_mut().unwrap().origin.duplicate_of = Some("c0".into());
        quality.observe(Some("wire"), &copy);
        let error = crate::ItemError::of(crate::ItemErrorKind::Timeout);
        quality.observe(None, &Outcome { id: "c".into(), index: 0, result: Err(error), path: None });
        let found = quality.measurements();
        assert_eq!((found.len(), found[0].signal, found[0].samples), (1, Signal::CanaryAccuracy, 3));
        assert!((found[0].value - 1.0 / 3.0).abs() < 1e-9);
    }
}
