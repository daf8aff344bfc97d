//! Categorizes 60 bundled news items with the newsroom taxonomy, on whatever server there is.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! It looks for a server at `SLUGLINE_BASE_URL` and at the usual local ports. When there is none, it takes a small embedding
//! model in its own process, which is no language model and knows English best; the file is fetched once by
//! `examples/embedded/fetch-model.sh`. Only where that cannot be had, it starts the simulated server of slugline's `testing`
//! feature, so that the way of an item can be seen without a model; what that server answers says nothing about a model. The
//! items were written for this project, in several languages and scripts, each with the category that its author meant.
//!
//! Exit code 0: the run finished, whatever became of the items. 1: it could not.

mod fetch;
mod table;

#[path = "../support/discover.rs"]
mod discover;
#[path = "../support/model.rs"]
mod model;
#[path = "../support/progress.rs"]
mod progress;
#[path = "../support/summary.rs"]
mod summary;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use slugline::embedded::SentenceModel;
use slugline::testing::{Latency, SimulatedServer};
use slugline::{Categorizer, CategorizerBuilder, NewsItem, Outcome, Stats, Taxonomy};

use self::discover::{Found, discover};
use self::progress::{Counts, Progress};
use self::table::Row;

const ITEMS: &str = include_str!("items.jsonl");
const TAXONOMY: &str = include_str!("../../categories/newsroom.toml");

/// The time for one answer. Longer than slugline's default, since nobody knows what machine the server runs on.
const TIMEOUT: Duration = Duration::from_mins(1);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let taxonomy = Taxonomy::from_toml(TAXONOMY)?;
    let items = bundled_items()?;

    say("looking for a server:");
    let found = discover(|line| say(&format!("  {line}"))).await;
    let builder = Categorizer::builder(taxonomy.clone()).timeout(TIMEOUT);
    // Kept until the end: the server stops when it is dropped.
    let mut simulated = None;
    let builder = match found {
        Some(Found { base_url, program, model, api_key }) => {
            say(&format!("using {program} at {base_url} with the model {model}"));
            let builder = builder.endpoint(base_url.as_str()).model(model);
            if let Some(key) = api_key { builder.api_key(key) } else { builder }
        }
        None => match embedding_model().await {
            Ok(model) => with_embedding_model(builder, model),
            Err(reason) => {
                say(&format!("  it cannot be had: {reason}"));
                let server = SimulatedServer::builder().latency(Latency::reference()).start().await?;
                let builder = with_simulated_server(builder, &server);
                simulated = Some(server);
                builder
            }
        },
    };
    let categorizer = builder.build()?;

    say(&format!("categorizing {} items into {} categories", items.len(), taxonomy.categories().count()));
    let (outcomes, stats) = categorize(&categorizer, &items).await?;

    let rows: Vec<Row> = outcomes.iter().zip(&items).map(|(outcome, item)| Row::new(outcome, item)).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{}", table::render(&rows))?;
    let right = rows.iter().filter(|row| row.is_right).count();
    writeln!(out, "accuracy  {right} of {} = {:.0} %", rows.len(), 100.0 * right as f64 / rows.len().max(1) as f64)?;
    for line in summary::summary(&stats) {
        writeln!(out, "{line}")?;
    }
    if simulated.is_some() {
        writeln!(
            out,
            "          All of these are figures of the simulation. They say nothing about a language model."
        )?;
    }
    Ok(())
}

/// The small embedding model, fetched if it is not there yet.
async fn embedding_model() -> Result<SentenceModel, String> {
    say("none found, so this program takes a small embedding model into its own process");
    let folder = model::default_folder().ok_or("neither XDG_CACHE_HOME nor HOME says where to keep it")?;
    if !model::is_model(&folder) {
        say(&format!("  fetching it once, for {}", folder.display()));
        fetch::fetch(&folder).await?;
    }
    SentenceModel::open(folder).map_err(|error| error.to_string())
}

fn with_embedding_model(builder: CategorizerBuilder, model: SentenceModel) -> CategorizerBuilder {
    say(
        "  IT IS AN EMBEDDING MODEL, NOT A LANGUAGE MODEL: it takes the category whose description is nearest to the item,",
    );
    say("  and knows English best. For a language model: examples/local_server/run.sh, then this program again.");
    builder.embedded(model)
}

fn with_simulated_server(builder: CategorizerBuilder, server: &SimulatedServer) -> CategorizerBuilder {
    say("so this program starts a simulated server in its own process");
    say("  IT IS A SIMULATION, NO MODEL AT ALL: it counts the words that an item shares with the taxonomy.");
    say("  For a real one: examples/local_server/run.sh, then this program again.");
    builder.endpoint(server.base_url()).model("simulated")
}

/// An item with the category that its author meant.
struct Labelled {
    item: NewsItem,
    label: String,
}

fn bundled_items() -> Result<Vec<Labelled>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Label {
        label: String,
    }
    let parse = |line: &str| {
        let Label { label } = serde_json::from_str(line)?;
        Ok(Labelled { item: serde_json::from_str(line)?, label })
    };
    ITEMS.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

/// Categorizes the items and shows progress; gives the outcomes in the order of the items.
///
/// Without progress this would be `categorizer.categorize(items).await`.
async fn categorize(categorizer: &Categorizer, items: &[Labelled]) -> Result<(Vec<Outcome>, Stats), slugline::Error> {
    let mut progress = Progress::start(true);
    let mut counts = Counts { total: Some(items.len() as u64), ..Counts::default() };
    let mut run = categorizer.stream(stream::iter(items.iter().map(|labelled| labelled.item.clone())));
    let mut outcomes = Vec::with_capacity(items.len());
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            outcome = run.next() => {
                let Some(outcome) = outcome else { break };
                counts.done += 1;
                counts.failed += u64::from(outcome.result.is_err());
                outcomes.push(outcome);
            }
            _ = every_second.tick() => {}
        }
        progress.update(counts);
    }
    progress.finish();
    outcomes.sort_unstable_by_key(|outcome| outcome.index);
    run.error().map_or_else(|| Ok((outcomes, run.stats())), |error| Err(error.clone()))
}

/// A line on standard output. A closed one is noticed when the table is printed.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
