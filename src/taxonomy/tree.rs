//! A taxonomy as a tree: who is below whom, and the levels that it is walked by.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Category, CategoryId, LISTING_BUDGET_TOKENS, Taxonomy, TaxonomyError};
use crate::prompt::tokens;

/// What a category says of itself among its children: it is chosen when an item goes no deeper.
const STAY: &str = "The subject as a whole, or a part of it that is not listed.";

/// Positions of categories by what is above and below them.
#[derive(Debug)]
pub(super) struct Tree {
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
    roots: Vec<usize>,
}

impl Tree {
    /// A category whose parent is not there counts as top level.
    pub(super) fn new(categories: &[Arc<Category>]) -> Self {
        let by_id: HashMap<&CategoryId, usize> = categories.iter().map(|category| &category.id).zip(0..).collect();
        let parent = |category: &Arc<Category>| by_id.get(category.parent.as_ref()?).copied();
        let parents: Vec<Option<usize>> = categories.iter().map(parent).collect();
        let mut children = vec![Vec::new(); categories.len()];
        let mut roots = Vec::new();
        for (position, parent) in parents.iter().enumerate() {
            parent.map_or(&mut roots, |parent| &mut children[parent]).push(position);
        }
        Self { parents, children, roots }
    }

    fn below(&self, parent: Option<usize>) -> &[usize] {
        parent.map_or(&self.roots, |parent| &self.children[parent])
    }

    /// The top, and every category with children.
    pub(super) fn inner_nodes(&self) -> impl Iterator<Item = Option<usize>> {
        let with_children = self.children.iter().enumerate().filter(|(_, children)| !children.is_empty());
        std::iter::once(None).chain(with_children.map(|(position, _)| Some(position)))
    }

    /// The estimated tokens of the list of a category's children, without the line for the category itself.
    pub(super) fn listing_tokens(&self, parent: Option<usize>, categories: &[Arc<Category>]) -> usize {
        self.below(parent).iter().map(|&position| tokens::estimate(&categories[position].listing())).sum()
    }

    /// The positions from the top to a category, its own last.
    fn path(&self, position: usize) -> Vec<usize> {
        let mut path: Vec<usize> = std::iter::successors(Some(position), |&at| self.parents[at]).collect();
        path.reverse();
        path
    }
}

impl Taxonomy {
    /// Whether any category has a parent.
    pub fn is_tree(&self) -> bool {
        self.inner.tree.parents.iter().any(Option::is_some)
    }

    /// The number of levels: 1 without parents.
    pub fn depth(&self) -> usize {
        (0..self.len()).map(|position| self.inner.tree.path(position).len()).max().unwrap_or(1)
    }

    /// The estimated tokens of all categories in one list.
    pub fn listing_tokens(&self) -> usize {
        self.categories().map(|category| tokens::estimate(&category.listing())).sum()
    }

    /// Whether all categories together fit one prompt. Those of a taxonomy without parents always do.
    pub fn fits_one_prompt(&self) -> bool {
        self.listing_tokens() <= LISTING_BUDGET_TOKENS
    }

    /// The categories right below one, or those of the top level, in their order.
    ///
    /// ```
    /// use slugline::{Category, Taxonomy};
    ///
    /// let taxonomy = Taxonomy::new("t", "1", [
    ///     Category::new("sport", "Sport", "Matches and athletes."),
    ///     Category::new("tennis", "Tennis", "").with_parent("sport"),
    ///     Category::new("weather", "Weather", "Forecasts and storms."),
    /// ])?;
    /// let top: Vec<_> = taxonomy.children(None).map(|category| category.id.as_str()).collect();
    /// assert_eq!(top, ["sport", "weather"]);
    /// let below_sport: Vec<_> = taxonomy.children(Some(&"sport".into())).map(|category| category.id.as_str()).collect();
    /// assert_eq!(below_sport, ["tennis"]);
    /// # Ok::<(), slugline::TaxonomyError>(())
    /// ```
    pub fn children(&self, parent: Option<&CategoryId>) -> impl Iterator<Item = &Category> {
        let below = match parent.map(|id| self.position(id.as_str())) {
            None => self.inner.tree.below(None),
            Some(Some(position)) => self.inner.tree.below(Some(position)),
            Some(None) => &[],
        };
        below.iter().map(|&position| &*self.inner.categories[position])
    }

