//! The paths of one item, and which of them are followed. Pure: no clock, no server.

use super::nodes::Nodes;
use super::{Path, PathEnd, PathStep};
use crate::NewsItem;
use crate::error::{ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Outcome};
use crate::taxonomy::CategoryId;

/// The most runners-up of an outcome.
const RUNNERS_UP: usize = 3;

/// A path that is followed, or has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    steps: Vec<PathStep>,
    /// The category that it has reached; none at the top.
    pub(super) at: Option<usize>,
    /// The product of the confidences along it; those that are unknown count as 1.
    probability: f32,
    is_sure: bool,
    /// The last answer, with the attempts of all levels, and what the path's probability was before it.
    last: Option<(Assignment, f32)>,
    end: Option<(PathEnd, Option<ItemError>)>,
}

/// What is known of an item.
#[derive(Debug)]
pub(super) struct Walker {
    pub(super) index: u64,
    pub(super) item: NewsItem,
    /// The paths that are being asked about.
    asked: usize,
    /// The paths that the answers led to, those that ended included.
    reached: Vec<Route>,
}

/// What to do with an item after an answer.
pub(super) enum Next {
    /// Other paths are still being asked about.
    Wait,
    /// These paths go one level deeper.
    Ask(Vec<Route>),
    /// It is settled.
    Settle(Box<Outcome>),
}

impl Walker {
    /// An item whose first question is being asked.
    pub(super) fn new(index: u64, item: NewsItem) -> Self {
        Self { index, item, asked: 1, reached: Vec::new() }
    }

    /// Takes the answer about one path.
    pub(super) fn answered(&mut self, route: Route, result: Result<Assignment, ItemError>, nodes: &Nodes) -> Next {
        self.asked -= 1;
        match result {
            Ok(assignment) => self.reached.extend(route.expand(assignment, nodes)),
            Err(error) => self.reached.push(route.ended(PathEnd::Failed, Some(error))),
        }
        if self.asked > 0 {
            return Next::Wait;
        }
        self.reached.sort_by(|a, b| b.probability.total_cmp(&a.probability));
        self.reached.truncate(nodes.descent().beam);
        let (ended, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.reached).into_iter().partition(|route| route.end.is_some());
        self.reached = ended;
        self.asked = open.len();
        if open.is_empty() { Next::Settle(Box::new(self.settle(nodes))) } else { Next::Ask(open) }
    }

    /// The outcome by the most probable path.
    fn settle(&mut self, nodes: &Nodes) -> Outcome {
        let mut ended = std::mem::take(&mut self.reached).into_iter();
        let best = ended.next().unwrap_or_else(Route::top);
        let others: Vec<_> = ended.filter_map(|route| Some((route.category()?.clone(), route.probability))).collect();
        let (result, path) = best.conclude(others, nodes);
        Outcome { id: std::mem::take(&mut self.item.id), index: self.index, result, path: Some(Box::new(path)) }
    }
}

impl Route {
    /// The path of an item that has not been asked about.
    pub(super) fn top() -> Self {
        Self { probability: 1.0, is_sure: true, ..Self::default() }
    }

    /// The level that it is asked about, from 1.
    pub(super) fn level(&self) -> usize {
        self.steps.len() + 1
    }

    fn category(&self) -> Option<&CategoryId> {
        self.steps.last().map(|step| &step.category)
    }

    fn ended(mut self, end: PathEnd, error: Option<ItemError>) -> Self {
        self.end = Some((end, error));
        self
    }

    /// The paths that an answer leads to: that of its category first, those of its runners-up where they are followed, too.
    fn expand(mut self, mut assignment: Assignment, nodes: &Nodes) -> Vec<Self> {
        let descent = nodes.descent();
        let best = (assignment.category.clone(), assignment.confidence);
        let runners_up: Vec<_> = assignment.runners_up.clone();
        assignment.origin.attempts += self.last.as_ref().map_or(0, |(last, _)| last.origin.attempts);
        let before = self.probability;
        self.last = Some((assignment, before));
        if let (category, Some(confidence)) = &best
            && *confidence < descent.stop_below
            && nodes.taxonomy().position(category.as_str()) != self.at
        {
            let end = PathEnd::BelowThreshold { best: category.clone(), confidence: *confidence };
            return vec![self.ended(end, None)];
        }
        let others = runners_up.into_iter().filter(|(_, share)| *share >= descent.stop_below).take(descent.beam - 1);
        let choices = std::iter::once(best).chain(others.map(|(category, share)| (category, Some(share))));
        choices.filter_map(|(category, confidence)| self.step(&category, confidence, nodes)).collect()
    }

    /// The path one level further, or its end.
    fn step(&self, category: &CategoryId, confidence: Option<f32>, nodes: &Nodes) -> Option<Self> {
        let position = nodes.taxonomy().position(category.as_str())?;
        let mut route = self.clone();
        route.probability *= confidence.unwrap_or(1.0);
        route.is_sure &= confidence.is_some();
        if Some(position) == self.at {
            return Some(route.ended(PathEnd::Stays { confidence }, None));
        }
        route.at = Some(position);
        let category = nodes.id(position)?.clone();
        route.steps.push(PathStep { category, name: nodes.name(position), confidence });
        Some(if nodes.taxonomy().is_leaf(position) { route.ended(PathEnd::Leaf, None) } else { route })
    }

    fn conclude(self, others: Vec<(CategoryId, f32)>, nodes: &Nodes) -> (Result<Assignment, ItemError>, Path) {
        let (end, error) = self.end.unwrap_or((PathEnd::Failed, None));
        let attempts = self.last.as_ref().map_or(0, |(last, _)| last.origin.attempts);
        let result = match (error, self.steps.last(), self.last) {
            (Some(error), ..) => Err(ItemError { attempts: error.attempts + attempts, ..error }),
            (None, Some(step), Some((last, before))) => {
                let own = nodes.taxonomy().find(step.category.as_str());
                let is_fallback = own.is_some_and(|category| category.fallback);
                // Along one path, the others of the last level are the runners-up.
                let scaled = |(category, share): &(CategoryId, f32)| (category.clone(), share * before);
                let level = std::iter::once((last.category.clone(), last.confidence.unwrap_or(0.0)));
                let siblings = level.chain(last.runners_up.iter().cloned()).filter(|(id, _)| *id != step.category);
                let runners_up = if nodes.descent().beam == 1 {
                    siblings.map(|sibling| scaled(&sibling)).take(RUNNERS_UP).collect()
                } else {
                    others.into_iter().take(RUNNERS_UP).collect()
                };
                Ok(Assignment {
                    category: step.category.clone(),
                    name: step.name.clone(),
                    is_fallback,
                    confidence: self.is_sure.then_some(self.probability),
                    runners_up,
                    probabilities: [].into(),
                    origin: last.origin,
                })
            }
            // The best child of the top was not probable enough, so there is no category to stay at.
            (None, ..) => Err(ItemError { attempts, ..ItemError::of(ItemErrorKind::BelowThreshold) }),
        };
        (result, Path { steps: self.steps, end })
    }
}
