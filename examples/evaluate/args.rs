//! The flags of the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use slugline::{Categorizer, CategorizerBuilder, Taxonomy};

use super::server::{ServerArgs, one_line, with};

/// Measures how many labels are right, and how many items per second that costs, on labelled items of your own.
///
/// Input lines are those of `categorize` with one more field, the label: the id, the name or an alias of a category. Every
/// pack size is run with every form of the answer over the same items, one setting after the other.
///
/// Exit code 0: every item has a category in every setting. 2: finished, but some have none. 1: it could not start or had to
/// stop; what was finished by then is written.
#[derive(Debug, Parser)]
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

    /// The most items that share a request, 1 to 16: a setting for each
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,3,5")]
    pub(crate) pack_sizes: Vec<usize>,

    /// The forms of the answer: a setting for each; bare is for single items alone
    #[arg(long, value_name = "FORM,...", value_delimiter = ',', default_value = "objects")]
    pub(crate) answers: Vec<Form>,

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
}

/// A form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// An object for each item, with its number and its category
    Objects,
    /// The category alone, for single items
    Bare,
}

impl Form {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Bare => "bare",
        }
    }
}

/// A setting to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) form: Form,
    pub(crate) pack_size: usize,
}

impl Planned {
    pub(crate) fn name(self) -> String {
        format!("{} ×{}", self.form.name(), self.pack_size)
    }
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            if !error.use_stderr() {
                // Help or the version, as asked for. Nobody is left to tell if they cannot be printed.
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            super::complain(&one_line(&error.to_string()));
            ExitCode::FAILURE
        })
    }

    /// The settings, each once, in the order of the flags. `skipped` hears of those that make no sense.
    pub(crate) fn settings(&self, mut skipped: impl FnMut(String)) -> Vec<Planned> {
        let mut settings = Vec::new();
        for &form in &self.answers {
            for &pack_size in &self.pack_sizes {
                let planned = Planned { form, pack_size };
                if form == Form::Bare && pack_size != 1 {
                    skipped(format!(
                        "{} is skipped: a bare label names no item, so it is for single items alone",
                        planned.name()
                    ));
                } else if !settings.contains(&planned) {
                    settings.push(planned);
                }
            }
        }
        settings
    }

    /// The categorizer of a setting.
    pub(crate) fn categorizer(&self, taxonomy: &Taxonomy, planned: Planned) -> Result<Categorizer, String> {
        if planned.form == Form::Bare {
            return Err("bare answers are not there yet; --answers objects is".to_owned());
        }
        let builder = self.server.builder(taxonomy.clone())?.pack_size(planned.pack_size);
        let builder = with(builder, self.item_tokens, CategorizerBuilder::item_tokens);
        let builder = with(builder, self.seed, CategorizerBuilder::seed);
        builder.build().map_err(|error| error.to_string())
    }
}
