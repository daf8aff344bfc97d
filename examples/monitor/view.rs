//! From the figures of two looks to what is shown.

use super::alerts::alerts;
use super::prometheus::{Page, Sample};

/// Two looks at a server.
pub(crate) struct Look<'a> {
    /// None at the first look: there are no rates yet.
    pub(crate) before: Option<&'a Page>,
    pub(crate) now: &'a Page,
    /// The time between them.
    pub(crate) seconds: f64,
}

/// What is shown of a server: names with their text. What it does not say is left out.
#[derive(Debug, PartialEq)]
pub(crate) struct Figures {
    pub(crate) program: &'static str,
    pub(crate) rows: Vec<(&'static str, String)>,
}

/// The figures of whatever server it is; none when none of its names is known.
pub(crate) fn figures(look: &Look<'_>) -> Option<Figures> {
    let now = look.now;
    let (program, mut rows) = if now.sum("slugline_items_total").is_some() {
        ("slugline service", slugline(look))
    } else if now.sum("vllm:num_requests_running").is_some() {
        ("vLLM", vllm(look))
    } else if now.sum("sglang:num_running_reqs").is_some() {
        ("SGLang", sglang(look))
    } else if now.sum("llamacpp:requests_processing").is_some() {
        ("llama.cpp", llama_cpp(look))
    } else {
        return None;
    };
    let alerts = alerts(now);
    if !alerts.is_empty() {
        rows.push(("alerts", alerts.join(", ")));
    }
    Some(Figures { program, rows })
}

fn slugline(look: &Look<'_>) -> Vec<(&'static str, String)> {
    let now = look.now;
    let mut rows = Vec::new();
    let failed = look.rate("slugline_items_failed_total").filter(|rate| *rate > 0.0);
    rows.push((
        "items",
        joined([
            look.rate("slugline_items_categorized_total").map(|rate| format!("{rate:.1}/s categorized")),
            failed.map(|rate| format!("{rate:.2}/s failed")),
            now.sum("slugline_waiting_items")
                .or_else(|| now.sum("slugline_queue_items"))
                .map(|items| format!("{items} waiting")),
            now.sum("slugline_calls_in_progress").map(|calls| format!("{calls} calls under way")),
        ]),
    ));
    let (sent, answered) = (look.rate("slugline_requests_total"), look.rate("slugline_requests_answered_total"));
    rows.push((
        "requests",
        joined([
            answered.map(|rate| format!("{rate:.2}/s answered")),
            answered
                .zip(sent)
                .filter(|(_, sent)| *sent > 0.0)
                .map(|(answered, sent)| format!("success {:.1} %", 100.0 * (answered / sent).min(1.0))),
            look.rate("slugline_retries_total")
                .filter(|rate| *rate > 0.0)
                .map(|rate| format!("{rate:.2}/s sent again")),
        ]),
    ));
    rows.push(("latency", percentiles(look.quantiles("slugline_request_latency_seconds_bucket"))));
    rows.push((
        "tokens",
        tokens(
            look.rate("slugline_prompt_tokens_total"),
            look.rate("slugline_output_tokens_total"),
            look.rate("slugline_cached_tokens_total"),
        ),
    ));
    rows.extend(now.all("slugline_endpoint_up").map(|up| ("endpoint", endpoint(now, up))));
    rows.extend(now.all("slugline_gpu_memory_share").map(|memory| ("GPU", gpu(now, memory))));
    rows.retain(|(_, text)| !text.is_empty());
    rows
}

/// An endpoint with its health and its limit.
fn endpoint(now: &Page, up: &Sample) -> String {
    let name = up.label("endpoint").unwrap_or("without a name");
    let said = |figure: &str| value_of(now, figure, ("endpoint", name));
    let of = |figure: &str| said(figure).unwrap_or(0.0);
    let health = if up.value > 0.0 { "up" } else { "DOWN" };
    let (in_flight, limit) = (of("slugline_endpoint_in_flight"), of("slugline_endpoint_concurrency_limit"));
    let waiting =
        said("slugline_server_waiting_requests").map(|requests| format!(", {requests} wait inside the server"));
    format!("{name} {health}, {in_flight} of {limit} in flight{}", waiting.unwrap_or_default())
}

/// A GPU that the program watches itself.
fn gpu(now: &Page, memory: &Sample) -> String {
    let name = memory.label("gpu").unwrap_or("without a number");
    let busy = value_of(now, "slugline_gpu_utilization_share", ("gpu", name));
    joined([
        Some(format!("{name}: memory {} in use", percent(memory.value))),
        busy.map(|share| format!("busy {}", percent(share))),
    ])
}

/// The figure that has a label.
fn value_of(now: &Page, figure: &str, (label, value): (&str, &str)) -> Option<f64> {
    now.all(figure).find(|sample| sample.label(label) == Some(value)).map(|sample| sample.value)
}

fn vllm(look: &Look<'_>) -> Vec<(&'static str, String)> {
    let now = look.now;
    let preempted = look.rate("vllm:num_preemptions_total").filter(|rate| *rate > 0.0);
    let rows = vec![
        (
            "requests",
            joined([
                look.rate("vllm:request_success_total").map(|rate| format!("{rate:.2}/s answered")),
                now.sum("vllm:num_requests_running").map(|requests| format!("{requests} running")),
                now.sum("vllm:num_requests_waiting").map(|requests| format!("{requests} waiting")),
                preempted.map(|rate| format!("{rate:.2}/s preempted")),
            ]),
        ),
        ("latency", percentiles(look.quantiles("vllm:e2e_request_latency_seconds_bucket"))),
        ("first token", percentiles(look.quantiles("vllm:time_to_first_token_seconds_bucket"))),
        (
            "tokens",
            tokens(
                look.rate("vllm:prompt_tokens_total"),
                look.rate("vllm:generation_tokens_total"),
                look.rate("vllm:prefix_cache_hits_total"),
            ),
        ),
        ("KV cache", now.sum("vllm:kv_cache_usage_perc").map_or_else(String::new, |share| percent(share) + " in use")),
    ];
    rows.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn sglang(look: &Look<'_>) -> Vec<(&'static str, String)> {
    let now = look.now;
    let rows = vec![
        (
            "requests",
            joined([
                look.rate("sglang:num_requests_total").map(|rate| format!("{rate:.2}/s")),
                now.sum("sglang:num_running_reqs").map(|requests| format!("{requests} running")),
                now.sum("sglang:num_queue_reqs").map(|requests| format!("{requests} waiting")),
            ]),
        ),
        ("latency", percentiles(look.quantiles("sglang:e2e_request_latency_seconds_bucket"))),
        ("first token", percentiles(look.quantiles("sglang:time_to_first_token_seconds_bucket"))),
        (
            "tokens",
            tokens(
                look.rate("sglang:prompt_tokens_total"),
                look.rate("sglang:generation_tokens_total"),
                look.rate("sglang:cached_tokens_total"),
            ),
        ),
        ("KV cache", now.sum("sglang:token_usage").map_or_else(String::new, |share| percent(share) + " in use")),
    ];
    rows.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn llama_cpp(look: &Look<'_>) -> Vec<(&'static str, String)> {
    let now = look.now;
    // It counts the tokens that it processed and those that it had apart from each other.
    let (processed, cached) =
        (look.rate("llamacpp:prompt_tokens_total"), look.rate("llamacpp:prompt_tokens_cached_total"));
    let prompt = processed.map(|processed| processed + cached.unwrap_or(0.0));
    let rows = vec![
        (
            "requests",
            joined([
                now.sum("llamacpp:requests_processing").map(|requests| format!("{requests} running")),
                now.sum("llamacpp:requests_deferred").map(|requests| format!("{requests} waiting")),
            ]),
        ),
        ("tokens", tokens(prompt, look.rate("llamacpp:tokens_predicted_total"), cached)),
        (
            "KV cache",
            now.sum("llamacpp:kv_cache_usage_ratio").map_or_else(String::new, |share| percent(share) + " in use"),
        ),
    ];
    rows.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

fn joined<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn percentiles(seconds: [Option<f64>; 3]) -> String {
    let named = ["p50", "p95", "p99"].into_iter().zip(seconds);
    joined::<3>(
        named.map(|(name, s)| s.map(|s| format!("{name} {s:.2} s"))).collect::<Vec<_>>().try_into().unwrap_or_default(),
    )
}

fn tokens(prompt: Option<f64>, output: Option<f64>, cached: Option<f64>) -> String {
    let share = cached.zip(prompt).filter(|(_, prompt)| *prompt > 0.0).map(|(cached, prompt)| cached / prompt);
    joined([
        prompt.map(|rate| format!("{rate:.0}/s prompt")),
        share.map(|share| percent(share.min(1.0)) + " of it cached"),
        output.map(|rate| format!("{rate:.0}/s output")),
    ])
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

impl Look<'_> {
    /// The rate of a counter since the last look. A counter that went back was started again.
    fn rate(&self, name: &str) -> Option<f64> {
        let now = self.now.sum(name)?;
        // A counter with labels begins to exist with its first event.
        let before = self.before?.sum(name).unwrap_or(0.0);
        (self.seconds > 0.0).then(|| (now - before).max(0.0) / self.seconds)
    }

    /// The median, the 95th and the 99th percentile of a histogram since the last look.
    fn quantiles(&self, buckets: &str) -> [Option<f64>; 3] {
        let now = cumulative(self.now, buckets);
        let before = self.before.map(|page| cumulative(page, buckets)).unwrap_or_default();
        let grown: Vec<(f64, f64)> = now
            .iter()
            .map(|(bound, count)| {
                let earlier =
                    before.iter().find(|(known, _)| known.total_cmp(bound).is_eq()).map_or(0.0, |(_, count)| *count);
                (*bound, (count - earlier).max(0.0))
            })
            .collect();
        if self.before.is_none() {
            return [None; 3];
        }
        [0.5, 0.95, 0.99].map(|share| quantile(&grown, share))
    }
}

/// The buckets of a histogram by their upper bound, those of several engines together.
fn cumulative(page: &Page, name: &str) -> Vec<(f64, f64)> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for sample in page.all(name) {
        let Some(bound) = sample.label("le").and_then(|bound| bound.parse::<f64>().ok()) else { continue };
        match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
            Some((_, count)) => *count += sample.value,
            None => buckets.push((bound, sample.value)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

/// As Prometheus' `histogram_quantile`: evenly spread within a bucket, and the greatest bound for what is beyond it.
fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let wanted = share * total;
    let at = buckets.iter().position(|(_, count)| *count >= wanted)?;
    let (high, count) = buckets[at];
    let (low, below) = at.checked_sub(1).map_or((0.0, 0.0), |before| buckets[before]);
    if !high.is_finite() {
        return Some(low);
    }
    Some(low + (high - low) * (wanted - below) / (count - below).max(f64::MIN_POSITIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(before: &str, now: &str) -> Vec<(&'static str, String)> {
        let (before, now) = (Page::read(before), Page::read(now));
        figures(&Look { before: Some(&before), now: &now, seconds: 2.0 }).unwrap().rows
    }

    fn row<'a>(rows: &'a [(&'static str, String)], name: &str) -> &'a str {
        rows.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text.as_str())
    }

    #[test]
    fn rates_and_percentiles_of_vllm_are_of_the_time_between_two_looks() {
        let page = |answered: u32, fast: u32, all: u32| {
            format!(
                "vllm:num_requests_running{{engine=\"0\"}} 8.0\nvllm:num_requests_waiting{{engine=\"0\"}} 3.0\n\
                 vllm:request_success_total{{finished_reason=\"stop\"}} {answered}\n\
                 vllm:e2e_request_latency_seconds_bucket{{le=\"1.0\"}} {fast}\n\
                 vllm:e2e_request_latency_seconds_bucket{{le=\"2.0\"}} {all}\n\
                 vllm:e2e_request_latency_seconds_bucket{{le=\"+Inf\"}} {all}\n\
                 vllm:kv_cache_usage_perc 0.34\n"
            )
        };
        let rows = shown(&page(1_000, 1_000, 1_000), &page(1_010, 1_000, 1_010));
        assert_eq!(row(&rows, "requests"), "5.00/s answered, 8 running, 3 waiting");
        // All ten took between one and two seconds.
        assert_eq!(row(&rows, "latency"), "p50 1.50 s, p95 1.95 s, p99 1.99 s");
        assert_eq!(row(&rows, "KV cache"), "34 % in use");
        assert_eq!(row(&rows, "first token"), "");
    }

    #[test]
    fn a_service_is_shown_with_its_endpoints_and_alerts() {
        let page = |items: u32| {
            format!(
                "slugline_items_total {items}\nslugline_items_categorized_total {items}\nslugline_queue_items 4\n\
                 slugline_requests_total {}\nslugline_requests_answered_total {}\n\
                 slugline_request_latency_seconds_bucket{{le=\"3\"}} 0\n\
                 slugline_request_latency_seconds_bucket{{le=\"4\"}} {items}\n\
                 slugline_request_latency_seconds_bucket{{le=\"+Inf\"}} {items}\n\
                 slugline_prompt_tokens_total {}\nslugline_cached_tokens_total {}\n\
                 slugline_endpoint_up{{endpoint=\"http://a/v1\"}} 1\nslugline_endpoint_up{{endpoint=\"http://b/v1\"}} 0\n\
                 slugline_endpoint_in_flight{{endpoint=\"http://a/v1\"}} 7\n\
                 slugline_server_waiting_requests{{endpoint=\"http://a/v1\"}} 3\n\
                 slugline_gpu_memory_share{{gpu=\"0\"}} 0.88\nslugline_gpu_utilization_share{{gpu=\"0\"}} 0.5\n\
                 slugline_endpoint_concurrency_limit{{endpoint=\"http://a/v1\"}} 25\n\
                 slugline_alert_level{{signal=\"queue-depth\",subject=\"http://a/v1\"}} 1\n",
                items / 2,
                items / 4,
                100 * items,
                50 * items
            )
        };
        let rows = shown(&page(0), &page(40));
        assert_eq!(row(&rows, "items"), "20.0/s categorized, 4 waiting");
        assert_eq!(row(&rows, "requests"), "5.00/s answered, success 50.0 %");
        assert_eq!(row(&rows, "latency"), "p50 3.50 s, p95 3.95 s, p99 3.99 s");
        assert_eq!(row(&rows, "tokens"), "2000/s prompt, 50 % of it cached");
        let endpoints: Vec<_> = rows.iter().filter(|(name, _)| *name == "endpoint").map(|(_, text)| text).collect();
        assert_eq!(
            endpoints,
            ["http://a/v1 up, 7 of 25 in flight, 3 wait inside the server", "http://b/v1 DOWN, 0 of 0 in flight"]
        );
        assert_eq!(row(&rows, "GPU"), "0: memory 88 % in use, busy 50 %");
        assert_eq!(row(&rows, "alerts"), "warning queue-depth of http://a/v1");
    }

    #[test]
    fn the_cached_tokens_of_llama_cpp_are_part_of_its_prompt_tokens() {
        let page = |processed: u32, cached: u32| {
            format!(
                "llamacpp:requests_processing 4\nllamacpp:prompt_tokens_total {processed}\n\
                 llamacpp:prompt_tokens_cached_total {cached}\nllamacpp:tokens_predicted_total 7\n"
            )
        };
        let rows = shown(&page(100, 0), &page(200, 300));
        assert_eq!(row(&rows, "tokens"), "200/s prompt, 75 % of it cached, 0/s output");
    }

    #[test]
    fn a_first_look_has_no_rates_and_unknown_pages_show_nothing() {
        let page = Page::read("llamacpp:requests_processing 1\nllamacpp:prompt_tokens_total 50\n");
        let first = figures(&Look { before: None, now: &page, seconds: 0.0 }).unwrap();
        assert_eq!(first, Figures { program: "llama.cpp", rows: vec![("requests", "1 running".to_owned())] });
        assert_eq!(figures(&Look { before: None, now: &Page::read("up 1\n<html>\n"), seconds: 0.0 }), None);
    }

    #[test]
    fn labels_are_read_with_their_escapes() {
        let page = Page::read("a{x=\"1}\\\"2\",y=\"z\"} 3 1700000000\na{} 4\n# a 5\na{x=\"open 6\n");
        assert_eq!(page.sum("a"), Some(7.0));
        assert_eq!(page.all("a").next().and_then(|sample| sample.label("x")), Some("1}\"2"));
    }
}
