//! Adaptive concurrency against the simulated server, in virtual time: it must come near the best fixed level, wherever it
//! starts. The figures are those of a simulation.

use std::time::Duration;

use slugline::testing::{Faults, Latency, Overload, SimulatedEngine, SimulatedServer, SimulatedServerBuilder};
use slugline::{Categorizer, EndpointConfig, NewsItem, Report};

use crate::support::taxonomy;

fn categorizer(engine: SimulatedEngine, start: usize, max: usize, watch: bool) -> Categorizer {
    Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://simulated").transport(engine))
        .model("simulated")
        .pack_size(1)
        .concurrency(start)
        .max_concurrency(max)
        .watch_server_queue(watch)
        .seed(7)
        .build()
        .unwrap()
}

fn news(count: usize) -> Vec<NewsItem> {
    (0..count).map(|n| NewsItem::new(format!("n{n}"), format!("Match report {n}"), "The athletes won.")).collect()
}

/// Items per virtual second of a plain client that keeps so many requests in flight.
async fn fixed(server: &SimulatedServerBuilder, level: usize) -> f64 {
    let semaphore = std::sync::Arc::new(tokio::sync::Semaphore::new(level));
    let engine = server.clone().engine();
    let start = tokio::time::Instant::now();
    let count = 200;
    let body = request_body();
    let tasks: Vec<_> = (0..count)
        .map(|_| {
            let (semaphore, engine, body) = (semaphore.clone(), engine.clone(), body.clone());
            tokio::spawn(async move {
                // A fixed client: so many in flight, a timeout of ten seconds, again until it works.
                let _permit = semaphore.acquire().await.unwrap();
                loop {
                    let attempt = engine.handle("/v1/chat/completions", None, &body);
                    let reply = tokio::time::timeout(Duration::from_secs(10), attempt).await;
                    match reply {
                        Ok(slugline::testing::SimulatedReply::Response(reply)) if reply.status == 200 => break,
                        _ => tokio::time::sleep(Duration::from_millis(250)).await,
                    }
                    if start.elapsed() > Duration::from_secs(3_600) {
                        break;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// The bytes of one of our own requests with one item.
fn request_body() -> Vec<u8> {
    let prefix = slugline::prompt::Prefix::new(&taxonomy());
    let user = "<item id=\"1\">\nMatch report\nThe athletes won.\n</item>\nCategories of item 1, as a JSON array:";
    let body = serde_json::json!({
        "model": "simulated", "max_tokens": 60, "temperature": 0.0,
        "messages": [{"role": "system", "content": prefix.text()}, {"role": "user", "content": user}],
    });
    body.to_string().into_bytes()
}

async fn adaptive(server: &SimulatedServerBuilder, start: usize, watch: bool) -> (f64, Report) {
    let report = categorizer(server.clone().engine(), start, 64, watch).categorize(news(1_000)).await;
    assert_eq!(report.categorized(), 1_000, "{:?} {:?}", report.error, report.stats.failed);
    (report.stats.items_per_second(), report)
}

async fn comes_near_the_best(name: &str, server: SimulatedServerBuilder) {
    let mut best = (0, 0.0);
    for level in [1, 2, 4, 8, 16, 24, 32, 48, 64] {
        let rate = fixed(&server, level).await;
        println!("{name}: {level} in flight: {rate:.2} items/s (simulated)");
        if rate > best.1 {
            best = (level, rate);
        }
    }
    for start in [2, 64] {
        let (rate, report) = adaptive(&server, start, false).await;
        let limit = report.stats.endpoints[0].concurrency_limit;
        println!(
            "{name}: adaptive from {start}: {rate:.2} items/s, ends at {limit}, best fixed {} with {:.2}",
            best.0, best.1
        );
        assert!(rate >= 0.7 * best.1, "{name} from {start}: {rate:.2} of {:.2} items/s", best.1);
    }
}

fn decode(per_token_ms: u64, per_running_us: u64) -> Latency {
    Latency::new(20_000.0, Duration::from_millis(per_token_ms), Duration::from_micros(per_running_us))
}

#[tokio::test(start_paused = true)]
async fn a_server_with_a_knee() {
    // Beyond 16 running requests nothing is gained any more, and nothing lost.
    let latency = decode(40, 200).with_knee(16, Duration::from_micros(2_500));
    comes_near_the_best("knee", SimulatedServer::builder().latency(latency)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_overload() {
    let faults = Faults::none().overload_above(20, Overload::TooManyRequests);
    comes_near_the_best("overload answers", SimulatedServer::builder().latency(decode(40, 200)).faults(faults)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_queues_without_bound() {
    comes_near_the_best("unbounded queue", SimulatedServer::builder().latency(decode(40, 200)).max_num_seqs(12)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_one_at_a_time() {
    comes_near_the_best("one at a time", SimulatedServer::builder().latency(Latency::one_at_a_time())).await;
}

#[tokio::test(start_paused = true)]
async fn the_waiting_gauge_keeps_the_queue_short() {
    let server = SimulatedServer::builder().latency(decode(40, 200)).max_num_seqs(12);
    let waiting = |watch: bool| {
        let server = server.clone();
        async move {
            let engine = server.engine();
            let report = categorizer(engine.clone(), 64, 64, watch).categorize(news(1_000)).await;
            assert_eq!(report.categorized(), 1_000);
            (report.stats.endpoints[0].concurrency_limit, report.stats.items_per_second())
        }
    };
    let (without, free_rate) = waiting(false).await;
    let (with, watched_rate) = waiting(true).await;
    println!("unbounded queue (simulated): limit {without} without the gauge, {with} with it");
    assert!(with < 24 && without > 40, "limit {with} with the gauge, {without} without");
    assert!(watched_rate > 0.9 * free_rate, "{watched_rate} of {free_rate} items/s");
}
