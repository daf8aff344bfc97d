//! The simulated server under load, in virtual time.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::super::{Latency, SimulatedEngine, SimulatedReply, SimulatedServer, SimulatedServerBuilder};
use super::{THREE, answer, ask, chat};

/// A request like the reference workload's: 1,100 prompt tokens, the first 650 shared, 200 output tokens.
fn reference_request(number: usize) -> Value {
    let mut body = chat(&["placeholder"; 1]);
    let filler = "Some more words of a description that all requests share. ".repeat(41);
    let prefix = format!("{}{filler}", super::PREFIX);
    let item = |part: usize| {
        let words = "A sentence of an item that is not like the others. ".repeat(9);
        format!("Item {number} part {part}: {words}")
    };
    let items = [item(1), item(2), item(3)];
    body["messages"][0]["content"] = prefix.into();
    body["messages"][1]["content"] = super::message(&items.iter().map(String::as_str).collect::<Vec<_>>()).into();
    body
}

fn builder(latency: Latency) -> SimulatedServerBuilder {
    SimulatedServer::builder().latency(latency).output_tokens(Some(200))
}

struct Load {
    requests_per_second: f64,
    latencies: Vec<Duration>,
}

impl Load {
    fn quantile(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share).ceil() as usize).clamp(1, self.latencies.len());
        self.latencies[at - 1].as_secs_f64()
    }
}

/// Keeps this many requests in flight until each place has sent `rounds`; the prefix is warm.
async fn closed_loop(engine: &SimulatedEngine, in_flight: usize, rounds: usize) -> Load {
    answer(engine, &reference_request(usize::MAX)).await;
    let start = Instant::now();
    let client = async |place: usize| {
        let mut latencies = Vec::new();
        for round in 0..rounds {
            let start = Instant::now();
            let reply = ask(engine, &reference_request(place * rounds + round)).await;
            assert!(matches!(reply, SimulatedReply::Response(response) if response.status == 200));
            latencies.push(start.elapsed());
        }
        latencies
    };
    let mut latencies: Vec<_> = join_all((0..in_flight).map(client)).await.into_iter().flatten().collect();
    latencies.sort();
    Load { requests_per_second: latencies.len() as f64 / start.elapsed().as_secs_f64(), latencies }
}

#[tokio::test(start_paused = true)]
async fn the_reference_request_has_the_size_it_should() {
    let engine = builder(Latency::instant()).engine();
    answer(&engine, &reference_request(1)).await;
    let (_, body) = answer(&engine, &reference_request(2)).await;
    let usage = &body["usage"];
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!((1_000..1_200).contains(&prompt) && (600..700).contains(&cached), "{usage}");
    assert_eq!(usage["completion_tokens"], 200);
}

#[tokio::test(start_paused = true)]
async fn the_reference_latency_meets_the_reference_figures() {
    for (in_flight, requests_per_second, quantile, seconds) in [
        (1, 0.4..=0.5, 0.5, 2.0..=3.0),
        (5, 1.8..=2.2, 0.5, 2.0..=3.0),
        (10, 3.5..=4.0, 0.5, 2.5..=3.0),
        (10, 3.5..=4.0, 0.95, 3.0..=3.5),
        (25, 6.0..=8.0, 0.95, 2.5..=5.0),
        (50, 8.0..=12.0, 0.99, 4.0..=5.0),
        (100, 10.0..=15.0, 1.0, 5.0..=8.0),
    ] {
        let engine = builder(Latency::reference()).engine();
        let load = closed_loop(&engine, in_flight, 12).await;
        println!(
            "{in_flight} in flight: {:.2} requests/s, p50 {:.2} s, p95 {:.2} s, p99 {:.2} s, most {:.2} s",
            load.requests_per_second,
            load.quantile(0.5),
            load.quantile(0.95),
            load.quantile(0.99),
            load.quantile(1.0)
        );
        assert!(requests_per_second.contains(&load.requests_per_second), "{in_flight}: {}", load.requests_per_second);
        assert!(seconds.contains(&load.quantile(quantile)), "{in_flight}: {}", load.quantile(quantile));
        assert_eq!(engine.counts().max_running, in_flight);
    }
}

