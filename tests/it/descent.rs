//! The walk through a tree: paths, packs, ends, and what becomes of failures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use proptest::prelude::*;
use slugline::server::Request;
use slugline::testing::{Asked, Faults, Latency, Reply, ScriptedTransport, SimulatedEngine, SimulatedServer};
use slugline::{
    Categorizer, CategorizerBuilder, Category, Descent, EndpointConfig, ItemErrorKind, NewsItem, Outcome, PathEnd,
    ServiceOptions, Stats, Taxonomy,
};

use crate::categories::shipped;
use crate::props::{block_on, cases};

/// Two levels below sport, one below weather, and a fallback.
fn tree() -> Taxonomy {
    let below = |id: &str, parent: &str| Category::new(id, id.to_uppercase(), "").with_parent(parent);
    Taxonomy::new(
        "tree",
        "1",
        [
            Category::new("sport", "Sport", "Matches."),
            below("ball", "sport").with_name_in("de", "Ballsport"),
            below("tennis", "ball"),
            below("golf", "ball"),
            below("chess", "sport"),
            Category::new("weather", "Weather", "Storms."),
            below("snow", "weather"),
            Category::new("other", "Other", "None of these.").as_fallback(),
        ],
    )
    .unwrap()
}

fn walking(server: &ScriptedTransport, descent: Descent) -> CategorizerBuilder {
    let endpoint = EndpointConfig::new("http://0").transport(server.clone());
    Categorizer::builder(tree()).endpoint(endpoint).model("m").seed(1).descend(descent)
}

/// The labels that a request lists, the choice to stay last.
fn labels(asked: &Asked) -> Vec<String> {
    let Request::Chat(request) = &asked.request else { panic!("no chat request") };
    let prefix: String = serde_json::from_str(request.messages.0.content.get()).unwrap();
    let listed = prefix.lines().filter_map(|line| Some(line.strip_prefix("- ")?.split_once(": ")?.0.to_owned()));
    listed.collect()
}

/// The label that the words of an item name, else the last of the list.
fn named<'a>(labels: &'a [String], item: &str) -> &'a str {
    let is_named = |label: &&String| item.split_whitespace().any(|word| word == *label);
    // The category itself is named as well, but its children are meant.
    labels[..labels.len() - 1].iter().find(is_named).unwrap_or(&labels[labels.len() - 1])
}

/// A server that follows the words of the items.
fn follows_words() -> ScriptedTransport {
    ScriptedTransport::new(|asked| {
        let labels = labels(asked);
        Reply::labels(asked.items.iter().map(|item| named(&labels, item))).after(Duration::from_millis(50))
    })
}

