//! The flags of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use slugline::{Categorizer, CategorizerBuilder, Taxonomy};

use super::server::{ServerArgs, read_args, with};

/// Categorizes news items: a JSON object per line in, one per line out.
///
/// Input lines are {"id", "title", "body", ...}. Output lines are {"id", "category", "name", "confidence", ...} or
/// {"id", "error": {"kind", "message", ...}}, one for each input line, in the order in which they are settled.
///
/// Exit code 0: all are categorized. 2: finished, but some have errors. 1: it could not start or had to stop; what was
/// settled by then is written.
#[derive(Debug, Parser)]
#[command(name = "categorize", version)]
pub(crate) struct Args {
    /// The items, a JSON object per line; - is standard input
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) input: PathBuf,

    /// Where the outcomes go, replacing what is there; - is standard output
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) output: PathBuf,

    /// The categories
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) taxonomy: PathBuf,

    #[command(flatten)]
    server: ServerArgs,

    /// The most items that share a request, 1 to 16 [default: 3]
    #[arg(long, value_name = "N")]
    pack_size: Option<usize>,

    /// Where the figures of the run go at its end, as JSON
    #[arg(long, value_name = "FILE.json")]
    pub(crate) stats: Option<PathBuf>,
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        read_args(super::complain)
    }

    /// The categorizer that the flags describe.
    pub(crate) fn categorizer(&self) -> Result<Categorizer, String> {
        let taxonomy = Taxonomy::load(&self.taxonomy).map_err(|error| error.to_string())?;
        let builder = with(self.server.builder(taxonomy)?, self.pack_size, CategorizerBuilder::pack_size);
        builder.build().map_err(|error| error.to_string())
    }
}
