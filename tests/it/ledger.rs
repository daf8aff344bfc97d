//! The ledger: nothing is asked twice, nothing is handed on before it is written, whatever happens to the process or the
//! file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use slugline::calibration::Calibration;
use slugline::ledger::{AcrossVersions, LedgerErrorKind, LedgerStats, SyncPolicy};
use slugline::server::{Request, TransportError, TransportErrorKind};
use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{
    AnswerForm, Api, Category, Descent, EndpointConfig, Error, Escalation, ItemErrorKind, Ledger, NewsItem,
    ServiceError, ServiceOptions, Status, Taxonomy,
};

use crate::support::{builder, check_all_there, failed, item, items, right, right_label, taxonomy};

/// A ledger file of its own for each test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("slugline-ledger-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("night.ledger")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn stats(path: &Path) -> LedgerStats {
    Ledger::open(path).unwrap().stats()
}

fn renamed(mut item: NewsItem, id: String) -> NewsItem {
    item.id = id;
    item
}

fn asked_items(server: &ScriptedTransport) -> usize {
    server.asked().iter().map(|asked| asked.items.len()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_second_run_asks_nothing_and_says_so() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(|asked| {
        Reply::probabilities(asked.items.iter().map(|item| vec![(right_label(item), 0.9), ("other", 0.05)]))
    });
    let ledger = Ledger::open(folder.file()).unwrap();
    let first = builder(&[&server]).ledger(ledger).build().unwrap().categorize(items(100)).await;
    check_all_there(&first, 100);
    assert_eq!((first.stats.from_ledger, first.stats.requests), (0, 34));
    assert_eq!((stats(&folder.file()).answers, stats(&folder.file()).failures), (100, 0));

    // In another order, with other ids, from what might be another process, with packs of another size.
    let others = (0..100).rev().map(|n| renamed(item(n), format!("new-{n}")));
    let ledger = Ledger::open(folder.file()).unwrap();
    let categorizer = builder(&[&server]).pack_size(5).ledger(ledger.clone()).build().unwrap();
    let second = categorizer.categorize(others).await;
    assert!(second.error.is_none());
    assert_eq!((second.stats.from_ledger, second.stats.requests, second.categorized()), (100, 0, 100));
    for (outcome, n) in second.outcomes.iter().zip((0..100).rev()) {
        assert_eq!(outcome.id, format!("new-{n}"));
        let mut assignment = outcome.result.clone().unwrap();
        assert!(std::mem::take(&mut assignment.origin.from_ledger));
        assert_eq!(&assignment, first.outcomes[n].result.as_ref().unwrap(), "all of the first answer");
    }
    let json = serde_json::to_value(&second.outcomes[0]).unwrap();
    assert_eq!(json["from_ledger"], true);
    assert_eq!(ledger.stats().answers, 100, "nothing was written again");
}

/// Three categories; the title of an item says which is right, and with what probability.
#[tokio::test(start_paused = true)]
async fn a_new_version_asks_only_what_has_changed() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(|asked| {
        // Business is the rival of sport, and sport of the others.
        let shares = |item: &String| match crate::support::right_label(item) {
            "sport" => vec![("sport", 0.7), ("business", 0.3)],
            "business" => vec![("business", 0.7), ("sport", 0.3)],
            _ => vec![("other", 0.7), ("sport", 0.3)],
        };
        Reply::probabilities(asked.items.iter().map(shares))
    });
    let run = async |taxonomy: Taxonomy, across: Option<AcrossVersions>| {
        let endpoint = EndpointConfig::new("http://0").transport(server.clone()).model("m");
        let builder = slugline::Categorizer::builder(taxonomy).endpoint(endpoint);
        let builder = builder.ledger(Ledger::open(folder.file()).unwrap());
        let builder = if let Some(across) = across { builder.across_versions(across) } else { builder };
        let report = builder.build().unwrap().categorize(items(30)).await;
        check_all_there(&report, 30);
        (report.stats.kept_across_versions, report.stats.changed_since_version, report.stats.asked_items)
    };
    let described = |which: usize| {
        let mut categories: Vec<Category> = taxonomy().categories().cloned().collect();
        categories[which].description.push_str(" And more.");
        Taxonomy::new("test", "2", categories).unwrap()
    };
    let same = Some(AcrossVersions::SameCategory);
    assert_eq!(run(taxonomy(), same).await, (0, 0, 30));
    assert_eq!(stats(&folder.file()).answers, 30, "those for later versions are not counted");
    // Another order is another prompt, but every category means the same.
    let turned =
        Taxonomy::new("test", "2", taxonomy().categories().cloned().collect::<Vec<_>>().into_iter().rev()).unwrap();
    assert_eq!(turned.hash(), taxonomy().hash());
    assert_eq!(run(turned.clone(), None).await, (0, 0, 30), "unless it is asked for");
    assert_eq!(run(turned, same).await, (0, 0, 0), "it has its own answers now");
    // Business has changed: its ten items, and with rivals those of sport, too, which it nearly got.
    let business = described(1);
    assert_eq!(run(business.clone(), Some(AcrossVersions::SameRivals)).await, (10, 20, 20));
    assert_eq!(
        run(described(2), same).await,
        (10, 20, 20),
        "what was asked under the third version stands for the fourth"
    );
    let other_name = Taxonomy::new("another", "1", business.categories().cloned().collect::<Vec<_>>()).unwrap();
    assert_eq!(run(other_name, same).await.1, 0);
}

