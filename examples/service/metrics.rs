//! The figures of the service in Prometheus' text format, version 0.0.4.
//!
//! Counts are totals since the start of the program. What no server has said yet, such as cached tokens, is left out.

use std::fmt::Write;

use slugline::ServiceStats;

/// All figures, each with its type and a line that explains it.
pub(crate) fn metrics(stats: &ServiceStats) -> String {
    let run = &stats.run;
    let mut page = Page::default();
    page.one("gauge", "slugline_queue_items", "Items that wait for a request.", stats.waiting_items as f64);
    page.one("gauge", "slugline_calls_in_progress", "Calls under way, waiting ones included.", stats.callers as f64);
    page.one("counter", "slugline_calls_accepted_total", "Calls whose item was taken.", stats.accepted as f64);
    let ends = [
        ("overloaded", stats.overloaded),
        ("deadline-exceeded", stats.deadline_exceeded),
        ("unavailable", stats.unavailable),
    ];
    page.by("slugline_calls_failed_total", "Calls that ended without an outcome.", "kind", ends);

    page.one("counter", "slugline_items_total", "Items that were taken from the queue.", run.items as f64);
    page.one("counter", "slugline_items_categorized_total", "Items that have a category.", run.categorized as f64);
    let failed = run.failed.iter().map(|(kind, count)| (*kind, *count));
    page.by("slugline_items_failed_total", "Items that were given up.", "kind", failed);
    page.one("counter", "slugline_items_fallback_total", "Items in none of the other categories.", run.fallback as f64);
    page.one("counter", "slugline_items_copied_total", "Items answered as copies.", run.duplicates as f64);
    page.one("counter", "slugline_items_reasked_total", "Items asked again for a valid answer.", run.reasked as f64);
    page.one(
        "counter",
        "slugline_items_escalated_total",
        "Items asked again for a surer answer.",
        run.escalated as f64,
    );

    page.one("counter", "slugline_requests_total", "Requests to the model servers.", run.requests as f64);
    page.one("counter", "slugline_requests_answered_total", "Requests that were answered.", run.answered as f64);
    let failures = run.failures.iter().map(|(kind, count)| (kind.as_str(), *count));
    page.by("slugline_requests_failed_total", "Requests that failed.", "kind", failures);
    page.one("counter", "slugline_retries_total", "Packs that were sent again.", run.retries as f64);
    page.one("counter", "slugline_splits_total", "Packs that were split to find a bad item.", run.splits as f64);
    page.one(
        "counter",
        "slugline_prompt_tokens_total",
        "Prompt tokens, by the servers' count.",
        run.prompt_tokens as f64,
    );
    if let Some(cached) = run.cached_tokens {
        page.one("counter", "slugline_cached_tokens_total", "Prompt tokens from prefix caches.", cached as f64);
    }
    page.one("counter", "slugline_output_tokens_total", "Generated tokens.", run.output_tokens as f64);

    page.head("gauge", "slugline_request_latency_seconds", "Latency of answered requests since the start.");
    let latency = &run.latency;
    for (quantile, ms) in [("0.5", latency.p50_ms), ("0.95", latency.p95_ms), ("0.99", latency.p99_ms)] {
        page.line("slugline_request_latency_seconds", &[("quantile", quantile)], ms as f64 / 1_000.0);
    }
    page.head("gauge", "slugline_endpoint_up", "Whether a model server can be asked.");
    for endpoint in &run.endpoints {
        let is_up = matches!(endpoint.phase, "open" | "probing");
        page.line("slugline_endpoint_up", &[("endpoint", &endpoint.endpoint)], f64::from(u8::from(is_up)));
    }
    page.head("gauge", "slugline_endpoint_in_flight", "Requests in flight at a model server.");
    for endpoint in &run.endpoints {
        page.line("slugline_endpoint_in_flight", &[("endpoint", &endpoint.endpoint)], endpoint.in_flight as f64);
    }
    page.head("gauge", "slugline_endpoint_concurrency_limit", "The most requests in flight at a model server now.");
    for endpoint in &run.endpoints {
        let limit = endpoint.concurrency_limit as f64;
        page.line("slugline_endpoint_concurrency_limit", &[("endpoint", &endpoint.endpoint)], limit);
    }
    page.0
}

// Writing to a string cannot fail, so results are not looked at.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, kind: &str, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(key, text)| format!("{key}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: f64) {
        self.head(kind, name, help);
        self.line(name, &[], value);
    }

    fn by<'a>(&mut self, name: &str, help: &str, label: &str, counts: impl IntoIterator<Item = (&'a str, u64)>) {
        self.head("counter", name, help);
        for (value, count) in counts {
            self.line(name, &[(label, value)], count as f64);
        }
    }
}

/// As the format wants it in the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
