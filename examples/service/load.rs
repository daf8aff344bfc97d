//! Sends items to the example `service` at a fixed rate, whatever becomes of them, and tells what did.
//!
//! ```text
//! cargo run --release --example service_load -- --url http://127.0.0.1:8080 --rate 1000 --seconds 60 --pid $(pgrep -x service)
//! ```
//!
//! An open loop: a request is sent when its time has come, not when an earlier one is answered, and its latency counts from
//! that time. So a service that stalls cannot slow down what measures it ("coordinated omission"). All texts differ.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Parser;
use reqwest::Client;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

#[derive(Parser)]
struct Args {
    /// Where the service listens
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Requests per second, each with one item
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// For how long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The process of the service, to look at its memory (Linux)
    #[arg(long)]
    pid: Option<u32>,
    /// Begins the texts, so that two runs do not send copies
    #[arg(long, default_value = "Match report")]
    title: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let client = Client::builder().timeout(Duration::from_secs(120)).build()?;
    let url = format!("{}/categorize", args.url.trim_end_matches('/'));
    let body = "The athletes won the cup after a long day, and the club praised the coach. ".repeat(6);
    let (ended, mut ends) = mpsc::unbounded_channel();
    let count = (args.rate * args.seconds as f64) as u64;
    let start = Instant::now();
    let memory = tokio::spawn(watch_memory(args.pid, args.seconds));
    let mut latest = Duration::ZERO;
    for number in 0..count {
        let due = start + Duration::from_secs_f64(number as f64 / args.rate);
        sleep_until(due).await;
        latest = latest.max(due.elapsed());
        let item = serde_json::json!({"id": number, "title": format!("{} {number}", args.title), "body": body});
        let request = client.post(&url).body(item.to_string());
        let ended = ended.clone();
        tokio::spawn(async move {
            let result = match request.send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    response.bytes().await.map(|_| status).ok()
                }
                Err(_) => None,
            };
            // The receiver lives until all are through.
            let _ = ended.send((result, due.elapsed()));
        });
    }
    drop(ended);
    let mut by_status: BTreeMap<Option<u16>, Vec<Duration>> = BTreeMap::new();
    while let Some((status, latency)) = ends.recv().await {
        by_status.entry(status).or_default().push(latency);
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{count} requests at {:.0}/s; all ended after {seconds:.1} s; sent at most {latest:.0?} late", args.rate);
    println!("{:<8} {:>8} {:>9} {:>9} {:>9} {:>9}", "status", "count", "per s", "p50 ms", "p99 ms", "max ms");
    for (status, mut latencies) in by_status {
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_millis();
        let name = status.map_or("none".to_owned(), |status| status.to_string());
        let rate = latencies.len() as f64 / seconds;
        println!("{name:<8} {:>8} {rate:>9.1} {:>9} {:>9} {:>9}", latencies.len(), at(0.5), at(0.99), at(1.0));
    }
    if let Some(mib) = memory.await? {
        println!("memory of the service, MiB, at ten times of the run: {mib:?}");
    }
    Ok(())
}

/// The resident memory of the process, ten times over the run.
async fn watch_memory(pid: Option<u32>, seconds: u64) -> Option<Vec<u64>> {
    let pid = pid?;
    let mut mib = Vec::new();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(seconds) / 10).await;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        mib.push(line.split_whitespace().next()?.parse::<u64>().ok()? / 1_024);
    }
    Some(mib)
}
