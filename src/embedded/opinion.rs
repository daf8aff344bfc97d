//! What a first opinion may settle.

use std::fmt;
use std::sync::Arc;

use super::labels::DEFAULT_TEMPERATURE;
use super::{Embed, Learning};
use crate::taxonomy::Taxonomy;

/// An embedding model that looks at every item first and settles those that it is sure of.
///
/// Which these are is set in one of three ways: by agreement with the LLM ([`agreeing`](Self::agreeing)), by share
/// ([`share`](Self::share)) or by confidence ([`above`](Self::above)). With [`learn`](Self::learn) a linear head joins it, alone
/// where none of the three is set. Items in another script than Latin are never settled.
///
/// Exact copies are found before, and answers in a ledger come first. A random share of the items, the audit, is asked at the
/// LLM as well, whose answer then counts.
///
/// It works beside the LLM, not in its place: while the servers are down, items that it would be sure of wait, too, once a few
/// others stand before them.
///
/// Defaults: agreement of 0.95, an audit of 0.05.
#[derive(Clone)]
pub struct FirstOpinion {
    pub(super) model: Arc<dyn Embed>,
    pub(super) rule: Option<Rule>,
    pub(super) audit: f64,
    pub(super) temperature: f32,
    pub(super) learning: Option<Learning>,
}

/// Which items are settled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// All: there is no LLM.
    All,
    Above(f32),
    Agreeing(f64),
    Share(f64),
}

impl fmt::Debug for FirstOpinion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FirstOpinion")
            .field("model", &self.model.name())
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}

impl FirstOpinion {
    /// The first opinion of this model.
    pub fn of(model: impl Embed) -> Self {
        let model = Arc::new(model);
        Self { model, rule: None, audit: 0.05, temperature: DEFAULT_TEMPERATURE, learning: None }
    }

    /// The opinion of the model on everything, where there is no LLM.
    pub(crate) fn alone(model: impl Embed) -> Self {
        Self { rule: Some(Rule::All), audit: 0.0, ..Self::of(model) }
    }

    /// Settles what reaches the lowest confidence above which the model agrees with the LLM in this share of items, 0 to 1, with
    /// 95 % confidence. It is found from the audited items, all of the first 200 and then a share, and found anew after every
    /// 50 of them; until then, and while there is none, nothing is settled. This is the default, with 0.95.
    #[must_use]
    pub fn agreeing(self, target: f64) -> Self {
        Self { rule: Some(Rule::Agreeing(target)), ..self }
    }

    /// Settles this share of the items, 0 to 1, those with the highest confidence among the last 1,000; nothing of the first 100.
    #[must_use]
    pub fn share(self, share: f64) -> Self {
        Self { rule: Some(Rule::Share(share)), ..self }
    }

    /// Settles what has this confidence or more, 0 to 1.
    #[must_use]
    pub fn above(self, confidence: f32) -> Self {
        Self { rule: Some(Rule::Above(confidence)), ..self }
    }

    /// The share of items, 0 to 1, that are asked at the LLM however sure the engine is, to measure how often they agree.
    /// Default: 0.05. With 0 nothing is measured, and a drift is not noticed.
    #[must_use]
    pub fn audit(self, share: f64) -> Self {
        Self { audit: share, ..self }
    }

    /// What the similarities of the model are flattened by to probabilities: `softmax(cosine / temperature)`. Default: 0.038,
    /// fitted on AG News with all-MiniLM-L6-v2. On labelled items of your own, a
    /// [`Calibration`](crate::calibration::Calibration) for the model's name does the same and more.
    #[must_use]
    pub fn temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }

    /// Learns a linear head from the answers of the LLM. Default: none.
    #[must_use]
    pub fn learn(self, learning: Learning) -> Self {
        Self { learning: Some(learning), ..self }
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        self.model.name()
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.rule == Some(Rule::All)
    }

    /// What is wrong with the numbers, or does not fit.
    pub(crate) fn problems(&self, taxonomy: &Taxonomy) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |is_right: bool, problem: &str| {
            if !is_right {
                problems.push(problem.to_owned());
            }
        };
        match self.rule {
            Some(Rule::Agreeing(target)) => need(
                target > 0.0 && target < 1.0,
                "the agreement wanted of a first opinion must be above 0 and below 1",
            ),
            Some(Rule::Share(share)) => {
                need((0.0..=1.0).contains(&share), "the share for a first opinion must be 0 to 1");
            }
            Some(Rule::Above(confidence)) => {
                need((0.0..=1.0).contains(&confidence), "the confidence for a first opinion must be 0 to 1");
            }
            Some(Rule::All) | None => {}
        }
        need((0.0..=1.0).contains(&self.audit), "the share for the audit must be 0 to 1");
        let needs_audit = self.learning.is_some() || matches!(self.rule, None | Some(Rule::Agreeing(_)));
        need(
            self.is_alone() || self.audit > 0.0 || !needs_audit,
            "an agreement cannot be kept without an audit: audit a share above 0",
        );
        need(
            self.temperature > 0.0 && self.temperature.is_finite(),
            "the temperature of an embedding model must be above 0",
        );
        problems.extend(self.learning.iter().flat_map(|learning| learning.problems(taxonomy, &self.model.identity())));
        problems
    }
}
