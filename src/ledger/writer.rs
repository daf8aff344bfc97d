//! The thread that has the file: it writes, brings to the disk, and reads, in groups. What arrives while a group is on its way
//! to the disk is the next group, so that thousands of outcomes a second share a few syncs.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;

use super::SyncPolicy;
use super::error::{LedgerError, LedgerErrorKind};
use super::index::Index;
use super::key::Key;
use super::log::{self, Storage};
use super::record;

/// What the thread and the handles of a ledger share.
#[derive(Debug)]
pub(super) struct Desk {
    path: PathBuf,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    /// Records that wait to be written, and what the index is to know of each.
    group: Group,
    lookups: Vec<Lookup>,
    /// Records that were handed in, and those that are as safe as the policy says.
    appended: u64,
    safe: u64,
    failed: Option<LedgerError>,
    /// Runs that wait for their records to be safe.
    wakers: Vec<Waker>,
    is_closing: bool,
    len: u64,
    syncs: u64,
}

/// Records that are written together.
#[derive(Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    /// The key and kind of each, and where it begins.
    heads: Vec<(Key, record::Kind, usize)>,
}

/// A record to be read.
#[derive(Debug)]
struct Lookup {
    key: Key,
    offset: u64,
    tag: u64,
    reply: UnboundedSender<Recalled>,
    is_answered: bool,
}

/// The number of a record that came too late.
const NEVER_SAFE: u64 = u64::MAX;

/// A record that was read: with the caller's tag, and the payload unless it turned out to be none.
pub(crate) type Recalled = (u64, Option<Vec<u8>>);

/// What the thread is to do next.
struct Work {
    group: Group,
    lookups: Vec<Lookup>,
    is_closing: bool,
}

impl Desk {
    pub(super) fn new(path: PathBuf, index: Index, len: u64) -> Self {
        Self { path, state: Mutex::new(State { index, len, ..State::default() }), work: Condvar::new() }
    }

    /// Hands in a record. Gives its number, for [`poll_safe`](Self::poll_safe).
    pub(super) fn append(&self, payload: &[u8]) -> u64 {
        let mut state = self.state();
        if state.failed.is_some() {
            return NEVER_SAFE;
        }
        if let Some((key, kind)) = record::head(payload) {
            let at = state.group.bytes.len();
            state.group.heads.push((key, kind, at));
            log::frame(payload, &mut state.group.bytes);
            state.appended += 1;
            self.work.notify_one();
        }
        state.appended
    }

