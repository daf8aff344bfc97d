//! What only a socket shows: headers, bounds, broken connections, servers that come and go. Against the simulated server on
//! loopback.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::testing::{Fault, Faults, Poison, SimulatedServer, SimulatedServerBuilder, StructuredOutputs};
use slugline::{Api, Categorizer, CategorizerBuilder, EndpointConfig, ErrorKind, NewsItem, Taxonomy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{items, taxonomy};

async fn server(builder: SimulatedServerBuilder) -> SimulatedServer {
    builder.start().await.expect("a free port")
}

fn builder(base_url: String) -> CategorizerBuilder {
    Categorizer::builder(taxonomy()).endpoint(base_url).model("simulated").patience(Duration::from_secs(3)).seed(3)
}

/// Items that the lexical classifier of the simulation gets right: their words stand in one description alone.
fn clear_items(count: usize) -> Vec<NewsItem> {
    let words = ["matches and athletes", "companies and markets"];
    (0..count).map(|n| NewsItem::new(format!("item-{n}"), format!("{} {n}", words[n % 2]), "")).collect()
}

async fn all_right(categorizer: &Categorizer, count: usize) -> slugline::Report {
    let report = categorizer.categorize(clear_items(count)).await;
    assert_eq!(report.categorized(), count, "{:?} {:?}", report.error, report.stats);
    for (number, outcome) in report.outcomes.iter().enumerate() {
        let category = &outcome.result.as_ref().unwrap().category;
        assert_eq!(category.as_str(), ["sport", "business"][number % 2], "{}", outcome.id);
    }
    report
}

#[tokio::test]
async fn the_straight_path_with_confidence_and_a_cached_prefix() {
    let server = server(SimulatedServer::builder()).await;
    let report = all_right(&builder(server.base_url()).build().unwrap(), 120).await;
    let stats = &report.stats;
    assert_eq!((stats.requests, stats.answered), (40, 40));
    assert!(stats.cached_share().unwrap() > 0.5, "{stats:?}");
    assert!(stats.output_tokens > 0 && stats.latency.max_ms < 10_000);
    for outcome in &report.outcomes {
        let assignment = outcome.result.as_ref().unwrap();
        assert!(assignment.confidence.is_some_and(|confidence| (0.4..=1.0).contains(&confidence)), "{assignment:?}");
        assert!(!assignment.runners_up.is_empty());
    }
}

#[tokio::test]
async fn every_dialect_of_structured_output_is_found() {
    for form in [
        StructuredOutputs::JsonSchema,
        StructuredOutputs::JsonSchemaObjectRootOnly,
        StructuredOutputs::JsonObjectOnly,
        StructuredOutputs::None,
    ] {
        let server = server(SimulatedServer::builder().structured_outputs(form).logprobs(false)).await;
        let report = all_right(&builder(server.base_url()).build().unwrap(), 30).await;
        assert!(report.stats.requests <= 10 + 3, "{form:?}: {} requests", report.stats.requests);
        assert!(report.outcomes.iter().all(|outcome| outcome.result.as_ref().unwrap().confidence.is_none()));
    }
}

#[tokio::test]
async fn the_legacy_endpoint_works_too() {
    let server = server(SimulatedServer::builder()).await;
    let categorizer = builder(server.base_url()).api(Api::Completions).build().unwrap();
    let report = all_right(&categorizer, 30).await;
    assert!(report.outcomes[0].result.as_ref().unwrap().confidence.is_some());
}

#[tokio::test]
async fn a_key_goes_to_its_endpoint_alone() {
    let with_key = server(SimulatedServer::builder().api_key(Some("sk-right".into()))).await;
    let right = Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new(with_key.base_url()).api_key(" sk-right\n"))
        .model("simulated");
    all_right(&right.build().unwrap(), 12).await;

    let wrong = builder(with_key.base_url()).api_key("sk-wrong").build().unwrap();
    let error = wrong.categorize(items(3)).await.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(!error.to_string().contains("sk-wrong"), "{error}");
    assert!(!format!("{wrong:?}").contains("sk-wrong"));
}

/// Reads one request from a connection and gives its head.
async fn read_head(socket: &mut tokio::net::TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read_exact(&mut byte).await.is_ok() {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A server that answers every connection with these bytes.
async fn raw_server(answer: impl Fn() -> Vec<u8> + Send + 'static) -> (String, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let head = read_head(&mut socket).await;
            seen.lock().unwrap().push(head);
            let _ = socket.write_all(&answer()).await;
            // Drain what the client still sends, so that closing does not reset the connection.
            let _ = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut [0; 8_192])).await;
        }
    });
    (format!("http://{address}/v1"), heads)
}

