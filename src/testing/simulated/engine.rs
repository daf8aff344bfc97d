//! The simulated server without sockets: one request in, one reply out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use super::cache::{PrefixCache, SlotCache};
use super::counts::Counts;
use super::faults::{Death, FaultState, Faults};
use super::prefix::Prefixes;
use super::reply::{SimulatedReply, SimulatedResponse};
use super::request::Endpoint;
use super::schedule::{Gauge, Schedule};
use super::settings::Settings;

pub(super) const CHAT_PATH: &str = "/v1/chat/completions";
pub(super) const COMPLETIONS_PATH: &str = "/v1/completions";
pub(super) const MODELS_PATH: &str = "/v1/models";
pub(super) const HEALTH_PATH: &str = "/health";
pub(super) const METRICS_PATH: &str = "/metrics";

/// A **simulated** server without sockets, for tests under tokio's paused clock and for transports in memory. Cheap to
/// clone; all clones are the same server.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use slugline::testing::{SimulatedReply, SimulatedServer};
///
/// let engine = SimulatedServer::builder().engine();
/// let reply = engine.handle("/v1/models", None, b"").await;
/// assert!(matches!(reply, SimulatedReply::Response(response) if response.status == 200));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SimulatedEngine {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) schedule: Schedule,
    pub(super) in_flight: Gauge,
    pub(super) prefixes: Prefixes,
    cache: Mutex<PrefixCache>,
    /// In place of the cache, where each place to run has its own.
    pub(super) slots: Option<Mutex<SlotCache>>,
    counts: Mutex<Counts>,
    faults: Mutex<FaultState>,
    up: watch::Sender<bool>,
}

impl SimulatedEngine {
    pub(super) fn new(settings: Settings, faults: Faults) -> Self {
        let inner = Inner {
            schedule: Schedule::new(settings.latency, settings.max_num_seqs, settings.max_waiting),
            in_flight: Gauge::default(),
            prefixes: Prefixes::default(),
            cache: Mutex::new(PrefixCache::new(settings.block_tokens, settings.cache_tokens / settings.block_tokens)),
            slots: settings
                .has_slot_cache
                .then(|| Mutex::new(SlotCache::new(settings.max_num_seqs.min(settings.latency.max_running)))),
            counts: Mutex::default(),
            faults: Mutex::new(FaultState::new(faults, settings.seed)),
            up: watch::Sender::new(true),
            settings,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Handles one request: the path of its URL (`/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/health`,
    /// `/metrics`), its `authorization` header and its body. Takes as long as the server would; never returns when the
    /// request hangs. Dropping the future is what a client does that gives up.
    ///
    /// Must be called within a tokio runtime with its timer on, unless the latency is
    /// [`instant`](super::Latency::instant).
    pub async fn handle(&self, path: &str, authorization: Option<&str>, body: &[u8]) -> SimulatedReply {
        let mut up = self.inner.up.subscribe();
        if !*up.borrow_and_update() {
            self.inner.counts().refused += 1;
            return SimulatedReply::Refused;
        }
        let unanswered = Unanswered(&self.inner);
        let reply = tokio::select! {
            biased;
            reply = self.answer(path, authorization, body) => reply,
            _ = up.wait_for(|up| !up) => SimulatedReply::Reset,
        };
        // It is answered: what counts as abandoned is a guard that is dropped with this future.
        std::mem::forget(unanswered);
        self.inner.count_reply(&reply);
        reply
    }

    async fn answer(&self, path: &str, authorization: Option<&str>, body: &[u8]) -> SimulatedReply {
        let endpoint = match path {
            CHAT_PATH => Endpoint::Chat,
            COMPLETIONS_PATH => Endpoint::Completions,
            _ => return SimulatedReply::Response(self.inner.plain_answer(path, authorization)),
        };
        self.inner.count_request(if endpoint == Endpoint::Chat { CHAT_PATH } else { COMPLETIONS_PATH });
        let refusal = self.inner.refusal_of_key(authorization);
        match refusal {
            Some(refusal) => SimulatedReply::Response(refusal),
            None => self.complete(endpoint, body).await,
        }
    }

    /// What it has seen and done so far.
    pub fn counts(&self) -> Counts {
        let inner = &self.inner;
        let mut counts = inner.counts().clone();
        counts.running = inner.schedule.running().now();
        counts.max_running = inner.schedule.running().most();
        counts.waiting = inner.schedule.waiting().now();
        counts.max_waiting = inner.schedule.waiting().most();
        counts.in_flight = inner.in_flight.now();
        counts.max_in_flight = inner.in_flight.most();
        counts
    }

    /// Sets other faults, which begin to count requests anew.
    pub fn set_faults(&self, faults: Faults) {
        *self.inner.faults() = FaultState::new(faults, self.inner.settings.seed);
    }

    /// Whether it answers at all.
    pub fn is_up(&self) -> bool {
        *self.inner.up.borrow()
    }

    /// Goes down like a process that dies: requests in flight are reset, later ones refused. Does nothing when it is down.
    pub fn go_down(&self) {
        self.inner.up.send_replace(false);
    }

    /// Comes back like a process that was started again, its prefix cache empty.
    pub fn come_back(&self) {
        self.inner.clear_cache();
        self.inner.up.send_replace(true);
    }

    /// Says when it goes down or comes back.
    pub(super) fn watch_up(&self) -> watch::Receiver<bool> {
        self.inner.up.subscribe()
    }

    pub(super) fn count_connection(&self, is_open: bool) {
        let mut counts = self.inner.counts();
        if is_open {
            counts.connections += 1;
            counts.open_connections += 1;
        } else {
            counts.open_connections -= 1;
        }
    }

    pub(super) fn die(&self, death: Death) {
        self.go_down();
        if let Some(after) = death.revival {
            // A server that nobody holds any more must not be kept for its revival.
            let inner = Arc::downgrade(&self.inner);
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                if let Some(inner) = inner.upgrade() {
                    Self { inner }.come_back();
                }
            });
        }
    }
}

/// Counts a request as abandoned when it is dropped.
struct Unanswered<'a>(&'a Inner);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.counts().abandoned += 1;
    }
}

