//! What becomes of answers that are not sure enough: asked again, within a share of requests, and never lost.

use std::sync::Arc;

use futures_core::Stream;
use tokio::time::Instant;

use super::job::{Escalated, Item, Tier};
use super::{LOST_FOR, Run};
use crate::NewsItem;
use crate::escalation::{Escalation, Way};
use crate::outcome::Assignment;
use crate::taxonomy::CategoryId;

impl<S: Stream<Item = NewsItem>> Run<S> {
    /// Takes a valid answer for an item: settles the item, or asks again if the answer is not sure enough.
    pub(super) fn opinion(&mut self, mut item: Item, assignment: Assignment) {
        let shared = Arc::clone(&self.shared);
        let Some(escalation) = shared.escalation.as_ref().filter(|_| self.escalates) else {
            return self.settled(item, Ok(assignment));
        };
        if let Some(escalated) = &mut item.escalated {
            escalated.later.push(assignment);
            if escalated.later.len() < escalation.answers() && self.error.is_none() {
                return self.escalate(item, escalation);
            }
            return self.settle_escalated(item);
        }
        self.try_stronger_again();
        if !is_unsure(escalation, &assignment) {
            return self.settled(item, Ok(assignment));
        }
        if self.cannot_escalate() {
            return self.settled_for_now(item, Ok(assignment));
        }
        if !self.may_escalate(escalation) {
            self.recorder.count(|counts| counts.escalations_refused += 1);
            return self.settled(item, Ok(assignment));
        }
        self.recorder.escalated();
        item.escalated = Some(Box::new(Escalated { first: assignment, later: Vec::new() }));
        self.escalate(item, escalation);
    }

    /// Whether nothing is asked again any more, which a later run can mend.
    fn cannot_escalate(&self) -> bool {
        self.error.is_some() || self.stronger_lost_at.is_some()
    }

    /// Takes the item's cost out of the share of requests, if it is there.
    fn may_escalate(&mut self, escalation: &Escalation) -> bool {
        let cost = escalation.cost(self.pack_size);
        let may = self.escalation_requests + cost <= escalation.most_share * self.first_requests as f64;
        if may {
            self.escalation_requests += cost;
        }
        may
    }

    fn escalate(&mut self, mut item: Item, escalation: &Escalation) {
        item.content_failures = 0;
        item.refused_by = None;
        item.alone = item.is_suspect || matches!(escalation.way, Way::Alone);
        let tier = self.tier_of(&item);
        if tier == Tier::Stronger && self.asks_stronger_nothing() {
            self.lane(tier).pool.resume();
        }
        self.lane(tier).packer.push(item);
    }

    fn asks_stronger_nothing(&mut self) -> bool {
        let is_delayed = self.delayed.iter().any(|(_, pack)| pack.tier == Tier::Stronger);
        !is_delayed && self.lane(Tier::Stronger).is_empty()
    }

    /// Which endpoints an item belongs to now.
    pub(super) fn tier_of(&self, item: &Item) -> Tier {
        let has_stronger = self.shared.stronger.is_some();
        if has_stronger && item.escalated.is_some() { Tier::Stronger } else { Tier::First }
    }

    /// Settles an item with what its answers say together. Without a later one the first stands.
    pub(super) fn settle_escalated(&mut self, mut item: Item) {
        let Some(escalated) = item.escalated.take() else { return };
        let Escalated { first, mut later } = *escalated;
        let first_answer = first.confidence.map(|confidence| (first.category.clone(), confidence));
        let is_vote = self.shared.escalation.as_ref().is_some_and(|e| matches!(e.way, Way::Vote(_)));
        let wanted = self.shared.escalation.as_ref().map_or(1, Escalation::answers);
        let is_for_now = later.len() < wanted && self.cannot_escalate();
        let mut assignment = match later.pop() {
            None => first.clone(),
            Some(last) if !is_vote => last,
            Some(last) => vote(&first, last, &later),
        };
        let has_changed = assignment.category != first.category;
        self.recorder.count(|counts| counts.escalations_changed += u64::from(has_changed));
        assignment.origin.first_answer = first_answer;
        if is_for_now { self.settled_for_now(item, Ok(assignment)) } else { self.settled(item, Ok(assignment)) }
    }

    /// A run that serves goes on for days: it tries a lost endpoint again after a while.
    fn try_stronger_again(&mut self) {
        let is_over = |lost_at: &mut Instant| lost_at.elapsed() >= LOST_FOR;
        if self.serves && self.stronger_lost_at.take_if(is_over).is_some() {
            self.lane(Tier::Stronger).pool.begin_run();
        }
    }

