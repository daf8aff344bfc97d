//! What becomes of the items of an attempt: done, asked again, split, or failed with a kind. The failure table of the
//! design, in one place.

use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use super::Run;
use super::attempt::{AttemptResult, Finished};
use super::job::{Check, Item, Pack, Tier, kind_of_failure, kind_of_fault};
use super::shared::Corrected;
use super::tuner::{Measured, Tuner};
use crate::NewsItem;
use crate::answer::{Fault, Label};
use crate::calibration;
use crate::error::{Error, Failure, FailureKind, ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Origin, Outcome};
use crate::prompt::clean::SHORTEST_TOKENS;
use crate::prompt::frame::FRAME_TOKENS;
use crate::server::{Admission, Refused, Signal};

/// The first and the longest backoff of a pack: the wait is drawn evenly below a bound that doubles each time ("full
/// jitter", Brooker, AWS Architecture Blog, 2015).
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// A pack that has waited so often, ten minutes or more, and is still turned away as by an overloaded server while others
/// are answered, is treated as any other that fails.
const ENDLESS_WAITS: u32 = 50;

impl<S: Stream<Item = NewsItem>> Run<S> {
    pub(super) fn finish(&mut self, finished: Result<(Id, Finished), JoinError>) {
        let (id, finished) = match finished {
            Ok((id, finished)) => (id, Some(finished)),
            // The task panicked: the answer is lost, the items are not.
            Err(error) => (error.id(), None),
        };
        let Some(pack) = self.in_flight.remove(&id) else { return };
        self.recorder.returned(pack.len());
        let Some(Finished { admission, result }) = finished else {
            tracing::error!("an attempt panicked; its items are asked again");
            let pack_size = pack.len();
            for item in pack.items {
                self.ask_again(item, pack_size, ItemErrorKind::Unreadable);
            }
            return;
        };
        match result {
            AttemptResult::Answered { labels, latency, usage } => {
                // That of a canary, or of an item asked twice, is nobody's answer.
                let of_items = labels.get(..pack.len()).unwrap_or_default();
                self.recorder.answered(pack.tier.endpoint(admission.at), latency, usage, of_items);
                // Of many prefixes, the first is the one to prove.
                if self.shared.prefix_number.is_none_or(|number| number == 0) {
                    admission.learn_usage(usage, self.shared.estimator.predict(self.shared.prefix.tokens(), 0));
                }
                self.answered(pack, &labels, admission);
            }
            AttemptResult::Failed { failure, retry_after, refused, context_tokens } => {
                self.recorder.attempt_failed(pack.tier.endpoint(admission.at), failure.kind);
                tracing::debug!(%failure, items = pack.len(), "attempt failed");
                self.failed(pack, failure, retry_after, refused, context_tokens, admission);
            }
        }
    }

    fn answered(&mut self, pack: Pack, labels: &[Result<Label, Fault>], admission: Admission) {
        let pack_size = pack.len();
        let measures = pack.measures.is_some();
        self.measured(&pack, labels, &admission);
        for ((mut item, label), position) in pack.items.into_iter().zip(labels).zip(1..) {
            match label {
                Ok(label) => match self.assignment(&item, label, pack_size, position, &admission) {
                    Some(assignment) => {
                        if measures {
                            self.check_alone(&item, &assignment);
                        }
                        self.opinion(item, assignment);
                    }
                    None => self.ask_again(item, pack_size, ItemErrorKind::UnknownLabel),
                },
                Err(fault) => {
                    item.last_failure = None;
                    self.ask_again(item, pack_size, kind_of_fault(*fault));
                }
            }
        }
        if pack.tier == Tier::First {
            self.look_at_metrics(admission.at, admission.admitted_at);
        }
        // Also right for a canary, whose single label nobody waits for.
        let is_garbage = labels.iter().all(Result::is_err);
        let latency = admission.admitted_at.elapsed();
        admission.settle(if is_garbage { Signal::Garbage } else { Signal::Answered(latency) });
    }

    /// What an answer tells about pack sizes, where they are chosen by measurement.
    fn measured(&mut self, pack: &Pack, labels: &[Result<Label, Fault>], admission: &Admission) {
        if let (Some(tuner), Some((size, in_flight)), 0) = (&mut self.tuner, pack.measures, pack.waits) {
            let (valid_items, latency) = (labels.iter().flatten().count(), admission.admitted_at.elapsed());
            tuner.answered(size, Measured { valid_items, in_flight, latency });
            self.report_tuning();
        }
        let Some(check) = &pack.check else { return };
        let label = labels.first().and_then(|label| label.as_ref().ok());
        let alone = label.and_then(|label| self.assignment(&check.item, label, 1, 1, admission));
        if let Some(tuner) = &mut self.tuner {
            match alone {
                Some(alone) => tuner.checked(check.pack_size, alone.category == check.category),
                None => tuner.check_failed(check.pack_size),
            }
        }
        self.report_tuning();
    }

