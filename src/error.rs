//! What can go wrong with a run, with an item, and with one attempt at a server.

mod redact;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct, Serializer};

pub(crate) use self::redact::{redact, without_lines};
use crate::taxonomy::{CategoryId, TaxonomyError};

/// Whether trying again can help. Callers that retry should look at this and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// The same request will fail the same way: something must change first.
    Permanent,
    /// It was not tried, or not to the end; a later run may succeed.
    Temporary,
    /// It may pass some day, and slugline has already retried as often as it was allowed to.
    Exhausted,
}

/// Why a run could not start or had to stop.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration has problems, all of them listed.
    #[error("configuration cannot be used: {}", .problems.join("; "))]
    Configuration {
        /// The problems, each with its remedy.
        problems: Vec<String>,
    },
    /// The taxonomy has problems, all of them listed.
    #[error(transparent)]
    Taxonomy(#[from] TaxonomyError),
    /// Every endpoint refuses the key or does not have the model.
    #[error("every endpoint refuses the key or lacks the model; check both: {}", Failures(.failures))]
    Refused {
        /// The last failure of each endpoint.
        failures: Vec<Failure>,
    },
    /// No endpoint answered within the run's patience.
    #[error("no endpoint answered for {waited:.0?}, the run's patience: {}", Failures(.failures))]
    OutOfPatience {
        /// How long the run waited.
        waited: Duration,
        /// The last failure of each endpoint.
        failures: Vec<Failure>,
    },
    /// The ledger cannot be used, or what was settled can no longer be written to it. Outcomes that were not written were not
    /// handed on.
    #[cfg(feature = "ledger")]
    #[error(transparent)]
    Ledger(#[from] crate::ledger::LedgerError),
    /// The embedding model failed, and there is no endpoint that could be asked instead.
    #[cfg(feature = "embedded")]
    #[error(transparent)]
    Embedding(#[from] crate::embedded::EmbedError),
    /// The caller stopped the run.
    #[error("the run was stopped on request")]
    Stopped,
}

/// The kind of an [`Error`], for matching and counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// [`Error::Configuration`].
    Configuration,
    /// [`Error::Taxonomy`].
    Taxonomy,
    /// [`Error::Refused`].
    Refused,
    /// [`Error::OutOfPatience`].
    OutOfPatience,
    /// [`Error::Ledger`].
    #[cfg(feature = "ledger")]
    Ledger,
    /// [`Error::Embedding`].
    #[cfg(feature = "embedded")]
    Embedding,
    /// [`Error::Stopped`].
    Stopped,
}

impl Error {
    pub(crate) fn configuration(problems: impl IntoIterator<Item = String>) -> Self {
        Self::Configuration { problems: problems.into_iter().collect() }
    }

    /// The kind, without its details.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Configuration { .. } => ErrorKind::Configuration,
            Self::Taxonomy(_) => ErrorKind::Taxonomy,
            Self::Refused { .. } => ErrorKind::Refused,
            Self::OutOfPatience { .. } => ErrorKind::OutOfPatience,
            #[cfg(feature = "ledger")]
            Self::Ledger(_) => ErrorKind::Ledger,
            #[cfg(feature = "embedded")]
            Self::Embedding(_) => ErrorKind::Embedding,
            Self::Stopped => ErrorKind::Stopped,
        }
    }

    /// Whether trying again can help.
    pub fn status(&self) -> Status {
        match self {
            Self::Configuration { .. } | Self::Taxonomy(_) | Self::Refused { .. } => Status::Permanent,
            Self::OutOfPatience { .. } => Status::Exhausted,
            #[cfg(feature = "ledger")]
            Self::Ledger(error) => error.status(),
            #[cfg(feature = "embedded")]
            Self::Embedding(_) => Status::Permanent,
            Self::Stopped => Status::Temporary,
        }
    }
}

struct Failures<'a>(&'a [Failure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return formatter.write_str("no attempt was made");
        }
        for (number, failure) in self.0.iter().enumerate() {
            if number > 0 {
                formatter.write_str("; ")?;
            }
            failure.fmt(formatter)?;
        }
        Ok(())
    }
}

