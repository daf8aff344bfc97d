//! What a model will find hard about a taxonomy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Category, CategoryId, Taxonomy};
use crate::prompt::tokens::{CountTokens, EstimatedTokens};

/// Something about a taxonomy that is allowed, and likely to cost right labels or tokens.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Lint {
    /// The category has siblings and no description, and is not one of the lower levels, where names are usually enough.
    NoDescription {
        /// The category.
        category: CategoryId,
    },
    /// Two siblings are described in nearly the same words.
    OverlappingDescriptions {
        /// One of them.
        one: CategoryId,
        /// The other.
        other: CategoryId,
        /// The words that both have, of those that either has: 0 to 1.
        shared: f64,
    },
    /// The ids of two siblings differ by so little that a model will confuse them.
    ConfusableIds {
        /// One of them.
        one: CategoryId,
        /// The other.
        other: CategoryId,
    },
    /// Siblings whose ids begin with the same token: what tells them apart comes late, and a confidence takes more tokens.
    SharedFirstToken {
        /// The token; without a tokenizer, the first word.
        token: String,
        /// The siblings.
        categories: Vec<CategoryId>,
    },
    /// The id is long: the model writes it for every item.
    LongId {
        /// The category.
        category: CategoryId,
        /// Its tokens.
        tokens: usize,
    },
    /// The list of children is long; models choose worse among many, and every request carries it.
    LongList {
        /// The category whose children they are; none for the top level.
        parent: Option<CategoryId>,
        /// The number of children.
        children: usize,
        /// Their prompt tokens.
        tokens: usize,
    },
    /// A list of children without any choice: the category has one child alone.
    OnlyChild {
        /// The child.
        category: CategoryId,
    },
}

/// Two descriptions that share this part of their words overlap.
const OVERLAP: f64 = 0.5;
/// Descriptions of fewer words than this say too little to overlap.
const LEAST_WORDS: usize = 4;
/// Below this level a missing description is usual.
const DESCRIBED_LEVELS: usize = 2;
/// Ids of more tokens are long.
const LONG_ID_TOKENS: usize = 8;
/// Lists of more tokens are long: half of what the prompt has room for.
const LONG_LIST_TOKENS: usize = super::LISTING_BUDGET_TOKENS / 2;

impl Taxonomy {
    /// What a model will find hard: overlapping or missing descriptions, ids that it will confuse, long ids and lists. Only
    /// categories that stand in one list are compared. Tokens are estimated; [`lint_with`](Self::lint_with) takes a tokenizer.
    ///
    /// ```
    /// use slugline::{Category, Taxonomy};
    ///
    /// let taxonomy = Taxonomy::new("t", "1", [
    ///     Category::new("sports", "Sports", "Matches."),
    ///     Category::new("sport", "Physical education", "Lessons."),
    /// ])?;
    /// assert_eq!(taxonomy.lint()[0].to_string(), "sports and sport: a model will confuse these ids");
    /// # Ok::<(), slugline::TaxonomyError>(())
    /// ```
    pub fn lint(&self) -> Vec<Lint> {
        self.lint_with(&EstimatedTokens)
    }

    /// The same with the tokens of a model's own tokenizer, for example `ExactTokens` of the feature `tokenizers`.
    pub fn lint_with(&self, tokens: &dyn CountTokens) -> Vec<Lint> {
        let mut found = Vec::new();
        for parent in std::iter::once(None).chain(self.categories().map(|category| Some(&category.id))) {
            let children: Vec<&Category> = self.children(parent).collect();
            if !children.is_empty() {
                self.lint_list(parent, &children, tokens, &mut found);
            }
        }
        found
    }

    fn lint_list(
        &self,
        parent: Option<&CategoryId>,
        children: &[&Category],
        tokens: &dyn CountTokens,
        found: &mut Vec<Lint>,
    ) {
        if let ([only], Some(_)) = (children, parent) {
            found.push(Lint::OnlyChild { category: only.id.clone() });
        }
        let list_tokens: usize = children.iter().map(|category| tokens.count_tokens(&category.listing())).sum();
        if list_tokens > LONG_LIST_TOKENS {
            found.push(Lint::LongList { parent: parent.cloned(), children: children.len(), tokens: list_tokens });
        }
        for (number, category) in children.iter().enumerate() {
            let level = self.path(&category.id).len();
            if category.description.trim().is_empty() && level <= DESCRIBED_LEVELS && children.len() > 1 {
                found.push(Lint::NoDescription { category: category.id.clone() });
            }
            let id_tokens = tokens.count_tokens(category.id.as_str());
            if id_tokens > LONG_ID_TOKENS {
                found.push(Lint::LongId { category: category.id.clone(), tokens: id_tokens });
            }
            for other in &children[number + 1..] {
                found.extend(lint_pair(category, other));
            }
        }
        let mut of_token: BTreeMap<&str, Vec<CategoryId>> = BTreeMap::new();
        for category in children {
            of_token.entry(tokens.first_token(category.id.as_str())).or_default().push(category.id.clone());
        }
        let shared = of_token.into_iter().filter(|(_, categories)| categories.len() > 1);
        found.extend(shared.map(|(token, categories)| Lint::SharedFirstToken { token: token.to_owned(), categories }));
    }
}

