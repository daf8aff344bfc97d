//! The flags of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use slugline::calibration::Calibration;
use slugline::{AnswerForm, Categorizer, CategorizerBuilder, EndpointConfig, Escalation, Taxonomy};

use slugline::embedded::SentenceModel;

use super::engine::{Engine, EngineArgs};
use super::files::is_same_file;
use super::form::Form;
use super::server::{ServerArgs, read_args, with};

/// Measures how many labels are right, and how many items per second that costs, on labelled items of your own.
///
/// Input lines are those of `categorize` with one more field, the label: the id, the name or an alias of a category. Every
/// pack size is run with every form of the answer over the same items, one setting after the other.
///
/// Exit code 0: every item has a category in every setting. 2: finished, but some have none. 1: it could not start or had to
/// stop; what was finished by then is written.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[command(name = "evaluate", version)]
pub(crate) struct Args {
    /// The labelled items, a JSON object per line; - is standard input
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) input: PathBuf,

    /// The field of a line that holds its label
    #[arg(long, value_name = "NAME", default_value = "label")]
    pub(crate) label_field: String,

    /// The categories
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) taxonomy: PathBuf,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    #[command(flatten)]
    engine: EngineArgs,

    /// The most items that share a request, 1 to 16: a setting for each
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,3,5")]
    pack_sizes: Vec<usize>,

    /// The forms of the answer: a setting for each; category and bare are for single items alone
    #[arg(long, value_name = "FORM,...", value_delimiter = ',', default_value = "objects")]
    answers: Vec<Form>,

    /// The most categories of an item, 2 to 8: the field of the label is then a list of labels, that of the main subject first.
    /// Micro- and macro-F1, Jaccard and exact match of the whole lists are then in the reports, and printed below the figures
    /// of the first
    #[arg(long, value_name = "N", conflicts_with_all = ["answers", "correction"])]
    pub(crate) labels: Option<u8>,

    /// What the categories are in the scheme of the labels, which is then scored
    #[arg(long, value_name = "FILE.toml", conflicts_with_all = ["correction", "labels"])]
    pub(crate) mapping: Option<PathBuf>,

    /// Shows all figures also for the items of each language, by their field `lang` or `language`
    #[arg(long)]
    pub(crate) by_language: bool,

    /// The field of a line that holds its language, for the same
    #[arg(long, value_name = "NAME", conflicts_with = "by_language")]
    pub(crate) language_field: Option<String>,

    /// The most tokens of an item that are shown to the model [default: 150]
    #[arg(long, value_name = "N")]
    item_tokens: Option<usize>,

    /// Only the first N items [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,

    /// Makes backoff and the order of items that are asked again repeatable
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Where the page goes, replacing what is there
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,

    /// Where all figures and the label of every item go, replacing what is there
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,

    /// The server and the machine in words, for the report
    #[arg(long, value_name = "WORDS")]
    pub(crate) about_server: Option<String>,

    /// What benches/peers/run.py wrote with --json for the same items and server: drawn beside the settings
    #[arg(long, value_name = "FILE.json")]
    pub(crate) peers: Option<PathBuf>,

    /// Fits a calibration on half of the items, chosen at random within each category, and writes it here; all figures are
    /// then of the other half, with and without it
    #[arg(long, value_name = "FILE.toml", group = "correction")]
    pub(crate) fit: Option<PathBuf>,

    /// Applies a calibration, and shows the figures with and without it
    #[arg(long, value_name = "FILE.toml", group = "correction")]
    pub(crate) calibration: Option<PathBuf>,

    /// Measures each setting's prior with items without content, and shows the figures with and without dividing it out
    #[arg(long, group = "correction", conflicts_with = "escalate_below")]
    pub(crate) measure_prior: bool,

    /// Evens out the positions of packs by what the run itself sees, and shows the figures with and without that
    #[arg(long, group = "correction")]
    pub(crate) even_positions: bool,

    /// Shows all figures also for a skewed part of the items: all of the first category of the taxonomy, half of the second,
    /// a third of the third and so on
    #[arg(long, conflicts_with = "even_positions")]
    pub(crate) skew: bool,

    /// Runs each setting once more with items asked again whose confidence is below this, 0 to 1
    #[arg(long, value_name = "SHARE", conflicts_with = "fit")]
    escalate_below: Option<f32>,

    /// Asks them in so many more packs instead of alone, and takes the mean
    #[arg(long, value_name = "PACKS", requires = "escalate_below", conflicts_with = "escalate_to")]
    escalate_vote: Option<usize>,

    /// Asks them at this server, which has a stronger model
    #[arg(long, value_name = "URL", requires = "escalate_below")]
    escalate_to: Option<String>,

    /// The name of that model [default: that of --model]
    #[arg(long, value_name = "NAME", requires = "escalate_to")]
    escalate_model: Option<String>,

    /// The most requests that this may cost, relative to the others [default: 0.2]
    #[arg(long, value_name = "SHARE", requires = "escalate_below")]
    escalate_at_most: Option<f64>,
}

