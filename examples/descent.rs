//! A walk through a tree under faults: many items, simulated endpoints, and a check that none is lost, doubled or swapped.
//!
//! `cargo run --release --example descent -- [--items N] [--faults SHARE] [--pack-size N] [--beam N] [--labels N]
//! [--no-affinity] [--cache-tokens N] [--seed N]`
//!
//! The tree is made up: five levels, 1,364 categories, each with a word of its own. An item is made of the words along the
//! path to a category, so the simulation follows that path, and an outcome that went to another item shows. With `--labels`
//! an item is made of the words of two paths that part at the top and go down to the last level, and each label must be one
//! of its own. Prints the
//! figures of each level, and ends with 1 if anything is lost, doubled or swapped.

use std::time::Duration;

use clap::Parser;
use futures_util::{StreamExt, stream};
use slugline::testing::{Fault, Faults, Latency, SimulatedServer};
use slugline::{AnswerForm, Assignment, Categorizer, Category, CategoryId, Descent, NewsItem, Outcome, Taxonomy};

#[derive(Parser)]
#[command(about = "Walks a made-up tree with simulated, failing endpoints and checks that no item is lost or swapped")]
struct Arguments {
    /// The number of items.
    #[arg(long, default_value_t = 100_000)]
    items: usize,
    /// The share of requests that meet a fault, 0 to 1.
    #[arg(long, default_value_t = 0.15)]
    faults: f64,
    /// The most items of a request.
    #[arg(long, default_value_t = 3)]
    pack_size: usize,
    /// The paths of an item that are followed, 1 to 4.
    #[arg(long, default_value_t = 1)]
    beam: usize,
    /// The most categories of an item, 2 to 8: items then belong to two [default: one category].
    #[arg(long)]
    labels: Option<u8>,
    /// Packs of one prefix prefer no endpoint, to see what it is worth that they do.
    #[arg(long)]
    no_affinity: bool,
    /// The prompt tokens that each endpoint's prefix cache has room for [default: 65,536; the tree's prefixes have about 110,000].
    #[arg(long)]
    cache_tokens: Option<usize>,
    /// Makes faults and backoff repeatable, as far as the order of requests is.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The most swapped items that are printed.
const MOST_SHOWN: u64 = 10;
/// The children of each category, and the levels.
const WIDTH: usize = 4;
const LEVELS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let paths = paths();
    let category = |path: &Vec<usize>| {
        let category = Category::new(id(path), id(path).to_uppercase(), format!("About {}.", word(path)));
        if path.len() > 1 { category.with_parent(id(&path[..path.len() - 1])) } else { category }
    };
    let taxonomy = Taxonomy::new("made-up", "1", paths.iter().map(category))?;

    let faults = faults(arguments.faults);
    let latency = Latency::new(50_000.0, Duration::from_micros(100), Duration::ZERO);
    let server = |seed| {
        let server = SimulatedServer::builder().latency(latency).faults(faults.clone()).seed(seed);
        // In blocks of 16 tokens, as vLLM's on a GPU.
        arguments.cache_tokens.into_iter().fold(server, |server, tokens| server.prefix_cache(16, tokens))
    };
    let servers = [server(arguments.seed).start().await?, server(arguments.seed + 1).start().await?];
    println!(
        "{} items, {} categories on {LEVELS} levels, packs of {}, beam {}, {}, {}, two SIMULATED endpoints, {:.0} % faults",
        arguments.items,
        taxonomy.len(),
        arguments.pack_size,
        arguments.beam,
        arguments.labels.map_or_else(|| "one label".to_owned(), |most| format!("up to {most} labels")),
        if arguments.no_affinity { "no affinity" } else { "affinity" },
        100.0 * arguments.faults
    );
    let builder =
        servers.iter().fold(Categorizer::builder(taxonomy), |builder, server| builder.endpoint(server.base_url()));
    let builder = match arguments.labels {
        Some(most) => builder.answer_form(AnswerForm::Several(most)),
        None => builder,
    };
    let categorizer = builder
        .model("simulated")
        .pack_size(arguments.pack_size)
        .descend(Descent::default().beam(arguments.beam).affinity(!arguments.no_affinity))
        .timeout(Duration::from_secs(2))
        .seed(arguments.seed)
        .build()?;

    let wanted = if arguments.labels.is_some() { 2 } else { 1 };
    let mut tally =
        Tally { seen: vec![false; arguments.items], doubled: 0, swapped: 0, labels: 0, complete: 0, stayed: 0 };
    let item = |number: usize| {
        let words: Vec<_> = targets(&paths, number, wanted)
            .flat_map(|target| (1..=target.len()).map(|level| word(&target[..level])))
            .collect();
        NewsItem::new(format!("item-{number}"), format!("{} {number}", words.join(" ")), "")
    };
    let mut outcomes = categorizer.stream(stream::iter((0..arguments.items).map(item)));
    while let Some(outcome) = outcomes.next().await {
        tally.record(&outcome, targets(&paths, outcome.index as usize, wanted));
    }

