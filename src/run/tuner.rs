//! Chooses the pack size while a run goes. Pure but for the dice that it is handed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::tuning::{SizeEvidence, Tuning, TuningReport};

/// The packs of each size that a first choice needs.
const PACKS_TO_SETTLE: usize = 12;
/// The items of each size that a first choice needs to have seen alone, too.
const CHECKS_TO_SETTLE: usize = 20;
/// The share of both that is enough when some packs failed.
const ENOUGH: f64 = 0.75;
/// How many packs are remembered for a size: older ones say little of the server as it is now.
const REMEMBERED_PACKS: usize = 64;
/// How many checks are remembered for a size.
const REMEMBERED_CHECKS: usize = 200;
/// After the choice, so many times as many packs have the chosen size as try another.
const PACKS_PER_TRY: usize = 50;
/// How much faster another size must be for the choice to move to it.
const LEAD: f64 = 1.03;

/// The evidence about pack sizes, and the choice.
#[derive(Debug)]
pub(crate) struct Tuner {
    least_agreement: f64,
    sizes: Vec<Candidate>,
    chosen: usize,
    block: Option<Block>,
    /// Whether the next block tries another size than the chosen one.
    tries_next: bool,
    is_settled: bool,
    changes: u64,
}

/// Packs of one size that are sent one after the other: on a server that queues, the latency of a pack is that of the packs
/// around it, so they must be of its size for it to say anything.
#[derive(Debug)]
struct Block {
    at: usize,
    /// Packs that still have others around them.
    to_skip: usize,
    left: usize,
}

#[derive(Debug)]
struct Candidate {
    pack_size: usize,
    /// Packs that were sent to measure, answered or not.
    sent: usize,
    packs: u64,
    /// The last packs.
    recent: VecDeque<Measured>,
    checks_sent: u64,
    checks: VecDeque<bool>,
}

/// A pack that was answered while packs of its size were around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) valid_items: usize,
    /// The requests in flight when it was sent, itself included.
    pub(crate) in_flight: usize,
    pub(crate) latency: Duration,
}

impl Tuner {
    /// Begins with the pack size of the settings, or the nearest of the candidates.
    pub(crate) fn new(tuning: &Tuning, pack_size: usize) -> Self {
        let size = |pack_size: &usize| Candidate {
            pack_size: *pack_size,
            sent: 0,
            packs: 0,
            recent: VecDeque::new(),
            checks_sent: 0,
            checks: VecDeque::new(),
        };
        let sizes: Vec<Candidate> = tuning.sizes.iter().map(size).collect();
        let nearest = (0..sizes.len()).min_by_key(|&at| sizes[at].pack_size.abs_diff(pack_size)).unwrap_or(0);
        Self {
            least_agreement: tuning.least_agreement,
            sizes,
            chosen: nearest,
            block: None,
            tries_next: false,
            is_settled: false,
            changes: 0,
        }
    }

    /// The largest candidate.
    pub(crate) fn largest(&self) -> usize {
        self.sizes.last().map_or(1, |size| size.pack_size)
    }

    /// The size for the next pack, while so many requests are in flight.
    pub(crate) fn next_size(&mut self, in_flight: usize, random: &mut fastrand::Rng) -> usize {
        let block = self.block.take().unwrap_or_else(|| {
            let block = self.plan(in_flight, random);
            self.tries_next = block.at == self.chosen;
            block
        });
        let pack_size = self.sizes[block.at].pack_size;
        self.block = Some(block);
        pack_size
    }

    /// A pack of the next size was sent; whether it measures the size.
    pub(crate) fn sent(&mut self) -> bool {
        let Some(block) = &mut self.block else { return false };
        let measures = block.to_skip == 0;
        block.to_skip = block.to_skip.saturating_sub(1);
        self.sizes[block.at].sent += usize::from(measures);
        block.left = block.left.saturating_sub(1);
        if block.left == 0 {
            self.block = None;
        }
        measures
    }

