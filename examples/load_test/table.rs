//! The figures as tables for a terminal.

use slugline::load::{Check, Step, Sweep, compare};

use super::aligned::aligned;

/// The table of the steps, what follows from it, and the comparison with the reference deployment.
pub(crate) fn table(sweep: &Sweep) -> String {
    let head = [
        "load",
        "req/s",
        "items/s",
        "valid/s",
        "prompt tok/s",
        "output tok/s",
        "success",
        "p50 s",
        "p95 s",
        "p99 s",
        "max s",
        "first token s",
        "cached",
        "in flight",
        "requests",
        "seconds",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(sweep.steps.iter().map(row));
    let mut out = aligned(&rows);
    let is_open = sweep.steps.iter().any(|step| step.due_per_second.is_some());
    out += if is_open {
        "\nlatency is that of items, from when they were due\n"
    } else {
        "\nlatency is that of answered requests\n"
    };
    if sweep.steps.iter().all(|step| step.first_token_s.is_none()) {
        out += "first token: not streamed, and the servers do not say\n";
    } else {
        out += "first token: the servers' own mean, since answers are not streamed\n";
    }
    for note in &sweep.notes {
        out += &format!("note: {note}\n");
    }
    out += &format!("\n{}\n", sweep.advice.reason);
    let checks: Vec<Check> = sweep.steps.iter().flat_map(compare).collect();
    if !checks.is_empty() {
        out +=
            "\nbeside what is expected of one server of the reference deployment (7B, RTX 4080, 1,100 + 200 tokens)\n";
        let sizes =
            sweep.steps.iter().find_map(|step| step.prompt_tokens_per_request.zip(step.output_tokens_per_request));
        if let Some((prompt, output)) = sizes {
            out += &format!("measured here with {prompt:.0} + {output:.0} tokens a request\n");
        }
        let head = ["in flight", "figure", "expected", "measured", "standing"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(checks.iter().map(check_row));
        out += &aligned(&rows);
    }
    out
}

fn row(step: &Step) -> Vec<String> {
    let optional =
        |figure: Option<f64>, digits: usize| figure.map_or_else(|| "-".to_owned(), |it| format!("{it:.digits$}"));
    let latency = step.caller_latency();
    vec![
        step.due_per_second.map_or_else(|| step.concurrency.to_string(), |rate| format!("{rate}/s")),
        format!("{:.2}", step.requests_per_second),
        format!("{:.2}", step.items_per_second),
        format!("{:.2}", step.valid_items_per_second),
        optional(step.prompt_tokens_per_second, 0),
        optional(step.output_tokens_per_second, 0),
        format!("{:.1} %", 100.0 * step.success_share),
        optional(latency.map(|latency| latency.p50_s), 2),
        optional(latency.map(|latency| latency.p95_s), 2),
        optional(latency.map(|latency| latency.p99_s), 2),
        optional(latency.map(|latency| latency.max_s), 2),
        optional(step.first_token_s, 2),
        step.cached_share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        format!("{:.1} of {}", step.mean_in_flight, step.max_in_flight),
        step.requests.to_string(),
        format!("{:.1}", step.seconds),
    ]
}

fn check_row(check: &Check) -> Vec<String> {
    vec![
        check.concurrency.to_string(),
        check.what.to_owned(),
        check.expected.clone(),
        check.measured.clone(),
        check.standing.as_str().to_owned(),
    ]
}
