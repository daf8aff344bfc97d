//! Figures of the tiers before the LLM: a head that learns and meets a drift, the memory of a long stream, and how much of a
//! text the embedding model needs.
//!
//! ```text
//! bash examples/embedded/fetch-model.sh
//! cargo run --release --example tiers -- learn
//! cargo run --release --example tiers -- stream --items 20000
//! cargo run --release --example tiers -- cuts --input labelled.jsonl
//! ```
//!
//! The embedding model is real. The LLM of `learn` is SIMULATED unless `--base-url` names a server: it knows the category of each
//! item and gets a share wrong, so that agreement with it can be counted. That says nothing about a language model.

mod learn;
mod made_up;
mod speed;

#[expect(dead_code, reason = "a part of it is for other examples")]
#[path = "../support/files.rs"]
mod files;
#[expect(dead_code, reason = "a part of it is for other examples")]
#[path = "../evaluate/input.rs"]
mod input;
#[path = "../support/items.rs"]
mod items;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/model.rs"]
mod model;
#[expect(dead_code, reason = "a part of it is for other examples")]
#[path = "../support/server.rs"]
mod server;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use slugline::Taxonomy;
use slugline::embedded::SentenceModel;

/// Figures of the tiers before the LLM.
#[derive(Parser)]
struct Arguments {
    /// The folder with the embedding model [default: where examples/embedded/fetch-model.sh puts it]
    #[arg(long, value_name = "FOLDER", global = true)]
    model_folder: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A head learns from an LLM's answers, takes its items, and hands them back when the LLM changes its mind
    Learn(Box<learn::LearnArgs>),
    /// A long stream through the first opinion: time and memory
    Stream(speed::StreamArgs),
    /// How right and how fast the embedding model is when it reads so many tokens of each item
    Cuts(speed::CutsArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let folder = arguments.model_folder.or_else(|| model::default_folder().filter(|folder| model::is_model(folder)));
    let folder =
        folder.ok_or_else(|| format!("there is no embedding model yet: `bash {}` fetches one", model::SCRIPT))?;
    let model = SentenceModel::open(folder).map_err(|error| error.to_string())?;
    let taxonomy = Taxonomy::load(concat!(env!("CARGO_MANIFEST_DIR"), "/categories/ag-news.toml"));
    let taxonomy = taxonomy.map_err(|error| error.to_string())?;
    match arguments.what {
        What::Learn(args) => learn::learn(*args, model, taxonomy).await,
        What::Stream(args) => speed::long_stream(args, model, taxonomy).await,
        What::Cuts(args) => speed::cuts(args, model, taxonomy).await,
    }
}
