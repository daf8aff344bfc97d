//! What a server says of itself under `/metrics`, in Prometheus' text format.

use serde::Serialize;

/// The program behind an endpoint, as the names of its metrics tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// `SGLang`.
    Sglang,
    /// llama.cpp's server.
    LlamaCpp,
}

/// What a server says of itself. Each field is none when the server does not say, which is not zero. Figures of several
/// engines behind one address are added up.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ServerMetrics {
    /// The program.
    pub engine: Option<Engine>,
    /// Requests that wait inside the server for a place.
    pub waiting_requests: Option<u64>,
    /// Requests that are being answered.
    pub running_requests: Option<u64>,
    /// The share of the KV cache that is in use, 0 to 1; of several engines the fullest.
    pub kv_cache_use: Option<f64>,
    /// Prompt tokens that were looked up in the prefix cache since the server was started.
    pub prefix_cache_queries_tokens: Option<u64>,
    /// Prompt tokens that were found there.
    pub prefix_cache_hits_tokens: Option<u64>,
    /// Prompt tokens that were processed since the server was started.
    pub prompt_tokens: Option<u64>,
    /// Tokens that were generated since the server was started.
    pub generated_tokens: Option<u64>,
    /// Requests that lost their place in the KV cache to others and were begun anew, since the server was started.
    pub preempted_requests: Option<u64>,
    /// The tokens of a block, the unit in which prompts are cached.
    pub block_tokens: Option<u64>,
    /// Whether the prefix cache is on.
    pub prefix_caching: Option<bool>,
}

impl ServerMetrics {
    /// Reads the metrics of vLLM, `SGLang` and llama.cpp, under their names of today and older ones. None when nothing in
    /// the text is known.
    ///
    /// ```
    /// use slugline::server::ServerMetrics;
    ///
    /// let text = "vllm:num_requests_waiting{engine=\"0\"} 3.0\nvllm:cache_config_info{block_size=\"16\"} 1.0\n";
    /// let metrics = ServerMetrics::parse(text).unwrap();
    /// assert_eq!((metrics.waiting_requests, metrics.block_tokens), (Some(3), Some(16)));
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let mut metrics = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            let engine = match name.split_once(':') {
                Some(("vllm", _)) => Engine::Vllm,
                Some(("sglang", _)) => Engine::Sglang,
                Some(("llamacpp", _)) => Engine::LlamaCpp,
                _ => continue,
            };
            metrics.engine.get_or_insert(engine);
            metrics.take_in(name, labels, value);
        }
        // llama.cpp counts the tokens that it processed and those that it had apart from each other.
        if let (Some(Engine::LlamaCpp), Some(had)) = (metrics.engine, metrics.prefix_cache_hits_tokens) {
            metrics.prefix_cache_queries_tokens = Some(had.saturating_add(metrics.prompt_tokens.unwrap_or(0)));
        }
        metrics.engine.is_some().then_some(metrics)
    }

    fn take_in(&mut self, name: &str, labels: &str, value: f64) {
        let add = |sum: &mut Option<u64>| *sum = Some(sum.unwrap_or(0).saturating_add(value as u64));
        match name {
            "vllm:num_requests_waiting" | "sglang:num_queue_reqs" | "llamacpp:requests_deferred" => {
                add(&mut self.waiting_requests);
            }
            "vllm:num_requests_running" | "sglang:num_running_reqs" | "llamacpp:requests_processing" => {
                add(&mut self.running_requests);
            }
            "vllm:kv_cache_usage_perc"
            | "vllm:gpu_cache_usage_perc"
            | "sglang:token_usage"
            | "llamacpp:kv_cache_usage_ratio" => {
                self.kv_cache_use = Some(self.kv_cache_use.unwrap_or(0.0).max(value.min(1.0)));
            }
            "vllm:prefix_cache_queries_total" | "vllm:gpu_prefix_cache_queries_total" => {
                add(&mut self.prefix_cache_queries_tokens);
            }
            "vllm:prompt_tokens_total" | "llamacpp:prompt_tokens_total" => add(&mut self.prompt_tokens),
            // It looks every prompt token up.
            "sglang:prompt_tokens_total" => {
                add(&mut self.prompt_tokens);
                add(&mut self.prefix_cache_queries_tokens);
            }
            "vllm:generation_tokens_total" | "sglang:generation_tokens_total" | "llamacpp:tokens_predicted_total" => {
                add(&mut self.generated_tokens);
            }
            "vllm:num_preemptions_total" => add(&mut self.preempted_requests),
            "vllm:prefix_cache_hits_total"
            | "vllm:gpu_prefix_cache_hits_total"
            | "sglang:cached_tokens_total"
            | "llamacpp:prompt_tokens_cached_total" => {
                add(&mut self.prefix_cache_hits_tokens);
            }
            "vllm:cache_config_info" => {
                self.block_tokens =
                    label(labels, "block_size").and_then(|size| size.parse().ok()).filter(|&size| size > 0);
                self.prefix_caching = match label(labels, "enable_prefix_caching") {
                    Some("True" | "true") => Some(true),
                    Some("False" | "false") => Some(false),
                    _ => None,
                };
            }
            _ => {}
        }
    }
}