    /// The endpoint with the stronger model is lost: its items keep their first answers, and no more are sent there.
    pub(super) fn lose_stronger(&mut self, error: &crate::Error) {
        tracing::warn!(%error, "the endpoint of the escalation is lost; items keep their first answers");
        self.stronger_lost_at = Some(Instant::now());
        let mut items = self.lane(Tier::Stronger).drain();
        let delayed = self.delayed.extract_if(.., |(_, pack)| pack.tier == Tier::Stronger);
        items.extend(delayed.flat_map(|(_, pack)| pack.items));
        items.into_iter().for_each(|item| self.settle_escalated(item));
    }
}

fn is_unsure(escalation: &Escalation, assignment: &Assignment) -> bool {
    // The same request once more would bring the same answer.
    let was_alone = matches!(escalation.way, Way::Alone) && assignment.origin.pack_size == 1;
    !was_alone && assignment.confidence.is_some_and(|confidence| confidence < escalation.below)
}

/// Of the categories that were answered, the one with the highest mean probability over all answers; of equals the one that
/// was said first.
fn vote(first: &Assignment, last: Assignment, others: &[Assignment]) -> Assignment {
    let answers: Vec<&Assignment> = std::iter::once(first).chain(others).chain(std::iter::once(&last)).collect();
    let mut shares: Vec<(CategoryId, f32)> = Vec::new();
    for answer in &answers {
        let own = answer.confidence.map(|confidence| (answer.category.clone(), confidence));
        for (category, share) in own.into_iter().chain(answer.runners_up.iter().cloned()) {
            match shares.iter_mut().find(|(known, _)| *known == category) {
                Some((_, sum)) => *sum += share,
                None => shares.push((category, share)),
            }
        }
    }
    // An answer without probabilities says nothing of them, which is not zero.
    let count = answers.iter().filter(|answer| answer.confidence.is_some()).count().max(1) as f32;
    // A stable sort, so that of equals the first said stays in front.
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares.iter_mut().for_each(|(_, share)| *share /= count);
    let answer_with = |category: &CategoryId| answers.iter().find(|answer| answer.category == *category);
    let said = shares.iter().find_map(|(category, share)| Some(((*answer_with(category)?).clone(), *share)));
    let Some((mut assignment, confidence)) = said else { return last };
    assignment.confidence = Some(confidence);
    assignment.runners_up = shares.into_iter().filter(|(other, _)| *other != assignment.category).take(3).collect();
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::assignment;

    fn answer(shares: &[(&str, f32)]) -> Assignment {
        let shares: Vec<(CategoryId, f32)> = shares.iter().map(|(id, share)| ((*id).into(), *share)).collect();
        let mut answer = assignment(&shares, 3, 1);
        answer.runners_up = shares.into_iter().filter(|(id, _)| *id != answer.category).collect();
        answer
    }

    #[test]
    fn the_highest_mean_decides() {
        let first = answer(&[("a", 0.5), ("b", 0.4)]);
        let found = vote(&first, answer(&[("b", 0.8), ("a", 0.2)]), &[answer(&[("a", 0.45), ("b", 0.44)])]);
        assert_eq!(found.category.as_str(), "b");
        assert!((found.confidence.unwrap() - (0.4 + 0.8 + 0.44) / 3.0).abs() < 1e-6);
        assert_eq!(found.runners_up[0].0.as_str(), "a");
    }

    #[test]
    fn what_nobody_said_is_a_runner_up_at_most() {
        let found = vote(&answer(&[("a", 0.4), ("b", 0.35)]), answer(&[("c", 0.45), ("b", 0.4)]), &[]);
        assert_eq!((found.category.as_str(), found.confidence), ("c", Some(0.225)));
        assert_eq!((found.runners_up[0].0.as_str(), found.runners_up[0].1), ("b", 0.375));
    }

    #[test]
    fn an_answer_without_probabilities_lowers_none() {
        let silent = Assignment { confidence: None, ..answer(&[("a", 0.5)]) };
        assert_eq!(vote(&answer(&[("a", 0.55)]), silent, &[]).confidence, Some(0.55));
    }

    #[test]
    fn of_equals_the_first_stands() {
        let found = vote(&answer(&[("a", 0.5), ("b", 0.5)]), answer(&[("b", 0.5), ("a", 0.5)]), &[]);
        assert_eq!(found.category.as_str(), "a");
    }
}
