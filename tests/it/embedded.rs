//! An engine in the process: by itself, as a first opinion, and as a tier that learns. The engine of most tests is a fake; one
//! test takes the real model from the folder that `SLUGLINE_MODEL_FOLDER` names, if it is set.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::embedded::{Embed, EmbedError, FirstOpinion, LearnedHead, Learning, SentenceModel};
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::testing::{Asked, Reply, ScriptedTransport, SimulatedEngine, SimulatedServer};
use slugline::{Categorizer, EndpointConfig, Engine, Error, ItemErrorKind, Ledger, NewsItem, ServiceOptions, Taxonomy};

use super::support::{builder, check_all_there, items, label_of, right, right_label, taxonomy};

/// A fake embedding model: every word it knows is an axis. It may not know one of the labels, and it may fail.
#[derive(Clone, Debug, Default)]
struct FakeModel {
    unknown: &'static str,
    fails_after: Option<usize>,
    looked_at: Arc<AtomicUsize>,
}

const WORDS: [&str; 6] = ["sport", "business", "other", "matches", "companies", "markets"];

impl Embed for FakeModel {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let before = self.looked_at.fetch_add(texts.len(), Ordering::Relaxed);
        if self.fails_after.is_some_and(|most| before >= most) {
            return Err(EmbedError::Failed { reason: "it is a fake that fails".to_owned() });
        }
        let vector = |text: &&str| {
            let text = text.to_lowercase();
            let has = |word: &&str| {
                **word != *self.unknown && text.split(|c: char| !c.is_alphanumeric()).any(|of| *of == **word)
            };
            WORDS.iter().map(|word| f32::from(u8::from(has(word)))).collect()
        };
        Ok(texts.iter().map(vector).collect())
    }
}

/// Knows nothing of business.
fn half_blind() -> FakeModel {
    FakeModel { unknown: "business", ..FakeModel::default() }
}

fn server() -> ScriptedTransport {
    ScriptedTransport::new(right)
}

fn engine_of(outcome: &slugline::Outcome) -> Engine {
    outcome.result.as_ref().unwrap().origin.engine
}

#[tokio::test(start_paused = true)]
async fn alone_it_settles_every_item_without_an_endpoint() {
    let categorizer = Categorizer::builder(taxonomy()).embedded(FakeModel::default()).build().unwrap();
    let report = categorizer.categorize(items(300)).await;
    check_all_there(&report, 300);
    assert_eq!(report.categorized(), 300);
    assert_eq!(report.stats.requests, 0);
    let origin = &report.outcomes[0].result.as_ref().unwrap().origin;
    assert_eq!((&*origin.endpoint, &*origin.model, origin.attempts), ("embedded", "fake", 0));
    let json = serde_json::to_value(&report.outcomes[0]).unwrap();
    assert_eq!((&json["engine"], &json["model"]), (&"embedding-model".into(), &"fake".into()));
    assert!(json.get("other_script").is_none());
    let stats = report.stats.first_opinion.unwrap();
    assert_eq!((stats.looked_at, stats.settled, stats.other_script), (300, 300, 0));
}

