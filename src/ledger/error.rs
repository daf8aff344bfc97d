//! What can go wrong with a ledger.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::Status;

/// Why a ledger cannot be used, with its file.
#[derive(Clone, Debug)]
pub struct LedgerError {
    path: PathBuf,
    kind: LedgerErrorKind,
}

/// The kind of a [`LedgerError`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerErrorKind {
    /// The disk is full, or the user's share of it.
    Full {
        /// The system's words.
        reason: String,
    },
    /// The system refuses to read or write.
    Io {
        /// What was tried.
        action: &'static str,
        /// The system's words.
        reason: String,
    },
    /// Another process, or another [`Ledger`](crate::Ledger) of this one, has it open.
    InUse,
    /// The file is something else. It is left as it is.
    NotALedger,
    /// It was written by a newer version.
    Newer {
        /// The number of its format.
        format: u32,
    },
    /// The thread that writes it broke down.
    Broken,
}

impl LedgerError {
    pub(super) fn new(path: &Path, kind: LedgerErrorKind) -> Self {
        Self { path: path.to_owned(), kind }
    }

    pub(super) fn io(path: &Path, action: &'static str, error: &io::Error) -> Self {
        let reason = error.to_string().to_lowercase();
        let kind = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                LedgerErrorKind::Full { reason }
            }
            _ => LedgerErrorKind::Io { action, reason },
        };
        Self::new(path, kind)
    }

    /// The file of the ledger.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What happened.
    pub fn kind(&self) -> &LedgerErrorKind {
        &self.kind
    }

    /// Whether trying again can help.
    pub fn status(&self) -> Status {
        match self.kind {
            LedgerErrorKind::InUse | LedgerErrorKind::Io { .. } | LedgerErrorKind::Broken => Status::Temporary,
            LedgerErrorKind::Full { .. } | LedgerErrorKind::NotALedger | LedgerErrorKind::Newer { .. } => {
                Status::Permanent
            }
        }
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.kind {
            LedgerErrorKind::Full { reason } => write!(
                formatter,
                "cannot write ledger {path}: {reason}; make room and start again, what was handed on is in it"
            ),
            LedgerErrorKind::Io { action, reason } => write!(
                formatter,
                "cannot {action} ledger {path}: {reason}; check the file and its folder, what was handed on is in it"
            ),
            LedgerErrorKind::InUse => {
                write!(formatter, "ledger {path} is in use; wait for the other process, or name another file")
            }
            LedgerErrorKind::NotALedger => {
                write!(formatter, "{path} is no ledger and is left as it is; name another file")
            }
            LedgerErrorKind::Newer { format } => write!(
                formatter,
                "ledger {path} has format {format}, which this version does not know; use a newer slugline"
            ),
            LedgerErrorKind::Broken => {
                write!(formatter, "the thread that writes ledger {path} broke down; open the ledger again")
            }
        }
    }
}

impl std::error::Error for LedgerError {}
