//! Measures quality and speed on labelled items, for several settings.
//!
//! ```text
//! cargo run --release --example evaluate -- --input labelled.jsonl --label-field label \
//!     --taxonomy categories/ag-news.toml --base-url http://localhost:8000/v1 --model Qwen/Qwen2.5-7B-Instruct-AWQ \
//!     --pack-sizes 1,3,5 --report report.html --json report.json
//! ```
//!
//! `--help` explains the flags and the exit codes. The settings run one after the other over the same items, so that they
//! can be compared item by item; reports are written after each of them. Servers may have the start of an item in their cache
//! from an earlier setting, which makes later ones a little faster: the cached tokens show how much.

mod args;
mod input;
mod measure;
mod table;

#[path = "../support/files.rs"]
mod files;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/progress.rs"]
mod progress;
#[path = "../support/server.rs"]
mod server;
#[path = "../categorize/stop.rs"]
mod stop;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use slugline::evaluate::{About, Evaluation, Setting, match_labels};
use slugline::{Categorizer, NewsItem, Taxonomy};

use self::args::{Args, Planned};
use self::files::{about, is_same_file};
use self::stop::Stop;

#[tokio::main]
async fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    match run(&args).await {
        Ok(End::AllCategorized) => ExitCode::SUCCESS,
        Ok(End::SomeFailed) => ExitCode::from(2),
        Ok(End::Stopped { reason }) | Err(reason) => {
            complain(&reason);
            ExitCode::FAILURE
        }
    }
}

/// How an evaluation ended.
enum End {
    AllCategorized,
    SomeFailed,
    Stopped { reason: String },
}

/// Prepares everything, measures, and reports. An error means that it could not start or that nothing could be written.
async fn run(args: &Args) -> Result<End, String> {
    refuse_overwriting(args)?;
    let taxonomy = Taxonomy::load(&args.taxonomy).map_err(|error| error.to_string())?;
    let settings = args.settings(|skipped| say(&skipped));
    // All of them before the first is run: a mistake in the last must not cost the time of the others.
    let categorizers =
        settings.iter().map(|planned| args.categorizer(&taxonomy, *planned)).collect::<Result<Vec<_>, _>>()?;
    if categorizers.is_empty() {
        return Err("no setting is left to measure; --pack-sizes and --answers name them".to_owned());
    }
    let labelled = input::read(&args.input, &args.label_field, args.limit.unwrap_or(usize::MAX))?;
    let truths = match_labels(&taxonomy, labelled.iter().map(|labelled| (labelled.line, labelled.label.as_str())))
        .map_err(|error| error.to_string())?;
    let items: Vec<NewsItem> = labelled.into_iter().map(|labelled| labelled.item).collect();
    let mut outputs = Outputs::open(args)?;

    let mut evaluation = Evaluation::new(about_run(args, &taxonomy, items.len()), &taxonomy);
    let stop = Stop::default();
    stop::on_signals(&stop, || ());
    let mut stopped_by = None;
    for (number, (planned, categorizer)) in settings.iter().zip(&categorizers).enumerate() {
        say(&format!("setting {} of {}: {}", number + 1, settings.len(), planned.name()));
        let measured = measure::measure(categorizer, &items, &truths, &stop).await;
        let was_stopped = || stop.is_stopped().then(|| slugline::Error::Stopped.to_string());
        stopped_by = measured.stopped_by.or_else(was_stopped);
        evaluation
            .add(setting(*planned, categorizer), measured.items, measured.throughput)
            .map_err(|error| error.to_string())?;
        if stopped_by.is_some() {
            break;
        }
        outputs.write(&evaluation)?;
    }
    if let Some(reason) = &stopped_by {
        // A setting that was stopped before its first item has nothing to show.
        evaluation.settings.retain(|report| report.metrics.items > 0);
        evaluation.comparisons.retain(|comparison| comparison.paired.items > 0);
        if evaluation.settings.is_empty() {
            // Earlier reports are worth more than one without figures.
            return Err(reason.clone());
        }
        evaluation.notes.push(format!("Not finished: {reason}."));
        outputs.write(&evaluation)?;
    }
    // A closed standard output is no reason to fail: the files are written.
    let _ = write!(io::stdout(), "{}", table::table(&evaluation));
    Ok(match stopped_by {
        Some(reason) => End::Stopped { reason },
        None if evaluation.settings.iter().any(|report| report.metrics.failed > 0) => End::SomeFailed,
        None => End::AllCategorized,
    })
}

fn about_run(args: &Args, taxonomy: &Taxonomy, items: usize) -> About {
    let mut about = About::new(&args.server.model, taxonomy);
    let name = args.input.file_name().unwrap_or(args.input.as_os_str()).to_string_lossy().into_owned();
    about.data = Some(format!("{items} of {name}"));
    about.date = Some(httpdate::fmt_http_date(SystemTime::now()));
    about.server.clone_from(&args.about_server);
    about
}

fn setting(planned: Planned, categorizer: &Categorizer) -> Setting {
    let mut setting = Setting::new(planned.name(), planned.pack_size, planned.form.name());
    setting.prompt_version = Some(categorizer.prompt_version().to_string());
    setting
}

/// The files that are written.
struct Outputs<'a>(Vec<Output<'a>>);

struct Output<'a> {
    path: &'a Path,
    file: File,
    form: fn(&Evaluation) -> String,
}

impl<'a> Outputs<'a> {
    /// Opens them now, so that a wrong path is no surprise at the end, and leaves what they hold until there is something
    /// better.
    fn open(args: &'a Args) -> Result<Self, String> {
        let html: fn(&Evaluation) -> String = Evaluation::to_html;
        let forms = [(&args.report, html), (&args.json, json)];
        let open = |(path, form): (&'a Path, _)| {
            let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
            Ok(Output { path, file: file.map_err(|error| about("create", path, &error))?, form })
        };
        forms
            .into_iter()
            .filter_map(|(path, form)| Some((path.as_deref()?, form)))
            .map(open)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Replaces what they hold.
    fn write(&mut self, evaluation: &Evaluation) -> Result<(), String> {
        self.0.iter_mut().try_for_each(|output| {
            replace(&mut output.file, &(output.form)(evaluation)).map_err(|error| about("write", output.path, &error))
        })
    }
}

fn json(evaluation: &Evaluation) -> String {
    // Cannot fail: there are no maps with keys that are no strings.
    serde_json::to_string(evaluation).unwrap_or_default() + "\n"
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    use std::io::Seek;

    // A device or a pipe has no length and no place.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    file.write_all(text.as_bytes())
}

fn refuse_overwriting(args: &Args) -> Result<(), String> {
    let mut targets = Vec::new();
    targets.extend(args.report.as_ref().map(|path| ("report", path)));
    targets.extend(args.json.as_ref().map(|path| ("json", path)));
    let mut needed = vec![("input", &args.input), ("taxonomy", &args.taxonomy)];
    for (role, target) in targets {
        if let Some((other, _)) = needed.iter().find(|(_, path)| is_same_file(target, path)) {
            return Err(format!("--{role} {} is the same file as --{other} and would overwrite it", target.display()));
        }
        needed.push((role, target));
    }
    Ok(())
}

/// A line on standard error. A closed one is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints an error in one line.
fn complain(reason: &str) {
    say(&format!("error: {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")));
}
