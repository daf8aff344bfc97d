//! The flags of the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use slugline::calibration::Calibration;
use slugline::ledger::AcrossVersions;
use slugline::{AnswerForm, Categorizer, CategorizerBuilder, Descent, Ledger, Taxonomy, Tuning};

use super::engine::{Engine, EngineArgs};
use super::form::Form;
use super::server::{ServerArgs, read_args, with};

/// Categorizes news items: a JSON object per line in, one per line out.
///
/// A taxonomy whose tree does not fit one prompt is walked level by level; its output lines have a "path" with the confidence
/// at each level.
///
/// Input lines are {"id", "title", "body", ...}. Output lines are {"id", "category", "name", "confidence", ...} or
/// {"id", "error": {"kind", "message", ...}}, or {"id", "category": null, "below_threshold": [...]}, one for each input line, in the order in which they are settled.
///
/// With --ledger a run that was ended at any moment goes on when the same command is given again: every answer is kept in
/// the ledger before it is written to the output, each output line also has the number of its input "line", and the output
/// is added to instead of replaced. Lines with an error that may pass are taken out and their items tried again.
///
/// Exit code 0: all are categorized. 2: finished, but some have errors. 1: it could not start or had to stop; what was
/// settled by then is written.
///
/// With --engine embedded no server is needed: a small embedding model in the process, which is no language model, labels
/// the items under the same contract.
#[derive(Debug, Parser)]
#[command(name = "categorize", version)]
pub(crate) struct Args {
    /// The items, a JSON object per line; - is standard input
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) input: PathBuf,

    /// Where the outcomes go, replacing what is there unless there is a ledger; - is standard output
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) output: PathBuf,

    /// The categories
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) taxonomy: PathBuf,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,

    /// The most items that share a request, 1 to 16, or auto to find it by measurement [default: 3]
    #[arg(long, value_name = "N")]
    pack_size: Option<PackSize>,

    /// The form of the answer; category and bare are for single items alone, so they need --pack-size 1 [default: objects]
    #[arg(long, value_name = "FORM", conflicts_with = "labels")]
    answers: Option<Form>,

    /// Asks for no log-probabilities, so that no answer has a confidence: some servers are faster without
    #[arg(long, conflicts_with_all = ["calibration", "abstain_below", "stop_below"])]
    no_confidence: bool,

    /// A calibration, as `evaluate --fit` writes it
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) calibration: Option<PathBuf>,

    /// Walks the taxonomy's tree level by level, also where it fits one prompt [default: only where it does not]
    #[arg(long)]
    descend: bool,

    /// Only the upper N levels of the taxonomy; 1 is the top level alone [default: all]
    #[arg(long, value_name = "N")]
    levels: Option<usize>,

    /// In a tree, how many paths of an item are followed, 1 to 4 [default: 1]
    #[arg(long, value_name = "PATHS")]
    beam: Option<usize>,

    /// In a tree, an item goes no deeper when the confidence of the best child is below this, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    stop_below: Option<f32>,

    /// In a list, an item has no category when its confidence is below this, 0 to 1 [default: 0]
    #[arg(long, value_name = "SHARE")]
    abstain_below: Option<f32>,

    /// The most categories of an item, 1 to 8, that of its main subject first [default: 1]
    #[arg(long, value_name = "N")]
    labels: Option<u8>,

    /// The language of the names in the output, where the taxonomy has them
    #[arg(long, value_name = "TAG")]
    language: Option<String>,

    /// Where answers are kept, so that nothing is asked twice and the same command goes on after any end
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,

    /// Asks items again that the ledger and the output know to fail for good, as after a mistake in the settings of a server
    #[arg(long, requires = "ledger")]
    pub(crate) retry_permanent: bool,

    /// Uses the ledger's answers of an earlier version of the taxonomy whose category means the same; with rivals, if the
    /// runners-up do, too. Both runs need it
    #[arg(long, value_name = "WHICH", requires = "ledger")]
    across_versions: Option<Across>,

    /// Where the figures of the run can be read while it goes, at /metrics, for Prometheus or the example monitor
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics: Option<SocketAddr>,

    /// Where the figures of the run go at its end, as JSON
    #[arg(long, value_name = "FILE.json")]
    pub(crate) stats: Option<PathBuf>,
}