    /// Asks an item alone as well that was answered in a pack, where the choice of pack sizes wants to know.
    fn check_alone(&mut self, item: &Item, assignment: &Assignment) {
        let pack_size = assignment.origin.pack_size;
        let is_wanted = |tuner: &mut Tuner| tuner.wants_check(pack_size, &mut self.random);
        if self.error.is_none() && self.tuner.as_mut().is_some_and(is_wanted) {
            let check = Check { item: item.clone(), pack_size, category: assignment.category.clone() };
            self.lane(Tier::First).ready.push_back(Pack::check(check));
        }
    }

    fn assignment(
        &mut self,
        item: &Item,
        label: &Label,
        pack_size: usize,
        position: usize,
        admission: &Admission,
    ) -> Option<Assignment> {
        let endpoint = admission.endpoint();
        let corrected = self.corrected(label, pack_size, position, &endpoint.model);
        let origin = Origin {
            attempts: item.attempts,
            pack_size,
            position,
            ..self.shared.origin(&endpoint.base_url, &endpoint.model)
        };
        self.shared.assignment(label, corrected.as_ref(), origin)
    }

    /// The probabilities of a label as a calibration corrects them; none where there is none.
    fn corrected(&mut self, label: &Label, pack_size: usize, position: usize, model: &str) -> Option<Corrected> {
        let calibrated = self.shared.calibrated(label, pack_size, position, model);
        if calibrated.is_some() || label.probabilities.is_empty() || !self.shared.settings.evens_positions {
            return calibrated;
        }
        self.priors.add(pack_size, position, &label.probabilities);
        let offsets = self.priors.position_offsets(pack_size, position)?;
        let probabilities = calibration::correct(&label.probabilities, Some(&offsets), 1.0);
        Some(Corrected { probabilities, version: "stream".into() })
    }

    /// An answer to `pack_size` items had no valid label for this one: asks it again with others, then alone, then gives it
    /// up. Others may have spoiled the answers that it shared with them, so alone it has two chances where it may be asked
    /// again at all.
    fn ask_again(&mut self, mut item: Item, pack_size: usize, kind: ItemErrorKind) {
        if self.error.is_some() {
            return self.fail(item, ItemErrorKind::NotAttempted);
        }
        item.content_failures += 1;
        let retries = self.shared.settings.content_retries;
        if item.content_failures > retries {
            if pack_size == 1 {
                return self.fail(item, kind);
            }
            item.alone = true;
            item.content_failures = retries.saturating_sub(1);
        }
        self.recorder.reasked();
        self.push_again(item);
    }

    /// The server at this endpoint refuses a single item. It can be wrong, so the item is asked once more, alone, by another
    /// one where there is one.
    fn refused(&mut self, mut item: Item, at: usize, kind: ItemErrorKind) {
        if self.error.is_some() {
            return self.fail(item, ItemErrorKind::NotAttempted);
        }
        if item.refused_by.is_some() {
            return self.fail(item, kind);
        }
        item.refused_by = Some(at);
        item.alone = true;
        self.recorder.reasked();
        self.push_again(item);
    }

    /// Lets an item join a pack once more, where it has been last.
    fn push_again(&mut self, item: Item) {
        let tier = self.tier_of(&item);
        self.lane(tier).packer.push(item);
    }

