//! The figures of the service in Prometheus' text format, version 0.0.4: those of the run by the crate's feature `metrics`
//! and an exporter, those of the queue and the calls beside them.

use slugline::{Service, ServiceStats};

use super::exporter::Prometheus;

/// All figures, each with its type.
pub(crate) fn metrics(service: &Service, figures: &Prometheus) -> String {
    // Looked at first, since it sets the gauges of the run.
    let own = own(&service.stats());
    figures.page() + &own
}

fn own(stats: &ServiceStats) -> String {
    let mut page = String::new();
    let mut add = |kind: &str, name: &str, help: &str, values: &[(&str, f64)]| {
        page.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (labels, value) in values {
            page.push_str(&format!("{name}{labels} {value}\n"));
        }
    };
    let waiting = stats.waiting_items as f64;
    add("gauge", "slugline_queue_items", "Items that wait for a request.", &[("", waiting)]);
    let calls = stats.callers as f64;
    add("gauge", "slugline_calls_in_progress", "Calls under way, waiting ones included.", &[("", calls)]);
    let accepted = stats.accepted as f64;
    add("counter", "slugline_calls_accepted_total", "Calls whose item was taken.", &[("", accepted)]);
    let ends = [
        ("{kind=\"overloaded\"}", stats.overloaded as f64),
        ("{kind=\"deadline-exceeded\"}", stats.deadline_exceeded as f64),
        ("{kind=\"unavailable\"}", stats.unavailable as f64),
    ];
    add("counter", "slugline_calls_failed_total", "Calls that ended without an outcome.", &ends);
    page
}