/// An answer of the top level is not one of the whole tree as a list, and another form of answer is another question.
#[tokio::test(start_paused = true)]
async fn answers_outlive_a_version_but_not_another_question() {
    let folder = Folder::new();
    let below = |id: &str| Category::new(id, id, "").with_parent("sport");
    let top = [Category::new("sport", "Sport", "Matches."), Category::new("other", "Other", "Rest.").as_fallback()];
    let tree = Taxonomy::new("tree", "1", top.into_iter().chain([below("ball"), below("chess")])).unwrap();
    let server = ScriptedTransport::new(|asked| {
        let Request::Chat(request) = &asked.request else { panic!("no chat request") };
        let label = if request.messages.0.content.get().contains("- ball: ") { "ball" } else { "sport" };
        Reply::labels(asked.items.iter().map(|_| label))
    });
    let run = async |descends: bool, form: AnswerForm| {
        let endpoint = EndpointConfig::new("http://0").transport(server.clone()).model("m");
        let builder = slugline::Categorizer::builder(tree.clone()).endpoint(endpoint).answer_form(form).pack_size(1);
        let builder =
            builder.ledger(Ledger::open(folder.file()).unwrap()).across_versions(AcrossVersions::SameCategory);
        let builder = if descends { builder.descend(Descent::default()) } else { builder };
        let report = builder.build().unwrap().categorize(items(10)).await;
        assert!(report.outcomes.iter().all(|of| of.result.as_ref().unwrap().category.as_str() == "ball"));
        report.stats.requests
    };
    assert_eq!(run(true, AnswerForm::Objects).await, 20);
    assert_eq!(run(false, AnswerForm::Objects).await, 10);
    assert_eq!(run(false, AnswerForm::Category).await, 10);
    for (descends, form) in [(true, AnswerForm::Objects), (false, AnswerForm::Objects), (false, AnswerForm::Category)] {
        assert_eq!(run(descends, form).await, 0, "all of that is known now");
    }
}

