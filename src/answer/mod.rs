//! From the bytes that a model wrote to labels that keep the id contract. Pure functions, fuzzed.
//!
//! [`read`](read::read) finds the objects of the answer, [`check`](check::check) holds them against the pack, and
//! [`confidence`] puts probabilities to the labels. Nothing here repairs a value or guesses a label: what is not clearly
//! an answer to one item of the pack is asked again.

pub(crate) mod check;
pub(crate) mod confidence;
pub(crate) mod read;
pub(crate) mod schema;

use serde::{Deserialize, Serialize};

use crate::taxonomy::Taxonomy;

/// The form in which the model is asked to answer. It is part of the prompt, so another form is another prompt version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AnswerForm {
    /// An array of objects, `[{"id":1,"category":"sport"}]`, the default: every label stands beside the number of its item.
    #[default]
    Objects,
    /// An array of one object without a number, `[{"category":"sport"}]`: about half of the tokens. For packs of one item
    /// only, since labels of several items could only be told apart by position.
    Category,
    /// An array of one bare label, `["sport"]`: about a quarter of the tokens; weak models do worse with it. For packs of
    /// one item only.
    Bare,
    /// An array of objects with a list of labels each, `[{"id":1,"categories":["sport","health"]}]`: one to so many, 2 to 8, that
    /// of the main subject first. A label that stands twice counts once; the fallback does not count beside another label,
    /// nor a category beside one below it, unless
    /// [`labels_with_parents`](crate::CategorizerBuilder::labels_with_parents) is set.
    Several(u8),
}

/// The most labels of an item.
pub(crate) const MAX_LABELS: u8 = 8;

impl AnswerForm {
    /// Whether an answer has no numbers, and so can be about one item alone.
    pub(crate) fn is_for_single_items(self) -> bool {
        matches!(self, Self::Category | Self::Bare)
    }

    /// The most labels of an item.
    pub(crate) fn most_labels(self) -> usize {
        match self {
            Self::Objects | Self::Category | Self::Bare => 1,
            Self::Several(most) => most.into(),
        }
    }
}

impl std::fmt::Display for AnswerForm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Objects => formatter.write_str("objects"),
            Self::Category => formatter.write_str("category"),
            Self::Bare => formatter.write_str("bare"),
            Self::Several(most) => write!(formatter, "up to {most} labels"),
        }
    }
}

/// A label that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Label {
    /// The position of the category in the taxonomy.
    pub(crate) category: usize,
    /// The probability over the labels of the taxonomy, highest first; empty when the server gave none.
    pub(crate) probabilities: Vec<(usize, f32)>,
    /// Further categories, each with its probability at its place.
    pub(crate) secondary: Vec<(usize, Option<f32>)>,
}

/// Why an item of a pack has no label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// No object could be read from the answer.
    Unreadable,
    /// The answer has no object for the item.
    Missing,
    /// The answer has more than one object for the item.
    Repeated,
    /// The label is of no category.
    UnknownLabel,
    /// The numbering is in doubt, so that the labels may be those of neighbours.
    Shifted,
    /// The answer was cut before the item.
    Cut,
}

/// Reads answers about one taxonomy in one form.
#[derive(Debug)]
pub(crate) struct Reader {
    form: AnswerForm,
    taxonomy: Taxonomy,
    /// Made once, since it is the same for every answer.
    forms: confidence::Forms,
    /// Whether a category may stand beside one that is below it.
    with_parents: bool,
}

impl Reader {
    pub(crate) fn new(taxonomy: &Taxonomy, form: AnswerForm) -> Self {
        Self { form, taxonomy: taxonomy.clone(), forms: confidence::Forms::of(taxonomy), with_parents: false }
    }

    /// The same reader, that lets a category stand beside one that is below it.
    pub(crate) fn with_parents(self, wanted: bool) -> Self {
        Self { with_parents: wanted, ..self }
    }

