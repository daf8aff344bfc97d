//! Offline batches: whatever result files look like, every item ends with one outcome, its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use slugline::batch::{Batch, BatchError, Limits, Round, Settled};
use slugline::server::StructuredOutput;
use slugline::testing::{Fault, Faults, Pace, Poison, SimulatedEngine, SimulatedReply, SimulatedServer};
use slugline::{Categorizer, NewsItem, Outcome};

use crate::props::{block_on, cases};
use crate::support::{item, items, label_of, taxonomy};

fn batch() -> Batch {
    Categorizer::builder(taxonomy()).model("simulated").batch().unwrap()
}

fn requests(batch: &Batch, round: &Round) -> Vec<String> {
    let parts = batch.write_requests(round, Limits::default(), |_| Ok(Vec::new())).unwrap();
    let text = parts.into_iter().map(|part| String::from_utf8(part.file).unwrap()).collect::<String>();
    text.lines().map(str::to_owned).collect()
}

/// Runs a line as `vllm run-batch` or the OpenAI Batch API would; none when nothing came of it.
async fn run_line(engine: &SimulatedEngine, line: &str, like_vllm: bool) -> Option<String> {
    let line: Value = serde_json::from_str(line).unwrap();
    let url = line["url"].as_str().unwrap();
    let body = line["body"].to_string();
    let reply = tokio::time::timeout(Duration::from_secs(300), engine.handle(url, None, body.as_bytes())).await.ok()?;
    let id = &line["custom_id"];
    let SimulatedReply::Response(response) = reply else {
        let expired = json!({"code": "batch_expired", "message": "This request could not be executed"});
        return Some(json!({"id": "b", "custom_id": id, "response": null, "error": expired}).to_string());
    };
    if response.pace != Pace::Whole {
        return None;
    }
    let text = String::from_utf8_lossy(&response.body).into_owned();
    let status = response.status;
    let is_json = serde_json::from_str::<Value>(&text).is_ok() || text.contains("NaN");
    Some(if status != 200 && like_vllm {
        // vLLM says 400 whatever happened, and has the body beside the response.
        let error: Value = serde_json::from_str(&text).unwrap_or_else(|_| json!(text));
        json!({"id": "v", "custom_id": id, "response": {"status_code": 400, "request_id": "r", "body": null}, "error": error})
            .to_string()
    } else {
        let body = if is_json { text } else { json!(text).to_string() };
        format!(
            r#"{{"id":"b","custom_id":{id},"response":{{"status_code":{status},"request_id":"r","body":{body}}},"error":null}}"#
        )
    })
}

async fn run_lines(engine: &SimulatedEngine, lines: &[String], like_vllm: bool) -> Vec<String> {
    let mut results = Vec::new();
    for line in lines {
        results.extend(run_line(engine, line, like_vllm).await);
    }
    results
}

fn settle(batch: &Batch, round: &Round, results: &[String]) -> Settled {
    batch.settle(round, [results.join("\n").as_bytes()]).unwrap()
}

/// One outcome for each item of [`items`], each with its own label or none.
fn check(outcomes: &[Outcome], count: usize) {
    let by_index: BTreeMap<u64, &Outcome> = outcomes.iter().map(|outcome| (outcome.index, outcome)).collect();
    assert_eq!((outcomes.len(), by_index.len()), (count, count), "one outcome per item");
    for (index, outcome) in by_index {
        assert_eq!(outcome.id, format!("item-{index}"));
        if let Ok(assignment) = &outcome.result {
            assert_eq!(assignment.category.as_str(), label_of(index as usize), "{}", outcome.id);
        }
    }
}

/// What an answer to a request would be, with these labels.
fn answered(request: &str, labels: &[&str]) -> String {
    let request: Value = serde_json::from_str(request).unwrap();
    let object = |(id, label): (usize, &&str)| json!({"id": id, "category": label});
    let content = Value::from((1..).zip(labels).map(object).collect::<Vec<_>>()).to_string();
    let body = json!({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]});
    json!({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}}).to_string()
}

