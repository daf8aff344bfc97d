//! How packs leave: formed, given a place, sent.

use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;

use super::Run;
use super::attempt::{attempt, items_tokens};
use super::job::{Pack, Tier};
use crate::NewsItem;
use crate::error::Error;
use crate::prompt::clean::CleanText;
use crate::server::Admission;

/// How often the metrics of each server are looked at, where that is wanted.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// How long a retry that the budget does not allow now waits before it asks again.
const BUDGET_PAUSE: Duration = Duration::from_millis(500);

impl<S: Stream<Item = NewsItem>> Run<S> {
    /// Moves packs whose time has come.
    pub(super) fn wake_delayed(&mut self) {
        if self.error.is_some() {
            return;
        }
        let now = Instant::now();
        let mut at = 0;
        while at < self.delayed.len() {
            if self.delayed[at].0 > now {
                at += 1;
            } else if self.budget.withdraw() {
                let (_, pack) = self.delayed.swap_remove(at);
                let cause = pack.items.first().and_then(|item| item.last_failure.as_ref());
                self.recorder.retried(cause.map(|failure| failure.kind));
                self.lane(pack.tier).ready.push_back(pack);
            } else {
                self.delayed[at].0 = now + BUDGET_PAUSE;
                at += 1;
            }
        }
    }

    /// Starts waiting for a place for the next pack.
    pub(super) fn send_on(&mut self, tier: Tier) {
        if self.error.is_some() || self.lane(tier).admitting.is_some() {
            return;
        }
        let Some(pack) = self.lane(tier).ready.pop_front().or_else(|| self.new_pack(tier)) else { return };
        let texts = self.texts_of(&pack);
        let prompt = self.shared.estimator.predict(self.shared.prefix.tokens(), items_tokens(&texts));
        let tokens = u32::try_from(prompt + self.shared.max_output_tokens(texts.len())).unwrap_or(u32::MAX);
        let homed_prefix = self.shared.homed_prefix;
        self.lane(tier).admit(pack, tokens, homed_prefix);
    }

    /// The texts of a pack; those of a canary are made up from the taxonomy.
    fn texts_of(&self, pack: &Pack) -> Vec<Arc<CleanText>> {
        if let Some(check) = &pack.check {
            return vec![Arc::clone(&check.item.text)];
        }
        if pack.items.is_empty() {
            let made_up =
                self.shared.taxonomy.at(0).map(|category| NewsItem::new("", &*category.name, &*category.description));
            return made_up
                .and_then(|item| CleanText::of(&item, self.shared.settings.item_tokens))
                .map(Arc::new)
                .into_iter()
                .collect();
        }
        pack.items.iter().map(|item| Arc::clone(&item.text)).collect()
    }

    fn new_pack(&mut self, tier: Tier) -> Option<Pack> {
        // A part-filled pack leaves early only when nothing could still join it.
        let has_all = self.source.is_none();
        #[cfg(feature = "embedded")]
        let has_all = has_all && self.first_look.is_empty();
        let is_last = has_all && self.in_flight.is_empty() && self.delayed.is_empty();
        let waiting = self.lane(Tier::First).packer.len();
        let is_idle = self.serves && self.in_flight.is_empty();
        let flush = is_idle || is_last || (has_all && tier == Tier::First && waiting <= self.pack_size);
        let tuner = self.tuner.as_mut().filter(|_| tier == Tier::First);
        let measured = tuner.map(|tuner| tuner.next_size(self.in_flight.len(), &mut self.random));
        let pack_size = measured.unwrap_or(self.pack_size);
        let budget_tokens = self.shared.pack_budget_tokens(pack_size);
        let mut pack = self.lane(tier).packer.take(pack_size, budget_tokens, flush)?;
        pack.tier = tier;
        // Positions can be compared only where chance put the items there, whatever the order of the source.
        let is_shuffled = self.shared.settings.evens_positions;
        if is_shuffled || pack.items.iter().any(|item| item.content_failures > 0 || item.escalated.is_some()) {
            self.random.shuffle(&mut pack.items);
        }
        if pack.items.iter().all(|item| item.attempts == 0) {
            self.budget.deposit();
            self.first_requests += 1;
            if let (Some(tuner), Some(size)) = (&mut self.tuner, measured) {
                pack.measures = tuner.sent(pack.len() == size).then_some((size, 0));
            }
        }
        pack.span = tracing::debug_span!(
            parent: &self.span,
            "pack",
            first_item = pack.items.first().map_or(0, |item| item.index),
            items = pack.len(),
            text_tokens = pack.items.iter().map(|item| item.text.tokens).sum::<usize>(),
        );
        Some(pack)
    }

    pub(super) fn admitted(&mut self, tier: Tier, admission: Result<Admission, Error>) {
        let Some((mut pack, _)) = self.lane(tier).admitting.take() else { return };
        let admission = match admission {
            Ok(admission) => admission,
            Err(error) => {
                self.lane(tier).ready.push_front(pack);
                return match tier {
                    Tier::First => self.end(error),
                    Tier::Stronger => self.lose_stronger(&error),
                };
            }
        };
        let now = Instant::now();
        if pack.waits == 0 {
            pack.answers_seen = self.lane(tier).pool.answers();
        }
        let asked = pack.items.iter().filter(|item| item.attempts == 0).count() as u64;
        self.recorder.count(|counts| counts.asked_items += asked);
        for item in &mut pack.items {
            item.attempts += 1;
            item.first_attempt.get_or_insert(now);
        }
        if let Some((_, in_flight)) = &mut pack.measures {
            *in_flight = self.in_flight.len() + 1;
        }
        let waited = pack.waiting_since.take().map_or(Duration::ZERO, |since| admission.admitted_at - since);
        self.recorder.sent(tier.endpoint(admission.at), pack.len(), waited);
        let texts = self.texts_of(&pack);
        let span = tracing::debug_span!(
            parent: &pack.span,
            "attempt",
            endpoint = %admission.endpoint().base_url,
            items = pack.len(),
            number = pack.items.first().map_or(0, |item| item.attempts),
            // The names of OpenTelemetry's conventions for clients of models.
            gen_ai.operation.name = admission.dialect.operation(),
            gen_ai.provider.name = "openai",
            gen_ai.request.model = %admission.endpoint().model,
            gen_ai.request.temperature = self.shared.settings.temperature,
            gen_ai.request.max_tokens = self.shared.max_output_tokens(texts.len()),
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            "error.type" = Empty,
        );
        let task =
            self.attempts.spawn(attempt(Arc::clone(&self.shared), texts, admission, span.clone()).instrument(span));
        self.in_flight.insert(task.id(), pack);
    }

    /// Looks at the metrics of the server that has just answered: for its prefix cache once or twice, for the statistics and
    /// its queue now and then where that is wanted.
    pub(super) fn look_at_metrics(&mut self, at: usize, admitted_at: Instant) {
        while self.metrics_look.try_join_next().is_some() {}
        let watches_queue = self.shared.settings.waits_by_gauge;
        let watches = watches_queue || self.shared.settings.watches_servers;
        let is_due = watches && self.looked_at.get(&at).is_none_or(|looked_at| looked_at.elapsed() >= WATCH_PERIOD);
        if (is_due || self.shared.pool.wants_metrics(at)) && self.metrics_look.is_empty() {
            self.looked_at.insert(at, Instant::now());
            self.metrics_look.spawn(Arc::clone(&self.shared.pool).read_metrics(at, admitted_at, watches_queue));
        }
    }
}
