//! An alert of each kind fires and clears, from what a run, its server and its GPUs really say, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::alerts::{self, Alerts, Level, Quality, Rules, Signal};
use slugline::gpu::{self, GpuColumns};
use slugline::server::{BoxFuture, Request, Response, ServerMetrics, Transport, TransportError};
use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{Categorizer, EndpointConfig};
use tokio::time::Instant;

use crate::support::{item, right_label, taxonomy};

/// All is well, then not, then again.
const BAD: std::ops::Range<u64> = 120..360;
const END_S: u64 = 720;

/// A server whose `/metrics` say that requests wait in it, while it is bad.
#[derive(Clone, Debug)]
struct Server {
    transport: ScriptedTransport,
    queues: bool,
    started: Instant,
}

impl Transport for Server {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        self.transport.send(request)
    }

    fn metrics(&self) -> BoxFuture<'_, Option<ServerMetrics>> {
        let waiting = if self.queues && is_bad(self.started) { 120 } else { 3 };
        Box::pin(std::future::ready(ServerMetrics::parse(&format!("vllm:num_requests_waiting {waiting}\n"))))
    }
}

fn is_bad(started: Instant) -> bool {
    BAD.contains(&started.elapsed().as_secs())
}

/// An answer with these labels, of whose 1,000 prompt tokens so many were cached.
fn answer<'a>(labels: impl Iterator<Item = &'a str>, cached_tokens: u64) -> Reply {
    let objects: Vec<_> =
        (1..).zip(labels).map(|(id, label)| serde_json::json!({"id": id, "category": label})).collect();
    let body = serde_json::json!({
        "choices": [{"message": {"content": serde_json::json!(objects).to_string()}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1_000, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": cached_tokens}},
    });
    Reply::response(Response::new(200, body.to_string())).after(Duration::from_secs(1))
}

fn good(asked: &Asked) -> Reply {
    answer(asked.items.iter().map(|item| right_label(item)), 800)
}

/// Runs against a server that does this while it is bad, and gives the levels that the signal went through.
async fn levels(signal: Signal, queues: bool, bad: fn(&Asked) -> Reply) -> Vec<Level> {
    let started = Instant::now();
    let transport = ScriptedTransport::new(move |asked| if is_bad(started) { bad(asked) } else { good(asked) });
    let server = Server { transport, queues, started };
    let categorizer = Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://0").transport(server))
        .model("m")
        .seed(1)
        .concurrency(4)
        .max_concurrency(4)
        .watch_server_metrics(true)
        .build()
        .unwrap();
    let news = (0..).map(|number| {
        // One in six is of no category.
        let mut item = item(3 * number + [0, 1, 0, 1, 0, 2][number % 6]);
        // Every twelfth is a canary, whose label is known.
        if number % 12 == 0 {
            item.id = "canary".into();
        }
        item
    });
    let mut baseline = Quality::new().canary("canary", "sport");
    let mut quality: Option<Quality> = None;
    let mut outcomes = categorizer.stream(stream::iter(news));
    let stats = outcomes.stats_handle();
    let mut alerts = Alerts::new(Rules::default());
    let mut changes = alerts.changes();
    let mut looks = tokio::time::interval(Duration::from_secs(5));
    while started.elapsed().as_secs() < END_S {
        tokio::select! {
            outcome = outcomes.next() => {
                let outcome = outcome.unwrap();
                // What came before the look at 60 s is the baseline.
                match &mut quality {
                    Some(quality) => quality.observe(Some("wire"), &outcome),
                    None => baseline.learn("wire", &outcome),
                }
            }
            _ = looks.tick() => {
                if quality.is_none() && started.elapsed().as_secs() >= 60 {
                    quality = Some(baseline.clone());
                }
                let mut measured = alerts::of_stats(&stats.snapshot());
                measured.extend(quality.iter().flat_map(Quality::measurements));
                alerts.look(&measured);
            }
        }
    }
    assert_eq!(alerts.firing(), [], "after it was over");
    drop(alerts);
    let mut levels = Vec::new();
    while let Some(change) = changes.next().await {
        if change.signal == signal {
            levels.push(change.to);
        }
    }
    levels
}

const BOTH: [Level; 3] = [Level::Warning, Level::Critical, Level::Fine];

/// Levels that rise, one or two at a time, and fall to none.
fn check(levels: &[Level], worst: Level) {
    assert_eq!(levels.last(), Some(&Level::Fine), "{levels:?}");
    assert_eq!(levels.iter().max(), Some(&worst), "{levels:?}");
}

#[tokio::test(start_paused = true)]
async fn success_share() {
    let bad = |asked: &Asked| if asked.number.is_multiple_of(3) { Reply::status(500, "no") } else { good(asked) };
    check(&levels(Signal::SuccessShare, false, bad).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn latency() {
    check(&levels(Signal::LatencyP95, false, |asked| good(asked).after(Duration::from_secs(7))).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn share_of_other() {
    let bad = |asked: &Asked| answer(asked.items.iter().map(|_| "other"), 800);
    check(&levels(Signal::FallbackShare, false, bad).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn invalid_answers() {
    let bad = |asked: &Asked| {
        let odd = asked.number.is_multiple_of(3);
        answer(asked.items.iter().map(|item| if odd { "no such label" } else { right_label(item) }), 800)
    };
    check(&levels(Signal::InvalidShare, false, bad).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn cached_share() {
    let bad = |asked: &Asked| answer(asked.items.iter().map(|item| right_label(item)), 100);
    check(&levels(Signal::CachedShare, false, bad).await, Level::Warning);
}

#[tokio::test(start_paused = true)]
async fn queue_depth() {
    check(&levels(Signal::QueueDepth, true, good).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn drift_of_labels() {
    let bad = |asked: &Asked| answer(asked.items.iter().map(|_| "business"), 800);
    check(&levels(Signal::LabelDrift, false, bad).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn canaries() {
    let bad = |asked: &Asked| answer(asked.items.iter().map(|_| "business"), 800);
    check(&levels(Signal::CanaryAccuracy, false, bad).await, Level::Critical);
}

#[tokio::test(start_paused = true)]
async fn gpu_memory() {
    let columns = GpuColumns::parse("timestamp, index, memory.used [MiB], memory.total [MiB]").unwrap();
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let mut alerts = Alerts::new(Rules::default())
        .on_change(move |change| listener.lock().unwrap().push((change.subject.clone(), change.to)));
    let memory = [(60, 8_000), (60, 14_500), (60, 15_500), (60, 15_100), (120, 8_000)];
    for (seconds, used_mib) in memory {
        for _ in 0..seconds / 5 {
            let lines = [format!("t, 0, {used_mib} MiB, 16376 MiB"), "t, 1, 100 MiB, 16376 MiB".to_owned()];
            let samples: Vec<_> = lines.iter().filter_map(|line| columns.sample(line)).collect();
            alerts.look(&gpu::measurements(&samples));
            tokio::time::advance(Duration::from_secs(5)).await;
        }
    }
    // 15,100 MiB are less than 0.92, but not by the margin.
    let expected = BOTH.map(|level| (Some("gpu 0".into()), level));
    assert_eq!(*told.lock().unwrap(), expected);
}
