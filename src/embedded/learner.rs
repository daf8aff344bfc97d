//! The tier that learns: from the answers of the LLM on a random share of items, while a run goes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::head::{self, Answer, LearnedHead, Trained};
use super::stats::HeadStats;
use super::{ranked, threshold};
use crate::evaluate::{Interval, Z_99};
use crate::taxonomy::Taxonomy;

/// How a linear head is learned on the vectors of the embedding model.
///
/// The LLM's answers to a random share of the items train it; a quarter of them is held out to measure it. When its agreement
/// with the answers held out reaches the target with 95 % confidence above some threshold, it settles the items above that. (The
/// threshold is the best of many, so the lower end of the Wilson interval of each must reach the target at 99 %.) The
/// [audit](super::FirstOpinion::audit) goes on: when the agreement over its last 60 items is below the target with 99 %
/// confidence, the stream has drifted away from what was learned, its items go to the LLM again, and it learns anew from then on.
/// So long as it is off, [`HeadStats::off_because`] says why.
///
/// Which items are audited and which are held out is decided by their texts and the seed, whatever run they come in. What is
/// learned also depends on which answers had come when it was time to learn, and so on the pace of the servers. Answers that a
/// ledger gives back are not learned from: keep the head beside the ledger.
///
/// It can be no better than the LLM, and a target that the LLM's own noise does not allow is never reached.
///
/// Defaults: 1,000 answers at least, 4,000 at most, of which the latest count; until it is learned all items are asked.
#[derive(Clone, Debug)]
pub struct Learning {
    target: f64,
    pub(super) share: f64,
    least_answers: usize,
    most_answers: usize,
    head: Option<LearnedHead>,
}

/// The answers that are held out.
const HELD_OUT_SHARE: f64 = 0.25;
/// How many answers more than the last time it takes to learn again.
const GROWTH: f64 = 1.5;
/// The latest audited items that a drift is seen in, and the fewest that say anything. Every audit is a look, so by 95 % a head
/// 2 points above a target of .85 would be taken for drifted after 1,200 audits on average, by 99 % after 7,000, while a drop of
/// 30 points is seen after 22 audits by either (simulated).
const DRIFT_WINDOW: usize = 60;
const LEAST_AUDITED: usize = 20;
/// The fewest answers that anything is learned from.
const FEWEST_ANSWERS: usize = 200;

impl Learning {
    /// Learns until this agreement with the LLM is reached, 0 to 1, for example 0.95.
    pub fn to(agreement: f64) -> Self {
        Self { target: agreement, share: 1.0, least_answers: 1_000, most_answers: 4_000, head: None }
    }

    /// The share of items that are asked to learn from them, 0 to 1, also where the embedding model is sure. Default: 1, which
    /// learns soonest.
    #[must_use]
    pub fn share(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// The answers that must be there before anything is learned, at least 200. Default: 1,000: with fewer, it is off.
    #[must_use]
    pub fn least_answers(self, answers: usize) -> Self {
        Self { least_answers: answers, most_answers: self.most_answers.max(answers), ..self }
    }

    /// The answers that are kept to learn from, the latest: 1.5 KB each with 384 numbers. Default: 4,000.
    #[must_use]
    pub fn most_answers(self, answers: usize) -> Self {
        Self { most_answers: answers, ..self }
    }

    /// Begins with a head that was learned before, for the same taxonomy and embedding model, to this agreement or a higher one.
    /// Default: none.
    #[must_use]
    pub fn head(self, head: LearnedHead) -> Self {
        Self { head: Some(head), ..self }
    }

    pub(super) fn problems(&self, taxonomy: &Taxonomy, model: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut need = |is_right: bool, problem: &str| {
            if !is_right {
                problems.push(problem.to_owned());
            }
        };
        need(self.target > 0.0 && self.target < 1.0, "the agreement to learn to must be above 0 and below 1");
        need(self.share > 0.0 && self.share <= 1.0, "the share of items to learn from must be above 0 and at most 1");
        need(self.least_answers >= FEWEST_ANSWERS, "at least 200 answers are needed to learn from");
        need(self.most_answers >= self.least_answers, "the most answers to learn from must not be below the least");
        problems.extend(self.head.as_ref().and_then(|head| head.misfit(taxonomy, model, self.target)));
        problems
    }
}

/// What was learned so far.
#[derive(Debug)]
pub(super) struct Learner {
    learning: Learning,
    answers: VecDeque<Known>,
    /// Answers since the start, or since the last drift.
    collected: usize,
    /// When to learn next.
    learn_at: usize,
    is_learning: bool,
    head: Option<Arc<LearnedHead>>,
    /// What came of learning last.
    last: Option<(u64, u64)>,
    /// Whether the LLM agreed, for the latest audited items that the head was sure of.
    audited: VecDeque<bool>,
    drifts: u64,
    /// The agreement at the last drift.
    drift: Option<(u64, u64)>,
}

/// An answer with the number of its text, which decides whether it is held out.
#[derive(Clone, Debug)]
struct Known {
    number: u64,
    vector: Arc<[f32]>,
    category: usize,
}

/// Answers to learn from, taken out of the lock.
#[derive(Debug)]
pub(super) struct Lesson {
    answers: Vec<Known>,
    target: f64,
    /// How many drifts had been seen when it was taken out.
    pub(super) drifts: u64,
}

impl Learner {
    pub(super) fn new(mut learning: Learning) -> Self {
        let head = learning.head.take().map(Arc::new);
        Self {
            answers: VecDeque::new(),
            collected: 0,
            learn_at: learning.least_answers,
            is_learning: false,
            head,
            last: None,
            audited: VecDeque::new(),
            drifts: 0,
            drift: None,
            learning,
        }
    }

