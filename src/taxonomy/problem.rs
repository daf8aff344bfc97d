//! What can be wrong with a taxonomy, all of it found in one pass.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{Category, CategoryId, MAX_ID_BYTES, fold};

/// Everything that is wrong with a taxonomy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TaxonomyError {
    file: Option<PathBuf>,
    problems: Vec<TaxonomyProblem>,
}

impl TaxonomyError {
    pub(super) fn of(problems: Vec<TaxonomyProblem>) -> Self {
        Self { file: None, problems }
    }

    pub(super) fn in_file(mut self, path: &Path) -> Self {
        self.file = Some(path.to_owned());
        self
    }

    /// The problems in the order in which they were found, never empty.
    pub fn problems(&self) -> &[TaxonomyProblem] {
        &self.problems
    }
}

impl fmt::Display for TaxonomyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(formatter, "taxonomy {} cannot be used", file.display())?,
            None => formatter.write_str("taxonomy cannot be used")?,
        }
        for (number, problem) in self.problems.iter().enumerate() {
            write!(formatter, "{} {problem}", if number == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// One problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaxonomyProblem {
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub kind: TaxonomyProblemKind,
}

impl fmt::Display for TaxonomyProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Whole => {}
            Place::Line { line } => write!(formatter, "line {line}: ")?,
            Place::Category { number, id, line } => {
                if let Some(line) = line {
                    write!(formatter, "line {line}: ")?;
                }
                write!(formatter, "category {number} ({id:?}): ")?;
            }
        }
        self.kind.fmt(formatter)
    }
}

/// The place of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The taxonomy as a whole.
    Whole,
    /// A line of the file, from 1.
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A category.
    Category {
        /// Its number in the taxonomy, from 1.
        number: usize,
        /// Its id as given.
        id: String,
        /// The line of the file where it begins, from 1; none when the taxonomy was built in code.
        line: Option<usize>,
    },
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaxonomyProblemKind {
    /// The file cannot be read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// The system's words.
        reason: String,
    },
    /// The file is not TOML, or a value has the wrong type.
    #[error("not a taxonomy in TOML: {reason}")]
    Syntax {
        /// The parser's words.
        reason: String,
    },
    /// A key that taxonomies do not have, probably a slip of the pen.
    #[error("unknown key `{key}`; known are {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys there are.
        known: &'static str,
    },
    /// Fewer than two categories.
    #[error("has {count} categories; at least 2 are needed to choose between")]
    TooFewCategories {
        /// How many there are.
        count: usize,
    },
    /// A required field is missing or blank.
    #[error("`{field}` is missing or empty")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// The id is not of the form `lower-case-words`.
    #[error("the id must be lower-case words (a-z, 0-9) joined by single hyphens, at most {MAX_ID_BYTES} bytes")]
    BadId,
    /// The id, name or alias already means another category.
    #[error("{field} {label:?} already means category {other:?}")]
    Duplicate {
        /// `id`, `name` or `alias`.
        field: &'static str,
        /// The label as given.
        label: String,
        /// The id of the other category.
        other: String,
    },
    /// The parent is not in the taxonomy.
    #[error("the parent {parent:?} is not in the taxonomy")]
    UnknownParent {
        /// The parent as given.
        parent: String,
    },
    /// The category is its own ancestor.
    #[error("is its own ancestor")]
    Cycle,
    /// More than one category means "none of these".
    #[error("a second fallback; {first:?} already is one")]
    SecondFallback {
        /// The id of the first.
        first: String,
    },
    /// The listing does not fit the prompt: that of a taxonomy without parents as a whole, else that of the top level, or of
    /// the children of a category.
    #[error(
        "takes about {tokens} prompt tokens, over the budget of {budget_tokens}; shorten the descriptions, or divide it by \
         parents"
    )]
    TooLong {
        /// The estimated tokens of the listing.
        tokens: usize,
        /// The most there may be.
        budget_tokens: usize,
    },
}

