//! What the runs of a categorizer share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::schema::Schemas;
use crate::answer::{AnswerForm, Label, Reader};
use crate::calibration;
use crate::error::{ItemError, ItemErrorKind};
use crate::escalation::Escalation;
use crate::outcome::{Assignment, Engine, Origin};
use crate::prompt::Prefix;
use crate::prompt::frame::CLOSING_TOKENS;
use crate::prompt::tokens::{self, CountTokens, TokenEstimator};
use crate::server::Pool;
use crate::taxonomy::{Category, Taxonomy};
use crate::tuning::Tuning;

/// What the runs of a categorizer share.
pub(crate) struct Shared {
    pub(crate) taxonomy: Taxonomy,
    pub(crate) prefix: Prefix,
    /// Tells the prefix from others that are sent to the same endpoints; none where there is one alone.
    pub(crate) prefix_number: Option<usize>,
    /// The same where each prefix has a home among the endpoints.
    pub(crate) homed_prefix: Option<usize>,
    pub(crate) schemas: Schemas,
    pub(crate) reader: Reader,
    pub(crate) estimator: TokenEstimator,
    pub(crate) tokens: Option<Arc<dyn CountTokens>>,
    pub(crate) pool: Arc<Pool>,
    /// The endpoint with the stronger model, where the escalation has one.
    pub(crate) stronger: Option<Arc<Pool>>,
    pub(crate) escalation: Option<Escalation>,
    /// Where answers are kept, and what they are kept under.
    #[cfg(feature = "ledger")]
    pub(crate) ledger: Option<(crate::ledger::Ledger, crate::ledger::Questions)>,
    #[cfg(feature = "ledger")]
    pub(crate) across_versions: Option<crate::ledger::AcrossVersions>,
    /// The engine in the process, where there is one.
    #[cfg(feature = "embedded")]
    pub(crate) engine: Option<Arc<crate::embedded::Desk>>,
    /// At most one for each model.
    pub(crate) calibrations: Vec<calibration::Ready>,
    pub(crate) settings: Settings,
    pub(crate) longest_label_tokens: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("taxonomy", &self.taxonomy.name())
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// How a categorizer works; the builder documents each.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can be set without the others")]
pub(crate) struct Settings {
    pub(crate) pack_size: usize,
    pub(crate) tuning: Option<Tuning>,
    pub(crate) answer_form: AnswerForm,
    pub(crate) evens_positions: bool,
    pub(crate) item_tokens: usize,
    pub(crate) context_tokens: usize,
    pub(crate) temperature: f32,
    /// Fields of requests that the servers want.
    pub(crate) request_fields: Arc<BTreeMap<String, serde_json::Value>>,
    pub(crate) transport_retries: u32,
    pub(crate) content_retries: u32,
    pub(crate) pack_wait: Duration,
    pub(crate) watches_servers: bool,
    pub(crate) waits_by_gauge: bool,
    pub(crate) seed: Option<u64>,
    pub(crate) labels_with_parents: bool,
    pub(crate) abstain_below: f32,
    pub(crate) output_language: Option<String>,
    pub(crate) remembered_texts: usize,
    #[cfg(feature = "near-duplicates")]
    pub(crate) near_duplicates: Option<crate::NearDuplicates>,
}

/// Tokens of one object of an answer beside its label, with the blanks that vLLM writes after colons and commas.
const OBJECT_TOKENS: usize = 16;
/// Tokens between two labels of an item.
const BETWEEN_LABELS_TOKENS: usize = 4;
/// Tokens of the answer around its objects, the wrapper of an object root included.
const AROUND_TOKENS: usize = 16;
/// Tokens of a short item in its frame.
const SHORT_ITEM_TOKENS: usize = 64;

impl Shared {
    /// The most tokens that an answer for so many items may take: tight, since a constrained decoder can loop in white
    /// space until the limit.
    pub(crate) fn max_output_tokens(&self, pack_len: usize) -> usize {
        let further = self.settings.answer_form.most_labels() - 1;
        let labels = self.longest_label_tokens + further * (self.longest_label_tokens + BETWEEN_LABELS_TOKENS);
        AROUND_TOKENS + pack_len * (OBJECT_TOKENS + labels)
    }

    /// A new run begins: unless others are under way, what an earlier one held against the endpoints is forgotten.
    pub(crate) fn begin_run(&self) {
        std::iter::once(&self.pool).chain(&self.stronger).for_each(|pool| pool.begin_run());
    }

    /// The fewest tokens that a request takes.
    pub(crate) fn least_tokens(&self) -> usize {
        self.prefix.tokens() + self.max_output_tokens(1) + SHORT_ITEM_TOKENS
    }