    /// Reads and checks a whole answer: what the pack's items, in order, got.
    pub(crate) fn understand(
        &self,
        text: &str,
        was_cut: bool,
        tokens: Option<&[confidence::Token]>,
        pack_len: usize,
    ) -> Vec<Result<Label, Fault>> {
        let reading = match self.form {
            AnswerForm::Objects => read::read(text, pack_len),
            AnswerForm::Category => read::read_category(text),
            AnswerForm::Bare => read::read_bare(text),
            AnswerForm::Several(_) => read::read_lists(text, pack_len),
        };
        // The tokens may spell more than the text: llama.cpp takes a code fence off, but leaves it among the tokens.
        let tokens = tokens.and_then(|tokens| Some((tokens, confidence::start_of(text, tokens)?)));
        let probabilities_of = |label: &str, label_at: Option<usize>| {
            let (tokens, start) = tokens?;
            confidence::probabilities(tokens, start + label_at?, label, &self.forms)
        };
        check::check(&reading.objects, pack_len, was_cut, &self.taxonomy)
            .into_iter()
            .map(|checked| {
                let (category, object) = checked?;
                let probabilities = probabilities_of(&object.label, object.label_at).unwrap_or_default();
                let mut secondary = Vec::new();
                for (label, label_at) in &object.others {
                    let other = self.taxonomy.position(label).ok_or(Fault::UnknownLabel)?;
                    let shares = probabilities_of(label, *label_at).unwrap_or_default();
                    let confidence = shares.iter().find(|share| share.0 == other).map(|share| share.1);
                    secondary.push((other, confidence));
                }
                let label = Label { category, probabilities, secondary };
                Ok(if label.secondary.is_empty() { label } else { self.distinct(label) })
            })
            .collect()
    }

    /// Leaves of several labels those that say something of their own, in their order: each once, the fallback only alone, and
    /// none that is above another.
    fn distinct(&self, label: Label) -> Label {
        let confidence_of = |at: usize| label.probabilities.iter().find(|share| share.0 == at).map(|share| share.1);
        let first = (label.category, confidence_of(label.category));
        let mut kept: Vec<(usize, Option<f32>)> = Vec::new();
        for one in std::iter::once(first).chain(label.secondary.iter().copied()) {
            if kept.iter().all(|known| known.0 != one.0) {
                kept.push(one);
            }
        }
        let all = kept.clone();
        let says_nothing = |&(at, _): &(usize, Option<f32>)| {
            let is_fallback = self.taxonomy.at(at).is_some_and(|category| category.fallback) && all.len() > 1;
            let is_above = |&(other, _): &(usize, Option<f32>)| self.taxonomy.is_above(at, other);
            is_fallback || (!self.with_parents && all.iter().any(is_above))
        };
        kept.retain(|one| !says_nothing(one));
        kept.truncate(self.form.most_labels());
        match kept.split_first() {
            // The probabilities are those at the place of the first label, also where another has moved up.
            Some((&(category, _), secondary)) => Label { category, secondary: secondary.to_vec(), ..label },
            None => label,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    #[test]
    fn of_several_labels_those_stay_that_say_something_of_their_own() {
        let taxonomy = Taxonomy::new(
            "t",
            "1",
            [
                Category::new("sport", "Sport", "Games."),
                Category::new("tennis", "Tennis", "").with_parent("sport"),
                Category::new("health", "Health", "Illness."),
                Category::new("other", "Other", "None.").as_fallback(),
            ],
        )
        .unwrap();
        let labels = |list: &str, with_parents: bool| {
            let reader = Reader::new(&taxonomy, AnswerForm::Several(2)).with_parents(with_parents);
            let text = format!("[{{\"id\":1,\"categories\":[{list}]}}]");
            let label = reader.understand(&text, false, None, 1).remove(0)?;
            let further = label.secondary.iter().map(|(at, _)| *at);
            Ok(std::iter::once(label.category).chain(further).collect::<Vec<_>>())
        };
        for (list, expected) in [
            (r#""sport""#, vec![0]),
            (r#""health","sport""#, vec![2, 0]),
            (r#""sport","sport""#, vec![0]),
            (r#""sport","health","tennis""#, vec![2, 1]),
            (r#""other","health""#, vec![2]),
            (r#""other""#, vec![3]),
        ] {
            assert_eq!(labels(list, false), Ok(expected), "{list}");
        }
        assert_eq!(labels(r#""sport","tennis""#, true), Ok(vec![0, 1]));
        assert_eq!(labels(r#""sport","gossip""#, false), Err(Fault::UnknownLabel));
        assert_eq!(labels("", false), Err(Fault::Unreadable));
    }
}
