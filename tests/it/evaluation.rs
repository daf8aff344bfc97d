//! An evaluation from the labelled items to the page, against the simulated server, and what must hold for any figures.

use std::time::Duration;

use proptest::prelude::*;
use slugline::calibration::{Calibration, Sample};
use slugline::evaluate::{
    About, Evaluation, GradedItem, Interval, Metrics, Paired, Prediction, Setting, Throughput, match_labels,
};
use slugline::testing::{Latency, SimulatedEngine, SimulatedServer};
use slugline::{Categorizer, Category, CategoryId, EndpointConfig, NewsItem, Outcome, Taxonomy};

use crate::props::cases;

/// What must never become markup.
const EVIL: &str = "<img src=x onerror=\"alert('x')\">&";

fn taxonomy() -> Taxonomy {
    let sport = Category::new("sport", format!("Sport {EVIL}"), "Matches and athletes.").with_alias("Games");
    let business = Category::new("business", "Business", "Companies and markets.");
    Taxonomy::new(EVIL, "1", [sport, business, Category::new("other", "Other", "None of these.").as_fallback()])
        .unwrap()
}

/// Items that the simulation labels by their words, with labels in all the ways in which data sets write them.
fn labelled(count: usize) -> (Vec<NewsItem>, Vec<&'static str>) {
    let kinds = [("matches and athletes", "Games"), ("companies and markets", "BUSINESS"), ("nothing at all", "other")];
    let item = |n: usize| {
        let (words, label) = kinds[n % kinds.len()];
        (NewsItem::new(format!("{EVIL}{n}"), format!("{words} {n} xyzzy"), "Body plugh."), label)
    };
    (0..count).map(item).unzip()
}

async fn evaluate(engine: &SimulatedEngine, pack_sizes: &[usize]) -> Evaluation {
    let taxonomy = taxonomy();
    let (items, labels) = labelled(120);
    let truths = match_labels(&taxonomy, (1..).zip(labels)).unwrap();
    let mut evaluation = Evaluation::new(About::new(EVIL, &taxonomy), &taxonomy);
    evaluation.about.data = Some(EVIL.into());
    for &pack_size in pack_sizes {
        let categorizer = Categorizer::builder(taxonomy.clone())
            .endpoint(EndpointConfig::new("http://simulated").transport(engine.clone()))
            .model("simulated")
            .pack_size(pack_size)
            .concurrency(4)
            .max_concurrency(4)
            .seed(1)
            .build()
            .unwrap();
        let report = categorizer.categorize(items.clone()).await;
        assert!(report.error.is_none(), "{:?}", report.error);
        let graded: Vec<_> = report
            .outcomes
            .iter()
            .zip(&truths)
            .map(|(outcome, truth)| GradedItem::new(outcome, truth.clone()))
            .collect();
        let throughput = Throughput::from_stats(&report.stats, &graded);
        evaluation.add(Setting::new(format!("{EVIL} {pack_size}"), pack_size, "objects"), graded, throughput).unwrap();
    }
    evaluation
}

fn slow_and_noisy() -> SimulatedEngine {
    let latency = Latency::new(5_000.0, Duration::from_millis(10), Duration::from_millis(1));
    SimulatedServer::builder().latency(latency).noise(0.25).seed(2).engine()
}

