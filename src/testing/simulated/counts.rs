//! What the simulated server has seen and done, and its `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::faults::Fault;

/// What a [`SimulatedServer`](super::SimulatedServer) has seen and done since it was started.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Counts {
    /// Requests by path; an unknown path is counted as `other`.
    pub requests: BTreeMap<&'static str, u64>,
    /// Responses by HTTP status, those whose connection was then cut early included.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that ended in a reset connection, because of a fault or because the server went down.
    pub resets: u64,
    /// Requests refused because the server was down. On sockets the operating system refuses them, uncounted.
    pub refused: u64,
    /// Requests that the client gave up before they were answered.
    pub abandoned: u64,
    /// Items in the prompts of the requests answered with status 200.
    pub items: u64,
    /// Prompt tokens of the requests answered with status 200, cached ones included.
    pub prompt_tokens: u64,
    /// Prompt tokens that the prefix cache had.
    pub cached_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Requests that run now.
    pub running: usize,
    /// Requests that wait for a place to run now.
    pub waiting: usize,
    /// Completion requests that are being handled now, those that hang included.
    pub in_flight: usize,
    /// The most requests that ran at once.
    pub max_running: usize,
    /// The most requests that waited at once.
    pub max_waiting: usize,
    /// The most completion requests that were handled at once.
    pub max_in_flight: usize,
    /// Connections accepted.
    pub connections: u64,
    /// Connections that are open now.
    pub open_connections: usize,
    /// Faults by kind, as far as they had a rate.
    pub faults: BTreeMap<Fault, u64>,
    /// Requests that failed for a poison item.
    pub poisoned: u64,
    /// Requests turned away because too many were in flight or waiting.
    pub overloaded: u64,
    /// Answers that ended for their `finish_reason`, by it.
    pub finish_reasons: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// All requests to the two completion endpoints.
    pub fn completion_requests(&self) -> u64 {
        ["/v1/chat/completions", "/v1/completions"].iter().filter_map(|path| self.requests.get(path)).sum()
    }

    /// Responses with this HTTP status.
    pub fn status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// The faults of one kind.
    pub fn fault(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// The share of the prompt tokens that the prefix cache had, 0 to 1; 0 before the first answer.
    pub fn cached_share(&self) -> f64 {
        self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
    }

    /// The metrics as vLLM names them, in Prometheus' text format. `block_tokens` is none when the prefix cache is off.
    pub(super) fn metrics(&self, model: &str, kv_cache_usage: f64, block_tokens: Option<usize>) -> String {
        let mut out = String::with_capacity(2_048);
        let labels = format!("engine=\"0\",model_name=\"{}\"", model.replace(['"', '\\', '\n'], "_"));
        let mut single = |name: &str, kind: &str, help: &str, value: f64| {
            // Writing to a string cannot fail.
            let _ = writeln!(
                out,
                "# HELP vllm:{name} {help}\n# TYPE vllm:{name} {kind}\nvllm:{name}{{{labels}}} {value:?}"
            );
        };
        single("num_requests_running", "gauge", "Requests that run.", self.running as f64);
        single("num_requests_waiting", "gauge", "Requests that wait.", self.waiting as f64);
        single("kv_cache_usage_perc", "gauge", "KV-cache usage, 1 is full.", kv_cache_usage);
        single(
            "prefix_cache_queries_total",
            "counter",
            "Tokens looked up in the prefix cache.",
            self.prompt_tokens as f64,
        );
        single("prefix_cache_hits_total", "counter", "Tokens found in the prefix cache.", self.cached_tokens as f64);
        single("prompt_tokens_total", "counter", "Prompt tokens processed.", self.prompt_tokens as f64);
        single("generation_tokens_total", "counter", "Output tokens generated.", self.output_tokens as f64);
        let (block, caching) = block_tokens.map_or((16, "False"), |block| (block, "True"));
        let _ = writeln!(
            out,
            "# HELP vllm:cache_config_info The cache.\n# TYPE vllm:cache_config_info gauge\n\
             vllm:cache_config_info{{block_size=\"{block}\",enable_prefix_caching=\"{caching}\",engine=\"0\"}} 1.0"
        );
        out.push_str(
            "# HELP vllm:request_success_total Requests answered.\n# TYPE vllm:request_success_total counter\n",
        );
        for (reason, count) in &self.finish_reasons {
            let count = *count as f64;
            let _ = writeln!(out, "vllm:request_success_total{{{labels},finished_reason=\"{reason}\"}} {count:?}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_of_vllm() {
        let counts = Counts {
            running: 3,
            prompt_tokens: 1_000,
            cached_tokens: 600,
            finish_reasons: BTreeMap::from([("length", 1), ("stop", 2)]),
            ..Counts::default()
        };
        let text = counts.metrics("a\"b", 0.25, Some(32));
        for line in [
            "vllm:num_requests_running{engine=\"0\",model_name=\"a_b\"} 3.0",
            "vllm:num_requests_waiting{engine=\"0\",model_name=\"a_b\"} 0.0",
            "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"a_b\"} 0.25",
            "vllm:prefix_cache_queries_total{engine=\"0\",model_name=\"a_b\"} 1000.0",
            "vllm:prefix_cache_hits_total{engine=\"0\",model_name=\"a_b\"} 600.0",
            "vllm:prompt_tokens_total{engine=\"0\",model_name=\"a_b\"} 1000.0",
            "vllm:generation_tokens_total{engine=\"0\",model_name=\"a_b\"} 0.0",
            "vllm:request_success_total{engine=\"0\",model_name=\"a_b\",finished_reason=\"stop\"} 2.0",
            "vllm:cache_config_info{block_size=\"32\",enable_prefix_caching=\"True\",engine=\"0\"} 1.0",
            "# TYPE vllm:request_success_total counter",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!((counts.cached_share() - 0.6).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_counted_is_zero() {
        let counts = Counts::default();
        assert_eq!((counts.completion_requests(), counts.status(200), counts.fault(Fault::Hang)), (0, 0, 0));
        assert!(counts.cached_share() < f64::EPSILON);
    }
}
