//! Whether confidences keep what they promise.

use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::item::GradedItem;

/// How many bins a reliability diagram has.
pub const RELIABILITY_BINS: usize = 10;

/// How far confidences can be believed: of the items with confidence c, a share c should be right.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reliability {
    /// Items that have a category and its confidence. All that follows is of these.
    pub items: u64,
    /// The share of them that is right.
    pub accuracy: f64,
    /// The mean of their confidences.
    pub mean_confidence: f64,
    /// The expected calibration error: with ten bins of equal width, `Σ |B|/n · |accuracy(B) − confidence(B)|` over the bins
    /// B (Naeini, Cooper and Hauskrecht, *Obtaining well calibrated probabilities using Bayesian binning*, 2015; in this
    /// form Guo, Pleiss, Sun and Weinberger, *On calibration of modern neural networks*, 2017). 0 is perfect.
    pub expected_calibration_error: f64,
    /// The Brier score of "the category is right" (Brier, 1950): the mean of `(confidence − right)²`, `right` being 0 or 1. 0
    /// is perfect; always saying 0.5 gives 0.25.
    pub brier: f64,
    /// The bins, ten of equal width from 0 to 1.
    pub bins: Vec<ReliabilityBin>,
}

/// The items with a confidence above `low` up to `high`; the first bin has those with 0, too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ReliabilityBin {
    /// The lower end, not part of the bin.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How many items are in it.
    pub items: u64,
    /// How many of them are right.
    pub correct: u64,
    /// The mean of their confidences; none without items.
    pub mean_confidence: Option<f64>,
    /// The share that is right; none without items.
    pub accuracy: Option<f64>,
}

impl ReliabilityBin {
    /// The interval of the bin's accuracy.
    pub fn interval(&self) -> Interval {
        Interval::wilson(self.correct, self.items)
    }
}

impl Reliability {
    /// Measures it; none if no item has a confidence.
    pub fn new(items: &[GradedItem]) -> Option<Self> {
        let known: Vec<(f64, bool)> =
            items.iter().filter_map(|item| Some((item.confidence()?, item.is_correct()))).collect();
        if known.is_empty() {
            return None;
        }
        let n = known.len() as f64;
        let mean = |value: &dyn Fn(&(f64, bool)) -> f64| known.iter().map(value).sum::<f64>() / n;
        let bins: Vec<_> = (0..RELIABILITY_BINS).map(|number| bin(number, &known)).collect();
        Some(Self {
            items: known.len() as u64,
            accuracy: mean(&|(_, is_correct)| f64::from(u8::from(*is_correct))),
            mean_confidence: mean(&|(confidence, _)| *confidence),
            expected_calibration_error: bins.iter().map(|bin| bin.items as f64 / n * gap(bin)).sum(),
            brier: mean(&|(confidence, is_correct)| (confidence - f64::from(u8::from(*is_correct))).powi(2)),
            bins,
        })
    }
}

fn bin(number: usize, known: &[(f64, bool)]) -> ReliabilityBin {
    let within: Vec<_> = known.iter().filter(|(confidence, _)| bin_of(*confidence) == number).collect();
    let items = within.len() as u64;
    let correct = within.iter().filter(|(_, is_correct)| *is_correct).count() as u64;
    let of_items = |sum: f64| (items > 0).then(|| sum / items as f64);
    ReliabilityBin {
        low: number as f64 / RELIABILITY_BINS as f64,
        high: (number + 1) as f64 / RELIABILITY_BINS as f64,
        items,
        correct,
        mean_confidence: of_items(within.iter().map(|(confidence, _)| confidence).sum()),
        accuracy: of_items(correct as f64),
    }
}

fn bin_of(confidence: f64) -> usize {
    let above = (confidence * RELIABILITY_BINS as f64).ceil() as usize;
    above.saturating_sub(1).min(RELIABILITY_BINS - 1)
}

fn gap(bin: &ReliabilityBin) -> f64 {
    bin.accuracy.zip(bin.mean_confidence).map_or(0.0, |(accuracy, confidence)| (accuracy - confidence).abs())
}

#[cfg(test)]
mod tests {
    use super::super::item::Prediction;
    use super::*;

    fn items(of: &[(f32, bool)]) -> Vec<GradedItem> {
        let item = |&(confidence, is_correct): &(f32, bool)| {
            let prediction = Prediction { confidence: Some(confidence), ..Prediction::new("a") };
            let truth = if is_correct { "a" } else { "b" };
            GradedItem { index: 0, id: String::new(), truth: truth.into(), result: Ok(prediction) }
        };
        of.iter().map(item).collect()
    }

    #[test]
    fn the_error_is_the_weighted_gap_of_the_bins() {
        // Bin (0.5, 0.75]: not a bin. Bins of tenths: 0.625 and 0.6875 in the seventh, mean 0.65625, half right; 0.9375 in
        // the tenth, three times, all right; 0.25 in the third, wrong.
        let sample =
            items(&[(0.625, true), (0.6875, false), (0.9375, true), (0.9375, true), (0.9375, true), (0.25, false)]);
        let found = Reliability::new(&sample).unwrap();
        let expected = 2.0 / 6.0 * 0.156_25 + 3.0 / 6.0 * 0.0625 + 1.0 / 6.0 * 0.25;
        assert!((found.expected_calibration_error - expected).abs() < 1e-12, "{found:?}");
        let brier = (0.375_f64.powi(2) + 0.6875_f64.powi(2) + 3.0 * 0.0625_f64.powi(2) + 0.0625) / 6.0;
        assert!((found.brier - brier).abs() < 1e-12);
        assert_eq!((found.items, found.bins[6].items, found.bins[6].correct), (6, 2, 1));
        assert_eq!((found.bins[9].mean_confidence, found.bins[9].accuracy), (Some(0.9375), Some(1.0)));
        assert_eq!((found.bins[0].accuracy, found.bins[0].items), (None, 0));
        assert!((found.mean_confidence - 4.375 / 6.0).abs() < 1e-12 && (found.accuracy - 4.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn bins_take_their_upper_end() {
        for (confidence, bin) in [(0.0, 0), (0.05, 0), (0.5, 4), (0.500_001, 5), (0.95, 9), (1.0, 9)] {
            assert_eq!(bin_of(confidence), bin, "{confidence}");
        }
    }

    #[test]
    fn without_confidence_there_is_nothing_to_measure() {
        let mut none = items(&[(0.5, true)]);
        none[0].result = Ok(Prediction::new("a"));
        assert_eq!(Reliability::new(&none), None);
        assert_eq!(Reliability::new(&[]), None);
    }
}
