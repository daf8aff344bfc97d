//! The builder of a categorizer: collects, then checks everything at once.

mod build;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;

pub(crate) use self::build::Pools;
use crate::answer::AnswerForm;
use crate::calibration::Calibration;
use crate::descent::Descent;
use crate::escalation::Escalation;
use crate::prompt::tokens::CountTokens;
use crate::run::Settings;
use crate::server::{Api, Balance, EndpointConfig};
use crate::taxonomy::Taxonomy;
use crate::tuning::Tuning;

/// Configures a [`Categorizer`](crate::Categorizer). Nothing is checked before [`build`](Self::build), which reports all problems at once.
///
/// Defaults: packs of 3, item text of 150 tokens, a context of 4,096 tokens, temperature 0, 10 requests in flight per
/// endpoint adapting within 1 to 25, no rate limits, a timeout of 10 seconds, 3 transport retries, 2 content retries, and
/// a patience of 10 minutes.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a counter of tokens need not have one")]
pub struct CategorizerBuilder {
    taxonomy: Taxonomy,
    endpoints: Vec<EndpointConfig>,
    model: Option<String>,
    api_key: Option<SecretString>,
    api: Api,
    logprobs: bool,
    balance: Balance,
    concurrency: usize,
    max_concurrency: usize,
    requests_per_minute: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    timeout: Duration,
    patience: Option<Duration>,
    tokens: Option<Arc<dyn CountTokens>>,
    escalation: Option<Escalation>,
    calibrations: Vec<Calibration>,
    descent: Option<Descent>,
    field_problems: Vec<String>,
    #[cfg(feature = "ledger")]
    ledger: Option<crate::ledger::Ledger>,
    #[cfg(feature = "ledger")]
    across_versions: Option<crate::ledger::AcrossVersions>,
    #[cfg(feature = "embedded")]
    first_opinion: Option<crate::embedded::FirstOpinion>,
    settings: Settings,
}

/// How many answered texts a run remembers: about 15 MB, 45 with log-probabilities. Copies further apart are asked again.
const REMEMBERED_TEXTS: usize = 50_000;

impl CategorizerBuilder {
    pub(crate) fn new(taxonomy: Taxonomy) -> Self {
        Self {
            taxonomy,
            endpoints: Vec::new(),
            model: None,
            api_key: None,
            api: Api::Chat,
            logprobs: true,
            balance: Balance::default(),
            concurrency: 10,
            max_concurrency: 25,
            requests_per_minute: None,
            tokens_per_minute: None,
            timeout: Duration::from_secs(10),
            patience: None,
            tokens: None,
            escalation: None,
            calibrations: Vec::new(),
            descent: None,
            field_problems: Vec::new(),
            #[cfg(feature = "ledger")]
            ledger: None,
            #[cfg(feature = "ledger")]
            across_versions: None,
            #[cfg(feature = "embedded")]
            first_opinion: None,
            settings: Settings {
                pack_size: 3,
                tuning: None,
                answer_form: AnswerForm::default(),
                evens_positions: false,
                item_tokens: 150,
                context_tokens: 4_096,
                temperature: 0.0,
                request_fields: Arc::default(),
                transport_retries: 3,
                content_retries: 2,
                pack_wait: Duration::from_millis(20),
                watches_servers: false,
                waits_by_gauge: false,
                seed: None,
                labels_with_parents: false,
                abstain_below: 0.0,
                output_language: None,
                remembered_texts: REMEMBERED_TEXTS,
                #[cfg(feature = "near-duplicates")]
                near_duplicates: None,
            },
        }
    }

