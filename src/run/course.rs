//! How a stream of items goes: one run over one list of categories, or a walk through a tree.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::{Run, Shared, Stop};
use crate::NewsItem;
use crate::descent::{Nodes, Walk};
use crate::error::Error;
use crate::outcome::Outcome;
use crate::stats::{Stats, StatsHandle};

/// One run, or a walk that has many.
#[derive(Debug)]
pub(crate) enum Course<S> {
    List(Box<Run<S>>),
    Tree(Box<Walk<S>>),
}

impl<S: Stream<Item = NewsItem>> Course<S> {
    pub(crate) fn new(shared: &Arc<Shared>, nodes: Option<&Arc<Nodes>>, source: S, stop: &Stop) -> Self {
        shared.begin_run();
        match nodes {
            Some(nodes) => Self::Tree(Box::new(Walk::new(nodes, source, stop))),
            None => Self::List(Box::new(Run::new(Arc::clone(shared), source, stop))),
        }
    }

    /// One that goes on for as long as its source, for callers that wait for single items.
    pub(crate) fn serving(shared: &Arc<Shared>, nodes: Option<&Arc<Nodes>>, source: S) -> Self {
        shared.begin_run();
        match nodes {
            Some(nodes) => Self::Tree(Box::new(Walk::serving(nodes, source))),
            None => Self::List(Box::new(Run::serving(Arc::clone(shared), source))),
        }
    }

    /// The next outcome, in the order in which items are settled; none when all are.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        match self {
            Self::List(run) => run.poll_next(cx),
            Self::Tree(walk) => walk.poll_next(cx),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::List(run) => run.stats(),
            Self::Tree(walk) => walk.stats(),
        }
    }

    pub(crate) fn stats_handle(&self) -> StatsHandle {
        match self {
            Self::List(run) => run.stats_handle(),
            Self::Tree(walk) => walk.stats_handle(),
        }
    }

    pub(crate) fn error(&self) -> Option<&Error> {
        match self {
            Self::List(run) => run.error(),
            Self::Tree(walk) => walk.error(),
        }
    }

    /// Lets only items below this index be taken in.
    pub(crate) fn take_below(&mut self, index: u64) {
        match self {
            Self::List(run) => run.take_below(index),
            Self::Tree(walk) => walk.take_below(index),
        }
    }

    /// Cancels the requests in flight; their items get no outcome. It must not be polled again.
    pub(crate) fn cancel(&mut self) {
        match self {
            Self::List(run) => run.cancel(),
            Self::Tree(walk) => walk.cancel(),
        }
    }
}
