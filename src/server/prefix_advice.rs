//! What to do when a prefix is not cached as it could be, in words.

use super::metrics::Engine;
use super::prefix_cache::{PROVIDER_LEAST_TOKENS, PrefixVerdict, whole_blocks};

/// What is the matter and its remedy; none when nothing is. `share` of the prefix was cached of late.
pub(super) fn of(verdict: PrefixVerdict, engine: Option<Engine>, prefix_tokens: u64, share: f64) -> Option<String> {
    let percent = format!("{:.0} %", 100.0 * share);
    Some(match verdict {
        PrefixVerdict::Fine => return None,
        PrefixVerdict::NotReported => {
            let remedy = match engine {
                Some(Engine::Vllm) => "start vLLM with --enable-prompt-tokens-details",
                Some(Engine::Sglang) => "start SGLang with --enable-cache-report",
                Some(Engine::LlamaCpp) => "newer versions of llama.cpp do",
                None => "vLLM does with --enable-prompt-tokens-details, SGLang with --enable-cache-report",
            };
            format!("the server does not say how many prompt tokens its prefix cache has: {remedy}")
        }
        PrefixVerdict::Disabled => no_cached_token(engine).to_owned(),
        PrefixVerdict::TooShort => format!(
            "no prompt token is cached: hosted providers cache from {PROVIDER_LEAST_TOKENS} equal tokens on, and the prefix \
             has about {prefix_tokens}, so fuller descriptions of the categories would cost less than they seem to; at a \
             server of your own, prefix caching is off"
        ),
        PrefixVerdict::CoarseBlocks { block_tokens } => format!(
            "the server caches in blocks of {block_tokens} tokens or so, and only {} of the prefix's {prefix_tokens} fill \
             such blocks: set vLLM's --block-size lower if the model and the device allow it (hybrid models and CPUs have \
             large blocks), or fit the prefix to a multiple",
            whole_blocks(prefix_tokens, block_tokens)
        ),
        PrefixVerdict::SlotCache => {
            "the first request of each slot computes the prefix again: llama.cpp caches by slot, so \
                                     start it with no more slots (--parallel) than are needed; or the address leads to \
                                     several servers with a cache each"
                .to_owned()
        }
        PrefixVerdict::Unstable => format!(
            "the server has a cache, but {percent} of the prefix in it: the prompt changes inside the prefix, as by a date \
             or time that the chat template writes (fix it in the template), or the address leads to several servers with \
             a cache each (name each as an endpoint)"
        ),
        PrefixVerdict::Evicted => format!(
            "the prefix was cached, but {percent} of it in the latest requests: the server needs its memory for other \
             requests (allow fewer in flight, or give it more: vLLM's --gpu-memory-utilization), or was restarted"
        ),
    })
}

fn no_cached_token(engine: Option<Engine>) -> &'static str {
    match engine {
        Some(Engine::Vllm) => "prefix caching is off: start vLLM with --enable-prefix-caching",
        Some(Engine::Sglang) => "no prompt token is cached: start SGLang without --disable-radix-cache",
        Some(Engine::LlamaCpp) => {
            "no prompt token is cached: start llama.cpp without --no-cache-prompt, and with --swa-full for a model with a \
             sliding window"
        }
        None => {
            "no prompt token is cached: prefix caching is off at the server, or the prompt begins with something that \
             changes, such as a date that the chat template writes"
        }
    }
}
