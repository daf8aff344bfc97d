//! The service as a client sees it, over sockets, against scripted and simulated model servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde_json::Value;
use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{Categorizer, Category, EndpointConfig, Service, ServiceOptions, Taxonomy};
use tokio::net::TcpListener;

use super::exporter::Prometheus;
use super::routes::{MAX_BODY_BYTES, MAX_ITEMS, OPENAPI, router};

/// A service that listens, its address and its handle.
async fn serve(
    options: ServiceOptions,
    deadline: Duration,
    script: impl FnMut(&Asked) -> Reply + Send + 'static,
) -> (String, Service) {
    let categories =
        [Category::new("sport", "Sport", "Matches."), Category::new("other", "Other", "None of these.").as_fallback()];
    let figures = Prometheus::default();
    let categorizer = Categorizer::builder(Taxonomy::new("test", "1", categories).unwrap())
        .endpoint(EndpointConfig::new("http://scripted").transport(ScriptedTransport::new(script)))
        .model("scripted")
        .concurrency(1)
        .max_concurrency(1)
        .build()
        .unwrap();
    // Of this test alone, so that others that run beside it do not count.
    let service = ::metrics::with_local_recorder(&figures, || categorizer.service(options));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router(service.clone(), deadline, figures)).into_future());
    (address, service)
}

async fn serve_right() -> String {
    serve(ServiceOptions::default(), Duration::from_secs(30), right).await.0
}

fn right(asked: &Asked) -> Reply {
    Reply::labels(asked.items.iter().map(|_| "sport"))
}

async fn post(address: &str, body: impl Into<String>) -> Response {
    Client::new().post(format!("{address}/categorize")).body(body.into()).send().await.unwrap()
}

/// The status of an answer and its JSON.
async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).expect("JSON, whatever the status"))
}

async fn get(address: &str, path: &str) -> Response {
    Client::new().get(format!("{address}{path}")).send().await.unwrap()
}

