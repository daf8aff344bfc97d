//! Random faults from random servers: N items in, N outcomes out, each its own, whatever happens.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use slugline::server::{Response, TransportError, TransportErrorKind};
use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{Balance, Categorizer, ErrorKind, NewsItem, Outcome, Stats};

use crate::props::{block_on, cases};
use crate::support::{builder, check_all_there, item, label_of, right_label};

/// What a server does with one request.
#[derive(Clone, Debug)]
enum Fate {
    Right,
    Hang,
    /// A status with a body, and perhaps `Retry-After` in seconds.
    Status(u16, &'static str, Option<u64>),
    Lost(TransportErrorKind),
    /// A body that is no completion, or one of another kind.
    Body(&'static str),
    /// A completion with this text.
    Text(&'static str),
    /// The right objects, changed.
    Changed(Change),
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Reversed,
    Fenced,
    Thought,
    StringIds,
    Wrapped,
    /// One more object, for an item that does not exist.
    Extra,
    Missing(Index),
    Repeated(Index),
    UnknownLabel(Index),
    /// Counted from another number.
    Shifted(i64),
    /// Cut at a byte, with the finish reason that says so, or without.
    Cut(Index, &'static str),
    BadUtf8(Index),
}

/// How long each reply takes, in milliseconds.
type Script = Vec<(Fate, u64)>;

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Reversed),
        Just(Change::Fenced),
        Just(Change::Thought),
        Just(Change::StringIds),
        Just(Change::Wrapped),
        Just(Change::Extra),
        any::<Index>().prop_map(Change::Missing),
        any::<Index>().prop_map(Change::Repeated),
        any::<Index>().prop_map(Change::UnknownLabel),
        select(vec![-2, -1, 1, 2, 16, 1_000]).prop_map(Change::Shifted),
        (any::<Index>(), select(vec!["stop", "length"])).prop_map(|(at, finish)| Change::Cut(at, finish)),
        any::<Index>().prop_map(Change::BadUtf8),
    ]
}

/// A fault that may pass.
fn fault() -> impl Strategy<Value = Fate> {
    let context = r#"{"error":{"message":"This model's maximum context length is 600 tokens. However, you requested 900 tokens","code":400}}"#;
    let status = prop_oneof![
        Just((400, "cannot process this input")),
        Just((400, context)),
        Just((400, "response_format: json_schema is not supported")),
        Just((400, r#"{"error":{"message":"logprobs are not supported","code":null}}"#)),
        Just((400, r#"{"error":{"message":"Invalid schema: schema must be of type: \"object\""}}"#)),
        Just((408, "")),
        Just((413, "")),
        Just((422, "{\"detail\":[{\"msg\":\"field required\"}]}")),
        Just((429, "<html><h1>429</h1>slow down</html>")),
        Just((500, r#"{"object":"error","message":"boom","code":500}"#)),
        Just((502, "\u{0}\u{fffd}")),
        Just((503, "{\"error\":{\"message\":\"Loading model\",\"code\":503}}")),
        Just((529, "overloaded")),
    ];
    let retry_after = proptest::option::weighted(0.2, select(vec![0, 1, 30, 100_000]));
    let kinds = vec![TransportErrorKind::Connect, TransportErrorKind::Interrupted, TransportErrorKind::TooLarge];
    let bodies = vec![
        "",
        "null",
        "<html>gateway</html>",
        r#"{"choices":[]}"#,
        r#"{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}"#,
        r#"{"choices":[{"message":{"content":null,"refusal":"I cannot"},"finish_reason":"stop"}]}"#,
        r#"{"choices":[{"message":{"content":"[]"},"finish_reason":"abort"}],"usage":{"prompt_tokens":-1}}"#,
    ];
    let texts =
        vec!["", "I would say sport.", "[[[[[[", "<think>sport", "[{\"id\":NaN,\"category\":\"sport\"}]", " \n \n"];
    prop_oneof![
        2 => Just(Fate::Hang),
        6 => (status, retry_after).prop_map(|((status, body), wait)| Fate::Status(status, body, wait)),
        2 => select(kinds).prop_map(Fate::Lost),
        2 => select(bodies).prop_map(Fate::Body),
        2 => select(texts).prop_map(Fate::Text),
        6 => change().prop_map(Fate::Changed),
    ]
}

/// What one server does, request after request and then from the start again: mostly right, mostly wrong, in short cycles,
/// or dead.
fn script() -> impl Strategy<Value = Script> {
    let latency = prop_oneof![Just(0_u64), 0_u64..3_000, 0_u64..15_000];
    let fate = |right: u32| prop_oneof![right => Just(Fate::Right), 10 => fault()];
    let steps = prop_oneof![
        6 => proptest::collection::vec((fate(60), latency.clone()), 1..60),
        3 => proptest::collection::vec((fate(10), latency.clone()), 1..30),
        // A short cycle can meet the same item in the same way again and again.
        3 => proptest::collection::vec((fate(10), latency.clone()), 1..5),
        1 => proptest::collection::vec((fault(), latency), 1..4),
    ];
    let refused = select(vec![
        Fate::Status(401, "bad key", None),
        Fate::Status(403, "", None),
        Fate::Status(404, r#"{"error":{"message":"The model `m` does not exist.","code":404}}"#, None),
    ]);
    // Few servers lose the key or the model, and then somewhere in the middle.
    (steps, proptest::option::weighted(0.1, (any::<Index>(), refused))).prop_map(|(mut steps, refused)| {
        if let Some((at, fate)) = refused {
            steps.insert(at.index(steps.len() + 1), (fate, 0));
        }
        steps
    })
}

fn server(script: Script) -> ScriptedTransport {
    ScriptedTransport::new(move |asked| {
        let (fate, latency_ms) = &script[asked.number % script.len()];
        reply(fate, asked).after(Duration::from_millis(*latency_ms))
    })
}

fn reply(fate: &Fate, asked: &Asked) -> Reply {
    match *fate {
        Fate::Right => Reply::labels(asked.items.iter().map(|item| right_label(item))),
        Fate::Hang => Reply::hang(),
        Fate::Status(status, body, wait) => {
            let response = Response::new(status, body);
            Reply::response(match wait {
                Some(wait) => response.with_retry_after(Duration::from_secs(wait)),
                None => response,
            })
        }
        Fate::Lost(kind) => Reply::error(TransportError::new(kind, "as the script says")),
        Fate::Body(body) => Reply::status(200, body),
        Fate::Text(text) => Reply::text(text),
        Fate::Changed(change) => changed(change, asked),
    }
}

fn changed(change: Change, asked: &Asked) -> Reply {
    let count = asked.items.len();
    let mut objects: Vec<(i64, String)> =
        (1..).zip(asked.items.iter().map(|item| right_label(item).to_owned())).collect();
    match change {
        Change::Reversed => objects.reverse(),
        Change::Extra => objects.push((count as i64 + 1, "sport".into())),
        Change::Missing(at) => drop(objects.remove(at.index(count))),
        Change::Repeated(at) => {
            let (id, _) = objects[at.index(count)];
            objects.push((id, "sport".into()));
        }
        Change::UnknownLabel(at) => objects[at.index(count)].1 = "gossip".into(),
        Change::Shifted(offset) => objects.iter_mut().for_each(|(id, _)| *id += offset),
        _ => {}
    }
    let quote = if matches!(change, Change::StringIds) { "\"" } else { "" };
    let objects: Vec<_> = objects
        .into_iter()
        .map(|(id, label)| format!(r#"{{"id": {quote}{id}{quote}, "category": "{label}"}}"#))
        .collect();
    let answer = format!("[{}]", objects.join(", "));
    let text = match change {
        Change::Fenced => format!("Sure:\n```json\n{answer}\n```\nAnything else?"),
        Change::Thought => format!("<think>First I thought {}</think>{answer}", answer.replace("sport", "business")),
        Change::Wrapped => format!("{{\"items\": {answer}}}"),
        Change::Cut(at, _) => answer[..at.index(answer.len() + 1)].to_owned(),
        _ => answer,
    };
    let finish = if let Change::Cut(_, finish) = change { finish } else { "stop" };
    let body = serde_json::json!({"choices": [{"message": {"content": text}, "finish_reason": finish}]});
    let mut body = body.to_string().into_bytes();
    if let Change::BadUtf8(at) = change {
        let at = at.index(body.len());
        body[at] = 0xff;
    }
    Reply::response(Response::new(200, body))
}

/// A whole case: the servers, the items, and how they are asked.
#[derive(Clone, Debug)]
struct Case {
    scripts: Vec<Script>,
    count: usize,
    /// The items from here on are copies of the first ones; a multiple of three, so that labels stay right.
    distinct: usize,
    body_words: Vec<usize>,
    pack_size: usize,
    concurrency: usize,
    retries: (u32, u32),
    balance: Balance,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    (
        proptest::collection::vec(script(), 1..=3),
        prop_oneof![1 => 1_usize..8, 3 => 1_usize..=200],
        prop_oneof![Just(67_usize), 1_usize..=67],
        proptest::collection::vec(prop_oneof![Just(0_usize), 0_usize..150], 1..20),
        1_usize..=16,
        1_usize..=25,
        (0_u32..=4, 0_u32..=3),
        select(vec![Balance::TwoChoices, Balance::FewestInFlight, Balance::RoundRobin]),
        any::<u64>(),
    )
        .prop_map(|(scripts, count, distinct, body_words, pack_size, concurrency, retries, balance, seed)| Case {
            scripts,
            count,
            distinct: 3 * distinct,
            body_words,
            pack_size,
            concurrency,
            retries,
            balance,
            seed,
        })
}

impl Case {
    fn items(&self) -> Vec<NewsItem> {
        let one = |number: usize| {
            let original = number % self.distinct;
            let words = self.body_words[original % self.body_words.len()];
            NewsItem::new(format!("item-{number}"), item(original).title, "Word of the day. ".repeat(words / 4))
        };
        (0..self.count).map(one).collect()
    }

    fn categorizer(&self, servers: &[ScriptedTransport]) -> Categorizer {
        builder(&servers.iter().collect::<Vec<_>>())
            .pack_size(self.pack_size)
            .concurrency(self.concurrency)
            .transport_retries(self.retries.0)
            .content_retries(self.retries.1)
            .balance(self.balance)
            .seed(self.seed)
            .build()
            .unwrap()
    }
}

/// Longer than any run of 200 items may take, in virtual time: each request slow, each endpoint cooling in between.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

fn check_stats(stats: &Stats, outcomes: &[Outcome], servers: &[ScriptedTransport], is_whole: bool) {
    let ok = || outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
    assert_eq!(stats.items, outcomes.len() as u64);
    assert_eq!(stats.categorized, ok().count() as u64);
    assert_eq!(stats.fallback, ok().filter(|assignment| assignment.is_fallback).count() as u64);
    assert_eq!(stats.duplicates, ok().filter(|assignment| assignment.origin.duplicate_of.is_some()).count() as u64);
    let mut failed = BTreeMap::new();
    for error in outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()) {
        *failed.entry(error.kind.as_str()).or_insert(0_u64) += 1;
    }
    assert_eq!(stats.failed, failed);
    let ended = stats.answered + stats.failures.values().sum::<u64>();
    let asked: Vec<_> = servers.iter().map(|server| server.asked().len() as u64).collect();
    let counted: Vec<_> = stats.endpoints.iter().map(|endpoint| endpoint.requests).collect();
    assert_eq!(stats.requests, counted.iter().sum::<u64>());
    if is_whole {
        assert_eq!(counted, asked, "every request was sent");
        // A canary may still be on its way when the last item is settled without it.
        assert!((ended..=ended + 1).contains(&stats.requests), "{ended} of {} came to something", stats.requests);
    } else {
        // What a fatal error found in flight was cancelled, some of it before it was sent.
        assert!(stats.requests >= ended && counted.iter().zip(asked).all(|(counted, asked)| *counted >= asked));
    }
}

/// Whether nothing is in flight any more.
async fn is_idle(categorizer: &Categorizer) -> bool {
    tokio::time::sleep(Duration::from_millis(1)).await;
    categorizer.endpoints().iter().all(|endpoint| endpoint.in_flight == 0)
}

fn check_outcomes(outcomes: &[Outcome], count: usize) {
    assert_eq!(outcomes.len(), count, "one outcome per item");
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!((outcome.id.as_str(), outcome.index), (format!("item-{number}").as_str(), number as u64));
        if let Ok(assignment) = &outcome.result {
            assert_eq!(assignment.category.as_str(), label_of(number), "{}", outcome.id);
        }
    }
}

/// Found by the properties below: one item that an unlucky rhythm of failures kept on its way for ever.
#[tokio::test(start_paused = true)]
async fn an_item_ends_whatever_the_rhythm_of_the_failures() {
    let garbage = Fate::Text("[]");
    let rhythms: [Vec<Vec<Fate>>; 3] = [
        // The item times out, and what else is asked is answered with garbage, at the only endpoint that is left.
        vec![vec![garbage, Fate::Hang], vec![Fate::Status(401, "bad key", None)]],
        // The same with refusals, from a server that has worked before.
        vec![vec![Fate::Status(400, "cannot process this input", None), Fate::Hang]],
        // No connection comes between the answer that shows that the server works and the timeout that it should count for.
        vec![vec![Fate::Lost(TransportErrorKind::Connect), Fate::Hang, Fate::Right]],
    ];
    for (number, scripts) in rhythms.into_iter().enumerate() {
        let with_latency = |script: Vec<Fate>| script.into_iter().map(|fate| (fate, 0)).collect();
        let case = Case {
            scripts: scripts.into_iter().map(with_latency).collect(),
            count: 1,
            distinct: 3,
            body_words: vec![0],
            pack_size: 1,
            concurrency: 1,
            retries: (0, 0),
            balance: Balance::TwoChoices,
            seed: 0,
        };
        let servers: Vec<_> = case.scripts.iter().cloned().map(server).collect();
        let categorizer = case.categorizer(&servers);
        let run = tokio::time::timeout(LONGEST, categorizer.categorize(case.items())).await;
        check_outcomes(&run.unwrap_or_else(|_| panic!("rhythm {number} does not end")).outcomes, 1);
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn whatever_the_servers_do_every_item_has_its_own_outcome(case in case()) {
        block_on(async {
            let servers: Vec<_> = case.scripts.iter().cloned().map(server).collect();
            let categorizer = case.categorizer(&servers);
            let run = tokio::time::timeout(LONGEST, categorizer.categorize(case.items()));
            let report = run.await.expect("the run ends");
            check_all_there(&report, case.count);
            check_stats(&report.stats, &report.outcomes, &servers, report.error.is_none());
            // Items are left alone only when the run had to stop.
            let not_attempted = report.stats.failed.contains_key("not-attempted");
            assert!(!not_attempted || report.error.is_some());
            if let Some(error) = &report.error {
                assert!(matches!(error.kind(), ErrorKind::Refused | ErrorKind::OutOfPatience), "{error}");
            }
            assert!(is_idle(&categorizer).await, "nothing is left in flight");
        });
    }

    #[test]
    fn a_stop_at_any_time_leaves_every_item_with_its_own_outcome(case in case(), stop_ms in 0_u64..60_000) {
        block_on(async {
            let servers: Vec<_> = case.scripts.iter().cloned().map(server).collect();
            let categorizer = case.categorizer(&servers);
            let mut run = categorizer.stream(stream::iter(case.items()));
            let stop = run.stop_handle();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(stop_ms)).await;
                stop.stop();
            });
            let deadline = Duration::from_millis(stop_ms) + Duration::from_secs(121);
            let collected = tokio::time::timeout(deadline, run.by_ref().collect::<Vec<_>>()).await;
            let mut outcomes = collected.expect("what is in flight ends within its timeout");
            outcomes.sort_unstable_by_key(|outcome| outcome.index);
            check_outcomes(&outcomes, case.count);
            let is_whole = run.error().is_none_or(|error| error.kind() == ErrorKind::Stopped);
            check_stats(&run.stats(), &outcomes, &servers, is_whole);
            drop(run);
            assert!(is_idle(&categorizer).await, "nothing is left in flight");
        });
    }

    #[test]
    fn a_run_dropped_at_any_time_gives_its_places_back(case in case(), drop_ms in 0_u64..60_000) {
        block_on(async {
            let servers: Vec<_> = case.scripts.iter().cloned().map(server).collect();
            let categorizer = case.categorizer(&servers);
            let run = categorizer.categorize(case.items());
            let _ = tokio::time::timeout(Duration::from_millis(drop_ms), run).await;
            assert!(is_idle(&categorizer).await, "nothing is left in flight");
        });
    }
}
