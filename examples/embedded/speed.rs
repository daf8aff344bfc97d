//! How fast and how right the embedding model is by itself, and how much memory a long stream takes.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use futures_util::{StreamExt, stream};
use slugline::embedded::{FirstOpinion, SentenceModel};
use slugline::testing::SimulatedServer;
use slugline::{Categorizer, EndpointConfig, NewsItem, Taxonomy};

use super::input;
use super::made_up::made_up;

#[derive(Args)]
pub(crate) struct CutsArgs {
    /// Labelled items, a JSON object per line
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,

    /// The field of a line that holds its label
    #[arg(long, value_name = "NAME", default_value = "label")]
    label_field: String,

    /// The most tokens of an item that the model reads: a line for each
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "32,48,64,96,128")]
    tokens: Vec<usize>,
}

/// The same items with each cut.
pub(crate) async fn cuts(args: CutsArgs, model: SentenceModel, taxonomy: Taxonomy) -> Result<(), String> {
    let labelled = input::read(&args.input, &args.label_field, None, usize::MAX)?;
    println!("{} items, the embedding model alone", labelled.len());
    println!("{:>7} {:>9} {:>9}", "tokens", "accuracy", "items/s");
    for tokens in args.tokens {
        let model = model.clone().max_tokens(tokens);
        let categorizer = Categorizer::builder(taxonomy.clone()).embedded(model).build();
        let categorizer = categorizer.map_err(|error| error.to_string())?;
        // The labels are embedded before the clock starts.
        categorizer.categorize(labelled.first().map(|of| of.item.clone())).await;
        let start = Instant::now();
        let report = categorizer.categorize(labelled.iter().map(|of| of.item.clone())).await;
        let seconds = start.elapsed().as_secs_f64();
        let is_right = |(outcome, truth): &(&slugline::Outcome, Option<&slugline::Category>)| {
            outcome.result.as_ref().is_ok_and(|given| truth.is_some_and(|truth| given.category == truth.id))
        };
        let truths = labelled.iter().map(|of| taxonomy.find(&of.label));
        let right = report.outcomes.iter().zip(truths).filter(is_right).count();
        let items = labelled.len() as f64;
        println!("{tokens:>7} {:>9.3} {:>9.1}", right as f64 / items, items / seconds);
    }
    Ok(())
}

#[derive(Args)]
pub(crate) struct StreamArgs {
    /// How many items
    #[arg(long, default_value_t = 20_000)]
    items: u64,

    /// Headlines alone, of seven words or so, as archives have them
    #[arg(long)]
    headlines: bool,
}

/// Many different texts through the first opinion.
pub(crate) async fn long_stream(args: StreamArgs, model: SentenceModel, taxonomy: Taxonomy) -> Result<(), String> {
    let StreamArgs { items, headlines } = args;
    let what = if headlines { "headlines" } else { "items" };
    println!("{items} made-up {what}, all different; a tenth is left to a SIMULATED LLM");
    let item = move |number| {
        let (item, _) = made_up(number);
        if headlines { NewsItem::new(item.id, format!("{}, report {number}", item.title), "") } else { item }
    };
    let opinion = FirstOpinion::of(model).share(0.9).audit(0.01);
    let endpoint = EndpointConfig::new("in-process").transport(SimulatedServer::builder().engine());
    let builder = Categorizer::builder(taxonomy).endpoint(endpoint).model("simulated").seed(1);
    let categorizer = builder.first_opinion(opinion).build().map_err(|error| error.to_string())?;
    let mut outcomes = categorizer.stream(stream::iter(0..items).map(item));
    let (start, mut settled) = (Instant::now(), 0_u64);
    println!("{:>10} {:>8} {:>9} {:>9}", "items", "MiB", "peak MiB", "items/s");
    while let Some(outcome) = outcomes.next().await {
        outcome.result.map_err(|error| error.to_string())?;
        settled += 1;
        if settled.is_multiple_of((items / 10).max(1)) {
            let [now, peak] = ["VmRSS:", "VmHWM:"]
                .map(|name| memory_mib(name).map_or_else(|| "unknown".to_owned(), |mib| mib.to_string()));
            println!("{settled:>10} {now:>8} {peak:>9} {:>9.1}", settled as f64 / start.elapsed().as_secs_f64());
        }
    }
    let rate = settled as f64 / start.elapsed().as_secs_f64();
    let stats = outcomes.stats();
    let opinion = stats.first_opinion.unwrap_or_default();
    println!(
        "settled by the embedding model {}, {} copies, asked {}",
        opinion.settled,
        stats.duplicates,
        items - opinion.settled
    );
    println!("{:.0} minutes", start.elapsed().as_secs_f64() / 60.0);
    if items < 1_000_000 {
        println!("at this rate a million takes {:.1} hours: extrapolated, not run", 1e6 / rate / 3_600.0);
    }
    Ok(())
}

/// A figure of this process's memory, where the system tells (Linux).
fn memory_mib(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1_024)
}
