//! A soak test: a million items through three simulated endpoints with 15 % faults, one death and one revival.
//!
//! `cargo run --release --example soak -- [--items N] [--faults SHARE] [--pack-size N] [--seed N]`
//!
//! The endpoints are simulations on loopback sockets, in this process. What is checked holds by construction: the words of
//! an item say which category is right, so an outcome that went to another item shows; every item must have exactly one.
//! Prints one line every ten seconds, then the figures, and ends with 1 if anything is lost, doubled or swapped.

use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{StreamExt, stream};
use slugline::testing::{Fault, Faults, SimulatedServer};
use slugline::{Categorizer, Category, NewsItem, Outcome, Taxonomy};

#[derive(Parser)]
#[command(
    about = "Runs many items through simulated endpoints with faults and checks that none is lost, doubled or swapped"
)]
struct Arguments {
    /// The number of items.
    #[arg(long, default_value_t = 1_000_000)]
    items: u64,
    /// The share of requests that meet a fault, 0 to 1.
    #[arg(long, default_value_t = 0.15)]
    faults: f64,
    /// The most items of a request.
    #[arg(long, default_value_t = 3)]
    pack_size: usize,
    /// Makes faults and backoff repeatable, as far as the order of requests is.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Words that stand in the description of one category alone, so that the simulation labels them rightly.
const SUBJECTS: [(&str, &str); 7] = [
    ("sport", "athletes matches"),
    ("economy", "companies markets"),
    ("culture", "museums concerts"),
    ("health", "hospitals vaccines"),
    ("weather", "storms rainfall"),
    ("science", "telescopes genomes"),
    ("crime", "burglars courts"),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let categories = SUBJECTS.iter().map(|(id, words)| Category::new(*id, *id, format!("About {words}.")));
    let taxonomy = Taxonomy::new("soak", "1", categories)?;

    let faults = faults(arguments.faults);
    let dies_after = arguments.items / 20;
    let servers = [
        SimulatedServer::builder().faults(faults.clone()).seed(arguments.seed).start().await?,
        SimulatedServer::builder().faults(faults.clone()).seed(arguments.seed + 1).start().await?,
        SimulatedServer::builder()
            .faults(faults.die_after(dies_after, Some(Duration::from_secs(15))))
            .seed(arguments.seed + 2)
            .start()
            .await?,
    ];
    println!(
        "{} items, packs of {}, three SIMULATED endpoints, {:.0} % faults; the third dies at its request {dies_after} and is back 15 s later",
        arguments.items,
        arguments.pack_size,
        100.0 * arguments.faults
    );
    let builder =
        servers.iter().fold(Categorizer::builder(taxonomy), |builder, server| builder.endpoint(server.base_url()));
    let categorizer = builder
        .model("simulated")
        .pack_size(arguments.pack_size)
        .timeout(Duration::from_secs(2))
        .seed(arguments.seed)
        .build()?;

    let count = arguments.items;
    let mut outcomes = categorizer.stream(stream::iter((0..count).map(item)));
    let mut ledger = Ledger::new(count);
    let mut memory = Memory::default();
    let start = Instant::now();
    let mut next_line = Duration::from_secs(10);
    while let Some(outcome) = outcomes.next().await {
        ledger.record(&outcome);
        if start.elapsed() >= next_line {
            next_line += Duration::from_secs(10);
            memory.look();
            let rate = ledger.seen as f64 / start.elapsed().as_secs_f64();
            println!(
                "{:>4.0} s {:>9} items {rate:>7.0}/s, {} MiB",
                start.elapsed().as_secs_f64(),
                ledger.seen,
                memory.last
            );
        }
    }
    memory.look();

    let stats = outcomes.stats();
    let requests: u64 = servers.iter().map(|server| server.counts().completion_requests()).sum();
    println!("{:.0} s, {:.0} items/s", stats.elapsed_s, stats.items_per_second());
    println!(
        "requests {requests}, retries {}, items asked again {}, packs split {}",
        stats.retries, stats.reasked, stats.splits
    );
    println!("failures of requests: {:?}", stats.failures);
    println!("items failed for a stated reason: {:?}", stats.failed);
    println!("memory: {} MiB at first, {} MiB at most (three simulated servers included)", memory.first, memory.most);
    if let Some(error) = outcomes.error() {
        return Err(format!("the run stopped: {error}").into());
    }
    println!("lost {}, doubled {}, swapped {}", ledger.lost(), ledger.doubled, ledger.swapped);
    if ledger.is_clean() { Ok(()) } else { Err("an outcome is lost, doubled or swapped".into()) }
}

/// The mix of faults. A server that asks to wait is left alone for that time, at least a second, so requests that are
/// answered so are rarer than the others, else the soak would mostly wait.
fn faults(share: f64) -> Faults {
    let rare = share / 1_000.0;
    Faults::mix(share)
        .with(Fault::TooManyRequestsSeconds, rare)
        .with(Fault::TooManyRequestsDate, rare)
        // A model that gives one item two labels, and whose answer is cut between them, cannot be told from one that gives
        // the first: about once in a million items at the rate of the others.
        .with(Fault::DuplicateObject, rare)
        .with(Fault::Hang, share / 100.0)
        .with(Fault::SlowDrip, share / 100.0)
}

fn item(number: u64) -> NewsItem {
    let (_, words) = SUBJECTS[(number % SUBJECTS.len() as u64) as usize];
    NewsItem::new(format!("soak-{number}"), format!("{words} {number}"), "")
}

/// Who has been seen, a bit for each item.
struct Ledger {
    bits: Vec<u64>,
    count: u64,
    seen: u64,
    doubled: u64,
    swapped: u64,
}

impl Ledger {
    fn new(count: u64) -> Self {
        Self { bits: vec![0; (count / 64 + 1) as usize], count, seen: 0, doubled: 0, swapped: 0 }
    }

    fn record(&mut self, outcome: &Outcome) {
        let number = outcome.index;
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        let Some(bits) = self.bits.get_mut(word).filter(|_| number < self.count) else {
            self.swapped += 1;
            return;
        };
        self.doubled += u64::from(*bits & bit != 0);
        *bits |= bit;
        self.seen += 1;
        let (right, _) = SUBJECTS[(number % SUBJECTS.len() as u64) as usize];
        let is_own = outcome.id == format!("soak-{number}");
        let is_right = outcome.result.as_ref().map_or(true, |assignment| assignment.category.as_str() == right);
        self.swapped += u64::from(!is_own || !is_right);
    }

    fn lost(&self) -> u64 {
        self.count - self.bits.iter().map(|bits| u64::from(bits.count_ones())).sum::<u64>()
    }

    fn is_clean(&self) -> bool {
        self.lost() == 0 && self.doubled == 0 && self.swapped == 0
    }
}

/// The resident memory of this process in MiB, where the system tells (Linux).
#[derive(Default)]
struct Memory {
    first: u64,
    last: u64,
    most: u64,
}

impl Memory {
    fn look(&mut self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        self.last = kib.unwrap_or(0) / 1_024;
        self.most = self.most.max(self.last);
        if self.first == 0 {
            self.first = self.last;
        }
    }
}