    let stats = outcomes.stats();
    println!("{:.0} s, {:.0} items/s", stats.elapsed_s, stats.items_per_second());
    for level in &stats.levels {
        println!(
            "level {}: {} lists, {} items, {} requests, {:.3} for each pack; ended: {} leaf, {} stay, {} failed",
            level.level,
            level.nodes,
            level.items,
            level.requests,
            level.requests_per_pack.unwrap_or(0.0),
            level.leaf,
            level.stays,
            level.failed
        );
    }
    let items = stats.items as f64;
    println!(
        "per item {:.2} requests, {:.0} prompt tokens ({:.0} % cached), {:.1} output tokens",
        stats.requests as f64 / items,
        stats.prompt_tokens as f64 / items,
        100.0 * stats.cached_share().unwrap_or(0.0),
        stats.output_tokens as f64 / items
    );
    println!("retries {}, items asked again {}, packs split {}", stats.retries, stats.reasked, stats.splits);
    println!("items failed for a stated reason: {:?}", stats.failed);
    if wanted > 1 {
        println!(
            "{:.2} labels per item, {} of {} items with both of theirs, {} with one above theirs after a failure",
            tally.labels as f64 / items,
            tally.complete,
            stats.items,
            tally.stayed
        );
    }
    if let Some(error) = outcomes.error() {
        return Err(format!("the run stopped: {error}").into());
    }
    let lost = tally.seen.iter().filter(|seen| !**seen).count();
    println!("lost {lost}, doubled {}, swapped {}", tally.doubled, tally.swapped);
    let is_clean = lost == 0 && tally.doubled == 0 && tally.swapped == 0;
    if is_clean { Ok(()) } else { Err("an outcome is lost, doubled or swapped".into()) }
}

/// The mix of faults, without long waits, which would only make it slow.
fn faults(share: f64) -> Faults {
    let rare = share / 1_000.0;
    Faults::mix(share)
        .with(Fault::TooManyRequestsSeconds, rare)
        .with(Fault::TooManyRequestsDate, rare)
        // Cannot be told from a right answer when it is cut between its two objects; see the example `soak`.
        .with(Fault::DuplicateObject, rare)
        .with(Fault::Hang, rare)
        .with(Fault::SlowDrip, rare)
}

/// Every category by its way from the top.
fn paths() -> Vec<Vec<usize>> {
    let mut paths: Vec<Vec<usize>> = Vec::new();
    let mut level = vec![Vec::new()];
    for _ in 0..LEVELS {
        let below = |path: &Vec<usize>| (0..WIDTH).map(|n| [&path[..], &[n]].concat()).collect::<Vec<_>>();
        level = level.iter().flat_map(below).collect();
        paths.extend(level.iter().cloned());
    }
    paths
}

/// The categories of an item: one, mostly deep, some on every level; or two of the last level, never in one branch of the
/// top. Where several labels may be given the simulation names children even if it knows of none, so it never stays.
fn targets(paths: &[Vec<usize>], number: usize, wanted: usize) -> impl Iterator<Item = &[usize]> {
    let paths = if wanted > 1 { &paths[paths.len() - WIDTH.pow(LEVELS as u32)..] } else { paths };
    let first = &paths[(number * 7_919) % paths.len()];
    let branch = |path: &&Vec<usize>| path[0] != first[0];
    let second =
        (1..=paths.len()).map(move |step| &paths[(number * 7_919 + step * 104_729) % paths.len()]).find(branch);
    std::iter::once(first).chain(second).take(wanted).map(Vec::as_slice)
}

fn id(path: &[usize]) -> String {
    let letters: String = path.iter().map(|n| char::from(b'a' + *n as u8)).collect();
    format!("c-{letters}")
}

/// A word that no other category has, however it is cut for its ending.
fn word(path: &[usize]) -> String {
    let letters: String = path.iter().map(|n| char::from(b'k' + *n as u8)).collect();
    format!("qxz{letters}zq")
}

/// Who has been seen.
struct Tally {
    seen: Vec<bool>,
    doubled: u64,
    swapped: u64,
    labels: u64,
    /// Items that have all of their labels.
    complete: u64,
    /// Further labels that stayed above theirs after a failure.
    stayed: u64,
}

impl Tally {
    fn record<'a>(&mut self, outcome: &Outcome, targets: impl Iterator<Item = &'a [usize]>) {
        let number = outcome.index as usize;
        let Some(seen) = self.seen.get_mut(number) else {
            self.swapped += 1;
            return;
        };
        self.doubled += u64::from(std::mem::replace(seen, true));
        let right: Vec<_> = targets.map(id).collect();
        let given: Vec<_> = outcome.result.iter().flat_map(labels).map(|label| label.as_str().to_owned()).collect();
        self.labels += given.len() as u64;
        self.complete += u64::from(right.iter().all(|label| given.contains(label)));
        // Of several labels one may be left out, as the simulation names those that are likely enough; and a further one whose
        // next level failed stays the category above, whose letters its own begins with.
        let is_above = |label: &String| right.iter().any(|right| right.starts_with(label.as_str()));
        let has_stayed = |at: usize, label: &String| at > 0 && is_above(label);
        let is_right = given.iter().enumerate().all(|(at, label)| right.contains(label) || has_stayed(at, label));
        self.stayed += given.iter().filter(|label| !right.contains(label) && is_above(label)).count() as u64;
        if !is_right || outcome.id != format!("item-{number}") {
            self.swapped += 1;
            if self.swapped > MOST_SHOWN {
                return;
            }
            // A check that fails says what it saw; the items are made up, so nothing private is printed.
            println!("swapped: item {number}, returned as {:?}, belongs to {right:?}, got {given:?}", outcome.id);
            println!("  path {:?}, origin {:?}", outcome.path, outcome.result.as_ref().map(|of| &of.origin));
        }
    }
}

/// The categories of an assignment, the first one first.
fn labels(assignment: &Assignment) -> impl Iterator<Item = &CategoryId> {
    std::iter::once(&assignment.category).chain(assignment.secondary.iter().map(|(category, _)| category))
}
