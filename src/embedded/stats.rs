//! What the tiers of a run did, and how often they agreed.

use serde::Serialize;

use crate::evaluate::Interval;

/// What the engine in the process did in a run, and how often the LLM agreed with it.
///
/// Counts are of items whose texts differ: copies are not looked at. What is left of the items was asked at the LLM.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FirstOpinionStats {
    /// The embedding model.
    pub model: String,
    /// Items that it looked at.
    pub looked_at: u64,
    /// Items that it settled by the nearest category.
    pub settled: u64,
    /// Items that the learned head settled.
    pub settled_by_head: u64,
    /// Items in another script than Latin, which it knows little of. Beside endpoints, it settles none of them.
    pub other_script: u64,
    /// How sure it must be now to settle an item; none while that is not known.
    pub threshold: Option<f32>,
    /// Items that it was sure of and that were asked at the LLM all the same.
    pub audited: u64,
    /// Those of them that the LLM gave the same category.
    pub agreed: u64,
    /// Why it looks at nothing any more, where it has failed; a service tries it again after a minute.
    pub lost_because: Option<String>,
    /// The learned head, where one is wanted.
    pub head: Option<HeadStats>,
}

/// What the learned head did in a run; see [`Learning`](super::Learning).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct HeadStats {
    /// Whether it settles items now.
    pub is_on: bool,
    /// Why it does not, in words.
    pub off_because: Option<String>,
    /// Answers that were collected since the start or the last drift, by all runs of the categorizer.
    pub answers: u64,
    /// Answers that the present head was learned from.
    pub learned_from: u64,
    /// How sure it must be to settle an item.
    pub threshold: Option<f32>,
    /// How many of the answers held out agreed above the threshold, and of how many.
    pub held_out: Option<(u64, u64)>,
    /// Items that it was sure of and that were asked at the LLM all the same.
    pub audited: u64,
    /// Those of them that the LLM gave the same category.
    pub agreed: u64,
    /// How often it was found to have drifted away from the LLM, and its items were handed back.
    pub drifts: u64,
}

impl FirstOpinionStats {
    /// The share of items that the embedding model agreed on with the LLM where it was sure, with its 95 % interval; none where
    /// nothing was audited.
    pub fn agreement(&self) -> Option<(f64, Interval)> {
        agreement(self.agreed, self.audited)
    }
}

impl HeadStats {
    /// The same for the learned head.
    pub fn agreement(&self) -> Option<(f64, Interval)> {
        agreement(self.agreed, self.audited)
    }
}

fn agreement(agreed: u64, of: u64) -> Option<(f64, Interval)> {
    (of > 0).then(|| (agreed as f64 / of as f64, Interval::wilson(agreed, of)))
}

/// What is counted of one run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) looked_at: u64,
    pub(crate) settled: u64,
    pub(crate) settled_by_head: u64,
    pub(crate) other_script: u64,
    pub(crate) audited: u64,
    pub(crate) agreed: u64,
    pub(crate) head_audited: u64,
    pub(crate) head_agreed: u64,
}
