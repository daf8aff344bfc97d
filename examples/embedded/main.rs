//! Figures of the tiers before the LLM: a head that learns and meets a drift, and the memory of a long stream.
//!
//! ```text
//! bash examples/embedded/fetch-model.sh
//! cargo run --release --example tiers -- learn
//! cargo run --release --example tiers -- stream --items 20000
//! ```
//!
//! The embedding model is real. The LLM is the SIMULATED engine of the feature `testing`, in this process: its labels follow
//! from the words of the made-up items, but for a share of noise, so that agreement with it can be counted. None of this says
//! anything about a language model.

#[path = "../support/model.rs"]
mod model;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Parser, Subcommand};
use futures_util::{StreamExt, stream};
use slugline::embedded::{FirstOpinion, Learning, SentenceModel};
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::testing::{SimulatedEngine, SimulatedServer};
use slugline::{Categorizer, CategorizerBuilder, EndpointConfig, Engine, NewsItem, Taxonomy};

/// Figures of the tiers before the LLM, which is simulated.
#[derive(Parser)]
struct Arguments {
    /// The folder with the embedding model [default: where examples/embedded/fetch-model.sh puts it]
    #[arg(long, global = true)]
    model_folder: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A head learns from answers with noise, takes its items, and hands them back when the LLM changes its mind
    Learn {
        #[arg(long, default_value_t = 8_000)]
        items: u64,
        /// The item from which on the LLM exchanges two categories
        #[arg(long, default_value_t = 5_000)]
        drift_at: u64,
        /// The share of wrong answers of the LLM
        #[arg(long, default_value_t = 0.1)]
        noise: f64,
        /// The agreement to learn to, which the noise bounds
        #[arg(long, default_value_t = 0.85)]
        target: f64,
    },
    /// A long stream of short texts through the first opinion: time and memory
    Stream {
        #[arg(long, default_value_t = 20_000)]
        items: u64,
    },
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let folder = arguments.model_folder.or_else(|| model::default_folder().filter(|folder| model::is_model(folder)));
    let folder =
        folder.ok_or_else(|| format!("there is no embedding model yet: `bash {}` fetches one", model::SCRIPT))?;
    let model = SentenceModel::open(folder)?;
    let taxonomy = Taxonomy::load(concat!(env!("CARGO_MANIFEST_DIR"), "/categories/ag-news.toml"))?;
    match arguments.what {
        What::Learn { items, drift_at, noise, target } => learn(model, taxonomy, items, drift_at, noise, target).await,
        What::Stream { items } => long_stream(model, taxonomy, items).await,
    }
}

