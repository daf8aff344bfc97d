//! How many items a setting got right, and which.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::item::GradedItem;
use super::reliability::Reliability;
use crate::error::ItemErrorKind;
use crate::taxonomy::CategoryId;

/// The quality of a setting on a labelled set. Failed items count as wrong everywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Items that were graded.
    pub items: u64,
    /// Items with the right category.
    pub correct: u64,
    /// Items without a category that failed.
    pub failed: u64,
    /// Items without a category since none was as probable as was asked for. They are not right, and not failed.
    #[serde(default)]
    pub below_threshold: u64,
    /// The failed items by the kind of their error.
    pub failures: BTreeMap<String, u64>,
    /// Items whose category is not one of the taxonomy. slugline gives none; they are counted all the same.
    pub outside_taxonomy: u64,
    /// The share of all items with the right category; 0 of no items.
    pub accuracy: f64,
    /// The share of the items that were given a category which have the right one; none if none was given.
    #[serde(default)]
    pub accuracy_of_given: Option<f64>,
    /// The interval of the accuracy, by Wilson's score.
    pub accuracy_interval: Interval,
    /// The mean of the categories' F1, every category counting the same (the "averaged F1" of Opitz and Burst, *Macro F1 and
    /// macro F1*, 2019). Categories that neither are the truth nor were given have no F1 and are left out; 0 if all are.
    pub macro_f1: f64,
    /// Each category, in the order of the taxonomy.
    pub categories: Vec<CategoryMetrics>,
    /// What was given for which truth.
    pub confusion: ConfusionMatrix,
    /// How far confidences can be believed; none where there are none.
    pub reliability: Option<Reliability>,
    /// The share of items with a category that have no confidence; 0 without such items.
    pub share_without_confidence: f64,
}

/// The quality of a setting in one category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CategoryMetrics {
    /// The category.
    pub category: CategoryId,
    /// Items that belong to it.
    pub support: u64,
    /// Items that were given it.
    pub predicted: u64,
    /// Items that were given it rightly.
    pub correct: u64,
    /// The share of the items that were given it which belong to it; none if it was given to no item.
    pub precision: Option<f64>,
    /// The share of the items that belong to it which were given it; none if no item belongs to it.
    pub recall: Option<f64>,
    /// `2 · correct / (support + predicted)`, the harmonic mean of precision and recall; none if there is no such item.
    pub f1: Option<f64>,
}

/// What was given for which truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConfusionMatrix {
    /// The categories, in the order of the taxonomy: of the rows, and of the counts in them.
    pub categories: Vec<CategoryId>,
    /// A row per true category.
    pub rows: Vec<ConfusionRow>,
}

/// What the items of one category were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConfusionRow {
    /// How many were given each category, in the order of the taxonomy.
    pub predicted: Vec<u64>,
    /// How many have no category, for whatever reason.
    pub failed: u64,
    /// How many were given something that is no category.
    pub outside_taxonomy: u64,
}

impl ConfusionRow {
    /// All items of the row.
    pub fn total(&self) -> u64 {
        self.predicted.iter().sum::<u64>() + self.failed + self.outside_taxonomy
    }
}

/// The truth of an item is not a category of the taxonomy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the truth {truth:?} of item {index} is not a category of the taxonomy; match labels before grading")]
pub struct UnknownTruth {
    /// The item's number in the set.
    pub index: u64,
    /// What should be a category.
    pub truth: CategoryId,
}

