//! Sees requests leave and come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::length::Lengthening;
use crate::server::{BoxFuture, Request, Response, ServerMetrics, Transport, TransportError};

/// Records every request that goes through the [transports](Self::over) it is put over. Cheap to clone; all clones are the
/// same probe. Of a request it keeps three figures.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    seen: Arc<Mutex<Seen>>,
    lengthening: Option<(Lengthening, usize)>,
}

#[derive(Debug, Default)]
struct Seen {
    attempts: Vec<Attempt>,
    answered: u64,
    in_flight: usize,
    is_measured: bool,
}

/// How far a step is, for who waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Whether the warm-up is over.
    pub is_measured: bool,
    /// Requests that were answered, in the warm-up or after it.
    pub answered: u64,
    /// Requests that failed, likewise.
    pub failed: u64,
    /// Requests in flight now.
    pub in_flight: usize,
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) sent: Instant,
    pub(super) ended: Instant,
    /// With status 200. A request that was given up, as after a timeout, is not.
    pub(super) is_answered: bool,
}

impl Probe {
    /// A probe that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A probe that has every answer written to so many tokens, in a way that [`find_lengthening`](super::find_lengthening)
    /// has found. Servers that do not know it write what they write.
    pub fn with_output_tokens(output_tokens: usize, by: Lengthening) -> Self {
        Self { lengthening: Some((by, output_tokens.max(1))), ..Self::default() }
    }

    /// The same transport, watched.
    pub fn over<T: Transport>(&self, transport: T) -> Probed<T> {
        Probed { probe: self.clone(), transport }
    }

    /// How far the step is that is being measured.
    pub fn progress(&self) -> Progress {
        let seen = self.seen();
        Progress {
            is_measured: seen.is_measured,
            answered: seen.answered,
            failed: seen.attempts.len() as u64 - seen.answered,
            in_flight: seen.in_flight,
        }
    }

    /// Forgets what it has seen: the warm-up is over.
    pub(super) fn reset(&self) {
        let mut seen = self.seen();
        *seen = Seen { in_flight: seen.in_flight, is_measured: true, ..Seen::default() };
    }

    /// What it has seen, in the order of the ends.
    pub(super) fn take(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.seen()).attempts
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A transport with a [`Probe`] over it.
#[derive(Debug)]
pub struct Probed<T> {
    probe: Probe,
    transport: T,
}

impl<T: Transport> Transport for Probed<T> {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        Box::pin(async move {
            let lengthened = self.probe.lengthening.map(|(by, output_tokens)| {
                let mut request = request.clone();
                by.apply(&mut request, output_tokens);
                request
            });
            self.probe.seen().in_flight += 1;
            let mut watch = Watch { probe: &self.probe, sent: Instant::now(), is_answered: false };
            let response = self.transport.send(lengthened.as_ref().unwrap_or(request)).await;
            watch.is_answered = response.as_ref().is_ok_and(|response| response.http_status == 200);
            response
        })
    }

    fn metrics(&self) -> BoxFuture<'_, Option<ServerMetrics>> {
        self.transport.metrics()
    }
}

/// Records a request when it is over, however it ends.
struct Watch<'a> {
    probe: &'a Probe,
    sent: Instant,
    is_answered: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let attempt = Attempt { sent: self.sent, ended: Instant::now(), is_answered: self.is_answered };
        let mut seen = self.probe.seen();
        seen.in_flight = seen.in_flight.saturating_sub(1);
        seen.answered += u64::from(self.is_answered);
        seen.attempts.push(attempt);
    }
}
