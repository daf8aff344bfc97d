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
    /// An array of one bare label, `["sport"]`: about a third of the tokens. For packs of one item only, since labels of
    /// several items could only be told apart by position.
    Bare,
}

impl std::fmt::Display for AnswerForm {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Objects => "objects",
            Self::Bare => "bare",
        })
    }
}

/// A label that passed every check.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Label {
    /// The position of the category in the taxonomy.
    pub(crate) category: usize,
    /// The probability over the labels of the taxonomy, highest first; empty when the server gave none.
    pub(crate) probabilities: Vec<(usize, f32)>,
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

/// Reads and checks a whole answer: what the pack's items, in order, got.
pub(crate) fn understand(
    text: &str,
    form: AnswerForm,
    was_cut: bool,
    tokens: Option<&[confidence::Token]>,
    pack_len: usize,
    taxonomy: &Taxonomy,
) -> Vec<Result<Label, Fault>> {
    let reading = match form {
        AnswerForm::Objects => read::read(text, pack_len),
        AnswerForm::Bare => read::read_bare(text),
    };
    let tokens = tokens.map(|tokens| (tokens, confidence::Forms::of(taxonomy)));
    check::check(&reading.objects, pack_len, was_cut, taxonomy)
        .into_iter()
        .map(|checked| {
            checked.map(|(category, object)| Label {
                category,
                probabilities: tokens
                    .as_ref()
                    .and_then(|(tokens, forms)| {
                        confidence::probabilities(tokens, object.label_at?, &object.label, forms)
                    })
                    .unwrap_or_default(),
            })
        })
        .collect()
}
