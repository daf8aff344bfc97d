//! One walk of a stream of items through a tree.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::nodes::Nodes;
use super::queue::{Ask, Queue};
use super::route::{Next, Route, Walker};
use super::{LevelStats, PathEnd};
use crate::NewsItem;
use crate::error::{Error, ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Outcome};
use crate::run::{Run, Shared, Stop};
use crate::server::BoxFuture;
use crate::stats::{Recording, Stats, StatsHandle, Tally};

/// How many packs' worth of items may be on their way for each request that may be in flight, and beside them.
const PACKS_PER_PLACE: usize = 8;
const PACKS_ASIDE: usize = 32;
/// Outcomes that may wait for the consumer before no more items are taken in.
const MOST_WAITING_OUTCOMES: usize = 64;
/// While the servers are busy, a part-filled pack leaves after so many others for each category with children: then such
/// packs are at most a tenth of all.
const PACKS_PER_NODE: u64 = 10;

/// A walk over a stream of items.
pub(crate) struct Walk<S> {
    nodes: Arc<Nodes>,
    top: Arc<Shared>,
    source: Option<Pin<Box<S>>>,
    take_below: u64,
    /// Whether callers wait for single items.
    serves: bool,
    pack_size: usize,
    /// Where items have been, in the order of the first visit, and where each category stands among them.
    visited: Vec<Node>,
    places: HashMap<Option<usize>, usize>,
    /// The items on their way, by their number in the input.
    walkers: HashMap<u64, Walker>,
    outcomes: VecDeque<Outcome>,
    released_packs: u64,
    /// What became of whole items; what is done at the servers is counted here by the runs.
    recorder: Recording,
    taken_in: u64,
    levels: BTreeMap<usize, LevelStats>,
    stop: Stop,
    stopped: BoxFuture<'static, ()>,
    error: Option<Error>,
}

/// A category that items have reached, or the top, with the run over its children.
struct Node {
    level: usize,
    queue: Queue,
    feed: UnboundedSender<NewsItem>,
    run: Run<Feed>,
    /// The paths that the run is asked about, by the run's number for the item.
    inside: HashMap<u64, Ask>,
    fed: u64,
}

/// The items that a run is given.
struct Feed(UnboundedReceiver<NewsItem>);

impl Stream for Feed {
    type Item = NewsItem;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NewsItem>> {
        self.0.poll_recv(cx)
    }
}

impl<S: Stream<Item = NewsItem>> Walk<S> {
    pub(crate) fn new(nodes: &Arc<Nodes>, source: S, stop: &Stop) -> Self {
        let top = nodes.shared(None);
        Self {
            pack_size: top.settings.pack_size,
            nodes: Arc::clone(nodes),
            source: Some(Box::pin(source)),
            take_below: u64::MAX,
            serves: false,
            visited: Vec::new(),
            places: HashMap::new(),
            walkers: HashMap::new(),
            outcomes: VecDeque::new(),
            released_packs: 0,
            recorder: Recording(StatsHandle::new(std::iter::once(&top.pool).chain(&top.stronger).cloned())),
            taken_in: 0,
            top,
            levels: BTreeMap::new(),
            stop: stop.clone(),
            stopped: stop.stopped(),
            error: None,
        }
    }

    /// A walk that goes on for as long as its source, for callers that wait for single items.
    pub(crate) fn serving(nodes: &Arc<Nodes>, source: S) -> Self {
        Self { serves: true, ..Self::new(nodes, source, &Stop::new()) }
    }

