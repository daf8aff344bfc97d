//! Categorizes a file or a pipe of news items of any length.
//!
//! ```text
//! cargo run --release --example categorize -- --input items.jsonl --output outcomes.jsonl \
//!     --taxonomy categories/newsroom.toml --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-7B-Instruct-AWQ
//! ```
//!
//! `--help` explains the flags, the lines and the exit codes. One loop joins three things: the outcomes of the run, the
//! lines that never were items, and the clock. Whatever ends the run before its time - the run itself, a signal, the
//! input - ends the source of items, and the loop goes on until what is under way is settled and written. Only an output
//! that cannot be written ends everything at once.

mod args;
mod input;
mod output;
mod resume;

#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/exporter.rs"]
mod exporter;
#[path = "../support/files.rs"]
mod files;
#[path = "../support/form.rs"]
mod form;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/metrics_page.rs"]
mod metrics_page;
#[path = "../support/model.rs"]
mod model;
#[path = "../support/position.rs"]
mod position;
#[path = "../support/progress.rs"]
mod progress;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/stop.rs"]
mod stop;
#[path = "../support/summary.rs"]
mod summary;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use slugline::embedded::LearnedHead;
use slugline::{ItemErrorKind, NewsItem, Outcome, OutcomeStream, Stats};
use tokio::sync::mpsc;

