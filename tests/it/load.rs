//! Load tests: what they measure must be what a server that is known did. Under paused time, in memory.

use std::time::Duration;

use slugline::load::{self, About, Arrivals, Length, Lengthening, Order, Probe, Standing, Step, Sweep, Targets};
use slugline::testing::{Latency, Reply, ScriptedTransport, SimulatedEngine, SimulatedServer};
use slugline::{Categorizer, CategorizerBuilder, EndpointConfig, Taxonomy};

use crate::support::{builder, right};

const SECOND: Duration = Duration::from_secs(1);

fn newsroom() -> Taxonomy {
    Taxonomy::load(concat!(env!("CARGO_MANIFEST_DIR"), "/categories/newsroom.toml")).unwrap()
}

fn over(engine: &SimulatedEngine, probe: &Probe, concurrency: usize) -> CategorizerBuilder {
    let endpoint = EndpointConfig::new("http://simulated").transport(probe.over(engine.clone()));
    let builder = Categorizer::builder(newsroom()).endpoint(endpoint).model("simulated").seed(1);
    builder.concurrency(concurrency).max_concurrency(concurrency)
}

/// A step with requests of the reference size.
async fn reference_step(latency: Latency, concurrency: usize, rounds: usize) -> Step {
    let engine = SimulatedServer::builder().latency(latency).engine();
    let probe = Probe::with_output_tokens(200, Lengthening::WriteOn);
    let categorizer = over(&engine, &probe, concurrency).confidence(false).build().unwrap();
    let order = Order::closed(Length::Requests((rounds * concurrency) as u64)).warm_up(concurrency as u64);
    load::measure(&categorizer, &probe, load::generated_items(concurrency as u64), &order).await
}

#[tokio::test(start_paused = true)]
async fn the_reference_model_gives_the_reference_table_within_its_ranges() {
    let mut sweep = Sweep::new(About::new("simulated"), Targets::default());
    // Enough rounds that the slow end of a step does not count for much, and not more, since 100 in flight take long to simulate.
    for (concurrency, rounds) in [(1, 12), (5, 12), (10, 24), (25, 6), (50, 4), (100, 3)] {
        sweep.add(reference_step(Latency::reference(), concurrency, rounds).await);
    }
    let mut checked = 0;
    for step in &sweep.steps {
        let prompt_tokens = step.prompt_tokens_per_request.unwrap();
        // The simulation counts an eighth more tokens than Qwen2.5's tokenizer, which finds about 1,130.
        assert!((1_000.0..1_300.0).contains(&prompt_tokens), "{prompt_tokens}");
        assert_eq!(step.output_tokens_per_request, Some(200.0));
        assert_eq!((step.items, step.valid_items), (3 * step.requests, 3 * step.requests));
        assert_eq!(step.max_in_flight, step.concurrency);
        for check in load::compare(step) {
            println!("{:>3} {:<10} {:>12} {:>8}", check.concurrency, check.what, check.expected, check.measured);
            assert_eq!(check.standing, Standing::Within, "{check:?}");
            checked += 1;
        }
    }
    assert_eq!(checked, 16, "six rates, six success shares, four latencies");
    println!("{}", sweep.advice.reason);
    assert_eq!(sweep.recommended().map(|step| step.concurrency), Some(25));
}

#[tokio::test(start_paused = true)]
async fn a_server_with_a_knee_is_recommended_no_more_than_it() {
    let latency = Latency::reference().with_knee(20, Duration::from_millis(2));
    let mut sweep = Sweep::new(About::new("simulated"), Targets { most_p95_s: 30.0, ..Targets::default() });
    for concurrency in [5, 10, 20, 60] {
        sweep.add(reference_step(latency, concurrency, 4).await);
    }
    assert_eq!(sweep.advice.knee, Some(2), "{}", sweep.advice.reason);
    assert_eq!(sweep.recommended().map(|step| step.concurrency), Some(20));
}

#[tokio::test(start_paused = true)]
async fn the_figures_are_those_of_the_server() {
    let engine = SimulatedServer::builder().latency(Latency::reference()).engine();
    let probe = Probe::new();
    let categorizer = over(&engine, &probe, 8).build().unwrap();
    let order = Order::closed(Length::Requests(40)).warm_up(8);
    let step = load::measure(&categorizer, &probe, load::generated_items(1), &order).await;
    let counts = engine.counts();
    assert_eq!((step.requests, step.answered, step.items), (40, 40, 120));
    assert_eq!(counts.completion_requests(), 48, "the warm-up is sent and not counted");
    let tokens = step.output_tokens_per_request.unwrap() * 48.0;
    assert!((tokens / counts.output_tokens as f64 - 1.0).abs() < 0.1, "{tokens} {}", counts.output_tokens);
    assert!(step.cached_share.unwrap() > 0.5);
    // Little's law: in flight = rate × latency.
    let littles = step.requests_per_second * step.latency.unwrap().mean_s;
    assert!((littles / step.mean_in_flight - 1.0).abs() < 1e-6, "{littles} {}", step.mean_in_flight);
    let over_time: f64 = step.in_flight.iter().map(|part| part.requests).sum::<f64>() / step.in_flight.len() as f64;
    assert!((over_time / step.mean_in_flight - 1.0).abs() < 1e-6, "{over_time} {}", step.mean_in_flight);
}