    /// The number of the last record that is safe, once that with this number is.
    pub(super) fn poll_safe(&self, number: u64, cx: &Context<'_>) -> Poll<Result<u64, LedgerError>> {
        let mut state = self.state();
        if number <= state.safe {
            return Poll::Ready(Ok(state.safe));
        }
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(error.clone()));
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Has the first record read that stands under one of the keys. Whether there may be one; then a reply comes, whatever
    /// happens.
    pub(super) fn look_up(
        &self,
        keys: impl Iterator<Item = Key>,
        tag: u64,
        reply: &UnboundedSender<Recalled>,
    ) -> Result<bool, LedgerError> {
        let mut state = self.state();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let mut keys = keys;
        let Some((key, offset)) = keys.find_map(|key| Some((key, state.index.find(key)?))) else { return Ok(false) };
        state.lookups.push(Lookup { key, offset, tag, reply: reply.clone(), is_answered: false });
        self.work.notify_one();
        Ok(true)
    }

    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.work.notify_one();
    }

    /// Answers and failures in the index, bytes of the file, syncs so far.
    pub(super) fn counts(&self) -> (u64, u64, u64, u64) {
        let state = self.state();
        (state.index.answers(), state.index.failures(), state.len, state.syncs)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do, at most until then; with a time over, there may be nothing.
    fn wait(&self, until: Option<Instant>) -> Work {
        let mut state = self.state();
        while state.group.heads.is_empty() && state.lookups.is_empty() && !state.is_closing {
            let Some(until) = until else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let State { group, lookups, is_closing, .. } = &mut *state;
        Work { group: std::mem::take(group), lookups: std::mem::take(lookups), is_closing: *is_closing }
    }

    /// A group has been written at this offset.
    fn written(&self, group: &Group, offset: u64) {
        let mut state = self.state();
        for &(key, kind, at) in &group.heads {
            state.index.insert(key, offset + at as u64, kind);
        }
        state.len = offset + group.bytes.len() as u64;
    }

    /// So many more records are safe.
    fn safe(&self, records: u64) {
        let mut state = self.state();
        state.safe += records;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing can be written any more: everybody is told, and no record becomes safe.
    fn fail(&self, error: LedgerError) {
        let mut state = self.state();
        state.failed.get_or_insert(error);
        state.group = Group::default();
        let wakers = std::mem::take(&mut state.wakers);
        let lookups = std::mem::take(&mut state.lookups);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        lookups.into_iter().for_each(|lookup| lookup.reply(None));
    }
}

impl Lookup {
    fn reply(mut self, payload: Option<Vec<u8>>) {
        self.answer(payload);
    }

    fn answer(&mut self, payload: Option<Vec<u8>>) {
        self.is_answered = true;
        // The run may be gone.
        let _ = self.reply.send((self.tag, payload));
    }
}

impl Drop for Lookup {
    /// The thread may break down with a lookup in its hands: its item is then asked.
    fn drop(&mut self) {
        if !self.is_answered {
            self.answer(None);
        }
    }
}

/// The thread's side.
pub(super) struct Writer {
    pub(super) desk: Arc<Desk>,
    pub(super) storage: Box<dyn Storage>,
    /// Where the next record goes.
    pub(super) end: u64,
    pub(super) policy: SyncPolicy,
}

impl Writer {
    /// Works until the ledger is closed.
    pub(super) fn run(mut self) {
        let desk = Arc::clone(&self.desk);
        // However the thread ends, nobody waits for ever.
        let _guard = FailOnDrop(&desk);
        // Since when something is written that is not on the disk. The disk does not go by tokio's clock.
        let mut unsynced_since: Option<Instant> = None;
        loop {
            let period = match self.policy {
                SyncPolicy::Every(period) => Some(period),
                SyncPolicy::Group | SyncPolicy::System => None,
            };
            let due = unsynced_since.zip(period).and_then(|(since, period)| since.checked_add(period));
            let Work { group, lookups, is_closing } = self.desk.wait(due);
            if let Err(error) = self.write(&group, &mut unsynced_since, due, is_closing) {
                // Half a group may be there; whole records of it do no harm, and what is torn is cut off.
                let _ = self.storage.cut(self.end);
                unsynced_since = None;
                self.desk.fail(LedgerError::io(&self.desk.path, "write", &error));
            }
            for lookup in lookups {
                let payload = self.read(&lookup);
                lookup.reply(payload);
            }
            if is_closing {
                break;
            }
        }
    }

    fn write(
        &mut self,
        group: &Group,
        unsynced_since: &mut Option<Instant>,
        due: Option<Instant>,
        is_closing: bool,
    ) -> std::io::Result<()> {
        if !group.heads.is_empty() {
            self.storage.write_at(self.end, &group.bytes)?;
            unsynced_since.get_or_insert_with(Instant::now);
        }
        let is_due = match self.policy {
            SyncPolicy::Group => true,
            SyncPolicy::Every(_) => due.is_some_and(|due| due <= Instant::now()),
            SyncPolicy::System => false,
        };
        if unsynced_since.is_some() && (is_due || is_closing) {
            self.storage.sync()?;
            *unsynced_since = None;
            self.desk.state().syncs += 1;
        }
        if !group.heads.is_empty() {
            self.desk.written(group, self.end);
            self.end += group.bytes.len() as u64;
            self.desk.safe(group.heads.len() as u64);
        }
        Ok(())
    }

    /// The payload of a record, if it is the one that is looked for.
    fn read(&mut self, lookup: &Lookup) -> Option<Vec<u8>> {
        let payload = match log::read(&mut *self.storage, lookup.offset) {
            Ok(payload) => payload,
            Err(error) => {
                let path = self.desk.path.display();
                tracing::warn!(%path, %error, "a record of the ledger cannot be read; its item is asked again");
                None
            }
        };
        payload.filter(|payload| record::head(payload).is_some_and(|(key, _)| key == lookup.key))
    }
}

struct FailOnDrop<'a>(&'a Arc<Desk>);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fail(LedgerError::new(&self.0.path, LedgerErrorKind::Broken));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn a_lookup_is_answered_even_if_the_thread_drops_it() {
        let (reply, mut replies) = unbounded_channel();
        drop(Lookup { key: Key::of_bytes([0; 16]), offset: 0, tag: 7, reply, is_answered: false });
        assert_eq!(replies.try_recv().ok(), Some((7, None)));
        assert!(replies.try_recv().is_err(), "once");
    }
}