/// Checks the categories, each with the line where it begins, and gives the position of every label.
pub(super) fn check(
    categories: &[(Option<usize>, Category)],
    problems: &mut Vec<TaxonomyProblem>,
) -> HashMap<String, usize> {
    if categories.len() < 2 {
        let kind = TaxonomyProblemKind::TooFewCategories { count: categories.len() };
        problems.push(TaxonomyProblem { place: Place::Whole, kind });
    }
    let mut report = |position: usize, kind| {
        let (line, category) = &categories[position];
        problems.push(TaxonomyProblem { place: place(position, category, *line), kind });
    };
    let mut positions: HashMap<String, usize> = HashMap::new();
    let mut fallback: Option<&CategoryId> = None;

    for (position, (_, category)) in categories.iter().enumerate() {
        let id = category.id.as_str();
        if id.is_empty() {
            report(position, TaxonomyProblemKind::Empty { field: "id" });
        } else if !is_id(id) {
            report(position, TaxonomyProblemKind::BadId);
        }
        // The path to a category says what a missing description would.
        let is_described = category.parent.is_some() || !category.description.trim().is_empty();
        for (field, is_there) in [("name", !category.name.trim().is_empty()), ("description", is_described)] {
            if !is_there {
                report(position, TaxonomyProblemKind::Empty { field });
            }
        }
        if let Some(first) = fallback.filter(|_| category.fallback) {
            report(position, TaxonomyProblemKind::SecondFallback { first: first.to_string() });
        } else if category.fallback {
            fallback = Some(&category.id);
        }
    }
    // Ids before codes, names and aliases, so that a clash is reported at the label that is easier to change.
    for field in ["id", "code", "name", "alias"] {
        for (position, (_, category)) in categories.iter().enumerate() {
            let labels = match field {
                "id" => std::slice::from_ref(&category.id).iter().map(CategoryId::as_str).collect(),
                "code" => category.code.iter().map(String::as_str).collect(),
                "name" => vec![category.name.as_str()],
                _ => category.aliases.iter().map(String::as_str).collect(),
            };
            for label in labels {
                let folded = fold(label);
                if folded.is_empty() {
                    if field == "alias" {
                        report(position, TaxonomyProblemKind::Empty { field: "aliases" });
                    }
                    continue;
                }
                let taken = *positions.entry(folded).or_insert(position);
                let repeated_id = field == "alias" && taken == position && is_repeated(&categories[position].1, label);
                if taken != position || repeated_id {
                    let other = categories[taken].1.id.to_string();
                    report(position, TaxonomyProblemKind::Duplicate { field, label: label.to_owned(), other });
                }
            }
        }
    }
    let by_id: HashMap<&CategoryId, usize> =
        categories.iter().enumerate().rev().map(|(position, (_, category))| (&category.id, position)).collect();
    let parent_of = |position: usize| by_id.get(categories[position].1.parent.as_ref()?).copied();
    for (position, (_, category)) in categories.iter().enumerate() {
        let Some(parent) = &category.parent else { continue };
        if parent_of(position).is_none() {
            report(position, TaxonomyProblemKind::UnknownParent { parent: parent.to_string() });
        }
        let mut above = parent_of(position);
        // A chain longer than the taxonomy has met a cycle that this category is not part of.
        for _ in 0..categories.len() {
            match above {
                Some(found) if found == position => {
                    report(position, TaxonomyProblemKind::Cycle);
                    break;
                }
                Some(found) => above = parent_of(found),
                None => break,
            }
        }
    }
    // Exact ids are looked up first and without folding.
    for (position, (_, category)) in categories.iter().enumerate() {
        positions.entry(category.id.as_str().to_owned()).or_insert(position);
    }
    positions
}

/// The place of the category at a position.
pub(super) fn place(position: usize, category: &Category, line: Option<usize>) -> Place {
    Place::Category { number: position + 1, id: category.id.to_string(), line }
}

/// Whether a category lists the same alias twice. An alias that only repeats its own id or name is harmless.
fn is_repeated(category: &Category, label: &str) -> bool {
    category.aliases.iter().filter(|alias| alias.as_str() == label).count() > 1
}

fn is_id(id: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    id.len() <= MAX_ID_BYTES && id.split('-').all(is_word) && id.bytes().any(|b| b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Taxonomy;

    fn category(id: &str) -> Category {
        Category::new(id, id.to_uppercase(), "Text.")
    }

    fn problems(categories: Vec<Category>) -> Vec<String> {
        let error = Taxonomy::new("t", "1", categories).unwrap_err();
        error.problems().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_place() {
        let found = problems(vec![
            category("Sport News"),
            category("politics").with_parent("nowhere"),
            category("politics"),
            category("art").with_parent("music").as_fallback(),
            category("music").with_parent("art").as_fallback().with_alias("Politics!"),
            Category::new("", " ", ""),
        ]);
        assert_eq!(
            found,
            [
                "category 1 (\"Sport News\"): the id must be lower-case words (a-z, 0-9) joined by single hyphens, at most 48 bytes",
                "category 5 (\"music\"): a second fallback; \"art\" already is one",
                "category 6 (\"\"): `id` is missing or empty",
                "category 6 (\"\"): `name` is missing or empty",
                "category 6 (\"\"): `description` is missing or empty",
                "category 3 (\"politics\"): id \"politics\" already means category \"politics\"",
                "category 3 (\"politics\"): name \"POLITICS\" already means category \"politics\"",
                "category 5 (\"music\"): alias \"Politics!\" already means category \"politics\"",
                "category 2 (\"politics\"): the parent \"nowhere\" is not in the taxonomy",
                "category 4 (\"art\"): is its own ancestor",
                "category 5 (\"music\"): is its own ancestor",
            ]
        );
    }

    #[test]
    fn one_category_is_no_choice_and_a_novel_is_no_description() {
        assert_eq!(problems(vec![category("a")]), ["has 1 categories; at least 2 are needed to choose between"]);
        let long = Category::new("b", "B", "many words ".repeat(2_000));
        let found = problems(vec![category("a"), long]);
        assert!(found[0].contains("over the budget of 2500"), "{found:?}");
    }

    #[test]
    fn a_child_of_a_cycle_is_not_reported_as_one() {
        let found = problems(vec![
            category("a").with_parent("b"),
            category("b").with_parent("a"),
            category("c").with_parent("a"),
        ]);
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn ids_are_lower_case_words() {
        for id in ["sport", "science-tech", "g20"] {
            assert!(is_id(id), "{id}");
        }
        for id in ["-a", "a-", "a--b", "A", "ä", "a b", "a_b", "12", &"x".repeat(49)] {
            assert!(!is_id(id), "{id}");
        }
    }
}