    /// The next block: until the choice the size that has been tried least, then the chosen one and now and then another.
    fn plan(&self, in_flight: usize, random: &mut fastrand::Rng) -> Block {
        let block = |at: usize, packs: usize| Block { at, to_skip: in_flight, left: in_flight + packs };
        if !self.is_settled {
            let lacking = (0..self.sizes.len()).filter(|&at| !self.sizes[at].has_enough());
            let at = lacking.min_by_key(|&at| self.sizes[at].sent).unwrap_or(self.chosen);
            return block(at, PACKS_TO_SETTLE);
        }
        if self.tries_next && self.sizes.len() > 1 {
            let others = (0..self.sizes.len()).filter(|&at| at != self.chosen);
            let at = others.clone().nth(random.usize(..self.sizes.len() - 1)).unwrap_or(self.chosen);
            return block(at, PACKS_TO_SETTLE);
        }
        block(self.chosen, PACKS_PER_TRY * (in_flight + PACKS_TO_SETTLE))
    }

    /// A pack that was sent to measure its size was answered at its first attempt.
    pub(crate) fn answered(&mut self, pack_size: usize, measured: Measured) {
        let Some(size) = self.sizes.iter_mut().find(|size| size.pack_size == pack_size) else { return };
        size.packs += 1;
        size.recent.push_back(measured);
        if size.recent.len() > REMEMBERED_PACKS {
            size.recent.pop_front();
        }
        self.choose();
    }

    /// Whether an item that came out of a pack of this size is to be asked alone as well.
    pub(crate) fn wants_check(&mut self, pack_size: usize, random: &mut fastrand::Rng) -> bool {
        let is_settled = self.is_settled;
        let Some(size) = self.sizes.iter_mut().find(|size| size.pack_size == pack_size && pack_size > 1) else {
            return false;
        };
        let wants = if is_settled {
            random.usize(..PACKS_PER_TRY * pack_size) == 0
        } else {
            // Two items of each pack, at any position: the later ones are often the worse.
            let behind = (2 * size.packs).saturating_sub(size.checks_sent);
            size.checks_sent < CHECKS_TO_SETTLE as u64 && random.f64() < behind as f64 / pack_size as f64
        };
        size.checks_sent += u64::from(wants);
        wants
    }

    /// An item was asked alone as well: whether it got the same category.
    pub(crate) fn checked(&mut self, pack_size: usize, agrees: bool) {
        let Some(size) = self.sizes.iter_mut().find(|size| size.pack_size == pack_size) else { return };
        size.checks.push_back(agrees);
        if size.checks.len() > REMEMBERED_CHECKS {
            size.checks.pop_front();
        }
        self.choose();
    }

    /// A check came to nothing: another may take its place.
    pub(crate) fn check_failed(&mut self, pack_size: usize) {
        if let Some(size) = self.sizes.iter_mut().find(|size| size.pack_size == pack_size) {
            size.checks_sent = size.checks_sent.saturating_sub(1);
        }
    }

    pub(crate) fn report(&self) -> TuningReport {
        let evidence = |size: &Candidate| SizeEvidence {
            pack_size: size.pack_size,
            packs: size.packs,
            items_per_second: size.rate(),
            checked: size.checks.len() as u64,
            agreement: size.agreement(),
            is_acceptable: self.is_acceptable(size),
        };
        TuningReport {
            pack_size: self.sizes.get(self.chosen).map_or(1, |size| size.pack_size),
            is_settled: self.is_settled,
            changes: self.changes,
            sizes: self.sizes.iter().map(evidence).collect(),
        }
    }

    fn choose(&mut self) {
        if !self.sizes.iter().all(Candidate::has_enough) {
            return;
        }
        let acceptable = (0..self.sizes.len()).filter(|&at| self.is_acceptable(&self.sizes[at]));
        let best = acceptable.reduce(|a, b| if self.sizes[b].rate() > self.sizes[a].rate() { b } else { a });
        let Some(best) = best else { return };
        let current = &self.sizes[self.chosen];
        let must_move = !self.is_settled || !self.is_acceptable(current);
        if best != self.chosen && (must_move || self.sizes[best].rate() > LEAD * current.rate()) {
            self.changes += u64::from(self.is_settled);
            tracing::info!(
                pack_size = self.sizes[best].pack_size,
                before = current.pack_size,
                "another pack size is better"
            );
            self.chosen = best;
        }
        self.is_settled = true;
    }

