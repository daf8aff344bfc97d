//! Choosing the pack size by measurement.

use serde::Serialize;

/// Lets a run find its pack size: its first few hundred items go out in packs of several sizes, some of them a second time
/// alone, to see which size brings the most valid items per second while its labels agree with those of single items.
///
/// It never holds the run back: the items that measure are the run's own, and only the second, single requests are extra:
/// about 20 for each size at the beginning, and one in fifty later. After the choice one pack in fifty tries another size,
/// so that the choice moves when the evidence does.
/// What was found is in [`Stats::tuning`](crate::Stats::tuning).
///
/// Defaults: sizes 1, 2, 3, 4, 6 and 8; an agreement of at least 0.9.
///
/// ```
/// use slugline::Tuning;
///
/// let tuning = Tuning::auto().sizes([1, 3, 5]).least_agreement(0.95);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    pub(crate) sizes: Vec<usize>,
    pub(crate) least_agreement: f64,
}

impl Tuning {
    /// The defaults.
    pub fn auto() -> Self {
        Self { sizes: vec![1, 2, 3, 4, 6, 8], least_agreement: 0.9 }
    }

    /// The pack sizes to choose from, each 1 to 16. Size 1 is always among them, since the others are held against it.
    #[must_use]
    pub fn sizes(mut self, sizes: impl IntoIterator<Item = usize>) -> Self {
        self.sizes = std::iter::once(1).chain(sizes).collect();
        self.sizes.sort_unstable();
        self.sizes.dedup();
        self
    }

    /// The least share of items that must get the same category in a pack as alone, 0 to 1. Default: 0.9.
    #[must_use]
    pub fn least_agreement(mut self, share: f64) -> Self {
        self.least_agreement = share;
        self
    }
}

/// What a run found about pack sizes, so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TuningReport {
    /// The pack size that is used.
    pub pack_size: usize,
    /// Whether every size has been tried often enough for a choice.
    pub is_settled: bool,
    /// How often the choice changed after the first.
    pub changes: u64,
    /// What is known of each size.
    pub sizes: Vec<SizeEvidence>,
}

/// What is known of a pack size.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SizeEvidence {
    /// The size.
    pub pack_size: usize,
    /// The packs of this size that were answered at their first attempt.
    pub packs: u64,
    /// Valid items per second while packs of this size were in flight, by Little's law, of the last 64 packs.
    pub items_per_second: f64,
    /// The items that were asked alone as well.
    pub checked: u64,
    /// The share of them with the same category; 1 for single items.
    pub agreement: f64,
    /// Whether the agreement is enough.
    pub is_acceptable: bool,
}
