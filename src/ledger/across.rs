//! Answers that outlive a version of their taxonomy.

/// Which answers of an earlier version of a taxonomy still hold under a new one. An answer is kept by what its category
/// means, so a category that is only listed elsewhere has not changed, and one with another description has.
///
/// What cannot be seen is that an item would now fit a category that is new; ask everything anew once in a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcrossVersions {
    /// Those whose category means the same.
    SameCategory,
    /// Those whose category and runners-up, the likeliest to have taken the item, mean the same.
    SameRivals,
}
