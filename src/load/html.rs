//! The page of a sweep.

use super::reference::{Check, Standing, compare, expectations};
use super::step::Step;
use super::sweep::{About, Sweep};
use crate::page::lines::{Chart, Line, figure};
use crate::page::text::{dash, escape, grouped, percent, percent_or_dash, rough};
use crate::page::{document, facts, notes, section, table};

/// The whole page.
pub(super) fn page(sweep: &Sweep) -> String {
    let title = format!("Load test of {}", escape(&sweep.about.model));
    let mut body = header(&sweep.about, &title);
    body += &format!("<p class=\"advice\">{}</p>\n", escape(&capitalized(&sweep.advice.reason)));
    body += &notes(&sweep.notes);
    if !sweep.steps.is_empty() {
        body += &section("Against load", &charts(sweep));
        body += &section("Requests in flight over time", &time_line(&sweep.steps));
        body += &section("Steps", &steps(sweep));
    }
    let checks: Vec<Check> = sweep.steps.iter().flat_map(compare).collect();
    if !checks.is_empty() {
        body += &section("Beside the reference deployment", &comparison(&checks, &request_words(&sweep.steps)));
    }
    document(&title, &body)
}

fn header(about: &About, title: &str) -> String {
    let known = [
        ("Items", about.items.as_deref()),
        ("Server", about.server.as_deref()),
        ("Run", about.date.as_deref()),
        ("slugline", Some(about.slugline.as_str())),
    ];
    format!("<header>\n<h1>{title}</h1>\n{}</header>\n", facts(known))
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>() + ".").unwrap_or_default()
}

/// Whether the steps are those of an open loop.
fn is_open(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.due_per_second.is_some())
}

fn charts(sweep: &Sweep) -> String {
    let steps = &sweep.steps;
    let x_name = if is_open(steps) { "requests per second due" } else { "requests in flight at each server" };
    let ticks: Vec<f64> = steps.iter().map(Step::level).collect();
    let knee = sweep.advice.knee.and_then(|knee| steps.get(knee)).map(|step| (step.level(), "knee"));
    let chart = |title, y_name, y_range, y_tick, lines| Chart {
        title,
        y_name,
        x_name,
        lines,
        y_range,
        expected: Vec::new(),
        mark: knee,
        x_ticks: ticks.clone(),
        has_points: true,
        parts: Vec::new(),
        y_tick,
        is_filled: false,
    };
    let line = |name, class, figure: &dyn Fn(&Step) -> Option<f64>| Line {
        name,
        class,
        points: steps.iter().filter_map(|step| Some((step.level(), figure(step)?))).collect(),
    };
    let mut throughput = chart(
        "Throughput against load",
        "per second",
        [0.0, 1.0],
        short,
        vec![
            line("requests", "first", &|step| Some(step.requests_per_second)),
            line("valid items", "second", &|step| Some(step.valid_items_per_second)),
        ],
    );
    if !is_open(steps) {
        let servers = steps.first().map_or(1, |step| step.servers) as f64;
        let measured =
            expectations().iter().filter(|known| steps.iter().any(|step| step.concurrency == known.concurrency));
        let range = |[low, high]: [f64; 2]| [low * servers, high * servers];
        throughput.expected =
            measured.map(|known| (known.concurrency as f64, range(known.requests_per_second))).collect();
    }
    let latency = chart(
        "Latency against load",
        "seconds",
        [0.0, 0.1],
        short,
        vec![
            line("p99", "third", &|step| Some(step.caller_latency()?.p99_s)),
            line("p95", "second", &|step| Some(step.caller_latency()?.p95_s)),
            line("p50", "first", &|step| Some(step.caller_latency()?.p50_s)),
        ],
    );
    let success = chart(
        "Success against load",
        "answered",
        [0.0, 1.0],
        whole_percent,
        vec![line("answered", "first", &|step| Some(step.success_share))],
    );
    let throughput_words = if throughput.expected.is_empty() {
        "Answered requests and items with a category per second."
    } else {
        "Answered requests and items with a category per second. Grey bars: the requests that are expected of the reference \
         deployment."
    };
    let latency_words = if is_open(steps) {
        "Latency of items from when they were due, so that waiting to be sent counts."
    } else {
        "Latency of answered requests, from sending to the last byte."
    };
    format!(
        "<div class=\"charts\">\n{}\n{}\n{}\n</div>",
        figure(&throughput, throughput_words),
        figure(&latency, latency_words),
        figure(&success, "Answered among all requests that were sent, those sent again included."),
    )
}

