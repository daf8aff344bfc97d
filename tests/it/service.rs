//! Single items from many tasks: shared packs, deadlines, load shedding, recovery, shutdown. Under paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use slugline::server::{TransportError, TransportErrorKind};
use slugline::testing::{Asked, Latency, Reply, ScriptedTransport, SimulatedServer};
use slugline::{
    Categorizer, CategorizerBuilder, EndpointConfig, Error, Escalation, NewsItem, Outcome, Service, ServiceError,
    ServiceOptions,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::support::{builder, item, label_of, right, right_label, taxonomy};

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn service(builder: CategorizerBuilder) -> Service {
    builder.build().unwrap().service(ServiceOptions::default())
}

/// Calls from a task of its own, so that it can be under way while the test goes on.
fn call(service: &Service, number: usize) -> JoinHandle<Result<Outcome, ServiceError>> {
    let service = service.clone();
    tokio::spawn(async move { service.categorize_one(item(number)).await })
}

/// The outcome must be that of the item, and right.
fn check_right(number: usize, outcome: &Outcome) {
    assert_eq!(outcome.id, format!("item-{number}"));
    assert_eq!(outcome.result.as_ref().unwrap().category.as_str(), label_of(number));
}

async fn check_all_right(calls: Vec<JoinHandle<Result<Outcome, ServiceError>>>, first: usize) {
    for (number, result) in (first..).zip(join_all(calls).await) {
        check_right(number, &result.unwrap().unwrap());
    }
}

fn sizes(server: &ScriptedTransport) -> Vec<usize> {
    server.asked().iter().map(|asked| asked.items.len()).collect()
}

fn has(asked: &Asked, number: usize) -> bool {
    asked.items.iter().any(|item| item.ends_with(&format!("story {number}")))
}

#[tokio::test(start_paused = true)]
async fn items_that_come_together_share_packs() {
    let server = ScriptedTransport::new(|asked| right(asked).after(SECOND));
    let service = service(builder(&[&server]));
    let start = Instant::now();
    let first = call(&service, 0);
    sleep(ms(500)).await;
    // From now on the first is in flight, and the rest share.
    let mut calls = Vec::new();
    for number in 1..=7 {
        calls.push(call(&service, number));
        sleep(ms(1)).await;
    }
    check_all_right(vec![first], 0).await;
    check_all_right(calls, 1).await;
    assert_eq!(sizes(&server), [1, 3, 3, 1]);
    assert_eq!(start.elapsed().as_secs(), 2, "three packs at once after the first answer");
}

#[tokio::test(start_paused = true)]
async fn an_item_waits_for_nobody_while_nothing_is_in_flight() {
    let server = ScriptedTransport::new(|asked| right(asked).after(ms(300)));
    let service = service(builder(&[&server]));
    for number in 0..5 {
        let start = Instant::now();
        check_right(number, &service.categorize_one(item(number)).await.unwrap());
        // The clock has a resolution of a millisecond.
        assert!(start.elapsed() <= ms(301), "{:?}", start.elapsed());
        sleep(SECOND).await;
    }
    assert_eq!(sizes(&server), [1; 5]);
}

#[tokio::test(start_paused = true)]
async fn an_item_waits_a_bounded_time_while_something_is_in_flight() {
    let server = ScriptedTransport::new(|asked| right(asked).after(if has(asked, 1) { ms(5_000) } else { ms(300) }));
    let service = service(builder(&[&server]));
    service.categorize_one(item(0)).await.unwrap();
    let slow = call(&service, 1);
    sleep(ms(100)).await;
    let start = Instant::now();
    service.categorize_one(item(2)).await.unwrap();
    assert!((ms(319)..=ms(322)).contains(&start.elapsed()), "{:?}", start.elapsed());
    check_all_right(vec![slow], 1).await;
}

#[tokio::test(start_paused = true)]
async fn copies_are_asked_once() {
    let server = ScriptedTransport::new(|asked| right(asked).after(SECOND));
    let service = service(builder(&[&server]));
    let copy = |id: &str| NewsItem::new(id, "sport story 0", "");
    let (first, second) = tokio::join!(service.categorize_one(copy("a")), service.categorize_one(copy("b")));
    let third = service.categorize_one(copy("c")).await.unwrap();
    assert_eq!(first.unwrap().result.unwrap().origin.duplicate_of, None);
    for (id, outcome) in [("b", second.unwrap()), ("c", third)] {
        assert_eq!((outcome.id.as_str(), outcome.result.unwrap().origin.duplicate_of.as_deref()), (id, Some("a")));
    }
    assert_eq!(sizes(&server), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_and_gives_the_place_back() {
    let server = ScriptedTransport::new(|asked| if asked.number == 0 { right(asked) } else { Reply::hang() });
    let service = builder(&[&server])
        .concurrency(1)
        .max_concurrency(1)
        .pack_size(1)
        .build()
        .unwrap()
        .service(ServiceOptions::default().deadline(4 * SECOND));
    service.categorize_one(item(0)).await.unwrap();
    let start = Instant::now();
    let calls: Vec<_> = (1..=6).map(|number| call(&service, number)).collect();
    sleep(ms(10)).await;
    // One in flight, one waits for its place, one is the next pack.
    assert_eq!(service.stats().waiting_items, 3);
    let short = service.categorize_within(item(7), ms(1_500)).await.unwrap_err();
    assert!(matches!(short, ServiceError::DeadlineExceeded { waited } if waited.as_millis() == 1_500), "{short}");
    assert_eq!(service.stats().waiting_items, 3);
    for result in join_all(calls).await {
        assert!(matches!(result.unwrap(), Err(ServiceError::DeadlineExceeded { .. })));
        assert!((4_000..=4_001).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    }
    let stats = service.stats();
    assert_eq!((stats.waiting_items, stats.callers, stats.accepted, stats.deadline_exceeded), (0, 0, 8, 7));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_beyond_the_clock_is_none() {
    let server = ScriptedTransport::new(right);
    let service = service(builder(&[&server]));
    check_right(0, &service.categorize_within(item(0), Duration::MAX).await.unwrap());
    let none = service.categorize_within(item(1), Duration::ZERO).await;
    assert!(matches!(none, Err(ServiceError::DeadlineExceeded { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_sheds_load_at_once() {
    let server = ScriptedTransport::new(|asked| right(asked).after(SECOND));
    let categorizer = builder(&[&server]).concurrency(1).max_concurrency(1).pack_size(1).build().unwrap();
    let service = categorizer.service(ServiceOptions::default().queue(4));
    let mut calls = Vec::new();
    for number in 0..7 {
        calls.push(call(&service, number));
        // Each is seen before the next comes.
        sleep(ms(1)).await;
    }
    let start = Instant::now();
    for number in 7..100 {
        let error = service.categorize_one(item(number)).await.unwrap_err();
        assert!(matches!(error, ServiceError::Overloaded { waiting_items: 4 }), "{error}");
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    check_all_right(calls, 0).await;
    assert_eq!((service.stats().overloaded, service.stats().accepted), (93, 7));
    check_right(100, &service.categorize_one(item(100)).await.unwrap());
}

/// How long the neighbours of a poison item and everybody else wait, when requests with the item end like this.
async fn around_poison(poisoned: fn() -> Reply) -> (Result<Outcome, ServiceError>, Duration, Duration) {
    let server =
        ScriptedTransport::new(
            move |asked| {
                if has(asked, 1) { poisoned().after(ms(200)) } else { right(asked).after(ms(200)) }
            },
        );
    let service = service(builder(&[&server]));
    service.categorize_one(item(100)).await.unwrap();
    let others = {
        let service = service.clone();
        tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            for number in 200..400 {
                let start = Instant::now();
                check_right(number, &service.categorize_one(item(number)).await.unwrap());
                longest = longest.max(start.elapsed());
            }
            longest
        })
    };
    sleep(ms(50)).await;
    let start = Instant::now();
    let (first, poison, last) = (call(&service, 0), call(&service, 1), call(&service, 2));
    check_right(0, &first.await.unwrap().unwrap());
    check_right(2, &last.await.unwrap().unwrap());
    let neighbours = start.elapsed();
    (poison.await.unwrap(), neighbours, others.await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_rejected_item_delays_its_neighbours_by_its_split_alone() {
    let (poison, neighbours, others) = around_poison(|| Reply::status(400, "no such text")).await;
    assert_eq!(poison.unwrap().result.unwrap_err().kind.as_str(), "rejected");
    // The pack, a half, and its half: three requests of 200 ms.
    assert!(neighbours <= ms(610), "{neighbours:?}");
    assert!(others <= ms(225), "{others:?}");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_breaks_the_server_does_not_hold_its_neighbours_back_for_its_retries() {
    let (poison, neighbours, others) = around_poison(|| Reply::status(500, "boom")).await;
    assert_eq!(poison.unwrap().result.unwrap_err().kind.as_str(), "server-error");
    // The same three requests, with two backoffs, of at most 0.5 s and 1 s, in between.
    assert!(neighbours <= ms(2_110), "{neighbours:?}");
    assert!(others <= ms(225), "{others:?}");
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_answered_with_nonsense_does_not_hold_its_neighbours_back() {
    let server = ScriptedTransport::new(|asked| {
        let label = |item: &String| if item.ends_with("story 1") { "weather" } else { right_label(item) }.to_owned();
        let labels: Vec<_> = asked.items.iter().map(label).collect();
        Reply::labels(labels.iter().map(String::as_str)).after(ms(200))
    });
    let service = service(builder(&[&server]));
    service.categorize_one(item(100)).await.unwrap();
    let start = Instant::now();
    let (first, poison, last) = (call(&service, 0), call(&service, 1), call(&service, 2));
    check_right(0, &first.await.unwrap().unwrap());
    check_right(2, &last.await.unwrap().unwrap());
    assert!(start.elapsed() <= ms(202), "{:?}", start.elapsed());
    assert_eq!(poison.await.unwrap().unwrap().result.unwrap_err().kind.as_str(), "unknown-label");
}

fn gone() -> Reply {
    Reply::error(TransportError::new(TransportErrorKind::Connect, "connection refused"))
}

#[tokio::test(start_paused = true)]
async fn a_service_outlives_the_death_of_its_endpoints() {
    let is_dead = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_dead);
    let server = ScriptedTransport::new(move |asked| if switch.load(Ordering::SeqCst) { gone() } else { right(asked) });
    let categorizer = builder(&[&server]).patience(60 * SECOND).build().unwrap();
    let service = categorizer.service(ServiceOptions::default().no_deadline());
    service.categorize_one(item(0)).await.unwrap();

    is_dead.store(true, Ordering::SeqCst);
    for round in 0..3 {
        // Within its deadline a call fails by it; without one, by the patience of the run.
        let start = Instant::now();
        let late = service.categorize_within(item(10 + round), 5 * SECOND).await.unwrap_err();
        assert!(matches!(late, ServiceError::DeadlineExceeded { .. }), "{late}");
        let lost = service.categorize_one(item(20 + round)).await.unwrap_err();
        assert!(matches!(lost, ServiceError::Unavailable(Error::OutOfPatience { .. })), "{lost}");
        let waited = start.elapsed().as_secs();
        assert!((60..=62).contains(&waited), "patience begins anew with each call after the end: {waited} s");
    }
    // Back before the patience is over: nobody notices.
    let waiting = call(&service, 30);
    sleep(20 * SECOND).await;
    is_dead.store(false, Ordering::SeqCst);
    check_right(30, &waiting.await.unwrap().unwrap());
    // And after it is over.
    is_dead.store(true, Ordering::SeqCst);
    service.categorize_one(item(40)).await.unwrap_err();
    is_dead.store(false, Ordering::SeqCst);
    check_right(41, &service.categorize_one(item(41)).await.unwrap());
    assert_eq!(service.stats().unavailable, 4);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_fails_calls_at_once_until_it_is_accepted() {
    let is_refused = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_refused);
    let server = ScriptedTransport::new(move |asked| {
        if switch.load(Ordering::SeqCst) { Reply::status(401, "bad key") } else { right(asked) }
    });
    let service = service(builder(&[&server]));
    let start = Instant::now();
    for round in 0..3 {
        let results = join_all((0..5).map(|number| service.categorize_one(item(10 * round + number)))).await;
        for result in results {
            assert!(matches!(result, Err(ServiceError::Unavailable(Error::Refused { .. }))), "{result:?}");
        }
    }
    assert!(start.elapsed() < ms(100), "{:?}", start.elapsed());
    assert!(server.asked().len() <= 15, "{} requests for 15 calls", server.asked().len());
    is_refused.store(false, Ordering::SeqCst);
    check_right(99, &service.categorize_one(item(99)).await.unwrap());
}

/// The right labels, none of them sure.
fn unsure(asked: &Asked) -> Reply {
    let shares = |item: &String| {
        let right = ["sport", "business", "other"].into_iter().find(|label| *label == right_label(item)).unwrap();
        vec![(right, 0.5), (if right == "sport" { "business" } else { "sport" }, 0.4)]
    };
    Reply::probabilities(asked.items.iter().map(shares))
}

#[tokio::test(start_paused = true)]
async fn a_stronger_model_that_was_lost_is_tried_again_after_a_minute() {
    let is_refused = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_refused);
    let weak = ScriptedTransport::new(unsure);
    let strong =
        ScriptedTransport::new(
            move |asked| if switch.load(Ordering::SeqCst) { Reply::status(401, "no") } else { right(asked) },
        );
    let endpoint = EndpointConfig::new("http://strong").model("large").transport(strong.clone());
    let service = service(builder(&[&weak]).escalate(Escalation::below(0.6).to(endpoint).at_most(10.0)));
    let model = async |number| {
        let outcome = service.categorize_one(item(number)).await.unwrap();
        check_right(number, &outcome);
        outcome.result.unwrap().origin.model.to_string()
    };
    assert_eq!(model(0).await, "m", "the first answer stands");
    is_refused.store(false, Ordering::SeqCst);
    sleep(59 * SECOND).await;
    assert_eq!((model(1).await.as_str(), strong.asked().len()), ("m", 1));
    sleep(2 * SECOND).await;
    assert_eq!(model(2).await, "large");
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_leave_nothing_behind() {
    let server = ScriptedTransport::new(|asked| right(asked).after(ms(700)));
    let categorizer = builder(&[&server]).concurrency(2).max_concurrency(2).build().unwrap();
    let service = categorizer.service(ServiceOptions::default());
    for cut_ms in (0..3_000).step_by(100) {
        let calls = join_all((0..30).map(|number| service.categorize_one(item(1_000 * cut_ms + number))));
        let _ = tokio::time::timeout(ms(cut_ms as u64), calls).await;
        let stats = service.stats();
        assert_eq!((stats.waiting_items, stats.callers), (0, 0), "after {cut_ms} ms");
    }
    // What was in flight comes to its end.
    sleep(5 * SECOND).await;
    assert_eq!(categorizer.endpoints()[0].in_flight, 0);
    let run = service.stats().run;
    assert_eq!(run.items, run.categorized, "every item that was taken is settled");
    check_right(7, &service.categorize_one(item(7)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn shutdown_settles_what_was_accepted() {
    let server = ScriptedTransport::new(|asked| right(asked).after(SECOND));
    let categorizer = builder(&[&server]).concurrency(2).max_concurrency(2).build().unwrap();
    let service = categorizer.service(ServiceOptions::default());
    let calls: Vec<_> = (0..30).map(|number| call(&service, number)).collect();
    sleep(ms(10)).await;
    let ended = tokio::spawn({
        let service = service.clone();
        async move { service.shutdown().await }
    });
    sleep(ms(10)).await;
    assert!(matches!(service.categorize_one(item(99)).await, Err(ServiceError::Stopped)));
    assert!(!ended.is_finished());
    check_all_right(calls, 0).await;
    ended.await.unwrap();
    service.shutdown().await;
    assert_eq!(service.stats().run.categorized, 30, "figures outlive the service");
    assert_eq!(categorizer.endpoints()[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_longer_than_the_callers() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    let categorizer = builder(&[&server]).build().unwrap();
    let service = categorizer.service(ServiceOptions::default().deadline(3 * SECOND));
    let start = Instant::now();
    let hanging = call(&service, 0);
    sleep(ms(10)).await;
    service.shutdown().await;
    assert!((3_000..=3_001).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(matches!(hanging.await.unwrap(), Err(ServiceError::DeadlineExceeded { .. })));
    sleep(ms(1)).await;
    assert_eq!(categorizer.endpoints()[0].in_flight, 0, "the request that nobody waits for is cancelled");
}

/// A request that waited for a place when the service ended keeps no turn, however long a handle is kept.
#[tokio::test(start_paused = true)]
async fn after_a_shutdown_the_endpoints_are_free_for_others() {
    let is_dead = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&is_dead);
    let server = ScriptedTransport::new(move |asked| if switch.load(Ordering::SeqCst) { gone() } else { right(asked) });
    let categorizer = builder(&[&server]).build().unwrap();
    let service = categorizer.service(ServiceOptions::default());
    assert!(service.categorize_within(item(0), 5 * SECOND).await.is_err());
    service.shutdown().await;
    is_dead.store(false, Ordering::SeqCst);
    let report = tokio::time::timeout(600 * SECOND, categorizer.categorize([item(1)])).await;
    check_right(1, &report.expect("no run waits for one that has ended").outcomes[0]);
    assert_eq!(service.stats().run.categorized, 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_everything() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    let categorizer = builder(&[&server]).build().unwrap();
    let service = categorizer.service(ServiceOptions::default());
    let hanging = call(&service, 0);
    sleep(ms(10)).await;
    assert_eq!(categorizer.endpoints()[0].in_flight, 1);
    drop(service);
    sleep(ms(10)).await;
    assert_eq!(categorizer.endpoints()[0].in_flight, 1, "the call holds a handle of its own");
    hanging.abort();
    sleep(ms(1)).await;
    assert_eq!(categorizer.endpoints()[0].in_flight, 0);
}

#[test]
fn a_service_says_so_when_its_runtime_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = ScriptedTransport::new(|_| Reply::hang());
    let categorizer = builder(&[&server]).build().unwrap();
    let first = runtime();
    let service = first.block_on(async { categorizer.service(ServiceOptions::default()) });
    drop(first);
    let result = runtime().block_on(service.categorize_one(item(0)));
    assert!(matches!(result, Err(ServiceError::Stopped)), "{result:?}");
}

/// What became of calls that come at a fixed rate, whatever becomes of them.
#[derive(Debug, Default)]
struct Load {
    done: Vec<Duration>,
    overloaded: Vec<Duration>,
    late: Vec<Duration>,
}

/// Calls `per_second` times a second for so long, against a simulation of the reference server.
async fn load(options: ServiceOptions, per_second: u64, seconds: u64) -> Load {
    let engine = SimulatedServer::builder().latency(Latency::reference()).engine();
    let service = Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://simulated").transport(engine))
        .model("simulated")
        .concurrency(25)
        .build()
        .unwrap()
        .service(options);
    let calls: Vec<_> = (0..per_second * seconds)
        .map(|number| {
            let service = service.clone();
            tokio::spawn(async move {
                sleep(Duration::from_secs_f64(number as f64 / per_second as f64)).await;
                let start = Instant::now();
                let item = NewsItem::new(number.to_string(), format!("Match report {number}"), "The athletes won.");
                (service.categorize_one(item).await, start.elapsed())
            })
        })
        .collect();
    let mut load = Load::default();
    for (result, elapsed) in join_all(calls).await.into_iter().map(Result::unwrap) {
        match result {
            Ok(outcome) => {
                assert!(outcome.result.is_ok());
                load.done.push(elapsed);
            }
            Err(ServiceError::Overloaded { .. }) => load.overloaded.push(elapsed),
            Err(ServiceError::DeadlineExceeded { .. }) => load.late.push(elapsed),
            Err(error) => panic!("{error}"),
        }
    }
    load.done.sort_unstable();
    load
}

#[tokio::test(start_paused = true)]
async fn ten_times_the_load_does_not_lower_what_is_served() {
    let seconds = 30;
    let options = || ServiceOptions::default().queue(256).deadline(5 * SECOND);
    let rate = |load: &Load| load.done.len() as f64 / seconds as f64;
    // More than can be served, so the rate is the capacity.
    let capacity = load(options(), 200, seconds).await;
    let tenfold = load(options(), 10 * rate(&capacity) as u64, seconds).await;
    let p99 = tenfold.done[tenfold.done.len() * 99 / 100];
    println!(
        "capacity {:.0} items/s; at ten times that load {:.0} items/s, p99 {p99:?} (simulated)",
        rate(&capacity),
        rate(&tenfold)
    );
    assert!(rate(&tenfold) >= 0.95 * rate(&capacity), "{} of {}", rate(&tenfold), rate(&capacity));
    assert!(p99 <= 5 * SECOND, "{p99:?}");
    assert!(tenfold.overloaded.iter().all(Duration::is_zero), "shed at once");
}

#[tokio::test(start_paused = true)]
async fn a_queue_longer_than_the_deadline_does_not_make_all_work_late() {
    let seconds = 30;
    let short = load(ServiceOptions::default().queue(64).deadline(3 * SECOND), 1_000, seconds).await;
    // Every item that waits its turn in this queue has no time left when it is taken.
    let long = load(ServiceOptions::default().queue(100_000).deadline(3 * SECOND), 1_000, seconds).await;
    println!("served: {} with a short queue, {} with a long one (simulated)", short.done.len(), long.done.len());
    assert!(long.done.len() * 10 >= short.done.len() * 8, "{} of {}", long.done.len(), short.done.len());
    assert!(long.done.last().is_some_and(|longest| *longest <= 3 * SECOND));
}

/// An endpoint that nobody asked has not failed to answer: the patience is over after a time of failures, not of silence.
#[tokio::test(start_paused = true)]
async fn a_quiet_time_after_a_failure_costs_nothing() {
    let server = ScriptedTransport::new(
        |asked: &Asked| {
            if has(asked, 1) { Reply::status(500, "it broke down") } else { right(asked) }
        },
    );
    let service = service(builder(&[&server]).patience(60 * SECOND).transport_retries(0));
    check_right(0, &call(&service, 0).await.unwrap().unwrap());
    assert!(call(&service, 1).await.unwrap().unwrap().result.is_err());
    sleep(61 * SECOND).await;
    check_right(2, &call(&service, 2).await.unwrap().unwrap());
}

/// The same for the endpoint of the stronger model, which is asked more seldom still.
#[tokio::test(start_paused = true)]
async fn a_quiet_time_after_a_failure_of_the_stronger_model_costs_nothing() {
    let weak = ScriptedTransport::new(unsure);
    let strong = ScriptedTransport::new(
        |asked: &Asked| {
            if has(asked, 0) { Reply::status(500, "it broke down") } else { right(asked) }
        },
    );
    let endpoint = EndpointConfig::new("http://strong").model("large").transport(strong.clone());
    let escalation = Escalation::below(0.6).to(endpoint).at_most(10.0);
    let service = service(builder(&[&weak]).escalate(escalation).patience(60 * SECOND).transport_retries(0));
    let model = async |number| {
        let outcome = call(&service, number).await.unwrap().unwrap();
        outcome.result.unwrap().origin.model.to_string()
    };
    assert_eq!(model(0).await, "m", "the first answer stands");
    sleep(61 * SECOND).await;
    assert_eq!(model(1).await, "large");
}
