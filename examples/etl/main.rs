//! Categorizes news items in any of the usual formats: JSONL, CSV, Parquet, feeds, plain or compressed, files or pipes.
//!
//! ```text
//! cargo run --release --example etl -- --input feeds/ --output outcomes.parquet --rejects rejects.jsonl --page run.html \
//!     --taxonomy categories/newsroom.toml --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-7B-Instruct-AWQ
//! ```
//!
//! `--help` explains the flags and the exit codes. `read` gives rows, `columns` makes items of them, `job` settles them, `write`
//! writes them, `report` says where every row went.

mod args;
mod columns;
mod compression;
mod format;
mod job;
mod read;
mod report;
mod write;

#[path = "../../src/page/mod.rs"]
#[expect(dead_code, reason = "a part of it is for the library's own pages")]
mod page;

#[path = "../support/files.rs"]
mod files;
#[path = "../support/lines.rs"]
mod lines;
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

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use slugline::StopHandle;

use self::args::Args;
use self::files::{about, is_standard, lower_case};
use self::job::{Job, Tally, UnderWay, until_stopped};
use self::progress::Progress;
use self::read::Reading;
use self::report::{About, Exit, Report};
use self::stop::Stop;
use self::write::{Lines, Output};

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    let stop = Stop::default();
    let on_signals = |run: StopHandle| stop::on_signals(&stop, move || run.stop());
    match run(&args, &stop, on_signals).await {
        Ok(report) => {
            if report.exit.code == 1 {
                complain(&report.exit.reason);
            }
            ExitCode::from(report.exit.code)
        }
        Err(reason) => {
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

/// Prepares everything, runs, and reports. An error means that it could not start, or that its report could not be written.
async fn run(args: &Args, stop: &Stop, on_start: impl FnOnce(StopHandle)) -> Result<Report, String> {
    args.refuse_overwriting()?;
    if let Some(problem) = write::cannot_keep(&args.columns.keep) {
        return Err(problem);
    }
    let (format, compression) = args.output_form()?;
    let inputs = read::list(args)?;
    let categorizer = args.categorizer()?;
    let about_run = About::new(args, &inputs, &categorizer);

    let output = Output::create(&args.output, format, compression, &args.columns.keep)
        .map_err(|error| about("create output", &args.output, &error))?;
    let rejects = Lines::create(&args.rejects).map_err(|error| about("create rejects", &args.rejects, &error))?;
    let report_files = ReportFiles::create(args)?;
    let Reading { rows, notices, position } = read::start(inputs, args.columns.clone())
        .map_err(|error| format!("cannot start a thread: {}", lower_case(&error)))?;

    let under_way = UnderWay::default();
    let outcomes = categorizer.stream(until_stopped(rows, under_way.clone(), stop.clone()));
    on_start(outcomes.stop_handle());
    // A bar and the outcomes would write over each other on one terminal.
    let is_terminal = is_standard(&args.output) && io::IsTerminal::is_terminal(&io::stdout());
    let mut job = Job {
        outcomes,
        notices,
        output: (output, &args.output),
        rejects: (rejects, &args.rejects),
        under_way,
        position,
        stop: stop.clone(),
        progress: Progress::start(!is_terminal),
        tally: Tally::default(),
    };
    let worked = job.work().await;
    let Job { outcomes, output: (output, _), rejects: (rejects, _), progress, mut tally, position, .. } = job;
    progress.finish();

    tally.written = output.rows();
    let left_in = output.left_in();
    let finished = worked.and_then(|stopped_by| {
        let is_whole = stopped_by.is_none();
        let left = rejects.finish(is_whole).map_err(|error| about("write rejects", &args.rejects, &error))?;
        let more = output.finish(is_whole).map_err(|error| about("write output", &args.output, &error))?;
        Ok((stopped_by, left.into_iter().chain(more).collect::<Vec<_>>()))
    });
    let exit = match finished {
        Err(error) => Exit::unwritten(&error, left_in.as_deref()),
        Ok((Some(reason), left)) => Exit::stopped(&reason, &tally, &left),
        Ok((None, _)) => Exit::finished(&tally),
    };
    let report = Report::new(about_run, exit, tally, position.blank(), outcomes.stats());
    print_summary(&report);
    report_files.write(&report)?;
    Ok(report)
}

/// The files of the report, made before the run, which is too long to learn only then that they cannot be.
struct ReportFiles<'a> {
    json: Option<(&'a std::path::Path, File)>,
    page: Option<(&'a std::path::Path, File)>,
}

impl<'a> ReportFiles<'a> {
    fn create(args: &'a Args) -> Result<Self, String> {
        let create = |path: &'a Option<std::path::PathBuf>| {
            let Some(path) = path.as_deref() else { return Ok(None) };
            File::create(path).map(|file| Some((path, file))).map_err(|error| about("create report", path, &error))
        };
        Ok(Self { json: create(&args.report)?, page: create(&args.page)? })
    }

    fn write(self, report: &Report) -> Result<(), String> {
        if let Some((path, mut file)) = self.json {
            let json = serde_json::to_string_pretty(report).map_err(io::Error::from);
            let written = json.and_then(|json| file.write_all((json + "\n").as_bytes()));
            written.map_err(|error| about("write report", path, &error))?;
        }
        if let Some((path, mut file)) = self.page {
            file.write_all(report.to_html().as_bytes()).map_err(|error| about("write report", path, &error))?;
        }
        Ok(())
    }
}

fn print_summary(report: &Report) {
    let mut err = io::stderr();
    for line in report.rows_in_words().into_iter().chain(summary::summary(&report.stats)) {
        // Nobody is left to tell if that fails.
        let _ = writeln!(err, "{line}");
    }
}

/// Prints an error in one line. Nobody is left to tell if that fails.
fn complain(reason: &str) {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(io::stderr(), "error: {line}");
}