#[derive(Serialize)]
struct ModelList<'a> {
    object: &'a str,
    data: [ModelCard<'a>; 1],
}

#[derive(Serialize)]
struct ModelCard<'a> {
    id: &'a str,
    object: &'a str,
    created: u64,
    owned_by: &'a str,
    root: &'a str,
    max_model_len: usize,
}

#[derive(Serialize)]
struct PlainError<'a> {
    error: &'a str,
}

#[derive(Serialize)]
struct Detail<'a> {
    detail: &'a str,
}

impl Inner {
    /// The routes that take no time.
    fn plain_answer(&self, path: &str, authorization: Option<&str>) -> SimulatedResponse {
        let known = [MODELS_PATH, HEALTH_PATH, METRICS_PATH].into_iter().find(|known| *known == path);
        self.count_request(known.unwrap_or("other"));
        match path {
            HEALTH_PATH => SimulatedResponse::new(200, "text/plain", ""),
            METRICS_PATH if self.settings.has_metrics => {
                let usage = self.schedule.held_tokens() as f64 / self.settings.cache_tokens.max(1) as f64;
                let mut counts = self.counts().clone();
                counts.running = self.schedule.running().now();
                counts.waiting = self.schedule.waiting().now();
                let is_cached = self.settings.cache_tokens > 0;
                let block_tokens = is_cached.then_some(self.settings.block_tokens);
                let text = counts.metrics(&self.settings.model, usage.min(1.0), block_tokens);
                SimulatedResponse::new(200, "text/plain; version=0.0.4; charset=utf-8", text)
            }
            MODELS_PATH => self.refusal_of_key(authorization).unwrap_or_else(|| {
                let card = ModelCard {
                    id: &self.settings.model,
                    object: "model",
                    created: 0,
                    owned_by: "slugline-simulation",
                    root: &self.settings.model,
                    max_model_len: self.settings.max_model_len,
                };
                SimulatedResponse::json(200, &ModelList { object: "list", data: [card] })
            }),
            _ => SimulatedResponse::json(404, &Detail { detail: "Not Found" }),
        }
    }

    /// The answer to a wrong key, in vLLM's own form; none when the key is right or not needed.
    fn refusal_of_key(&self, authorization: Option<&str>) -> Option<SimulatedResponse> {
        let key = self.settings.api_key.as_deref()?;
        let given = authorization.and_then(|value| value.strip_prefix("Bearer "));
        (given != Some(key)).then(|| SimulatedResponse::json(401, &PlainError { error: "Unauthorized" }))
    }

    fn count_request(&self, path: &'static str) {
        *self.counts().requests.entry(path).or_default() += 1;
    }

    fn count_reply(&self, reply: &SimulatedReply) {
        let mut counts = self.counts();
        match reply {
            SimulatedReply::Response(response) | SimulatedReply::CloseEarly { response, .. } => {
                *counts.statuses.entry(response.status).or_default() += 1;
            }
            SimulatedReply::Reset => counts.resets += 1,
            SimulatedReply::Refused => counts.refused += 1,
        }
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, FaultState> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clear_cache(&self) {
        self.cache().clear();
        if let Some(slots) = &self.slots {
            slots.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, PrefixCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;

    use super::super::SimulatedServer;
    use super::*;

    async fn get(engine: &SimulatedEngine, path: &str, key: Option<&str>) -> (u16, Value) {
        match engine.handle(path, key, b"").await {
            SimulatedReply::Response(response) => {
                (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn plain_routes_answer() {
        let engine = SimulatedServer::builder().model("m").engine();
        let (status, models) = get(&engine, MODELS_PATH, None).await;
        assert_eq!((status, models["data"][0]["id"].as_str()), (200, Some("m")));
        assert_eq!(models["data"][0]["max_model_len"], 4_096);
        assert_eq!(get(&engine, HEALTH_PATH, None).await.0, 200);
        assert_eq!(get(&engine, METRICS_PATH, None).await.0, 200);
        assert_eq!(get(&engine, "/v1/embeddings", None).await.0, 404);
        let counts = engine.counts();
        assert_eq!((counts.requests["other"], counts.requests[HEALTH_PATH], counts.status(200)), (1, 1, 3));
    }

    #[tokio::test]
    async fn only_the_right_key_opens_the_api_and_health_needs_none() {
        let engine = SimulatedServer::builder().api_key(Some("k".into())).engine();
        for key in [None, Some("Bearer x"), Some("k")] {
            assert_eq!(get(&engine, MODELS_PATH, key).await, (401, serde_json::json!({"error": "Unauthorized"})));
            assert_eq!(get(&engine, CHAT_PATH, key).await.0, 401);
        }
        assert_eq!(get(&engine, MODELS_PATH, Some("Bearer k")).await.0, 200);
        assert_eq!(get(&engine, HEALTH_PATH, None).await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_down_refuses_until_it_is_back() {
        let engine = SimulatedServer::builder().engine();
        engine.go_down();
        assert_eq!(engine.handle(HEALTH_PATH, None, b"").await, SimulatedReply::Refused);
        engine.come_back();
        assert!(engine.is_up());
        assert_eq!(get(&engine, HEALTH_PATH, None).await.0, 200);
        engine.die(Death { after_requests: 0, revival: Some(Duration::from_mins(1)) });
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(!engine.is_up());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(engine.is_up());
        assert_eq!(engine.counts().refused, 1);
    }
}
