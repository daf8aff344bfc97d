//! Answers kept in a file, so that nothing is asked twice, with the feature `ledger`.
//!
//! A run with a [`Ledger`] writes what becomes of each item **before** it hands the outcome on, and asks for nothing that is
//! there already. So a second run, a run after a crash and another process ask only what is left.
//!
//! ```
//! # #[cfg(feature = "testing")] {
//! # use slugline::testing::SimulatedServer;
//! use slugline::{Categorizer, Ledger, NewsItem, Taxonomy};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let server = SimulatedServer::builder().start().await?;
//! # let base_url = server.base_url();
//! # let path = std::env::temp_dir().join(format!("slugline-doc-{}.ledger", std::process::id()));
//! # let _ = std::fs::remove_file(&path);
//! let categorizer = Categorizer::builder(Taxonomy::load("categories/newsroom.toml")?)
//!     .endpoint(base_url)
//!     .model("simulated")
//!     .ledger(Ledger::open(&path)?)
//!     .build()?;
//! categorizer.categorize([NewsItem::new("a1", "Striker signs for the champions", "")]).await;
//! let again = categorizer.categorize([NewsItem::new("another id", "Striker signs for the champions", "")]).await;
//! assert_eq!((again.stats.from_ledger, again.stats.requests), (1, 0));
//! # drop(categorizer);
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is the same question
//!
//! A record is kept under a hash of the item's text, as cleaned and cut for the prompt, and of all that decides the answer:
//! the content of the taxonomy, the prompt version, the model, the API, temperature, whether confidences are asked for, the
//! calibrations of the models asked, whether positions are evened out, and the escalation except its share of requests. If
//! one of them changes, everything is asked anew. Ids, files, endpoints and their order, pack size, limits and retries do not
//! count: they change what a run costs, not what is asked. Another model beside the first leaves the answers of the first
//! valid.
//!
//! # New versions of a taxonomy
//!
//! With [`across_versions`](crate::CategorizerBuilder::across_versions) each answer is also kept by the meaning of its category
//! ([`Category::hash`](crate::Category::hash)), under the taxonomy's name, which must stay. A run under a new version then
//! asks only the items whose category has changed, or is gone. Its statistics say how many were kept and how many asked.
//!
//! # Failures
//!
//! They are kept under keys of their own and never stand for an answer. An item with a [permanent](crate::Status::Permanent)
//! failure (rejected, filtered, refused) gets it again without a request, unless
//! [`retry_permanent`](LedgerOptions::retry_permanent) is set; every other failure is asked anew by the next run. Items
//! without text, items that were not attempted, and failures that may be the server's own are not written: of prompts that do
//! not fit its context, and rejections while it answers nothing.
//!
//! # What survives what
//!
//! | event | with [`SyncPolicy::Group`], the default | with [`SyncPolicy::Every`] |
//! |---|---|---|
//! | the process is killed | nothing that was handed on is lost | the same |
//! | power loss | the same | what was written since the last sync may be lost, and is asked again |
//! | a torn end, a flipped bit | that record is asked again, all others stay | the same |
//! | the disk is full | the run ends with [`Error::Ledger`](crate::Error::Ledger); outcomes that are not written come as *not attempted* | the same |
//! | a second process | [`Ledger::open`] refuses; the lock is on `<file>.lock` and goes with the process | the same |
//!
//! A run never waits for the disk with its other work: a thread writes and syncs in groups, and outcomes are handed on group
//! by group. A ledger that failed stays failed; open it again.
//!
//! Memory: 17 bytes for each place of the index's table, which is between 7/16 and 7/8 full: 19 to 39 bytes for each record
//! (measured: 34 MiB for a million, 272 MiB for ten million), half as much again while the table grows. The file: 72 bytes for
//! an answer without probabilities, and 6 more for each probability. The example `million` measures both.

mod across;
mod error;
mod index;
mod key;
mod log;
mod record;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

pub use self::across::AcrossVersions;
pub use self::error::{LedgerError, LedgerErrorKind};
use self::index::Index;
pub(crate) use self::key::{Asking, Key, Questions};
use self::log::{Contents, Kind, Storage};
pub(crate) use self::record::{is_standing, of_answer, of_failure, of_standing, read, read_standing};
pub(crate) use self::writer::Recalled;
use self::writer::{Desk, Writer};

