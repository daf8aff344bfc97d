//! The way of packs to one set of endpoints: formed, ready, waiting for a place.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::job::{Item, Pack};
use super::packer::Packer;
use crate::error::Error;
use crate::server::{Admission, BoxFuture, Pool};

/// What waits for one set of endpoints.
pub(super) struct Lane {
    pub(super) pool: Arc<Pool>,
    pub(super) packer: Packer,
    /// Packs that go next, before new ones.
    pub(super) ready: VecDeque<Pack>,
    /// The pack that waits for a place.
    pub(super) admitting: Option<(Pack, BoxFuture<'static, Result<Admission, Error>>)>,
}

impl Lane {
    pub(super) fn new(pool: Arc<Pool>, packer: Packer) -> Self {
        Self { pool, packer, ready: VecDeque::new(), admitting: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packer.len() == 0 && self.ready.is_empty() && self.admitting.is_none()
    }

    /// Waits for a place for a pack of about so many tokens, which begins with this of several prefixes.
    pub(super) fn admit(&mut self, mut pack: Pack, tokens: u32, homed_prefix: Option<usize>) {
        pack.waiting_since = Some(Instant::now());
        let pool = Arc::clone(&self.pool);
        let avoid = pack.avoid;
        let admission = async move { pool.admit(tokens, avoid, homed_prefix).await };
        self.admitting = Some((pack, Box::pin(admission)));
    }

    /// Takes out everything that waits.
    pub(super) fn drain(&mut self) -> Vec<Item> {
        let mut items: Vec<Item> = self.packer.drain().collect();
        let packs = self.ready.drain(..).chain(self.admitting.take().map(|(pack, _)| pack));
        items.extend(packs.flat_map(|pack| pack.items));
        items
    }
}