#[tokio::test(start_paused = true)]
async fn settings_are_measured_on_the_same_items() {
    let evaluation = evaluate(&slow_and_noisy(), &[1, 3]).await;
    let [one, three] = &evaluation.settings[..] else { panic!("two settings") };
    for report in [one, three] {
        let metrics = &report.metrics;
        assert_eq!((metrics.items, report.not_attempted, metrics.outside_taxonomy), (120, 0, 0));
        let right =
            report.items.iter().filter(|item| item.result.as_ref().is_ok_and(|p| p.category == item.truth)).count();
        assert_eq!(metrics.correct, right as u64);
        // The noise is decided by each text alone: 90 expected, and three standard deviations are 14.
        assert!((76..=104).contains(&right), "{right}");
        let reliability = metrics.reliability.as_ref().unwrap();
        assert_eq!((reliability.items, metrics.share_without_confidence), (120, 0.0));
        let throughput = &report.throughput;
        assert!((throughput.items_per_second - 120.0 / throughput.seconds).abs() < 1e-9);
        assert!((throughput.correct_items_per_second - right as f64 / throughput.seconds).abs() < 1e-9);
    }
    let tokens = |report: &slugline::evaluate::SettingReport| report.throughput.prompt_tokens_per_item.unwrap();
    assert!(tokens(three) < 0.5 * tokens(one), "a prefix for three items costs less than three");
    assert!(three.throughput.cached_tokens_per_item.unwrap() <= tokens(three));
    assert!(three.throughput.items_per_second > one.throughput.items_per_second);
    assert_eq!((one.throughput.requests, three.throughput.requests), (120, 40));

    let paired = &evaluation.comparisons[0].paired;
    assert_eq!(paired.items, 120);
    let difference = three.metrics.accuracy - one.metrics.accuracy;
    assert!((paired.difference - difference).abs() < 1e-9);
    assert!(paired.interval.low <= difference && difference <= paired.interval.high);
}

#[tokio::test(start_paused = true)]
async fn files_have_no_news_text_and_the_page_no_markup_of_others() {
    let evaluation = evaluate(&slow_and_noisy(), &[1, 3]).await;
    let (json, page) = (serde_json::to_string(&evaluation).unwrap(), evaluation.to_html());
    for text in ["xyzzy", "plugh", "matches and athletes"] {
        assert!(!json.contains(text) && !page.contains(text), "{text}");
    }
    assert!(!page.contains("<img") && !page.contains("onerror=\"") && page.contains("&lt;img src=x"));
    assert!(page.contains("<svg class=\"wide\"") && page.contains("Reliability of the confidence"));

    let again = Evaluation::from_json(&json).unwrap();
    assert_eq!(again.settings[1].items, evaluation.settings[1].items);
    assert_eq!(again.to_html(), page);
}

#[tokio::test]
async fn over_sockets_without_log_probabilities_confidence_is_unknown() {
    let server = SimulatedServer::builder().logprobs(false).start().await.unwrap();
    let taxonomy = taxonomy();
    let (items, labels) = labelled(12);
    let truths = match_labels(&taxonomy, (1..).zip(labels)).unwrap();
    let categorizer =
        Categorizer::builder(taxonomy.clone()).endpoint(server.base_url()).model("simulated").build().unwrap();
    let report = categorizer.categorize(items).await;
    let graded: Vec<_> =
        report.outcomes.iter().zip(&truths).map(|(outcome, truth)| GradedItem::new(outcome, truth.clone())).collect();
    let throughput = Throughput::from_stats(&report.stats, &graded);
    let mut evaluation = Evaluation::new(About::new("simulated", &taxonomy), &taxonomy);
    evaluation.add(Setting::new("packs", 3, "objects"), graded, throughput).unwrap();
    let metrics = &evaluation.settings[0].metrics;
    assert_eq!((metrics.reliability.is_none(), metrics.share_without_confidence, metrics.accuracy), (true, 1.0, 1.0));
    assert!(evaluation.to_html().contains("No confidences"));
}