fn time_line(steps: &[Step]) -> String {
    let mut points = Vec::new();
    let mut parts = Vec::new();
    let mut start_s = 0.0;
    for step in steps {
        parts.push((start_s, rough_level(step)));
        points.push((start_s, 0.0));
        points.extend(step.in_flight.iter().map(|part| (start_s + part.at_s, part.requests)));
        start_s += step.seconds;
        points.push((start_s, 0.0));
    }
    let chart = Chart {
        title: "Requests in flight over time",
        y_name: "requests in flight",
        x_name: "seconds, without warm-up",
        lines: vec![Line { name: "", class: "first", points }],
        y_range: [0.0, 1.0],
        expected: Vec::new(),
        mark: None,
        x_ticks: Vec::new(),
        has_points: false,
        parts,
        y_tick: short,
        is_filled: true,
    };
    figure(&chart, "At all servers together, one step after the other; above each, what it was set to.")
}

/// What a step was set to, for a narrow place.
fn rough_level(step: &Step) -> String {
    step.due_per_second.map_or_else(|| step.concurrency.to_string(), |rate| format!("{rate}/s"))
}

fn steps(sweep: &Sweep) -> String {
    let streamed = if sweep.steps.iter().any(|step| step.first_token_s.is_some()) {
        "First token: the servers' own mean, since answers are not streamed."
    } else {
        "First token: not streamed, and the servers do not say."
    };
    let heads = [
        "Load",
        "Req/s",
        "Items/s",
        "Valid/s",
        "Prompt tok/s",
        "Output tok/s",
        "Success",
        "p50 s",
        "p95 s",
        "p99 s",
        "Max s",
        "First token",
        "Cached",
        "In flight",
        "Requests",
        "Seconds",
    ];
    let head = heads.join("</th><th scope=\"col\">");
    let chosen = sweep.advice.recommended;
    let rows: String = sweep.steps.iter().enumerate().map(|(at, step)| row(step, Some(at) == chosen)).collect();
    let rows = format!("<thead><tr><th scope=\"col\">{head}</th></tr></thead><tbody>{rows}</tbody>");
    format!(
        "{}\n<p class=\"about\">The recommended step is coloured. Valid: items with a category. Rates are over the whole \
         step, the ends of its last requests included. Tokens as the servers count them. {streamed} In flight: the mean of the most.</p>",
        table("Steps", "steps", &rows)
    )
}

fn row(step: &Step, is_chosen: bool) -> String {
    let optional = |figure: Option<f64>| figure.map_or_else(dash, rough);
    let latency = step.caller_latency();
    let cells = [
        rough(step.requests_per_second),
        rough(step.items_per_second),
        format!("<b>{}</b>", rough(step.valid_items_per_second)),
        optional(step.prompt_tokens_per_second),
        optional(step.output_tokens_per_second),
        percent(step.success_share),
        optional(latency.map(|latency| latency.p50_s)),
        optional(latency.map(|latency| latency.p95_s)),
        optional(latency.map(|latency| latency.p99_s)),
        optional(latency.map(|latency| latency.max_s)),
        optional(step.first_token_s),
        percent_or_dash(step.cached_share),
        format!("{} of {}", rough(step.mean_in_flight), step.max_in_flight),
        grouped(step.requests as i64),
        rough(step.seconds),
    ];
    let class = if is_chosen { " class=\"chosen\"" } else { "" };
    format!("<tr{class}><th scope=\"row\">{}</th><td>{}</td></tr>", rough_level(step), cells.join("</td><td>"))
}