/// Which answers of an earlier version are used.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Across {
    /// Those whose category means the same
    Category,
    /// Those whose runners-up mean the same as well
    Rivals,
}

impl From<Across> for AcrossVersions {
    fn from(across: Across) -> Self {
        match across {
            Across::Category => Self::SameCategory,
            Across::Rivals => Self::SameRivals,
        }
    }
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        read_args(super::complain)
    }

    /// The categorizer that the flags describe. Opens the ledger, which keeps a second process with the same one away.
    pub(crate) fn categorizer(&self) -> Result<Categorizer, String> {
        let of_servers = [
            ("pack-size", self.pack_size.is_some()),
            ("answers", self.answers.is_some()),
            ("no-confidence", self.no_confidence),
            ("labels", self.labels.is_some_and(|most| most > 1)),
        ];
        self.engine.refuse_unused(&self.server, &of_servers)?;
        let taxonomy = Taxonomy::load(&self.taxonomy);
        let taxonomy = match self.levels {
            Some(levels) => taxonomy.and_then(|taxonomy| taxonomy.upper_levels(levels)),
            None => taxonomy,
        };
        let taxonomy = taxonomy.map_err(|error| error.to_string())?;
        let builder = match self.engine.engine {
            Engine::Server => self.server.builder(taxonomy)?,
            Engine::Embedded => Categorizer::builder(taxonomy).embedded(self.engine.model()?),
            Engine::Both => {
                let opinion = self.engine.first_opinion(self.engine.model()?)?;
                self.server.builder(taxonomy)?.first_opinion(opinion)
            }
        };
        let builder = match self.pack_size {
            Some(PackSize::Auto) => builder.tuning(Tuning::auto()),
            Some(PackSize::Items(items)) => builder.pack_size(items),
            None => builder,
        };
        let calibration = self.calibration.as_deref().map(Calibration::load).transpose();
        let builder = with(builder, calibration.map_err(|error| error.to_string())?, CategorizerBuilder::calibration);
        let builder = if self.no_confidence { builder.confidence(false) } else { builder };
        let builder = with(builder, self.descent(), CategorizerBuilder::descend);
        let builder = with(builder, self.abstain_below, CategorizerBuilder::abstain_below);
        let several = self.labels.filter(|most| *most != 1).map(AnswerForm::Several);
        let form = several.or(self.answers.map(AnswerForm::from));
        let builder = with(builder, form, CategorizerBuilder::answer_form);
        let builder = with(builder, self.language.clone(), CategorizerBuilder::output_language);
        let options = Ledger::options().retry_permanent(self.retry_permanent);
        let ledger = self.ledger.as_ref().map(|path| options.open(path)).transpose();
        let ledger = ledger.map_err(|error| error.to_string())?;
        let builder = with(builder, ledger, CategorizerBuilder::ledger);
        let across = self.across_versions.map(AcrossVersions::from);
        let builder = with(builder, across, CategorizerBuilder::across_versions);
        builder.build().map_err(|error| error.to_string())
    }

    fn descent(&self) -> Option<Descent> {
        let is_wanted = self.descend || self.beam.is_some() || self.stop_below.is_some();
        let descent = Descent::default().beam(self.beam.unwrap_or(1)).stop_below(self.stop_below.unwrap_or(0.0));
        is_wanted.then_some(descent)
    }
}

/// How many items share a request.
#[derive(Clone, Copy, Debug)]
enum PackSize {
    Auto,
    Items(usize),
}

impl FromStr for PackSize {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            text => text.parse().map(Self::Items).map_err(|_| "neither a number nor auto"),
        }
    }
}