/// What went wrong with one attempt at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What happened.
    pub kind: FailureKind,
    /// The base address of the endpoint.
    pub endpoint: Arc<str>,
    /// The HTTP status, where an answer came.
    pub http_status: Option<u16>,
    /// The server's own words: at most 300 bytes, without keys and without text of the request.
    pub words: Option<String>,
    /// The server's id of the request, where it gave one.
    pub request_id: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {}", self.kind, self.endpoint)?;
        if let Some(status) = self.http_status {
            write!(formatter, ", HTTP {status}")?;
        }
        if let Some(words) = &self.words {
            write!(formatter, ", {words:?}")?;
        }
        if let Some(id) = &self.request_id {
            write!(formatter, ", request {id}")?;
        }
        Ok(())
    }
}

/// The kind of a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum FailureKind {
    /// No connection could be made.
    #[error("no connection")]
    Connect,
    /// The connection ended before the answer was whole.
    #[error("connection lost")]
    Interrupted,
    /// No whole answer within the timeout.
    #[error("timeout")]
    Timeout,
    /// The server is overloaded: 429, 503 or 529.
    #[error("overload")]
    Overloaded,
    /// The server failed: any other 5xx.
    #[error("server error")]
    ServerError,
    /// The answer is no answer of a model server: too large, not JSON, without choices.
    #[error("unusable response")]
    UnusableResponse,
    /// The key is refused, or its account is used up: 401, 402, 403, or another 4xx that says so.
    #[error("key refused")]
    KeyRefused,
    /// The server does not have the model, or the address is not that of its API: 404.
    #[error("model or address unknown")]
    UnknownModel,
    /// The prompt and the answer do not fit the server's context.
    #[error("context too short")]
    ContextLength,
    /// The server does not know a field of the request.
    #[error("request form refused")]
    Unsupported,
    /// The server refuses the request for what it says: any other 4xx.
    #[error("request rejected")]
    Rejected,
    /// A content filter ended the answer.
    #[error("content filter")]
    ContentFilter,
    /// The model declined to answer.
    #[error("model refusal")]
    Refusal,
}

impl FailureKind {
    /// All kinds.
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 13] = [
        Self::Connect,
        Self::Interrupted,
        Self::Timeout,
        Self::Overloaded,
        Self::ServerError,
        Self::UnusableResponse,
        Self::KeyRefused,
        Self::UnknownModel,
        Self::ContextLength,
        Self::Unsupported,
        Self::Rejected,
        Self::ContentFilter,
        Self::Refusal,
    ];
}

/// Why an item has no category.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ItemError {
    /// What happened.
    pub kind: ItemErrorKind,
    /// How often the item was part of a request.
    pub attempts: u32,
    /// The time from the first of these attempts to the end of the last.
    pub elapsed: Duration,
    /// The last failure of a request that the item was part of, where there was one.
    pub failure: Option<Failure>,
    /// The category that was not probable enough, with its probability; only of [`ItemErrorKind::BelowThreshold`].
    pub best: Option<(CategoryId, f32)>,
}

/// The kind of an [`ItemError`], for matching and counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ItemErrorKind {
    /// Nothing to read is left of title and body after cleaning.
    Empty,
    /// The prompt does not fit the server's context however short the item is cut.
    TooLong,
    /// The server rejects every request with this item.
    Rejected,
    /// A content filter stops every answer to this item.
    ContentFilter,
    /// The model declines to answer.
    Refusal,
    /// The answers have no readable object.
    Unreadable,
    /// The answers leave the item out, so that none of their labels is believed.
    Missing,
    /// The answers name the item more than once.
    Repeated,
    /// The answers give labels that are of no category.
    UnknownLabel,
    /// The answers leave another item out, name one twice, or number the items differently, so that their labels may be
    /// those of neighbours.
    Shifted,
    /// The answers are cut before the item.
    Cut,
    /// Requests with this item time out while others are answered.
    Timeout,
    /// Connections break with this item while others are answered.
    Connection,
    /// The server fails with this item while others are answered.
    ServerError,
    /// The run ended before the item was settled.
    NotAttempted,
    /// The model answered, but no category is as probable as was asked for: no failure, but the wish not to guess.
    BelowThreshold,
}