/// The size of the requests that were measured.
fn request_words(steps: &[Step]) -> String {
    let sizes = steps.iter().find_map(|step| step.prompt_tokens_per_request.zip(step.output_tokens_per_request));
    sizes.map_or_else(String::new, |(prompt, output)| {
        format!(" Measured here with {} prompt tokens and {} output tokens.", rough(prompt), rough(output))
    })
}

fn comparison(checks: &[Check], request_words: &str) -> String {
    let row = |check: &Check| {
        let class = if check.standing == Standing::Worse { " class=\"worse\"" } else { "" };
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td><td>{}</td><td>{}</td><td{class}>{}</td></tr>",
            check.concurrency,
            check.what,
            check.expected,
            check.measured,
            check.standing.as_str()
        )
    };
    let rows: String = checks.iter().map(row).collect();
    let head = "<thead><tr><th scope=\"col\">In flight</th><th scope=\"col\" class=\"text\">Figure</th><th \
                scope=\"col\">Expected</th><th scope=\"col\">Measured</th><th scope=\"col\">Standing</th></tr></thead>";
    format!(
        "{}\n<p class=\"about\">Expected of one server of the reference deployment: vLLM with a 7B model on an RTX 4080, 1,100 \
         prompt tokens and 200 output tokens a request. Requests per second are for each server.{request_words}</p>",
        table("Comparison", "checks", &format!("{head}<tbody>{rows}</tbody>"))
    )
}

/// A number of an axis without needless zeros.
fn short(number: f64) -> String {
    format!("{}", (number * 100.0).round() / 100.0)
}

fn whole_percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::super::advice::Targets;
    use super::super::step::{InFlight, LatencySummary};
    use super::*;

    const EVIL: &str = "<script>alert('x')</script>\"&";

    fn sweep(due_per_second: Option<f64>) -> Sweep {
        let mut about = About::new(EVIL);
        (about.server, about.items) = (Some(EVIL.into()), Some(EVIL.into()));
        let mut sweep = Sweep::new(about, Targets::default());
        sweep.notes.push(EVIL.into());
        for concurrency in [1, 10, 100] {
            let latency = LatencySummary::of(vec![1.0, 2.0]);
            sweep.add(Step {
                concurrency,
                servers: 1,
                due_per_second: due_per_second.map(|rate| rate * concurrency as f64),
                seconds: 10.0,
                requests_per_second: 5.0,
                valid_items_per_second: 15.0,
                success_share: 0.9,
                latency,
                latency_from_due: latency,
                in_flight: vec![InFlight { at_s: 5.0, requests: 3.0 }],
                ..Step::default()
            });
        }
        sweep
    }

    #[test]
    fn nothing_of_the_input_becomes_markup_and_nothing_is_fetched() {
        for sweep in [sweep(None), sweep(Some(0.5))] {
            let page = page(&sweep);
            assert!(page.matches("&lt;script&gt;").count() >= 4);
            for way in
                ["<script", "alert('x')", "http://", "https://", "src=", "url(", "@import", "<link", "NaN", "inf\""]
            {
                assert!(!page.contains(way), "{way}");
            }
        }
    }

    #[test]
    fn every_element_is_closed_and_the_loops_differ() {
        let (closed, open) = (page(&sweep(None)), page(&sweep(Some(0.5))));
        for element in ["section", "table", "tr", "th", "td", "svg", "figure", "text", "main", "div", "dl", "p"] {
            let opened =
                closed.matches(&format!("<{element} ")).count() + closed.matches(&format!("<{element}>")).count();
            assert_eq!(opened, closed.matches(&format!("</{element}>")).count(), "{element}");
            assert!(opened > 0, "{element}");
        }
        assert!(closed.contains("Beside the reference deployment") && !closed.contains("were due"));
        assert!(!open.contains("Beside the reference deployment") && open.contains("were due"));
    }

    #[test]
    fn a_sweep_without_steps_is_a_page_too() {
        assert!(page(&Sweep::new(About::new("m"), Targets::default())).ends_with("</html>\n"));
    }
}