#[tokio::test]
async fn a_batch_that_is_answered_whole_takes_one_round() {
    let (batch, engine) = (batch(), SimulatedServer::builder().engine());
    let (round, outcomes) = batch.begin(items(50));
    assert!(outcomes.is_empty());
    let results = run_lines(&engine, &requests(&batch, &round), false).await;
    let settled = settle(&batch, &round, &results);
    assert_eq!((settled.tally.answered, settled.next.is_done()), (17, true));
    check(&settled.outcomes, 50);
    let assignment = settled.outcomes[0].result.as_ref().unwrap();
    assert!(assignment.confidence.is_some());
    assert_eq!((&*assignment.origin.endpoint, &*assignment.origin.model), ("batch", "simulated"));
}

#[test]
fn a_request_is_that_of_a_run_in_the_form_of_the_batch_api() {
    let batch = batch();
    let (round, _) = batch.begin(items(3));
    let lines = requests(&batch, &round);
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        (lines.len(), line["method"].as_str(), line["url"].as_str()),
        (1, Some("POST"), Some("/v1/chat/completions"))
    );
    assert!(line["custom_id"].as_str().unwrap().len() <= 64);
    assert_eq!(line["body"]["model"], "simulated");
    assert_eq!(line["body"]["messages"][0]["role"], "system");
    assert_eq!(line["body"]["response_format"]["type"], "json_schema");
    let wrapped = batch.clone().structured_output(StructuredOutput::JsonSchemaObject);
    let (round, _) = wrapped.begin(items(3));
    let line: Value = serde_json::from_str(&requests(&wrapped, &round)[0]).unwrap();
    assert_eq!(line["body"]["response_format"]["json_schema"]["schema"]["type"], "object");
}

#[test]
fn items_without_text_are_settled_at_once_and_copies_with_their_original() {
    let batch = batch();
    let mut copy = item(0);
    copy.id = "copy".into();
    let (round, outcomes) = batch.begin([item(0), NewsItem::new("empty", " ", "<br>"), copy]);
    assert_eq!((outcomes.len(), round.len(), round.items()), (1, 1, (3, 1)));
    let line = answered(&requests(&batch, &round)[0], &["sport"]);
    let settled = settle(&batch, &round, &[line]);
    assert_eq!(settled.next.items(), (3, 3));
    let copy = settled.outcomes.iter().find(|outcome| outcome.id == "copy").unwrap();
    assert_eq!(copy.index, 2);
    assert_eq!(copy.result.as_ref().unwrap().origin.duplicate_of.as_deref(), Some("item-0"));
}

#[test]
fn files_keep_their_limits() {
    let batch = batch();
    let (round, _) = batch.begin(items(100));
    let whole = requests(&batch, &round);
    let parts = |limits: Limits| {
        let parts = batch.write_requests(&round, limits, |_| Ok(Vec::new())).unwrap();
        assert_eq!(
            parts.iter().map(|part| &*part.file).collect::<Vec<_>>().concat(),
            (whole.join("\n") + "\n").as_bytes()
        );
        for part in &parts {
            let lines = String::from_utf8_lossy(&part.file).lines().count();
            assert_eq!((part.bytes, part.requests), (part.file.len() as u64, lines));
        }
        parts
    };
    let tens = parts(Limits::default().requests(10));
    assert_eq!(tens.iter().map(|part| part.requests).collect::<Vec<_>>(), [10, 10, 10, 4]);
    let most = 3 * whole[0].len() as u64;
    let small = parts(Limits::default().bytes(most));
    assert!(small.len() > 10 && small.iter().all(|part| part.bytes <= most));
    assert_eq!(parts(Limits::default().bytes(1)).len(), 34, "a request that is too large for any file has its own");
    let (empty, _) = batch.begin([]);
    assert!(empty.is_done() && requests(&batch, &empty).is_empty());
}

