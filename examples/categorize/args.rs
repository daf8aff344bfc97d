//! The flags of the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::Parser;
use slugline::calibration::Calibration;
use slugline::{Categorizer, CategorizerBuilder, Ledger, Taxonomy, Tuning};

use super::engine::{Engine, EngineArgs};
use super::server::{ServerArgs, read_args, with};

/// Categorizes news items: a JSON object per line in, one per line out.
///
/// Input lines are {"id", "title", "body", ...}. Output lines are {"id", "category", "name", "confidence", ...} or
/// {"id", "error": {"kind", "message", ...}}, one for each input line, in the order in which they are settled.
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

    /// A calibration, as `evaluate --fit` writes it
    #[arg(long, value_name = "FILE.toml")]
    calibration: Option<PathBuf>,

    /// Where answers are kept, so that nothing is asked twice and the same command goes on after any end
    #[arg(long, value_name = "FILE")]
    pub(crate) ledger: Option<PathBuf>,

    /// Where the figures of the run go at its end, as JSON
    #[arg(long, value_name = "FILE.json")]
    pub(crate) stats: Option<PathBuf>,
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        read_args(super::complain)
    }

    /// The categorizer that the flags describe. Opens the ledger, which keeps a second process with the same one away.
    pub(crate) fn categorizer(&self) -> Result<Categorizer, String> {
        let taxonomy = Taxonomy::load(&self.taxonomy).map_err(|error| error.to_string())?;
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
        let ledger = self.ledger.as_ref().map(Ledger::open).transpose().map_err(|error| error.to_string())?;
        let builder = with(builder, ledger, CategorizerBuilder::ledger);
        builder.build().map_err(|error| error.to_string())
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
