//! What became of an item.

use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::descent::CategoryPath;
use crate::error::{Error, ItemError, ItemErrorKind};
use crate::prompt::PromptVersion;
use crate::stats::Stats;
use crate::taxonomy::CategoryId;

/// What became of one item: a category of the taxonomy, or the reason why there is none.
///
/// Serialized it is one flat object: `{"id", "category", "name", "confidence", …}`, or `{"id", "error": {"kind",
/// "message", …}}`, or, where no category was probable enough, `{"id", "category": null, "below_threshold": ["sport", 0.31]}`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The item's id as the caller gave it.
    pub id: String,
    /// The item's number in the input, from 0. It tells items apart that share an id.
    pub index: u64,
    /// The category, or why there is none.
    pub result: Result<Assignment, ItemError>,
    /// The way through the tree, level by level, where it was walked ([`Descent`](crate::Descent)); of an item without a
    /// category as far as it came.
    pub path: Option<Box<CategoryPath>>,
}

/// A category given to an item, and how it came about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Assignment {
    /// The category's id, always one of the taxonomy.
    pub category: CategoryId,
    /// The category's name.
    pub name: Arc<str>,
    /// The [hash](crate::Category::hash) of what the category means, which tells whether a later version of the taxonomy has
    /// changed it.
    pub category_hash: Arc<str>,
    /// Whether the model chose the category that means "none of these". Items that were given up are errors instead.
    pub is_fallback: bool,
    /// The probability of the category among all labels, 0 to 1, as the model puts it; none when the server gives no
    /// log-probabilities. Of a tree that was walked: the product of the confidences along the path.
    pub confidence: Option<f32>,
    /// The next most probable categories, at most three, highest first.
    pub runners_up: Vec<(CategoryId, f32)>,
    /// The probabilities of all categories as the model gave them, before any calibration, highest first; those that it
    /// gave nothing are left out. Empty when the server gives no log-probabilities, and where a tree was walked.
    pub probabilities: Arc<[(CategoryId, f32)]>,
    /// Further categories of the item, the more fitting first, where several were asked for
    /// ([`AnswerForm::Several`](crate::AnswerForm::Several)). Each with its probability at the place where the model wrote it.
    pub secondary: Vec<(CategoryId, Option<f32>)>,
    /// The ways to the further categories through the tree, in the same order; empty where none was walked. A way that ends
    /// with [`PathEnd::Failed`](crate::PathEnd::Failed) stays at the category that it had reached.
    pub secondary_paths: Vec<CategoryPath>,
    /// Where the answer came from.
    pub origin: Origin,
}

/// Where an answer came from.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Origin {
    /// What kind of engine answered.
    pub engine: Engine,
    /// The base address of the endpoint that answered; `embedded` for an engine in the process.
    pub endpoint: Arc<str>,
    /// The model that was asked for.
    pub model: Arc<str>,
    /// The prompt that was used. An engine in the process has none; this is then the one that the LLM would have had.
    pub prompt_version: PromptVersion,
    /// How often the item was part of a request, from 1; 0 where it was part of none.
    pub attempts: u32,
    /// How many items the answered request had.
    pub pack_size: usize,
    /// The item's place among them, from 1.
    pub position: usize,
    /// What the model had written, where a [calibration](crate::calibration) chose another category.
    pub written: Option<CategoryId>,
    /// The [version](crate::calibration::Calibration::version) of the calibration that corrected the probabilities.
    pub calibration: Option<Arc<str>>,
    /// The first answer and its confidence, where it was not sure enough and the item was asked again
    /// ([`Escalation`](crate::Escalation)).
    pub first_answer: Option<(CategoryId, f32)>,
    /// The id of the item that was asked in place of this one, since their texts are equal or, with the feature
    /// `near-duplicates`, similar.
    pub duplicate_of: Option<String>,
    /// Whether the answer is from an earlier request, which the ledger (feature `ledger`) had kept. The figures above are
    /// those of that request.
    pub from_ledger: bool,
    /// How similar the two texts are, 0 to 1; none where they are equal.
    pub similarity: Option<f32>,
}

/// What kind of engine gave an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Engine {
    /// A large language model behind an endpoint.
    #[default]
    LanguageModel,
    /// An embedding model in the process (feature `embedded`), which took the category whose label texts are nearest.
    EmbeddingModel {
        /// Whether most letters of the item are in another script than Latin, which such models know little of.
        other_script: bool,
    },
    /// A linear head on an embedding model (feature `embedded`), which was learned from answers of the LLM.
    LearnedHead,
}

impl Engine {
    /// The kind as it is written in outputs, in kebab case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LanguageModel => "language-model",
            Self::EmbeddingModel { .. } => "embedding-model",
            Self::LearnedHead => "learned-head",
        }
    }
}

