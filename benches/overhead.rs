//! The client's own cost: slugline beside other clients of a server that answers at once.
//!
//! `cargo bench --bench overhead`, or with `-- --client slugline --pack-size 3 --items 2000 --rounds 1` after it for one
//! client alone, `--logprobs` to ask for log-probabilities as slugline does by default, and `--exporter` for slugline with
//! an exporter behind its feature `metrics`.
//!
//! - `bare` posts prepared bytes with reqwest and looks at nothing.
//! - `by hand` is the least that a user must write over reqwest: the JSON of each request from its items, the answer into
//!   typed structs, every id and label checked (`support/by_hand.rs`).
//! - `async-openai`, which slugline is built on, posts prepared JSON and receives raw JSON.
//! - `slugline` also cleans, packs, finds copies, admits, times out, counts, and could ask again.
//!
//! The server is this program once more, as a process of its own, so the CPU time of this process is the client's alone.
//! Items per CPU second are what one core can do. Other work on the machine makes a run slower and never faster. So the
//! clients take turns, and of each the best round counts.
//!
//! To count instructions, which do not depend on other work, start the server by hand (`--serve`), name it with
//! `--base-url`, and run one client below `valgrind --tool=callgrind --toggle-collect='*measure*'`, with two numbers of
//! items: the difference is free of what is done once.

#[path = "support/by_hand.rs"]
mod by_hand;
#[path = "support/clients.rs"]
mod clients;
#[path = "../examples/support/exporter.rs"]
mod exporter;
#[path = "support/fixtures.rs"]
mod fixtures;
#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use self::clients::{Pack, Result};
use self::server::Server;

fn main() -> Result<()> {
    // One thread on both sides: what one core can do, without the cost of waking another.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if server::is_wanted() {
        return Ok(runtime.block_on(server::serve())?);
    }
    let options = Options::from_args()?;
    let exporter = exporter::Prometheus::default();
    if options.has_exporter {
        metrics::set_global_recorder(exporter.clone())?;
    }
    let own = options.base_url.is_none().then(Server::start).transpose()?;
    let base_url =
        options.base_url.as_deref().or(own.as_ref().map(|server| server.base_url.as_str())).unwrap_or_default();
    println!(
        "{:<12} {:>5} {:>14} {:>14} {:>12} {:>8} {:>10} {:>10}",
        "client", "pack", "items/CPU s", "items/s", "µs/request", "of bare", "of by hand", "of openai"
    );
    for &pack_size in &options.pack_sizes {
        let pack = Pack { size: pack_size, confidence: options.has_logprobs };
        let bodies = runtime.block_on(clients::bodies(options.items, pack))?;
        let first = bodies.first().ok_or("no items")?;
        let items: Vec<_> = fixtures::items(options.items).collect();
        let mut best = CLIENTS.map(|_| Figures::default());
        for _ in 0..options.rounds {
            for (client, best) in CLIENTS.into_iter().zip(&mut best).filter(|(client, _)| options.wants(client)) {
                let run = match client {
                    "bare" => clients::bare(base_url, &bodies)?,
                    "by hand" => by_hand::by_hand(base_url, first, &items, pack_size)?,
                    "async-openai" => clients::async_openai(base_url, &bodies)?,
                    _ => clients::slugline(base_url.into(), options.items, pack)?,
                };
                best.improve(measure(|| runtime.block_on(run))?);
            }
        }
        for (client, figures) in CLIENTS.into_iter().zip(&best).filter(|(client, _)| options.wants(client)) {
            let share = |other: &Figures| other.cpu.as_secs_f64() / figures.cpu.as_secs_f64();
            println!(
                "{client:<12} {pack_size:>5} {:>14.0} {:>14.0} {:>12.1} {:>8.2} {:>10.2} {:>10.2}",
                options.items as f64 / figures.cpu.as_secs_f64(),
                options.items as f64 / figures.wall.as_secs_f64(),
                figures.cpu.as_secs_f64() * 1e6 / bodies.len() as f64,
                share(&best[0]),
                share(&best[1]),
                share(&best[2]),
            );
        }
    }
    if options.has_exporter {
        println!("exported: {} lines", exporter.page().lines().count());
    }
    Ok(())
}

const CLIENTS: [&str; 4] = ["bare", "by hand", "async-openai", "slugline"];

struct Options {
    /// None means all.
    client: Option<String>,
    pack_sizes: Vec<usize>,
    /// None means a server of our own.
    base_url: Option<String>,
    items: usize,
    rounds: usize,
    has_exporter: bool,
    has_logprobs: bool,
}

impl Options {
    fn from_args() -> Result<Self> {
        let mut options = Self {
            client: None,
            pack_sizes: vec![1, 3],
            base_url: None,
            items: 15_000,
            rounds: 12,
            has_exporter: false,
            has_logprobs: false,
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            if name == "--exporter" {
                options.has_exporter = true;
                continue;
            }
            if name == "--logprobs" {
                options.has_logprobs = true;
                continue;
            }
            let mut value = || args.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--client" => options.client = Some(value()?),
                "--pack-size" => options.pack_sizes = vec![value()?.parse()?],
                "--base-url" => options.base_url = Some(value()?),
                "--items" => options.items = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                // What cargo says to any bench.
                "--bench" => {}
                other => return Err(format!("unknown argument {other}").into()),
            }
        }
        Ok(options)
    }

    fn wants(&self, client: &str) -> bool {
        self.client.as_deref().is_none_or(|wanted| wanted == client)
    }
}

/// What a run took.
#[derive(Clone, Copy, Default)]
struct Figures {
    cpu: Duration,
    wall: Duration,
}

impl Figures {
    fn improve(&mut self, other: Self) {
        if self.cpu.is_zero() || other.cpu < self.cpu {
            *self = other;
        }
    }
}

#[inline(never)]
fn measure(run: impl FnOnce() -> Result<()>) -> Result<Figures> {
    let (cpu, start) = (cpu_time(), Instant::now());
    run()?;
    Ok(Figures { cpu: cpu_time().saturating_sub(cpu), wall: start.elapsed() })
}

/// The CPU time of this process, user and system.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
