//! What becomes of the items of a round: done, asked again, or failed with a kind. The rules are those of a run, with
//! rounds in place of time.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Serialize;

use super::Batch;
use super::results::{Answer, Results};
use super::round::{Pending, Round};
use crate::answer::{Fault, Label};
use crate::error::{Failure, FailureKind, ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Origin, Outcome};
use crate::prompt::clean::SHORTEST_TOKENS;
use crate::run::{Shared, kind_of_failure, kind_of_fault};
use crate::server::{Dialect, Refused};

/// What reading results came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settled {
    /// The items that have their outcome now.
    pub outcomes: Vec<Outcome>,
    /// What is left to ask. Where no request of the round was answered or failed, the round itself.
    pub next: Round,
    /// What was read.
    pub tally: Tally,
}

/// What was read from result files.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tally {
    /// Requests that the model answered.
    pub answered: u64,
    /// Requests that failed, by kind.
    pub failed: BTreeMap<String, u64>,
    /// Requests without a result.
    pub missing: u64,
    /// Lines that are a further result of a request.
    pub repeated_lines: u64,
    /// Lines that are of no request of the round: of another batch, or of an earlier round.
    pub unknown_lines: u64,
    /// Lines that are no results.
    pub unreadable_lines: u64,
    /// Items that are asked again, since their answer was not valid or their request failed.
    pub asked_again: u64,
    /// The first failure in the order of the requests.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

/// What becomes of an item whose request brought no label for it.
enum Next {
    Again(Pending),
    GiveUp(Pending, ItemErrorKind),
}

