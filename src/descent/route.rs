//! The paths of one item, and which of them are followed. Pure: no clock, no server.

use tokio::time::Instant;

use super::nodes::Nodes;
use super::{CategoryPath, PathEnd, PathStep};
use crate::NewsItem;
use crate::error::{ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Outcome};
use crate::taxonomy::{Category, CategoryId};

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
    /// Of several labels: how far it is from the first of every level.
    rank: usize,
    /// Whether it took the best child everywhere, as a walk without a beam does.
    is_first: bool,
}

/// What is known of an item.
#[derive(Debug)]
pub(super) struct Walker {
    pub(super) index: u64,
    pub(super) item: NewsItem,
    pub(super) taken_in: Instant,
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
    pub(super) fn new(index: u64, item: NewsItem, taken_in: Instant) -> Self {
        Self { index, item, taken_in, asked: 1, reached: Vec::new() }
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
        // Of several labels the model says which is the first; else the most probable path is.
        self.reached.sort_by(|a, b| a.rank.cmp(&b.rank).then(b.probability.total_cmp(&a.probability)));
        self.reached.truncate(nodes.descent().beam.max(nodes.most_labels()));
        let (ended, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.reached).into_iter().partition(|route| route.end.is_some());
        self.reached = ended;
        self.asked = open.len();
        if open.is_empty() { Next::Settle(Box::new(self.settle(nodes))) } else { Next::Ask(open) }
    }

    /// The outcome by the most probable path.
    fn settle(&mut self, nodes: &Nodes) -> Outcome {
        let mut ended = std::mem::take(&mut self.reached);
        // A further label whose next level failed stays what it was known to be. A runner-up is of no use then, and asking for more
        // paths must not lose an item.
        let has_failed = |route: &Route| matches!(route.end, Some((PathEnd::Failed, _)));
        if nodes.most_labels() == 1 {
            ended.retain(|route| route.is_first || !has_failed(route));
        }
        let mut ended = ended.into_iter();
        let best = ended.next().unwrap_or_else(Route::top);
        let is_kept = |route: &Route| nodes.most_labels() > 1 || !has_failed(route);
        let others: Vec<Route> = ended.filter(is_kept).filter(|route| route.category().is_some()).collect();
        let (result, path) = best.conclude(others, nodes);
        Outcome { id: std::mem::take(&mut self.item.id), index: self.index, result, path: Some(Box::new(path)) }
    }
}

impl Route {
    /// The path of an item that has not been asked about.
    pub(super) fn top() -> Self {
        Self { probability: 1.0, is_sure: true, is_first: true, ..Self::default() }
    }

    /// The level that it is asked about, from 1.
    pub(super) fn level(&self) -> usize {
        self.steps.len() + 1
    }

    fn category(&self) -> Option<&CategoryId> {
        self.steps.last().map(|step| &step.category)
    }

    fn into_path(self) -> CategoryPath {
        CategoryPath { steps: self.steps, end: self.end.map_or(PathEnd::Failed, |(end, _)| end) }
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
        let secondary = std::mem::take(&mut assignment.secondary);
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
        let others = others.map(|(category, share)| (category, Some(share)));
        let is_followed =
            |(_, share): &(CategoryId, Option<f32>)| share.is_none_or(|share| share >= descent.stop_below);
        let several = secondary.into_iter().filter(is_followed);
        let labels = std::iter::once(best).chain(several).zip(0..);
        // Of one label, the runners-up are as good as their probability.
        let labels = labels.map(|(choice, rank)| (choice, rank, rank == 0));
        let choices = labels.chain(others.map(|choice| (choice, 0, false)));
        let step = |((category, confidence), rank, is_first): ((CategoryId, Option<f32>), usize, bool)| {
            let is_first = self.is_first && is_first;
            Some(Self { rank: self.rank + rank, is_first, ..self.step(&category, confidence, nodes)? })
        };
        choices.filter_map(step).collect()
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

    /// The outcome by this path; the others are those that ended with a category, too.
    fn conclude(self, others: Vec<Self>, nodes: &Nodes) -> (Result<Assignment, ItemError>, CategoryPath) {
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
                    let share = |other: &Self| Some((other.category()?.clone(), other.probability));
                    others.iter().filter_map(share).take(RUNNERS_UP).collect()
                };
                let further = if nodes.most_labels() > 1 { further(others, &step.category, nodes) } else { Vec::new() };
                let label =
                    |route: &Self| Some((route.category()?.clone(), route.is_sure.then_some(route.probability)));
                Ok(Assignment {
                    category: step.category.clone(),
                    name: step.name.clone(),
                    category_hash: own.map(Category::hash).unwrap_or_default().into(),
                    is_fallback,
                    confidence: self.is_sure.then_some(self.probability),
                    runners_up,
                    probabilities: [].into(),
                    secondary: further.iter().filter_map(label).collect(),
                    secondary_paths: further.into_iter().map(Self::into_path).collect(),
                    origin: last.origin,
                })
            }
            // The best child of the top was not probable enough, so there is no category to stay at.
            (None, ..) => {
                let best = match &end {
                    PathEnd::BelowThreshold { best, confidence } => Some((best.clone(), *confidence)),
                    _ => None,
                };
                Err(ItemError { attempts, best, ..ItemError::of(ItemErrorKind::BelowThreshold) })
            }
        };
        (result, CategoryPath { steps: self.steps, end })
    }
}

/// The paths to the further categories of an item, each once, none that is above another of them or above the first.
fn further(others: Vec<Route>, first: &CategoryId, nodes: &Nodes) -> Vec<Route> {
    let taxonomy = nodes.taxonomy();
    let given: Vec<CategoryId> =
        std::iter::once(first).chain(others.iter().filter_map(Route::category)).cloned().collect();
    let is_above = |id: &CategoryId, other: &CategoryId| {
        let positions = taxonomy.position(id.as_str()).zip(taxonomy.position(other.as_str()));
        positions.is_some_and(|(above, below)| taxonomy.is_above(above, below))
    };
    let mut kept: Vec<Route> = Vec::new();
    for route in others {
        let Some(id) = route.category() else { continue };
        let is_new = id != first && kept.iter().all(|known| known.category() != Some(id));
        if is_new && !given.iter().any(|other| is_above(id, other)) {
            kept.push(route);
        }
    }
    kept
}