use self::args::Args;
use self::files::{about, is_same_file, is_standard, lower_case};
use self::input::{Input, Notice, Source};
use self::output::Output;
use self::position::Position;
use self::progress::{Counts, Measured, Progress};
use self::resume::Done;
use self::stop::Stop;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match run(&args).await {
        Ok(End::AllCategorized) => ExitCode::SUCCESS,
        Ok(End::SomeFailed { .. }) => ExitCode::from(2),
        Ok(End::Stopped { reason }) | Err(reason) => {
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

/// How a run ended.
enum End {
    AllCategorized,
    SomeFailed { failed: u64 },
    Stopped { reason: String },
}

/// Prepares everything, runs, and reports. An error means that it could not start, or that its report could not be
/// written.
async fn run(args: &Args) -> Result<End, String> {
    refuse_overwriting(args)?;
    let metrics = match args.metrics {
        Some(address) => Some((metrics_page::listen(address).await?, metrics_page::export()?)),
        None => None,
    };
    let categorizer = args.categorizer()?;
    // The output comes last: a mistyped name must not cost the outcomes of an earlier run.
    let source = Source::open(&args.input).map_err(|error| about("open input", &args.input, &error))?;
    let stats_file = match &args.stats {
        Some(path) => Some((path, File::create(path).map_err(|error| about("create stats", path, &error))?)),
        None => None,
    };
    let done = match &args.ledger {
        Some(_) => Done::of_output(&args.output, args.retry_permanent)
            .map_err(|error| about("go on with output", &args.output, &error))?,
        None => Done::default(),
    };
    let output = match &args.ledger {
        Some(_) => Output::append(&args.output, done.len()),
        None => Output::create(&args.output),
    };
    let output = output.map_err(|error| about("create output", &args.output, &error))?;
    let (counts, invalid) =
        (Counts { done: done.len(), before: done.len(), failed: done.failed, ..Counts::default() }, done.invalid);
    let Input { items, notices, position } =
        source.read(done).map_err(|error| format!("cannot start a thread: {}", lower_case(&error)))?;

    let stop = Stop::default();
    let lines = args.ledger.is_some().then(Lines::default);
    let outcomes = categorizer.stream(until_stopped(items, lines.clone(), stop.clone()));
    if let Some((listener, figures)) = metrics {
        metrics_page::serve(listener, figures, outcomes.stats_handle());
    }
    let run = outcomes.stop_handle();
    stop::on_signals(&stop, move || run.stop());
    let mut job = Job {
        outcomes,
        notices,
        output,
        stop,
        // A bar and the outcomes would write over each other on one terminal.
        progress: Progress::start(!(is_standard(&args.output) && io::IsTerminal::is_terminal(&io::stdout()))),
        in_output: counts.before,
        counts,
        invalid,
        lines,
        position,
    };
    let worked = job.work().await;
    let Job { outcomes, output, progress, counts, invalid, position, .. } = job;
    progress.finish();

    let written = output.lines();
    let end = match worked.and_then(|stopped_by| output.finish().map(|()| stopped_by)) {
        Err(error) => End::Stopped { reason: about("write output", &args.output, &error) },
        Ok(Some(reason)) => End::Stopped { reason: format!("{reason} (stopped with {written} lines written)") },
        Ok(None) if counts.failed > 0 => End::SomeFailed { failed: counts.failed },
        Ok(None) => End::AllCategorized,
    };

    let stats = outcomes.stats();
    print_summary(&stats, invalid);
    let kept = match &args.engine.head {
        Some(path) => keep_head(path, categorizer.learned_head(), &stats),
        None => Ok(()),
    };
    if let Some((path, file)) = stats_file {
        let report = report(
            &stats,
            InputLines { lines: position.rows() + position.blank(), blank: position.blank(), invalid },
            &end,
        );
        write_report(file, &report).map_err(|error| about("write stats", path, &error))?;
    }
    kept.map(|()| end)
}

/// A run under way.
struct Job<S> {
    outcomes: OutcomeStream<S>,
    notices: mpsc::Receiver<Notice>,
    output: Output,
    stop: Stop,
    progress: Progress,
    counts: Counts,
    /// Items that were in the output before.
    in_output: u64,
    /// Lines that are no valid items.
    invalid: u64,
    /// Where lines have numbers, those of the items under way.
    lines: Option<Lines>,
    position: Arc<Position>,
}

/// The lines of items under way, by the items' numbers.
type Lines = Arc<Mutex<HashMap<u64, u64>>>;

/// An outcome with the line of the input that it is for.
#[derive(Serialize)]
struct NumberedOutcome<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    line: Option<u64>,
}

impl<S: Stream<Item = NewsItem>> Job<S> {
    /// Works until everything is settled and written, and gives the reason if that was before the end of the input.
    ///
    /// An error means that the output cannot be written: nothing that is still under way could be kept.
    async fn work(&mut self) -> io::Result<Option<String>> {
        let mut stopped_by = None;
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        let (mut is_settled, mut is_read) = (false, false);
        while !(is_settled && is_read) {
            tokio::select! {
                outcome = self.outcomes.next(), if !is_settled => match outcome {
                    Some(outcome) => self.settled(&outcome)?,
                    None => is_settled = true,
                },
                notice = self.notices.recv(), if !is_read => match notice {
                    Some(Notice::Invalid(invalid)) => {
                        self.invalid += 1;
                        self.count(true);
                        self.output.line(&invalid)?;
                    }
                    Some(Notice::End(end)) => {
                        is_read = true;
                        let line = self.position.rows() + self.position.blank();
                        let reason = |error| format!("cannot read on after line {line}: {}", lower_case(&error));
                        stopped_by = stopped_by.or(end.err().map(reason));
                    }
                    None => {
                        is_read = true;
                        stopped_by = stopped_by.or_else(|| Some("the reading of the input broke down".to_owned()));
                    }
                },
                _ = every_second.tick() => {
                    self.output.flush_if_due()?;
                    self.measure();
                }
            }
            if let Some(error) = self.outcomes.error() {
                stopped_by = Some(error.to_string());
                self.stop.stop();
            }
            // A stopped source may never end by itself: its thread may wait for a line that does not come.
            is_read |= is_settled && self.stop.is_stopped();
            self.counts.total = self.position.estimated_total();
            self.progress.update(self.counts);
        }
        self.measure();
        self.progress.update(self.counts);
        // A stop that came between the last two looks at the run has ended the source, too.
        let was_stopped = stopped_by.is_none() && self.stop.is_stopped();
        Ok(if was_stopped { Some(slugline::Error::Stopped.to_string()) } else { stopped_by })
    }

    fn settled(&mut self, outcome: &Outcome) -> io::Result<()> {
        let Some(lines) = &self.lines else {
            self.count(is_failed(outcome));
            return self.output.line(outcome);
        };
        let line = lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&outcome.index);
        // What was not attempted is left to the next run, which writes its line.
        if outcome.result.as_ref().is_err_and(|error| error.kind == ItemErrorKind::NotAttempted) {
            return Ok(());
        }
        self.count(is_failed(outcome));
        self.output.line(&NumberedOutcome { outcome, line })
    }

    fn measure(&mut self) {
        let stats = self.outcomes.stats();
        self.counts.before = self.in_output + stats.from_ledger;
        self.counts.measured = Some(Measured::from(&stats));
    }

    fn count(&mut self, is_failed: bool) {
        self.counts.done += 1;
        self.counts.failed += u64::from(is_failed);
    }
}