#[test]
fn an_engine_gives_one_label_so_several_are_refused() {
    let several = slugline::AnswerForm::Several(2);
    let opinion = FirstOpinion::of(FakeModel::default());
    let error = builder(&[&server()]).answer_form(several).first_opinion(opinion).build().unwrap_err();
    assert!(error.to_string().contains("gives one label"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn alone_it_marks_items_in_another_script_and_answers_copies_once() {
    let model = FakeModel::default();
    let looked_at = Arc::clone(&model.looked_at);
    let categorizer = Categorizer::builder(taxonomy()).embedded(model).build().unwrap();
    let item = |id: &str, title: &str| NewsItem::new(id, title, "");
    let report = categorizer
        .categorize([item("a", "sport"), item("b", "Выборы"), item("c", "sport"), item("d", "<b></b>")])
        .await;
    let json: Vec<_> = report.outcomes.iter().map(|outcome| serde_json::to_value(outcome).unwrap()).collect();
    assert_eq!(json[1]["other_script"], true);
    assert_eq!(json[2]["duplicate_of"], "a");
    assert_eq!(json[3]["error"]["kind"], "empty");
    assert_eq!(report.stats.first_opinion.unwrap().other_script, 1);
    let texts_of_labels = 3 + 2 + 2 + 1;
    assert_eq!(looked_at.load(Ordering::Relaxed), 2 + texts_of_labels);
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_is_sure_of_is_not_asked() {
    let server = server();
    let opinion = FirstOpinion::of(half_blind()).above(0.9).audit(0.0);
    let report = builder(&[&server]).first_opinion(opinion).build().unwrap().categorize(items(300)).await;
    check_all_there(&report, 300);
    assert_eq!(report.categorized(), 300);
    for (number, outcome) in report.outcomes.iter().enumerate() {
        let expected = match label_of(number) {
            "business" => Engine::LanguageModel,
            _ => Engine::EmbeddingModel { other_script: false },
        };
        assert_eq!(engine_of(outcome), expected, "{}", outcome.id);
    }
    assert!(report.stats.requests <= 36, "packs stay full: {}", report.stats.requests);
    let stats = report.stats.first_opinion.unwrap();
    assert_eq!((stats.looked_at, stats.settled, stats.audited), (300, 200, 0));
    assert_eq!(stats.agreement(), None, "nothing was measured");
}

#[tokio::test(start_paused = true)]
async fn a_random_share_is_asked_at_both_and_says_how_often_they_agree() {
    // The LLM calls every third item of sport something else.
    let server = ScriptedTransport::new(|asked: &Asked| {
        let number = |item: &str| item.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
        Reply::labels(asked.items.iter().map(|item| if number(item) % 9 == 0 { "business" } else { right_label(item) }))
    });
    let opinion = FirstOpinion::of(half_blind()).above(0.9).audit(0.25);
    let report = builder(&[&server]).first_opinion(opinion).build().unwrap().categorize(items(1_800)).await;
    let stats = report.stats.first_opinion.unwrap();
    assert_eq!(stats.settled + stats.audited, 1_200);
    assert!((240..360).contains(&stats.audited), "{stats:?}");
    let (agreement, interval) = stats.agreement().unwrap();
    // Of 600 items of sport 200 are called business, of 600 others none.
    assert!(interval.low < 5.0 / 6.0 && 5.0 / 6.0 < interval.high, "{agreement}");
    let audited = report
        .outcomes
        .iter()
        .enumerate()
        .filter(|(number, outcome)| label_of(*number) != "business" && engine_of(outcome) == Engine::LanguageModel);
    assert_eq!(audited.count() as u64, stats.audited, "the answer of the LLM counts");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_fails_costs_no_item() {
    let server = server();
    let fails = FakeModel { fails_after: Some(100), ..FakeModel::default() };
    let opinion = FirstOpinion::of(fails.clone()).above(0.9).audit(0.0);
    let report = builder(&[&server]).first_opinion(opinion).build().unwrap().categorize(items(300)).await;
    check_all_there(&report, 300);
    assert_eq!(report.categorized(), 300);
    assert!(report.outcomes.iter().any(|outcome| engine_of(outcome) == Engine::LanguageModel));

    fails.looked_at.store(0, Ordering::Relaxed);
    let report = Categorizer::builder(taxonomy()).embedded(fails).build().unwrap().categorize(items(300)).await;
    check_all_there(&report, 300);
    assert!(matches!(report.error, Some(Error::Embedding(EmbedError::Failed { .. }))), "{:?}", report.error);
    assert!(report.categorized() > 0);
    assert!(report.failures().all(|(_, error)| error.kind == ItemErrorKind::NotAttempted));
}

#[tokio::test(start_paused = true)]
async fn answers_of_the_llm_in_a_ledger_come_before_the_engine_whose_own_are_not_kept() {
    let path = std::env::temp_dir().join(format!("slugline-embedded-{}.ledger", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let server = server();
    let ledger = Ledger::open(&path).unwrap();
    let first = builder(&[&server]).ledger(ledger.clone()).build().unwrap().categorize(items(30)).await;
    assert_eq!(first.categorized(), 30);
    let opinion = FirstOpinion::of(half_blind()).above(0.9).audit(0.0);
    let categorizer = builder(&[&server]).ledger(ledger.clone()).first_opinion(opinion).build().unwrap();
    let report = categorizer.categorize(items(60)).await;
    check_all_there(&report, 60);
    assert_eq!((report.categorized(), report.stats.from_ledger), (60, 30));
    assert_eq!(report.stats.first_opinion.as_ref().unwrap().settled, 20);
    assert_eq!(ledger.stats().answers, 30 + 10);
    let again = categorizer.categorize(items(60)).await;
    assert_eq!((again.stats.from_ledger, again.stats.requests), (40, 0));
    drop((ledger, categorizer));
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stopped_run_gives_every_item_its_outcome() {
    let categorizer = Categorizer::builder(taxonomy()).embedded(FakeModel::default()).build().unwrap();
    let mut outcomes = categorizer.stream(stream::iter(items(1_000)));
    let handle = outcomes.stop_handle();
    let mut counts = (0, 0);
    while let Some(outcome) = outcomes.next().await {
        match outcome.result {
            Ok(_) => counts.0 += 1,
            Err(error) => {
                assert_eq!(error.kind, ItemErrorKind::NotAttempted);
                counts.1 += 1;
            }
        }
        if counts.0 == 10 {
            handle.stop();
        }
    }
    assert_eq!(counts.0 + counts.1, 1_000);
    assert!(counts.1 > 700, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_service_can_have_one() {
    let categorizer = Categorizer::builder(taxonomy()).embedded(FakeModel::default()).build().unwrap();
    let service = categorizer.service(ServiceOptions::default());
    let outcome = service.categorize_one(super::support::item(4)).await.unwrap();
    assert_eq!(outcome.result.unwrap().category.as_str(), label_of(4));
}

#[tokio::test]
async fn it_does_not_hold_the_runtime_up() {
    /// A fake that waits until the runtime has done something else.
    struct Waits(Arc<std::sync::Barrier>);
    impl Embed for Waits {
        fn name(&self) -> &'static str {
            "waits"
        }
        fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            self.0.wait();
            Ok(vec![vec![1.0]; texts.len()])
        }
    }
    // One wait for the labels, one for the item: a runtime of one thread that were held up would never come to either.
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let categorizer = Categorizer::builder(taxonomy()).embedded(Waits(Arc::clone(&barrier))).build().unwrap();
    let other = tokio::task::spawn_blocking(move || {
        barrier.wait();
        barrier.wait();
    });
    let report = categorizer.categorize(items(1)).await;
    other.await.unwrap();
    assert_eq!(report.categorized(), 1);
}

/// Labels as the title says until the item with this number, and after it those of the next category.
fn drifting(at: usize) -> ScriptedTransport {
    ScriptedTransport::new(move |asked: &Asked| {
        let label = |item: &String| {
            let number: usize = item.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            if number < at { label_of(number) } else { label_of(number + 1) }
        };
        Reply::labels(asked.items.iter().map(label)).after(Duration::from_millis(50))
    })
}

#[tokio::test(start_paused = true)]
async fn a_head_learns_takes_its_items_and_hands_them_back_when_the_stream_drifts() {
    let server = drifting(3_000);
    let learning = Learning::to(0.9);
    let opinion = FirstOpinion::of(FakeModel::default()).audit(0.1).learn(learning);
    let categorizer = builder(&[&server]).first_opinion(opinion).build().unwrap();
    assert_eq!(categorizer.learned_head(), None);

    let report = categorizer.categorize(items(900)).await;
    let head = report.stats.first_opinion.unwrap().head.unwrap();
    assert_eq!(head.off_because.unwrap(), "900 of at least 1000 answers are there");

    let mut outcomes = categorizer.stream(stream::iter((900..6_000).map(super::support::item)));
    let (mut by_head_before, mut wrong_after, mut saved) = (0, 0, None);
    while let Some(outcome) = outcomes.next().await {
        let number: usize = outcome.id.rsplit('-').next().unwrap().parse().unwrap();
        if engine_of(&outcome) == Engine::LearnedHead {
            by_head_before += usize::from(number < 3_000);
            let category = &outcome.result.as_ref().unwrap().category;
            wrong_after += usize::from(number >= 3_000 && category.as_str() == label_of(number));
        }
        if number == 2_500 {
            saved = categorizer.learned_head();
        }
    }
    // It comes on soon after 1,000 answers, and then takes all but the audit of the next 1,900.
    assert!((1_400..1_900).contains(&by_head_before), "{by_head_before}");
    // With a tenth audited, 16 disagreements are seen within a few hundred items.
    assert!((100..700).contains(&wrong_after), "{wrong_after}");
    let stats = outcomes.stats().first_opinion.unwrap();
    let head = stats.head.unwrap();
    assert_eq!(head.drifts, 1);
    assert!(head.is_on, "it has learned anew: {head:?}");
    let saved: LearnedHead = saved.unwrap();
    assert_ne!(categorizer.learned_head(), Some(saved.clone()));
    assert_eq!(stats.settled, 0, "the nearest label settles nothing where that is not wanted");

    // What was learned can be begun with.
    let opinion = || FirstOpinion::of(FakeModel::default()).learn(Learning::to(0.9).head(saved.clone()));
    let report = builder(&[&server]).first_opinion(opinion()).build().unwrap().categorize(items(100)).await;
    check_all_there(&report, 100);
    assert!(report.stats.first_opinion.unwrap().settled_by_head > 80);
    let other = Taxonomy::load("categories/ag-news.toml").unwrap();
    let error = Categorizer::builder(other).endpoint("http://e/v1").model("m").first_opinion(opinion()).build();
    assert!(error.unwrap_err().to_string().contains("of another taxonomy"));
}

/// Two simulated engines with a tenth of their labels wrong: the second answers from some item on, and calls sport other.
#[derive(Debug)]
struct Drifting {
    engine: SimulatedEngine,
    has_drifted: Arc<AtomicBool>,
}

impl Transport for Drifting {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        Box::pin(async move {
            let mut response = self.engine.send(request).await?;
            if self.has_drifted.load(Ordering::Relaxed) {
                let body = String::from_utf8_lossy(&response.body).replace("sport", "other");
                response.body = body.into_bytes().into();
            }
            Ok(response)
        })
    }
}

/// `cargo test --test it learned_from_noisy -- --nocapture` prints what it takes.
#[tokio::test(start_paused = true)]
async fn a_head_learned_from_noisy_answers_spares_requests_and_a_drift_is_caught() {
    const DRIFT_AT: u64 = 4_000;
    const TARGET: f64 = 0.85;
    let engine = SimulatedServer::builder().noise(0.1).logprobs(false).engine();
    let has_drifted = Arc::new(AtomicBool::new(false));
    let transport = Drifting { engine, has_drifted: Arc::clone(&has_drifted) };
    let opinion = FirstOpinion::of(FakeModel::default()).learn(Learning::to(TARGET));
    let categorizer = Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://simulated").transport(transport))
        .model("simulated")
        // By chance the answers held out with seed 1 agree in .877 alone, which takes more of them.
        .seed(2)
        .first_opinion(opinion)
        .build()
        .unwrap();
    let words = ["matches", "companies markets", "other"];
    let source = stream::iter(0..8_000_u64).map(|number| {
        has_drifted.store(number >= DRIFT_AT, Ordering::Relaxed);
        NewsItem::new(number.to_string(), format!("{} {number}", words[(number % 3) as usize]), "")
    });
    let mut outcomes = categorizer.stream(source);
    let (mut settled, mut requests, mut rates) = (0_u64, 0, Vec::new());
    let (mut before_drift, mut wrong_after) = (None, 0);
    while let Some(outcome) = outcomes.next().await {
        settled += 1;
        let is_sport = outcome.id.parse::<u64>().unwrap().is_multiple_of(3);
        let is_by_head = engine_of(&outcome) == Engine::LearnedHead;
        let category = outcome.result.unwrap().category;
        wrong_after += u64::from(is_by_head && is_sport && settled > DRIFT_AT && category.as_str() == "sport");
        if settled.is_multiple_of(500) {
            let stats = outcomes.stats();
            let head = stats.first_opinion.unwrap().head.unwrap();
            let rate = 500.0 / (stats.requests - requests).max(1) as f64;
            requests = stats.requests;
            println!(
                "{settled:>5} items, {rate:>5.1} items a request, agreement {:?}, {:?}",
                head.agreement(),
                head.off_because
            );
            rates.push(rate);
            if settled == DRIFT_AT - 500 {
                before_drift = Some(head);
            }
        }
    }
    let before_drift = before_drift.unwrap();
    assert!(before_drift.is_on && before_drift.drifts == 0, "{before_drift:?}");
    let (_, interval) = before_drift.agreement().unwrap();
    assert!(interval.high > TARGET, "the audit does not contradict the target: {interval:?}");
    assert!(rates[0] < 3.1 && rates[6] > 10.0, "{rates:?}");
    let head = outcomes.stats().first_opinion.unwrap().head.unwrap();
    println!("{wrong_after} items of sport were labelled as before the drift until it was seen");
    assert_eq!(head.drifts, 1, "{head:?}");
    assert!(wrong_after < 700, "{wrong_after}");
    assert!(head.is_on && rates[15] > 10.0, "it has learned anew: {head:?}");
}

#[tokio::test(start_paused = true)]
async fn the_seed_and_the_text_decide_what_is_audited() {
    let run = async |seed: u64, in_runs_of: usize| {
        let server = server();
        let opinion = FirstOpinion::of(half_blind()).above(0.9).audit(0.2);
        let categorizer = builder(&[&server]).seed(seed).first_opinion(opinion).build().unwrap();
        let mut engines = Vec::new();
        for items in items(600).chunks(in_runs_of) {
            let report = categorizer.categorize(items.to_vec()).await;
            engines.extend(report.outcomes.iter().map(engine_of));
        }
        engines
    };
    let one = run(1, 600).await;
    assert_eq!(run(1, 600).await, one);
    assert_eq!(run(1, 2).await, one, "however the items come");
    let other = run(2, 600).await;
    assert!(one.iter().zip(&other).filter(|(a, b)| a != b).count() > 50, "another seed, another sample");
    let sure = |engines: &[Engine]| engines.iter().filter(|engine| **engine != Engine::LanguageModel).count();
    assert!(sure(&one) > 150 && sure(&other) > 150);
}

/// What is learned in many small runs is learned as in a long one, and answers that come after the last look count.
#[tokio::test(start_paused = true)]
async fn small_runs_learn_as_a_long_one_does() {
    for in_runs_of in [1_000, 5] {
        let server = server();
        let opinion = FirstOpinion::of(FakeModel::default()).learn(Learning::to(0.8).least_answers(1_000));
        let categorizer = builder(&[&server]).first_opinion(opinion).build().unwrap();
        for items in items(1_000).chunks(in_runs_of) {
            categorizer.categorize(items.to_vec()).await;
        }
        let head = categorizer.learned_head().expect("a head");
        assert_eq!(head.answers(), 1_000);
        let (agreed, held_out) = head.held_out();
        assert!(held_out > 50 && agreed > held_out * 8 / 10, "{agreed} of {held_out}");
    }
}

#[tokio::test]
async fn the_real_model_labels_the_bundled_items() {
    let Ok(folder) = std::env::var("SLUGLINE_MODEL_FOLDER") else {
        println!("skipped: SLUGLINE_MODEL_FOLDER names no folder (examples/embedded/fetch-model.sh makes one)");
        return;
    };
    let model = SentenceModel::open(&folder).unwrap();
    let near =
        model.embed(&["The striker scored twice", "A late goal won the match", "Shares fell on Monday"]).unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!((dot(&near[0], &near[0]) - 1.0).abs() < 1e-3);
    assert!(dot(&near[0], &near[1]) > dot(&near[0], &near[2]));
    // A text has the same vector whatever its neighbours are, and whether one core runs it or all.
    assert_eq!(model.embed(&["A late goal won the match"]).unwrap()[0], near[1]);
    let long = "The minister resigned after the vote. ".repeat(40);
    let among = model.embed(&[&*long, "A late goal won the match", "", &long, "Shares fell on Monday"]).unwrap();
    assert!(dot(&among[1], &near[1]) > 0.9999 && dot(&among[4], &near[2]) > 0.9999);
    assert_eq!(among[0], among[3]);
    // What is cut is not read, and what was read before a cut still counts.
    let cut = model.clone().max_tokens(16).embed(&[&*long]).unwrap().remove(0);
    assert!(dot(&cut, &among[0]) < 0.9999 && dot(&cut, &among[0]) > 0.8);

    for (text, expected) in [
        ("Striker scores twice as the club wins the league cup final", "sports"),
        ("Shares fall after the bank reports lower quarterly profit", "business"),
        ("Scientists release new software for the space telescope", "technology"),
        ("President condemns the attack on peace talks near the border", "world"),
    ] {
        let taxonomy = Taxonomy::load("categories/ag-news.toml").unwrap();
        let categorizer = Categorizer::builder(taxonomy).embedded(model.clone()).build().unwrap();
        let report = categorizer.categorize([NewsItem::new("a", text, "")]).await;
        assert_eq!(report.outcomes[0].result.as_ref().unwrap().category.as_str(), expected, "{text}");
    }

    let lines = include_str!("../../examples/quickstart/items.jsonl").lines();
    let taxonomy = Taxonomy::load("categories/newsroom.toml").unwrap();
    let labelled: Vec<(NewsItem, String)> = lines
        .map(|line| {
            let label = serde_json::from_str::<serde_json::Value>(line).unwrap()["label"].as_str().unwrap().to_owned();
            (serde_json::from_str(line).unwrap(), label)
        })
        .collect();
    let categorizer = Categorizer::builder(taxonomy).embedded(model).build().unwrap();
    let report = categorizer.categorize(labelled.iter().map(|(item, _)| item.clone())).await;
    let of_script = |other: bool| {
        let is_right = |(outcome, (_, label)): (&slugline::Outcome, &(NewsItem, String))| {
            let assignment = outcome.result.as_ref().unwrap();
            (assignment.origin.engine == Engine::EmbeddingModel { other_script: other })
                .then(|| usize::from(assignment.category.as_str() == label))
        };
        let right: Vec<usize> = report.outcomes.iter().zip(&labelled).filter_map(is_right).collect();
        (right.iter().sum::<usize>(), right.len())
    };
    let ((latin, of_latin), (other, of_other)) = (of_script(false), of_script(true));
    println!("right: {latin} of {of_latin} in Latin script, {other} of {of_other} in others");
    assert!(latin * 2 > of_latin, "more than half of the items in Latin script");
}