    pub(super) fn head(&self) -> Option<&Arc<LearnedHead>> {
        self.head.as_ref()
    }

    /// The share of items that it wants answers to.
    pub(super) fn wanted_share(&self) -> f64 {
        if self.head.is_some() { 0.0 } else { self.learning.share }
    }

    pub(super) fn add(&mut self, number: u64, vector: Arc<[f32]>, category: usize) {
        if self.answers.len() >= self.learning.most_answers {
            self.answers.pop_front();
        }
        self.answers.push_back(Known { number, vector, category });
        self.collected += 1;
    }

    /// What to learn from, if it is time to.
    pub(super) fn lesson(&mut self) -> Option<Lesson> {
        if self.is_learning || self.collected < self.learn_at {
            return None;
        }
        self.is_learning = true;
        let mut answers: Vec<Known> = self.answers.iter().cloned().collect();
        // The order in which answers came must not matter.
        answers.sort_by_key(|known| known.number);
        Some(Lesson { answers, target: self.learning.target, drifts: self.drifts })
    }

    /// What came of a lesson that was taken out after so many drifts.
    pub(super) fn learned(&mut self, trained: Trained, drifts: u64) {
        self.is_learning = false;
        if drifts != self.drifts {
            // It was learned from a stream that is no more.
            return;
        }
        self.learn_at = ((self.collected as f64 * GROWTH) as usize).max(self.learn_at + 1);
        self.last = Some((trained.agreed, trained.of));
        let Some(head) = trained.head else {
            tracing::info!(agreed = trained.agreed, of = trained.of, "what was learned is not sure enough");
            return;
        };
        tracing::info!(answers = head.answers(), threshold = head.threshold(), "a head was learned");
        // What was said of the head before it is not about this one.
        self.audited.clear();
        self.head = Some(Arc::new(head));
    }

    /// An audited item that the head was sure of: hands its items back if the stream has drifted.
    pub(super) fn audit(&mut self, is_same: bool) {
        if self.head.is_none() {
            return;
        }
        if self.audited.len() >= DRIFT_WINDOW {
            self.audited.pop_front();
        }
        self.audited.push_back(is_same);
        let (agreed, of) = (self.audited.iter().filter(|is_same| **is_same).count() as u64, self.audited.len() as u64);
        if self.audited.len() >= LEAST_AUDITED && Interval::wilson_at(Z_99, agreed, of).high < self.learning.target {
            tracing::warn!(agreed, of, "the learned head no longer agrees with the model: its items are handed back");
            self.drifts += 1;
            self.drift = Some((agreed, of));
            // What was answered before the drift is of another stream.
            self.answers.clear();
            self.collected = 0;
            self.learn_at = self.learning.least_answers;
            self.last = None;
            self.audited.clear();
            self.head = None;
        }
    }

    pub(super) fn stats(&self) -> HeadStats {
        let head = self.head.as_deref();
        HeadStats {
            is_on: head.is_some(),
            off_because: head.is_none().then(|| self.reason()),
            answers: self.collected as u64,
            learned_from: head.map_or(0, LearnedHead::answers),
            threshold: head.map(LearnedHead::threshold),
            held_out: head.map(LearnedHead::held_out),
            drifts: self.drifts,
            ..HeadStats::default()
        }
    }

    /// Why it is off, in words.
    fn reason(&self) -> String {
        let (answers, least) = (self.collected, self.learning.least_answers);
        let after = match self.drift {
            Some((agreed, of)) => format!(" since a drift, when {agreed} of {of} agreed"),
            None => String::new(),
        };
        match self.last {
            None if answers >= least => {
                format!("{answers} answers are there, and nothing was learned from them yet{after}")
            }
            None => format!("{answers} of at least {least} answers are there{after}"),
            Some((agreed, of)) => format!(
                "no threshold reaches an agreement of {} at 99 % for {} items or more: {agreed} of {of} answers held out agree \
                 over all{after}",
                self.learning.target,
                threshold::LEAST_ABOVE,
            ),
        }
    }
}

impl Lesson {
    /// Learns; takes a while.
    pub(super) fn learn(&self, seed: u64, taxonomy: &Taxonomy, model: &str) -> Trained {
        let width = self.answers.first().map_or(0, |known| known.vector.len());
        let fits = |known: &&Known| known.category < taxonomy.len() && known.vector.len() == width;
        let answers: Vec<Answer<'_>> = (self.answers.iter().filter(fits))
            .map(|known| Answer {
                vector: &known.vector,
                category: known.category,
                is_held_out: super::desk::chance(seed, known.number, "held out") < HELD_OUT_SHARE,
            })
            .collect();
        head::train(&answers, taxonomy, model, self.target)
    }
}

/// The category that a head gives a vector, with its probability, if it is sure enough.
pub(super) fn sure(head: &LearnedHead, vector: &[f32]) -> Option<Vec<(usize, f32)>> {
    if head.width() != vector.len() {
        return None;
    }
    let shares = ranked(head.probabilities(vector));
    shares.first().is_some_and(|best| best.1 >= head.threshold()).then_some(shares)
}

#[cfg(test)]
mod tests {
    use super::super::head::tests::taxonomy;
    use super::*;

