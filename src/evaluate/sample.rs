//! Parts of a labelled set.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::taxonomy::{CategoryId, Taxonomy};

/// Splits a set in two at random, each category as evenly as it can be: one half to fit something on, and one to judge it.
/// Gives the numbers of the items, in order. The same seed gives the same halves.
///
/// ```
/// use slugline::evaluate::halves;
///
/// let truths: Vec<_> = ["sport", "sport", "business", "business"].map(Into::into).to_vec();
/// let [one, other] = halves(&truths, 7);
/// assert_eq!((one.len(), other.len()), (2, 2));
/// ```
pub fn halves(truths: &[CategoryId], seed: u64) -> [Vec<usize>; 2] {
    let mut halves = [Vec::new(), Vec::new()];
    // Counted over all categories, so that odd ones do not all fall to the same side.
    let mut number = 0;
    for items in by_category(truths, seed).into_values() {
        for item in items {
            halves[number % 2].push(item);
            number += 1;
        }
    }
    halves.iter_mut().for_each(|half| half.sort_unstable());
    halves
}

/// A skewed part of a set, as most real feeds are: all items of the taxonomy's first category, half of those of the second, a
/// third of the third and so on, chosen at random. Gives the numbers of the items, in order. The same seed gives the same
/// part.
pub fn skewed(truths: &[CategoryId], taxonomy: &Taxonomy, seed: u64) -> Vec<usize> {
    let by_category = by_category(truths, seed);
    let mut part = Vec::new();
    for (rank, category) in taxonomy.categories().enumerate() {
        let items = by_category.get(&category.id).map_or(&[][..], Vec::as_slice);
        part.extend(&items[..items.len().div_ceil(rank + 1)]);
    }
    part.sort_unstable();
    part
}

/// The numbers of the items of each category, shuffled.
fn by_category(truths: &[CategoryId], seed: u64) -> BTreeMap<&CategoryId, Vec<usize>> {
    let mut by_category: BTreeMap<&CategoryId, Vec<usize>> = BTreeMap::new();
    for (item, truth) in truths.iter().enumerate() {
        by_category.entry(truth).or_default().push(item);
    }
    let mut rng = Rng::with_seed(seed);
    by_category.values_mut().for_each(|items| rng.shuffle(items));
    by_category
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn truths() -> Vec<CategoryId> {
        let of = |n: usize| ["a", "b", "c"][if n < 31 { 0 } else { 1 + n % 2 }];
        (0..90).map(|n| of(n).into()).collect()
    }

    fn count(items: &[usize], category: &str) -> usize {
        let truths = truths();
        items.iter().filter(|item| truths[**item].as_str() == category).count()
    }

    #[test]
    fn halves_share_every_category_and_no_item() {
        let [one, other] = halves(&truths(), 3);
        let mut all = [one.clone(), other.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..90).collect::<Vec<_>>());
        for category in ["a", "b", "c"] {
            assert!(count(&one, category).abs_diff(count(&other, category)) <= 1, "{category}");
        }
        assert_eq!(halves(&truths(), 3)[0], one);
        assert_ne!(halves(&truths(), 4)[0], one);
    }

    #[test]
    fn a_skewed_part_favours_the_first_categories() {
        let taxonomy = Taxonomy::new("t", "1", ["c", "b", "a", "d"].map(|id| Category::new(id, id, "Text."))).unwrap();
        let part = skewed(&truths(), &taxonomy, 1);
        let all: Vec<_> = (0..90).collect();
        assert_eq!(count(&part, "c"), count(&all, "c"));
        assert_eq!((count(&part, "b"), count(&part, "a")), (count(&all, "b").div_ceil(2), 11));
        assert!(part.is_sorted());
    }
}
