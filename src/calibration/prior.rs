//! Priors: what a model gives each label on average, by pack size and position.

use std::collections::BTreeMap;

use crate::taxonomy::{CategoryId, Taxonomy};

/// The mean probability of each label at one position of packs of one size.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prior {
    pub(super) pack_size: usize,
    /// From 1.
    pub(super) position: usize,
    /// The items that it was measured on.
    pub(super) items: u64,
    pub(super) shares: BTreeMap<CategoryId, f64>,
}

/// The least share that a prior has of a label, relative to an even one: bounds what a division can do.
const LEAST_OF_EVEN: f64 = 0.02;
/// The items that each position must have seen before a run corrects itself.
const LEAST_ITEMS: u64 = 50;
/// What a position of a run is drawn towards the mean by, in items.
const PSEUDO_ITEMS: f64 = 20.0;

impl Prior {
    /// The share of a label, bounded from below.
    pub(super) fn share(&self, id: &CategoryId, labels: usize) -> f64 {
        self.shares.get(id).copied().unwrap_or(0.0).max(LEAST_OF_EVEN / labels.max(1) as f64)
    }
}

/// What single items get on average, by position in the taxonomy; without as many of them as at other positions the mean
/// over all. Few among packs are no fair sample: those that went alone or were asked again did so for what they say.
pub(super) fn reference(priors: &[Prior], taxonomy: &Taxonomy) -> Vec<f64> {
    let (singles, packed): (Vec<_>, Vec<_>) = priors.iter().partition(|prior| prior.pack_size == 1);
    let are_fair = singles.iter().any(|single| packed.iter().all(|prior| prior.items <= single.items));
    let from = if are_fair { singles } else { priors.iter().collect() };
    let items: f64 = from.iter().map(|prior| prior.items as f64).sum();
    let share = |id: &CategoryId| {
        if items <= 0.0 {
            return 1.0 / taxonomy.len() as f64;
        }
        from.iter().map(|prior| prior.share(id, taxonomy.len()) * prior.items as f64).sum::<f64>() / items
    };
    taxonomy.categories().map(|category| share(&category.id)).collect()
}

/// Sums of probabilities while items are seen.
#[derive(Clone, Debug)]
pub(crate) struct PriorCounts {
    labels: usize,
    /// By pack size and position: how many items, and the sum for each label.
    sums: BTreeMap<(usize, usize), (u64, Vec<f64>)>,
}

impl PriorCounts {
    pub(crate) fn new(labels: usize) -> Self {
        Self { labels, sums: BTreeMap::new() }
    }

    /// Counts an item at a position, from 1, with the probabilities that it got, by position in the taxonomy.
    pub(crate) fn add(&mut self, pack_size: usize, position: usize, probabilities: &[(usize, f32)]) {
        let (items, sums) = self.sums.entry((pack_size, position)).or_insert_with(|| (0, vec![0.0; self.labels]));
        *items += 1;
        for &(label, share) in probabilities {
            if let Some(sum) = sums.get_mut(label) {
                *sum += f64::from(share);
            }
        }
    }

    /// The means, each drawn towards the mean over all positions, and that towards an even share, by so many items.
    pub(super) fn priors(&self, pseudo_items: f64, taxonomy: &Taxonomy) -> Vec<Prior> {
        let overall = self.overall(pseudo_items);
        let prior = |(&(pack_size, position), (items, sums)): (&(usize, usize), &(u64, Vec<f64>))| {
            let share = |(sum, overall): (&f64, &f64)| (sum + pseudo_items * overall) / (*items as f64 + pseudo_items);
            let ids = taxonomy.categories().map(|category| category.id.clone());
            Prior {
                pack_size,
                position,
                items: *items,
                shares: ids.zip(sums.iter().zip(&overall).map(share)).collect(),
            }
        };
        self.sums.iter().map(prior).collect()
    }