#[tokio::test(start_paused = true)]
async fn a_time_ends_a_step_and_what_is_in_flight_is_waited_for() {
    let server = ScriptedTransport::new(|asked| right(asked).after(SECOND));
    let probe = Probe::new();
    let categorizer = scripted(&server, &probe, 4);
    let order = Order::closed(Length::Time(10 * SECOND)).warm_up(4);
    let step = load::measure(&categorizer, &probe, labelled(), &order).await;
    assert!((10.0..12.0).contains(&step.seconds), "{}", step.seconds);
    assert!((3.5..=4.0).contains(&step.requests_per_second), "{}", step.requests_per_second);
    assert_eq!(step.items, step.valid_items);
}

/// A server that answers in a tenth of a second, but stands still from second 10 to second 14.
#[tokio::test(start_paused = true)]
async fn an_open_loop_counts_the_wait_for_a_stalled_server() {
    let start = tokio::time::Instant::now();
    let stall = move || {
        let now_s = start.elapsed().as_secs_f64();
        let wait_s = if (10.0..14.0).contains(&now_s) { 14.0 - now_s } else { 0.0 };
        Duration::from_secs_f64(wait_s + 0.1)
    };
    let server = ScriptedTransport::new(move |asked| right(asked).after(stall()));
    let probe = Probe::new();
    let categorizer = scripted(&server, &probe, 1);
    let order = Order::open(5.0, Arrivals::Regular, Length::Requests(100)).unwrap();
    let step = load::measure(&categorizer, &probe, labelled(), &order).await;
    // One request saw the stall, so it is in the hundredth percentile of requests alone. Twenty were due in it.
    let (sent, due) = (step.latency.unwrap(), step.latency_from_due.unwrap());
    assert!(sent.p95_s < 0.2 && sent.max_s > 3.9, "{sent:?}");
    assert!(due.p95_s > 2.0 && due.max_s >= sent.max_s, "{due:?}");
    assert!((0.1..0.2).contains(&due.p50_s), "{due:?}");
    assert_eq!(step.caller_latency(), step.latency_from_due.as_ref());
    assert_eq!((step.valid_items, step.due_per_second), (300, Some(5.0)));
}

#[tokio::test(start_paused = true)]
async fn failures_are_counted_and_a_server_that_is_not_there_is_told() {
    let mut number = 0;
    let server = ScriptedTransport::new(move |asked| {
        number += 1;
        if number % 5 == 0 { Reply::status(500, "broken") } else { right(asked).after(SECOND) }
    });
    let probe = Probe::new();
    let order = Order::closed(Length::Requests(40));
    let step = load::measure(&scripted(&server, &probe, 4), &probe, labelled(), &order).await;
    assert_eq!(step.valid_items, 120, "failed requests are sent again");
    assert!((0.75..0.85).contains(&step.success_share), "{}", step.success_share);
    assert_eq!(step.requests, step.answered + step.failures.values().sum::<u64>());

    let nobody = ScriptedTransport::new(|_| Reply::hang());
    let step = load::measure(&scripted(&nobody, &probe, 4), &probe, labelled(), &order).await;
    assert!(step.error.is_some() && step.latency.is_none() && step.success_share == 0.0, "{step:?}");
}