#[tokio::test]
async fn nothing_is_taken_from_the_environment_and_redirects_are_not_followed() {
    let (target, target_heads) = raw_server(|| b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    let location = format!("HTTP/1.1 307 Moved\r\nlocation: {target}/chat/completions\r\ncontent-length: 0\r\n\r\n");
    let (base_url, heads) = raw_server(move || location.clone().into_bytes()).await;
    let report = builder(base_url).build().unwrap().categorize(items(3)).await;
    assert_eq!(report.error.unwrap().kind(), ErrorKind::Refused);
    assert!(target_heads.lock().unwrap().is_empty(), "the prompt went to another address");
    let head = heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("post /v1/chat/completions http/1.1"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    assert!(!head.contains("accept-encoding"), "no compression, so no bomb: {head}");
}

#[tokio::test]
async fn a_header_without_end_is_bounded() {
    let (base_url, _) = raw_server(|| {
        let mut answer = b"HTTP/1.1 200 OK\r\n".to_vec();
        (0..200_000).for_each(|n| answer.extend_from_slice(format!("x-{n}: {n}\r\n").as_bytes()));
        answer
    })
    .await;
    let report = builder(base_url).patience(Duration::from_millis(300)).build().unwrap().categorize(items(3)).await;
    assert_eq!(report.error.unwrap().kind(), ErrorKind::OutOfPatience);
}

#[tokio::test]
async fn every_fault_of_a_connection_is_survived() {
    for fault in [
        Fault::Reset,
        Fault::CloseEarly,
        Fault::HugeBody,
        Fault::EndlessBody,
        Fault::BadUtf8,
        Fault::NanLogprobs,
        Fault::SlowDrip,
        Fault::Hang,
        Fault::TooManyRequestsHtml,
        Fault::TooManyRequestsDate,
        Fault::UnavailableEmpty,
        Fault::Overloaded529,
    ] {
        let faults = Faults::none().with(fault, 0.2);
        let server = server(SimulatedServer::builder().faults(faults).seed(5)).await;
        let categorizer = builder(server.base_url())
            .timeout(Duration::from_millis(700))
            .patience(Duration::from_secs(60))
            .build()
            .unwrap();
        all_right(&categorizer, 60).await;
        assert!(server.counts().fault(fault) > 0, "{fault:?} never happened");
    }
}

#[tokio::test]
async fn a_poison_item_that_closes_the_connection_fails_alone() {
    let faults = Faults::none().poison("xyzzy", Poison::CloseConnection);
    let server = server(SimulatedServer::builder().faults(faults)).await;
    let mut input = clear_items(40);
    input[17].title.push_str(" xyzzy");
    let report = builder(server.base_url()).pack_size(8).build().unwrap().categorize(input).await;
    assert_eq!(report.categorized(), 39, "{:?}", report.stats);
    let (outcome, error) = report.failures().next().unwrap();
    assert_eq!((outcome.id.as_str(), error.kind.as_str()), ("item-17", "connection"));
}

#[tokio::test]
async fn a_server_that_goes_down_and_comes_back_costs_no_item() {
    let server = server(SimulatedServer::builder()).await;
    let categorizer = builder(server.base_url()).patience(Duration::from_secs(60)).build().unwrap();
    let mut outcomes = categorizer.stream(stream::iter(clear_items(3_000)));
    let mut count = 0;
    while let Some(outcome) = outcomes.next().await {
        assert!(outcome.result.is_ok(), "{:?}", outcome.result);
        count += 1;
        if count == 300 {
            server.go_down().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            server.come_back().await;
        }
    }
    assert_eq!(count, 3_000);
    assert!(outcomes.stats().retries > 0);
}

#[tokio::test]
async fn a_dropped_run_closes_its_requests() {
    let faults = Faults::none().with(Fault::Hang, 1.0);
    let server = server(SimulatedServer::builder().faults(faults)).await;
    let categorizer = builder(server.base_url()).build().unwrap();
    let run = categorizer.categorize(clear_items(30));
    let _ = tokio::time::timeout(Duration::from_millis(300), run).await;
    // The place is given back, and the server sees the connection close.
    for _ in 0..100 {
        if categorizer.endpoints()[0].in_flight == 0 && server.counts().in_flight == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} requests are still open", server.counts().in_flight);
}

#[tokio::test]
async fn the_metrics_are_read_beside_the_api() {
    let server = server(SimulatedServer::builder().prefix_cache(32, 65_536)).await;
    let report = all_right(&builder(server.base_url()).build().unwrap(), 300).await;
    assert_eq!(report.stats.endpoints[0].prefix_cache.block_tokens, Some(32));
    assert_eq!(server.counts().requests["/metrics"], 1, "once for the proof of the prefix");
}

#[tokio::test]
async fn a_real_server_if_there_is_one() {
    let Ok(base_url) = std::env::var("SLUGLINE_TEST_BASE_URL") else {
        println!("skipped: SLUGLINE_TEST_BASE_URL is not set");
        return;
    };
    let model = std::env::var("SLUGLINE_TEST_MODEL").unwrap_or_else(|_| "model".into());
    let newsroom = Taxonomy::load("categories/newsroom.toml").unwrap();
    let categorizer = Categorizer::builder(newsroom)
        .endpoint(base_url)
        .model(model)
        .concurrency(4)
        .max_concurrency(4)
        .build()
        .unwrap();
    let lines = include_str!("../../examples/quickstart/items.jsonl").lines().take(9);
    let items: Vec<NewsItem> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let report = categorizer.categorize(items).await;
    assert_eq!(report.categorized(), 9, "{:?} {:?}", report.error, report.stats);
    assert!(report.stats.prompt_tokens > 0);
}