impl Metrics {
    /// Measures graded items over the categories of a taxonomy, given in its order.
    ///
    /// ```
    /// use slugline::evaluate::{GradedItem, Metrics, Prediction};
    ///
    /// let item = |index, truth: &str, given: &str| GradedItem {
    ///     index,
    ///     id: index.to_string(),
    ///     truth: truth.into(),
    ///     result: Ok(Prediction::new(given)),
    /// };
    /// let items = [item(0, "sport", "sport"), item(1, "sport", "business"), item(2, "business", "business")];
    /// let metrics = Metrics::new(&["sport".into(), "business".into()], &items)?;
    /// assert_eq!(metrics.correct, 2);
    /// assert_eq!(metrics.categories[0].recall, Some(0.5));
    /// # Ok::<(), slugline::evaluate::UnknownTruth>(())
    /// ```
    ///
    /// # Errors
    /// An item's truth is none of the categories.
    pub fn new(categories: &[CategoryId], items: &[GradedItem]) -> Result<Self, UnknownTruth> {
        let confusion = ConfusionMatrix::new(categories, items)?;
        let correct = items.iter().filter(|item| item.is_correct()).count() as u64;
        let mut failures: BTreeMap<String, u64> = BTreeMap::new();
        for error in items.iter().filter_map(|item| item.result.as_ref().err()) {
            *failures.entry(error.clone()).or_default() += 1;
        }
        let below_threshold = failures.remove(ItemErrorKind::BelowThreshold.as_str()).unwrap_or(0);
        let (count, failed) = (items.len() as u64, failures.values().sum::<u64>());
        let given = count - failed - below_threshold;
        let per_category = confusion.categories();
        let f1: Vec<f64> = per_category.iter().filter_map(|category| category.f1).collect();
        let reliability = Reliability::new(items);
        let with_confidence = reliability.as_ref().map_or(0, |reliability| reliability.items);
        Ok(Self {
            items: count,
            correct,
            failed,
            failures,
            below_threshold,
            outside_taxonomy: confusion.rows.iter().map(|row| row.outside_taxonomy).sum(),
            accuracy: share(correct, count).unwrap_or(0.0),
            accuracy_of_given: share(correct, given),
            accuracy_interval: Interval::wilson(correct, count),
            macro_f1: if f1.is_empty() { 0.0 } else { f1.iter().sum::<f64>() / f1.len() as f64 },
            categories: per_category,
            confusion,
            reliability,
            share_without_confidence: share(given - with_confidence, given).unwrap_or(0.0),
        })
    }
}

impl ConfusionMatrix {
    fn new(categories: &[CategoryId], items: &[GradedItem]) -> Result<Self, UnknownTruth> {
        let positions: HashMap<&CategoryId, usize> = categories.iter().zip(0..).collect();
        let blank = ConfusionRow { predicted: vec![0; categories.len()], ..ConfusionRow::default() };
        let mut rows = vec![blank; categories.len()];
        for item in items {
            let unknown = || UnknownTruth { index: item.index, truth: item.truth.clone() };
            let row = &mut rows[*positions.get(&item.truth).ok_or_else(unknown)?];
            match &item.result {
                Ok(prediction) => match positions.get(&prediction.category) {
                    Some(position) => row.predicted[*position] += 1,
                    None => row.outside_taxonomy += 1,
                },
                Err(_) => row.failed += 1,
            }
        }
        Ok(Self { categories: categories.to_vec(), rows })
    }

    fn categories(&self) -> Vec<CategoryMetrics> {
        let metrics = |(position, category): (usize, &CategoryId)| {
            let support = self.rows[position].total();
            let predicted = self.rows.iter().map(|row| row.predicted[position]).sum();
            let correct = self.rows[position].predicted[position];
            CategoryMetrics {
                category: category.clone(),
                support,
                predicted,
                correct,
                precision: share(correct, predicted),
                recall: share(correct, support),
                f1: share(2 * correct, support + predicted),
            }
        };
        self.categories.iter().enumerate().map(metrics).collect()
    }
}