    fn is_acceptable(&self, size: &Candidate) -> bool {
        size.agreement() >= self.least_agreement
    }
}

impl Candidate {
    /// Valid items per second, by Little's law: those in flight, divided by the time that they take.
    fn rate(&self) -> f64 {
        let items: usize = self.recent.iter().map(|pack| pack.valid_items * pack.in_flight).sum();
        let seconds: f64 = self.recent.iter().map(|pack| pack.latency.as_secs_f64()).sum();
        if seconds > 0.0 { items as f64 / seconds } else { 0.0 }
    }

    /// Whether it has been tried often enough for a choice.
    fn has_enough(&self) -> bool {
        let checks = if self.pack_size == 1 { usize::MAX } else { self.checks.len() };
        self.recent.len() as f64 >= ENOUGH * PACKS_TO_SETTLE as f64 && checks as f64 >= ENOUGH * CHECKS_TO_SETTLE as f64
    }

    fn agreement(&self) -> f64 {
        if self.pack_size == 1 {
            return 1.0;
        }
        let agreed = self.checks.iter().filter(|agrees| **agrees).count();
        agreed as f64 / self.checks.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs packs whose latency and agreement depend on their size, and gives the sizes that were used.
    fn run(
        tuner: &mut Tuner,
        packs: usize,
        latency_s: impl Fn(usize) -> f64,
        agreement: impl Fn(usize) -> f64,
    ) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut used = Vec::new();
        for _ in 0..packs {
            let size = tuner.next_size(0, &mut random);
            assert!(tuner.sent());
            used.push(size);
            let latency = Duration::from_secs_f64(latency_s(size));
            tuner.answered(size, Measured { valid_items: size, in_flight: 1, latency });
            for _ in 0..size {
                if tuner.wants_check(size, &mut random) {
                    tuner.checked(size, random.f64() < agreement(size));
                }
            }
        }
        used
    }

    #[test]
    fn the_fastest_size_that_agrees_is_chosen() {
        let mut tuner = Tuner::new(&Tuning::auto(), 3);
        let used = run(&mut tuner, 400, |n| 0.5 + 0.1 * n as f64, |n| if n <= 4 { 1.0 } else { 0.5 });
        assert_eq!(tuner.report().pack_size, 4);
        assert!(used[200..].iter().filter(|size| **size == 4).count() > 180);
    }

    #[test]
    fn where_packs_gain_nothing_items_go_alone() {
        let mut tuner = Tuner::new(&Tuning::auto(), 3);
        run(&mut tuner, 200, |n| 0.1 * (n as f64).powf(1.2), |_| 1.0);
        assert_eq!(tuner.report().pack_size, 1);
    }

    #[test]
    fn the_choice_moves_when_the_server_changes() {
        let mut tuner = Tuner::new(&Tuning::auto(), 3);
        run(&mut tuner, 300, |n| 0.5 + 0.1 * n as f64, |_| 1.0);
        assert_eq!(tuner.report().pack_size, 8);
        run(&mut tuner, 20_000, |n| if n > 4 { 10.0 } else { 0.5 + 0.1 * n as f64 }, |_| 1.0);
        let report = tuner.report();
        assert_eq!(report.pack_size, 4, "{report:?}");
        assert!(report.changes >= 1);
    }

    #[test]
    fn packs_with_others_around_them_measure_nothing() {
        let mut tuner = Tuner::new(&Tuning::auto(), 3);
        let mut random = fastrand::Rng::with_seed(1);
        let mut measure = |_| {
            tuner.next_size(5, &mut random);
            tuner.sent()
        };
        let measures: Vec<bool> = (0..17).map(&mut measure).collect();
        assert_eq!(measures.iter().filter(|measures| **measures).count(), PACKS_TO_SETTLE);
        assert!(measures[..5].iter().all(|measures| !measures));
    }

    #[test]
    fn nothing_is_chosen_before_all_sizes_were_tried() {
        let mut tuner = Tuner::new(&Tuning::auto(), 3);
        run(&mut tuner, 50, |_| 1.0, |_| 1.0);
        let report = tuner.report();
        assert_eq!((report.pack_size, report.is_settled), (3, false));
    }
}
