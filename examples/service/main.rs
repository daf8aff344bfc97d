//! An HTTP service that categorizes news items, one or many at a time.
//!
//! ```text
//! cargo run --release --example service -- --taxonomy categories/newsroom.toml \
//!     --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-7B-Instruct-AWQ --listen 127.0.0.1:8080
//! curl -d '{"id": "a1", "title": "Striker signs", "body": "The club confirmed the transfer."}' localhost:8080/categorize
//! ```
//!
//! | route | what |
//! |---|---|
//! | `POST /categorize` | an item or an array of items in, an outcome or an array of outcomes back, in the same order |
//! | `GET /health` | 200 while some server can be asked, else 503 |
//! | `GET /metrics` | figures for Prometheus |
//! | `GET /openapi.json` | all of this in OpenAPI 3.1 |
//!
//! Items of all requests share a [`Service`](slugline::Service): they share packs, a bounded queue turns the excess away with
//! 429, and every request has a deadline. Ctrl-C or SIGTERM ends it gracefully. It has no TLS, no login and no limit per
//! client: put it behind a proxy that has.

mod metrics;
mod routes;

#[path = "../support/exporter.rs"]
mod exporter;
#[path = "../support/server.rs"]
mod server;
#[expect(dead_code, reason = "a part of it is for other examples")]
#[path = "../support/stop.rs"]
mod stop;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use slugline::alerts::{self, Alerts, Rules};
use slugline::gpu::{self, GpuWatch};
use slugline::{ServiceOptions, StatsHandle, Taxonomy};
use tokio::net::TcpListener;

use self::exporter::Prometheus;
use self::routes::router;
use self::server::{ServerArgs, read_args};
use self::stop::Stop;

/// Serves POST /categorize, GET /health, GET /metrics and GET /openapi.json until it is interrupted.
#[derive(Debug, Parser)]
#[command(name = "service", version)]
struct Args {
    /// The categories
    #[arg(long, value_name = "FILE.toml")]
    taxonomy: PathBuf,

    #[command(flatten)]
    server: ServerArgs,

    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// The most items that wait for a request; more are turned away with 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,

    /// Watch the GPUs of this machine by nvidia-smi, and write what it says to this file
    #[arg(long, value_name = "FILE.csv")]
    gpu_log: Option<PathBuf>,

    /// How long a request may take, fractions allowed; longer ones end with 504
    #[arg(long, value_name = "SECONDS", value_parser = server::seconds, default_value = "30")]
    deadline: Duration,
}

/// How long connections may still take after the deadline of their requests, once the service is asked to stop.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often somebody looks for something to worry about.
const LOOK_EVERY: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Args = match read_args(complain) {
        Ok(args) => args,
        Err(code) => return code,
    };
    run(&args).await.map_or_else(
        |problem| {
            complain(&problem);
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

/// Looks for something to worry about as long as the program runs; the levels of the alerts are among the figures.
async fn watch(stats: StatsHandle, gpus: Option<GpuWatch>) {
    let mut alerts = Alerts::new(Rules::default()).on_change(|change| eprintln!("{change}"));
    loop {
        let mut measured = alerts::of_stats(&stats.snapshot());
        measured.extend(gpus.iter().flat_map(|gpus| gpu::measurements(&gpus.latest())));
        alerts.look(&measured);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn watch_gpus(log: &Path) -> Result<GpuWatch, String> {
    let log =
        File::options().append(true).create(true).open(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let watch = GpuWatch::start(Some(Box::new(log)));
    if watch.is_over() {
        complain("no nvidia-smi here: no GPU is watched");
    }
    Ok(watch)
}

fn complain(problem: &str) {
    eprintln!("service: {problem}");
}

async fn run(args: &Args) -> Result<(), String> {
    let taxonomy = Taxonomy::load(&args.taxonomy).map_err(|error| error.to_string())?;
    // Before the service is made, whose counts go where they find an exporter.
    let figures = Prometheus::default();
    ::metrics::set_global_recorder(figures.clone()).map_err(|error| error.to_string())?;
    let builder = args.server.builder(taxonomy)?.watch_server_metrics(true);
    let categorizer = builder.build().map_err(|error| error.to_string())?;
    let gpus = args.gpu_log.as_ref().map(|path| watch_gpus(path)).transpose()?;
    let service = categorizer.service(ServiceOptions::default().queue(args.queue).deadline(args.deadline));

    tokio::spawn(watch(service.stats_handle(), gpus));

    let listener = TcpListener::bind(args.listen).await.map_err(|error| format!("{}: {error}", args.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    println!("listening on http://{address}");

    let stop = Stop::default();
    stop::on_signals(&stop, || {});
    let serving = axum::serve(listener, router(service.clone(), args.deadline, figures));
    let serving = serving.with_graceful_shutdown(stop.clone().stopped());
    tokio::select! {
        result = serving => result.map_err(|error| error.to_string())?,
        // A client that sends or reads for ever must not keep the program from ending.
        () = async {
            stop.stopped().await;
            tokio::time::sleep(args.deadline + LAST_WORDS).await;
        } => {}
    }
    service.shutdown().await;
    let stats = service.stats();
    println!(
        "{} items categorized, {} turned away, {} too late",
        stats.run.categorized, stats.overloaded, stats.deadline_exceeded
    );
    Ok(())
}
