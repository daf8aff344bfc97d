//! What a run measures: in all and by endpoint, since the start and in the last minute, from any task.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::gpu::GpuColumns;
use slugline::testing::{Reply, ScriptedTransport};
use tokio::time::{Instant, sleep};

use crate::support::{builder, check_all_there, items, right, right_label};

/// A server that takes a second for the right answer.
fn slow() -> ScriptedTransport {
    ScriptedTransport::new(|asked| Reply { after: Duration::from_secs(1), ..right(asked) })
}

#[tokio::test(start_paused = true)]
async fn a_handle_sees_the_run_from_another_task() {
    let server = slow();
    let categorizer = builder(&[&server]).concurrency(2).max_concurrency(2).build().unwrap();
    let outcomes = categorizer.stream(stream::iter(items(60)));
    let handle = outcomes.stats_handle();
    let run = tokio::spawn(outcomes.collect::<Vec<_>>());

    sleep(Duration::from_millis(4_500)).await;
    let now = handle.snapshot();
    // One request alone at first, then two at once.
    assert_eq!((now.requests, now.answered, now.categorized, now.in_flight), (9, 7, 21, 2), "{now:?}");
    assert_eq!((now.concurrency_limit, now.max_in_flight), (2, 2));
    assert_eq!(now.waiting_items as u64, now.items - now.categorized - 6);
    assert!(now.latency.p50_ms.abs_diff(1_000) <= 10, "{:?}", now.latency);
    assert!(now.admission_wait.max_ms >= 900, "{:?}", now.admission_wait);
    assert!(
        now.time_line.len() >= 4 && now.time_line.iter().any(|moment| moment.in_flight == 2),
        "{:?}",
        now.time_line
    );
    assert!((now.last_minute.seconds - 4.5).abs() < 0.1, "{}", now.last_minute.seconds);

    assert_eq!(run.await.unwrap().len(), 60);
    let end = handle.snapshot();
    sleep(Duration::from_secs(1_000)).await;
    let later = handle.snapshot();
    assert_eq!((end.categorized, end.in_flight, end.waiting_items), (60, 0, 0));
    assert!(end.elapsed_s > 10.0 && (later.elapsed_s - end.elapsed_s).abs() < 1e-9, "the clock stops with the run");
    let expected = 20.0 / end.elapsed_s;
    assert!((end.rates.requests_per_second - expected).abs() < 0.01, "{:?}", end.rates);
    assert_eq!((end.rates.success_share, end.rates.invalid_share), (Some(1.0), Some(0.0)));
    assert_eq!(end.rates.output_tokens_per_item, Some(20.0 / 3.0));
    assert_eq!(end.item_latency.count, 60);
    assert!(end.item_latency.p50_ms >= 1_000);
    let json = serde_json::to_value(&end).unwrap();
    assert_eq!(json["last_minute"]["rates"]["success_share"], 1.0);
}