/// Whether an item failed. One that no category was probable enough for has not.
fn is_failed(outcome: &Outcome) -> bool {
    outcome.result.as_ref().is_err_and(|error| error.kind != ItemErrorKind::BelowThreshold)
}

/// The items as a stream that ends when the run is stopped, which drops the receiver and so ends the reading thread.
fn until_stopped(
    mut items: mpsc::Receiver<(u64, NewsItem)>,
    lines: Option<Lines>,
    stop: Stop,
) -> impl Stream<Item = NewsItem> {
    let items = stream::poll_fn(move |cx| items.poll_recv(cx)).take_until(Box::pin(stop.stopped()));
    items.enumerate().map(move |(index, (line, item))| {
        if let Some(lines) = &lines {
            lines.lock().unwrap_or_else(PoisonError::into_inner).insert(index as u64, line);
        }
        item
    })
}

fn refuse_overwriting(args: &Args) -> Result<(), String> {
    let mut needed = vec![("input", &args.input), ("taxonomy", &args.taxonomy)];
    needed.extend(args.calibration.as_ref().map(|path| ("calibration", path)));
    let written = [
        ("output", Some(&args.output)),
        ("ledger", args.ledger.as_ref()),
        ("stats", args.stats.as_ref()),
        ("head", args.engine.head.as_ref()),
    ];
    for (role, target) in written.into_iter().filter_map(|(role, target)| Some((role, target?))) {
        if let Some((other, _)) = needed.iter().find(|(_, path)| is_same_file(target, path)) {
            return Err(format!("--{role} {} is the same file as --{other} and would overwrite it", target.display()));
        }
        needed.push((role, target));
    }
    Ok(())
}

/// Saves what was learned. A head that the run drifted away from is taken away: the next run would begin with it.
fn keep_head(path: &Path, head: Option<LearnedHead>, stats: &Stats) -> Result<(), String> {
    let drifts = stats.first_opinion.as_ref().and_then(|opinion| opinion.head.as_ref()).map_or(0, |head| head.drifts);
    match head {
        Some(head) => head.save(path).map_err(|error| error.to_string()),
        None if drifts > 0 && path.exists() => {
            std::fs::remove_file(path).map_err(|error| about("remove the drifted head", path, &error))
        }
        None => Ok(()),
    }
}

fn print_summary(stats: &Stats, invalid: u64) {
    let mut err = io::stderr();
    let mut lines = summary::summary(stats);
    if invalid > 0 {
        lines.push(format!("lines     {invalid} of the input are no valid items"));
    }
    for line in lines {
        let _ = writeln!(err, "{line}");
    }
}

/// What `--stats` writes: what the library measured, with what only this program knows.
#[derive(Serialize)]
struct RunReport<'a> {
    exit: Exit,
    input: InputLines,
    items_per_second: f64,
    cached_share: Option<f64>,
    #[serde(flatten)]
    stats: &'a Stats,
}

#[derive(Serialize)]
struct Exit {
    code: u8,
    reason: String,
}

/// The lines of the input, as far as it was read.
#[derive(Serialize)]
struct InputLines {
    lines: u64,
    blank: u64,
    invalid: u64,
}

fn report<'a>(stats: &'a Stats, input: InputLines, end: &End) -> RunReport<'a> {
    let exit = match end {
        End::AllCategorized if stats.below_threshold > 0 => {
            let reason =
                format!("no item failed; {} are below the threshold and have no category", stats.below_threshold);
            Exit { code: 0, reason }
        }
        End::AllCategorized => Exit { code: 0, reason: "all items are categorized".to_owned() },
        End::SomeFailed { failed } => Exit { code: 2, reason: format!("finished, {failed} lines have errors") },
        End::Stopped { reason } => Exit { code: 1, reason: reason.clone() },
    };
    let (items_per_second, cached_share) = (stats.items_per_second(), stats.cached_share());
    RunReport { exit, input, items_per_second, cached_share, stats }
}

fn write_report(mut file: File, report: &RunReport<'_>) -> io::Result<()> {
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    file.write_all(&json)
}

/// Prints an error in one line. Nobody is left to tell if that fails.
fn complain(reason: &str) {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "error: {line}");
}