#[tokio::test(start_paused = true)]
async fn beyond_a_knee_more_requests_get_less_done() {
    let latency = Latency::reference().with_knee(20, Duration::from_millis(2));
    let mut done = Vec::new();
    for in_flight in [10, 20, 60] {
        let engine = builder(latency).engine();
        done.push(closed_loop(&engine, in_flight, 3).await.requests_per_second);
    }
    assert!(done[0] < done[1] && done[2] < 0.8 * done[1], "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_gets_no_more_done_with_more_in_flight() {
    let engine = builder(Latency::one_at_a_time()).engine();
    let one = closed_loop(&engine, 1, 4).await.requests_per_second;
    let engine = builder(Latency::one_at_a_time()).engine();
    let eight = closed_loop(&engine, 8, 4).await.requests_per_second;
    assert!((eight / one - 1.0).abs() < 0.05, "{one} {eight}");
    assert_eq!(engine.counts().max_running, 1);
    assert!(engine.counts().max_waiting >= 7);
}

#[tokio::test(start_paused = true)]
async fn places_queue_and_gauges_tell_what_happens() {
    let engine = builder(Latency::reference()).max_num_seqs(4).max_waiting(Some(3)).engine();
    let requests = (0..10).map(|number| {
        let engine = engine.clone();
        async move { answer(&engine, &reference_request(number)).await.0 }
    });
    let look = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let SimulatedReply::Response(metrics) = engine.handle("/metrics", None, b"").await else { panic!() };
        (engine.counts(), String::from_utf8(metrics.body.to_vec()).unwrap())
    };
    let (statuses, (counts, metrics)) = tokio::join!(join_all(requests), look);
    assert_eq!((counts.running, counts.waiting, counts.in_flight), (4, 3, 7));
    assert!(metrics.contains("vllm:num_requests_waiting{engine=\"0\",model_name=\"simulated\"} 3.0"), "{metrics}");
    assert!(metrics.contains("vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"simulated\"} 0.0"));
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 3);
    assert_eq!(engine.counts().overloaded, 3);
}

#[tokio::test(start_paused = true)]
async fn requests_that_arrive_together_all_compute_a_new_prefix() {
    let engine = builder(Latency::reference()).engine();
    join_all((0..5).map(|number| answer_of(&engine, number))).await;
    assert_eq!(engine.counts().cached_tokens, 0);
    join_all((5..10).map(|number| answer_of(&engine, number))).await;
    assert!(engine.counts().cached_tokens > 5 * 600);
}

async fn answer_of(engine: &SimulatedEngine, number: usize) -> (u16, Value) {
    answer(engine, &reference_request(number)).await
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_leaves_its_place() {
    let engine = builder(Latency::reference()).max_num_seqs(1).engine();
    let body = chat(&THREE);
    let given_up = tokio::time::timeout(Duration::from_millis(500), ask(&engine, &body)).await;
    assert!(given_up.is_err());
    let counts = engine.counts();
    assert_eq!((counts.abandoned, counts.running, counts.in_flight), (1, 0, 0));
    assert_eq!(answer(&engine, &body).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_down_resets_what_is_in_flight() {
    let engine = builder(Latency::reference()).engine();
    let body = chat(&THREE);
    let down = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        engine.go_down();
    };
    let (reply, ()) = tokio::join!(ask(&engine, &body), down);
    assert_eq!(reply, SimulatedReply::Reset);
    assert_eq!(ask(&engine, &body).await, SimulatedReply::Refused);
    let counts = engine.counts();
    assert_eq!((counts.resets, counts.refused, counts.running, counts.abandoned), (1, 1, 0, 0));
}