#[tokio::test(start_paused = true)]
async fn each_endpoint_has_its_own_figures_and_they_add_up() {
    let (good, bad) = (
        slow(),
        ScriptedTransport::new(|asked| {
            // Every other request fails.
            if asked.number % 2 == 1 { Reply::status(500, "no") } else { right(asked) }
        }),
    );
    let report = builder(&[&good, &bad]).build().unwrap().categorize(items(300)).await;
    check_all_there(&report, 300);
    let stats = &report.stats;
    let [of_good, of_bad] = &stats.by_endpoint[..] else { panic!("two endpoints") };
    assert_eq!(of_good.total.requests + of_bad.total.requests, stats.requests);
    assert_eq!(of_good.total.valid_answers + of_bad.total.valid_answers, stats.valid_answers);
    assert_eq!((of_good.total.rates.success_share, of_good.total.failures.len()), (Some(1.0), 0));
    assert!(of_bad.total.rates.success_share.unwrap() < 0.7, "{:?}", of_bad.total);
    assert_eq!(of_bad.total.failures, stats.failures);
    assert!(of_good.total.latency.p50_ms > 900 && of_bad.total.latency.p50_ms < 100);
    assert_eq!(stats.retries_by_cause.get("server error"), Some(&stats.retries));
    assert!(stats.retries > 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_minute_stands_beside_the_totals() {
    let started = Instant::now();
    // Two good minutes, then one in which no label is valid and half of the requests fail.
    let server = ScriptedTransport::new(move |asked| {
        let is_bad = started.elapsed() > Duration::from_secs(120);
        let reply = match (is_bad, asked.number % 2) {
            (false, _) => right(asked),
            (true, 0) => Reply::labels(asked.items.iter().map(|_| "no such label")),
            (true, _) => Reply::status(503, "busy"),
        };
        Reply { after: Duration::from_secs(1), ..reply }
    });
    let categorizer = builder(&[&server]).concurrency(1).max_concurrency(1).build().unwrap();
    let mut outcomes = categorizer.stream(stream::iter(items(3_000)));
    let handle = outcomes.stats_handle();
    let run = async { while outcomes.next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(185), run).await;
    let stats = handle.snapshot();
    assert_eq!(stats.rates.success_share.map(|share| share > 0.6), Some(true), "{:?}", stats.rates);
    let minute = &stats.last_minute;
    assert!((55.0..=60.0).contains(&minute.seconds));
    assert_eq!((minute.categorized, minute.valid_answers), (0, 0), "{minute:?}");
    assert_eq!(minute.rates.invalid_share, Some(1.0));
    assert!(minute.rates.success_share.unwrap() < 0.7);
    assert!(minute.invalid_answers["unknown-label"] > 0 && minute.failures["overload"] > 0);
    assert!(stats.valid_answers > 300);

    // A run that is dropped has nothing in flight, and its clock stands still.
    drop(outcomes);
    let dropped = handle.snapshot();
    sleep(Duration::from_secs(60)).await;
    assert_eq!((dropped.in_flight, handle.snapshot().elapsed_s), (0, dropped.elapsed_s));
}

#[tokio::test(start_paused = true)]
async fn tokens_for_an_item_go_by_the_answers_that_tell_their_tokens() {
    let server = ScriptedTransport::new(|asked| {
        if asked.number % 2 == 0 {
            return right(asked);
        }
        let objects: Vec<_> = (1..)
            .zip(&asked.items)
            .map(|(id, item)| serde_json::json!({"id": id, "category": right_label(item)}))
            .collect();
        let text = serde_json::Value::from(objects).to_string();
        Reply::status(200, &serde_json::json!({"choices": [{"message": {"content": text}}]}).to_string())
    });
    let report = builder(&[&server]).build().unwrap().categorize(items(12)).await;
    check_all_there(&report, 12);
    let stats = &report.stats;
    assert_eq!((stats.requests, stats.answers_with_usage, stats.prompt_tokens), (4, 2, 200));
    assert_eq!(stats.rates.prompt_tokens_per_item, Some(200.0 / 6.0));
    assert_eq!((stats.rates.output_tokens_per_item, stats.rates.cached_tokens_per_item), (Some(40.0 / 6.0), None));
}

#[tokio::test(start_paused = true)]
async fn gpus_that_a_run_is_told_of_stand_in_its_statistics() {
    let columns = GpuColumns::parse("index, utilization.gpu [%], memory.used [MiB], memory.total [MiB]").unwrap();
    let server = ScriptedTransport::new(right);
    let categorizer = builder(&[&server]).build().unwrap();
    let mut outcomes = categorizer.stream(stream::iter(items(6)));
    assert!(outcomes.stats().gpus.is_empty());
    outcomes.stats_handle().set_gpus(columns.sample("1, 50 %, 4 MiB, 8 MiB").into_iter().collect());
    while outcomes.next().await.is_some() {}
    let json = serde_json::to_value(outcomes.stats()).unwrap();
    assert_eq!((&json["gpus"][0]["index"], &json["gpus"][0]["memory_used_mib"]), (&1.into(), &4.0.into()));
}
