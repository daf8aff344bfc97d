//! The walk through a tree of categories, level by level.
//!
//! Each category with children has a run of its own with its own prefix, which lists these children and the category itself,
//! the choice to go no deeper. All runs share the endpoints. A walk hands items to them in whole packs and decides by their
//! answers where an item goes next:
//!
//! ```text
//! source -> top -> queue of a category -> its run -> route: leaf, stays, not sure, failed -> outcome with the path
//!                    ^                                  |
//!                    +----------- one level down -------+
//! ```

mod nodes;
mod queue;
mod route;
mod walk;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use std::sync::Arc;

pub(crate) use self::nodes::Nodes;
pub(crate) use self::walk::Walk;
use crate::outcome::rounded;
use crate::taxonomy::CategoryId;

/// How a tree of categories is walked level by level.
///
/// A taxonomy with parents that does not fit one prompt is always walked; a smaller one when a builder is given this
/// ([`CategorizerBuilder::descend`](crate::CategorizerBuilder::descend)).
///
/// At each level the model chooses among the children of the category that the item has reached, or that the item goes no
/// deeper. Items at the same category share packs and its prefix. A queue that does not fill a pack waits while the servers
/// have other packs to answer, and leaves at once when they have not.
///
/// Defaults: the best child at each level, whatever its confidence; packs prefer the endpoints that have their prefix.
///
/// ```
/// let descent = slugline::Descent::default().beam(3).stop_below(0.4);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Descent {
    pub(crate) beam: usize,
    pub(crate) stop_below: f32,
    pub(crate) has_affinity: bool,
}

impl Default for Descent {
    fn default() -> Self {
        Self { beam: 1, stop_below: 0.0, has_affinity: true }
    }
}

/// The widest beam: an answer names its category and three runners-up.
const MAX_BEAM: usize = 4;

impl Descent {
    /// How many paths of an item are followed, 1 to 4: those with the highest probability, which is the product of the
    /// confidences along the path. At the end the most probable path is taken. Costs up to as many times the requests; without
    /// log-probabilities one path alone is followed. Default: 1.
    #[must_use]
    pub fn beam(self, paths: usize) -> Self {
        Self { beam: paths, ..self }
    }

    /// An item goes no deeper when the confidence of the best child is below this, 0 to 1; at the top level it then has no
    /// category ([`ItemErrorKind::BelowThreshold`](crate::ItemErrorKind::BelowThreshold)). Answers without a confidence are
    /// followed. Default: 0.
    #[must_use]
    pub fn stop_below(self, confidence: f32) -> Self {
        Self { stop_below: confidence, ..self }
    }

    /// Whether packs of one prefix prefer the endpoints that were sent it lately and should have it cached, unless these have
    /// clearly more to do than others. It costs nothing where there is one endpoint. Default: true.
    #[must_use]
    pub fn affinity(self, wanted: bool) -> Self {
        Self { has_affinity: wanted, ..self }
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let is_right = [
            ((1..=MAX_BEAM).contains(&self.beam), "the beam of a descent must be 1 to 4 paths"),
            ((0.0..=1.0).contains(&self.stop_below), "the confidence below which a descent stops must be 0 to 1"),
        ];
        is_right.into_iter().filter(|(is_right, _)| !is_right).map(|(_, problem)| problem.to_owned()).collect()
    }
}

/// The way of an item through a tree of categories.
///
/// Serialized it is `{"steps": [["sport", 0.97], …], "end": "stays", "end_confidence": 0.8}`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CategoryPath {
    /// The categories from the top level down, each a child of the one before; the last is the item's category.
    pub steps: Vec<PathStep>,
    /// Why it goes no further.
    pub end: PathEnd,
}

/// A level of a [`CategoryPath`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PathStep {
    /// The category.
    pub category: CategoryId,
    /// Its name.
    pub name: Arc<str>,
    /// Its probability among its siblings and the choice to go no deeper; none when the server gives no log-probabilities.
    pub confidence: Option<f32>,
}

/// Why a [`CategoryPath`] goes no further.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PathEnd {
    /// The last category has no children.
    Leaf,
    /// The model chose to go no deeper.
    Stays {
        /// The probability of that choice.
        confidence: Option<f32>,
    },
    /// The best child was not probable enough.
    BelowThreshold {
        /// The best child.
        best: CategoryId,
        /// Its probability.
        confidence: f32,
    },
    /// The item could not be asked at this level; the reason is the outcome's error.
    Failed,
}

impl PathEnd {
    /// The reason as it is written in outputs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Stays { .. } => "stays",
            Self::BelowThreshold { .. } => "below-threshold",
            Self::Failed => "failed",
        }
    }
}

impl Serialize for CategoryPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let steps: Vec<_> = self.steps.iter().map(|step| (&step.category, step.confidence.map(rounded))).collect();
        let mut fields = serializer.serialize_struct("CategoryPath", 4)?;
        fields.serialize_field("steps", &steps)?;
        fields.serialize_field("end", self.end.as_str())?;
        match &self.end {
            PathEnd::Stays { confidence: Some(confidence) } => {
                fields.serialize_field("end_confidence", &rounded(*confidence))?;
            }
            PathEnd::BelowThreshold { best, confidence } => {
                fields.serialize_field("best", best)?;
                fields.serialize_field("end_confidence", &rounded(*confidence))?;
            }
            PathEnd::Leaf | PathEnd::Stays { confidence: None } | PathEnd::Failed => {}
        }
        fields.end()
    }
}

/// What a walk has measured at one level of the tree, as part of [`Stats`](crate::Stats).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LevelStats {
    /// The level, from 1 for the top.
    pub level: usize,
    /// The categories whose children were asked about.
    pub nodes: usize,
    /// Items that were asked about here, once for each path of a beam and for each of several categories.
    pub items: u64,
    /// Items whose path ended here with a category that has no children; of several categories, the path of the first.
    pub leaf: u64,
    /// Items whose path ended here since the model chose to go no deeper.
    pub stays: u64,
    /// Items whose path ended here since no child was probable enough.
    pub below_threshold: u64,
    /// Items whose path ended here since they could not be asked.
    pub failed: u64,
    /// Attempts that were sent.
    pub requests: u64,
    /// The attempts for each pack's worth of the items that had to be asked: 1 when all packs are full and all are answered
    /// at once. None before any was asked.
    pub requests_per_pack: Option<f64>,
    /// Prompt tokens as the servers counted them.
    pub prompt_tokens: u64,
    /// Prompt tokens that came from the servers' prefix caches; none when no server says.
    pub cached_tokens: Option<u64>,
    /// Generated tokens as the servers counted them.
    pub output_tokens: u64,
}
