//! Two settings over the same items.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::item::GradedItem;

/// A comparison of two settings item by item, which sees much smaller differences than two accuracies side by side.
///
/// It takes the items for independent of each other. Those of one request are not quite, so for packs the interval is a
/// little too narrow.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Paired {
    /// Items that both settings were asked.
    pub items: u64,
    /// Right in both.
    pub both: u64,
    /// Right in the first alone.
    pub only_first: u64,
    /// Right in the second alone.
    pub only_second: u64,
    /// Right in neither.
    pub neither: u64,
    /// The accuracy of the second minus that of the first, on these items; 0 without items.
    pub difference: f64,
    /// The interval of the difference: method 10 of Newcombe, *Improved confidence intervals for the difference between
    /// binomial proportions based on paired data*, Statistics in Medicine 17, 1998.
    pub interval: Interval,
    /// How probable it is that chance alone distributes the items which only one setting got right at least as unevenly: the
    /// exact test of McNemar, *Note on the sampling error of the difference between correlated proportions*, 1947, two-sided,
    /// `min(1, 2 · P(X ≤ min(only_first, only_second)))` with `X` binomial of `only_first + only_second` halves.
    pub p_value: f64,
}

impl Paired {
    /// Compares the items that both settings were asked, found by their [`index`](GradedItem::index). Failed items are
    /// wrong.
    pub fn new(first: &[GradedItem], second: &[GradedItem]) -> Self {
        let first: HashMap<u64, bool> = first.iter().map(|item| (item.index, item.is_correct())).collect();
        let second: HashMap<u64, bool> = second.iter().map(|item| (item.index, item.is_correct())).collect();
        let count = |in_first: bool, in_second: bool| {
            let is_such = |(index, is_right): &(&u64, &bool)| {
                **is_right == in_first && second.get(index).is_some_and(|is_right| *is_right == in_second)
            };
            first.iter().filter(is_such).count() as u64
        };
        Self::of_counts(count(true, true), count(true, false), count(false, true), count(false, false))
    }

    /// Compares by the numbers of items that are right in both, in the first alone, in the second alone, and in neither.
    ///
    /// ```
    /// use slugline::evaluate::Paired;
    ///
    /// let paired = Paired::of_counts(59, 16, 6, 80);
    /// let Paired { difference, interval, p_value, .. } = paired;
    /// assert_eq!(format!("{difference:.4}, {:.4} to {:.4}, p {p_value:.4}", interval.low, interval.high),
    ///     "-0.0621, -0.1186 to -0.0046, p 0.0525");
    /// ```
    pub fn of_counts(both: u64, only_first: u64, only_second: u64, neither: u64) -> Self {
        let items = both + only_first + only_second + neither;
        let difference = if items == 0 { 0.0 } else { (only_second as f64 - only_first as f64) / items as f64 };
        Self {
            items,
            both,
            only_first,
            only_second,
            neither,
            difference,
            interval: newcombe(both, only_first, only_second, neither),
            p_value: mcnemar(only_first, only_second),
        }
    }
}

/// The interval of `second − first` from the Wilson intervals of both, brought together by their correlation. Its
/// numerator is made smaller by half the items where it is positive, as a correction for continuity.
fn newcombe(both: u64, only_first: u64, only_second: u64, neither: u64) -> Interval {
    let items = both + only_first + only_second + neither;
    if items == 0 {
        return Interval { low: -1.0, high: 1.0 };
    }
    let n = items as f64;
    let (first, second) = (both + only_first, both + only_second);
    let (p1, p2) = (first as f64 / n, second as f64 / n);
    let (w1, w2) = (Interval::wilson(first, items), Interval::wilson(second, items));
    let product = [first, items - first, second, items - second].iter().map(|count| *count as f64).product::<f64>();
    let cross = both as f64 * neither as f64 - only_first as f64 * only_second as f64;
    let corrected = if cross > 0.0 { (cross - n / 2.0).max(0.0) } else { cross };
    let phi = if product > 0.0 { corrected / product.sqrt() } else { 0.0 };
    // Never negative but for rounding, since |phi| ≤ 1.
    let joined = |a: f64, b: f64| (a * a - 2.0 * phi * a * b + b * b).max(0.0).sqrt();
    let difference = p2 - p1;
    Interval {
        low: (difference - joined(p2 - w2.low, w1.high - p1)).max(-1.0),
        high: (difference + joined(w2.high - p2, p1 - w1.low)).min(1.0),
    }
}

