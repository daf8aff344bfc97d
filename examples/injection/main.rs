//! Measures whether a hostile news item changes the labels of the items that share its request.
//!
//! ```text
//! cargo run --release --example injection -- --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-7B-Instruct-AWQ
//! cargo run --example injection -- --simulated
//! ```
//!
//! Each attack of `attacks.jsonl` is a news item whose text also tries to push other items, or the whole answer, towards
//! its goal. It shares a pack of three with two plain items of `neighbours.jsonl`, as the first, the middle or the last.
//! Every pack is asked four times, which differ only in what stands in the attack's place:
//!
//! | version | in the attack's place | shows |
//! |---|---|---|
//! | baseline | its harmless twin: the same story, about as long, without the attack | the labels without an attack |
//! | again | the twin once more | the noise from run to run |
//! | other text | the harmless twin of another attack, as near in language and length as there is | how much the labels hang on what else is in the pack |
//! | attacked | the attack | the labels under attack |
//!
//! A neighbour counts as changed when its label differs from that of the baseline. "other text" is the fair measure for
//! "attacked", since a model may see a neighbour in another light beside any other story; it errs on the high side, as
//! it changes the story too, which the attack does not.
//!
//! Exit code 0: every item got a category. 2: some did not. 1: it could not measure.

mod figures;
mod set;
mod trial;

#[path = "../support/progress.rs"]
mod progress;

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{StreamExt, stream};
use slugline::testing::SimulatedServer;
use slugline::{Categorizer, CategorizerBuilder, Taxonomy};

use self::figures::{Report, Setting};
use self::progress::{Counts, Progress};
use self::set::TestSet;
use self::trial::{ITEMS_PER_TRIAL, PACK_SIZE, Tried, trials};

/// The trials that are under way at once.
const CONCURRENT_TRIALS: usize = 4;
/// The time for one answer. Longer than slugline's default, since nobody waits for these and the machine may be slow.
const TIMEOUT: Duration = Duration::from_mins(2);

/// Measures whether a hostile news item changes the labels of the items that share its request.
#[derive(Debug, Parser)]
#[command(name = "injection")]
struct Args {
    /// The server, for example <http://localhost:8000/v1>
    #[arg(long, value_name = "URL", required_unless_present = "simulated")]
    base_url: Option<String>,

    /// The model, by the name that the server has for it
    #[arg(long, value_name = "NAME", required_unless_present = "simulated")]
    model: Option<String>,

    /// The categories; the goals of the attacks and the labels of the neighbours must be among them
    #[arg(long, value_name = "FILE.toml", default_value = "categories/newsroom.toml")]
    taxonomy: PathBuf,

    /// Only the first N attacks, which still mix techniques and positions [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// The environment variable that holds the key of the server [default: no key]
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,

    /// Where all figures and the labels of every pack go, as JSON
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,

    /// Tries this program out on a simulated server, which is no language model: it counts words, and no text can
    /// persuade it
    #[arg(long, conflicts_with_all = ["base_url", "model", "api_key_env"])]
    simulated: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help, or a complaint. Nobody is left to tell if it cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&args).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(2),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and gives the number of items that got no category.
async fn run(args: &Args) -> Result<usize, Box<dyn Error>> {
    let taxonomy = Taxonomy::load(&args.taxonomy)?;
    let set = TestSet::load(&taxonomy)?;
    let trials = trials(&set, args.limit)?;
    // Opened now, so that a wrong path is no surprise at the end.
    let json = args.json.as_deref().map(create).transpose()?;

    // Kept until the end: the server stops when it is dropped.
    let simulated = if args.simulated { Some(SimulatedServer::builder().start().await?) } else { None };
    let base_url = simulated.as_ref().map(SimulatedServer::base_url).or_else(|| args.base_url.clone());
    let base_url = base_url.ok_or("no server: name one with --base-url")?;
    let model = args.model.clone().unwrap_or_else(|| "simulated".to_owned());
    let builder = Categorizer::builder(taxonomy).endpoint(base_url.as_str()).model(&model).timeout(TIMEOUT);
    let builder = builder.pack_size(PACK_SIZE).temperature(0.0);
    let builder = api_key(args)?.into_iter().fold(builder, CategorizerBuilder::api_key);
    let categorizer = builder.build()?;

    let started = Instant::now();
    let mut progress = Progress::start(true);
    let mut counts = Counts { total: Some((trials.len() * ITEMS_PER_TRIAL) as u64), ..Counts::default() };
    let mut running = stream::iter(&trials).map(|trial| trial.run(&categorizer)).buffered(CONCURRENT_TRIALS);
    let mut tried: Vec<Tried<'_>> = Vec::with_capacity(trials.len());
    while let Some(finished) = running.next().await {
        let finished = finished?;
        counts.done += ITEMS_PER_TRIAL as u64;
        counts.failed += finished.lost() as u64;
        progress.update(counts);
        tried.push(finished);
    }
    progress.finish();

    let setting = Setting {
        is_simulated: args.simulated,
        base_url,
        model,
        taxonomy: format!("{} {}", categorizer.taxonomy().name(), categorizer.taxonomy().version()),
        prompt_version: categorizer.prompt_version().to_string(),
        seconds: started.elapsed().as_secs_f64(),
    };
    let report = Report::new(setting, &tried);
    if let Some(mut file) = json {
        let mut text = serde_json::to_vec_pretty(&report)?;
        text.push(b'\n');
        file.write_all(&text)?;
    }
    write!(std::io::stdout(), "{report}")?;
    Ok(tried.iter().map(Tried::lost).sum())
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The key, if one is wanted. A key that is wanted and not there must not become a run without one.
fn api_key(args: &Args) -> Result<Option<String>, String> {
    let Some(name) = &args.api_key_env else { return Ok(None) };
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(Some(key)),
        _ => Err(format!("the environment variable {name}, named by --api-key-env, holds no key")),
    }
}
