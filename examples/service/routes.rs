//! The routes: what comes in, what goes out, and which status says what.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use slugline::{ItemError, NewsItem, Outcome, Service, ServiceError, Status};
use tokio::time::Instant;

use super::exporter::Prometheus;
use super::metrics::metrics;

/// The most bytes of a request.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;
/// The most items of a request.
pub(crate) const MAX_ITEMS: usize = 1_000;
/// How many items of one request are under way at once, so that a large one leaves room in the queue for others.
const ITEMS_AT_ONCE: usize = 32;
/// When a client that was turned away may try again, in seconds.
const RETRY_AFTER_S: &str = "1";

pub(crate) const OPENAPI: &str = include_str!("openapi.json");

#[derive(Clone)]
struct Shared {
    service: Service,
    deadline: Duration,
    figures: Prometheus,
}

pub(crate) fn router(service: Service, deadline: Duration, figures: Prometheus) -> Router {
    Router::new()
        .route("/categorize", post(categorize))
        .route("/health", get(health))
        .route("/metrics", get(page))
        .route("/openapi.json", get(openapi))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not-found", "see /openapi.json for the routes"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "see /openapi.json for the methods")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Shared { service, deadline, figures })
}

async fn categorize(
    State(Shared { service, deadline, .. }): State<Shared>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + deadline;
    match Items::parse(&body?)? {
        Items::One(item) => {
            let outcome = by(&service, *item, deadline).await?;
            Ok((status_of(&outcome), Json(outcome)).into_response())
        }
        Items::Many(items) => {
            let answer = |item: NewsItem| async { (item.id.clone(), by(&service, item, deadline).await) };
            let answers: Vec<_> = stream::iter(items).map(answer).buffered(ITEMS_AT_ONCE).collect().await;
            // When no item has an outcome, the request as a whole has failed.
            if answers.iter().all(|(_, result)| result.is_err())
                && let Some((_, Err(error))) = answers.first()
            {
                return Err(error.into());
            }
            Ok(Json(answers.into_iter().map(entry).collect::<Vec<_>>()).into_response())
        }
    }
}

async fn health(State(Shared { service, .. }): State<Shared>) -> Response {
    let endpoints = service.endpoints();
    let is_ok = endpoints.iter().any(|endpoint| matches!(endpoint.phase, "open" | "probing"));
    let (status, word) = if is_ok { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "unavailable") };
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(
            |endpoint| json!({"endpoint": endpoint.endpoint, "phase": endpoint.phase, "in_flight": endpoint.in_flight}),
        )
        .collect();
    (status, Json(json!({"status": word, "endpoints": endpoints}))).into_response()
}

async fn page(State(Shared { service, figures, .. }): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics(&service, &figures)).into_response()
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// What a request asks for.
enum Items {
    One(Box<NewsItem>),
    Many(Vec<NewsItem>),
}

impl Items {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let items = if is_array {
            serde_json::from_slice(body).map(Self::Many)
        } else {
            serde_json::from_slice(body).map(Self::One)
        };
        match items {
            Ok(Self::Many(items)) if items.len() > MAX_ITEMS => Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                &format!("{} items; a request may have {MAX_ITEMS}", items.len()),
            )),
            Ok(items) => Ok(items),
            Err(error) if error.is_data() => {
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no-item", &error.to_string()))
            }
            Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, "no-json", &error.to_string())),
        }
    }
}

/// Categorizes an item in what is left of the time of its request.
async fn by(service: &Service, item: NewsItem, deadline: Instant) -> Result<Outcome, ServiceError> {
    service.categorize_within(item, deadline.saturating_duration_since(Instant::now())).await
}

/// The status of an answer to a single item.
fn status_of(outcome: &Outcome) -> StatusCode {
    match outcome.result.as_ref().err().map(ItemError::status) {
        None => StatusCode::OK,
        Some(Status::Permanent) => StatusCode::UNPROCESSABLE_ENTITY,
        Some(_) => StatusCode::BAD_GATEWAY,
    }
}

/// An entry of an answer to many items.
fn entry((id, result): (String, Result<Outcome, ServiceError>)) -> Value {
    match result {
        Ok(outcome) => json!(outcome),
        Err(error) => {
            let Problem { kind, message, .. } = Problem::from(&error);
            json!({"id": id, "error": {"kind": kind, "message": message}})
        }
    }
}

/// A request that has no outcome, as `{"error": {"kind", "message"}}`.
pub(crate) struct Problem {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: &str) -> Self {
        Self { status, kind, message: message.to_owned() }
    }
}

impl From<&ServiceError> for Problem {
    fn from(error: &ServiceError) -> Self {
        let (status, kind) = match error {
            ServiceError::Overloaded { .. } => (StatusCode::TOO_MANY_REQUESTS, "overloaded"),
            ServiceError::DeadlineExceeded { .. } => (StatusCode::GATEWAY_TIMEOUT, "deadline-exceeded"),
            ServiceError::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, kind, &error.to_string())
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        (&error).into()
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the request has more than {MAX_BODY_BYTES} bytes");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", &message)
            }
            status => Self::new(status, "unreadable", &rejection.body_text()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Json(json!({"error": {"kind": self.kind, "message": self.message}}));
        let may_come_back = matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let retry_after = may_come_back.then_some([(header::RETRY_AFTER, RETRY_AFTER_S)]);
        (self.status, retry_after, body).into_response()
    }
}