/// A file of answers and failures. Cheap to clone; clones share the file.
///
/// Dropping the last clone, categorizers and runs included, brings everything to the disk, waits for that, and frees the file.
/// Requests that a dropped run had in flight hold it until the runtime has ended them, which takes no longer than its next
/// turn.
#[derive(Clone, Debug)]
pub struct Ledger {
    open: Arc<Open>,
}

#[derive(Debug)]
struct Open {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
    contents: Contents,
    retries_permanent: bool,
    /// Held as long as the ledger is open.
    _lock: Option<File>,
}

/// When records are brought to the disk (fsync), which is what makes them survive a loss of power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Before outcomes are handed on. Outcomes that are settled during a sync share the next one.
    #[default]
    Group,
    /// At most so long after they were written. Outcomes are handed on once the operating system has their records, so that
    /// they survive the end of the process, but not a loss of power.
    Every(Duration),
    /// When the operating system sees fit, and at the end.
    System,
}

/// How a ledger is opened.
///
/// Defaults: [`SyncPolicy::Group`], permanent failures are not asked again.
#[derive(Clone, Debug, Default)]
pub struct LedgerOptions {
    policy: SyncPolicy,
    retries_permanent: bool,
}

/// What is in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LedgerStats {
    /// Answers that can be found.
    pub answers: u64,
    /// Failures that can be found.
    pub failures: u64,
    /// The length of the file in bytes.
    pub bytes: u64,
    /// Bytes that were damaged when the ledger was opened, and are passed over.
    pub damaged_bytes: u64,
    /// Bytes that were cut off the end when the ledger was opened, since they were no whole record.
    pub torn_bytes: u64,
    /// How often records were brought to the disk since then.
    pub syncs: u64,
}

impl LedgerOptions {
    /// When records are brought to the disk. Default: [`SyncPolicy::Group`].
    #[must_use]
    pub fn sync(self, policy: SyncPolicy) -> Self {
        Self { policy, ..self }
    }

    /// Whether items are asked again whose failure will not pass by itself, for example after a filter was changed. Default:
    /// false.
    #[must_use]
    pub fn retry_permanent(self, wanted: bool) -> Self {
        Self { retries_permanent: wanted, ..self }
    }

    /// Opens the ledger in this file, which is made if there is none. Reads it once: about half a second for a million records.
    ///
    /// # Errors
    /// [`LedgerErrorKind::InUse`] while it is open elsewhere; the file is no ledger, is of a newer format, or cannot be read
    /// or written.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Ledger, LedgerError> {
        let path = path.as_ref();
        let (file, lock) = open_locked(path)?;
        self.open_storage(path, Box::new(file), Some(lock))
    }

    pub(crate) fn open_storage(
        &self,
        path: &Path,
        mut storage: Box<dyn Storage>,
        lock: Option<File>,
    ) -> Result<Ledger, LedgerError> {
        let (index, contents) = load(path, &mut *storage)?;
        let desk = Arc::new(Desk::new(path.to_owned(), index, contents.end));
        let writer = Writer { desk: Arc::clone(&desk), storage, end: contents.end, policy: self.policy };
        let thread = std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer.run())
            .map_err(|error| LedgerError::io(path, "start a thread for", &error))?;
        let retries_permanent = self.retries_permanent;
        let open = Open { desk, thread: Some(thread), contents, retries_permanent, _lock: lock };
        Ok(Ledger { open: Arc::new(open) })
    }
}

