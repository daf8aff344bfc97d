//! Memory of a stream of a million items: flat, whatever the length of the stream.
//!
//! `cargo run --release --example million [ITEMS] [LEDGER]`
//!
//! With the name of a file the answers are kept in a ledger, whose index grows with the items; the same command once more
//! then shows how fast it is read.
//!
//! The server is a stub in the process that answers at once, so the figures are those of the client alone. It also shows
//! how to put another transport under a categorizer.

use std::time::Instant;

use futures_util::{StreamExt, stream};
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::{Categorizer, EndpointConfig, Ledger, NewsItem, Taxonomy};

/// The most memory that the stream may take.
const BOUND_MIB: u64 = 100;
/// The most memory that the index of a ledger may take for each item, while it grows.
const BOUND_INDEX_BYTES: u64 = 60;

#[derive(Debug)]
struct AnswersAtOnce;

impl Transport for AnswersAtOnce {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        Box::pin(async move {
            let count = request.items_text().matches("<item id=").count();
            let objects: Vec<_> = (1..=count).map(|id| serde_json::json!({"id": id, "category": "sport"})).collect();
            let content = serde_json::Value::from(objects).to_string();
            let choice = serde_json::json!({"message": {"content": content}, "finish_reason": "stop"});
            Ok(Response::new(200, serde_json::json!({"choices": [choice]}).to_string()))
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |count| count.parse())?;
    let taxonomy = Taxonomy::load(concat!(env!("CARGO_MANIFEST_DIR"), "/categories/newsroom.toml"))?;
    let mut builder = Categorizer::builder(taxonomy)
        .endpoint(EndpointConfig::new("in-process").transport(AnswersAtOnce))
        .model("none");
    let mut bound_mib = BOUND_MIB;
    let mut ledger = None;
    if let Some(path) = std::env::args().nth(2) {
        let (start, before) = (Instant::now(), resident_mib().unwrap_or(0));
        let opened = Ledger::open(path)?;
        let (stats, seconds) = (opened.stats(), start.elapsed().as_secs_f64());
        let mib = resident_mib().unwrap_or(0).saturating_sub(before);
        println!("ledger of {} answers, {} bytes, opened in {seconds:.2} s, {mib} MiB", stats.answers, stats.bytes);
        bound_mib += count.max(stats.answers) * BOUND_INDEX_BYTES / 1_048_576;
        builder = builder.ledger(opened.clone());
        ledger = Some(opened);
    }
    let categorizer = builder.build()?;

    let body =
        "The council approved the plan after a long debate. Opponents said that the costs are not known. ".repeat(5);
    let items =
        stream::iter(0..count).map(|n| NewsItem::new(n.to_string(), format!("Story number {n}"), body.as_str()));
    let mut outcomes = categorizer.stream(items);

    let start = Instant::now();
    let (mut settled, mut most_mib, mut early_mib) = (0_u64, 0, 0);
    println!("{:>10} {:>8} {:>10}", "items", "MiB", "items/s");
    while let Some(outcome) = outcomes.next().await {
        outcome.result?;
        settled += 1;
        if settled % (count / 10).max(1) == 0 {
            let resident_mib = resident_mib().unwrap_or(0);
            most_mib = most_mib.max(resident_mib);
            if early_mib == 0 {
                early_mib = resident_mib;
            }
            println!("{settled:>10} {resident_mib:>8} {:>10.0}", settled as f64 / start.elapsed().as_secs_f64());
        }
    }
    if let Some(stats) = ledger.map(|ledger| ledger.stats()) {
        println!("ledger of {} answers, {} bytes, {} syncs", stats.answers, stats.bytes, stats.syncs);
    }
    println!("grown by {} MiB after the first tenth; bound {bound_mib} MiB", most_mib.saturating_sub(early_mib));
    if most_mib > bound_mib {
        return Err(format!("{most_mib} MiB are over the bound of {bound_mib} MiB").into());
    }
    Ok(())
}

/// The resident memory of this process, where the system tells (Linux).
fn resident_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1_024)
}