    fn learner() -> Learner {
        Learner::new(Learning::to(0.8).least_answers(400).most_answers(600))
    }

    /// Answers that a head can learn, from an item on.
    fn teach(learner: &mut Learner, from: u64, count: u64) {
        for index in from..from + count {
            let category = (index % 3) as usize;
            let mut vector = vec![0.1; 3];
            vector[category] = 1.0;
            learner.add(index, super::super::normalized(vector).into(), category);
        }
    }

    fn learn(learner: &mut Learner) {
        let lesson = learner.lesson().unwrap();
        learner.learned(lesson.learn(1, &taxonomy(), "fake"), lesson.drifts);
    }

    #[test]
    fn it_is_off_and_says_why_until_there_are_answers_enough() {
        let mut learner = learner();
        teach(&mut learner, 0, 399);
        assert!(learner.lesson().is_none());
        assert_eq!(learner.stats().off_because.unwrap(), "399 of at least 400 answers are there");
        assert!(learner.wanted_share() >= 1.0);
        teach(&mut learner, 399, 1);
        learn(&mut learner);
        let stats = learner.stats();
        assert!(stats.is_on && stats.off_because.is_none() && learner.wanted_share() == 0.0);
        assert!(learner.lesson().is_none(), "not again before there are half as many more");
        let head = learner.head().unwrap();
        assert_eq!(sure(head, &[0.1, 1.0, 0.1]).unwrap()[0].0, 1);
        assert_eq!(sure(head, &[1.0]), None, "a vector of another length");
    }

    #[test]
    fn answers_that_nothing_can_be_learned_from_leave_it_off() {
        let mut learner = learner();
        for index in 0..400 {
            learner.add(index, vec![1.0, 0.0, 0.0].into(), (index % 3) as usize);
        }
        learn(&mut learner);
        let reason = learner.stats().off_because.unwrap();
        assert!(reason.starts_with("no threshold reaches an agreement of 0.8"), "{reason}");
    }

    #[test]
    fn what_was_learned_before_a_drift_is_not_taken_after_it() {
        let mut learner = learner();
        teach(&mut learner, 0, 400);
        learn(&mut learner);
        teach(&mut learner, 400, 400);
        let lesson = learner.lesson().unwrap();
        (0..DRIFT_WINDOW).for_each(|_| learner.audit(false));
        assert!(learner.head().is_none());
        learner.learned(lesson.learn(1, &taxonomy(), "fake"), lesson.drifts);
        assert!(learner.head().is_none());
    }

    #[test]
    fn a_drift_hands_the_items_back_and_it_learns_anew() {
        let mut learner = learner();
        teach(&mut learner, 0, 400);
        learn(&mut learner);
        (0..60).for_each(|_| learner.audit(true));
        let misses = (1..=60).find(|_| {
            learner.audit(false);
            learner.head().is_none()
        });
        // Of 60, the upper end of the interval of 40 agreeing is .7997, of 41 .813.
        assert_eq!(misses, Some(20));
        let stats = learner.stats();
        assert_eq!((stats.drifts, stats.is_on, stats.answers), (1, false, 0));
        assert!(stats.off_because.unwrap().contains("since a drift, when 40 of 60 agreed"));
        teach(&mut learner, 1_000, 400);
        learn(&mut learner);
        assert!(learner.stats().is_on);
    }

    #[test]
    fn a_head_that_is_a_little_better_than_its_target_is_seldom_taken_for_drifted() {
        let mut drifted = 0;
        for seed in 0..20 {
            let mut learner = learner();
            teach(&mut learner, 0, 400);
            learn(&mut learner);
            let mut random = fastrand::Rng::with_seed(seed);
            (0..1_000).for_each(|_| learner.audit(random.f64() < 0.83));
            drifted += learner.stats().drifts;
        }
        assert!(drifted < 8, "{drifted} of 20 runs of 1,000 audits");
    }

    #[test]
    fn the_order_of_the_answers_does_not_matter() {
        let (mut forward, mut backward) = (learner(), learner());
        teach(&mut forward, 0, 400);
        (0..400).rev().for_each(|index| teach(&mut backward, index, 1));
        learn(&mut forward);
        learn(&mut backward);
        assert_eq!(forward.head(), backward.head());
    }

    #[test]
    fn only_the_latest_answers_are_kept() {
        let mut learner = learner();
        teach(&mut learner, 0, 700);
        assert_eq!(learner.lesson().unwrap().answers.len(), 600);
    }
}