impl Assignment {
    /// The same answer for another item, whose text is equal, or so similar.
    pub(crate) fn for_copy(&self, original: &str, similarity: Option<f32>) -> Self {
        let mut copy = self.clone();
        copy.origin.duplicate_of = Some(original.to_owned());
        copy.origin.similarity = similarity;
        copy
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        match &self.result {
            Ok(assignment) => {
                map.serialize_entry("category", &assignment.category)?;
                map.serialize_entry("name", &assignment.name)?;
                map.serialize_entry("category_hash", &assignment.category_hash)?;
                map.serialize_entry("confidence", &assignment.confidence.map(rounded))?;
                if !assignment.runners_up.is_empty() {
                    let runners_up: Vec<_> =
                        assignment.runners_up.iter().map(|(category, share)| (category, rounded(*share))).collect();
                    map.serialize_entry("runners_up", &runners_up)?;
                }
                if !assignment.secondary.is_empty() {
                    let secondary: Vec<_> =
                        assignment.secondary.iter().map(|(category, share)| (category, share.map(rounded))).collect();
                    map.serialize_entry("secondary", &secondary)?;
                }
                if !assignment.secondary_paths.is_empty() {
                    map.serialize_entry("secondary_paths", &assignment.secondary_paths)?;
                }
                let origin = &assignment.origin;
                if origin.engine != Engine::LanguageModel {
                    map.serialize_entry("engine", origin.engine.as_str())?;
                }
                if (Engine::EmbeddingModel { other_script: true }) == origin.engine {
                    map.serialize_entry("other_script", &true)?;
                }
                map.serialize_entry("endpoint", &origin.endpoint)?;
                map.serialize_entry("model", &origin.model)?;
                map.serialize_entry("prompt_version", &origin.prompt_version)?;
                map.serialize_entry("attempts", &origin.attempts)?;
                map.serialize_entry("pack_size", &origin.pack_size)?;
                if let Some(written) = &origin.written {
                    map.serialize_entry("written", written)?;
                }
                if let Some(calibration) = &origin.calibration {
                    map.serialize_entry("calibration", calibration)?;
                }
                if let Some((category, confidence)) = &origin.first_answer {
                    map.serialize_entry("first_answer", &(category, rounded(*confidence)))?;
                }
                if let Some(id) = &origin.duplicate_of {
                    map.serialize_entry("duplicate_of", id)?;
                }
                if origin.from_ledger {
                    map.serialize_entry("from_ledger", &true)?;
                }
                if let Some(similarity) = origin.similarity {
                    map.serialize_entry("similarity", &rounded(similarity))?;
                }
            }
            Err(error) if error.kind == ItemErrorKind::BelowThreshold => {
                map.serialize_entry("category", &None::<CategoryId>)?;
                let best = error.best.as_ref().map(|(category, confidence)| (category, rounded(*confidence)));
                map.serialize_entry("below_threshold", &best)?;
            }
            Err(error) => map.serialize_entry("error", error)?,
        }
        if let Some(path) = &self.path {
            map.serialize_entry("path", path)?;
        }
        map.end()
    }
}

/// Rounded to four digits, which is more than a probability of a language model is worth.
pub(crate) fn rounded(probability: f32) -> f64 {
    (f64::from(probability) * 10_000.0).round() / 10_000.0
}

/// The outcomes of a whole run, in the order of the input, with what was measured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// One outcome per item, in the order of the input.
    pub outcomes: Vec<Outcome>,
    /// What the run measured.
    pub stats: Stats,
    /// Why the run stopped before its end, if it did; the items that were not settled then say so.
    pub error: Option<Error>,
}

impl Report {
    /// The number of items that have a category.
    pub fn categorized(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.result.is_ok()).count()
    }

    /// The outcomes without a category.
    pub fn failures(&self) -> impl Iterator<Item = (&Outcome, &ItemError)> {
        self.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.result.as_ref().err()?)))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Category;

    /// An assignment with these probabilities, given at a position of a pack.
    pub(crate) fn assignment(probabilities: &[(CategoryId, f32)], pack_size: usize, position: usize) -> Assignment {
        let taxonomy =
            crate::Taxonomy::new("t", "1", ["a", "b"].map(|id| crate::Category::new(id, id, "Text."))).unwrap();
        let best = probabilities.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        Assignment {
            category: best.0.clone(),
            name: best.0.as_str().into(),
            category_hash: taxonomy.find(best.0.as_str()).map(Category::hash).unwrap_or_default().into(),
            is_fallback: false,
            confidence: Some(best.1),
            runners_up: Vec::new(),
            probabilities: probabilities.into(),
            secondary: Vec::new(),
            secondary_paths: Vec::new(),
            origin: Origin {
                engine: Engine::LanguageModel,
                endpoint: "e".into(),
                model: "m".into(),
                prompt_version: crate::prompt::Prefix::new(&taxonomy).version().clone(),
                attempts: 1,
                pack_size,
                position,
                written: None,
                calibration: None,
                first_answer: None,
                duplicate_of: None,
                from_ledger: false,
                similarity: None,
            },
        }
    }

    #[test]
    fn both_kinds_of_outcome_are_flat_objects() {
        let failed = Outcome { id: "a".into(), index: 0, result: Err(ItemError::of(ItemErrorKind::Empty)), path: None };
        assert_eq!(
            serde_json::to_string(&failed).unwrap(),
            r#"{"id":"a","error":{"kind":"empty","message":"title and body have no text to categorize","status":"permanent","attempts":0}}"#
        );
    }
}