fn mcnemar(only_first: u64, only_second: u64) -> f64 {
    let trials = only_first + only_second;
    // P(X = k) by its logarithm, which does not underflow for thousands of items.
    let mut log = -(trials as f64) * std::f64::consts::LN_2;
    let mut tail = log.exp();
    for k in 1..=only_first.min(only_second) {
        log += ((trials - k + 1) as f64 / k as f64).ln();
        tail += log.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::super::item::Prediction;
    use super::*;

    fn near(found: f64, expected: f64, digits: i32) -> bool {
        (found - expected).abs() < 0.5 * 10_f64.powi(-digits) + 1e-12
    }

    /// Fagerland, Lydersen and Laake, *Recommended tests and confidence intervals for paired binomial proportions*, 2014, and
    /// *The McNemar test for binary matched-pairs data*, 2013: airway reactivity and treatment response; Altman, Machin,
    /// Bryant and Gardner, *Statistics with confidence*, 2000, table 6.2. Their difference is first minus second.
    #[test]
    fn published_examples() {
        let airway = Paired::of_counts(1, 7, 1, 12);
        assert!(near(airway.interval.low, -0.507, 3) && near(airway.interval.high, -0.026, 3), "{airway:?}");
        assert!(near(airway.p_value, 0.0703, 4));
        let response = Paired::of_counts(59, 16, 6, 80);
        assert!(near(response.interval.low, -0.1186, 4) && near(response.interval.high, -0.0046, 4), "{response:?}");
        assert!(near(response.p_value, 0.0525, 4));
        let altman = Paired::of_counts(14, 0, 5, 22);
        assert!(near(altman.difference, 0.122, 3), "{altman:?}");
        assert!(near(altman.interval.low, 0.011, 3) && near(altman.interval.high, 0.226, 3), "{altman:?}");
    }

    /// Agresti, *Categorical data analysis*: approval of the prime minister, 150 against 86 changed their minds.
    #[test]
    fn many_items_do_not_underflow() {
        assert!((mcnemar(86, 150) - 3.716e-5).abs() < 1e-8);
        assert!(mcnemar(5_000, 5_000) > 0.99);
        assert!(mcnemar(0, 5_000) < 1e-300);
    }

    #[test]
    fn settings_that_agree_do_not_differ() {
        for counts in [(5, 0, 0, 5), (0, 0, 0, 0), (7, 0, 0, 0), (0, 0, 0, 7)] {
            let found = Paired::of_counts(counts.0, counts.1, counts.2, counts.3);
            assert_eq!((found.difference, found.p_value), (0.0, 1.0), "{found:?}");
            assert!(found.interval.low <= 0.0 && found.interval.high >= 0.0, "{found:?}");
        }
    }

    #[test]
    fn items_are_matched_by_their_number() {
        let item = |index, given: &str| GradedItem {
            index,
            id: "same".into(),
            truth: "a".into(),
            result: Ok(Prediction::new(given)),
        };
        let first = [item(0, "a"), item(1, "a"), item(2, "b"), item(3, "b")];
        let mut second = [item(4, "a"), item(2, "a"), item(1, "b"), item(0, "a")];
        let found = Paired::new(&first, &second);
        assert_eq!((found.items, found.both, found.only_first, found.only_second, found.neither), (3, 1, 1, 1, 0));
        second[1].result = Err("cut".into());
        assert_eq!(Paired::new(&first, &second).neither, 1);
    }
}