/// A server that fails as llama.cpp does when it is to write on behind a schema, and writes a longer answer when asked.
fn like_llama_cpp() -> ScriptedTransport {
    ScriptedTransport::new(|asked| {
        let body = serde_json::to_value(&asked.request).unwrap();
        let has_schema = !body["response_format"].is_null();
        if has_schema && body["ignore_eos"] == true {
            let words = r#"{"error":{"code":500,"message":"Unexpected empty grammar stack after accepting piece: ]","type":"server_error"}}"#;
            return Reply::status(500, words).after(SECOND);
        }
        let objects = (1..=asked.items.len()).map(|id| format!("{{\"id\":{id},\"category\":\"sport\"}}"));
        let objects = objects.collect::<Vec<_>>().join(",");
        let text = &body["response_format"]["json_schema"]["schema"]["properties"]["reason"];
        let is_long = text["minLength"].as_u64().is_some_and(|letters| letters > 1_000);
        let (content, output_tokens) = if is_long {
            (format!("{{\"items\":[{objects}],\"reason\":\"It is about"), body["max_tokens"].as_u64().unwrap())
        } else {
            (format!("[{objects}]"), 12 * asked.items.len() as u64)
        };
        let finish = if is_long { "length" } else { "stop" };
        let answer = serde_json::json!({
            "choices": [{"message": {"content": content}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 1_100, "completion_tokens": output_tokens},
        });
        Reply::response(slugline::server::Response::new(200, answer.to_string())).after(SECOND)
    })
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_write_on_is_asked_for_a_longer_answer() {
    let server = like_llama_cpp();
    let found = load::find_lengthening(&scripted(&server, &Probe::new(), 2), 200).await;
    assert_eq!(found.by, Some(Lengthening::LongText), "{}", found.words);
    assert!(found.words.contains("empty grammar stack") && server.asked().len() == 2, "{}", found.words);

    let probe = Probe::with_output_tokens(200, Lengthening::LongText);
    let step =
        load::measure(&scripted(&server, &probe, 2), &probe, labelled(), &Order::closed(Length::Requests(6))).await;
    assert_eq!((step.valid_items, step.answered, step.requests), (18, 6, 6));
    assert_eq!(step.output_tokens_per_request, Some(200.0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_writes_on_is_let_and_one_that_does_neither_keeps_its_length() {
    let engine = SimulatedServer::builder().engine();
    let found = load::find_lengthening(&over(&engine, &Probe::new(), 2).build().unwrap(), 200).await;
    assert_eq!(found.by, Some(Lengthening::WriteOn), "{}", found.words);
    let short = ScriptedTransport::new(right);
    let found = load::find_lengthening(&scripted(&short, &Probe::new(), 2), 200).await;
    assert!(found.by.is_none() && found.words.contains("wrote 20 tokens of 64"), "{}", found.words);
    let nobody = ScriptedTransport::new(|_| Reply::hang());
    let found = load::find_lengthening(&scripted(&nobody, &Probe::new(), 2), 200).await;
    assert_eq!((found.by, nobody.asked().len()), (None, 1), "a second request would hang as long: {}", found.words);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_is_stopped_is_what_was_done_by_then() {
    let server = ScriptedTransport::new(|asked| right(asked).after(SECOND));
    let measured = async |warm_up: u64, seconds: f64| {
        let probe = Probe::new();
        let order = Order::closed(Length::Requests(1_000)).warm_up(warm_up);
        let enough = tokio::time::sleep(Duration::from_secs_f64(seconds));
        load::measure_until(&scripted(&server, &probe, 4), &probe, labelled(), &order, enough).await
    };
    let step = measured(0, 10.5).await;
    assert!((10.0..12.0).contains(&step.seconds) && step.valid_items > 90, "{step:?}");
    assert_eq!((step.items, step.requests), (step.valid_items, step.answered), "what was in flight is waited for");
    assert!(step.error.unwrap().contains("stopped"));
    let step = measured(100, 2.5).await;
    assert!(step.requests == 0 && step.error.is_some(), "{step:?}");
}

#[test]
fn what_a_model_writes_after_its_answer_is_read_over() {
    // As vLLM 0.32 with ignore_eos gave it for Qwen2.5-Coder-0.5B, up to max_tokens.
    let text = "[{\"id\":1,\"category\":\"sport\"}]\nI'm sorry, but I can't assist with that.\nI'm sorry, but I can";
    let read = slugline::testing::entry::read_answer(text, 1, true, &crate::support::taxonomy());
    assert_eq!(read, [Some("sport".to_owned())]);
}

#[test]
fn a_transport_to_no_address_is_refused() {
    for bad in ["", "localhost:8000", "ftp://host/v1", "http://user:word@host/v1", "http://host/v1/chat/completions"] {
        assert!(slugline::server::http_transport(bad, None).is_err(), "{bad}");
    }
    assert!(slugline::server::http_transport("http://host/v1", Some("a\nb")).is_err());
    assert!(slugline::server::http_transport(" http://host/v1/ ", Some("key\n")).is_ok());
}

fn scripted(server: &ScriptedTransport, probe: &Probe, concurrency: usize) -> Categorizer {
    let endpoint = EndpointConfig::new("http://scripted").transport(probe.over(server.clone()));
    let builder = builder(&[]).endpoint(endpoint);
    builder.concurrency(concurrency).max_concurrency(concurrency).build().unwrap()
}

fn labelled() -> impl Iterator<Item = slugline::NewsItem> + Send {
    (0..).map(crate::support::item)
}