#[tokio::test(start_paused = true)]
async fn what_decides_the_answer_asks_anew_and_the_rest_does_not() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(right);
    let ledger = Ledger::open(folder.file()).unwrap();
    let base = || builder(&[&server]).ledger(ledger.clone());
    let requests = async |builder: slugline::CategorizerBuilder| {
        let report = builder.build().unwrap().categorize(items(9)).await;
        check_all_there(&report, 9);
        report.stats.requests
    };
    assert_eq!(requests(base()).await, 3);
    let stronger = EndpointConfig::new("http://stronger").transport(server.clone());
    let prompt = base().build().unwrap().prompt_version().to_string();
    let calibration = format!(
        "format = 1\nmodel = \"m\"\ntaxonomy = \"{}\"\nprompt_version = \"{prompt}\"\ntemperature = 2.0\nlabel_strength = 1.0\nposition_strength = 1.0\n",
        taxonomy().hash()
    );
    let calibration = Calibration::from_toml(&calibration).unwrap();
    let changes: Vec<(&str, slugline::CategorizerBuilder)> = vec![
        ("model", base().model("m2")),
        ("temperature", base().temperature(0.5)),
        ("api", base().api(Api::Completions)),
        ("confidence", base().confidence(false)),
        ("positions", base().even_positions(true)),
        ("calibration", base().calibration(calibration)),
        ("escalation", base().escalate(Escalation::below(0.5))),
        ("its way", base().escalate(Escalation::below(0.5).vote(2))),
        ("a field", base().request_field("reasoning_effort", "low")),
        ("its bound", base().escalate(Escalation::below(0.6))),
        ("its model", base().escalate(Escalation::below(0.5).to(stronger.clone().model("big")))),
        ("its other model", base().escalate(Escalation::below(0.5).to(stronger.model("bigger")))),
    ];
    for (what, changed) in changes {
        assert!(requests(changed.clone()).await >= 3, "{what}");
        assert_eq!(requests(changed).await, 0, "{what}");
    }
    let mut described: Vec<Category> = taxonomy().categories().cloned().collect();
    described[0].description.push_str(" Clubs, too.");
    let other = Taxonomy::new("test", "1", described).unwrap();
    let endpoint = || EndpointConfig::new("http://0").transport(server.clone()).model("m");
    let other = slugline::Categorizer::builder(other).endpoint(endpoint()).ledger(ledger.clone()).build().unwrap();
    assert_eq!(other.categorize(items(9)).await.stats.requests, 3, "taxonomy");

    // Neither do these, nor another model that comes beside the first.
    let renamed = Taxonomy::new("renamed", "2", taxonomy().categories().cloned().collect::<Vec<_>>()).unwrap();
    let renamed = slugline::Categorizer::builder(renamed).endpoint(endpoint()).ledger(ledger.clone());
    let second = EndpointConfig::new("http://other").transport(server.clone()).model("m3");
    let same: Vec<(&str, slugline::CategorizerBuilder)> = vec![
        ("name of the taxonomy", renamed),
        ("packs and limits", base().pack_size(7).concurrency(2).content_retries(0).timeout(Duration::from_secs(3))),
        ("another model beside", base().endpoint(second)),
        ("share of escalation", base().escalate(Escalation::below(0.5).at_most(0.9))),
        ("budget that cuts nothing", base().item_tokens(99)),
    ];
    for (what, changed) in same {
        assert_eq!(requests(changed).await, 0, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_by_kind() {
    let folder = Folder::new();
    let is_mended = Arc::new(AtomicUsize::new(0));
    let mended = Arc::clone(&is_mended);
    let server = ScriptedTransport::new(move |asked: &Asked| {
        let has = |number: usize| asked.items.iter().any(|item| item.ends_with(&format!(" {number}")));
        match mended.load(Ordering::Relaxed) {
            0 if has(4) => Reply::status(422, "bad item"),
            0 if has(7) => Reply::text("no object at all"),
            _ => right(asked),
        }
    });
    let ledger = Ledger::open(folder.file()).unwrap();
    let categorizer = builder(&[&server]).ledger(ledger.clone()).build().unwrap();
    let mut with_empty = items(12);
    with_empty.push(NewsItem::new("nothing", " ", ""));
    let first = categorizer.categorize(with_empty.clone()).await;
    let expected = [("item-4", "rejected"), ("item-7", "unreadable"), ("nothing", "empty")];
    assert_eq!(failed(&first).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!((ledger.stats().answers, ledger.stats().failures), (10, 2));

    is_mended.store(1, Ordering::Relaxed);
    let before = server.asked().len();
    let second = categorizer.categorize(with_empty).await;
    assert_eq!(failed(&second).into_iter().collect::<Vec<_>>(), [("item-4", "rejected"), ("nothing", "empty")]);
    let told = |report: &slugline::Report| report.outcomes[4].result.clone().unwrap_err().to_string();
    assert_eq!(told(&first), told(&second), "with its story");
    let asked: Vec<_> = server.asked()[before..].iter().map(|asked| asked.items.clone()).collect();
    assert_eq!(asked, [["business story 7"]]);

    drop((categorizer, ledger));
    let ledger = Ledger::options().retry_permanent(true).open(folder.file()).unwrap();
    let third = builder(&[&server]).ledger(ledger).build().unwrap().categorize(items(12)).await;
    check_all_there(&third, 12);
    assert_eq!((third.categorized(), third.stats.requests, third.stats.from_ledger), (12, 1, 11));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_anywhere_costs_at_most_what_was_in_flight() {
    for taken in [0, 1, 10, 57, 99] {
        let folder = Folder::new();
        let server = ScriptedTransport::new(|asked| right(asked).after(Duration::from_millis(50)));
        let open = || {
            let ledger = Ledger::open(folder.file()).unwrap();
            builder(&[&server]).concurrency(4).max_concurrency(4).ledger(ledger).build().unwrap()
        };
        let categorizer = open();
        let mut outcomes = categorizer.stream(stream::iter(items(100)));
        let mut handed_on = Vec::new();
        while handed_on.len() < taken {
            handed_on.push(outcomes.next().await.unwrap());
        }
        drop(outcomes);
        drop(categorizer);
        // The attempts that were aborted end when the runtime gets to them.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let written = stats(&folder.file()).answers;
        assert!(written >= taken as u64, "{written} written, {taken} handed on");
        let asked_before = asked_items(&server);
        let report = open().categorize(items(100)).await;
        check_all_there(&report, 100);
        assert_eq!(report.stats.from_ledger, written);
        assert_eq!(asked_items(&server) - asked_before, 100 - written as usize);
        assert!(asked_items(&server) <= 100 + 4 * 3, "{taken}: {}", asked_items(&server));
    }
}

#[tokio::test(start_paused = true)]
async fn copies_are_found_however_far_apart_and_a_prior_is_measured_by_asking() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(|asked| Reply::probabilities(asked.items.iter().map(|_| vec![("sport", 0.8)])));
    let categorizer = builder(&[&server]).ledger(Ledger::open(folder.file()).unwrap()).build().unwrap();
    let copies = (0..6).map(|n| renamed(item(0), format!("{n}")));
    let report = categorizer.categorize(copies.clone()).await;
    assert_eq!((report.categorized(), report.stats.duplicates, report.stats.from_ledger), (6, 5, 0));
    let report = categorizer.categorize(copies).await;
    assert_eq!((report.categorized(), report.stats.requests, report.stats.from_ledger), (6, 0, 6));

    let before = asked_items(&server);
    categorizer.measure_prior().await.unwrap();
    let once = asked_items(&server) - before;
    categorizer.measure_prior().await.unwrap();
    assert_eq!(asked_items(&server) - before, 2 * once);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_leaves_what_was_not_attempted_for_the_next() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(|asked| right(asked).after(Duration::from_secs(1)));
    let categorizer = builder(&[&server]).ledger(Ledger::open(folder.file()).unwrap()).build().unwrap();
    let mut outcomes = categorizer.stream(stream::iter(items(1_000)));
    let stop = outcomes.stop_handle();
    let mut seen = 0;
    while let Some(outcome) = outcomes.next().await {
        seen += 1;
        if seen == 50 {
            stop.stop();
        }
        if let Err(error) = outcome.result {
            assert_eq!(error.kind, ItemErrorKind::NotAttempted);
        }
    }
    let labelled = outcomes.stats().categorized;
    assert_eq!(seen, 1_000);
    assert!((50..1_000).contains(&labelled));
    let report = categorizer.categorize(items(1_000)).await;
    check_all_there(&report, 1_000);
    assert_eq!((report.stats.from_ledger, report.categorized()), (labelled, 1_000));
}

/// The right labels, sure of an item that is asked alone and unsure of those in a pack.
fn sure_alone(asked: &Asked) -> Reply {
    let share = if asked.items.len() == 1 { 0.9 } else { 0.4 };
    Reply::probabilities(asked.items.iter().map(|item| vec![(right_label(item), share), ("other", 0.1)]))
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_asked_again_is_written_once_when_it_is_final() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(sure_alone);
    let ledger = Ledger::open(folder.file()).unwrap();
    let escalation = Escalation::below(0.85).at_most(1.0);
    let categorizer = builder(&[&server]).escalate(escalation).ledger(ledger.clone()).build().unwrap();
    let first = categorizer.categorize(items(30)).await;
    check_all_there(&first, 30);
    assert!(first.stats.escalated >= 5, "{}", first.stats.escalated);
    assert_eq!((ledger.stats().answers, ledger.stats().failures), (30, 0));
    let second = categorizer.categorize(items(30)).await;
    assert_eq!((second.stats.from_ledger, second.stats.requests), (30, 0));
    let first_answers = |report: &slugline::Report| -> Vec<_> {
        report.outcomes.iter().map(|outcome| outcome.result.clone().unwrap().origin.first_answer).collect()
    };
    assert_eq!(first_answers(&first), first_answers(&second));
}

/// A first answer that is all that a stopped run could get is handed on, but the next run asks again.
#[tokio::test(start_paused = true)]
async fn a_stopped_run_keeps_no_answer_that_it_would_have_asked_again() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(|asked| sure_alone(asked).after(Duration::from_secs(1)));
    let ledger = Ledger::open(folder.file()).unwrap();
    let escalation = Escalation::below(0.85).at_most(10.0);
    let categorizer = builder(&[&server]).escalate(escalation).ledger(ledger.clone()).build().unwrap();
    let mut outcomes = categorizer.stream(stream::iter(items(300)));
    let stop = outcomes.stop_handle();
    let mut unsure = 0;
    let mut settled = 0;
    while let Some(outcome) = outcomes.next().await {
        settled += 1;
        if settled == 5 {
            stop.stop();
        }
        unsure += usize::from(outcome.result.is_ok_and(|of| of.confidence.is_some_and(|share| share < 0.85)));
    }
    assert!(unsure > 0, "some were settled with their first answer");
    let again = categorizer.categorize(items(300)).await;
    check_all_there(&again, 300);
    assert!(again.stats.from_ledger > 0);
    for outcome in &again.outcomes {
        let assignment = outcome.result.as_ref().unwrap();
        assert!(assignment.confidence.unwrap() >= 0.85, "{:?}", assignment.origin);
    }
}

/// A server that never answered anything may be wrong itself, so it says nothing of items that lasts.
#[tokio::test(start_paused = true)]
async fn rejections_by_a_server_that_never_answered_are_not_kept() {
    let folder = Folder::new();
    let ledger = Ledger::open(folder.file()).unwrap();
    let broken = ScriptedTransport::new(|_| Reply::status(400, "use another parameter"));
    let report = builder(&[&broken]).ledger(ledger.clone()).build().unwrap().categorize(items(5)).await;
    assert_eq!((report.categorized(), ledger.stats().failures), (0, 0));
    let mended = ScriptedTransport::new(right);
    let report = builder(&[&mended]).ledger(ledger).build().unwrap().categorize(items(5)).await;
    assert_eq!(report.categorized(), 5);
}

/// Calls to a service that lost its endpoints fail as such, not as items, and leave nothing in the ledger; what is known is
/// still answered.
#[tokio::test(start_paused = true)]
async fn a_service_with_a_ledger_says_that_its_endpoints_are_gone() {
    let folder = Folder::new();
    let is_dead = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_dead);
    let server = ScriptedTransport::new(move |asked| {
        if switch.load(Ordering::SeqCst) {
            Reply::error(TransportError::new(TransportErrorKind::Connect, "connection refused"))
        } else {
            right(asked)
        }
    });
    let ledger = Ledger::open(folder.file()).unwrap();
    let categorizer = builder(&[&server]).ledger(ledger.clone()).patience(Duration::from_secs(5)).build().unwrap();
    let service = categorizer.service(ServiceOptions::default().no_deadline());
    service.categorize_one(item(0)).await.unwrap();

    is_dead.store(true, Ordering::SeqCst);
    for round in 1..4 {
        let calls = (0..10).map(|number| service.categorize_one(item(10 * round + number)));
        for lost in join_all(calls).await {
            assert!(matches!(lost, Err(ServiceError::Unavailable(Error::OutOfPatience { .. }))), "{lost:?}");
        }
    }
    assert!(service.categorize_one(item(0)).await.unwrap().result.is_ok());

    is_dead.store(false, Ordering::SeqCst);
    service.categorize_one(item(10)).await.unwrap();
    assert_eq!((ledger.stats().answers, ledger.stats().failures), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn runs_at_the_same_time_share_a_ledger() {
    let folder = Folder::new();
    let server = ScriptedTransport::new(|asked| right(asked).after(Duration::from_millis(50)));
    let ledger = Ledger::open(folder.file()).unwrap();
    let categorizer = builder(&[&server]).ledger(ledger.clone()).build().unwrap();
    let runs = (0..4).map(|_| categorizer.categorize(items(200)));
    for report in futures_util::future::join_all(runs).await {
        check_all_there(&report, 200);
        assert_eq!(report.categorized(), 200);
    }
    assert_eq!(ledger.stats().answers, 200);
}

#[tokio::test(start_paused = true)]
async fn every_policy_hands_on_what_is_written() {
    let policies = [
        SyncPolicy::Group,
        SyncPolicy::Every(Duration::ZERO),
        SyncPolicy::Every(Duration::from_secs(3_600)),
        SyncPolicy::System,
    ];
    for policy in policies {
        let folder = Folder::new();
        let server = ScriptedTransport::new(right);
        let ledger = Ledger::options().sync(policy).open(folder.file()).unwrap();
        let report = builder(&[&server]).ledger(ledger.clone()).build().unwrap().categorize(items(60)).await;
        check_all_there(&report, 60);
        assert_eq!(report.categorized(), 60, "{policy:?}");
        let syncs = ledger.stats().syncs;
        match policy {
            SyncPolicy::Group => assert!(syncs >= 1),
            SyncPolicy::System => assert_eq!(syncs, 0),
            _ => {}
        }
        drop(ledger);
        assert_eq!(stats(&folder.file()).answers, 60);
    }
}

#[test]
fn a_ledger_is_open_once_and_free_when_its_last_clone_is_dropped() {
    let folder = Folder::new();
    let ledger = Ledger::open(folder.file()).unwrap();
    let clone = ledger.clone();
    drop(ledger);
    for _ in 0..2 {
        let error = Ledger::open(folder.file()).unwrap_err();
        assert_eq!((error.kind(), error.status()), (&LedgerErrorKind::InUse, Status::Temporary));
        assert!(error.to_string().contains("night.ledger is in use"), "{error}");
        assert_eq!(Ledger::compact(folder.file()).unwrap_err().kind(), &LedgerErrorKind::InUse);
    }
    #[cfg(unix)]
    {
        let link = folder.0.join("link");
        std::os::unix::fs::symlink(folder.file(), &link).unwrap();
        assert_eq!(Ledger::open(&link).unwrap_err().kind(), &LedgerErrorKind::InUse);
    }
    drop(clone);
    Ledger::open(folder.file()).unwrap();
}

#[test]
fn files_that_are_no_ledger_are_left_as_they_are() {
    let folder = Folder::new();
    let news = folder.0.join("news.jsonl");
    for (content, kind) in [
        ("{\"id\": \"a\"}\n", LedgerErrorKind::NotALedger),
        ("slugline ledger 2\n\u{1}\u{2}", LedgerErrorKind::Newer { format: 2 }),
    ] {
        std::fs::write(&news, content).unwrap();
        let error = Ledger::open(&news).unwrap_err();
        assert_eq!((error.kind(), Error::from(error.clone()).status()), (&kind, Status::Permanent));
        assert_eq!(std::fs::read_to_string(&news).unwrap(), content);
    }
    assert_eq!(Ledger::open(&folder.0).unwrap_err().kind(), &LedgerErrorKind::NotALedger);
    let missing = Ledger::open(folder.0.join("no/such/folder")).unwrap_err();
    assert!(matches!(missing.kind(), LedgerErrorKind::Io { .. }), "{missing}");
}

/// A ledger with ten answers, in a file of its own.
async fn ten_answers(folder: &Folder) -> Vec<u8> {
    let server = ScriptedTransport::new(right);
    let ledger = Ledger::open(folder.file()).unwrap();
    builder(&[&server]).ledger(ledger).build().unwrap().categorize(items(10)).await;
    std::fs::read(folder.file()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_torn_end_costs_one_question_and_the_file_goes_on() {
    let folder = Folder::new();
    let whole = ten_answers(&folder).await;
    let record = (whole.len() - "slugline ledger 1\n".len()) / 10;
    for torn in [1, 5, record / 2, record - 1] {
        std::fs::write(folder.file(), &whole[..whole.len() - torn]).unwrap();
        let server = ScriptedTransport::new(right);
        let ledger = Ledger::open(folder.file()).unwrap();
        assert_eq!((ledger.stats().answers, ledger.stats().torn_bytes), (9, (record - torn) as u64));
        let report = builder(&[&server]).ledger(ledger).build().unwrap().categorize(items(10)).await;
        check_all_there(&report, 10);
        assert_eq!((report.stats.from_ledger, asked_items(&server)), (9, 1));
        let LedgerStats { answers, torn_bytes, damaged_bytes, .. } = stats(&folder.file());
        assert_eq!((answers, torn_bytes, damaged_bytes), (10, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn damage_costs_the_records_it_hits_and_compacting_removes_it() {
    let folder = Folder::new();
    let mut file = ten_answers(&folder).await;
    let len = file.len();
    file[len / 2] ^= 0x10;
    std::fs::write(folder.file(), &file).unwrap();
    let server = ScriptedTransport::new(right);
    let ledger = Ledger::open(folder.file()).unwrap();
    assert_eq!(ledger.stats().answers, 9);
    assert!(ledger.stats().damaged_bytes > 0);
    // A byte that goes bad while the ledger is open is noticed, too.
    file[40] ^= 1;
    std::fs::write(folder.file(), &file).unwrap();
    let report = builder(&[&server]).ledger(ledger).build().unwrap().categorize(items(10)).await;
    check_all_there(&report, 10);
    assert_eq!((report.categorized(), report.stats.from_ledger, asked_items(&server)), (10, 8, 2));

    Ledger::compact(folder.file()).unwrap();
    let LedgerStats { answers, bytes, damaged_bytes, .. } = stats(&folder.file());
    assert_eq!((answers, bytes, damaged_bytes), (10, len as u64, 0));
    let ledger = Ledger::open(folder.file()).unwrap();
    let again = builder(&[&server]).ledger(ledger).build().unwrap().categorize(items(10)).await;
    assert_eq!((again.stats.from_ledger, asked_items(&server)), (10, 2));
}
