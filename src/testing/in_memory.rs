//! The simulated server as a transport, without sockets: for tests under tokio's paused clock.

use std::time::SystemTime;

use super::{Pace, SimulatedEngine, SimulatedReply, SimulatedResponse};
use crate::server::{
    BoxFuture, MAX_RESPONSE_BYTES, Request, Response, ServerMetrics, Transport, TransportError, TransportErrorKind,
    parse_retry_after,
};

/// Sends requests straight to the engine, with the same bounds as over a socket.
impl Transport for SimulatedEngine {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        Box::pin(async move {
            let path = match request {
                Request::Chat(_) => "/v1/chat/completions",
                Request::Completion(_) => "/v1/completions",
            };
            let body = serde_json::to_vec(request)
                .map_err(|error| TransportError::new(TransportErrorKind::Interrupted, error.to_string()))?;
            match self.handle(path, None, &body).await {
                SimulatedReply::Response(response) => received(response).await,
                SimulatedReply::CloseEarly { .. } => Err(lost("connection closed before the message completed")),
                SimulatedReply::Reset => Err(lost("connection reset by peer")),
                SimulatedReply::Refused => Err(TransportError::new(TransportErrorKind::Connect, "connection refused")),
            }
        })
    }

    fn metrics(&self) -> BoxFuture<'_, Option<ServerMetrics>> {
        Box::pin(async move {
            match self.handle("/metrics", None, b"").await {
                SimulatedReply::Response(response) if response.status == 200 => {
                    ServerMetrics::parse(std::str::from_utf8(&response.body).ok()?)
                }
                _ => None,
            }
        })
    }
}

fn lost(reason: &str) -> TransportError {
    TransportError::new(TransportErrorKind::Interrupted, reason)
}

async fn received(response: SimulatedResponse) -> Result<Response, TransportError> {
    match response.pace {
        Pace::Whole => {}
        Pace::Drip { bytes, interval } => {
            let parts = response.body.len().div_ceil(bytes.max(1));
            tokio::time::sleep(interval.saturating_mul(u32::try_from(parts).unwrap_or(u32::MAX))).await;
        }
        Pace::Endless => return Err(too_large()),
    }
    if response.body.len() > MAX_RESPONSE_BYTES {
        return Err(too_large());
    }
    let header = |name: &str| response.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut received = Response::new(response.status, response.body.clone());
    received.retry_after = header("retry-after").and_then(|value| parse_retry_after(value, SystemTime::now()));
    received.request_id = header("x-request-id").map(str::to_owned);
    Ok(received)
}

fn too_large() -> TransportError {
    TransportError::new(TransportErrorKind::TooLarge, format!("more than {MAX_RESPONSE_BYTES} bytes"))
}