    fn failed(
        &mut self,
        mut pack: Pack,
        failure: Failure,
        retry_after: Option<Duration>,
        refused: Option<Refused>,
        context_tokens: Option<usize>,
        admission: Admission,
    ) {
        for item in &mut pack.items {
            item.last_failure = Some(failure.clone());
        }
        let at = admission.at;
        match failure.kind {
            // A canary has shown what it was sent for; a refusal shows that the server works.
            _ if pack.items.is_empty() => {
                if let (Some(tuner), Some(check)) = (&mut self.tuner, &pack.check) {
                    tuner.check_failed(check.pack_size);
                }
                admission.settle(signal_of(failure, retry_after));
            }
            FailureKind::KeyRefused | FailureKind::UnknownModel => {
                admission.settle(signal_of(failure, None));
                self.put_first(pack);
            }
            FailureKind::Unsupported if refused.is_some_and(|refused| admission.fall_back(refused)) => {
                admission.settle(Signal::Renegotiated);
                self.put_first(pack);
            }
            FailureKind::ContextLength => {
                if let Some(tokens) = context_tokens {
                    admission.learn_context(tokens);
                }
                admission.settle(signal_of(failure, None));
                self.too_long(pack);
            }
            FailureKind::Rejected | FailureKind::Unsupported | FailureKind::ContentFilter | FailureKind::Refusal => {
                let kind = failure.kind;
                let is_in_doubt = admission.rejects_in_doubt();
                admission.settle(signal_of(failure, None));
                pack.avoid = Some(at);
                if is_in_doubt {
                    // A made-up item will tell whether it is the server or the items.
                    self.send_canary(pack.tier);
                    return self.retry(pack, kind);
                }
                self.split_or(pack, |run, item| run.refused(item, at, kind_of_failure(kind)));
            }
            FailureKind::Overloaded
            | FailureKind::Connect
            | FailureKind::Timeout
            | FailureKind::Interrupted
            | FailureKind::ServerError
            | FailureKind::UnusableResponse => {
                let kind = failure.kind;
                admission.settle(signal_of(failure, retry_after));
                pack.avoid = Some(at);
                self.retry(pack, kind);
            }
        }
    }

    /// The attempt brought no answer. The pack waits and goes again; it is blamed only when it failed often while other
    /// requests were answered, so that a dead server never costs an item.
    fn retry(&mut self, mut pack: Pack, kind: FailureKind) {
        pack.waits += 1;
        let answers = self.lane(pack.tier).pool.answers();
        // A server that is overloaded or gone says nothing about the pack.
        let is_about_server = matches!(kind, FailureKind::Overloaded | FailureKind::Connect);
        let is_endless = pack.waits > ENDLESS_WAITS;
        if answers > pack.answers_seen && (!is_about_server || is_endless) {
            pack.transport_failures += 1;
        }
        pack.answers_seen = answers;
        if pack.transport_failures > self.shared.settings.transport_retries {
            return self.split_or(pack, |run, item| run.fail(item, kind_of_failure(kind)));
        }
        if self.error.is_some() {
            return self.fail_all(pack);
        }
        let bound = FIRST_BACKOFF.saturating_mul(1 << (pack.waits - 1).min(6)).min(LONGEST_BACKOFF);
        let wait = bound.mul_f64(self.random.f64());
        if !is_about_server && self.has_nothing_else(pack.tier) {
            // No other request will tell the server from the pack.
            self.send_canary(pack.tier);
        }
        // Nobody who waits for a neighbour should wait for all retries of a bad item.
        let parts = if self.serves && pack.transport_failures > 0 { pack.halves() } else { (pack, None) };
        if parts.1.is_some() {
            self.recorder.split();
        }
        let at = Instant::now() + wait;
        self.delayed.extend(std::iter::once(parts.0).chain(parts.1).map(|part| (at, part)));
    }

    /// Sends a made-up item, unless one is under way.
    fn send_canary(&mut self, tier: Tier) {
        let is_one = |pack: &Pack| pack.tier == tier && pack.is_canary();
        let lane = self.lane(tier);
        let waits = lane.ready.iter().chain(lane.admitting.as_ref().map(|(pack, _)| pack)).any(is_one);
        if !waits && !self.in_flight.values().any(is_one) {
            self.put_first(Pack::canary(tier));
        }
    }

    fn has_nothing_else(&mut self, tier: Tier) -> bool {
        self.in_flight.values().all(|pack| pack.tier != tier) && self.lane(tier).is_empty()
    }

    /// The prompt did not fit: fewer items, then a shorter item, then none.
    fn too_long(&mut self, pack: Pack) {
        let budget_tokens = self.shared.pack_budget_tokens(self.pack_size).saturating_sub(FRAME_TOKENS);
        let tier = pack.tier;
        self.split_or(pack, |run, mut item| {
            let shorter = (item.text.tokens / 2).min(budget_tokens.max(SHORTEST_TOKENS));
            match item.text.shortened(shorter).filter(|_| shorter >= SHORTEST_TOKENS) {
                Some(text) if run.error.is_none() => {
                    run.recorder.count(|counts| counts.shortened += 1);
                    item.text = Arc::new(text);
                    run.put_first(Pack { tier, ..Pack::new(vec![item]) });
                }
                Some(_) => run.fail(item, ItemErrorKind::NotAttempted),
                None => run.fail(item, ItemErrorKind::TooLong),
            }
        });
    }

