//! The seam between slugline and a server: one request, one attempt.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::metrics::ServerMetrics;
use super::wire::Request;

/// A boxed future, as the futures crates have it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends one request to one endpoint, once.
///
/// An implementation must not retry, must not wait for rate limits, and need not bound its time: the run loop does all of
/// that. It must bound the size of what it reads. Dropping the future must cancel the request.
///
/// Tests use [`ScriptedTransport`](crate::testing::ScriptedTransport), of the feature `testing`.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Sends the request and reads the whole response, whatever its status.
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>>;

    /// What the server says of itself; none when it does not say. The default is that it does not. It must bound its time.
    fn metrics(&self) -> BoxFuture<'_, Option<ServerMetrics>> {
        Box::pin(std::future::ready(None))
    }
}

/// A whole HTTP response, reduced to what the run loop needs to know. Any status is a response, not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status.
    pub http_status: u16,
    /// How long the server asks to wait before the next request, from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The server's id of the request, from `x-request-id`.
    pub request_id: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// A response without headers.
    pub fn new(http_status: u16, body: impl Into<Bytes>) -> Self {
        Self { http_status, retry_after: None, request_id: None, body: body.into() }
    }

    /// The same response with the wait that the server asks for.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same response with an id.
    #[must_use]
    pub fn with_request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }
}

/// Why there is no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {reason}")]
#[non_exhaustive]
pub struct TransportError {
    /// What happened.
    pub kind: TransportErrorKind,
    /// The details, without the request's text.
    pub reason: String,
}

impl TransportError {
    /// An error of a kind, with its details.
    pub fn new(kind: TransportErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// The kind of a [`TransportError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// No connection could be made.
    #[error("no connection")]
    Connect,
    /// The connection ended before the response was whole.
    #[error("connection lost")]
    Interrupted,
    /// The response is larger than the bound.
    #[error("response too large")]
    TooLarge,
}

/// Reads `Retry-After`: seconds, with a fraction or without, or a date.
pub(crate) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // A date in the past asks for no wait.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let parse = |value| parse_retry_after(value, now);
        assert_eq!(parse(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(parse("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(parse("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for odd in ["", "-1", "NaN", "inf", "1e400", "soon", "99999999999999999999999999"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