fn lint_pair(one: &Category, other: &Category) -> impl Iterator<Item = Lint> {
    let (words, others) = (words(&one.description), words(&other.description));
    let all = words.union(&others).count();
    let shared = words.intersection(&others).count() as f64 / all.max(1) as f64;
    let overlaps = words.len().min(others.len()) >= LEAST_WORDS && shared >= OVERLAP;
    let overlap = Lint::OverlappingDescriptions { one: one.id.clone(), other: other.id.clone(), shared };
    let confusable = Lint::ConfusableIds { one: one.id.clone(), other: other.id.clone() };
    let is_confusable = are_confusable(one.id.as_str(), other.id.as_str());
    overlaps.then_some(overlap).into_iter().chain(is_confusable.then_some(confusable))
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.len() > 2);
    words.map(str::to_lowercase).collect()
}

/// Whether two ids are one or two letters apart, as a plural is, or have the same words in another order.
fn are_confusable(one: &str, other: &str) -> bool {
    let sorted = |id: &str| {
        let mut words: Vec<String> = id.split('-').map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    let shorter = one.len().min(other.len());
    let most = if shorter >= 6 { 2 } else { 1 };
    sorted(one) == sorted(other) || (shorter >= 4 && distance(one.as_bytes(), other.as_bytes()) <= most)
}

/// The edits that make one text of the other (Levenshtein, 1966).
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

impl fmt::Display for Lint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDescription { category } => {
                write!(formatter, "{category}: has no description, so its name alone tells it from its siblings")
            }
            Self::OverlappingDescriptions { one, other, shared } => {
                let share = (100.0 * shared).round();
                write!(formatter, "{one} and {other}: {share} % of the words of their descriptions are the same")
            }
            Self::ConfusableIds { one, other } => {
                write!(formatter, "{one} and {other}: a model will confuse these ids")
            }
            Self::SharedFirstToken { token, categories } => {
                let ids: Vec<_> = categories.iter().map(CategoryId::as_str).collect();
                write!(formatter, "{}: all begin with {token:?}, so what tells them apart comes late", ids.join(", "))
            }
            Self::LongId { category, tokens } => {
                write!(formatter, "{category}: the id takes about {tokens} tokens, which are written for every item")
            }
            Self::LongList { parent, children, tokens } => {
                let parent = parent.as_ref().map_or("the top level", CategoryId::as_str);
                write!(formatter, "{parent}: the list of {children} takes about {tokens} prompt tokens")
            }
            Self::OnlyChild { category } => {
                write!(formatter, "{category}: has no siblings, so a request only asks whether an item goes deeper")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found_among_siblings_alone() {
        let taxonomy = Taxonomy::new(
            "t",
            "1",
            [
                Category::new("market", "Market", "Shares, bonds and prices of goods."),
                Category::new("markets", "Markets", "Shares, bonds, prices of old goods."),
                Category::new("sport", "Sport", "Games."),
                Category::new("sport-event", "Event", "").with_parent("sport"),
                Category::new("sport-venue", "Venue", "Places.").with_parent("sport"),
                Category::new("sports", "Alone", "").with_parent("markets"),
            ],
        )
        .unwrap();
        let found: Vec<_> = taxonomy.lint().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "market and markets: 67 % of the words of their descriptions are the same",
                "market and markets: a model will confuse these ids",
                "sports: has no siblings, so a request only asks whether an item goes deeper",
                "sport-event: has no description, so its name alone tells it from its siblings",
                "sport-event, sport-venue: all begin with \"sport\", so what tells them apart comes late",
            ]
        );
    }

    #[test]
    fn a_tokenizer_says_what_the_first_token_is() {
        struct Letters;
        impl CountTokens for Letters {
            fn count_tokens(&self, text: &str) -> usize {
                text.len()
            }
            fn first_token<'a>(&self, label: &'a str) -> &'a str {
                &label[..1]
            }
        }
        let categories = ["animals", "astronomy", "weather"].map(|id| Category::new(id, id, "Text."));
        let taxonomy = Taxonomy::new("t", "1", categories).unwrap();
        assert_eq!(taxonomy.lint(), []);
        let found: Vec<_> = taxonomy.lint_with(&Letters).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "astronomy: the id takes about 9 tokens, which are written for every item",
                "animals, astronomy: all begin with \"a\", so what tells them apart comes late",
            ]
        );
    }

    #[test]
    fn ids_a_few_letters_apart_are_confusable() {
        for (one, other) in [("sport", "sports"), ("stocks", "stock"), ("law-crime", "crime-law"), ("policy", "police")]
        {
            assert!(are_confusable(one, other), "{one} {other}");
        }
        for (one, other) in [("art", "war"), ("economy", "environment"), ("sport", "sport-event")] {
            assert!(!are_confusable(one, other), "{one} {other}");
        }
        assert_eq!((distance(b"kitten", b"sitting"), distance(b"", b"ab")), (3, 2));
    }
}
