//! What moves through a run: items on their way, and the packs that carry them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Span;

use crate::answer::Fault;
use crate::error::{Failure, FailureKind, ItemError, ItemErrorKind};
use crate::outcome::Assignment;
use crate::prompt::clean::CleanText;
use crate::stats::EndpointNumber;
use crate::taxonomy::CategoryId;

/// An item that is not settled yet.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) index: u64,
    pub(crate) id: String,
    pub(crate) text: Arc<CleanText>,
    /// The requests that the item was part of.
    pub(crate) attempts: u32,
    /// The answers that had no valid label for it.
    pub(crate) content_failures: u32,
    /// The endpoint that has refused it once already, asked alone.
    pub(crate) refused_by: Option<usize>,
    /// Whether it must be asked without neighbours.
    pub(crate) alone: bool,
    /// Whether it may be meant for the model, not for readers, and so is always asked alone.
    pub(crate) is_suspect: bool,
    /// When it was taken in, where that is measured.
    pub(crate) taken_in: Option<Instant>,
    pub(crate) first_attempt: Option<Instant>,
    pub(crate) last_failure: Option<Failure>,
    /// The first answer, if it was not sure enough, and what came of asking again so far.
    pub(crate) escalated: Option<Box<Escalated>>,
    /// What the engine in the process said, if the item was chosen to be asked at both.
    #[cfg(feature = "embedded")]
    pub(crate) sampled: Option<Box<crate::embedded::Sampled>>,
}

/// An item that is asked again since its first answer was not sure enough.
#[derive(Clone, Debug)]
pub(crate) struct Escalated {
    pub(crate) first: Assignment,
    pub(crate) later: Vec<Assignment>,
}

impl Item {
    pub(crate) fn new(index: u64, id: String, text: CleanText) -> Self {
        Self {
            index,
            id,
            text: Arc::new(text),
            attempts: 0,
            content_failures: 0,
            refused_by: None,
            alone: false,
            is_suspect: false,
            taken_in: None,
            first_attempt: None,
            last_failure: None,
            escalated: None,
            #[cfg(feature = "embedded")]
            sampled: None,
        }
    }

    /// Whether the engine in the process would have settled it.
    #[cfg(feature = "embedded")]
    pub(crate) fn is_audit(&self) -> bool {
        self.sampled.as_ref().is_some_and(|sampled| sampled.is_audit())
    }

    /// The error to end with, with the story of the attempts.
    pub(crate) fn error(&self, kind: ItemErrorKind) -> ItemError {
        ItemError {
            kind,
            attempts: self.attempts,
            elapsed: self.first_attempt.map_or(Duration::ZERO, |at| at.elapsed()),
            failure: self.last_failure.clone(),
            best: None,
        }
    }
}

/// Items that share a request.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    /// Empty in a canary or a check alone.
    pub(crate) items: Vec<Item>,
    /// The attempts that ended without an answer while other requests were answered, so that it may be the pack's fault.
    pub(crate) transport_failures: u32,
    /// All attempts that ended without an answer, for the backoff.
    pub(crate) waits: u32,
    /// The endpoint that failed last.
    pub(crate) avoid: Option<usize>,
    /// The answers that the pool had seen when the pack was sent first or failed last: if more have come by the time it
    /// fails again, the server works, and the failure counts against the pack.
    pub(crate) answers_seen: u64,
    /// Since when it waits for a place.
    pub(crate) waiting_since: Option<Instant>,
    /// The span of its attempts; halves share it.
    pub(crate) span: Span,
    /// Which endpoints it goes to.
    pub(crate) tier: Tier,
    /// The size that it was made for, where it measures that size, and the requests in flight when it was sent.
    pub(crate) measures: Option<(usize, usize)>,
    /// In a pack without items: the item that is asked alone to see whether it gets the same category.
    pub(crate) check: Option<Box<Check>>,
}

/// An item that was answered in a pack and is asked alone as well. It is settled already.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) item: Item,
    pub(crate) pack_size: usize,
    pub(crate) category: CategoryId,
}

/// Which endpoints are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tier {
    /// Those of all items.
    #[default]
    First,
    /// The one with the stronger model, for items whose first answer was not sure enough.
    Stronger,
}

impl Tier {
    /// An endpoint of this tier as the statistics number it.
    pub(crate) fn endpoint(self, at: usize) -> EndpointNumber {
        let pool = match self {
            Self::First => 0,
            Self::Stronger => 1,
        };
        (pool, at)
    }
}

impl Pack {
    pub(crate) fn new(items: Vec<Item>) -> Self {
        Self {
            items,
            transport_failures: 0,
            waits: 0,
            avoid: None,
            answers_seen: 0,
            waiting_since: None,
            span: Span::none(),
            tier: Tier::First,
            measures: None,
            check: None,
        }
    }

    /// A request with a made-up item whose only purpose is to find out whether the server works.
    pub(crate) fn canary(tier: Tier) -> Self {
        Self { tier, ..Self::new(Vec::new()) }
    }

    /// A request that asks an item alone which was answered in a pack.
    pub(crate) fn check(check: Check) -> Self {
        Self { check: Some(Box::new(check)), ..Self::new(Vec::new()) }
    }

    pub(crate) fn is_canary(&self) -> bool {
        self.items.is_empty() && self.check.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// The pack in two halves, or alone if it has one item. A half that fails again is split again at once, so that a bad
    /// item among N is found in about 2 log N requests.
    pub(crate) fn halves(mut self) -> (Self, Option<Self>) {
        self.measures = None;
        if self.len() < 2 {
            return (self, None);
        }
        let mut second = self.clone();
        second.items = self.items.split_off(self.len() / 2);
        (self, Some(second))
    }
}

/// How an item ends whose requests fail in this way.
pub(crate) fn kind_of_failure(kind: FailureKind) -> ItemErrorKind {
    match kind {
        FailureKind::Timeout => ItemErrorKind::Timeout,
        FailureKind::Connect | FailureKind::Interrupted | FailureKind::UnusableResponse => ItemErrorKind::Connection,
        FailureKind::ServerError | FailureKind::Overloaded => ItemErrorKind::ServerError,
        FailureKind::ContextLength => ItemErrorKind::TooLong,
        FailureKind::Rejected | FailureKind::Unsupported => ItemErrorKind::Rejected,
        FailureKind::ContentFilter => ItemErrorKind::ContentFilter,
        FailureKind::Refusal => ItemErrorKind::Refusal,
        FailureKind::KeyRefused | FailureKind::UnknownModel => ItemErrorKind::NotAttempted,
    }
}

/// How an item ends whose answers have this fault.
pub(crate) fn kind_of_fault(fault: Fault) -> ItemErrorKind {
    match fault {
        Fault::Unreadable => ItemErrorKind::Unreadable,
        Fault::Missing => ItemErrorKind::Missing,
        Fault::Repeated => ItemErrorKind::Repeated,
        Fault::UnknownLabel => ItemErrorKind::UnknownLabel,
        Fault::Shifted => ItemErrorKind::Shifted,
        Fault::Cut => ItemErrorKind::Cut,
    }
}
