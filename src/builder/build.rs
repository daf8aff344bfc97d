//! What the builder makes of what it has collected: checks, endpoints, the categorizer.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::CategorizerBuilder;
use crate::answer::schema::Schemas;
use crate::answer::{AnswerForm, MAX_LABELS, Reader};
use crate::batch::{self, Batch};
use crate::calibration;
use crate::categorizer::Categorizer;
use crate::descent::{Descent, Nodes};
#[cfg(feature = "embedded")]
use crate::embedded::Desk;
use crate::error::Error;
use crate::escalation::{Escalation, Way};
use crate::limit::concurrency::ConcurrencyLimit;
use crate::limit::rate::Rate;
use crate::prompt::Prefix;
use crate::prompt::tokens::TokenEstimator;
use crate::run::{Shared, longest_label_tokens};
use crate::server::{
    Dialect, Endpoint, EndpointConfig, EndpointState, OWN_FIELDS, OpenAiTransport, Pool, PoolConfig, checked_address,
};
use crate::taxonomy::Taxonomy;

/// How many answered texts each category of a tree below the top remembers: there are many of them.
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

impl CategorizerBuilder {
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
            if !pools.models().chain(self.engine_name()).any(|model| model == calibration.model()) {
                problems.push(format!("no endpoint has the model {}, which a calibration is for", calibration.model()));
            }
        }
        let mut models = pools.models();
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
                answer_form: settings.answer_form,
                is_level: prefix_number.is_some(),
                api: self.api,
                has_confidence: self.logprobs,
                temperature: settings.temperature,
                request_fields: &settings.request_fields,
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
            #[cfg(feature = "embedded")]
            engine: self.first_opinion.clone().map(|opinion| Arc::new(Desk::new(opinion, &taxonomy, settings.seed))),
            stronger: pools.stronger.clone(),
            longest_label_tokens: longest_label_tokens(&taxonomy),
            taxonomy,
            prefix,
            prefix_number,
            homed_prefix: prefix_number,
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
        if self.engine_name().is_some() {
            problems.push("an engine in the process is for one list of categories, and a tree has many".to_owned());
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
            #[cfg(feature = "embedded")]
            ("a first opinion", self.first_opinion.is_some()),
        ];
        let wanted = is_wanted.into_iter().filter(|(_, is_wanted)| *is_wanted);
        let mut problems: Vec<_> =
            wanted.map(|(name, _)| format!("{name} needs answers while the run goes: a batch has none")).collect();
        #[cfg(feature = "ledger")]
        if self.ledger.is_some() {
            problems.push("a batch keeps what it knows in its rounds and writes no ledger: set none".to_owned());
        }
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
        need(
            self.is_alone() || !self.endpoints.is_empty(),
            "no endpoint: add one, for example http://localhost:8000/v1",
        );
        need((1..=MAX_PACK_SIZE).contains(&settings.pack_size), "pack size must be 1 to 16 items");
        if let Some(tuning) = &settings.tuning {
            let is_right = |size: &usize| (1..=MAX_PACK_SIZE).contains(size);
            need(tuning.sizes.iter().all(is_right), "pack sizes to choose from must be 1 to 16 items");
            need((0.0..=1.0).contains(&tuning.least_agreement), "least agreement must be 0 to 1");
        }
        need(
            !settings.answer_form.is_for_single_items() || (settings.pack_size == 1 && settings.tuning.is_none()),
            "labels without numbers cannot be told apart in a pack: set the pack size to 1, or ask for objects",
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
            need(
                self.engine_name().is_none(),
                "an engine in the process gives one label: leave it out, or ask for one",
            );
            let has_beam = self.descent.as_ref().is_some_and(|descent| descent.beam > 1);
            need(!has_beam, "several labels are several paths already: leave the beam at 1");
        }
        need((0.0..=1.0).contains(&settings.abstain_below), "the confidence to abstain below must be 0 to 1");
        need(settings.item_tokens >= 16, "item tokens must be at least 16");
        need((0.0..=2.0).contains(&settings.temperature), "temperature must be 0 to 2");
        for name in settings.request_fields.keys().filter(|name| OWN_FIELDS.contains(&name.as_str())) {
            need(false, &format!("the request field {name:?} is set by slugline itself: leave it out"));
        }
        need((1..=MAX_CONCURRENCY).contains(&self.concurrency), "concurrency must be 1 to 128 requests");
        if self.max_concurrency != self.concurrency {
            need((1..=MAX_CONCURRENCY).contains(&self.max_concurrency), "most concurrency must be 1 to 128 requests");
        }
        need(!self.timeout.is_zero(), "timeout must not be zero");
        need(
            self.logprobs || self.escalation.is_none(),
            "escalation goes by confidences: leave them on, or do not escalate",
        );
        need(
            self.logprobs || (settings.abstain_below <= 0.0 && !settings.evens_positions),
            "abstaining and even positions go by confidences: leave them on",
        );
        let is_alone = settings.pack_size == 1 && settings.tuning.is_none();
        let goes_elsewhere = self.escalation.as_ref().is_none_or(|of| matches!(of.way, Way::Stronger(_)));
        need(
            !is_alone || goes_elsewhere,
            "items that are alone already cannot be asked alone or with others: escalate to a stronger model, or pack them",
        );
        #[cfg(feature = "ledger")]
        need(
            self.across_versions.is_none() || self.ledger.is_some(),
            "answers of an earlier version of the taxonomy are in a ledger: set one",
        );
        need(settings.transport_retries <= MAX_RETRIES, "transport retries must be 0 to 100");
        need(settings.content_retries <= MAX_RETRIES, "content retries must be 0 to 100");
        #[cfg(feature = "near-duplicates")]
        problems.extend(settings.near_duplicates.iter().flat_map(crate::NearDuplicates::problems));
        #[cfg(feature = "embedded")]
        problems.extend(self.first_opinion.iter().flat_map(|opinion| opinion.problems(&self.taxonomy)));
        problems.extend(self.escalation.iter().flat_map(Escalation::problems));
        problems.extend(self.field_problems.iter().cloned());
        problems
    }

    /// The name of the engine in the process, where there is one.
    #[cfg(feature = "embedded")]
    fn engine_name(&self) -> Option<&str> {
        self.first_opinion.as_ref().map(crate::embedded::FirstOpinion::name)
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    fn engine_name(&self) -> Option<&str> {
        None
    }

    /// Whether the engine in the process settles everything.
    #[cfg(feature = "embedded")]
    fn is_alone(&self) -> bool {
        self.first_opinion.as_ref().is_some_and(crate::embedded::FirstOpinion::is_alone)
    }

    #[cfg(not(feature = "embedded"))]
    #[expect(clippy::unused_self, reason = "with the feature it is used")]
    fn is_alone(&self) -> bool {
        false
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