#[test]
fn a_missing_request_keeps_its_id_and_a_late_result_counts() {
    let batch = batch();
    let (first, _) = batch.begin(items(9));
    let lines = requests(&batch, &first);
    let results: Vec<_> = lines.iter().map(|line| answered(line, &["sport", "business", "other"])).collect();
    let second = settle(&batch, &first, &results[..1]);
    assert_eq!((second.tally.missing, second.next.number(), second.next.len()), (2, 2, 2));
    assert_eq!(requests(&batch, &second.next), lines[1..]);
    // Results that were read before are of no request of this round.
    let third = settle(&batch, &second.next, &results);
    assert_eq!((third.tally.unknown_lines, third.next.is_done()), (1, true));
    check(&[second.outcomes, third.outcomes].concat(), 9);
}

#[test]
fn without_any_result_the_round_stays_as_it_is() {
    let batch = batch();
    let (round, _) = batch.begin(items(9));
    let settled = batch.settle(&round, [&b"{\"custom_id\":\"x\",\"response\":null}\nnonsense\n"[..]]).unwrap();
    assert_eq!(settled.next, round);
    assert_eq!((settled.tally.unknown_lines, settled.tally.unreadable_lines, settled.tally.missing), (1, 1, 3));
}

#[test]
fn results_of_one_request_that_differ_are_asked_again() {
    let batch = batch();
    let (round, _) = batch.begin(items(3));
    let line = &requests(&batch, &round)[0];
    let results = [answered(line, &["sport", "business", "other"]), answered(line, &["sport", "sport", "other"])];
    for order in [[0, 1], [1, 0]] {
        let settled = settle(&batch, &round, &order.map(|at| results[at].clone()));
        let mut ids: Vec<_> = settled.outcomes.iter().map(|outcome| &*outcome.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["item-0", "item-2"]);
        assert_eq!((settled.tally.repeated_lines, settled.next.len()), (1, 1));
    }
}

#[test]
fn results_of_another_batch_are_not_taken() {
    let batch = batch();
    let (round, _) = batch.begin(items(3));
    // The same texts in another order: every label would be a neighbour's.
    let (other, _) = batch.begin(items(3).into_iter().rev());
    let foreign = answered(&requests(&batch, &other)[0], &["other", "business", "sport"]);
    let settled = settle(&batch, &round, &[foreign]);
    assert!(settled.outcomes.is_empty());
    assert_eq!(settled.tally.unknown_lines, 1);
}

#[tokio::test]
async fn a_form_that_is_refused_is_simpler_in_the_next_round() {
    let batch = batch();
    let faults = Faults::none().with(Fault::LogprobsRefused, 1.0);
    let engine = SimulatedServer::builder().faults(faults).engine();
    let (round, _) = batch.begin(items(9));
    let settled = settle(&batch, &round, &run_lines(&engine, &requests(&batch, &round), true).await);
    assert_eq!(settled.tally.failed.get("request form refused"), Some(&3));
    assert!(settled.tally.failure.is_some());
    let settled = settle(&batch, &settled.next, &run_lines(&engine, &requests(&batch, &settled.next), true).await);
    assert!(settled.next.is_done());
    check(&settled.outcomes, 9);
}

#[tokio::test]
async fn a_poisonous_item_fails_alone() {
    let batch = batch();
    let engine = SimulatedServer::builder().faults(Faults::none().poison("poison", Poison::Status400)).engine();
    let all = items(8).into_iter().chain([NewsItem::new("item-8", "other poison", "")]);
    let (mut round, mut outcomes) = batch.begin(all);
    while !round.is_done() {
        assert!(round.number() < 10);
        let settled = settle(&batch, &round, &run_lines(&engine, &requests(&batch, &round), false).await);
        outcomes.extend(settled.outcomes);
        round = settled.next;
    }
    check(&outcomes, 9);
    let failed: Vec<_> =
        outcomes.iter().filter_map(|outcome| Some((&*outcome.id, outcome.result.as_ref().err()?))).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!((failed[0].0, failed[0].1.kind.as_str(), failed[0].1.attempts), ("item-8", "rejected", 3));
}

