//! Labels of a data set, matched to categories.

use std::collections::BTreeMap;
use std::fmt;

use crate::taxonomy::{CategoryId, Taxonomy};

/// The category that each label means: its id, name or an alias, see [`Taxonomy::find`]. Labels come with the number of
/// their line, for the error.
///
/// ```
/// use slugline::{Taxonomy, evaluate};
///
/// let taxonomy = Taxonomy::load("categories/ag-news.toml")?;
/// let truths = evaluate::match_labels(&taxonomy, [(1, "Sci/Tech"), (2, "sport")])?;
/// assert_eq!(truths[0].as_str(), "technology");
///
/// let error = evaluate::match_labels(&taxonomy, [(1, "Sports"), (2, "Weather"), (9, "Weather")]).unwrap_err();
/// assert_eq!(error.labels()["Weather"], [2, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Every label that is of no category, with its lines. An item whose truth is unknown cannot be graded, and leaving it out
/// would flatter the figures.
pub fn match_labels<'a>(
    taxonomy: &Taxonomy,
    labels: impl IntoIterator<Item = (u64, &'a str)>,
) -> Result<Vec<CategoryId>, UnknownLabels> {
    let mut truths = Vec::new();
    let mut unknown: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (line, label) in labels {
        match taxonomy.find(label) {
            Some(category) => truths.push(category.id.clone()),
            None => unknown.entry(label.to_owned()).or_default().push(line),
        }
    }
    if unknown.is_empty() {
        return Ok(truths);
    }
    Err(UnknownLabels { taxonomy: taxonomy.name().to_owned(), labels: unknown })
}

/// Labels that are of no category of the taxonomy, each with the lines where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLabels {
    taxonomy: String,
    labels: BTreeMap<String, Vec<u64>>,
}

impl std::error::Error for UnknownLabels {}

/// The most labels, and the most lines of each, that the message names.
const MOST_NAMED: usize = 10;
/// A label is cut to this many characters in the message, in case it is no label at all.
const MOST_LABEL_CHARS: usize = 60;

impl UnknownLabels {
    /// The labels, never none, each with its lines in their order.
    pub fn labels(&self) -> &BTreeMap<String, Vec<u64>> {
        &self.labels
    }
}

impl fmt::Display for UnknownLabels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: usize = self.labels.values().map(Vec::len).sum();
        write!(formatter, "labels of {lines} lines are of no category of the taxonomy {:?}: ", self.taxonomy)?;
        for (number, (label, lines)) in self.labels.iter().take(MOST_NAMED).enumerate() {
            let label: String = label.chars().take(MOST_LABEL_CHARS).collect();
            let separator = if number == 0 { "" } else { ", " };
            let plural = if lines.len() == 1 { "line" } else { "lines" };
            write!(formatter, "{separator}{label:?} ({plural} {}{})", Listed(lines), More(lines.len()))?;
        }
        write!(formatter, "{}; add them to the taxonomy as aliases, or take these lines out", More(self.labels.len()))
    }
}

struct Listed<'a>(&'a [u64]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        formatter.write_str(&numbers.join(", "))
    }
}

struct More(usize);

impl fmt::Display for More {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.saturating_sub(MOST_NAMED) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn taxonomy() -> Taxonomy {
        let tech = Category::new("sci-tech", "Science & Technology", "Science.").with_alias("Tech");
        Taxonomy::new("t", "1", [Category::new("sport", "Sport", "Games."), tech]).unwrap()
    }

    #[test]
    fn ids_names_and_aliases_match_in_order() {
        let truths = match_labels(&taxonomy(), [(1, "tech"), (2, "SPORT"), (3, "science technology")]).unwrap();
        let ids: Vec<_> = truths.iter().map(CategoryId::as_str).collect();
        assert_eq!(ids, ["sci-tech", "sport", "sci-tech"]);
    }

    #[test]
    fn every_unknown_label_is_reported_with_its_lines() {
        let labels = [(1, "sport"), (4, "Weather"), (5, ""), (7, "Weather")];
        let error = match_labels(&taxonomy(), labels).unwrap_err();
        assert_eq!(
            error.to_string(),
            "labels of 3 lines are of no category of the taxonomy \"t\": \"\" (line 5), \"Weather\" (lines 4, 7); add them to \
             the taxonomy as aliases, or take these lines out"
        );
    }

    #[test]
    fn the_message_stays_short() {
        let long = "x".repeat(10_000);
        let many: Vec<_> = (0..500).map(|n| (n, format!("{n:03} {long}"))).collect();
        let labels = many.iter().map(|(n, label)| (*n, label.as_str())).chain((0..500).map(|n| (n, "!")));
        let error = match_labels(&taxonomy(), labels).unwrap_err();
        let message = error.to_string();
        assert!(message.len() < 1_200, "{message}");
        assert!(message.contains("8, 9 and 490 more)") && message.contains(") and 491 more;"), "{message}");
        assert_eq!(error.labels().len(), 501);
    }
}
