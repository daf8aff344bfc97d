//! Categorizes a file of items through batch files: for the OpenAI Batch API, or `vllm run-batch`, which needs no server.
//!
//! ```text
//! batch write --input items.jsonl --taxonomy categories/newsroom.toml --model Qwen/Qwen2.5-7B-Instruct-AWQ --dir night
//! vllm run-batch -i night/requests-1-1.jsonl -o night/results-1-1.jsonl --model Qwen/Qwen2.5-7B-Instruct-AWQ
//! batch read --dir night --results night/results-1-1.jsonl --output outcomes.jsonl
//! ```
//!
//! `batch read` ends with 3 while anything must be asked again: then it has written the files of the next round, to be run
//! and read in the same way. All state is in the directory, so each step can be a process on another machine, can be killed
//! at any moment and started again.

#[path = "../support/files.rs"]
mod files;
mod folder;
#[path = "../support/lines.rs"]
mod lines;

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser};
use serde::Serialize;
use slugline::NewsItem;

use self::files::{about, is_same_file, is_standard};
use self::folder::{Folder, Settings};

/// Categorizes items through batch files
///
/// Exit code 0: all items are categorized, or their requests written. 2: finished, but some items have errors. 3: some must
/// be asked again, in the files that are named. 1: it could not be done; what was there before is still there.
#[derive(Parser)]
#[command(name = "batch", version)]
enum Command {
    /// Write the requests for a file of items
    Write(WriteArgs),
    /// Read results, write the outcomes so far, and the requests of the next round if there is one
    Read(ReadArgs),
}

#[derive(Args)]
struct WriteArgs {
    /// The items, a JSON object per line
    #[arg(long, value_name = "FILE.jsonl")]
    input: PathBuf,
    /// The categories
    #[arg(long, value_name = "FILE.toml")]
    taxonomy: PathBuf,
    /// A directory for the batch, which must not have one yet
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Args)]
struct ReadArgs {
    /// The directory of the batch
    #[arg(long)]
    dir: PathBuf,
    /// Files of results, in any order, also the same again; without any, only what is there is written again
    #[arg(long, value_name = "FILE.jsonl", num_args = 1..)]
    results: Vec<PathBuf>,
    /// Where the outcomes so far go, one line for each item at the end, replacing what is there
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Write(args) => write(&args),
        Command::Read(args) => read(&args),
    };
    match done {
        Ok(code) => code,
        Err(problem) => {
            say(&problem);
            ExitCode::FAILURE
        }
    }
}

fn write(args: &WriteArgs) -> Result<ExitCode, String> {
    let folder = Folder::create(&args.dir, &args.taxonomy, &args.settings)?;
    let batch = folder.batch()?;
    let file = File::open(&args.input).map_err(|error| about("open input", &args.input, &error))?;
    let mut input =
        Input { reader: BufReader::new(file), number: 0, line: Vec::new(), invalid: Vec::new(), error: None };
    let (round, outcomes) = batch.begin(&mut input);
    if let Some(error) = input.error {
        return Err(about("read input", &args.input, &error));
    }
    let invalid = input.invalid.len();
    folder.write_outcomes(0, &outcomes, &input.invalid)?;
    let parts = folder.write_round(&batch, &round)?;
    say(&format!(
        "{} items, {invalid} lines that are none, {} without text; {} requests in:",
        round.items().0,
        outcomes.len(),
        round.len()
    ));
    parts.iter().for_each(|part| say(&format!("  {}", part.display())));
    Ok(ExitCode::SUCCESS)
}

fn read(args: &ReadArgs) -> Result<ExitCode, String> {
    let folder = Folder::open(&args.dir)?;
    let needed = args.results.iter().map(PathBuf::as_path).chain(std::iter::once(args.dir.as_path()));
    for path in needed.chain(folder.own_files()?.iter().map(PathBuf::as_path)) {
        if is_standard(&args.output) || is_same_file(&args.output, path) {
            return Err("output must be a file of its own".to_owned());
        }
    }
    let batch = folder.batch()?;
    let round = folder.round(&batch)?;
    let mut files = Vec::new();
    for path in &args.results {
        files.push(BufReader::new(File::open(path).map_err(|error| about("open results", path, &error))?));
    }
    let settled = batch.settle(&round, files).map_err(|error| format!("cannot read results: {error}"))?;
    let tally = &settled.tally;
    say(&format!(
        "round {}: {} requests answered, {} failed, {} without a result; {} items to be asked again",
        round.number(),
        tally.answered,
        tally.failed.values().sum::<u64>(),
        tally.missing,
        tally.asked_again,
    ));
    let ignored = tally.repeated_lines + tally.unknown_lines + tally.unreadable_lines;
    if ignored > 0 {
        say(&format!(
            "lines: {} further results, {} of no request of the round, {} unreadable",
            tally.repeated_lines, tally.unknown_lines, tally.unreadable_lines
        ));
    }
    if let Some(failure) = &tally.failure {
        say(&format!("first failure: {failure}"));
    }
    // In this order: a process that dies in between leaves a round that can be read again.
    if settled.next != round {
        folder.write_outcomes(round.number(), &settled.outcomes, &[])?;
    }
    let parts = folder.write_round(&batch, &settled.next)?;
    let written = folder.write_output(&settled.next, &args.output)?;
    say(&format!("{} outcomes in {}, {} of them errors", written.lines, args.output.display(), written.errors));
    if !settled.next.is_done() {
        say(&format!("{} requests are left; run and read:", settled.next.len()));
        parts.iter().for_each(|part| say(&format!("  {}", part.display())));
        return Ok(ExitCode::from(3));
    }
    Ok(if written.errors > 0 { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// The items of the input, with what is wrong with the other lines.
struct Input {
    reader: BufReader<File>,
    number: u64,
    line: Vec<u8>,
    invalid: Vec<InvalidLine>,
    /// What prevents the rest from being read.
    error: Option<std::io::Error>,
}

/// A line that is no item, in the form of an outcome.
#[derive(Serialize)]
struct InvalidLine {
    line: u64,
    error: LineError,
}

#[derive(Serialize)]
struct LineError {
    kind: &'static str,
    message: String,
}

impl Iterator for &mut Input {
    type Item = NewsItem;

    fn next(&mut self) -> Option<NewsItem> {
        loop {
            match lines::read_line(&mut self.reader, &mut self.line) {
                Ok(read) => read?,
                Err(error) => {
                    self.error = Some(error);
                    return None;
                }
            };
            self.number += 1;
            let content = lines::content(&self.line, self.number);
            if content.is_empty() {
                continue;
            }
            let item = lines::object_text(content)
                .and_then(|text| serde_json::from_str(text).map_err(|error| lines::reason_of(&error)));
            match item {
                Ok(item) => return Some(item),
                Err(reason) => {
                    let error = LineError { kind: "invalid-line", message: format!("line {}: {reason}", self.number) };
                    self.invalid.push(InvalidLine { line: self.number, error });
                }
            }
        }
    }
}

/// A line on standard error. A closed one is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