    fn overall(&self, pseudo_items: f64) -> Vec<f64> {
        let items: u64 = self.sums.values().map(|(items, _)| items).sum();
        let even = 1.0 / self.labels.max(1) as f64;
        let sum = |label: usize| self.sums.values().map(|(_, sums)| sums[label]).sum::<f64>();
        (0..self.labels).map(|label| (sum(label) + pseudo_items * even) / (items as f64 + pseudo_items)).collect()
    }

    /// For a run that corrects itself while it goes: what is taken from the logarithms of the labels at a position, so that
    /// all positions of packs of this size give each label the same on average. None before every position of such packs
    /// has seen 50 items.
    pub(crate) fn position_offsets(&self, pack_size: usize, position: usize) -> Option<Vec<f64>> {
        if pack_size < 2 {
            return None;
        }
        let of = |position| self.sums.get(&(pack_size, position)).filter(|(items, _)| *items >= LEAST_ITEMS);
        let all: Option<Vec<_>> = (1..=pack_size).map(of).collect();
        let all = all?;
        let items: f64 = all.iter().map(|(items, _)| *items as f64).sum();
        let (here_items, here) = of(position)?;
        let least = LEAST_OF_EVEN / self.labels.max(1) as f64;
        let offset = |label: usize| {
            let mean = (all.iter().map(|(_, sums)| sums[label]).sum::<f64>() / items).max(least);
            let here = (here[label] + PSEUDO_ITEMS * mean) / (*here_items as f64 + PSEUDO_ITEMS);
            here.max(least).ln() - mean.ln()
        };
        Some((0..self.labels).map(offset).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::taxonomy;
    use super::*;

    #[test]
    fn means_are_shrunk_and_add_up_to_one() {
        let taxonomy = taxonomy();
        let mut counts = PriorCounts::new(3);
        counts.add(2, 1, &[(0, 1.0)]);
        counts.add(2, 2, &[(1, 0.5), (2, 0.5)]);
        let priors = counts.priors(2.0, &taxonomy);
        assert_eq!(priors.len(), 2);
        for prior in &priors {
            assert!((prior.shares.values().sum::<f64>() - 1.0).abs() < 1e-9);
        }
        let world = |prior: &Prior| prior.shares[&"world".into()];
        assert!(world(&priors[0]) > world(&priors[1]) && world(&priors[1]) > 0.0);
        assert!(reference(&priors, &taxonomy).iter().all(|share| *share > 0.0));
        assert_eq!(reference(&[], &taxonomy), [1.0 / 3.0; 3]);
    }

    #[test]
    fn few_single_items_among_packs_are_no_reference() {
        let taxonomy = taxonomy();
        let mut counts = PriorCounts::new(3);
        for _ in 0..100 {
            counts.add(2, 1, &[(0, 1.0)]);
            counts.add(2, 2, &[(0, 1.0)]);
        }
        // Asked alone, since all of them are of one kind.
        (0..10).for_each(|_| counts.add(1, 1, &[(2, 1.0)]));
        let of = |counts: &PriorCounts| reference(&counts.priors(1.0, &taxonomy), &taxonomy);
        assert!(of(&counts)[0] > 0.9);
        (0..90).for_each(|_| counts.add(1, 1, &[(2, 1.0)]));
        assert!(of(&counts)[2] > 0.9, "as many as at each position of the packs");
    }

    #[test]
    fn positions_are_evened_out_once_all_have_been_seen() {
        let mut counts = PriorCounts::new(2);
        for _ in 0..2_000 {
            counts.add(2, 1, &[(0, 0.5), (1, 0.5)]);
        }
        assert_eq!(counts.position_offsets(2, 1), None);
        for _ in 0..2_000 {
            counts.add(2, 2, &[(0, 0.9), (1, 0.1)]);
        }
        let offsets = counts.position_offsets(2, 2).unwrap();
        assert!((offsets[0] - (0.9_f64 / 0.7).ln()).abs() < 0.02 && (offsets[1] - (0.1_f64 / 0.3).ln()).abs() < 0.02);
        assert_eq!(counts.position_offsets(1, 1), None);
    }
}
