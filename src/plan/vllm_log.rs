//! What vLLM says of its cache when it starts.

use super::error::PlanError;
use super::shape::ModelShape;

/// The lines about the KV cache in the log of vLLM's start, against which a plan can be checked.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct KvCacheLog {
    /// The tokens that the cache holds.
    pub tokens: u64,
    /// The memory of the cache in GiB, where the log says it; it is rounded there.
    pub gib: Option<f64>,
    /// The tokens of the longest request.
    pub max_model_len: Option<u64>,
    /// How many requests of that length fit at once.
    pub most_concurrency: Option<f64>,
}

const BYTES_OF_GIB: f64 = 1_073_741_824.0;

impl KvCacheLog {
    /// Finds the lines in a log: `GPU KV cache size: … tokens` (or `CPU …`), `Maximum concurrency for … tokens per request:
    /// …x`, and `Available KV cache memory: … GiB` (on a CPU `Explicitly set (…/…) GiB for KV cache`).
    ///
    /// # Errors
    /// There is no line about the size.
    pub fn parse(log: &str) -> Result<Self, PlanError> {
        let after = |words: &str| log.lines().rev().find_map(|line| Some(line.split_once(words)?.1));
        let tokens = after(" KV cache size: ").and_then(number).ok_or(PlanError::NoCacheInLog)? as u64;
        let concurrency = after("Maximum concurrency for ");
        let gib = after("Available KV cache memory: ").or_else(|| after("Explicitly set (")).and_then(number);
        Ok(Self {
            tokens,
            gib,
            max_model_len: concurrency.and_then(number).map(|tokens| tokens as u64),
            most_concurrency: concurrency.and_then(|rest| number(rest.split_once("per request: ")?.1)),
        })
    }

    /// The tokens that a cache of the logged memory holds by the formula: whole blocks of `block_tokens`. None where the log
    /// does not say the memory.
    pub fn expected_tokens(&self, shape: &ModelShape, block_tokens: u64) -> Option<u64> {
        let block_bytes = shape.bytes_per_token().checked_mul(block_tokens.max(1))?;
        Some((self.gib? * BYTES_OF_GIB) as u64 / block_bytes * block_tokens)
    }
}

/// The number at the start of a text, with or without commas between its thousands.
fn number(text: &str) -> Option<f64> {
    let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || matches!(c, ',' | '.')).collect();
    digits.replace(',', "").trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::shape::KvDtype;
    use super::*;

    /// Of vLLM 0.32.0 on a CPU with Qwen2.5-Coder-0.5B in float32, 4 GiB for the cache and blocks of 32.
    const CPU_LOG: &str = "\
(Worker pid=12273) INFO 11-24 13:10:13 [cpu_worker.py:260] Explicitly set (4.0/22.34) GiB for KV cache on node 0.
(EngineCore pid=12192) INFO 11-24 13:10:13 [kv_cache_utils.py:2327] CPU KV cache size: 174,752 tokens, Maximum concurrency for 4,096 tokens per request: 42.66x
";

    #[test]
    fn the_formula_gives_what_a_real_server_logged() {
        let log = KvCacheLog::parse(CPU_LOG).unwrap();
        assert_eq!((log.tokens, log.gib, log.max_model_len), (174_752, Some(4.0), Some(4_096)));
        let shape = ModelShape::new(24, 2, 64, KvDtype::Bits32).unwrap();
        assert_eq!(shape.bytes_per_token(), 24_576);
        assert_eq!(log.expected_tokens(&shape, 32), Some(174_752));
        let concurrency = log.tokens as f64 / 4_096.0;
        assert!((concurrency - log.most_concurrency.unwrap()).abs() < 0.01, "{concurrency}");
    }

    #[test]
    fn other_shapes_of_the_lines_are_read_and_other_texts_are_not() {
        // The form of a GPU's log; the numbers are made up.
        let gpu = "INFO [gpu_worker.py] Available KV cache memory: 7.35 GiB\nINFO GPU KV cache size: 137,616 tokens\n";
        let log = KvCacheLog::parse(gpu).unwrap();
        assert_eq!((log.tokens, log.gib, log.most_concurrency), (137_616, Some(7.35), None));
        for odd in ["", "GPU KV cache size: many tokens", "KV cache"] {
            assert_eq!(KvCacheLog::parse(odd), Err(PlanError::NoCacheInLog), "{odd}");
        }
    }
}
