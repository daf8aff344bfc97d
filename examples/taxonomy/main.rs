//! Tools for taxonomies.
//!
//! ```text
//! cargo run --release --example taxonomy -- lint categories/iptc-media-topics.toml
//! cargo run --release --example taxonomy -- tokens categories/iptc-media-topics.toml --most 20
//! cargo run --release --example taxonomy -- tree categories/iptc-media-topics.toml --below sport --depth 2
//! cargo run --release --example taxonomy -- diff old.toml new.toml
//! cargo run --release --example taxonomy -- import --format skos mediatopic.rdf --name media-topics --version 2026-03
//! cargo run --release --example taxonomy -- doctor --taxonomy categories/newsroom.toml evaluation.json
//! ```
//!
//! Exit code 0: done, nothing to complain of. 2: `lint` or `diff` found something. 1: it could not be done.

mod doctor;
mod import;
mod rdf;
mod show;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slugline::Taxonomy;
use slugline::taxonomy::TaxonomyDiff;

/// Checks, shows, compares and imports taxonomies, and reads in an evaluation what to mend in one.
#[derive(Debug, Parser)]
#[command(name = "taxonomy", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a model will find hard: overlapping or missing descriptions, ids that it will confuse, long ids and lists
    Lint {
        /// The taxonomy
        file: PathBuf,
        /// Counts tokens, and finds ids that share their first, with this tokenizer instead of by estimate (feature
        /// `tokenizers`)
        #[arg(long, value_name = "TOKENIZER.json")]
        tokenizer: Option<PathBuf>,
    },
    /// The prompt tokens of each list of children, the longest first
    Tokens {
        /// The taxonomy
        file: PathBuf,
        /// The most lists that are shown
        #[arg(long, value_name = "N", default_value_t = 10)]
        most: usize,
        /// Counts exactly with this tokenizer instead of by estimate (feature `tokenizers`)
        #[arg(long, value_name = "TOKENIZER.json")]
        tokenizer: Option<PathBuf>,
    },
    /// The categories as a tree
    Tree {
        /// The taxonomy
        file: PathBuf,
        /// Only what is below this category
        #[arg(long, value_name = "LABEL")]
        below: Option<String>,
        /// The most levels that are shown
        #[arg(long, value_name = "N", default_value_t = usize::MAX)]
        depth: usize,
        /// The language of the names
        #[arg(long, value_name = "TAG", default_value = "")]
        language: String,
    },
    /// What changed from one version to another
    Diff {
        /// The old version
        old: PathBuf,
        /// The new version
        new: PathBuf,
    },
    /// Makes a taxonomy file of SKOS, of IPTC's JSON, of IAB's TSV or of CSV, on standard output
    Import(import::ImportArgs),
    /// Which categories steal items from which, by an evaluation, and which descriptions to sharpen
    Doctor(doctor::DoctorArgs),
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nobody is left to tell if it cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(args.command) {
        Ok(done) => {
            // A closed standard output is no reason to fail.
            let _ = io::stdout().write_all(done.text.as_bytes());
            if done.has_findings { ExitCode::from(2) } else { ExitCode::SUCCESS }
        }
        Err(reason) => {
            let _ = writeln!(io::stderr(), "error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// What is printed, and whether it is a complaint.
struct Done {
    text: String,
    has_findings: bool,
}

impl Done {
    fn shown(text: String) -> Self {
        Self { text, has_findings: false }
    }
}

fn run(command: Command) -> Result<Done, String> {
    let load = |path: PathBuf| Taxonomy::load(path).map_err(|error| error.to_string());
    match command {
        Command::Lint { file, tokenizer } => {
            let found = load(file)?.lint_with(&*show::counter(tokenizer.as_deref())?);
            let lines: Vec<String> = found.iter().map(|lint| format!("{lint}\n")).collect();
            let text = lines.concat();
            Ok(Done { text, has_findings: !found.is_empty() })
        }
        Command::Tokens { file, most, tokenizer } => {
            Ok(Done::shown(show::tokens(&load(file)?, most, tokenizer.as_deref())?))
        }
        Command::Tree { file, below, depth, language } => {
            Ok(Done::shown(show::tree(&load(file)?, below.as_deref(), depth, &language)?))
        }
        Command::Diff { old, new } => {
            let diff = TaxonomyDiff::new(&load(old)?, &load(new)?);
            Ok(Done { text: diff.to_string(), has_findings: !diff.is_empty() })
        }
        Command::Import(args) => Ok(Done::shown(import::import(&args)?)),
        Command::Doctor(args) => Ok(Done::shown(doctor::doctor(&args)?)),
    }
}
