//! Figures where items have several categories.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::ItemErrorKind;
use crate::outcome::Outcome;
use crate::taxonomy::CategoryId;

/// An item with its true categories and those that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GradedSet {
    /// The categories that are right.
    pub truth: BTreeSet<CategoryId>,
    /// The categories that were given, or the kind of the error (see [`ItemErrorKind::as_str`](crate::ItemErrorKind::as_str))
    /// if none was.
    pub given: Result<BTreeSet<CategoryId>, String>,
}

impl GradedSet {
    /// Grades an outcome by all of its categories.
    pub fn new(outcome: &Outcome, truth: BTreeSet<CategoryId>) -> Self {
        let given = outcome.result.as_ref().map(|assignment| {
            let further = assignment.secondary.iter().map(|(category, _)| category.clone());
            std::iter::once(assignment.category.clone()).chain(further).collect()
        });
        Self { truth, given: given.map_err(|error| error.kind.as_str().to_owned()) }
    }

    fn is_error(&self, kind: ItemErrorKind) -> bool {
        self.given.as_ref().is_err_and(|error| error == kind.as_str())
    }
}

/// The quality of several labels. An item without a category, failed or below the threshold, has none of its categories and is
/// wrong everywhere; an item without true categories that was given none counts as right. Items that were not attempted are
/// part of no figure.
///
/// With `t` the true categories of an item and `g` the given ones: *exact match* is the share of items with `t = g`, *Jaccard*
/// the mean of `|t ∩ g| / |t ∪ g|` (Tsoumakas and Katakis, *Multi-label classification*, 2007, who call it accuracy). Micro
/// figures are over all pairs of item and category, macro-F1 is the mean over categories that are in any `t` or `g`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SeveralMetrics {
    /// Items that were graded.
    pub items: u64,
    /// Items without a category since they failed.
    pub failed: u64,
    /// Items without a category since none was probable enough.
    pub below_threshold: u64,
    /// The mean number of true categories of an item.
    pub true_labels_per_item: f64,
    /// The mean number of given categories of an item.
    pub given_labels_per_item: f64,
    /// The share of items with exactly their categories.
    pub exact_match: f64,
    /// The mean of the shares of common categories.
    pub jaccard: f64,
    /// The share of given categories that are right; none if none was given.
    pub micro_precision: Option<f64>,
    /// The share of true categories that were given; none if there is none.
    pub micro_recall: Option<f64>,
    /// `2 · right / (true + given)` over all pairs of item and category; none if there is none.
    pub micro_f1: Option<f64>,
    /// The mean of the categories' F1; 0 without any.
    pub macro_f1: f64,
}

impl SeveralMetrics {
    /// Measures graded items.
    ///
    /// ```
    /// use slugline::evaluate::{GradedSet, SeveralMetrics};
    ///
    /// let set = |ids: &[&str]| ids.iter().map(|id| (*id).into()).collect();
    /// let item = GradedSet { truth: set(&["sport", "health"]), given: Ok(set(&["sport", "arts"])) };
    /// let metrics = SeveralMetrics::new(&[item]);
    /// assert_eq!((metrics.exact_match, metrics.micro_f1), (0.0, Some(0.5)));
    /// assert!((metrics.jaccard - 1.0 / 3.0).abs() < 1e-9);
    /// ```
    pub fn new(items: &[GradedSet]) -> Self {
        let nothing = BTreeSet::new();
        let items: Vec<_> = items.iter().filter(|item| !item.is_error(ItemErrorKind::NotAttempted)).collect();
        // Of each category: true, given, right.
        let mut counts: BTreeMap<&CategoryId, [u64; 3]> = BTreeMap::new();
        let (mut exact, mut jaccard) = (0_u64, 0.0);
        for item in &items {
            let given = item.given.as_ref().unwrap_or(&nothing);
            for category in item.truth.union(given) {
                let [truth, predicted, right] = counts.entry(category).or_default();
                let is_in = (item.truth.contains(category), given.contains(category));
                *truth += u64::from(is_in.0);
                *predicted += u64::from(is_in.1);
                *right += u64::from(is_in == (true, true));
            }
            let all = item.truth.union(given).count();
            let common = item.truth.intersection(given).count();
            let is_failed = item.given.is_err();
            exact += u64::from(!is_failed && item.truth == *given);
            jaccard += match (is_failed, all) {
                (true, _) => 0.0,
                (false, 0) => 1.0,
                (false, all) => common as f64 / all as f64,
            };
        }
        let sum = |which: usize| counts.values().map(|count| count[which]).sum::<u64>();
        let (truth, given, right) = (sum(0), sum(1), sum(2));
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let f1 = |[truth, given, right]: &[u64; 3]| 2.0 * *right as f64 / (truth + given) as f64;
        let count = items.len() as u64;
        let without = items.iter().filter(|item| item.given.is_err()).count() as u64;
        let below_threshold = items.iter().filter(|item| item.is_error(ItemErrorKind::BelowThreshold)).count() as u64;
        let per_item = |sum: f64| if count > 0 { sum / count as f64 } else { 0.0 };
        Self {
            items: count,
            failed: without - below_threshold,
            below_threshold,
            true_labels_per_item: per_item(truth as f64),
            given_labels_per_item: per_item(given as f64),
            exact_match: per_item(exact as f64),
            jaccard: per_item(jaccard),
            micro_precision: share(right, given),
            micro_recall: share(right, truth),
            micro_f1: share(2 * right, truth + given),
            macro_f1: if counts.is_empty() { 0.0 } else { counts.values().map(f1).sum::<f64>() / counts.len() as f64 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(truth: &[&str], given: Result<&[&str], &str>) -> GradedSet {
        let set = |ids: &[&str]| ids.iter().map(|id| CategoryId::from(*id)).collect();
        GradedSet { truth: set(truth), given: given.map(set).map_err(str::to_owned) }
    }

    #[test]
    fn the_figures_of_a_small_set_are_those_by_hand() {
        let metrics = SeveralMetrics::new(&[
            item(&["a", "b"], Ok(&["a", "b"])),
            item(&["a"], Ok(&["a", "c"])),
            item(&["b", "c"], Ok(&["b"])),
            item(&["c"], Err("cut")),
            item(&["a"], Err("not-attempted")),
        ]);
        assert_eq!((metrics.items, metrics.failed, metrics.exact_match), (4, 1, 0.25));
        assert!((metrics.jaccard - (1.0 + 0.5 + 0.5) / 4.0).abs() < 1e-9);
        // Right: a 2, b 2, c 0; true: a 2, b 2, c 2; given: a 2, b 2, c 1.
        assert_eq!((metrics.micro_precision, metrics.micro_recall), (Some(4.0 / 5.0), Some(4.0 / 6.0)));
        assert_eq!(metrics.micro_f1, Some(8.0 / 11.0));
        assert!((metrics.macro_f1 - (1.0 + 1.0 + 0.0) / 3.0).abs() < 1e-9);
        assert_eq!((metrics.true_labels_per_item, metrics.given_labels_per_item), (1.5, 1.25));
    }

    #[test]
    fn an_item_below_the_threshold_did_not_fail() {
        let metrics = SeveralMetrics::new(&[item(&["a"], Err("below-threshold")), item(&["a"], Err("cut"))]);
        assert_eq!((metrics.items, metrics.failed, metrics.below_threshold, metrics.jaccard), (2, 1, 1, 0.0));
    }

    #[test]
    fn no_items_have_no_figures() {
        let metrics = SeveralMetrics::new(&[]);
        assert_eq!((metrics.exact_match, metrics.micro_f1, metrics.macro_f1), (0.0, None, 0.0));
    }
}
