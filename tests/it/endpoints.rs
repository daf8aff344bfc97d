//! Several endpoints: balance, cool-down, death and return.

use std::time::Duration;

use slugline::server::{TransportError, TransportErrorKind};
use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{Balance, Categorizer, EndpointConfig, ErrorKind};
use tokio::time::Instant;

use crate::support::{builder, check_all_there, items, right, taxonomy};

fn steady(latency_ms: u64) -> ScriptedTransport {
    ScriptedTransport::new(move |asked| right(asked).after(Duration::from_millis(latency_ms)))
}

fn refused() -> Reply {
    Reply::error(TransportError::new(TransportErrorKind::Connect, "connection refused"))
}

#[tokio::test(start_paused = true)]
async fn the_load_is_shared_by_every_way_of_choosing() {
    for balance in [Balance::TwoChoices, Balance::FewestInFlight, Balance::RoundRobin] {
        let servers = [steady(500), steady(500), steady(500)];
        let categorizer = builder(&servers.each_ref()).balance(balance).build().unwrap();
        let report = categorizer.categorize(items(900)).await;
        check_all_there(&report, 900);
        for server in &servers {
            let count = server.asked().len();
            assert!((80..=120).contains(&count), "{balance:?}: {count} of 300");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fast_endpoint_gets_more_and_a_weight_counts() {
    let (fast, slow) = (steady(200), steady(2_000));
    builder(&[&fast, &slow]).build().unwrap().categorize(items(1_500)).await;
    assert!(fast.asked().len() > 4 * slow.asked().len(), "{} and {}", fast.asked().len(), slow.asked().len());

    let (heavy, light) = (steady(500), steady(500));
    let categorizer = Categorizer::builder(taxonomy())
        .model("m")
        .max_concurrency(100)
        .concurrency(100)
        .requests_per_minute(std::num::NonZeroU32::new(600).unwrap())
        .endpoint(EndpointConfig::new("http://heavy").weight(3).transport(heavy.clone()))
        .endpoint(EndpointConfig::new("http://light").transport(light.clone()))
        .balance(Balance::FewestInFlight)
        .build()
        .unwrap();
    categorizer.categorize(items(150)).await;
    assert!(heavy.asked().len() >= light.asked().len());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_dies_and_comes_back_is_left_aside_meanwhile() {
    let start = Instant::now();
    let mortal = ScriptedTransport::new(move |asked| {
        let dead = Duration::from_secs(5)..Duration::from_secs(60);
        if dead.contains(&start.elapsed()) { refused() } else { right(asked).after(Duration::from_secs(1)) }
    });
    let steady = steady(1_000);
    let report = builder(&[&mortal, &steady]).build().unwrap().categorize(items(9_000)).await;
    check_all_there(&report, 9_000);
    assert_eq!(report.categorized(), 9_000);
    assert!(start.elapsed() > Duration::from_secs(60));
    let failures = report.stats.failures.get("no connection").copied().unwrap_or(0);
    assert!(failures < 40, "{failures} requests to a dead endpoint");
    let share = mortal.asked().len() as f64 / report.stats.requests as f64;
    assert!(share > 0.15, "it carries load again: {share}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_the_model_is_left_aside() {
    let lacking = ScriptedTransport::new(|_| Reply::status(404, r#"{"error":{"message":"model not found"}}"#));
    let good = steady(100);
    let report = builder(&[&lacking, &good]).build().unwrap().categorize(items(300)).await;
    assert_eq!(report.categorized(), 300);
    assert_eq!(lacking.asked().len(), 1);
    assert!(report.error.is_none());
}

#[tokio::test(start_paused = true)]
async fn keys_refused_everywhere_stop_the_run() {
    let servers = [401, 403].map(|status| ScriptedTransport::new(move |_| Reply::status(status, "no")));
    let report = builder(&servers.each_ref()).build().unwrap().categorize(items(300)).await;
    let error = report.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let words = error.to_string();
    assert!(words.contains("http://0, HTTP 401") && words.contains("http://1, HTTP 403"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_answers_garbage_is_left_aside() {
    let garbage =
        ScriptedTransport::new(|_| Reply::text("as an AI model I like sport").after(Duration::from_millis(50)));
    let good = steady(500);
    let report = builder(&[&garbage, &good]).build().unwrap().categorize(items(3_000)).await;
    assert_eq!(report.categorized(), 3_000);
    let share = garbage.asked().len() as f64 / good.asked().len() as f64;
    assert!(share < 0.1, "{} requests to the garbage", garbage.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_to_another_endpoint() {
    let broken = ScriptedTransport::new(|_| Reply::hang());
    let good = steady(100);
    let start = Instant::now();
    let report = builder(&[&broken, &good]).build().unwrap().categorize(items(300)).await;
    assert_eq!(report.categorized(), 300);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn each_endpoint_has_its_own_model() {
    let servers = [steady(10), steady(10)];
    let categorizer = Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://a").model("small").transport(servers[0].clone()))
        .endpoint(EndpointConfig::new("http://b").model("large").transport(servers[1].clone()))
        .build()
        .unwrap();
    let report = categorizer.categorize(items(60)).await;
    for outcome in &report.outcomes {
        let origin = &outcome.result.as_ref().unwrap().origin;
        let model = if origin.endpoint.as_ref() == "http://a" { "small" } else { "large" };
        assert_eq!(origin.model.as_ref(), model);
    }
    let request = serde_json::to_value(&servers[1].asked()[0].request).unwrap();
    assert_eq!(request["model"], "large");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_does_not_hold_up_the_others() {
    let fickle = ScriptedTransport::new(|asked: &Asked| {
        if asked.number % 10 == 9 { Reply::status(500, "") } else { right(asked).after(Duration::from_millis(100)) }
    });
    let hanging = ScriptedTransport::new(|_: &Asked| Reply::hang());
    let start = Instant::now();
    let report = builder(&[&fickle, &hanging]).build().unwrap().categorize(items(600)).await;
    check_all_there(&report, 600);
    assert_eq!(report.categorized(), 600);
    // The packs that the hanging one was given are asked elsewhere once they have timed out; nobody else waits for that.
    let by_the_others = fickle.asked().len();
    assert!(start.elapsed() < Duration::from_secs(60), "{by_the_others} requests in {:?}", start.elapsed());
}
