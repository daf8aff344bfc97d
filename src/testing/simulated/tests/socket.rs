//! The simulated server on a real socket: what only a socket can show.

use std::time::Duration;

use serde_json::Value;

use super::super::{Fault, Faults, Latency, SimulatedServer};
use super::{THREE, chat};

async fn post(server: &SimulatedServer, client: &reqwest::Client) -> reqwest::Result<reqwest::Response> {
    let url = format!("{}/chat/completions", server.base_url());
    let body = chat(&THREE).to_string();
    client.post(url).header("content-type", "application/json").body(body).timeout(Duration::from_secs(5)).send().await
}

async fn with(fault: Fault) -> SimulatedServer {
    SimulatedServer::builder().faults(Faults::none().with(fault, 1.0)).start().await.unwrap()
}

#[tokio::test]
async fn requests_are_answered_over_http() {
    let server = SimulatedServer::builder().start().await.unwrap();
    let client = reqwest::Client::new();
    let response = post(&server, &client).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert!(super::content(&body).contains("sport"));
    let get = async |path: &str| client.get(format!("http://{}{path}", server.address())).send().await.unwrap();
    assert_eq!(get("/v1/models").await.status(), 200);
    assert_eq!(get("/health").await.status(), 200);
    assert!(get("/metrics").await.text().await.unwrap().contains("vllm:generation_tokens_total"));
    assert_eq!(get("/nothing").await.status(), 404);
    assert_eq!(get("/v1/chat/completions").await.status(), 405);
    assert_eq!((server.counts().connections, server.counts().open_connections), (1, 1));
    server.stop().await;
}

#[tokio::test]
async fn a_reset_comes_before_any_answer() {
    let server = with(Fault::Reset).await;
    let error = post(&server, &reqwest::Client::new()).await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    assert_eq!(server.counts().resets, 1);
}

#[tokio::test]
async fn a_body_is_cut_in_the_middle() {
    let server = with(Fault::CloseEarly).await;
    let mut response = post(&server, &reqwest::Client::new()).await.unwrap();
    assert_eq!(response.status(), 200);
    let length = response.content_length().unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!((first.len() as u64) < length);
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn a_body_drips_or_never_ends() {
    let server = with(Fault::SlowDrip).await;
    let mut response = post(&server, &reqwest::Client::new()).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap().len(), 8);
    let server = with(Fault::EndlessBody).await;
    let mut response = post(&server, &reqwest::Client::new()).await.unwrap();
    let mut read = 0;
    while read < 20 << 20 {
        read += response.chunk().await.unwrap().unwrap().len();
    }
}

#[tokio::test]
async fn a_hanging_request_is_given_up_by_the_client() {
    let server = with(Fault::Hang).await;
    let client = reqwest::Client::new();
    let hanging = tokio::time::timeout(Duration::from_millis(200), post(&server, &client)).await;
    assert!(hanging.is_err());
    eventually(|| server.counts().abandoned == 1 && server.counts().in_flight == 0).await;
}

#[tokio::test]
async fn a_server_goes_down_and_comes_back_on_the_same_port() {
    let server = SimulatedServer::builder().latency(Latency::one_at_a_time()).start().await.unwrap();
    let client = reqwest::Client::new();
    let down = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.go_down().await;
    };
    let (in_flight, ()) = tokio::join!(post(&server, &client), down);
    assert!(in_flight.unwrap_err().is_request());
    let refused = post(&server, &client).await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
    eventually(|| server.counts().open_connections == 0).await;
    server.come_back().await;
    assert_eq!(client.get(format!("{}/models", server.base_url())).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn death_and_revival_reach_the_socket() {
    let faults = Faults::none().die_after(1, Some(Duration::from_millis(200)));
    let server = SimulatedServer::builder().faults(faults).start().await.unwrap();
    let client = reqwest::Client::new();
    assert_eq!(post(&server, &client).await.unwrap().status(), 200);
    assert!(post(&server, &client).await.is_err());
    assert!(post(&server, &client).await.unwrap_err().is_connect());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(post(&server, &client).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = SimulatedServer::builder().start().await.unwrap();
    let (client, address) = (reqwest::Client::new(), server.address());
    assert_eq!(post(&server, &client).await.unwrap().status(), 200);
    drop(server);
    let gone = async || client.get(format!("http://{address}/health")).send().await.is_err();
    for _ in 0..50 {
        if gone().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still there");
}

async fn eventually(is_so: impl Fn() -> bool) {
    for _ in 0..200 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in 2 s");
}
