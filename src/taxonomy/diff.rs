//! What changed from one version of a taxonomy to another.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use super::{Category, CategoryId, Taxonomy};

/// What changed from one version of a taxonomy to another. A category is the same if its code is, or, without codes, its id.
///
/// ```
/// use slugline::taxonomy::TaxonomyDiff;
/// use slugline::{Category, Taxonomy};
///
/// let old = Taxonomy::new("t", "1", [Category::new("sport", "Sport", "Games."), Category::new("arts", "Arts", "Works.")])?;
/// let new = Taxonomy::new("t", "2", [Category::new("sport", "Sports", "Games."), Category::new("news", "News", "Else.")])?;
/// let diff = TaxonomyDiff::new(&old, &new);
/// assert_eq!(diff.to_string(), "added       news\nremoved     arts\nrenamed     sport: \"Sport\" to \"Sports\"\n");
/// # Ok::<(), slugline::TaxonomyError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaxonomyDiff {
    /// Categories that are new, by their ids.
    pub added: Vec<CategoryId>,
    /// Categories that are gone.
    pub removed: Vec<CategoryId>,
    /// Categories with another id, which models then write in place of the old one: the old and the new.
    pub relabelled: Vec<(CategoryId, CategoryId)>,
    /// Categories with another name: the new id, the old and the new name.
    pub renamed: Vec<(CategoryId, String, String)>,
    /// Categories with another parent: the new id, the old and the new parent, none for the top level.
    pub moved: Vec<(CategoryId, Option<CategoryId>, Option<CategoryId>)>,
    /// Categories with another description.
    pub redescribed: Vec<CategoryId>,
    /// Categories with other aliases or keywords, or that became the fallback or are so no more.
    pub otherwise: Vec<CategoryId>,
    /// Whether the categories that are in both stand in another order, which the prompt shows.
    pub reordered: bool,
}

impl TaxonomyDiff {
    /// Compares two versions.
    pub fn new(old: &Taxonomy, new: &Taxonomy) -> Self {
        let before: HashMap<&str, &Category> = old.categories().map(|category| (key(category), category)).collect();
        let after: BTreeSet<&str> = new.categories().map(key).collect();
        let mut diff = Self::default();
        let gone = old.categories().filter(|category| !after.contains(key(category)));
        diff.removed.extend(gone.map(|category| category.id.clone()));
        for category in new.categories() {
            match before.get(key(category)) {
                Some(earlier) => diff.compare(earlier, category, old, new),
                None => diff.added.push(category.id.clone()),
            }
        }
        let both = |taxonomy: &Taxonomy| -> Vec<String> {
            let is_in_both = |key: &&str| before.contains_key(key) && after.contains(key);
            taxonomy.categories().map(key).filter(is_in_both).map(str::to_owned).collect()
        };
        diff.reordered = both(old) != both(new);
        diff
    }

    fn compare(&mut self, old: &Category, new: &Category, from: &Taxonomy, to: &Taxonomy) {
        let id = || new.id.clone();
        if old.id != new.id {
            self.relabelled.push((old.id.clone(), id()));
        }
        if old.name != new.name {
            self.renamed.push((id(), old.name.clone(), new.name.clone()));
        }
        let parent = |category: &Category, taxonomy: &Taxonomy| {
            let parent = taxonomy.find(category.parent.as_ref()?.as_str())?;
            Some(key(parent).to_owned())
        };
        if parent(old, from) != parent(new, to) {
            self.moved.push((id(), old.parent.clone(), new.parent.clone()));
        }
        if old.description != new.description {
            self.redescribed.push(id());
        }
        let sorted = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        let rest = |of: &Category| (sorted(&of.aliases), sorted(&of.keywords), of.fallback);
        if rest(old) != rest(new) {
            self.otherwise.push(id());
        }
    }

    /// Whether both mean the same, the order of the categories included.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The categories of the new version whose meaning is new or changed, each once, in the order of their ids.
    pub fn changed(&self) -> BTreeSet<&CategoryId> {
        let relabelled = self.relabelled.iter().map(|(_, id)| id);
        let renamed = self.renamed.iter().map(|(id, ..)| id);
        let moved = self.moved.iter().map(|(id, ..)| id);
        let others = self.added.iter().chain(&self.redescribed).chain(&self.otherwise);
        others.chain(relabelled).chain(renamed).chain(moved).collect()
    }
}

fn key(category: &Category) -> &str {
    category.code.as_deref().unwrap_or(category.id.as_str())
}

/// A line for each change.
impl fmt::Display for TaxonomyDiff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |parent: &Option<CategoryId>| {
            parent.as_ref().map_or_else(|| "the top level".to_owned(), |parent| format!("below {parent}"))
        };
        for id in &self.added {
            writeln!(formatter, "added       {id}")?;
        }
        for id in &self.removed {
            writeln!(formatter, "removed     {id}")?;
        }
        for (old, new) in &self.relabelled {
            writeln!(formatter, "relabelled  {old} is now {new}")?;
        }
        for (id, old, new) in &self.renamed {
            writeln!(formatter, "renamed     {id}: {old:?} to {new:?}")?;
        }
        for (id, old, new) in &self.moved {
            writeln!(formatter, "moved       {id}: from {} to {}", place(old), place(new))?;
        }
        for id in &self.redescribed {
            writeln!(formatter, "redescribed {id}")?;
        }
        for id in &self.otherwise {
            writeln!(formatter, "changed     {id}: aliases, keywords or fallback")?;
        }
        if self.reordered {
            writeln!(formatter, "reordered   the categories stand in another order, so the prompt is another")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taxonomy(categories: impl IntoIterator<Item = Category>) -> Taxonomy {
        Taxonomy::new("t", "1", categories).unwrap()
    }

    #[test]
    fn every_change_is_named_once() {
        let sport = || Category::new("sport", "Sport", "Games.").with_code("x:1");
        let arts = || Category::new("arts", "Arts", "Works.").with_code("x:2");
        let film = || Category::new("film", "Film", "").with_code("x:3").with_parent("arts");
        let old = taxonomy([sport(), arts(), film()]);
        assert!(TaxonomyDiff::new(&old, &taxonomy([sport(), arts(), film()])).is_empty());
        let mut athletics = Category { name: "Athletics".into(), description: "Races.".into(), ..sport() };
        athletics.id = "athletics".into();
        let new = taxonomy([arts().with_keyword("opera"), athletics, film().with_parent("athletics")]);
        let diff = TaxonomyDiff::new(&old, &new);
        assert_eq!(
            diff.to_string(),
            "relabelled  sport is now athletics\nrenamed     athletics: \"Sport\" to \"Athletics\"\n\
             moved       film: from below arts to below athletics\nredescribed athletics\n\
             changed     arts: aliases, keywords or fallback\n\
             reordered   the categories stand in another order, so the prompt is another\n"
        );
        assert_eq!(
            diff.changed().into_iter().map(CategoryId::as_str).collect::<Vec<_>>(),
            ["arts", "athletics", "film"]
        );
    }

    #[test]
    fn a_parent_that_was_only_relabelled_moves_nobody() {
        let tree = |id: &str| {
            taxonomy([
                Category::new(id, "Arts", "Works.").with_code("x:2"),
                Category::new("film", "Film", "").with_parent(id),
            ])
        };
        let diff = TaxonomyDiff::new(&tree("arts"), &tree("culture"));
        assert_eq!((diff.moved.len(), diff.relabelled.len()), (0, 1));
    }
}