#[test]
fn a_round_is_the_same_after_a_file() {
    let batch = batch();
    let (round, _) = batch.begin(items(10));
    let mut file = Vec::new();
    batch.save(&round, &mut file).unwrap();
    assert_eq!(batch.load(&*file).unwrap(), round);

    let unreadable = |bytes: &[u8]| matches!(batch.load(bytes), Err(BatchError::Unreadable { .. }));
    assert!((0..file.len() - 1).all(|end| unreadable(&file[..end])), "a torn file is noticed at every byte");
    let text = String::from_utf8(file.clone()).unwrap();
    let future = text.replacen("\"slugline_batch\":1", "\"slugline_batch\":2,\"more\":true", 1);
    assert!(matches!(batch.load(future.as_bytes()), Err(BatchError::OtherVersion { found: 2 })));
    let other = Categorizer::builder(taxonomy()).model("another").batch().unwrap();
    let error = other.load(&*file).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the round of the batch has model simulated, not another: go on with what it was begun with"
    );
    let fewer = slugline::Taxonomy::new("t", "1", taxonomy().categories().take(2).cloned()).unwrap();
    let other = Categorizer::builder(fewer).model("simulated").batch().unwrap();
    assert!(matches!(other.load(&*file), Err(BatchError::OtherBatch { what: "taxonomy", .. })));
}

#[test]
fn a_round_of_the_first_version_is_read() {
    let batch = batch();
    let (round, _) = batch.begin(items(2));
    let mut file = Vec::new();
    batch.save(&round, &mut file).unwrap();
    let lines: Vec<Value> =
        file.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    // Written by version 1; the hashes are of the prompt and the taxonomy of these tests and change with them.
    let header = json!({
        "slugline_batch": 1, "round": 1, "items": 2, "settled": 0, "requests": 1, "model": "simulated",
        "taxonomy": lines[0]["taxonomy"], "prompt_version": lines[0]["prompt_version"],
        "dialect": {"api": "chat", "structured_output": "json-schema", "logprobs": true},
    });
    let pending = |index: u64, title: &str, tokens: u64| {
        json!({
            "index": index, "id": format!("item-{index}"), "text": {"title": title, "body": "", "tokens": tokens},
            "attempts": 0, "content_failures": 0, "transport_failures": 0, "has_been_refused": false, "alone": false,
            "copies": [],
        })
    };
    let tokens = |at: usize| lines[1]["items"][at]["text"]["tokens"].as_u64().unwrap();
    let ask = json!({
        "custom_id": lines[1]["custom_id"],
        "items": [pending(0, "sport story 0", tokens(0)), pending(1, "business story 1", tokens(1))],
    });
    assert_eq!(batch.load(format!("{header}\n{ask}\n").as_bytes()).unwrap(), round);
}

#[test]
fn what_only_a_run_can_do_is_refused() {
    let error = Categorizer::builder(taxonomy()).even_positions(true).pack_size(0).batch().unwrap_err().to_string();
    for part in ["even positions needs answers", "no model", "pack size"] {
        assert!(error.contains(part), "{part} not in {error}");
    }
}

/// How an answer that arrives can be wrong.
const ANSWER_FAULTS: &[Fault] = &[
    Fault::BadUtf8,
    Fault::NanLogprobs,
    Fault::DropObject,
    Fault::DuplicateObject,
    Fault::SwapObjects,
    Fault::UnknownLabel,
    Fault::LabelVariant,
    Fault::ExtraObject,
    Fault::IdsFromZero,
    Fault::StringIds,
    Fault::Fenced,
    Fault::Prose,
    Fault::ThinkBlock,
    Fault::CutAnswer,
    Fault::WhitespaceLoop,
    Fault::EmptyContent,
    Fault::NullContent,
    Fault::ContentFilter,
    Fault::Refusal,
    Fault::Abort,
];

/// What happens to a file of results between its writing and its reading.
#[derive(Clone, Debug)]
struct Damage {
    shuffle: u64,
    /// Of a hundred lines, how many are lost, doubled, or cut somewhere.
    lost: u64,
    doubled: u64,
    cut: u64,
    /// The share of the file that is there, every other time.
    kept: f64,
    with_lines_of_before: bool,
}