#[tokio::test(start_paused = true)]
async fn a_run_corrects_as_its_records_say() {
    let engine = slow_and_noisy();
    let taxonomy = taxonomy();
    let (items, labels) = labelled(90);
    let truths = match_labels(&taxonomy, (1..).zip(labels)).unwrap();
    let builder = || {
        let endpoint = EndpointConfig::new("http://simulated").transport(engine.clone());
        Categorizer::builder(taxonomy.clone()).endpoint(endpoint).model("simulated").seed(1)
    };
    let plain = builder().build().unwrap().categorize(items.clone()).await;
    let assignments = || plain.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
    let samples: Vec<_> = assignments().zip(&truths).map(|(assignment, truth)| Sample { assignment, truth }).collect();
    let calibration = Calibration::of_stream(&taxonomy, assignments()).unwrap().fit(&samples, &taxonomy);

    let run = builder().calibration(calibration.clone()).build().unwrap().categorize(items).await;
    let grade = |how: fn(&Outcome, CategoryId) -> GradedItem| -> Vec<GradedItem> {
        run.outcomes.iter().zip(&truths).map(|(outcome, truth)| how(outcome, truth.clone())).collect()
    };
    let (given, written) = (grade(GradedItem::new), grade(GradedItem::as_written));
    for (given, written) in given.iter().zip(&written) {
        let corrected = written.corrected(&calibration, &taxonomy);
        let (given_to, corrected_to) = (given.result.as_ref().unwrap(), corrected.result.as_ref().unwrap());
        assert_eq!(given_to.category, corrected_to.category);
        assert!((given.confidence().unwrap() - corrected.confidence().unwrap()).abs() < 1e-4);
        let raw = written.result.as_ref().unwrap();
        assert_eq!(raw.confidence, raw.probabilities.get(&raw.category).copied());
        assert!(raw.position.is_some_and(|position| (1..=3).contains(&position)));
    }
    assert!(given.iter().zip(&written).any(|(given, written)| given.confidence() != written.confidence()));
    // The records keep all of that.
    let json = serde_json::to_string(&written).unwrap();
    assert_eq!(serde_json::from_str::<Vec<GradedItem>>(&json).unwrap(), written);
}

const CATEGORIES: [&str; 4] = ["a", "b", "c", "d"];

fn categories() -> Vec<CategoryId> {
    CATEGORIES.map(CategoryId::from).to_vec()
}

/// Graded items of any kind: right, wrong, outside the taxonomy, failed; with any confidence, none, or one that is no
/// probability.
fn graded_items() -> impl Strategy<Value = Vec<GradedItem>> {
    let confidence = prop_oneof![
        Just(None),
        (0.0_f32..=1.0).prop_map(Some),
        prop::sample::select(vec![0.0, 0.1, 0.5, 1.0, f32::NAN, f32::INFINITY, -1.0, 2.0]).prop_map(Some),
    ];
    let given = prop::sample::select(vec![Ok("a"), Ok("b"), Ok("c"), Ok("d"), Ok("x"), Err("cut"), Err("timeout")]);
    let item = (prop::sample::select(CATEGORIES.to_vec()), given, confidence);
    prop::collection::vec(item, 0..60).prop_map(|items| {
        let graded =
            |(index, (truth, given, confidence)): (usize, (&str, Result<&str, &str>, Option<f32>))| GradedItem {
                index: index as u64,
                id: format!("item-{index}"),
                truth: truth.into(),
                result: given.map(|given| Prediction { confidence, ..Prediction::new(given) }).map_err(str::to_owned),
            };
        items.into_iter().enumerate().map(graded).collect()
    })
}

