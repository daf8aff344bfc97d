//! The flags that choose between the servers, an embedding model in the process, and both.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use slugline::embedded::{FirstOpinion, LearnedHead, Learning, SentenceModel};

use super::model::{SCRIPT, default_folder, is_model};
use super::server::ServerArgs;

/// The engine.
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// What categorizes the items
    #[arg(long, value_enum, default_value_t = Engine::Server)]
    pub(crate) engine: Engine,

    /// The folder with the embedding model: model.onnx and tokenizer.json [default: where examples/embedded/fetch-model.sh
    /// puts it]
    #[arg(long, value_name = "FOLDER")]
    model_folder: Option<PathBuf>,

    /// With --engine both: the embedding model settles what agrees with the servers in this share, 0 to 1 [default: 0.95,
    /// unless --learn is given]
    #[arg(long, value_name = "SHARE", group = "rule")]
    agreement: Option<f64>,

    /// With --engine both: it settles this share of the items, those that it is surest of
    #[arg(long, value_name = "SHARE", group = "rule")]
    settle_share: Option<f64>,

    /// With --engine both: it settles what it gives this confidence or more
    #[arg(long, value_name = "CONFIDENCE", group = "rule")]
    settle_above: Option<f32>,

    /// With --engine both: a linear head is learned from the servers' answers until it agrees with them in this share
    #[arg(long, value_name = "SHARE")]
    learn: Option<f64>,

    /// With --engine both: the answers that must be there before a head is learned, at least 200 [default: 1000]
    #[arg(long, value_name = "N", requires = "learn")]
    least_answers: Option<usize>,

    /// With --engine both: the file of a learned head to begin with, if it is there; what was learned is saved to it
    #[arg(long, value_name = "FILE.json", requires = "learn")]
    pub(crate) head: Option<PathBuf>,

    /// With --engine both: the share of items that are asked at both, to measure how often they agree [default: 0.05]
    #[arg(long, value_name = "SHARE")]
    audit: Option<f64>,
}

/// What categorizes the items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The language model of the servers
    Server,
    /// A small embedding model in this process, no language model: needs no server, knows English best
    Embedded,
    /// The embedding model first, and the servers for what it is not sure of
    Both,
}

impl EngineArgs {
    /// Refuses flags that the chosen engine has no use for, those of `more` being for servers as well: who forgets --engine would
    /// else believe that the servers had answered.
    pub(crate) fn refuse_unused(&self, server: &ServerArgs, more: &[(&str, bool)]) -> Result<(), String> {
        let both = [
            ("agreement", self.agreement.is_some()),
            ("settle-share", self.settle_share.is_some()),
            ("settle-above", self.settle_above.is_some()),
            ("learn", self.learn.is_some()),
            ("audit", self.audit.is_some()),
        ];
        if let Some((flag, _)) = both.iter().find(|(_, is_set)| *is_set && self.engine != Engine::Both) {
            return Err(format!("--{flag} is for --engine both: add that, or leave the flag away"));
        }
        if self.model_folder.is_some() && self.engine == Engine::Server {
            return Err("--model-folder is for --engine embedded or both: add one, or leave the flag away".to_owned());
        }
        let for_servers = server_flags(server);
        let unused = for_servers.iter().chain(more).find(|(_, is_set)| *is_set && self.engine == Engine::Embedded);
        unused.map_or(Ok(()), |(flag, _)| {
            Err(format!("--{flag} is for servers, and --engine embedded asks none: leave one of them away"))
        })
    }

    /// Loads the embedding model.
    pub(crate) fn model(&self) -> Result<SentenceModel, String> {
        let folder = match &self.model_folder {
            Some(folder) => folder.clone(),
            None => default_folder().filter(|folder| is_model(folder)).ok_or_else(|| {
                format!("there is no embedding model yet: `bash {SCRIPT}` fetches one, or --model-folder names another")
            })?,
        };
        SentenceModel::open(folder).map_err(|error| error.to_string())
    }

    /// What the model may settle before the servers.
    pub(crate) fn first_opinion(&self, model: SentenceModel) -> Result<FirstOpinion, String> {
        let mut opinion = FirstOpinion::of(model);
        if let Some(target) = self.agreement {
            opinion = opinion.agreeing(target);
        }
        if let Some(share) = self.settle_share {
            opinion = opinion.share(share);
        }
        if let Some(confidence) = self.settle_above {
            opinion = opinion.above(confidence);
        }
        if let Some(share) = self.audit {
            opinion = opinion.audit(share);
        }
        if let Some(target) = self.learn {
            let mut learning = Learning::to(target);
            if let Some(answers) = self.least_answers {
                learning = learning.least_answers(answers);
            }
            if let Some(path) = self.head.as_ref().filter(|path| path.exists()) {
                learning = learning.head(LearnedHead::load(path).map_err(|error| error.to_string())?);
            }
            opinion = opinion.learn(learning);
        }
        Ok(opinion)
    }
}

fn server_flags(server: &ServerArgs) -> [(&'static str, bool); 10] {
    let endpoints = &server.endpoints;
    [
        ("base-url", !endpoints.base_url.is_empty()),
        ("model", server.model.is_some()),
        ("concurrency", server.concurrency.is_some()),
        ("request-field", !endpoints.request_field.is_empty()),
        ("timeout", endpoints.timeout.is_some()),
        ("max-retries", endpoints.max_retries.is_some()),
        ("requests-per-minute", endpoints.requests_per_minute.is_some()),
        ("tokens-per-minute", endpoints.tokens_per_minute.is_some()),
        ("patience", endpoints.patience.is_some()),
        ("api-key-env", endpoints.api_key_env.is_some()),
    ]
}