/// The name, the labels and the value of a line; none when it is a comment or has no sensible value.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None => ("", rest),
    };
    let value = value.split_whitespace().next()?.parse::<f64>().ok()?;
    (value >= 0.0 && value.is_finite()).then_some((name, labels, value))
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let value = |label: &'a str| label.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"');
    labels.split(',').find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_of_vllm_are_read() {
        let text = "# TYPE vllm:num_requests_waiting gauge\n\
            vllm:num_requests_waiting{engine=\"0\",model_name=\"a}b\"} 3.0\n\
            vllm:num_requests_waiting{engine=\"1\",model_name=\"a}b\"} 4.0\n\
            vllm:num_requests_waiting_by_reason{} 9\n\
            vllm:num_requests_running{engine=\"0\"} 2.0\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n\
            vllm:prefix_cache_queries_total{engine=\"0\"} 1.5e+03\nvllm:prefix_cache_queries_created{engine=\"0\"} 7\n\
            vllm:prefix_cache_hits_total{engine=\"0\"} 900.0\n\
            vllm:prompt_tokens_total{engine=\"0\"} 1600.0\nvllm:generation_tokens_total{engine=\"0\"} 70.0\n\
            vllm:num_preemptions_total{engine=\"0\"} 2.0\n\
            vllm:cache_config_info{mamba_block_size=\"None\",block_size=\"528\",enable_prefix_caching=\"True\"} 1.0\n";
        let expected = ServerMetrics {
            engine: Some(Engine::Vllm),
            waiting_requests: Some(7),
            running_requests: Some(2),
            kv_cache_use: Some(0.5),
            prefix_cache_queries_tokens: Some(1_500),
            prefix_cache_hits_tokens: Some(900),
            prompt_tokens: Some(1_600),
            generated_tokens: Some(70),
            preempted_requests: Some(2),
            block_tokens: Some(528),
            prefix_caching: Some(true),
        };
        assert_eq!(ServerMetrics::parse(text), Some(expected));
    }

    #[test]
    fn older_names_and_other_servers_are_known() {
        let parse = |text: &str| ServerMetrics::parse(text).unwrap();
        let old = parse(
            "vllm:gpu_prefix_cache_queries_total 8\nvllm:gpu_prefix_cache_hits_total 4\nvllm:gpu_cache_usage_perc 1.2\n\
             vllm:cache_config_info{block_size=\"None\",enable_prefix_caching=\"None\"} 1.0\n",
        );
        assert_eq!((old.prefix_cache_queries_tokens, old.prefix_cache_hits_tokens), (Some(8), Some(4)));
        assert_eq!((old.kv_cache_use, old.block_tokens, old.prefix_caching), (Some(1.0), None, None));
        let llama = parse(
            "llamacpp:requests_deferred 2\nllamacpp:requests_processing 1\nllamacpp:prompt_tokens_total 900\n\
             llamacpp:tokens_predicted_total 40\nllamacpp:kv_cache_usage_ratio 0.5\nllamacpp:prompt_seconds_total 3\n",
        );
        assert_eq!((llama.engine, llama.waiting_requests), (Some(Engine::LlamaCpp), Some(2)));
        assert_eq!((llama.prompt_tokens, llama.generated_tokens, llama.kv_cache_use), (Some(900), Some(40), Some(0.5)));
        assert_eq!((llama.prefix_cache_hits_tokens, llama.prefix_cache_queries_tokens), (None, None));
        // As a server of November 2026 wrote them.
        let llama = parse("llamacpp:prompt_tokens_total 22711\nllamacpp:prompt_tokens_cached_total 71602\n");
        assert_eq!((llama.prefix_cache_hits_tokens, llama.prefix_cache_queries_tokens), (Some(71_602), Some(94_313)));
        let sglang = parse(
            "sglang:num_queue_reqs{tp=\"0\"} 1\nsglang:cached_tokens_total{cache_source=\"device\"} 5\n\
             sglang:cached_tokens_total{cache_source=\"host\"} 6\nsglang:prompt_tokens_total 20\n",
        );
        assert_eq!((sglang.engine, sglang.prefix_cache_hits_tokens), (Some(Engine::Sglang), Some(11)));
    }

    #[test]
    fn odd_lines_say_nothing() {
        for odd in ["", "<html>", "python_gc_objects_collected_total{generation=\"0\"} 3", "vllm:", "vllm:x{ 3", "{"] {
            assert_eq!(ServerMetrics::parse(odd), None, "{odd}");
        }
        for odd in ["NaN", "-1", "x", ""] {
            let text = format!("vllm:num_requests_running 1\nvllm:num_requests_waiting {odd}\n");
            assert_eq!(ServerMetrics::parse(&text).unwrap().waiting_requests, None, "{odd}");
        }
        let huge = ServerMetrics::parse("vllm:num_requests_waiting 1e300\nvllm:num_requests_waiting 1e300").unwrap();
        assert_eq!(huge.waiting_requests, Some(u64::MAX));
    }
}