fn is_within(interval: Interval, value: f64) -> bool {
    interval.low <= value && value <= interval.high
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn figures_add_up(items in graded_items()) {
        let metrics = Metrics::new(&categories(), &items).unwrap();
        let rows: u64 = metrics.confusion.rows.iter().map(|row| row.predicted.iter().sum::<u64>() + row.failed + row.outside_taxonomy).sum();
        prop_assert_eq!((metrics.items, rows), (items.len() as u64, items.len() as u64));
        let diagonal: u64 = metrics.confusion.rows.iter().enumerate().map(|(place, row)| row.predicted[place]).sum();
        prop_assert_eq!(metrics.correct, diagonal);
        prop_assert_eq!(metrics.failed, metrics.failures.values().sum::<u64>());
        prop_assert_eq!(metrics.outside_taxonomy, items.iter().filter(|item| item.result.as_ref().is_ok_and(|p| p.category.as_str() == "x")).count() as u64);
        prop_assert!(is_within(metrics.accuracy_interval, metrics.accuracy));
        prop_assert!((0.0..=1.0).contains(&metrics.macro_f1));
        for category in &metrics.categories {
            for share in [category.precision, category.recall, category.f1].into_iter().flatten() {
                prop_assert!((0.0..=1.0).contains(&share));
            }
            if let (Some(precision), Some(recall), Some(f1)) = (category.precision, category.recall, category.f1) {
                let harmonic = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
                prop_assert!((f1 - harmonic).abs() < 1e-9);
            }
        }
        if let Some(reliability) = &metrics.reliability {
            prop_assert_eq!(reliability.bins.iter().map(|bin| bin.items).sum::<u64>(), reliability.items);
            prop_assert!((0.0..=1.0).contains(&reliability.brier));
            let error = reliability.expected_calibration_error;
            // By the triangle inequality no less than the gap of the means, and never more than 1.
            prop_assert!((0.0..=1.0).contains(&error));
            prop_assert!(error + 1e-9 >= (reliability.accuracy - reliability.mean_confidence).abs());
            for bin in reliability.bins.iter().filter(|bin| bin.items > 0) {
                let confidence = bin.mean_confidence.unwrap();
                prop_assert!((bin.low - 1e-9..=bin.high + 1e-9).contains(&confidence));
                prop_assert!(is_within(bin.interval(), bin.accuracy.unwrap()));
            }
        }
    }

    #[test]
    fn the_order_of_the_items_does_not_matter(items in graded_items(), seed in any::<u64>()) {
        let mut shuffled = items.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        let (one, other) = (Metrics::new(&categories(), &items).unwrap(), Metrics::new(&categories(), &shuffled).unwrap());
        prop_assert_eq!(&one.confusion, &other.confusion);
        prop_assert_eq!((one.accuracy, one.macro_f1, one.failures), (other.accuracy, other.macro_f1, other.failures));
        prop_assert_eq!(one.reliability.is_some(), other.reliability.is_some());
        for (one, other) in one.reliability.iter().zip(&other.reliability) {
            prop_assert!((one.expected_calibration_error - other.expected_calibration_error).abs() < 1e-9);
            prop_assert!((one.brier - other.brier).abs() < 1e-9);
        }
        let paired = Paired::new(&items, &shuffled);
        prop_assert_eq!((paired.only_first, paired.only_second, paired.items), (0, 0, items.len() as u64));
    }

    #[test]
    fn a_comparison_seen_from_the_other_side_is_its_mirror(both in 0_u64..200, first in 0_u64..60, second in 0_u64..60, neither in 0_u64..200) {
        let one = Paired::of_counts(both, first, second, neither);
        let other = Paired::of_counts(both, second, first, neither);
        prop_assert!((one.difference + other.difference).abs() < 1e-12);
        prop_assert!((one.interval.low + other.interval.high).abs() < 1e-9);
        prop_assert!((one.interval.high + other.interval.low).abs() < 1e-9);
        prop_assert!((one.p_value - other.p_value).abs() < 1e-12);
        prop_assert!((0.0..=1.0).contains(&one.p_value));
        prop_assert!(-1.0 <= one.interval.low && one.interval.high <= 1.0);
        prop_assert!(is_within(one.interval, one.difference));
    }

    #[test]
    fn any_items_make_a_page_and_a_file_that_comes_back(items in graded_items(), name in ".{0,40}") {
        let listed = CATEGORIES.map(|id| Category::new(id, id.to_uppercase(), "Text."));
        let taxonomy = Taxonomy::new("t", "1", listed).unwrap();
        let mut evaluation = Evaluation::new(About::new(name.as_str(), &taxonomy), &taxonomy);
        for setting in ["one", name.as_str()] {
            let throughput = Throughput::new(Duration::from_millis(items.len() as u64), 1, &items);
            evaluation.add(Setting::new(setting, 1, name.as_str()), items.clone(), throughput).unwrap();
        }
        let page = evaluation.to_html();
        prop_assert!(!page.contains("NaN") && !page.contains("inf\"") && page.ends_with("</html>\n"));
        let json = serde_json::to_string(&evaluation).unwrap();
        prop_assert_eq!(Evaluation::from_json(&json).unwrap().settings.len(), 2);
    }
}
