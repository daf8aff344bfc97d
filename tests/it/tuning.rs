//! The choice of the pack size by measurement, in virtual time. The figures are those of simulations.

use std::time::Duration;

use slugline::testing::{Latency, Reply, ScriptedTransport, SimulatedServer};
use slugline::{CategorizerBuilder, EndpointConfig, NewsItem, Report, Tuning};

use crate::support::{builder, check_all_there, items, right_label, taxonomy};

fn simulated(latency: Latency) -> CategorizerBuilder {
    let engine = SimulatedServer::builder().latency(latency).engine();
    slugline::Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://simulated").transport(engine))
        .model("simulated")
        .concurrency(10)
        .max_concurrency(10)
        .timeout(Duration::from_secs(120))
        .seed(3)
}

fn news(count: usize) -> Vec<NewsItem> {
    let body = "The athletes won after a long day on the course, the club said. ".repeat(3);
    (0..count).map(|n| NewsItem::new(format!("n{n}"), format!("Match report {n}"), body.as_str())).collect()
}

fn chosen(report: &Report) -> usize {
    let tuning = report.stats.tuning.as_ref().expect("a report of the choice");
    assert!(tuning.is_settled, "{tuning:?}");
    tuning.pack_size
}

#[tokio::test(start_paused = true)]
async fn the_choice_is_within_a_twentieth_of_the_best_fixed_size() {
    let prefill_bound = Latency::new(3_000.0, Duration::from_millis(5), Duration::from_micros(100));
    for (name, latency) in [
        ("reference", Latency::reference()),
        ("one at a time", Latency::one_at_a_time()),
        ("prefill bound", prefill_bound),
    ] {
        let mut fixed = Vec::new();
        for size in [1, 2, 3, 4, 6, 8] {
            let report = simulated(latency).pack_size(size).build().unwrap().categorize(news(1_200)).await;
            println!("{name}: packs of {size}: {:.2} items/s (simulated)", report.stats.items_per_second());
            fixed.push((size, report.stats.items_per_second()));
        }
        let best = fixed.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let report = simulated(latency).tuning(Tuning::auto()).build().unwrap().categorize(news(2_000)).await;
        assert_eq!(report.categorized(), 2_000);
        let rate = fixed.iter().find(|(size, _)| *size == chosen(&report)).unwrap().1;
        let whole = report.stats.items_per_second();
        println!("{name}: chose {}: {rate:.2} of {best:.2} items/s, {whole:.2} with the search", chosen(&report));
        assert!(rate >= 0.95 * best, "{name}: {rate:.2} of {best:.2}");
    }
}

/// A server that gains by packing, and whose labels are right alone and up to four items, half wrong beyond.
fn good_to_four(mut random: fastrand::Rng) -> ScriptedTransport {
    ScriptedTransport::new(move |asked| {
        let count = asked.items.len();
        let label = |item: &String| {
            let is_wrong = count > 4 && random.bool();
            if is_wrong { "other".to_owned() } else { right_label(item).to_owned() }
        };
        let labels: Vec<String> = asked.items.iter().map(label).collect();
        Reply::labels(labels.iter().map(String::as_str)).after(Duration::from_millis(400 + 50 * count as u64))
    })
}

#[tokio::test(start_paused = true)]
async fn a_size_whose_labels_differ_from_single_items_is_not_chosen() {
    let server = good_to_four(fastrand::Rng::with_seed(5));
    let report = builder(&[&server]).tuning(Tuning::auto()).build().unwrap().categorize(items(3_000)).await;
    assert_eq!((report.outcomes.len(), report.categorized(), chosen(&report)), (3_000, 3_000, 4));
    let tuning = report.stats.tuning.unwrap();
    let refused: Vec<_> = tuning.sizes.iter().filter(|size| !size.is_acceptable).map(|size| size.pack_size).collect();
    assert_eq!(refused, [6, 8]);
    // The requests that only check are few beside those of the run.
    let checks: u64 = tuning.sizes.iter().map(|size| size.checked).sum();
    assert!(checks < 200 && checks < report.stats.requests / 4, "{checks} of {}", report.stats.requests);
}

#[tokio::test(start_paused = true)]
async fn short_runs_and_faults_cost_no_item() {
    let mut random = fastrand::Rng::with_seed(9);
    let server = ScriptedTransport::new(move |asked| match random.usize(..5) {
        0 => Reply::status(500, "broken"),
        1 => Reply::text("nonsense"),
        _ => Reply::labels(asked.items.iter().map(|item| right_label(item))).after(Duration::from_millis(100)),
    });
    for count in [0, 1, 5, 40, 400] {
        let report = builder(&[&server]).tuning(Tuning::auto()).build().unwrap().categorize(items(count)).await;
        check_all_there(&report, count);
        assert!(report.stats.tuning.is_some());
    }
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    let error = builder(&[&server]).tuning(Tuning::auto().sizes([3, 40])).build().unwrap_err();
    assert!(error.to_string().contains("1 to 16"), "{error}");
}