impl Ledger {
    /// Opens the ledger in this file with the default options; see [`LedgerOptions::open`].
    ///
    /// # Errors
    /// As [`LedgerOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        LedgerOptions::default().open(path)
    }

    /// The options, to be changed before the ledger is opened.
    pub fn options() -> LedgerOptions {
        LedgerOptions::default()
    }

    /// What is in it.
    pub fn stats(&self) -> LedgerStats {
        let (answers, failures, bytes, syncs) = self.open.desk.counts();
        let Contents { damaged_bytes, torn_bytes, .. } = self.open.contents;
        LedgerStats { answers, failures, bytes, damaged_bytes, torn_bytes, syncs }
    }

    /// Rewrites a ledger that is not open without damaged bytes and without records that later ones replaced. It is there at
    /// any moment, the old one or the new one, whole.
    ///
    /// # Errors
    /// As [`LedgerOptions::open`].
    pub fn compact(path: impl AsRef<Path>) -> Result<(), LedgerError> {
        let path = path.as_ref();
        let (mut file, _lock) = open_locked(path)?;
        let (index, _) = load(path, &mut file)?;
        let path = real_path(path);
        let new_path = with_ending(&path, ".new");
        let mut rewrite = || -> std::io::Result<()> {
            let mut new = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new_path)?;
            let mut end = log::begin(&mut new)?;
            let mut buffer = Vec::new();
            let mut result = Ok(());
            log::scan(&mut file, |offset, payload| {
                let counts = record::head(payload).is_none_or(|(key, _)| index.find(key) == Some(offset));
                if !counts || result.is_err() {
                    return;
                }
                log::frame(payload, &mut buffer);
                if buffer.len() > COMPACTED_BYTES {
                    result = new.write_at(end, &buffer);
                    end += buffer.len() as u64;
                    buffer.clear();
                }
            })?;
            result?;
            new.write_at(end, &buffer)?;
            new.sync_all()?;
            std::fs::rename(&new_path, &path)?;
            sync_folder(&path)
        };
        rewrite().map_err(|error| LedgerError::io(&path, "rewrite", &error))
    }

    /// Hands in a record; gives its number.
    pub(crate) fn append(&self, payload: &[u8]) -> u64 {
        self.open.desk.append(payload)
    }

    /// The number of the last record that is safe, once the one with this number is.
    pub(crate) fn poll_safe(&self, number: u64, cx: &Context<'_>) -> Poll<Result<u64, LedgerError>> {
        self.open.desk.poll_safe(number, cx)
    }

    /// Whether there may be a record under one of the keys; then it is read, and the reply comes with the tag.
    pub(crate) fn look_up(
        &self,
        keys: impl Iterator<Item = Key>,
        tag: u64,
        reply: &UnboundedSender<Recalled>,
    ) -> Result<bool, LedgerError> {
        self.open.desk.look_up(keys, tag, reply)
    }

    pub(crate) fn retries_permanent(&self) -> bool {
        self.open.retries_permanent
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.desk.close();
        if let Some(thread) = self.thread.take() {
            // The lock goes with this value, so the file must be done with before.
            let _ = thread.join();
        }
    }
}

/// How much is written at once where a ledger is compacted.
const COMPACTED_BYTES: usize = 1024 * 1024;

/// Opens the file and takes its lock, which is on a file beside it: that one is never replaced.
fn open_locked(path: &Path) -> Result<(File, File), LedgerError> {
    let io = |action| move |error: std::io::Error| LedgerError::io(path, action, &error);
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(LedgerError::new(path, LedgerErrorKind::NotALedger));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    // First, so that the links of a path can be followed.
    drop(options.open(path).map_err(io("open"))?);
    let lock = options.open(with_ending(&real_path(path), ".lock")).map_err(io("lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LedgerError::new(path, LedgerErrorKind::InUse)),
        Err(TryLockError::Error(error)) => return Err(LedgerError::io(path, "lock", &error)),
    }
    // Again, since another process may have replaced it before the lock was free.
    let file = options.open(path).map_err(io("open"))?;
    sync_folder(&real_path(path)).map_err(io("create"))?;
    Ok((file, lock))
}

/// Reads what is there, and makes the file fit to be appended to.
fn load(path: &Path, storage: &mut dyn Storage) -> Result<(Index, Contents), LedgerError> {
    let io = |action| move |error: std::io::Error| LedgerError::io(path, action, &error);
    match log::kind(storage).map_err(io("read"))? {
        Kind::Ledger => {}
        Kind::New => {
            log::begin(storage).map_err(io("write"))?;
        }
        Kind::Newer(format) => return Err(LedgerError::new(path, LedgerErrorKind::Newer { format })),
        Kind::Other => return Err(LedgerError::new(path, LedgerErrorKind::NotALedger)),
    }
    let mut index = Index::default();
    let contents = log::scan(storage, |offset, payload| {
        if let Some((key, kind)) = record::head(payload) {
            index.insert(key, offset, kind);
        }
    })
    .map_err(io("read"))?;
    if contents.torn_bytes > 0 {
        tracing::info!(path = %path.display(), bytes = contents.torn_bytes, "the torn end of the ledger is cut off");
        storage.cut(contents.end).and_then(|()| storage.sync()).map_err(io("write"))?;
    }
    if contents.damaged_bytes > 0 {
        tracing::warn!(path = %path.display(), bytes = contents.damaged_bytes, "the ledger is damaged; what is whole is used");
    }
    Ok((index, contents))
}

/// The path without links.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Brings a new name to the disk. Where folders cannot be synced, as on Windows, names are safe without it.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
