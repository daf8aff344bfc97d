//! How sure a tier must be to settle an item, from items that were asked at both.

use crate::evaluate::{Interval, Z_99};

/// The fewest items above a threshold that say anything of it.
pub(super) const LEAST_ABOVE: usize = 50;

/// An item that was asked at both: how sure the tier was, and whether the LLM said the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pair {
    pub(super) confidence: f32,
    pub(super) agrees: bool,
}

/// A threshold, and what was seen above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) confidence: f32,
    pub(super) agreed: u64,
    pub(super) of: u64,
}

/// The lowest threshold above which the agreement reaches the target with 95 % confidence; none where no threshold is that good.
///
/// It is the best of many on these pairs, so the lower end of the Wilson interval of each must reach it at 99 %: of tiers whose
/// agreement is just the target everywhere, 2 to 5 % pass then, and 11 to 20 % by 95 % each (simulated, 250 to 2,000 pairs).
pub(super) fn lowest(pairs: impl IntoIterator<Item = Pair>, target: f64) -> Option<Found> {
    let mut pairs: Vec<Pair> = pairs.into_iter().collect();
    pairs.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let (mut agreed, mut found) = (0, None);
    for (count, pair) in (1..).zip(&pairs) {
        agreed += u64::from(pair.agrees);
        // Equal confidences are on one side.
        let is_edge = pairs.get(count).is_none_or(|next| next.confidence < pair.confidence);
        if is_edge && count >= LEAST_ABOVE && Interval::wilson_at(Z_99, agreed, count as u64).low >= target {
            found = Some(Found { confidence: pair.confidence, agreed, of: count as u64 });
        }
    }
    found
}

/// The confidence that this share of the items reach.
pub(super) fn reached_by(confidences: impl IntoIterator<Item = f32>, share: f64) -> Option<f32> {
    let mut confidences: Vec<f32> = confidences.into_iter().collect();
    confidences.sort_by(|a, b| b.total_cmp(a));
    let count = (share * confidences.len() as f64).round() as usize;
    confidences.get(count.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always right from .8 on, half right below.
    fn pairs(count: usize) -> Vec<Pair> {
        let pair = |n: usize| {
            let confidence = n as f32 / count as f32;
            Pair { confidence, agrees: confidence >= 0.8 || n.is_multiple_of(2) }
        };
        (0..count).map(pair).collect()
    }

    #[test]
    fn the_lowest_threshold_with_the_wanted_agreement_is_found() {
        let found = lowest(pairs(1_000), 0.95).unwrap();
        assert!((0.76..0.8).contains(&found.confidence), "{found:?}");
        assert!(Interval::wilson(found.agreed, found.of).low >= 0.95);
        assert!(lowest(pairs(1_000), 0.5).unwrap().confidence < found.confidence);
        assert_eq!(lowest(pairs(1_000), 0.999), None, "200 items prove no 99.9 %");
    }

    #[test]
    fn few_items_prove_nothing() {
        let sure = |count| vec![Pair { confidence: 0.9, agrees: true }; count];
        assert_eq!(lowest(sure(49), 0.5), None);
        assert!((lowest(sure(50), 0.85).unwrap().confidence - 0.9).abs() < 1e-6);
        assert_eq!(lowest([], 0.0), None);
    }

    #[test]
    fn a_tier_that_is_only_just_not_good_enough_seldom_passes() {
        let is_found = |seed: &u64| {
            let mut random = fastrand::Rng::with_seed(*seed);
            let pair = |_| Pair { confidence: random.f32(), agrees: random.f64() < 0.85 };
            lowest((0..250).map(pair).collect::<Vec<_>>(), 0.85).is_some()
        };
        let passed = (0..500).filter(is_found).count();
        assert!(passed < 25, "{passed} of 500, which is more than 5 %");
    }

    #[test]
    fn a_share_of_items_reaches_its_confidence() {
        let confidences = || (1..=10).map(|n| n as f32 / 10.0);
        assert_eq!(reached_by(confidences(), 0.3), Some(0.8));
        assert_eq!(reached_by(confidences(), 1.0), Some(0.1));
        assert_eq!(reached_by(confidences(), 0.0), None);
        assert_eq!(reached_by([], 0.5), None);
    }
}