    /// Adds a server, by its base address such as `http://localhost:8000/v1` or with more detail. At least one is needed;
    /// the load is balanced over all.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<EndpointConfig>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// The model's name, for endpoints that do not have their own. Needed unless all have.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// The key for endpoints that do not have their own. Default: none. Nothing is taken from the environment.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        let key: String = key.into();
        self.api_key = Some(SecretString::from(key.trim().to_owned()));
        self
    }

    /// Which endpoint of the API is used. Default: [`Api::Chat`].
    #[must_use]
    pub fn api(mut self, api: Api) -> Self {
        self.api = api;
        self
    }

    /// Whether log-probabilities are asked for, which confidences come from. Default: true.
    #[must_use]
    pub fn confidence(mut self, wanted: bool) -> Self {
        self.logprobs = wanted;
        self
    }

    /// How endpoints are chosen. Default: [`Balance::TwoChoices`].
    #[must_use]
    pub fn balance(mut self, balance: Balance) -> Self {
        self.balance = balance;
        self
    }

    /// The most items that share a request, 1 to 16. Default: 3.
    #[must_use]
    pub fn pack_size(mut self, items: usize) -> Self {
        self.settings.pack_size = items;
        self
    }

    /// Lets each run find its pack size by measurement, beginning with [`pack_size`](Self::pack_size). Default: none, the
    /// pack size stays as it is set.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.settings.tuning = Some(tuning);
        self
    }

    /// The form in which the model answers. [`AnswerForm::Category`] and [`AnswerForm::Bare`] need a
    /// pack size of 1. Default: [`AnswerForm::Objects`].
    #[must_use]
    pub fn answer_form(mut self, form: AnswerForm) -> Self {
        self.settings.answer_form = form;
        self
    }

    /// Whether a category may be given together with one below it, where several are asked for
    /// ([`AnswerForm::Several`]). A walk level by level ([`Descent`]) gives the one below alone. Default: false, the one below
    /// says it all.
    #[must_use]
    pub fn labels_with_parents(mut self, wanted: bool) -> Self {
        self.settings.labels_with_parents = wanted;
        self
    }

    /// Corrects the probabilities that a model gives to labels, and with them the labels. One for each model; without
    /// log-probabilities it does nothing. Default: none.
    #[must_use]
    pub fn calibration(mut self, calibration: Calibration) -> Self {
        self.calibrations.retain(|other| other.model() != calibration.model());
        self.calibrations.push(calibration);
        self
    }

    /// Whether a run without a [`calibration`](Self::calibration) measures what the model gives each label at each position
    /// of a pack, and evens the positions out once each has seen 50 items. The items of a pack then stand in random order.
    /// It leaves the mix of labels over the whole stream as it is. All endpoints must have the same model. Default: false.
    #[must_use]
    pub fn even_positions(mut self, wanted: bool) -> Self {
        self.settings.evens_positions = wanted;
        self
    }

    /// Walks the taxonomy's tree level by level, and says how. Default: a taxonomy with parents that does not fit one prompt is
    /// walked as [`Descent::default`] has it; any other is asked about as one list.
    #[must_use]
    pub fn descend(mut self, descent: Descent) -> Self {
        self.descent = Some(descent);
        self
    }

    /// An item whose category is less probable than this, 0 to 1, after calibration and escalation, is given none:
    /// [`ItemErrorKind::BelowThreshold`](crate::ItemErrorKind::BelowThreshold), with the category that it would have been. That is
    /// neither the fallback, which the model itself chooses, nor a failure. Answers without a confidence stand; a ledger keeps
    /// them as they were. A tree that is walked has [`Descent::stop_below`] instead. Default: 0.
    #[must_use]
    pub fn abstain_below(mut self, confidence: f32) -> Self {
        self.settings.abstain_below = confidence;
        self
    }

    /// The language of the names in outcomes, as a tag such as `de`, where the taxonomy has
    /// [names](crate::Category::names) in it. The prompt stays as it is. Default: the category's own name.
    #[must_use]
    pub fn output_language(mut self, language: impl Into<String>) -> Self {
        self.settings.output_language = Some(language.into());
        self
    }

    /// Asks items again whose first answer is not sure enough. Default: none.
    #[must_use]
    pub fn escalate(mut self, escalation: Escalation) -> Self {
        self.escalation = Some(escalation);
        self
    }

    /// Keeps every answer in this ledger before it is handed on, and asks for none that is there. Categorizers may share one.
    /// Default: none.
    #[cfg(feature = "ledger")]
    #[must_use]
    pub fn ledger(mut self, ledger: crate::ledger::Ledger) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Uses answers that the ledger has of an earlier version of the taxonomy, by its name, where they still hold. Both runs
    /// must have this set, and a calibration is of one version. Default: none, another version asks everything anew.
    #[cfg(feature = "ledger")]
    #[must_use]
    pub fn across_versions(mut self, across: crate::ledger::AcrossVersions) -> Self {
        self.across_versions = Some(across);
        self
    }

    /// Lets this embedding model in the process settle all items: no endpoint and no model's name are needed, and what concerns
    /// endpoints has no effect. It is no LLM; see [`embedded`](crate::embedded).
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn embedded(self, model: impl crate::embedded::Embed) -> Self {
        self.first_opinion(crate::embedded::FirstOpinion::alone(model))
    }

    /// Lets an embedding model in the process look at every item first, and settle those that it is sure of. Default: none.
    #[cfg(feature = "embedded")]
    #[must_use]
    pub fn first_opinion(mut self, opinion: crate::embedded::FirstOpinion) -> Self {
        self.first_opinion = Some(opinion);
        self
    }

    /// Answers items whose text is nearly that of another with the other's answer, as it answers exact copies. Should the
    /// other fail, the item is asked itself. Default: none, exact copies only.
    #[cfg(feature = "near-duplicates")]
    #[must_use]
    pub fn near_duplicates(mut self, near_duplicates: crate::NearDuplicates) -> Self {
        self.settings.near_duplicates = Some(near_duplicates);
        self
    }

    /// The most tokens of an item's title and body that are shown to the model, at least 16. Default: 150.
    #[must_use]
    pub fn item_tokens(mut self, tokens: usize) -> Self {
        self.settings.item_tokens = tokens;
        self
    }

    /// The context length of the model in tokens: prompt and answer must fit. A server that states less is believed.
    /// Default: 4,096.
    #[must_use]
    pub fn context_tokens(mut self, tokens: usize) -> Self {
        self.settings.context_tokens = tokens;
        self
    }

    /// The sampling temperature, 0 to 2. Default: 0, since labels should not be dice.
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.settings.temperature = temperature;
        self
    }

    /// Adds a field to all requests, for what servers take beside OpenAI's own. A model that thinks before it answers must not,
    /// since an answer is bounded to the few tokens that its labels take:
    ///
    /// ```
    /// # use serde_json::json;
    /// # let taxonomy = slugline::Taxonomy::load("categories/newsroom.toml")?;
    /// let builder = slugline::Categorizer::builder(taxonomy)
    ///     .request_field("chat_template_kwargs", json!({"enable_thinking": false})) // Qwen3 behind vLLM, SGLang, llama.cpp
    ///     .request_field("priority", 10); // batch work behind other work, vLLM with --scheduling-policy priority
    /// # Ok::<(), slugline::TaxonomyError>(())
    /// ```
    ///
    /// `reasoning_effort` is the same for OpenAI and Ollama. The fields are part of what a ledger keeps answers under. Those that
    /// slugline sets itself cannot be set.
    #[must_use]
    pub fn request_field(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        match serde_json::to_value(value) {
            Ok(value) => drop(Arc::make_mut(&mut self.settings.request_fields).insert(name, value)),
            Err(error) => self.field_problems.push(format!("the request field {name:?} cannot be written: {error}")),
        }
        self
    }

    /// The requests in flight that each endpoint begins with, 1 to 128. Default: 10. From there the limit adapts between 1
    /// and [`max_concurrency`](Self::max_concurrency), which is raised to this value if it is lower.
    #[must_use]
    pub fn concurrency(mut self, requests: usize) -> Self {
        self.concurrency = requests;
        self
    }

    /// The most requests in flight at each endpoint, 1 to 128. Default: 25.
    #[must_use]
    pub fn max_concurrency(mut self, requests: usize) -> Self {
        self.max_concurrency = requests;
        self
    }

    /// Whether the `/metrics` of the servers are read about once a second while they answer, for the statistics and alerts:
    /// requests that run and wait, use of the KV cache, tokens
    /// ([`EndpointSnapshot::server`](crate::server::EndpointSnapshot::server)). Default: false, they are read once or twice.
    #[must_use]
    pub fn watch_server_metrics(mut self, wanted: bool) -> Self {
        self.settings.watches_servers = wanted;
        self
    }

    /// Whether a server's own count of waiting requests, or a KV cache of which 95 % are in use, from its `/metrics`, lowers
    /// the requests in flight as overload does. vLLM queues without bound and never says that it is overloaded; this keeps its queue short when others share
    /// the server. Includes [`watch_server_metrics`](Self::watch_server_metrics). Default: false.
    #[must_use]
    pub fn watch_server_queue(mut self, wanted: bool) -> Self {
        self.settings.waits_by_gauge = wanted;
        self
    }

    /// The most requests per minute to each endpoint that has no rate of its own. Default: no limit.
    #[must_use]
    pub fn requests_per_minute(mut self, rate: NonZeroU32) -> Self {
        self.requests_per_minute = Some(rate);
        self
    }

    /// The most tokens per minute, prompt and allowed output together, to each endpoint that has no rate of its own.
    /// Default: no limit.
    #[must_use]
    pub fn tokens_per_minute(mut self, rate: NonZeroU32) -> Self {
        self.tokens_per_minute = Some(rate);
        self
    }

    /// How long one attempt may take, from admission to the last byte. It is doubled, up to 120 seconds, for an endpoint
    /// that times out with a single request in flight. Default: 10 seconds.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How often a pack is sent again after a timeout, a lost connection or a server error before it is blamed, 0 to 100.
    /// Overload does not count: the pack waits. Default: 3.
    #[must_use]
    pub fn transport_retries(mut self, retries: u32) -> Self {
        self.settings.transport_retries = retries;
        self
    }

    /// How often an item is asked again with others when its answer is not valid, 0 to 100. After that it is asked alone:
    /// twice at most, once with 0. Default: 2.
    #[must_use]
    pub fn content_retries(mut self, retries: u32) -> Self {
        self.settings.content_retries = retries;
        self
    }

    /// How long an item waits for others to share its request. Default: 20 milliseconds. What an engine in the process leaves to
    /// the LLM, and what is asked again at a stronger model, comes in spurts and waits for a second at least.
    #[must_use]
    pub fn pack_wait(mut self, wait: Duration) -> Self {
        self.settings.pack_wait = wait;
        self
    }

    /// How long a run waits while no endpoint answers, before it ends. Default: 10 minutes, and 30 seconds for endpoints
    /// that have never answered; what is set here is for both.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Counts tokens with this instead of the estimator, for example with [`ExactTokens`](crate::prompt::tokens::ExactTokens)
    /// of the feature `tokenizers`. Texts are still cut by the estimator. Default: the estimator, corrected by what the
    /// server counts.
    #[must_use]
    pub fn count_tokens_with(mut self, tokens: impl CountTokens + 'static) -> Self {
        self.tokens = Some(Arc::new(tokens));
        self
    }

    /// Makes backoff, balance and the order of items that are asked again repeatable. Default: random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Categorizer, Category};

    fn taxonomy() -> Taxonomy {
        Taxonomy::new("t", "1", [Category::new("a", "A", "One."), Category::new("b", "B", "Two.")]).unwrap()
    }

    #[test]
    fn the_builder_reports_every_problem_at_once() {
        let error = Categorizer::builder(taxonomy())
            .endpoint("localhost:8000")
            .endpoint(EndpointConfig::new("http://localhost:8000/v1/chat/completions").model("m"))
            .endpoint(EndpointConfig::new("http://user:secret@localhost:8000/v1").model("m"))
            .endpoint(EndpointConfig::new("http://localhost:8000/v1").model("m").api_key("bad\nkey\u{e9}\n"))
            .pack_size(0)
            .temperature(f32::NAN)
            .concurrency(0)
            .timeout(Duration::ZERO)
            .context_tokens(100)
            .build()
            .unwrap_err()
            .to_string();
        for part in [
            "no model for localhost:8000",
            "the part before /chat/completions",
            "must not have a user or password",
            "no HTTP header can carry",
            "pack size",
            "temperature",
            "concurrency",
            "timeout",
            "context of 100 tokens is too short",
        ] {
            assert!(error.contains(part), "{part} not in {error}");
        }
        assert!(!error.contains("secret") && !error.contains("bad"), "{error}");
    }
}
