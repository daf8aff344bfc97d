//! The prefixes of a tree: what the runs of each category share, made when the first item reaches it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Descent;
use crate::builder::{CategorizerBuilder, Pools};
use crate::run::Shared;
use crate::taxonomy::{CategoryId, Taxonomy};

/// A tree and what its runs share.
pub(crate) struct Nodes {
    taxonomy: Taxonomy,
    descent: Descent,
    builder: CategorizerBuilder,
    pools: Pools,
    made: Mutex<HashMap<Option<usize>, Arc<Shared>>>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Nodes").field("taxonomy", &self.taxonomy.name()).finish_non_exhaustive()
    }
}

impl Nodes {
    pub(crate) fn new(taxonomy: Taxonomy, descent: Descent, builder: CategorizerBuilder, pools: Pools) -> Self {
        Self { taxonomy, descent, builder, pools, made: Mutex::default() }
    }

    /// What the runs over the children of a category share, or over the top level.
    pub(crate) fn shared(&self, parent: Option<usize>) -> Arc<Shared> {
        let mut known = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            // The number of a prefix tells it from the others of the tree.
            let number = parent.map_or(0, |parent| parent + 1);
            let mut shared = self.builder.shared(self.taxonomy.level_below(parent), &self.pools, Some(number));
            shared.homed_prefix = shared.prefix_number.filter(|_| self.descent.has_affinity);
            Arc::new(shared)
        };
        Arc::clone(known.entry(parent).or_insert_with(make))
    }

    /// What the runs over the longest list share.
    pub(crate) fn longest(&self) -> Arc<Shared> {
        self.shared(self.taxonomy.longest_level())
    }

    pub(crate) fn taxonomy(&self) -> &Taxonomy {
        &self.taxonomy
    }

    pub(super) fn descent(&self) -> &Descent {
        &self.descent
    }

    /// The most categories of an item.
    pub(super) fn most_labels(&self) -> usize {
        self.builder.most_labels()
    }

    /// The name of a category as it is given out.
    pub(super) fn name(&self, position: usize) -> Arc<str> {
        self.taxonomy.at(position).map_or_else(|| "".into(), |category| self.shared(None).name_of(category))
    }

    pub(super) fn id(&self, position: usize) -> Option<&CategoryId> {
        self.taxonomy.at(position).map(|category| &category.id)
    }
}