    /// The name of a category as it is given out.
    pub(crate) fn name_of(&self, category: &Category) -> Arc<str> {
        let language = self.settings.output_language.as_deref();
        language.map_or(&*category.name, |language| category.name_in(language)).into()
    }

    /// The estimated tokens that the texts and frames of a pack of so many items may take.
    pub(crate) fn pack_budget_tokens(&self, pack_size: usize) -> usize {
        let context = self.pool.context_tokens().unwrap_or(usize::MAX).min(self.settings.context_tokens);
        let around = self.estimator.predict(self.prefix.tokens(), CLOSING_TOKENS) + self.max_output_tokens(pack_size);
        // A tenth stays free, since these are estimates.
        let free = context.saturating_sub(around) / 10 * 9;
        let one_estimated = self.estimator.predict(0, 1_000).max(1);
        free.saturating_mul(1_000) / one_estimated
    }
}

/// Probabilities that were corrected, and by what.
pub(crate) struct Corrected {
    pub(crate) probabilities: Vec<(usize, f32)>,
    pub(crate) version: Arc<str>,
}

/// How many runners-up an assignment lists.
const RUNNERS_UP: usize = 3;

impl Shared {
    /// What is handed on: an answer that is not probable enough is none.
    pub(crate) fn handed_on(&self, result: Result<Assignment, ItemError>) -> Result<Assignment, ItemError> {
        let assignment = result?;
        match assignment.confidence {
            Some(confidence) if confidence < self.settings.abstain_below => {
                let mut error = ItemError::of(ItemErrorKind::BelowThreshold);
                error.attempts = assignment.origin.attempts;
                error.best = Some((assignment.category, confidence));
                Err(error)
            }
            _ => Ok(assignment),
        }
    }

    /// The probabilities of a label as the calibration for the model corrects them; none where there is none.
    pub(crate) fn calibrated(
        &self,
        label: &Label,
        pack_size: usize,
        position: usize,
        model: &str,
    ) -> Option<Corrected> {
        let calibration = self.calibrations.iter().find(|calibration| calibration.model == model)?;
        (!label.probabilities.is_empty()).then(|| Corrected {
            probabilities: calibration.correct(&label.probabilities, pack_size, position),
            version: Arc::clone(&calibration.version),
        })
    }

    /// The origin of an answer for a single item that no request was made for; the rest is for the caller to say.
    pub(crate) fn origin(&self, endpoint: &Arc<str>, model: &Arc<str>) -> Origin {
        Origin {
            engine: Engine::LanguageModel,
            endpoint: Arc::clone(endpoint),
            model: Arc::clone(model),
            prompt_version: self.prefix.version().clone(),
            attempts: 0,
            pack_size: 1,
            position: 1,
            written: None,
            calibration: None,
            first_answer: None,
            duplicate_of: None,
            from_ledger: false,
            similarity: None,
        }
    }

    /// What a label says about an item, corrected or as it was written.
    pub(crate) fn assignment(
        &self,
        label: &Label,
        corrected: Option<&Corrected>,
        mut origin: Origin,
    ) -> Option<Assignment> {
        let taxonomy = &self.taxonomy;
        let written = taxonomy.at(label.category)?;
        let share = |&(position, share): &(usize, f32)| Some((taxonomy.at(position)?.id.clone(), share));
        let further = |&(at, share): &(usize, Option<f32>)| Some((taxonomy.at(at)?.id.clone(), share));
        let chosen = corrected.and_then(|of| of.probabilities.first()).map_or(label.category, |best| best.0);
        let probabilities = corrected.map_or(&label.probabilities, |of| &of.probabilities);
        let category = taxonomy.at(chosen)?;
        let is_other = |&&(position, _): &&(usize, f32)| position != chosen;
        origin.written = (chosen != label.category).then(|| written.id.clone());
        origin.calibration = corrected.map(|of| Arc::clone(&of.version));
        Some(Assignment {
            category: category.id.clone(),
            name: self.name_of(category),
            category_hash: taxonomy.hash_at(chosen)?.clone(),
            is_fallback: category.fallback,
            confidence: probabilities.iter().find(|share| share.0 == chosen).map(|share| share.1),
            runners_up: probabilities.iter().filter(is_other).take(RUNNERS_UP).filter_map(share).collect(),
            probabilities: label.probabilities.iter().filter_map(share).collect(),
            secondary: label.secondary.iter().filter_map(further).collect(),
            secondary_paths: Vec::new(),
            origin,
        })
    }
}

/// The tokens of a taxonomy's longest label at worst: about one for three letters.
pub(crate) fn longest_label_tokens(taxonomy: &Taxonomy) -> usize {
    let tokens = |label: &str| tokens::estimate(label).max(label.len().div_ceil(3));
    taxonomy.categories().map(|category| tokens(category.id.as_str())).max().unwrap_or(1)
}