    /// The categories from the top level to this one, itself last; empty if it is not in the taxonomy.
    pub fn path(&self, category: &CategoryId) -> Vec<&Category> {
        let path = self.position(category.as_str()).map(|position| self.inner.tree.path(position)).unwrap_or_default();
        path.into_iter().map(|position| &*self.inner.categories[position]).collect()
    }

    /// The categories of the upper levels alone, a taxonomy of their own: with 1 those of the top level, which may fit one
    /// prompt where the tree does not.
    ///
    /// ```
    /// let tree = slugline::Taxonomy::load("categories/iptc-media-topics.toml")?;
    /// let top = tree.upper_levels(1)?;
    /// assert_eq!((top.len(), top.fits_one_prompt()), (18, true));
    /// # Ok::<(), slugline::taxonomy::TaxonomyError>(())
    /// ```
    ///
    /// # Errors
    /// These levels alone are no taxonomy, since they have fewer than two categories, or one without a description.
    pub fn upper_levels(&self, levels: usize) -> Result<Self, TaxonomyError> {
        let is_kept = |category: &&Category| self.path(&category.id).len() <= levels;
        Self::new(self.name(), self.version(), self.categories().filter(is_kept).cloned())
    }

    /// Whether the category at a position has none below it.
    pub(crate) fn is_leaf(&self, position: usize) -> bool {
        self.inner.tree.children[position].is_empty()
    }

    /// Whether the category at one position is above that at the other.
    pub(crate) fn is_above(&self, position: usize, below: usize) -> bool {
        position != below && self.inner.tree.path(below).contains(&position)
    }

    /// The number of lists of children: one for each category with children, and one for the top level.
    pub(crate) fn inner_nodes(&self) -> usize {
        self.inner.tree.inner_nodes().count()
    }

    /// The category whose list of children is the longest; none for the top level.
    pub(crate) fn longest_level(&self) -> Option<usize> {
        let tokens = |parent: &Option<usize>| self.inner.tree.listing_tokens(*parent, &self.inner.categories);
        self.inner.tree.inner_nodes().max_by_key(tokens).flatten()
    }

    /// The names on the path to the category whose children these are; none at the top.
    pub(crate) fn scope(&self) -> &[String] {
        &self.inner.scope
    }

