//! From items to requests.

use std::collections::HashMap;
use std::time::Duration;

use super::round::{Ask, Pending, Round};
use super::{Batch, settle};
use crate::NewsItem;
use crate::dedup::TextHash;
use crate::error::ItemErrorKind;
use crate::outcome::Outcome;
use crate::prompt::clean::CleanText;
use crate::prompt::suspect;
use crate::run::{Item, Packer};
use crate::server::Dialect;

/// So many packs' worth of items are looked at for neighbours of similar length.
const WINDOW_PACKS: usize = 8;

impl Batch {
    pub(super) fn first_round(&self, items: impl IntoIterator<Item = NewsItem>) -> (Round, Vec<Outcome>) {
        let mut pending: Vec<Pending> = Vec::new();
        let mut seen: HashMap<TextHash, usize> = HashMap::new();
        let mut outcomes = Vec::new();
        let mut count = 0;
        for (item, index) in items.into_iter().zip(0_u64..) {
            count = index + 1;
            let is_suspect = suspect::is_suspect(&item);
            let Some(text) = CleanText::of(&item, self.shared.settings.item_tokens) else {
                outcomes.push(settle::failed_outcome(index, item.id, ItemErrorKind::Empty));
                continue;
            };
            let text = match &self.shared.tokens {
                Some(tokens) => text.counted_with(&**tokens),
                None => text,
            };
            let at = *seen.entry(TextHash::of(&text)).or_insert(pending.len());
            if let Some(original) = pending.get_mut(at) {
                original.copies.push((index, item.id));
                continue;
            }
            pending.push(Pending {
                index,
                id: item.id,
                text: text.into(),
                attempts: 0,
                content_failures: 0,
                transport_failures: 0,
                has_been_refused: false,
                alone: is_suspect,
                copies: Vec::new(),
            });
        }
        let settled = outcomes.len() as u64;
        let asks = self.packs(pending, self.dialect, 1);
        (Round { number: 1, items: count, settled, dialect: self.dialect, asks }, outcomes)
    }

    /// Groups items into requests; those that are asked again in another order.
    pub(super) fn packs(&self, pending: Vec<Pending>, dialect: Dialect, round: u32) -> Vec<Ask> {
        let pack_size = self.shared.settings.pack_size;
        let budget_tokens = self.shared.pack_budget_tokens(pack_size);
        let mut packer = Packer::new(Duration::MAX);
        let mut random = fastrand::Rng::with_seed(u64::from(round));
        let mut slots: Vec<Option<Pending>> = pending.into_iter().map(Some).collect();
        let mut asks = Vec::new();
        for at in 0..=slots.len() {
            let is_last = at == slots.len();
            if let Some(Some(item)) = slots.get(at) {
                let mut waiting = Item::new(at as u64, String::new(), CleanText::clone(&item.text));
                waiting.alone = item.alone;
                packer.push(waiting);
            }
            while is_last || packer.len() >= WINDOW_PACKS * pack_size {
                let Some(pack) = packer.take(pack_size, budget_tokens, is_last) else { break };
                let places = pack.items.iter().filter_map(|item| slots.get_mut(item.index as usize)?.take());
                let mut items: Vec<Pending> = places.collect();
                if items.iter().any(|item| item.content_failures > 0) {
                    random.shuffle(&mut items);
                }
                asks.push(self.ask(items, dialect));
            }
        }
        asks
    }

    /// A request with its id: a hash of all that the answer depends on, and of whom it is for.
    pub(super) fn ask(&self, items: Vec<Pending>, dialect: Dialect) -> Ask {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        };
        add(self.shared.prefix.version().as_str().as_bytes());
        add(self.model.as_bytes());
        add(format!("{dialect:?}").as_bytes());
        for item in &items {
            add(&item.index.to_le_bytes());
            add(item.id.as_bytes());
            // An item that is asked again in the same request must not get the old answer once more.
            add(&item.attempts.to_le_bytes());
            add(item.text.title.as_bytes());
            add(item.text.body.as_bytes());
        }
        Ask { custom_id: format!("slugline-{}", &hasher.finalize().to_hex()[..32]), items }
    }
}
