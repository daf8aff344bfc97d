//! What a simulated server can be set to.

use std::io;

use super::SimulatedServer;
use super::engine::SimulatedEngine;
use super::faults::Faults;
use super::latency::Latency;

/// Which `response_format`s a simulated server takes; others get status 400.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StructuredOutputs {
    /// `json_schema` with any root, and `json_object`, as vLLM does.
    #[default]
    JsonSchema,
    /// `json_schema` with an object at the root only, and `json_object`, as `OpenAI` does.
    JsonSchemaObjectRootOnly,
    /// `json_object` only.
    JsonObjectOnly,
    /// None.
    None,
}

/// All settings of a simulated server.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can be set without the others")]
pub(super) struct Settings {
    pub(super) model: String,
    pub(super) latency: Latency,
    pub(super) max_num_seqs: usize,
    pub(super) max_model_len: usize,
    pub(super) max_waiting: Option<usize>,
    pub(super) api_key: Option<String>,
    pub(super) seed: u64,
    pub(super) noise: f64,
    pub(super) has_logprobs: bool,
    pub(super) structured_outputs: StructuredOutputs,
    pub(super) has_label_whitespace: bool,
    pub(super) output_tokens: Option<usize>,
    pub(super) block_tokens: usize,
    pub(super) cache_tokens: usize,
    pub(super) least_cached_tokens: usize,
    pub(super) has_slot_cache: bool,
    pub(super) has_metrics: bool,
    pub(super) has_stamped_template: bool,
}

/// Sets up a [`SimulatedServer`], or a [`SimulatedEngine`] without sockets.
#[derive(Clone, Debug)]
#[must_use]
pub struct SimulatedServerBuilder {
    settings: Settings,
    faults: Faults,
    port: u16,
}

impl Default for SimulatedServerBuilder {
    fn default() -> Self {
        let settings = Settings {
            model: "simulated".to_owned(),
            latency: Latency::instant(),
            max_num_seqs: 128,
            max_model_len: 4_096,
            max_waiting: None,
            api_key: None,
            seed: 0,
            noise: 0.0,
            has_logprobs: true,
            structured_outputs: StructuredOutputs::default(),
            has_label_whitespace: true,
            output_tokens: None,
            block_tokens: 16,
            cache_tokens: 65_536,
            least_cached_tokens: 0,
            has_slot_cache: false,
            has_metrics: true,
            has_stamped_template: false,
        };
        Self { settings, faults: Faults::none(), port: 0 }
    }
}

impl SimulatedServerBuilder {
    /// The name of the model; requests for another one get status 404. Default `simulated`.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.settings.model = model.into();
        self
    }

    /// How fast it is. Default [`Latency::instant`].
    pub fn latency(mut self, latency: Latency) -> Self {
        self.settings.latency = latency;
        self
    }

    /// The most requests that run at once; the rest wait in the order of their arrival. Default 128, at least 1.
    pub fn max_num_seqs(mut self, requests: usize) -> Self {
        self.settings.max_num_seqs = requests;
        self
    }

    /// The most tokens of prompt and output together; requests for more get status 400 in vLLM's words. Default 4096.
    pub fn max_model_len(mut self, tokens: usize) -> Self {
        self.settings.max_model_len = tokens;
        self
    }

    /// The most requests that wait; more get status 429. Default none, like vLLM: the queue has no end.
    pub fn max_waiting(mut self, requests: Option<usize>) -> Self {
        self.settings.max_waiting = requests;
        self
    }

    /// The key that requests under `/v1` must have as a bearer token, else they get status 401. Default none.
    pub fn api_key(mut self, key: Option<String>) -> Self {
        self.settings.api_key = key;
        self
    }

    /// The seed of faults and noise. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// How it fails. Default not at all.
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// The share of items, 0 to 1, that get a wrong label, with less confidence. Which ones depends on their text and the
    /// seed alone. Default 0: the label of the word count, right or not.
    pub fn noise(mut self, share: f64) -> Self {
        self.settings.noise = share;
        self
    }

    /// Whether it gives log-probabilities when asked; else it ignores the wish. Default true.
    pub fn logprobs(mut self, gives: bool) -> Self {
        self.settings.has_logprobs = gives;
        self
    }

    /// Which `response_format`s it takes. Default [`StructuredOutputs::JsonSchema`].
    pub fn structured_outputs(mut self, structured_outputs: StructuredOutputs) -> Self {
        self.settings.structured_outputs = structured_outputs;
        self
    }

    /// Whether its JSON has blanks after colons and commas, which cost about three tokens an item. Default true, like
    /// vLLM's.
    pub fn label_whitespace(mut self, has: bool) -> Self {
        self.settings.has_label_whitespace = has;
        self
    }

    /// Pads every answer with white space to this many output tokens, or to the request's `max_tokens` if that is less,
    /// for load experiments. Default none: as long as the answer is.
    pub fn output_tokens(mut self, tokens: Option<usize>) -> Self {
        self.settings.output_tokens = tokens;
        self
    }

    /// The prefix cache: tokens in a block, and tokens in all; 0 in all turns it off. The latter is also what the
    /// KV-cache usage in `/metrics` is a share of. Default blocks of 16, 65,536 in all.
    pub fn prefix_cache(mut self, block_tokens: usize, cache_tokens: usize) -> Self {
        self.settings.block_tokens = block_tokens.max(1);
        self.settings.cache_tokens = cache_tokens;
        self
    }

    /// The fewest leading tokens that are taken from the cache, as hosted providers have it (1,024). Default 0.
    pub fn least_cached_tokens(mut self, tokens: usize) -> Self {
        self.settings.least_cached_tokens = tokens;
        self
    }

    /// Whether each place to run has a prefix cache of its own, token by token, in place of the common one in blocks, as
    /// llama.cpp's slots do. Default false.
    pub fn slot_cache(mut self, has: bool) -> Self {
        self.settings.has_slot_cache = has;
        self
    }

    /// Whether it has `/metrics`. Default true.
    pub fn metrics(mut self, has: bool) -> Self {
        self.settings.has_metrics = has;
        self
    }

    /// Whether the chat template writes something new in front of each prompt, as the time, so that no two prompts begin
    /// with the same tokens. Default false.
    pub fn stamped_template(mut self, is: bool) -> Self {
        self.settings.has_stamped_template = is;
        self
    }

    /// The port on 127.0.0.1. Default 0: any free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Starts it on a socket, within the current tokio runtime.
    ///
    /// # Errors
    /// The port cannot be listened on.
    pub async fn start(self) -> io::Result<SimulatedServer> {
        let port = self.port;
        SimulatedServer::listen(self.engine(), port).await
    }

    /// Makes it without sockets.
    pub fn engine(self) -> SimulatedEngine {
        SimulatedEngine::new(self.settings, self.faults)
    }
}
