//! Measures how much a server takes: a step for each number of requests in flight, or for each rate.
//!
//! ```text
//! cargo run --release --example load_test -- --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-7B-Instruct-AWQ \
//!     --concurrency 1,5,10,25,50,100 --duration 60 --report load.html --json load.json --csv load.csv
//! ```
//!
//! Without `--input` the requests have the size of the reference deployment's: 1,100 prompt tokens and 200 output tokens; for
//! a slow server `--prompt-tokens` and `--output-tokens` make them smaller. The steps run one after the other, each with a new categorizer and its own warm-up; reports are written after each of them.
//! `--rate` makes an open loop, whose latency counts from when an item was due. `--help` explains the flags and the exit
//! codes. What the table says can be used by the example `plan`.

mod args;
mod first_token;
mod source;
mod table;

#[path = "../support/aligned.rs"]
mod aligned;
#[path = "../support/files.rs"]
mod files;
#[path = "../support/items.rs"]
mod items;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/outputs.rs"]
mod outputs;
#[expect(dead_code, reason = "labels are for the monitor")]
#[path = "../support/prometheus.rs"]
mod prometheus;
#[expect(dead_code, reason = "the flag for one concurrency is not for a sweep")]
#[path = "../support/server.rs"]
mod server;
#[path = "../support/stop.rs"]
mod stop;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use slugline::Categorizer;
use slugline::load::{self, About, Lengthening, Probe, Step, Sweep};

use self::args::Args;
use self::first_token::FirstTokens;
use self::outputs::Outputs;
use self::source::Source;
use self::stop::{Stop, on_signals};
use self::watch::watched;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match run(&args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(reason) => {
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

/// Runs all steps. Gives whether every item got a category.
async fn run(args: &Args) -> Result<bool, String> {
    args.refuse_overwriting()?;
    let taxonomy = args.taxonomy()?;
    let source = Source::open(args)?;
    let plan = args.plan()?;
    // All of them before the first is run: a mistake in the last must not cost the time of the others.
    let ready = |by: Option<Lengthening>| -> Result<Vec<(Categorizer, Probe)>, String> {
        plan.iter().map(|planned| args.categorizer(&taxonomy, *planned, by)).collect()
    };
    let usual = ready(None)?;
    let mut outputs = Outputs::open([
        (&args.report, Sweep::to_html as fn(&_) -> _),
        (&args.json, outputs::json),
        (&args.csv, Sweep::to_csv),
    ])?;
    let mut sweep = Sweep::new(about(args, &source), args.targets());
    let stop = Stop::default();
    on_signals(&stop, || ());
    let ready = match lengthening(args, &usual, &mut sweep).await {
        Some(by) => ready(Some(by))?,
        None => usual,
    };
    let first_tokens = FirstTokens::of(&args.endpoints.base_url);
    for (number, (planned, (categorizer, probe))) in plan.iter().zip(&ready).enumerate() {
        say(&format!("step {} of {}: {planned}", number + 1, plan.len()));
        let before = first_tokens.look().await;
        let item_tokens = args.item_tokens(categorizer)?.unwrap_or(ITEM_TOKENS);
        let items = source.items(number as u64, item_tokens);
        let enough = stop.clone().stopped();
        let mut measured = watched(load::measure_until(categorizer, probe, items, &planned.order, enough), probe).await;
        measured.first_token_s = first_tokens.look().await.mean_since(&before);
        let stopped_by = measured.error.clone();
        // A step that was stopped in its warm-up has nothing to say.
        if measured.requests > 0 || !stop.is_stopped() {
            note_surprises(&mut sweep, &measured, args);
            sweep.add(measured);
        }
        outputs.write(&sweep)?;
        if let Some(reason) = stopped_by {
            print(&table::table(&sweep));
            return Err(format!("step {} of {}: {reason}", number + 1, plan.len()));
        }
    }
    print(&table::table(&sweep));
    Ok(sweep.steps.iter().all(|step| step.items == step.valid_items))
}

/// What the prompt takes of an item by default.
const ITEM_TOKENS: usize = 150;

/// What brings the answers to the length that is asked for, tried out at the servers and told; none where nothing does, or
/// where none is asked for.
async fn lengthening(args: &Args, usual: &[(Categorizer, Probe)], sweep: &mut Sweep) -> Option<Lengthening> {
    let (wanted, (categorizer, _)) = args.output_tokens().zip(usual.first())?;
    say(&format!("looking how answers are brought to {wanted} tokens"));
    let found = load::find_lengthening(categorizer, wanted).await;
    say(&found.words);
    let mut chars = found.words.chars();
    let words: String = chars.next().into_iter().flat_map(char::to_uppercase).chain(chars).collect();
    sweep.notes.push(format!(
        "{words}. Answers of the usual length are several times shorter and faster: --output-tokens 0 measures those."
    ));
    found.by
}

fn about(args: &Args, source: &Source) -> About {
    let mut about = About::new(&args.model);
    about.items = Some(source.words());
    about.date = Some(httpdate::fmt_http_date(SystemTime::now()));
    about.server = args.about_server.clone().or_else(|| Some(args.endpoints.base_url.join(", ")));
    about
}

/// What a reader must know to read the figures rightly.
fn note_surprises(sweep: &mut Sweep, step: &Step, args: &Args) {
    let mut note = |note: String| {
        if !sweep.notes.contains(&note) {
            sweep.notes.push(note);
        }
    };
    let per_server = step.mean_in_flight / step.servers.max(1) as f64;
    if step.due_per_second.is_none() && per_server < 0.7 * step.concurrency as f64 && !step.failures.is_empty() {
        note(format!(
            "At {} in flight the client lowered its limit after failures: {per_server:.1} requests were in flight on average.",
            step.concurrency
        ));
    }
    if step.error.is_some() {
        note(format!("The step with {} in flight ended early, after {:.0} s.", step.concurrency, step.seconds));
    }
    let Some(wanted) = args.output_tokens() else { return };
    if step.output_tokens_per_request.is_some_and(|tokens| tokens < 0.9 * wanted as f64) {
        note(format!(
            "The server does not write all answers to {wanted} tokens, so its rates are those of shorter answers."
        ));
    }
}

/// What was asked for, on standard output. A closed one is no reason to stop.
fn print(text: &str) {
    let _ = write!(io::stdout(), "{text}");
}

/// A line on standard error. A closed one is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints an error in one line.
fn complain(reason: &str) {
    say(&format!("error: {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")));
}