#[tokio::test]
async fn one_item_is_answered_by_an_object_and_many_by_an_array_in_order() {
    let address = serve_right().await;
    let (status, outcome) = read(post(&address, r#"{"id": "a", "title": "Cup final"}"#).await).await;
    assert_eq!((status, &outcome["id"], &outcome["category"]), (200, &"a".into(), &"sport".into()));

    let items: Vec<Value> = (0..100).map(|n| serde_json::json!({"id": n, "title": format!("Match {n}")})).collect();
    let (status, outcomes) = read(post(&address, format!(" \n{}", Value::from(items))).await).await;
    assert_eq!((status, outcomes.as_array().unwrap().len()), (200, 100));
    for (number, outcome) in outcomes.as_array().unwrap().iter().enumerate() {
        assert_eq!((&outcome["id"], &outcome["category"]), (&number.to_string().into(), &"sport".into()));
    }
    assert_eq!(read(post(&address, "[]").await).await, (200, Value::Array(Vec::new())));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_by_its_status() {
    let address = serve_right().await;
    let too_many = format!("[{}]", vec![r#"{"id": 1}"#; MAX_ITEMS + 1].join(","));
    for (body, expected) in [
        (String::new(), 400),
        ("{\"id\": ".into(), 400),
        ("not json".into(), 400),
        ("7".into(), 422),
        (r#"{"title": "no id"}"#.into(), 422),
        (r#"[{"id": "a", "title": "T"}, {"id": "b", "title": 7.5}]"#.into(), 422),
        (r#"{"id": "a", "title": "<br>"}"#.into(), 422),
        ("x".repeat(MAX_BODY_BYTES + 1), 413),
        (too_many, 413),
    ] {
        let start = body.chars().take(20).collect::<String>();
        let (status, answer) = read(post(&address, body).await).await;
        assert_eq!(status, expected, "{start}: {answer}");
        assert!(answer["error"]["kind"].is_string() && answer["error"]["message"].is_string(), "{answer}");
    }
    // An item that cannot be categorized is no failure of a request with others.
    let (status, outcomes) = read(post(&address, r#"[{"id": "a", "title": "T"}, {"id": "b"}]"#).await).await;
    assert_eq!(
        (status, &outcomes[0]["category"], &outcomes[1]["error"]["kind"]),
        (200, &"sport".into(), &"empty".into())
    );

    let (status, answer) = read(get(&address, "/categorize").await).await;
    assert_eq!((status, &answer["error"]["kind"]), (405, &"method-not-allowed".into()));
    let (status, answer) = read(get(&address, "/nothing").await).await;
    assert_eq!((status, &answer["error"]["kind"]), (404, &"not-found".into()));
}

#[tokio::test]
async fn overload_lateness_and_an_end_have_a_status_each() {
    let deadline = Duration::from_millis(300);
    let (address, service) = serve(ServiceOptions::default().queue(1), deadline, |_| Reply::hang()).await;
    // The model hangs: of these, seven fit in the run and the queue, and nobody is answered.
    let calls = (0..20).map(|n| post(&address, format!(r#"{{"id": {n}, "title": "Match {n}"}}"#)));
    let mut counts = std::collections::BTreeMap::new();
    for response in futures_util::future::join_all(calls).await {
        let retry_after = response.headers().get("retry-after").is_some();
        let (status, answer) = read(response).await;
        assert_eq!(retry_after, status == 429, "{answer}");
        *counts.entry((status, answer["error"]["kind"].as_str().unwrap().to_owned())).or_insert(0) += 1;
    }
    let kinds: Vec<_> = counts.keys().map(|(status, kind)| (*status, kind.as_str())).collect();
    assert_eq!(kinds, [(429, "overloaded"), (504, "deadline-exceeded")], "{counts:?}");
    service.shutdown().await;
    let (status, answer) = read(post(&address, r#"{"id": "a", "title": "T"}"#).await).await;
    assert_eq!((status, &answer["error"]["kind"]), (503, &"stopped".into()));
}

#[tokio::test]
async fn health_follows_the_model_servers_and_a_refused_key_is_unavailable() {
    let is_refused = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_refused);
    let script = move |asked: &Asked| {
        if switch.load(Ordering::SeqCst) { Reply::status(401, "bad key") } else { right(asked) }
    };
    let (address, _service) = serve(ServiceOptions::default(), Duration::from_secs(30), script).await;
    assert_eq!(get(&address, "/health").await.status(), 200, "nobody has been asked yet");
    let (status, answer) = read(post(&address, r#"[{"id": "a", "title": "T"}]"#).await).await;
    assert_eq!((status, &answer["error"]["kind"]), (503, &"unavailable".into()));
    let (status, health) = read(get(&address, "/health").await).await;
    assert_eq!(
        (status, &health["status"], &health["endpoints"][0]["phase"]),
        (503, &"unavailable".into(), &"refused".into())
    );
    is_refused.store(false, Ordering::SeqCst);
    assert_eq!(post(&address, r#"{"id": "a", "title": "T"}"#).await.status(), 200);
    assert_eq!(get(&address, "/health").await.status(), 200);
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus() {
    let address = serve_right().await;
    post(&address, r#"[{"id": "a", "title": "T"}, {"id": "b", "title": "U"}, {"id": "c"}]"#).await;
    let page = get(&address, "/metrics").await;
    assert_eq!(page.headers()["content-type"], "text/plain; version=0.0.4");
    let page = page.text().await.unwrap();
    let mut explained = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            explained.push(rest.split(' ').next().unwrap());
        } else if !line.is_empty() && !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            let name = name.split('{').next().unwrap();
            let series = explained.last().copied().unwrap_or_default();
            assert!(
                name == series || ["_bucket", "_sum", "_count"].iter().any(|part| name == format!("{series}{part}")),
                "{line}"
            );
        }
    }
    for line in [
        "slugline_calls_accepted_total 3",
        "slugline_items_categorized_total 2",
        "slugline_items_failed_total{kind=\"empty\"} 1",
        "slugline_queue_items 0",
        "slugline_endpoint_up{endpoint=\"http://scripted\",model=\"scripted\"} 1",
        "slugline_request_latency_seconds_count{endpoint=\"http://scripted\",model=\"scripted\"} 1",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} not in {page}");
    }
}

#[tokio::test]
async fn the_openapi_text_names_every_route_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut named: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        named.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    named.sort();
    // The one place beside the router that lists them.
    let routes = [("GET", "/health"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("POST", "/categorize")];
    assert_eq!(named, routes.map(|(method, path)| (method.to_owned(), path.to_owned())));
    let source = include_str!("routes.rs");
    assert_eq!(source.matches(".route(\"").count(), routes.len());

    let address = serve_right().await;
    for (method, path) in routes {
        let request = Client::new().request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{address}{path}"));
        let status = request.send().await.unwrap().status();
        assert!(status != 404 && status != 405, "{method} {path}: {status}");
    }
    for (status, reference) in [("413", "Problem"), ("429", "Problem"), ("504", "Problem")] {
        let response = &document["paths"]["/categorize"]["post"]["responses"][status];
        assert!(response.to_string().contains(reference), "{status}");
    }
    references_lead_somewhere(&document, &document);
}

fn references_lead_somewhere(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            fields.values().for_each(|value| references_lead_somewhere(document, value));
        }
        Value::Array(values) => values.iter().for_each(|value| references_lead_somewhere(document, value)),
        _ => {}
    }
}