/// A share of a whole; none of nothing.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::super::item::Prediction;
    use super::*;

    fn categories() -> Vec<CategoryId> {
        ["cat", "fish", "hen"].map(CategoryId::from).to_vec()
    }

    fn graded(counts: &[(&str, Result<&str, &str>, usize)]) -> Vec<GradedItem> {
        let of = |&(truth, given, count): &(&str, Result<&str, &str>, usize)| {
            let result = given.map(Prediction::new).map_err(str::to_owned);
            vec![GradedItem { index: 0, id: String::new(), truth: truth.into(), result }; count]
        };
        counts.iter().flat_map(of).collect()
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() < 5e-4
    }

    /// An example that many texts on macro-averages share: 25 animals, 6 cats, 10 fish, 9 hens.
    #[test]
    fn precision_recall_and_f1_of_a_known_matrix() {
        let items = graded(&[
            ("cat", Ok("cat"), 4),
            ("cat", Ok("fish"), 1),
            ("cat", Ok("hen"), 1),
            ("fish", Ok("cat"), 6),
            ("fish", Ok("fish"), 2),
            ("fish", Ok("hen"), 2),
            ("hen", Ok("cat"), 3),
            ("hen", Ok("hen"), 6),
        ]);
        let metrics = Metrics::new(&categories(), &items).unwrap();
        let [cat, fish, hen] = &metrics.categories[..] else { panic!("three categories") };
        for (category, precision, recall, f1) in
            [(cat, 0.308, 0.667, 0.421), (fish, 0.667, 0.200, 0.308), (hen, 0.667, 0.667, 0.667)]
        {
            assert!(close(category.precision.unwrap(), precision), "{category:?}");
            assert!(close(category.recall.unwrap(), recall), "{category:?}");
            assert!(close(category.f1.unwrap(), f1), "{category:?}");
        }
        assert!(close(metrics.macro_f1, 0.465), "{}", metrics.macro_f1);
        assert_eq!((metrics.items, metrics.correct, metrics.accuracy), (25, 12, 0.48));
        assert_eq!(metrics.confusion.rows[1].predicted, [6, 2, 2]);
        assert_eq!((metrics.reliability, metrics.share_without_confidence), (None, 1.0));
    }

    #[test]
    fn failed_items_are_wrong_and_stay_in_their_row() {
        let items =
            graded(&[("cat", Ok("cat"), 2), ("cat", Err("cut"), 1), ("fish", Err("timeout"), 1), ("fish", Ok("x"), 1)]);
        let metrics = Metrics::new(&categories(), &items).unwrap();
        assert_eq!((metrics.accuracy, metrics.failed, metrics.outside_taxonomy), (0.4, 2, 1));
        assert_eq!(metrics.failures, BTreeMap::from([("cut".to_owned(), 1), ("timeout".to_owned(), 1)]));
        let [cat, fish, _] = &metrics.confusion.rows[..] else { panic!("three rows") };
        assert_eq!((cat.failed, fish.failed, fish.outside_taxonomy, fish.total()), (1, 1, 1, 2));
        assert!(close(metrics.categories[0].recall.unwrap(), 0.667));
        assert_eq!((metrics.categories[1].precision, metrics.categories[1].recall), (None, Some(0.0)));
    }

    #[test]
    fn a_category_without_items_has_no_figures_and_does_not_count() {
        let metrics = Metrics::new(&categories(), &graded(&[("cat", Ok("cat"), 3)])).unwrap();
        assert_eq!((metrics.macro_f1, metrics.accuracy), (1.0, 1.0));
        let hen = &metrics.categories[2];
        assert_eq!((hen.support, hen.precision, hen.recall, hen.f1), (0, None, None, None));
    }

    #[test]
    fn nothing_graded_is_no_accuracy() {
        let metrics = Metrics::new(&categories(), &[]).unwrap();
        assert_eq!((metrics.accuracy, metrics.macro_f1, metrics.share_without_confidence), (0.0, 0.0, 0.0));
        assert_eq!(metrics.accuracy_interval, Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn a_truth_of_no_category_is_refused() {
        let error = Metrics::new(&categories(), &graded(&[("dog", Ok("cat"), 1)])).unwrap_err();
        assert_eq!(error.truth.as_str(), "dog");
    }
}