fn steps(outcome: &Outcome) -> Vec<&str> {
    outcome.path.as_ref().unwrap().steps.iter().map(|step| step.category.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_handle_counts_what_all_runs_of_a_walk_do() {
    let server = follows_words();
    let categorizer = walking(&server, Descent::default()).build().unwrap();
    let items = (0..60).map(|n| NewsItem::new(n.to_string(), format!("sport ball tennis {n}"), ""));
    let outcomes = categorizer.stream(stream::iter(items));
    let handle = outcomes.stats_handle();
    let run = tokio::spawn(outcomes.count());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let now = handle.snapshot();
    assert!(now.in_flight > 0 && now.requests > 0 && now.items > now.categorized, "{now:?}");
    assert_eq!(run.await.unwrap(), 60);
    let end = handle.snapshot();
    let requests = server.asked().len() as u64;
    assert_eq!((end.categorized, end.requests, end.answered), (60, requests, requests));
    assert_eq!((end.by_endpoint[0].total.requests, end.last_minute.requests, end.in_flight), (requests, requests, 0));
    assert_eq!(end.levels.iter().map(|level| level.requests).sum::<u64>(), requests);
    assert_eq!(end.valid_answers, 180, "three levels");
    assert!(end.item_latency.count == 60 && end.item_latency.p50_ms >= 150, "{:?}", end.item_latency);
}

#[tokio::test(start_paused = true)]
async fn every_item_goes_as_deep_as_its_words() {
    let server = follows_words();
    let categorizer = walking(&server, Descent::default()).output_language("de").build().unwrap();
    let texts = ["sport ball tennis", "sport ball", "sport", "weather snow", "nothing", "sport chess"];
    let items = (0..).zip(texts).map(|(n, text)| NewsItem::new(format!("item-{n}"), format!("{text} {n}"), ""));
    let report = categorizer.categorize(items).await;
    let found: Vec<_> = report
        .outcomes
        .iter()
        .map(|outcome| {
            let assignment = outcome.result.as_ref().unwrap();
            (assignment.category.as_str(), &*assignment.name, outcome.path.as_ref().unwrap().end.as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("tennis", "TENNIS", "leaf"),
            ("ball", "Ballsport", "stays"),
            ("sport", "Sport", "stays"),
            ("snow", "SNOW", "leaf"),
            ("other", "Other", "leaf"),
            ("chess", "CHESS", "leaf"),
        ]
    );
    assert_eq!(steps(&report.outcomes[0]), ["sport", "ball", "tennis"]);
    assert_eq!((report.stats.categorized, report.stats.fallback), (6, 1));
    let line = serde_json::to_value(&report.outcomes[1]).unwrap();
    assert_eq!(line["path"], serde_json::json!({"steps": [["sport", null], ["ball", null]], "end": "stays"}));

    let levels: Vec<_> =
        report.stats.levels.iter().map(|of| (of.level, of.nodes, of.items, of.leaf, of.stays)).collect();
    assert_eq!(levels, [(1, 1, 6, 1, 0), (2, 2, 5, 2, 1), (3, 1, 2, 1, 1)]);
    assert_eq!(report.stats.levels.iter().map(|of| of.requests).sum::<u64>(), server.asked().len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_level_lists_the_children_and_itself_below_the_path() {
    let server = follows_words();
    let categorizer = walking(&server, Descent::default()).build().unwrap();
    categorizer.categorize([NewsItem::new("a", "sport ball golf", "")]).await;
    let asked = server.asked();
    let lists: Vec<_> = asked.iter().map(labels).collect();
    let expected = [vec!["sport", "weather", "other"], vec!["ball", "chess", "sport"], vec!["tennis", "golf", "ball"]];
    assert_eq!(lists, expected);
    let Request::Chat(request) = &asked[2].request else { panic!("no chat request") };
    insta::assert_snapshot!(
        "prefix_of_a_level",
        serde_json::from_str::<String>(request.messages.0.content.get()).unwrap()
    );
    assert!(categorizer.prefix().text().contains("\n- weather: Weather. Storms.\n"));
    assert_eq!(categorizer.taxonomy().len(), 8);
}

/// Gives the first label of the list this probability, and the rest to the last.
fn first_with(share: f64) -> ScriptedTransport {
    ScriptedTransport::new(move |asked| {
        let labels = labels(asked);
        let one = vec![(labels[0].as_str(), share), (labels[labels.len() - 1].as_str(), 1.0 - share)];
        Reply::probabilities(asked.items.iter().map(|_| one.clone()))
    })
}

#[tokio::test(start_paused = true)]
async fn confidences_multiply_along_the_path() {
    let server = first_with(0.8);
    let categorizer = walking(&server, Descent::default()).build().unwrap();
    let report = categorizer.categorize([NewsItem::new("a", "x", "")]).await;
    let assignment = report.outcomes[0].result.as_ref().unwrap();
    assert_eq!(assignment.category.as_str(), "tennis");
    assert!((assignment.confidence.unwrap() - 0.512).abs() < 1e-4, "{:?}", assignment.confidence);
    let [(stays, share)] = &assignment.runners_up[..] else { panic!("one runner-up") };
    assert!(stays.as_str() == "ball" && (share - 0.128).abs() < 1e-4, "{stays} {share}");
    assert_eq!(assignment.origin.attempts, 3);
}

#[tokio::test(start_paused = true)]
async fn an_item_stops_where_no_child_is_probable_enough() {
    // Sure of sport, then of nothing.
    let server = ScriptedTransport::new(|asked| {
        let labels = labels(asked);
        let share = if labels[0] == "sport" { 0.9 } else { 0.45 };
        let rest = (1.0 - share) / (labels.len() - 1) as f64;
        let shares: Vec<_> =
            labels.iter().enumerate().map(|(at, label)| (label.as_str(), if at == 0 { share } else { rest })).collect();
        Reply::probabilities(asked.items.iter().map(|_| shares.clone()))
    });
    let items = || [NewsItem::new("a", "x", "")];
    let report = walking(&server, Descent::default().stop_below(0.6)).build().unwrap().categorize(items()).await;
    let path = report.outcomes[0].path.as_ref().unwrap();
    assert_eq!(report.outcomes[0].result.as_ref().unwrap().category.as_str(), "sport");
    assert_eq!(path.end, PathEnd::BelowThreshold { best: "ball".into(), confidence: 0.45 });

    let report = walking(&server, Descent::default().stop_below(0.95)).build().unwrap().categorize(items()).await;
    let error = report.outcomes[0].result.as_ref().unwrap_err();
    assert_eq!((error.kind, error.attempts), (ItemErrorKind::BelowThreshold, 1));
    assert!(steps(&report.outcomes[0]).is_empty());
    assert_eq!(report.stats.levels[0].below_threshold, 1);
}

#[tokio::test(start_paused = true)]
async fn a_beam_comes_back_from_a_wrong_turn() {
    // Weather looks a little better than sport at the top, and then nothing below it fits well.
    let script = |asked: &Asked| {
        let labels = labels(asked);
        let shares: Vec<(&str, f64)> = match labels[0].as_str() {
            "sport" => vec![("weather", 0.5), ("sport", 0.45), ("other", 0.05)],
            "snow" => vec![("snow", 0.55), ("weather", 0.45)],
            "ball" => vec![("chess", 0.95), ("sport", 0.05)],
            _ => panic!("{labels:?}"),
        };
        Reply::probabilities(asked.items.iter().map(|_| shares.clone()))
    };
    let greedy = walking(&ScriptedTransport::new(script), Descent::default()).build().unwrap();
    let beam = walking(&ScriptedTransport::new(script), Descent::default().beam(2)).build().unwrap();
    let category = async |categorizer: Categorizer| {
        let report = categorizer.categorize([NewsItem::new("a", "x", "")]).await;
        let assignment = report.outcomes[0].result.clone().unwrap();
        (assignment.category.to_string(), assignment.confidence.unwrap(), assignment.runners_up)
    };
    let (label, share, _) = category(greedy).await;
    assert!(label == "snow" && (share - 0.275).abs() < 1e-4, "{label} {share}");
    let (label, share, runners_up) = category(beam).await;
    assert!(label == "chess" && (share - 0.4275).abs() < 1e-4, "{label} {share}");
    assert_eq!(runners_up[0].0.as_str(), "snow");
}

#[tokio::test(start_paused = true)]
async fn a_runner_up_that_fails_does_not_fail_the_item() {
    let server = ScriptedTransport::new(|asked: &Asked| {
        let labels = labels(asked);
        let shares: Vec<(&str, f64)> = match labels[0].as_str() {
            "sport" => vec![("weather", 0.6), ("sport", 0.35), ("other", 0.05)],
            "snow" => vec![("snow", 0.5), ("weather", 0.5)],
            // It has one factor less than the other path then, and so looks more probable.
            _ => return Reply::status(400, "cannot process this input"),
        };
        Reply::probabilities(asked.items.iter().map(|_| shares.clone()))
    });
    let beam = walking(&server, Descent::default().beam(2)).build().unwrap();
    let report = beam.categorize([NewsItem::new("a", "x", "")]).await;
    let given = report.outcomes[0].result.as_ref().map(|assignment| assignment.category.to_string());
    assert!(matches!(given.as_deref(), Ok("snow" | "weather")), "{given:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_level_keeps_the_path_so_far_and_the_error() {
    let server = ScriptedTransport::new(|asked| {
        let labels = labels(asked);
        if labels.last().is_some_and(|label| label == "ball") && asked.items.iter().any(|item| item.contains("poison"))
        {
            return Reply::status(400, "cannot process this input");
        }
        Reply::labels(asked.items.iter().map(|item| named(&labels, item)))
    });
    let categorizer = walking(&server, Descent::default()).build().unwrap();
    let items = ["poison sport ball golf", "sport ball golf", "sport chess"];
    let report = categorizer.categorize(items.map(|text| NewsItem::new(text, text, ""))).await;
    let failed = &report.outcomes[0];
    assert_eq!(failed.result.as_ref().unwrap_err().kind, ItemErrorKind::Rejected);
    assert_eq!((steps(failed), &failed.path.as_ref().unwrap().end), (vec!["sport", "ball"], &PathEnd::Failed));
    assert_eq!(report.categorized(), 2);
    assert_eq!(report.stats.levels[2].failed, 1);
}

#[test]
fn only_what_is_too_long_for_one_prompt_is_walked_unasked() {
    let server = follows_words();
    let endpoint = || EndpointConfig::new("http://0").transport(server.clone());
    let list = Categorizer::builder(tree()).endpoint(endpoint()).model("m").build().unwrap();
    assert!(list.prefix().text().contains("- tennis: TENNIS."));
    for name in ["iptc-media-topics", "iab-news"] {
        let walked = Categorizer::builder(shipped()[name].clone()).endpoint(endpoint()).model("m").build().unwrap();
        assert!(walked.prefix().tokens() < 1_200, "{name}: {}", walked.prefix().tokens());
    }
    let error = walking(&server, Descent::default().beam(9).stop_below(f32::NAN)).build().unwrap_err().to_string();
    assert!(error.contains("1 to 4 paths") && error.contains("0 to 1"), "{error}");
    let error = walking(&server, Descent::default()).batch().unwrap_err().to_string();
    assert!(error.contains("a walk through a tree needs answers"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_walk_settles_everything() {
    let server = follows_words();
    let categorizer = walking(&server, Descent::default()).build().unwrap();
    let items = stream::iter((0..500).map(|n| NewsItem::new(n.to_string(), format!("sport ball golf {n}"), "")));
    let mut outcomes = categorizer.stream(items);
    let mut seen = BTreeSet::new();
    while let Some(outcome) = outcomes.next().await {
        seen.insert(outcome.index);
        if seen.len() == 20 {
            outcomes.stop_handle().stop();
        }
    }
    assert_eq!(seen.len(), 500);
    assert!(matches!(outcomes.error(), Some(slugline::Error::Stopped)));
    let stats = outcomes.stats();
    assert_eq!(stats.categorized + stats.failed["not-attempted"], 500);
    assert!(stats.categorized >= 20 && stats.failed["not-attempted"] > 300, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_ends_the_walk_and_loses_nothing() {
    let server = ScriptedTransport::new(|asked| {
        let labels = labels(asked);
        if asked.number > 20 {
            return Reply::status(500, "dead");
        }
        Reply::labels(asked.items.iter().map(|item| named(&labels, item)))
    });
    let categorizer = walking(&server, Descent::default()).patience(Duration::from_secs(60)).build().unwrap();
    let report =
        categorizer.categorize((0..300).map(|n| NewsItem::new(n.to_string(), format!("sport ball {n}"), ""))).await;
    assert_eq!(report.outcomes.len(), 300);
    assert_eq!(report.error.unwrap().kind(), slugline::ErrorKind::OutOfPatience);
    let not_attempted = report.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err());
    assert!(not_attempted.clone().all(|error| error.kind == ItemErrorKind::NotAttempted));
    assert!(not_attempted.count() > 200);
}

/// A canary that takes long outlives the pack that it was sent for; its place must not be lost with it.
#[tokio::test(start_paused = true)]
async fn slow_canaries_cost_no_place() {
    let mut failed = BTreeSet::new();
    let server = ScriptedTransport::new(move |asked| {
        let labels = labels(asked);
        let is_canary = !asked.items[0].contains("item");
        if !is_canary && asked.number > 0 && failed.insert((labels.clone(), asked.items.clone())) {
            return Reply::status(500, "once");
        }
        let reply = Reply::labels(asked.items.iter().map(|item| named(&labels, item)));
        if is_canary { reply.after(Duration::from_secs(8)) } else { reply }
    });
    let categorizer = walking(&server, Descent::default()).concurrency(2).max_concurrency(2).build().unwrap();
    let items = stream::iter(0..12).then(|n| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        NewsItem::new(n.to_string(), format!("item sport ball golf {n}"), "")
    });
    let walk = categorizer.stream(Box::pin(items)).collect::<Vec<_>>();
    let outcomes = tokio::time::timeout(Duration::from_secs(3_600), walk).await.expect("the walk ends");
    assert_eq!(outcomes.iter().filter(|outcome| outcome.result.is_ok()).count(), 12);
    let canaries = server.asked().iter().filter(|asked| !asked.items[0].contains("item")).count();
    assert!(canaries > 4, "{canaries} canaries");
}

#[tokio::test(start_paused = true)]
async fn a_service_walks_too() {
    let server = follows_words();
    let service = walking(&server, Descent::default()).build().unwrap().service(ServiceOptions::default());
    let ask = |n: usize| {
        let service = service.clone();
        async move { service.categorize_one(NewsItem::new(n.to_string(), format!("sport ball golf {n}"), "")).await }
    };
    let outcomes = futures_util::future::join_all((0..30).map(ask)).await;
    assert!(outcomes.iter().all(|outcome| steps(outcome.as_ref().unwrap()) == ["sport", "ball", "golf"]));
    service.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_walk_with_the_ledger_asks_nothing() {
    let path = std::env::temp_dir().join(format!("slugline-descent-{}.ledger", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let server = follows_words();
    let items = || (0..40).map(|n| NewsItem::new(n.to_string(), format!("sport ball golf {n}"), ""));
    let categorizer =
        walking(&server, Descent::default()).ledger(slugline::Ledger::open(&path).unwrap()).build().unwrap();
    let first = categorizer.categorize(items()).await;
    let asked = server.asked().len();
    let second = categorizer.categorize(items()).await;
    assert_eq!((second.stats.from_ledger, server.asked().len()), (40, asked));
    let paths = |report: &slugline::Report| report.outcomes.iter().map(|of| of.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&first), paths(&second));
    drop(categorizer);
    std::fs::remove_file(&path).unwrap();
}

/// A tree in which each category has a word of its own, and items made of the words along a path: a simulated server then
/// follows the path.
fn tree_of(parents: &[usize]) -> Taxonomy {
    let id = |n: usize| format!("c{}", letters(n));
    let category = |(n, parent): (usize, &usize)| {
        let category = Category::new(id(n), format!("N{}", letters(n)), format!("About {}.", word(n)));
        if *parent < n { category.with_parent(id(*parent)) } else { category }
    };
    Taxonomy::new("random", "1", parents.iter().enumerate().map(category)).unwrap()
}

fn letters(n: usize) -> String {
    let letter = |digit: usize| char::from(b'a' + (digit % 26) as u8);
    [letter(n / 676), letter(n / 26), letter(n)].iter().collect()
}

fn word(n: usize) -> String {
    format!("qx{0}{0}", letters(n))
}

/// The categories on the way to one.
fn path_to(parents: &[usize], n: usize) -> Vec<usize> {
    let mut path = vec![n];
    while parents[path[path.len() - 1]] < path[path.len() - 1] {
        path.push(parents[path[path.len() - 1]]);
    }
    path.reverse();
    path
}

fn random_tree() -> impl Strategy<Value = Vec<usize>> {
    // A parent is an earlier category; a number that is not earlier means the top level. The first two are there.
    proptest::collection::vec(0_usize..60, 3..60).prop_map(|mut parents| {
        (parents[0], parents[1]) = (0, 1);
        parents.iter_mut().enumerate().skip(2).for_each(|(n, parent)| *parent %= n + 2);
        parents.iter_mut().enumerate().for_each(|(n, parent)| *parent = (*parent).min(n));
        parents
    })
}

fn simulated(engine: &SimulatedEngine, taxonomy: Taxonomy, pack_size: usize, descent: Descent) -> Categorizer {
    let endpoint = EndpointConfig::new("http://simulated").transport(engine.clone());
    let builder = Categorizer::builder(taxonomy).endpoint(endpoint).model("simulated").descend(descent);
    builder.pack_size(pack_size).seed(3).build().unwrap()
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn every_path_is_a_path_of_the_tree_and_nothing_is_lost(
        parents in random_tree(),
        targets in proptest::collection::vec(any::<prop::sample::Index>(), 1..120),
        (pack_size, beam, faults) in (1_usize..6, 1_usize..4, prop_oneof![Just(0.0), Just(0.15)]),
        stop_below in prop_oneof![Just(0.0_f32), Just(0.5)],
    ) {
        let taxonomy = tree_of(&parents);
        let latency = Latency::new(10_000.0, Duration::from_millis(2), Duration::ZERO);
        let engine = SimulatedServer::builder().faults(Faults::mix(faults)).seed(5).latency(latency).engine();
        let descent = Descent::default().beam(beam).stop_below(stop_below);
        let categorizer = simulated(&engine, taxonomy.clone(), pack_size, descent);
        let targets: Vec<_> = targets.iter().map(|at| at.index(parents.len())).collect();
        let item = |(n, target): (usize, &usize)| {
            let words: Vec<_> = path_to(&parents, *target).into_iter().map(word).collect();
            NewsItem::new(n.to_string(), format!("{} {n}", words.join(" ")), "")
        };
        let report = block_on(categorizer.categorize(targets.iter().enumerate().map(item).collect::<Vec<_>>()));
        prop_assert_eq!(report.outcomes.len(), targets.len());
        for (n, outcome) in report.outcomes.iter().enumerate() {
            prop_assert_eq!((outcome.index, &outcome.id), (n as u64, &n.to_string()));
            let path = outcome.path.as_ref().unwrap();
            if let Some(last) = path.steps.last() {
                let ids: Vec<_> = path.steps.iter().map(|step| &step.category).collect();
                let true_path: Vec<_> = taxonomy.path(&last.category).into_iter().map(|category| &category.id).collect();
                prop_assert_eq!(ids, true_path);
            }
            let is_leaf = path.steps.last().is_some_and(|last| taxonomy.children(Some(&last.category)).next().is_none());
            prop_assert_eq!(is_leaf, path.end == PathEnd::Leaf);
            match &outcome.result {
                Ok(assignment) => {
                    prop_assert_eq!(Some(&assignment.category), path.steps.last().map(|step| &step.category));
                    if stop_below == 0.0 && beam == 1 {
                        let target = tree_id(&taxonomy, targets[n]);
                        prop_assert_eq!(&assignment.category, &target, "the words say where it belongs");
                    }
                }
                Err(error) => prop_assert!(
                    path.end == PathEnd::Failed || (error.kind == ItemErrorKind::BelowThreshold && path.steps.is_empty())
                ),
            }
        }
        check_levels(&report.stats, targets.len() as u64, beam);
    }
}

fn tree_id(taxonomy: &Taxonomy, n: usize) -> slugline::CategoryId {
    taxonomy.categories().nth(n).unwrap().id.clone()
}

/// Every item ends at one level, and goes on to the next until then.
fn check_levels(stats: &Stats, items: u64, beam: usize) {
    let ends = |of: &slugline::LevelStats| of.leaf + of.stays + of.below_threshold + of.failed;
    assert_eq!(stats.levels.iter().map(ends).sum::<u64>(), items);
    assert_eq!(stats.levels[0].items, items);
    if beam == 1 {
        for two in stats.levels.windows(2) {
            assert_eq!(two[0].items - ends(&two[0]), two[1].items);
        }
    }
    assert_eq!(stats.requests, stats.levels.iter().map(|of| of.requests).sum::<u64>());
}

#[tokio::test(start_paused = true)]
async fn packs_are_full_while_the_server_is_busy() {
    // 4 · 4 · 4 categories on three levels, items spread over all of them.
    let mut parents: Vec<usize> = (0..4).collect();
    parents.extend((0..16).map(|n| n / 4));
    parents.extend((0..64).map(|n| 4 + n / 4));
    let latency = Latency::new(20_000.0, Duration::from_millis(5), Duration::ZERO);
    let engine = SimulatedServer::builder().latency(latency).engine();
    let categorizer = simulated(&engine, tree_of(&parents), 3, Descent::default());
    let item = |n: usize| {
        let words: Vec<_> = path_to(&parents, 20 + (n * 37) % 64).into_iter().map(word).collect();
        NewsItem::new(n.to_string(), format!("{} {n}", words.join(" ")), "")
    };
    let report = categorizer.categorize((0..3_000).map(item).collect::<Vec<_>>()).await;
    assert_eq!(report.categorized(), 3_000);
    for level in &report.stats.levels {
        let requests_per_pack = level.requests_per_pack.unwrap();
        println!("level {}: {} items, {requests_per_pack:.3} requests a pack", level.level, level.items);
        assert!(requests_per_pack < 1.3, "{level:?}");
    }
}

/// Walks 1,500 items over three endpoints whose caches have room for about three of the seven prefixes.
async fn walked_over_three(affinity: bool) -> Stats {
    let mut parents: Vec<usize> = (0..6).collect();
    parents.extend((0..36).map(|n| n / 6));
    let servers: Vec<_> = (0..3)
        .map(|_| {
            let latency = Latency::new(5_000.0, Duration::from_millis(5), Duration::ZERO);
            SimulatedServer::builder().latency(latency).prefix_cache(16, 1_500).engine()
        })
        .collect();
    let builder = servers.iter().enumerate().fold(Categorizer::builder(tree_of(&parents)), |builder, (n, server)| {
        builder.endpoint(EndpointConfig::new(format!("http://{n}")).transport(server.clone()))
    });
    let categorizer = builder
        .model("simulated")
        .concurrency(2)
        .max_concurrency(2)
        .seed(3)
        .descend(Descent::default().affinity(affinity))
        .build()
        .unwrap();
    let item = |n: usize| {
        let words: Vec<_> = path_to(&parents, 6 + (n * 5) % 36).into_iter().map(word).collect();
        NewsItem::new(n.to_string(), format!("{} {n}", words.join(" ")), "")
    };
    // Busy servers take whatever is next, so there is a choice only while some have room.
    let slowly = |n: usize| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        n
    };
    let mut outcomes = categorizer.stream(stream::iter(0..1_500).then(slowly).map(item));
    while outcomes.next().await.is_some() {}
    outcomes.stats()
}

#[tokio::test(start_paused = true)]
async fn a_prefix_goes_to_the_endpoint_that_has_it() {
    let (with, without) = (walked_over_three(true).await, walked_over_three(false).await);
    let cached = |stats: &Stats| stats.cached_share().unwrap();
    let requests: BTreeMap<_, _> = with.endpoints.iter().map(|of| (of.endpoint.to_string(), of.requests)).collect();
    println!(
        "cached {:.3} in {:.1} s, without affinity {:.3} in {:.1} s; requests {requests:?}",
        cached(&with),
        with.elapsed_s,
        cached(&without),
        without.elapsed_s
    );
    assert!(cached(&with) > cached(&without) + 0.03);
    let (least, most) = (requests.values().min().unwrap(), requests.values().max().unwrap());
    assert!(most < &(2 * least), "no endpoint is left to the others: {requests:?}");
}