impl ItemErrorKind {
    /// All kinds.
    #[cfg(feature = "metrics")]
    pub(crate) const ALL: [Self; 15] = [
        Self::Empty,
        Self::TooLong,
        Self::Rejected,
        Self::ContentFilter,
        Self::Refusal,
        Self::Unreadable,
        Self::Missing,
        Self::Repeated,
        Self::UnknownLabel,
        Self::Shifted,
        Self::Cut,
        Self::Timeout,
        Self::Connection,
        Self::ServerError,
        Self::NotAttempted,
    ];

    /// The kind as it is written in outputs and statistics, in kebab case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::TooLong => "too-long",
            Self::Rejected => "rejected",
            Self::ContentFilter => "content-filter",
            Self::Refusal => "refusal",
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::UnknownLabel => "unknown-label",
            Self::Shifted => "shifted",
            Self::Cut => "cut",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::ServerError => "server-error",
            Self::NotAttempted => "not-attempted",
            Self::BelowThreshold => "below-threshold",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Empty => "title and body have no text to categorize",
            Self::TooLong => {
                "the prompt does not fit the server's context, however short the item is cut: enlarge that"
            }
            Self::Rejected => "the server rejects requests with this item",
            Self::ContentFilter => "a content filter stops the answer",
            Self::Refusal => "the model declines to categorize the item",
            Self::Unreadable => "the answers of the model have no readable object",
            Self::Missing => "the answers of the model leave the item out",
            Self::Repeated => "the answers of the model name the item more than once",
            Self::UnknownLabel => "the answers of the model are of no category",
            Self::Shifted => "the answers of the model number the items differently",
            Self::Cut => "the answers of the model are cut before the item",
            Self::Timeout => "requests with this item time out",
            Self::Connection => "connections break during requests with this item",
            Self::ServerError => "the server fails on requests with this item",
            Self::NotAttempted => "the run ended before the item was settled",
            Self::BelowThreshold => "no category is as probable as was asked for",
        }
    }
}

impl fmt::Display for ItemErrorKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Serialize for ItemErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl ItemError {
    pub(crate) fn of(kind: ItemErrorKind) -> Self {
        Self { kind, attempts: 0, elapsed: Duration::ZERO, failure: None, best: None }
    }

    /// Whether trying again can help.
    pub fn status(&self) -> Status {
        match self.kind {
            ItemErrorKind::Empty
            | ItemErrorKind::Rejected
            | ItemErrorKind::ContentFilter
            | ItemErrorKind::Refusal
            | ItemErrorKind::BelowThreshold => Status::Permanent,
            ItemErrorKind::NotAttempted => Status::Temporary,
            _ => Status::Exhausted,
        }
    }
}

impl fmt::Display for ItemError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.kind.words())?;
        if self.attempts > 0 {
            let plural = if self.attempts == 1 { "" } else { "s" };
            write!(formatter, ", after {} attempt{plural} in {:.1} s", self.attempts, self.elapsed.as_secs_f64())?;
        }
        if let Some(failure) = &self.failure {
            write!(formatter, "; last: {failure}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ItemError {}

/// As `{"kind": …, "message": …, "status": …, "attempts": …}`.
impl Serialize for ItemError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("ItemError", 4)?;
        fields.serialize_field("kind", self.kind.as_str())?;
        fields.serialize_field("message", &self.to_string())?;
        let status = match self.status() {
            Status::Permanent => "permanent",
            Status::Temporary => "temporary",
            Status::Exhausted => "exhausted",
        };
        fields.serialize_field("status", status)?;
        fields.serialize_field("attempts", &self.attempts)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_error_tells_its_story_in_one_line() {
        let error = ItemError {
            kind: ItemErrorKind::Timeout,
            attempts: 4,
            elapsed: Duration::from_millis(52_340),
            failure: Some(Failure {
                kind: FailureKind::ServerError,
                endpoint: "http://localhost:8000/v1".into(),
                http_status: Some(500),
                words: Some("engine is dead".into()),
                request_id: Some("r-1".into()),
            }),
            best: None,
        };
        assert_eq!(
            error.to_string(),
            "requests with this item time out, after 4 attempts in 52.3 s; last: server error at \
             http://localhost:8000/v1, HTTP 500, \"engine is dead\", request r-1"
        );
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!((json["kind"].as_str(), json["status"].as_str()), (Some("timeout"), Some("exhausted")));
    }
}
