//! The dashboards and alert rules name nothing that is not exported, and worry where the crate does.

use std::collections::BTreeSet;
use std::process::Command;

use futures_util::{StreamExt, stream};
use slugline::alerts::{Alerts, Measurement, Rules, Signal};
use slugline::gpu::GpuWatch;
use slugline::testing::SimulatedServer;
use slugline::{Categorizer, EndpointConfig};

use crate::exporter::Prometheus;
use crate::support::{items, taxonomy};

const GRAFANA: &str = include_str!("../../dashboards/grafana.json");
const RULES: &str = include_str!("../../dashboards/alerts.yaml");
const DOCS: &str = include_str!("../../src/metrics.rs");

/// The words that begin with the crate's prefix.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("slugline_")).collect()
}

/// The names of series, and for histograms those of their parts.
async fn exported() -> String {
    let exporter = Prometheus::default();
    // GPUs are read on a thread of their own, which sees the exporter of the process alone. Runs of other tests only add.
    metrics::set_global_recorder(exporter.clone()).unwrap();
    let mut gpus = Command::new("printf");
    gpus.arg("index, utilization.gpu [%%], memory.used [MiB], memory.total [MiB]\\n0, 50 %%, 4 MiB, 8 MiB\\n");
    let gpus = GpuWatch::with_command(gpus, None);
    let engine = SimulatedServer::builder().model("m").engine();
    let categorizer = Categorizer::builder(taxonomy())
        .endpoint(EndpointConfig::new("http://simulated").transport(engine))
        .model("m")
        .watch_server_metrics(true)
        .build()
        .unwrap();
    let mut outcomes = categorizer.stream(stream::iter(items(60)));
    let stats = outcomes.stats_handle();
    while outcomes.next().await.is_some() {}
    let stats = stats.snapshot();
    assert!(stats.endpoints[0].server.is_some(), "{:?}", stats.endpoints);
    Alerts::new(Rules::default()).look(&[Measurement::new(Signal::LabelDrift, 0.1, 100).of("wire")]);
    while !gpus.is_over() {
        std::thread::yield_now();
    }
    exporter.page()
}

#[tokio::test(start_paused = true)]
async fn every_name_in_the_dashboards_and_the_docs_is_exported() {
    let page = exported().await;
    let exported: BTreeSet<&str> = page.lines().filter(|line| !line.starts_with('#')).flat_map(names).collect();
    for (what, text) in [("grafana.json", GRAFANA), ("alerts.yaml", RULES)] {
        let named = names(text);
        assert!(named.len() > 10, "{what} names only {named:?}");
        let unknown: Vec<_> = named.difference(&exported).collect();
        assert!(unknown.is_empty(), "{what} names {unknown:?}, which are not exported");
    }
    let documented: BTreeSet<&str> = DOCS
        .lines()
        .filter(|line| line.starts_with("//! | `slugline_"))
        .filter_map(|line| names(line).into_iter().next())
        .collect();
    let series: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(documented, series);
    assert!(page.contains("slugline_gpu_memory_share{gpu=\"0\"} 0.5\n"), "{page}");
    assert!(
        page.contains("slugline_requests_failed_total{endpoint=\"http://simulated\",model=\"m\",kind=\"timeout\"} 0\n")
    );
}

#[test]
fn the_rules_worry_where_the_crate_does() {
    let thresholds = [
        ("SuccessShare", "< 0.95", Some("< 0.9")),
        ("LatencyP95", "> 4", Some("> 6")),
        ("GpuMemory", "> 0.85", Some("> 0.92")),
        ("QueueDepth", "> 50", Some("> 100")),
        ("FallbackShare", "> 0.3", Some("> 0.5")),
        ("InvalidShare", "> 0.05", Some("> 0.2")),
        ("CachedShare", "< 0.4", None),
        ("LabelDrift", "> 0.2", Some("> 0.35")),
        ("CanaryAccuracy", "< 0.8", Some("< 0.6")),
    ];
    let expression = |name: &str| {
        let mut lines = RULES.lines().skip_while(|line| line.trim() != format!("- alert: Slugline{name}"));
        lines.nth(1).map(|line| line.trim().trim_end_matches('\'').to_owned())
    };
    for (name, warning, critical) in thresholds {
        let found = expression(&format!("{name}Warning")).unwrap();
        assert!(found.ends_with(warning), "{found}");
        let found = expression(&format!("{name}Critical"));
        assert_eq!(
            found.as_ref().map(|found| critical.is_some_and(|critical| found.ends_with(critical))),
            critical.map(|_| true)
        );
    }
    for signal in Signal::ALL {
        assert!(RULES.contains(&format!("signal: {signal}}}")), "{signal}");
    }
}

#[test]
fn the_dashboard_is_json_with_a_query_in_every_panel() {
    let dashboard: serde_json::Value = serde_json::from_str(GRAFANA).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 12);
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(
            targets.iter().all(|target| target["expr"].as_str().is_some_and(|expr| expr.contains("slugline_"))),
            "{panel}"
        );
    }
}