    /// The next outcome, in the order in which items are settled; none when all are.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        loop {
            if let Some(outcome) = self.outcomes.pop_front() {
                return Poll::Ready(Some(outcome));
            }
            self.recorder.round();
            let has_changed = self.poll_stop(cx) | self.poll_source(cx) | self.release() | self.poll_runs(cx);
            if !has_changed && self.outcomes.is_empty() {
                let is_done = self.walkers.is_empty() && self.source.is_none();
                if is_done {
                    self.cancel();
                    self.recorder.walked(self.levels());
                    self.recorder.end();
                    return Poll::Ready(None);
                }
                return Poll::Pending;
            }
        }
    }

    /// Lets only items below this index be taken in.
    pub(crate) fn take_below(&mut self, index: u64) {
        self.take_below = index;
    }

    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Cancels the requests in flight; their items get no outcome. The walk must not be polled again.
    pub(crate) fn cancel(&mut self) {
        self.visited.iter_mut().for_each(|node| node.run.cancel());
    }

    pub(crate) fn stats(&self) -> Stats {
        self.recorder.walked(self.levels());
        self.recorder.snapshot()
    }

    pub(crate) fn stats_handle(&self) -> StatsHandle {
        self.recorder.0.clone()
    }

    /// What was measured at each level.
    fn levels(&self) -> Vec<LevelStats> {
        let mut levels = self.levels.clone();
        let mut askings: BTreeMap<usize, Tally> = BTreeMap::new();
        for node in &self.visited {
            askings.entry(node.level).or_default().add(&node.run.total());
            levels.entry(node.level).or_default().nodes += 1;
        }
        for (level, stats) in &mut levels {
            let Some(asked) = askings.get(level) else { continue };
            stats.level = *level;
            stats.requests = asked.requests;
            stats.prompt_tokens = asked.usage.prompt_tokens;
            stats.cached_tokens = asked.usage.cached_tokens;
            stats.output_tokens = asked.usage.output_tokens;
            let packs = asked.asked_items as f64 / self.pack_size as f64;
            stats.requests_per_pack = (asked.asked_items > 0).then(|| asked.requests as f64 / packs);
        }
        levels.into_values().collect()
    }

    fn poll_stop(&mut self, cx: &mut Context<'_>) -> bool {
        let is_stopped = self.error.is_none() && self.stopped.as_mut().poll(cx).is_ready();
        if is_stopped {
            self.error = Some(Error::Stopped);
        }
        is_stopped
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        while self.takes_more() {
            let Some(source) = &mut self.source else { break };
            let Poll::Ready(item) = source.as_mut().poll_next(cx) else { break };
            has_changed = true;
            let Some(item) = item else {
                self.source = None;
                break;
            };
            if self.serves {
                self.error = None;
            }
            let index = self.taken_in;
            self.taken_in += 1;
            let now = self.recorder.taken_in();
            self.walkers.insert(index, Walker::new(index, item, now));
            self.ask(Ask { index, route: Route::top() });
        }
        has_changed
    }

    /// Whether the next item of the source may be taken in.
    fn takes_more(&self) -> bool {
        let is_wanted = self.outcomes.len() < MOST_WAITING_OUTCOMES && self.taken_in < self.take_below;
        if self.serves {
            // What waits inside cannot be given up, so no more than the next pack is taken.
            let Some(top) = self.visited.first() else { return is_wanted };
            return is_wanted && top.queue.len() < self.pack_size && top.run.takes_more();
        }
        let packs = PACKS_PER_PLACE * self.capacity() + PACKS_ASIDE;
        // Every category may have a pack that is not full.
        let room = (packs + self.nodes.taxonomy().inner_nodes()) * self.pack_size;
        is_wanted && self.walkers.len() < room
    }

    /// The requests that the servers would take now.
    fn capacity(&self) -> usize {
        self.top.pool.capacity()
    }

    /// Lets an item wait for a pack at the category that it has reached.
    fn ask(&mut self, ask: Ask) {
        if self.error.is_some() && !self.serves {
            return self.answered(ask, Err(ItemError::of(ItemErrorKind::NotAttempted)));
        }
        let packs = self.released_packs;
        let level = self.levels.entry(ask.route.level()).or_default();
        level.items += 1;
        let node = self.node(&ask.route);
        node.queue.push(ask, packs);
    }

    /// The category that a path has reached, with its run.
    fn node(&mut self, route: &Route) -> &mut Node {
        let at = *self.places.entry(route.at).or_insert_with(|| {
            let shared = self.nodes.shared(route.at);
            let (feed, items) = unbounded_channel();
            let run =
                if self.serves { Run::serving(shared, Feed(items)) } else { Run::new(shared, Feed(items), &self.stop) };
            let run = run.counting_for(&self.recorder);
            let node =
                Node { level: route.level(), queue: Queue::default(), feed, run, inside: HashMap::new(), fed: 0 };
            self.visited.push(node);
            self.visited.len() - 1
        });
        &mut self.visited[at]
    }

    /// Hands packs to the runs: the full ones, those that have waited long, and, while the servers have nothing to do, those
    /// that are not full.
    fn release(&mut self) -> bool {
        if self.error.is_some() && !self.serves {
            return self.give_up_waiting();
        }
        let before = self.released_packs;
        let most = PACKS_PER_NODE * self.nodes.taxonomy().inner_nodes() as u64;
        for at in 0..self.visited.len() {
            while self.visited[at].queue.len() >= self.pack_size
                || self.visited[at].queue.is_due(self.released_packs, most)
            {
                self.release_one(at);
            }
        }
        let capacity = self.capacity();
        while self.packs_inside() < capacity {
            // Those near the top first, since more may join them further down, and of these the fullest.
            let waiting = self.visited.iter().enumerate().filter(|(_, node)| node.queue.len() > 0);
            let next = waiting.min_by_key(|(_, node)| (node.level, self.pack_size - node.queue.len()));
            let Some((at, _)) = next else { break };
            self.release_one(at);
        }
        self.released_packs > before
    }

    fn release_one(&mut self, at: usize) {
        let node = &mut self.visited[at];
        self.released_packs += 1;
        for ask in node.queue.take(self.pack_size, self.released_packs) {
            let Some(walker) = self.walkers.get(&ask.index) else { continue };
            // The run's end of the channel lives as long as the run.
            let _ = node.feed.send(walker.item.clone());
            node.inside.insert(node.fed, ask);
            node.fed += 1;
        }
    }

    fn packs_inside(&self) -> usize {
        self.visited.iter().map(|node| node.inside.len().div_ceil(self.pack_size)).sum()
    }

    /// The walk ends before its time: what waits is not attempted.
    fn give_up_waiting(&mut self) -> bool {
        let mut left: Vec<Ask> = Vec::new();
        for node in &mut self.visited {
            while node.queue.len() > 0 {
                left.extend(node.queue.take(self.pack_size, self.released_packs));
            }
        }
        let has_changed = !left.is_empty();
        left.into_iter().for_each(|ask| self.answered(ask, Err(ItemError::of(ItemErrorKind::NotAttempted))));
        has_changed
    }

    fn poll_runs(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_changed = false;
        for at in 0..self.visited.len() {
            // A request without items, such as a canary, outlives the items that it was sent for. It has a place at an endpoint,
            // or even the turn for the next one, and gives it back only when its run is polled.
            while !self.visited[at].inside.is_empty() || self.visited[at].run.has_requests() {
                let Poll::Ready(Some(outcome)) = self.visited[at].run.poll_next(cx) else { break };
                has_changed = true;
                let is_lost = matches!(&outcome.result, Err(error) if error.kind == ItemErrorKind::NotAttempted);
                if is_lost && self.error.is_none() {
                    self.error = self.visited[at].run.error().cloned();
                }
                let Some(ask) = self.visited[at].inside.remove(&outcome.index) else { continue };
                self.answered(ask, outcome.result);
            }
        }
        has_changed
    }

    fn answered(&mut self, ask: Ask, result: Result<Assignment, ItemError>) {
        let Some(walker) = self.walkers.get_mut(&ask.index) else { return };
        let index = ask.index;
        match walker.answered(ask.route, result, &self.nodes) {
            Next::Wait => {}
            Next::Ask(routes) => routes.into_iter().for_each(|route| self.ask(Ask { index, route })),
            Next::Settle(outcome) => {
                let walker = self.walkers.remove(&index);
                self.count(&outcome);
                let attempts = outcome.result.as_ref().map_or_else(|error| error.attempts, |of| of.origin.attempts);
                if let Some(walker) = walker.filter(|_| attempts > 0) {
                    self.recorder.item_took(walker.taken_in);
                }
                self.recorder.handed_on(&outcome);
                self.outcomes.push_back(*outcome);
            }
        }
    }

    /// Counts where an item's path ended.
    fn count(&mut self, outcome: &Outcome) {
        let Some(path) = &outcome.path else { return };
        // A leaf is found at the level where it was chosen; the other ends at the level below the last category.
        let level = path.steps.len() + usize::from(path.end != PathEnd::Leaf);
        let level = self.levels.entry(level).or_default();
        *match path.end {
            PathEnd::Leaf => &mut level.leaf,
            PathEnd::Stays { .. } => &mut level.stays,
            PathEnd::BelowThreshold { .. } => &mut level.below_threshold,
            PathEnd::Failed => &mut level.failed,
        } += 1;
    }
}

impl<S> std::fmt::Debug for Walk<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Walk").field("walkers", &self.walkers.len()).finish_non_exhaustive()
    }
}
