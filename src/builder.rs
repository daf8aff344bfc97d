//! The builder of a categorizer: collects, then checks everything at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::answer::schema::Schemas;
use crate::answer::{AnswerForm, MAX_LABELS, Reader};
use crate::batch::{self, Batch};
use crate::calibration::{self, Calibration};
use crate::categorizer::Categorizer;
use crate::descent::{Descent, Nodes};
use crate::error::Error;
use crate::escalation::{Escalation, Way};
use crate::limit::concurrency::ConcurrencyLimit;
use crate::limit::rate::Rate;
use crate::prompt::Prefix;
use crate::prompt::tokens::{CountTokens, TokenEstimator};
use crate::run::{Settings, Shared, longest_label_tokens};
use crate::server::{
    Api, Balance, Dialect, Endpoint, EndpointConfig, EndpointState, OpenAiTransport, Pool, PoolConfig, checked_address,
};
use crate::taxonomy::Taxonomy;
use crate::tuning::Tuning;

/// Configures a [`Categorizer`]. Nothing is checked before [`build`](Self::build), which reports all problems at once.
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
    #[cfg(feature = "ledger")]
    ledger: Option<crate::ledger::Ledger>,
    #[cfg(feature = "ledger")]
    across_versions: Option<crate::ledger::AcrossVersions>,
    settings: Settings,
}

/// The endpoints of a categorizer.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    first: Arc<Pool>,
    /// The endpoint with the stronger model, where the escalation has one.
    stronger: Option<Arc<Pool>>,
}

impl Pools {
    fn models(&self) -> impl Iterator<Item = &str> {
        self.first.models().chain(self.stronger.iter().flat_map(|pool| pool.models()))
    }
}

