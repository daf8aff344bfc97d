//! Which answers are not sure enough, and how such items are asked again.

use crate::server::EndpointConfig;

/// Asks items again whose first answer is not sure enough, within a share of requests.
///
/// The first answer is never lost: an item that could not be asked again, for whatever reason, keeps it.
///
/// Defaults: asked alone, for at most a fifth of the requests of the first answers.
///
/// ```
/// use slugline::{EndpointConfig, Escalation};
///
/// let alone = Escalation::below(0.6);
/// let vote = Escalation::below(0.6).vote(3).at_most(0.1);
/// let stronger = Escalation::below(0.6).to(EndpointConfig::new("http://gpu-9:8000/v1").model("a-70b-model"));
/// ```
#[derive(Clone, Debug)]
pub struct Escalation {
    pub(crate) below: f32,
    pub(crate) way: Way,
    pub(crate) most_share: f64,
}

/// How an item is asked again.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Without neighbours.
    Alone,
    /// So many times more, in packs of other neighbours and another order; the mean of the probabilities decides.
    Vote(usize),
    /// At another endpoint.
    Stronger(Box<EndpointConfig>),
}

/// The most votes.
const MAX_VOTES: usize = 9;

impl Escalation {
    /// Asks items again whose confidence is below this, 0 to 1. Answers without a confidence are not asked again.
    pub fn below(confidence: f32) -> Self {
        Self { below: confidence, way: Way::Alone, most_share: 0.2 }
    }

    /// Asks in so many more packs, 1 to 9, each with other neighbours and in another order, and takes of the categories that
    /// were answered the one with the highest mean probability over all answers, the first included.
    #[must_use]
    pub fn vote(self, packs: usize) -> Self {
        Self { way: Way::Vote(packs), ..self }
    }

    /// Asks at this endpoint, which has a stronger model; its answer is taken. The items share packs there.
    #[must_use]
    pub fn to(self, endpoint: impl Into<EndpointConfig>) -> Self {
        Self { way: Way::Stronger(Box::new(endpoint.into())), ..self }
    }

    /// The most requests that escalation may cost, relative to the requests of the first answers. Items beyond it keep their
    /// first answer. Default: 0.2.
    #[must_use]
    pub fn at_most(self, share_of_requests: f64) -> Self {
        Self { most_share: share_of_requests, ..self }
    }

    /// What is wrong with the numbers.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(self.below > 0.0 && self.below <= 1.0) {
            problems.push("escalation must be below a confidence of more than 0 and at most 1".to_owned());
        }
        if !(self.most_share > 0.0 && self.most_share.is_finite()) {
            problems.push("the share of requests for escalation must be above 0".to_owned());
        }
        if let Way::Vote(packs) = self.way
            && !(1..=MAX_VOTES).contains(&packs)
        {
            problems.push("votes for escalation must be 1 to 9 packs".to_owned());
        }
        problems
    }

    /// The requests that asking one item again takes, as a share of one where items share packs.
    pub(crate) fn cost(&self, pack_size: usize) -> f64 {
        match self.way {
            Way::Alone => 1.0,
            Way::Vote(packs) => packs as f64 / pack_size as f64,
            Way::Stronger(_) => 1.0 / pack_size as f64,
        }
    }

    /// The answers that are needed beside the first.
    pub(crate) fn answers(&self) -> usize {
        match self.way {
            Way::Alone | Way::Stronger(_) => 1,
            Way::Vote(packs) => packs,
        }
    }
}
