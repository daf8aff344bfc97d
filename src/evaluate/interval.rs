//! Intervals of proportions.

use serde::{Deserialize, Serialize};

/// The quantile of the normal distribution for 95 %, both sides.
pub(super) const Z_95: f64 = 1.959_963_984_540_054;

/// The same for 99 %.
#[cfg(feature = "embedded")]
pub(crate) const Z_99: f64 = 2.575_829_303_548_901;

/// A 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// The score interval of a proportion of `successes` among `trials` (Wilson, *Probable inference, the law of succession,
    /// and statistical inference*, 1927): `(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)`, `z` = 1.96. It stays within 0
    /// and 1 and holds for few trials, too. Of no trials, it is all of 0 to 1.
    ///
    /// ```
    /// use slugline::evaluate::Interval;
    ///
    /// let interval = Interval::wilson(81, 263);
    /// assert_eq!(format!("{:.4} to {:.4}", interval.low, interval.high), "0.2553 to 0.3662");
    /// ```
    pub fn wilson(successes: u64, trials: u64) -> Self {
        Self::wilson_at(Z_95, successes, trials)
    }

    /// The same for another quantile.
    pub(crate) fn wilson_at(z: f64, successes: u64, trials: u64) -> Self {
        if trials == 0 {
            return Self { low: 0.0, high: 1.0 };
        }
        let n = trials as f64;
        let p = successes.min(trials) as f64 / n;
        let z2 = z * z;
        let center = p + z2 / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        let scale = 1.0 + z2 / n;
        // At 0 and 1 the ends are exact but for rounding.
        Self { low: ((center - half) / scale).max(0.0).min(p), high: ((center + half) / scale).min(1.0).max(p) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_newcombe_1998() {
        // Two-sided confidence intervals for the single proportion, Statistics in Medicine 17, table I, method 3.
        for (successes, trials, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let found = Interval::wilson(successes, trials);
            assert!((found.low - low).abs() < 5e-5 && (found.high - high).abs() < 5e-5, "{found:?}");
        }
    }

    #[test]
    fn the_ends_of_the_scale_and_no_trials() {
        assert_eq!(Interval::wilson(0, 0), Interval { low: 0.0, high: 1.0 });
        assert_eq!((Interval::wilson(0, 7).low, Interval::wilson(7, 7).high), (0.0, 1.0));
    }
}