impl Damage {
    fn apply(&self, mut lines: Vec<String>, before: &[String], round: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(self.shuffle ^ round as u64);
        if self.with_lines_of_before {
            lines.extend_from_slice(before);
        }
        lines.retain(|_| random.u64(..100) >= self.lost);
        let doubled: Vec<_> = lines.iter().filter(|_| random.u64(..100) < self.doubled).cloned().collect();
        lines.extend(doubled);
        random.shuffle(&mut lines);
        let mut file = Vec::new();
        for line in lines {
            let end = if random.u64(..100) < self.cut { random.usize(..line.len()) } else { line.len() };
            file.extend_from_slice(&line.as_bytes()[..end]);
            // A line that was cut may run on into the next.
            if end == line.len() || random.bool() {
                file.push(b'\n');
            }
        }
        if random.bool() {
            file.truncate((file.len() as f64 * self.kept) as usize);
        }
        file
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let kept = prop_oneof![3 => Just(1.0), 1 => 0.0..1.0_f64];
    (any::<u64>(), 0_u64..40, 0_u64..40, 0_u64..20, kept, any::<bool>()).prop_map(
        |(shuffle, lost, doubled, cut, kept, with_lines_of_before)| Damage {
            shuffle,
            lost,
            doubled,
            cut,
            kept,
            with_lines_of_before,
        },
    )
}

proptest! {
    #![proptest_config(cases(80))]

    /// Rounds until done, each by another process, over a simulated model with faults and files that were damaged.
    #[test]
    fn every_item_has_one_outcome_and_never_anothers_label(
        count in 1_usize..60,
        pack_size in 1_usize..8,
        seed in any::<u64>(),
        failing in 0.0..0.3_f64,
        fault in select(ANSWER_FAULTS),
        faulty in 0.0..0.7_f64,
        damages in proptest::collection::vec(damage(), 1..4),
        like_vllm in any::<bool>(),
    ) {
        // One kind of faulty answer at a time: two in one answer can hide each other, which is no matter of batches.
        let failures = [
            (Fault::InternalError, failing),
            (Fault::BadRequest, failing / 2.0),
            (Fault::Hang, failing / 2.0),
            (Fault::LogprobsRefused, failing / 2.0),
            (Fault::ContextLength, failing / 4.0),
            (fault, faulty),
        ];
        let faults = failures.into_iter().fold(Faults::none(), |faults, (fault, rate)| faults.with(fault, rate));
        let engine = SimulatedServer::builder().faults(faults).seed(seed).engine();
        let new = || Categorizer::builder(taxonomy()).model("simulated").pack_size(pack_size).batch().unwrap();
        let (round, mut outcomes) = new().begin(items(count));
        let mut file = Vec::new();
        new().save(&round, &mut file).unwrap();
        let (mut before, mut rounds) = (Vec::new(), 0);
        loop {
            let batch = new();
            let round = batch.load(&*file).unwrap();
            let (items, settled) = round.items();
            prop_assert_eq!((items as usize, settled as usize), (count, outcomes.len()));
            if round.is_done() {
                break;
            }
            rounds += 1;
            prop_assert!(rounds < 400, "no end in sight: {} requests left", round.len());
            let results = block_on(run_lines(&engine, &requests(&batch, &round), like_vllm));
            let damaged = damages[rounds % damages.len()].apply(results.clone(), &before, rounds);
            before.extend(results);
            // Every other time two files, the first of which may end within a line.
            let (half, rest) = damaged.split_at(damaged.len() / (1 + rounds % 2));
            let settled = batch.settle(&round, [half, rest]).unwrap();
            outcomes.extend(settled.outcomes);
            file.clear();
            batch.save(&settled.next, &mut file).unwrap();
        }
        check(&outcomes, count);
        let kinds: HashMap<_, _> = outcomes
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().err())
            .map(|error| (error.kind.as_str(), error.attempts))
            .collect();
        prop_assert!(kinds.values().all(|attempts| *attempts > 0), "{:?}", kinds);
    }
}
