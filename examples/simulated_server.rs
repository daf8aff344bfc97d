//! A **simulated** server in a process of its own, to try clients with that are not in this process, or not in Rust.
//!
//! `cargo run --release --example simulated_server -- [--port N] [--latency none|reference|one-at-a-time] [--noise SHARE]
//! [--faults SHARE] [--seed N]`
//!
//! It is no language model: it picks the category that shares the most words with the item, so its labels and its times say
//! nothing about any model. It reads prompts in which categories stand as lines `- id: name. description` and items in
//! `<item id="1">` frames, as this crate writes them, and answers `[{"id": 1, "category": "sport"}]`, or
//! `{"category": "sport"}` when the schema of the request says so.

use std::io::Write;

use clap::{Parser, ValueEnum};
use slugline::testing::{Faults, Latency, SimulatedServer};

#[derive(Parser)]
#[command(about = "Serves a simulation of a model server on 127.0.0.1 until it is interrupted")]
struct Arguments {
    /// The port; 0 is any free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// How fast it is.
    #[arg(long, value_enum, default_value_t = Speed::Reference)]
    latency: Speed,
    /// The share of items that get a wrong label, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    noise: f64,
    /// The share of requests that meet a fault, of the kinds that a good server has now and then, 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    faults: f64,
    /// Decides which items get a wrong label and which requests a fault.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Speed {
    /// Answers at once.
    None,
    /// The figures of a 7B model on one RTX 4080.
    Reference,
    /// One request after the other, at a laptop's speed.
    OneAtATime,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let latency = match arguments.latency {
        Speed::None => Latency::instant(),
        Speed::Reference => Latency::reference(),
        Speed::OneAtATime => Latency::one_at_a_time(),
    };
    let server = SimulatedServer::builder()
        .port(arguments.port)
        .latency(latency)
        .noise(arguments.noise)
        .faults(Faults::mix(arguments.faults))
        .seed(arguments.seed)
        .start()
        .await?;
    // Whoever started it waits for this line to learn the port, or that it listens.
    println!("SIMULATED server at {}, model simulated", server.base_url());
    std::io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    let counts = server.counts();
    println!(
        "{} requests, {} items, {} prompt tokens of which {:.0} % cached, {} output tokens",
        counts.completion_requests(),
        counts.items,
        counts.prompt_tokens,
        100.0 * counts.cached_share(),
        counts.output_tokens
    );
    Ok(())
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("must be 0 to 1".to_owned()) }
}
