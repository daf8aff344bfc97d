//! Shows what a server or a running service does, in a terminal: rates, percentiles, tokens, endpoints, GPU, alerts.
//!
//! ```text
//! cargo run --release --example monitor -- --url http://localhost:8000/metrics --url http://localhost:8080/metrics
//! ```
//!
//! It reads the `/metrics` of vLLM, `SGLang` and llama.cpp (`--metrics`), and of the example `service`. Rates and percentiles are
//! of the time between two looks. On a terminal the figures are drawn over each other, else a line is written for each
//! server and look. The GPU is that of this machine, by `nvidia-smi`, where there is one.

mod alerts;
mod gpu;
mod view;

#[path = "../support/prometheus.rs"]
mod prometheus;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use slugline::gpu::GpuWatch;

use self::prometheus::{Page, fetch};
use self::view::{Figures, Look, figures};

/// Shows what servers and services do until it is interrupted.
#[derive(Debug, Parser)]
#[command(name = "monitor", version)]
struct Args {
    /// A server or service: the address of its figures, or any address of it, such as the one that clients are given; may
    /// repeat
    #[arg(long, visible_alias = "base-url", value_name = "URL", required = true)]
    url: Vec<String>,

    /// The time between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    interval: f64,

    /// Ends after so many looks [default: goes on until it is interrupted]
    #[arg(long, value_name = "N")]
    looks: Option<u64>,
}

/// How long a look may take.
const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), String> {
    if !(0.1..=3_600.0).contains(&args.interval) {
        return Err("--interval must be 0.1 to 3600 seconds".to_owned());
    }
    let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|error| error.to_string())?;
    let mut watched = args.url.iter().map(|url| Watched::new(url)).collect::<Result<Vec<_>, _>>()?;
    let gpus = GpuWatch::start(None);
    let mut screen = Screen::open();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(args.interval));
    let mut looks = 0;
    while args.looks.is_none_or(|most| looks < most) {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = tokio::signal::ctrl_c() => break,
        }
        looks += 1;
        let mut shown = Vec::new();
        for server in &mut watched {
            shown.push((server.url.to_string(), server.look(&client).await));
        }
        let gpus: Vec<String> = gpus.latest().iter().map(gpu::line).collect();
        screen.show(&shown, &gpus);
    }
    screen.close();
    Ok(())
}

/// A server with the last look at it.
struct Watched {
    url: reqwest::Url,
    last: Option<(Instant, Page)>,
}

impl Watched {
    fn new(url: &str) -> Result<Self, String> {
        let mut parsed = reqwest::Url::parse(url).map_err(|_| format!("{url:?} is no address"))?;
        if !parsed.path().ends_with("/metrics") {
            // Beside the API, not below it.
            parsed.set_path("/metrics");
        }
        Ok(Self { url: parsed, last: None })
    }

    /// The figures since the last look, or why there are none.
    async fn look(&mut self, client: &reqwest::Client) -> Result<Figures, String> {
        match fetch(client, self.url.clone()).await {
            Ok(page) => {
                let now = Instant::now();
                let before = self.last.as_ref();
                let seconds = before.map_or(0.0, |(then, _)| now.duration_since(*then).as_secs_f64());
                let shown = figures(&Look { before: before.map(|(_, page)| page), now: &page, seconds });
                self.last = Some((now, page));
                shown.ok_or_else(|| "none of the figures is known".to_owned())
            }
            Err(reason) => {
                // A server that was started again counts from zero.
                self.last = None;
                Err(reason)
            }
        }
    }
}

/// A terminal that is drawn over, or lines.
struct Screen(Option<ProgressBar>);

impl Screen {
    fn open() -> Self {
        if !io::stdout().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(Some(bar))
    }

    fn show(&mut self, servers: &[(String, Result<Figures, String>)], gpus: &[String]) {
        let Some(bar) = &self.0 else {
            servers.iter().for_each(|(url, figures)| print(&line(url, figures)));
            gpus.iter().for_each(|gpu| print(gpu));
            return;
        };
        let mut lines = Vec::new();
        for (url, figures) in servers {
            match figures {
                Ok(figures) => {
                    lines.push(format!("{} {url}", figures.program));
                    lines.extend(figures.rows.iter().map(|(name, text)| format!("  {name:<11} {text}")));
                }
                Err(reason) => lines.push(format!("{url}: {reason}")),
            }
        }
        lines.extend(gpus.iter().cloned());
        bar.set_message(lines.join("\n"));
        bar.tick();
    }

    /// Leaves the last figures where they are.
    fn close(self) {
        if let Some(bar) = self.0 {
            bar.abandon();
        }
    }
}

/// All figures of a server in a line.
fn line(url: &str, figures: &Result<Figures, String>) -> String {
    match figures {
        Ok(figures) => {
            let rows: Vec<_> = figures.rows.iter().map(|(name, text)| format!("{name} {text}")).collect();
            format!("{} {url}: {}", figures.program, rows.join("; "))
        }
        Err(reason) => format!("{url}: {reason}"),
    }
}

/// A line. A closed output is no reason to stop.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