/// A setting to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) form: AnswerForm,
    pub(crate) pack_size: usize,
    pub(crate) is_escalated: bool,
    pub(crate) engine: Engine,
}

impl Planned {
    pub(crate) fn name(self) -> String {
        let escalated = if self.is_escalated { ", escalated" } else { "" };
        match self.engine {
            Engine::Embedded => "embedded alone".to_owned(),
            Engine::Server => format!("{} ×{}{escalated}", self.form, self.pack_size),
            Engine::Both => format!("{} ×{}{escalated}, embedded first", self.form, self.pack_size),
        }
    }
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        read_args(super::complain)
    }

    /// Refuses to write over a file that is needed.
    pub(crate) fn refuse_overwriting(&self) -> Result<(), String> {
        let targets = [("report", &self.report), ("json", &self.json), ("fit", &self.fit)];
        let mut needed = vec![("input", &self.input), ("taxonomy", &self.taxonomy)];
        needed.extend(self.calibration.as_ref().map(|path| ("calibration", path)));
        needed.extend(self.mapping.as_ref().map(|path| ("mapping", path)));
        needed.extend(self.peers.as_ref().map(|path| ("peers", path)));
        needed.extend(self.engine.head.as_ref().map(|path| ("head", path)));
        for (role, target) in targets.into_iter().filter_map(|(role, target)| Some((role, target.as_ref()?))) {
            if let Some((other, _)) = needed.iter().find(|(_, path)| is_same_file(target, path)) {
                return Err(format!(
                    "--{role} {} is the same file as --{other} and would overwrite it",
                    target.display()
                ));
            }
            needed.push((role, target));
        }
        Ok(())
    }

    /// The settings, each once, in the order of the flags. `skipped` hears of those that make no sense.
    pub(crate) fn settings(&self, skipped: impl FnMut(String)) -> Vec<Planned> {
        let alone = Planned { form: AnswerForm::Objects, pack_size: 1, is_escalated: false, engine: Engine::Embedded };
        match self.engine.engine {
            Engine::Server => {}
            Engine::Embedded => return vec![alone],
            // The servers alone, then both.
            Engine::Both => {
                let servers = self.server_settings(skipped);
                let both =
                    servers.iter().map(|planned| Planned { engine: Engine::Both, ..*planned }).collect::<Vec<_>>();
                return std::iter::once(alone).chain(servers).chain(both).collect();
            }
        }
        self.server_settings(skipped)
    }

    fn server_settings(&self, mut skipped: impl FnMut(String)) -> Vec<Planned> {
        let mut settings = Vec::new();
        let several = self.labels.map(AnswerForm::Several);
        let forms = self.answers.iter().copied().map(AnswerForm::from).filter(|_| several.is_none());
        for form in several.into_iter().chain(forms) {
            for &pack_size in &self.pack_sizes {
                let planned = Planned { form, pack_size, is_escalated: false, engine: Engine::Server };
                if matches!(form, AnswerForm::Category | AnswerForm::Bare) && pack_size != 1 {
                    let name = planned.name();
                    skipped(format!("{name} is skipped: its answer names no item, so it is for single items alone"));
                } else if !settings.contains(&planned) {
                    settings.push(planned);
                    let escalated = Planned { is_escalated: true, ..planned };
                    let is_alone = pack_size == 1 && self.escalate_to.is_none();
                    match self.escalate_below {
                        Some(_) if is_alone => {
                            skipped(format!("{} is skipped: it is asked alone already", escalated.name()));
                        }
                        Some(_) => settings.push(escalated),
                        None => {}
                    }
                }
            }
        }
        settings
    }

    /// The categorizer of a setting.
    pub(crate) fn categorizer(
        &self,
        taxonomy: &Taxonomy,
        planned: Planned,
        model: Option<&SentenceModel>,
    ) -> Result<Categorizer, String> {
        let builder = match (planned.engine, model.cloned()) {
            (Engine::Embedded, Some(model)) => Categorizer::builder(taxonomy.clone()).embedded(model),
            (Engine::Both, Some(model)) => {
                self.server.builder(taxonomy.clone())?.first_opinion(self.engine.first_opinion(model)?)
            }
            _ => self.server.builder(taxonomy.clone())?,
        };
        let builder = builder.pack_size(planned.pack_size).answer_form(planned.form);
        let builder = builder.even_positions(self.even_positions);
        let builder = with(builder, self.item_tokens, CategorizerBuilder::item_tokens);
        let builder = with(builder, self.seed, CategorizerBuilder::seed);
        // A calibration is for the model of the servers.
        let is_alone = planned.engine == Engine::Embedded && self.engine.engine == Engine::Both;
        let calibration = self.calibration.as_deref().filter(|_| !is_alone).map(Calibration::load).transpose();
        let builder = with(builder, calibration.map_err(|error| error.to_string())?, CategorizerBuilder::calibration);
        let escalation = self.escalation().filter(|_| planned.is_escalated);
        with(builder, escalation, CategorizerBuilder::escalate).build().map_err(|error| error.to_string())
    }

    /// The embedding model, where a setting needs it.
    pub(crate) fn embedding_model(&self) -> Result<Option<SentenceModel>, String> {
        let of_servers = [("escalate-below", self.escalate_below.is_some()), ("even-positions", self.even_positions)];
        self.engine.refuse_unused(&self.server, &of_servers)?;
        if self.labels.is_some() && self.engine.engine != Engine::Server {
            return Err("--labels is for --engine server: an embedding model gives one".to_owned());
        }
        if self.fit.is_some() && self.engine.engine == Engine::Both {
            return Err("--fit is for one engine, as a calibration is for one model".to_owned());
        }
        if let Some(head) = self.engine.head.as_ref().filter(|head| !head.exists()) {
            let head = head.display();
            return Err(format!(
                "--head {head} is not there: evaluate begins with a learned head, categorize saves one"
            ));
        }
        (self.engine.engine != Engine::Server).then(|| self.engine.model()).transpose()
    }

    /// What stands for the model in the report.
    pub(crate) fn model_name(&self) -> String {
        let servers = || self.server.model.clone().unwrap_or_default();
        match self.engine.engine {
            Engine::Server => servers(),
            Engine::Embedded => "embedding model in the process".to_owned(),
            Engine::Both => format!("{} and an embedding model in the process", servers()),
        }
    }

    fn escalation(&self) -> Option<Escalation> {
        let mut escalation = Escalation::below(self.escalate_below?);
        if let Some(packs) = self.escalate_vote {
            escalation = escalation.vote(packs);
        }
        if let Some(base_url) = &self.escalate_to {
            let model = self.escalate_model.as_ref().or(self.server.model.as_ref());
            escalation = escalation.to(EndpointConfig::new(base_url).model(model.cloned().unwrap_or_default()));
        }
        if let Some(share) = self.escalate_at_most {
            escalation = escalation.at_most(share);
        }
        Some(escalation)
    }

    /// The escalation in words.
    pub(crate) fn escalation_words(&self) -> Option<String> {
        let below = self.escalate_below?;
        let way = match (self.escalate_vote, &self.escalate_to) {
            (Some(packs), _) => format!("in {packs} more packs"),
            (_, Some(_)) => {
                let model = self.escalate_model.as_ref().or(self.server.model.as_ref());
                format!("at {}", model.map_or("another server", String::as_str))
            }
            _ => "alone".to_owned(),
        };
        Some(format!("below {below} asked again {way}"))
    }
}