    /// Splits a pack in two that go next; what to do with a single item is up to `single`.
    fn split_or(&mut self, pack: Pack, single: impl FnOnce(&mut Self, Item)) {
        let retries = self.shared.settings.transport_retries;
        match pack.halves() {
            (mut pack, None) => {
                if let Some(item) = pack.items.pop() {
                    single(self, item);
                }
            }
            (first, Some(second)) => {
                self.recorder.split();
                for mut half in [first, second] {
                    // Half of a blamed pack has one attempt to clear itself, so that a bad item is found soon; a single
                    // item has all of them, so that bad luck does not cost it.
                    half.transport_failures = if half.len() == 1 { 0 } else { retries };
                    half.waits = 0;
                    self.put_first(half);
                }
            }
        }
    }

    /// Sends a pack before all others, unless the run is ending.
    fn put_first(&mut self, mut pack: Pack) {
        if self.error.is_some() {
            return self.fail_all(pack);
        }
        if pack.span.is_none() {
            pack.span = self.span.clone();
        }
        self.lane(pack.tier).ready.push_front(pack);
    }

    fn fail_all(&mut self, pack: Pack) {
        debug_assert!(!matches!(self.error, None | Some(Error::Refused { .. })));
        for item in pack.items {
            self.fail(item, ItemErrorKind::NotAttempted);
        }
    }

    pub(super) fn fail(&mut self, item: Item, kind: ItemErrorKind) {
        if item.escalated.is_some() {
            return self.settle_escalated(item);
        }
        let error = item.error(kind);
        self.settled(item, Err(error));
    }

    /// Settles an item and its copies.
    pub(super) fn settled(&mut self, item: Item, result: Result<Assignment, ItemError>) {
        #[cfg(feature = "ledger")]
        self.record(&item, &result);
        self.settled_for_now(item, result);
    }

    /// The same for an answer that a later run is to ask for again, so that no ledger keeps it.
    pub(super) fn settled_for_now(&mut self, item: Item, result: Result<Assignment, ItemError>) {
        if result.as_ref().is_ok_and(|assignment| assignment.origin.written.is_some()) {
            self.recorder.count(|counts| counts.relabelled += 1);
        }
        #[cfg(feature = "embedded")]
        self.compare(&item, &result);
        self.conclude(item, result);
    }

    pub(super) fn conclude(&mut self, item: Item, result: Result<Assignment, ItemError>) {
        if let Some(taken_in) = item.taken_in.filter(|_| item.attempts > 0) {
            self.recorder.item_took(taken_in);
        }
        let copies = self.dedup.settle(item.index, &item.id, &result);
        self.outcome(item.index, item.id, result);
        for copy in copies.settled {
            self.emit(copy);
        }
        for item in copies.unsettled {
            self.ask_or_copy(item);
        }
    }

    pub(super) fn outcome(&mut self, index: u64, id: String, result: Result<Assignment, ItemError>) {
        self.emit(Outcome { id, index, result, path: None });
    }

    pub(super) fn emit(&mut self, mut outcome: Outcome) {
        self.unsettled -= 1;
        outcome.result = self.shared.handed_on(outcome.result);
        #[cfg(feature = "ledger")]
        let Some(outcome) = self.recall.hold(outcome) else { return };
        self.hand_on(outcome);
    }

    pub(super) fn hand_on(&mut self, outcome: Outcome) {
        self.recorder.handed_on(&outcome);
        self.outcomes.push_back(outcome);
    }
}

/// What a failure says about the endpoint.
fn signal_of(failure: Failure, retry_after: Option<Duration>) -> Signal {
    match failure.kind {
        FailureKind::KeyRefused | FailureKind::UnknownModel => Signal::Refused(failure),
        FailureKind::Overloaded => Signal::Overloaded(failure, retry_after),
        FailureKind::Timeout => Signal::TimedOut(failure),
        FailureKind::Connect | FailureKind::Interrupted | FailureKind::ServerError | FailureKind::UnusableResponse => {
            Signal::Unavailable(failure)
        }
        FailureKind::ContextLength
        | FailureKind::Unsupported
        | FailureKind::Rejected
        | FailureKind::ContentFilter
        | FailureKind::Refusal => Signal::Rejected(failure),
    }
}