impl Batch {
    pub(super) fn settle_results<R: BufRead>(
        &self,
        round: &Round,
        files: impl IntoIterator<Item = R>,
    ) -> io::Result<Settled> {
        let mut results = Results::new(self, round);
        for file in files {
            results.read(file)?;
        }
        let Results { answers, mut tally, .. } = results;
        tally.count(&answers);
        if tally.answered == 0 && tally.failed.is_empty() {
            return Ok(Settled { outcomes: Vec::new(), next: round.clone(), tally });
        }
        let dialect = simpler(round.dialect, &answers);
        let (mut outcomes, mut kept, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for (ask, answer) in round.asks.iter().zip(answers) {
            let pack_size = ask.items.len();
            let Some(answer) = answer else {
                kept.push(if dialect == round.dialect { ask.clone() } else { self.ask(ask.items.clone(), dialect) });
                continue;
            };
            let mut labels = match &answer {
                Answer::Labels(labels) => labels.iter(),
                Answer::Failed { .. } => [].iter(),
            };
            for (mut item, position) in ask.items.iter().cloned().zip(1..) {
                item.attempts += 1;
                let (next, failure) = match &answer {
                    Answer::Labels(_) => match self.labelled(&item, labels.next(), pack_size, position) {
                        Ok(assignment) => {
                            outcomes.extend(item.outcomes(Ok(assignment), &self.shared));
                            continue;
                        }
                        Err(fault) => (self.after_fault(item, fault, pack_size), None),
                    },
                    Answer::Failed { failure, refused } => {
                        let falls_back = refused.is_some_and(|part| round.dialect.without(part).is_some());
                        let has_evidence = tally.answered > 0;
                        (self.after_failure(item, failure.kind, pack_size, falls_back, has_evidence), Some(failure))
                    }
                };
                match next {
                    Next::Again(item) => again.push(item),
                    Next::GiveUp(item, kind) => {
                        let error =
                            ItemError { attempts: item.attempts, failure: failure.cloned(), ..ItemError::of(kind) };
                        outcomes.extend(item.outcomes(Err(error), &self.shared));
                    }
                }
            }
        }
        tally.asked_again = again.len() as u64;
        let number = round.number.saturating_add(1);
        kept.extend(self.packs(again, dialect, number));
        let settled = round.settled + outcomes.len() as u64;
        let next = Round { number, items: round.items, settled, dialect, asks: kept };
        Ok(Settled { outcomes, next, tally })
    }

    fn labelled(
        &self,
        item: &Pending,
        label: Option<&Result<Label, Fault>>,
        pack_size: usize,
        position: usize,
    ) -> Result<Assignment, Fault> {
        let label = label.unwrap_or(&Err(Fault::Missing)).as_ref().map_err(|fault| *fault)?;
        let corrected = self.shared.calibrated(label, pack_size, position, &self.model);
        let origin =
            Origin { attempts: item.attempts, pack_size, position, ..self.shared.origin(&self.endpoint, &self.model) };
        self.shared.assignment(label, corrected.as_ref(), origin).ok_or(Fault::UnknownLabel)
    }

    /// Asked again with others, then alone, twice at most, then given up.
    fn after_fault(&self, mut item: Pending, fault: Fault, pack_size: usize) -> Next {
        item.content_failures += 1;
        let retries = self.shared.settings.content_retries;
        if item.content_failures > retries {
            if pack_size == 1 {
                return Next::GiveUp(item, kind_of_fault(fault));
            }
            item.alone = true;
            item.content_failures = retries.saturating_sub(1);
        }
        Next::Again(item)
    }

    fn after_failure(
        &self,
        mut item: Pending,
        kind: FailureKind,
        pack_size: usize,
        falls_back: bool,
        has_evidence: bool,
    ) -> Next {
        let is_single = pack_size == 1;
        match kind {
            // The form is simpler in the next round.
            FailureKind::Unsupported if falls_back => {}
            FailureKind::ContextLength if is_single => {
                let shorter = item.text.tokens / 2;
                match item.text.shortened(shorter).filter(|_| shorter >= SHORTEST_TOKENS) {
                    Some(text) => item.text = text.into(),
                    None => return Next::GiveUp(item, ItemErrorKind::TooLong),
                }
            }
            FailureKind::Rejected | FailureKind::Unsupported | FailureKind::ContentFilter | FailureKind::Refusal
                if is_single =>
            {
                if item.has_been_refused {
                    return Next::GiveUp(item, kind_of_failure(kind));
                }
                item.has_been_refused = true;
            }
            FailureKind::ContextLength
            | FailureKind::Rejected
            | FailureKind::Unsupported
            | FailureKind::ContentFilter
            | FailureKind::Refusal => item.alone = true,
            // The server may be to blame. Where it answered others, the item may be.
            _ => {
                item.transport_failures += u32::from(has_evidence);
                if item.transport_failures > self.shared.settings.transport_retries {
                    if is_single {
                        return Next::GiveUp(item, kind_of_failure(kind));
                    }
                    item.alone = true;
                    item.transport_failures = 0;
                }
            }
        }
        Next::Again(item)
    }
}

impl Pending {
    /// The outcomes of the item and its copies.
    fn outcomes(self, result: Result<Assignment, ItemError>, shared: &Shared) -> Vec<Outcome> {
        let result = &shared.handed_on(result);
        let copy = |(index, id): &(u64, String)| Outcome {
            id: id.clone(),
            index: *index,
            result: result.as_ref().map(|found| found.for_copy(&self.id, None)).map_err(Clone::clone),
            path: None,
        };
        let copies: Vec<Outcome> = self.copies.iter().map(copy).collect();
        let own = Outcome { id: self.id, index: self.index, result: result.clone(), path: None };
        std::iter::once(own).chain(copies).collect()
    }
}

impl Tally {
    fn count(&mut self, answers: &[Option<Answer>]) {
        for answer in answers {
            match answer {
                None => self.missing += 1,
                Some(Answer::Labels(_)) => self.answered += 1,
                Some(Answer::Failed { failure, .. }) => {
                    *self.failed.entry(failure.kind.to_string()).or_default() += 1;
                    self.failure.get_or_insert_with(|| failure.clone());
                }
            }
        }
    }
}

/// The form of requests without what was refused in this round.
fn simpler(dialect: Dialect, answers: &[Option<Answer>]) -> Dialect {
    let refused = |wanted: Refused| {
        let mut failed = answers.iter().flatten();
        failed.any(|answer| matches!(answer, Answer::Failed { refused: Some(part), .. } if *part == wanted))
    };
    let without =
        |dialect: Dialect, part| if refused(part) { dialect.without(part).unwrap_or(dialect) } else { dialect };
    let without_logprobs = without(dialect, Refused::Logprobs);
    let form = if refused(Refused::ArrayRoot) { Refused::ArrayRoot } else { Refused::StructuredOutput };
    without(without_logprobs, form)
}

pub(super) fn failed_outcome(index: u64, id: String, kind: ItemErrorKind) -> Outcome {
    Outcome { id, index, result: Err(ItemError::of(kind)), path: None }
}