/// How many answered texts a run remembers: about 15 MB, 45 with log-probabilities. Copies further apart are asked again.
const REMEMBERED_TEXTS: usize = 50_000;
/// The same for each category of a tree below the top, of which there are many.
const REMEMBERED_TEXTS_BELOW: usize = 2_000;
/// The most items of a pack.
const MAX_PACK_SIZE: usize = 16;
/// The most requests in flight at one endpoint.
const MAX_CONCURRENCY: usize = 128;
/// The most retries of one kind.
const MAX_RETRIES: u32 = 100;
const DEFAULT_PATIENCE: Duration = Duration::from_secs(600);
/// The patience with servers that never answered: they are probably not there.
const DEFAULT_FIRST_PATIENCE: Duration = Duration::from_secs(30);

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
            #[cfg(feature = "ledger")]
            ledger: None,
            #[cfg(feature = "ledger")]
            across_versions: None,
            settings: Settings {
                pack_size: 3,
                tuning: None,
                answer_form: AnswerForm::default(),
                evens_positions: false,
                item_tokens: 150,
                context_tokens: 4_096,
                temperature: 0.0,
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

    /// The form in which the model answers. [`AnswerForm::Bare`] needs a pack size of 1. Default: [`AnswerForm::Objects`].
    #[must_use]
    pub fn answer_form(mut self, form: AnswerForm) -> Self {
        self.settings.answer_form = form;
        self
    }

    /// Whether a category may be given together with one below it, where several are asked for
    /// ([`AnswerForm::Several`]). Default: false, the one below says it all.
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

    /// Whether a server's own count of waiting requests, from its `/metrics`, lowers the requests in flight as overload
    /// does. vLLM queues without bound and never says that it is overloaded; this keeps its queue short when others share
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

    /// How often an item is asked again with others when its answer is not valid, before it is asked alone for the last
    /// time, 0 to 100. Default: 2.
    #[must_use]
    pub fn content_retries(mut self, retries: u32) -> Self {
        self.settings.content_retries = retries;
        self
    }

    /// How long an item waits for others to share its request. Default: 20 milliseconds.
    #[must_use]
    pub fn pack_wait(mut self, wait: Duration) -> Self {
        self.settings.pack_wait = wait;
        self
    }

    /// How long a run waits while no endpoint answers, before it ends. Default: 10 minutes, and 30 seconds for endpoints
    /// that have never answered.
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

    /// Checks everything and makes the categorizer.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every problem.
    pub fn build(self) -> Result<Categorizer, Error> {
        let mut problems = self.problems();
        let pools = self.pools(&mut problems);
        let walks = self.descent.is_some() || !self.taxonomy.fits_one_prompt();
        let nodes = walks.then(|| {
            let descent = self.descent.clone().unwrap_or_default();
            Arc::new(Nodes::new(self.taxonomy.clone(), descent, self.clone(), pools.clone()))
        });
        let shared = match &nodes {
            Some(nodes) => nodes.shared(None),
            None => Arc::new(self.shared(self.taxonomy.clone(), &pools, None)),
        };
        if walks {
            problems.extend(self.descent_problems());
        }
        let version = shared.prefix.version().as_str();
        problems.extend(self.calibrations.iter().filter_map(|of| of.misfit(&shared.taxonomy, version)));
        for calibration in &self.calibrations {
            if !pools.models().any(|model| model == calibration.model()) {
                problems.push(format!("no endpoint has the model {}, which a calibration is for", calibration.model()));
            }
        }
        let mut models = pools.first.models();
        let first_model = models.next();
        if self.settings.evens_positions && models.any(|model| Some(model) != first_model) {
            problems.push("positions can be evened out only where all endpoints have the same model".to_owned());
        }
        drop(models);
        // Of a tree, the longest list decides.
        let least = match &nodes {
            Some(nodes) => nodes.longest().least_tokens(),
            None => shared.least_tokens(),
        };
        if least > self.settings.context_tokens {
            problems.push(format!(
                "context of {} tokens is too short: prefix, answer and one short item take about {least}",
                self.settings.context_tokens
            ));
        }
        for rate in self.endpoints.iter().map(|endpoint| endpoint.tokens_per_minute.or(self.tokens_per_minute)) {
            if rate.is_some_and(|rate| (rate.get() as usize) < least) {
                problems.push(format!("tokens per minute are fewer than one request takes, about {least}"));
            }
        }
        problems.dedup();
        if problems.is_empty() { Ok(Categorizer { shared, nodes }) } else { Err(Error::configuration(problems)) }
    }

    fn pools(&self, problems: &mut Vec<String>) -> Pools {
        let largest_request_tokens = u32::try_from(self.settings.context_tokens).unwrap_or(u32::MAX);
        let limit = ConcurrencyLimit::new(self.concurrency, self.max_concurrency.max(self.concurrency));
        let mut pool_of = |configs: &[EndpointConfig]| {
            let mut endpoints = Vec::new();
            for config in configs {
                match self.endpoint_of(config, largest_request_tokens) {
                    Ok(endpoint) => {
                        let dialect = Dialect::new(self.api, self.logprobs);
                        endpoints.push((endpoint, EndpointState::new(limit, self.timeout, dialect)));
                    }
                    Err(problem) => problems.push(problem),
                }
            }
            let config = PoolConfig {
                balance: self.balance,
                patience: self.patience.unwrap_or(DEFAULT_PATIENCE),
                first_patience: self.patience.unwrap_or(DEFAULT_FIRST_PATIENCE),
                seed: self.settings.seed,
            };
            Arc::new(Pool::new(endpoints, config))
        };
        let first = pool_of(&self.endpoints);
        let stronger = match self.escalation.as_ref().map(|escalation| &escalation.way) {
            Some(Way::Stronger(endpoint)) => Some(pool_of(std::slice::from_ref(&**endpoint))),
            _ => None,
        };
        Pools { first, stronger }
    }

    /// What the runs over one list of categories share. `prefix_number` tells it from others of the same endpoints.
    pub(crate) fn shared(&self, taxonomy: Taxonomy, pools: &Pools, prefix_number: Option<usize>) -> Shared {
        let mut settings = self.settings.clone();
        if prefix_number.is_some_and(|number| number > 0) {
            settings.remembered_texts = REMEMBERED_TEXTS_BELOW;
        }
        let prefix = Prefix::with_answers(&taxonomy, settings.answer_form);
        let prefix = match &self.tokens {
            Some(tokens) => prefix.counted_with(&**tokens),
            None => prefix,
        };
        let calibrations: Vec<_> = self.calibrations.iter().map(|of| calibration::Ready::new(of, &taxonomy)).collect();
        #[cfg(feature = "ledger")]
        let ledger = self.ledger.clone().map(|ledger| {
            let asking = crate::ledger::Asking {
                taxonomy: &taxonomy,
                prompt_version: prefix.version(),
                api: self.api,
                has_confidence: self.logprobs,
                temperature: settings.temperature,
                evens_positions: settings.evens_positions,
                labels_with_parents: settings.labels_with_parents,
                is_across_versions: self.across_versions.is_some(),
                escalation: self.escalation.as_ref(),
                calibrations: &calibrations,
            };
            (ledger, crate::ledger::Questions::new(&asking, pools.models()))
        });
        Shared {
            schemas: Schemas::new(&taxonomy, settings.answer_form),
            reader: Reader::new(&taxonomy, settings.answer_form).with_parents(settings.labels_with_parents),
            calibrations,
            #[cfg(feature = "ledger")]
            ledger,
            #[cfg(feature = "ledger")]
            across_versions: self.across_versions,
            escalation: self.escalation.clone(),
            stronger: pools.stronger.clone(),
            longest_label_tokens: longest_label_tokens(&taxonomy),
            taxonomy,
            prefix,
            prefix_number,
            estimator: TokenEstimator::default(),
            tokens: self.tokens.clone(),
            pool: Arc::clone(&pools.first),
            settings,
        }
    }

    pub(crate) fn most_labels(&self) -> usize {
        self.settings.answer_form.most_labels()
    }

    /// What a tree cannot have.
    fn descent_problems(&self) -> Vec<String> {
        let mut problems = self.descent.as_ref().map(Descent::problems).unwrap_or_default();
        if self.taxonomy.children(None).count() < 2 {
            problems.push("the tree has one category at the top level, which is no choice: take it away".to_owned());
        }
        if self.settings.abstain_below > 0.0 {
            problems
                .push("a tree stops where the descent says, not where a list abstains: set its threshold".to_owned());
        }
        if self.settings.tuning.is_some() {
            problems.push("a choice of pack sizes is for one list of categories, and a tree has many".to_owned());
        }
        if !self.calibrations.is_empty() {
            problems.push("a calibration is for one list of categories, and a tree has many".to_owned());
        }
        problems
    }

    /// Checks everything and makes an offline [`batch`](crate::batch) instead: requests and results go through files, so it
    /// needs a model, but no endpoint; what concerns endpoints has no effect.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every problem, among them what only a run can do.
    pub fn batch(mut self) -> Result<Batch, Error> {
        self.endpoints = vec![batch::endpoint()];
        let is_wanted = [
            ("escalation", self.escalation.is_some()),
            ("even positions", self.settings.evens_positions),
            ("a choice of pack sizes", self.settings.tuning.is_some()),
            ("a walk through a tree", self.descent.is_some() || !self.taxonomy.fits_one_prompt()),
            #[cfg(feature = "near-duplicates")]
            ("near-duplicates", self.settings.near_duplicates.is_some()),
        ];
        let wanted = is_wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
        let mut problems: Vec<_> =
            wanted.map(|(name, _)| format!("{name} needs answers while the run goes: a batch has none")).collect();
        let dialect = Dialect::new(self.api, self.logprobs);
        match self.build() {
            Ok(categorizer) if problems.is_empty() => Ok(Batch::new(categorizer.shared, dialect)),
            Err(Error::Configuration { problems: others }) => {
                problems.extend(others);
                Err(Error::configuration(problems))
            }
            Ok(_) => Err(Error::configuration(problems)),
            Err(error) => Err(error),
        }
    }

    /// What is wrong with the numbers.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let settings = &self.settings;
        let mut need = |is_right: bool, problem: &str| {
            if !is_right {
                problems.push(problem.to_owned());
            }
        };
        need(!self.endpoints.is_empty(), "no endpoint: add one, for example http://localhost:8000/v1");
        need((1..=MAX_PACK_SIZE).contains(&settings.pack_size), "pack size must be 1 to 16 items");
        if let Some(tuning) = &settings.tuning {
            let is_right = |size: &usize| (1..=MAX_PACK_SIZE).contains(size);
            need(tuning.sizes.iter().all(is_right), "pack sizes to choose from must be 1 to 16 items");
            need((0.0..=1.0).contains(&tuning.least_agreement), "least agreement must be 0 to 1");
        }
        need(
            settings.answer_form != AnswerForm::Bare || (settings.pack_size == 1 && settings.tuning.is_none()),
            "bare labels cannot be told apart in a pack: set the pack size to 1, or ask for objects",
        );
        if let AnswerForm::Several(most) = settings.answer_form {
            need((2..=MAX_LABELS).contains(&most), "several labels are 2 to 8");
            need(
                self.calibrations.is_empty() && !settings.evens_positions,
                "several labels cannot be calibrated: the probabilities are those of the first",
            );
            let is_vote = matches!(self.escalation.as_ref().map(|of| &of.way), Some(Way::Vote(_)));
            need(!is_vote, "several labels cannot be voted on: ask unsure items alone, or at a stronger model");
            #[cfg(feature = "ledger")]
            need(self.across_versions.is_none(), "several labels are kept for one version of the taxonomy alone");
            let has_beam = self.descent.as_ref().is_some_and(|descent| descent.beam > 1);
            need(!has_beam, "several labels are several paths already: leave the beam at 1");
        }
        need((0.0..=1.0).contains(&settings.abstain_below), "the confidence to abstain below must be 0 to 1");
        need(settings.item_tokens >= 16, "item tokens must be at least 16");
        need((0.0..=2.0).contains(&settings.temperature), "temperature must be 0 to 2");
        need((1..=MAX_CONCURRENCY).contains(&self.concurrency), "concurrency must be 1 to 128 requests");
        if self.max_concurrency != self.concurrency {
            need((1..=MAX_CONCURRENCY).contains(&self.max_concurrency), "most concurrency must be 1 to 128 requests");
        }
        need(!self.timeout.is_zero(), "timeout must not be zero");
        need(settings.transport_retries <= MAX_RETRIES, "transport retries must be 0 to 100");
        need(settings.content_retries <= MAX_RETRIES, "content retries must be 0 to 100");
        #[cfg(feature = "near-duplicates")]
        problems.extend(settings.near_duplicates.iter().flat_map(crate::NearDuplicates::problems));
        problems.extend(self.escalation.iter().flat_map(Escalation::problems));
        problems
    }

    fn endpoint_of(&self, config: &EndpointConfig, largest_request_tokens: u32) -> Result<Endpoint, String> {
        let base_url = config.base_url.trim().trim_end_matches('/');
        let Some(model) = config.model.as_ref().or(self.model.as_ref()).filter(|model| !model.is_empty()) else {
            return Err(format!("no model for {base_url}: name the one that the server has"));
        };
        let key = config.key.as_ref().or(self.api_key.as_ref()).filter(|key| !key.expose_secret().is_empty());
        let transport = match &config.transport {
            Some(transport) => Arc::clone(transport),
            None => Arc::new(OpenAiTransport::new(checked_address(base_url)?, key)?),
        };
        Ok(Endpoint {
            base_url: base_url.into(),
            model: model.as_str().into(),
            key: key.cloned(),
            transport,
            weight: config.weight,
            rate: Rate::new(
                config.requests_per_minute.or(self.requests_per_minute),
                config.tokens_per_minute.or(self.tokens_per_minute),
                largest_request_tokens,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

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
