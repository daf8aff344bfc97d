//! Sees requests leave and come back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::server::{BoxFuture, Request, Response, ServerMetrics, Transport, TransportError};

/// Records every request that goes through the [transports](Self::over) it is put over. Cheap to clone; all clones are the
/// same probe. Of a request it keeps three figures.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    output_tokens: Option<usize>,
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

    /// A probe that has every answer written to so many tokens, by `max_tokens` and `ignore_eos`, which vLLM and llama.cpp
    /// know: what a model writes after its answer is read over. Servers that do not know it write what they write.
    pub fn with_output_tokens(output_tokens: usize) -> Self {
        Self { output_tokens: Some(output_tokens.max(1)), ..Self::default() }
    }

    /// The same transport, watched.
    pub fn over<T: Transport>(&self, transport: T) -> Probed<T> {
        Probed { probe: self.clone(), transport }
    }

    /// Forgets what it has seen.
    pub(super) fn reset(&self) {
        self.attempts().clear();
    }

    /// What it has seen, in the order of the ends.
    pub(super) fn take(&self) -> Vec<Attempt> {
        std::mem::take(&mut *self.attempts())
    }

    fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
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
            let mut watch = Watch { probe: &self.probe, sent: Instant::now(), is_answered: false };
            let response = match self.probe.output_tokens {
                Some(output_tokens) => {
                    let mut request = request.clone();
                    let options = request.options_mut();
                    (options.max_tokens, options.ignore_eos) = (output_tokens, Some(true));
                    self.transport.send(&request).await
                }
                None => self.transport.send(request).await,
            };
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
        self.probe.attempts().push(attempt);
    }
}