async fn learn(
    model: SentenceModel,
    taxonomy: Taxonomy,
    items: u64,
    drift_at: u64,
    noise: f64,
    target: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    println!(
        "{items} made-up items; a SIMULATED LLM with {:.0} % noise; from item {drift_at} on it exchanges sports and technology",
        100.0 * noise
    );
    let engine = SimulatedServer::builder().noise(noise).logprobs(false).engine();
    let has_drifted = Arc::new(AtomicBool::new(false));
    let drifting = Drifting { engine, has_drifted: Arc::clone(&has_drifted) };
    let opinion = FirstOpinion::of(model).audit(0.05).learn(Learning::to(target));
    let categorizer = builder(taxonomy, drifting).first_opinion(opinion).build()?;
    let source = stream::iter(0..items).map(|number| {
        has_drifted.store(number >= drift_at, Ordering::Relaxed);
        made_up(number)
    });
    let mut outcomes = categorizer.stream(source);
    let (start, mut settled, mut by_head, mut requests) = (Instant::now(), 0_u64, 0_u64, 0_u64);
    println!("{:>7} {:>9} {:>11} {:>15}  head", "items", "requests", "by the head", "items a request");
    while let Some(outcome) = outcomes.next().await {
        settled += 1;
        by_head += u64::from(outcome.result?.origin.engine == Engine::LearnedHead);
        if settled % 500 == 0 {
            let stats = outcomes.stats();
            let (sent, taken) = (stats.requests - requests, std::mem::take(&mut by_head));
            requests = stats.requests;
            let head = stats.first_opinion.and_then(|opinion| opinion.head).unwrap_or_default();
            let switch = match (&head.off_because, head.threshold, head.held_out) {
                (None, Some(threshold), Some((agreed, of))) => {
                    format!("on above {threshold:.3}, {agreed} of {of} held out agreed")
                }
                (reason, ..) => format!("off: {}", reason.as_deref().unwrap_or_default()),
            };
            println!("{settled:>7} {sent:>9} {taken:>11} {:>15.1}  {switch}", 500.0 / sent.max(1) as f64);
        }
    }
    let head = outcomes.stats().first_opinion.and_then(|opinion| opinion.head).unwrap_or_default();
    if let Some((agreement, interval)) = head.agreement() {
        println!(
            "audit: {agreement:.3} ({:.3} to {:.3}) of {} agreed, the time around the drift included; target {target}; {} drifts",
            interval.low, interval.high, head.audited, head.drifts
        );
    }
    println!("{:.1} items/s", settled as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

async fn long_stream(model: SentenceModel, taxonomy: Taxonomy, items: u64) -> Result<(), Box<dyn std::error::Error>> {
    println!("{items} made-up items of about 20 tokens; the LLM is SIMULATED");
    let opinion = FirstOpinion::of(model).share(0.9).audit(0.01);
    let categorizer = builder(taxonomy, SimulatedServer::builder().engine()).first_opinion(opinion).build()?;
    let mut outcomes = categorizer.stream(stream::iter(0..items).map(made_up));
    let (start, mut settled) = (Instant::now(), 0_u64);
    println!("{:>10} {:>8} {:>8}", "items", "MiB", "items/s");
    while let Some(outcome) = outcomes.next().await {
        outcome.result?;
        settled += 1;
        if settled % (items / 10).max(1) == 0 {
            let mib = resident_mib().map_or_else(|| "unknown".to_owned(), |mib| mib.to_string());
            println!("{settled:>10} {mib:>8} {:>8.1}", settled as f64 / start.elapsed().as_secs_f64());
        }
    }
    let opinion = outcomes.stats().first_opinion.unwrap_or_default();
    println!("settled by the embedding model {}, asked {}", opinion.settled, items - opinion.settled);
    Ok(())
}

fn builder(taxonomy: Taxonomy, transport: impl Transport + 'static) -> CategorizerBuilder {
    let endpoint = EndpointConfig::new("in-process").transport(transport);
    Categorizer::builder(taxonomy).endpoint(endpoint).model("simulated").seed(1)
}

/// The simulated engine, which exchanges two categories once it has drifted.
#[derive(Debug)]
struct Drifting {
    engine: SimulatedEngine,
    has_drifted: Arc<AtomicBool>,
}

impl Transport for Drifting {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        Box::pin(async move {
            let mut response = self.engine.send(request).await?;
            if self.has_drifted.load(Ordering::Relaxed) {
                let body = String::from_utf8_lossy(&response.body);
                let body =
                    body.replace("sports", "\u{0}").replace("technology", "sports").replace('\u{0}', "technology");
                response.body = body.into_bytes().into();
            }
            Ok(response)
        })
    }
}

/// Words of each category's description that stand in no other, which the simulation counts.
const SUBJECTS: [[&str; 6]; 4] = [
    ["elections", "diplomacy", "conflict", "crime", "accidents", "disasters"],
    ["races", "athletes", "coaches", "teams", "leagues", "injuries"],
    ["earnings", "mergers", "banks", "regulators", "oil", "trade"],
    ["science", "computing", "software", "internet", "telecoms", "gadgets"],
];
const FILLERS: [&str; 12] =
    ["people", "week", "report", "city", "year", "plan", "early", "large", "morning", "question", "group", "change"];

/// An item with two words of its category among others, the same for a number every time.
fn made_up(number: u64) -> NewsItem {
    let mut random = fastrand::Rng::with_seed(number);
    let subject = &SUBJECTS[random.usize(..SUBJECTS.len())];
    let mut words: Vec<&str> = (0..2).map(|_| subject[random.usize(..subject.len())]).collect();
    words.extend((0..6).map(|_| FILLERS[random.usize(..FILLERS.len())]));
    random.shuffle(&mut words);
    NewsItem::new(number.to_string(), format!("{} {number}", words.join(" ")), "")
}

/// The resident memory of this process, where the system tells (Linux).
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1_024)
}