    /// The children of a category as a taxonomy of their own, with the category itself last, as the choice to go no deeper.
    /// At the top, the categories of the first level alone.
    pub(crate) fn level_below(&self, parent: Option<usize>) -> Self {
        let mut categories: Vec<Category> =
            self.inner.tree.below(parent).iter().map(|&at| (*self.inner.categories[at]).clone()).collect();
        let mut scope = Vec::new();
        if let Some(parent) = parent {
            // Below the top, to go no deeper is the one choice that means "none of these".
            categories.iter_mut().for_each(|category| category.fallback = false);
            let parent_category = &self.inner.categories[parent];
            let stay = Category::new(parent_category.id.clone(), parent_category.name.clone(), STAY).as_fallback();
            categories.push(Category { aliases: parent_category.aliases.clone(), ..stay });
            scope.extend(self.inner.tree.path(parent).into_iter().map(|at| self.inner.categories[at].name.clone()));
        }
        categories.iter_mut().for_each(|category| category.parent = None);
        let categories: Vec<_> = categories.into_iter().map(Arc::new).collect();
        let by_id: HashMap<&str, usize> = categories.iter().map(|category| category.id.as_str()).zip(0..).collect();
        // Labels that cannot be confused in the whole cannot be confused in a part.
        let here =
            |(label, &at): (&String, &usize)| Some((label.clone(), *by_id.get(self.inner.categories[at].id.as_str())?));
        let positions = self.inner.positions.iter().filter_map(here).collect();
        let tree = Tree::new(&categories);
        Self::unchecked(self.inner.name.clone(), self.inner.version.clone(), categories, positions, tree, scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::taxonomy::{Place, TaxonomyProblemKind};

    fn tree() -> Taxonomy {
        Taxonomy::new(
            "t",
            "1",
            [
                Category::new("sport", "Sport", "Matches.").with_alias("games"),
                Category::new("tennis", "Tennis", "").with_parent("sport"),
                Category::new("wimbledon", "Wimbledon", "").with_parent("tennis"),
                Category::new("golf", "Golf", "").with_parent("sport"),
                Category::new("weather", "Weather", "Storms.").with_code("medtop:17000000"),
            ],
        )
        .unwrap()
    }

    #[test]
    fn a_tree_knows_its_levels_and_paths() {
        let tree = tree();
        assert!(tree.is_tree() && tree.fits_one_prompt());
        assert_eq!((tree.depth(), tree.inner_nodes()), (3, 3));
        let path: Vec<_> = tree.path(&"wimbledon".into()).into_iter().map(|category| category.id.as_str()).collect();
        assert_eq!(path, ["sport", "tennis", "wimbledon"]);
        assert!(tree.path(&"chess".into()).is_empty());
        assert_eq!(tree.children(Some(&"chess".into())).count(), 0);
        assert_eq!(tree.find("medtop:17000000").unwrap().id.as_str(), "weather");
    }

    #[test]
    fn the_upper_levels_are_a_taxonomy() {
        let tree = tree();
        let top = tree.upper_levels(1).unwrap();
        assert_eq!((top.depth(), top.len()), (1, tree.children(None).count()));
        assert_eq!(tree.upper_levels(9).unwrap().hash(), tree.hash());
        assert!(tree.upper_levels(0).is_err());
    }

    #[test]
    fn a_level_has_the_children_and_the_choice_to_stay() {
        let tree = tree();
        let top = tree.level_below(None);
        assert_eq!(top.categories().map(|category| category.id.as_str()).collect::<Vec<_>>(), ["sport", "weather"]);
        assert!(top.scope().is_empty() && top.fallback().is_none() && !top.is_tree());
        let below = tree.level_below(tree.position("tennis"));
        assert_eq!(
            below.categories().map(|category| category.id.as_str()).collect::<Vec<_>>(),
            ["wimbledon", "tennis"]
        );
        assert_eq!(below.scope(), ["Sport", "Tennis"]);
        assert_eq!(below.fallback().unwrap().id.as_str(), "tennis");
        let below = tree.level_below(tree.position("sport"));
        assert_eq!(below.find("Games").unwrap().id.as_str(), "sport");
        assert!(below.find("weather").is_none() && below.find("wimbledon").is_none());
        assert_ne!(below.hash(), top.hash());
    }

    #[test]
    fn each_level_must_fit_the_prompt_not_the_whole() {
        let child = |parent: &str, number: usize| {
            Category::new(format!("{parent}-{number}"), format!("{parent} {number}"), "word ".repeat(20))
                .with_parent(parent)
        };
        let top = ["a", "b"].map(|id| Category::new(id, id.to_uppercase(), "Text."));
        let children = |count: usize| (0..count).flat_map(move |n| ["a", "b"].map(|parent| child(parent, n)));
        let large = Taxonomy::new("t", "1", top.clone().into_iter().chain(children(60))).unwrap();
        assert!(!large.fits_one_prompt());
        let error = Taxonomy::new("t", "1", top.into_iter().chain(children(300))).unwrap_err();
        let [a, b] = error.problems() else { panic!("{error}") };
        assert!(matches!(&a.place, Place::Category { id, .. } if id == "a") && b.place != a.place);
        assert!(matches!(a.kind, TaxonomyProblemKind::TooLong { .. }));
    }
}
