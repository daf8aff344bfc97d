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
mod peers;
mod rows;
mod table;

#[path = "../support/aligned.rs"]
mod aligned;
#[path = "../support/engine.rs"]
mod engine;
#[path = "../support/files.rs"]
mod files;
#[path = "../support/form.rs"]
mod form;
#[path = "../support/items.rs"]
mod items;
#[path = "../support/lines.rs"]
mod lines;
#[path = "../support/model.rs"]
mod model;
#[path = "../support/outputs.rs"]
mod outputs;
#[path = "../support/progress.rs"]
mod progress;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/stop.rs"]
mod stop;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use slugline::embedded::FirstOpinionStats;
use slugline::evaluate::{About, Evaluation, Interval, Mapping, Point, Setting, match_labels};
use slugline::{Categorizer, CategoryId, NewsItem, Stats, Taxonomy};

use self::args::{Args, Planned};
use self::engine::Engine;
use self::outputs::Outputs;
use self::rows::{Correction, Fitted, Run};
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
    args.refuse_overwriting()?;
    let taxonomy = Taxonomy::load(&args.taxonomy).map_err(|error| error.to_string())?;
    let settings = args.settings(|skipped| say(&skipped));
    let Some(first) = settings.first() else {
        return Err("no setting is left to measure; --pack-sizes and --answers name them".to_owned());
    };
    if args.fit.is_some() && settings.iter().any(|planned| planned.form != first.form) {
        return Err(
            "--fit takes one form of the answer: each has a prompt of its own, and a calibration is for one".to_owned()
        );
    }
    // All of them before the first is run: a mistake in the last must not cost the time of the others.
    let embedding_model = args.embedding_model()?;
    let categorizer = |planned: &Planned| args.categorizer(&taxonomy, *planned, embedding_model.as_ref());
    let categorizers = settings.iter().map(categorizer).collect::<Result<Vec<_>, _>>()?;
    let (limit, language_field) = (args.limit.unwrap_or(usize::MAX), args.language_field.as_deref());
    let labelled = input::read(&args.input, &args.label_field, language_field, limit)?;
    let mapping = args.mapping.as_ref().map(|path| Mapping::load(path, &taxonomy)).transpose();
    let mapping = mapping.map_err(|error| error.to_string())?;
    let scheme = mapping.as_ref().map_or(&taxonomy, Mapping::scheme);
    let matched =
        |labels: &mut dyn Iterator<Item = (u64, &str)>| match_labels(scheme, labels).map_err(|error| error.to_string());
    let truths = matched(&mut labelled.iter().map(|labelled| (labelled.line, labelled.label.as_str())))?;
    let mut truth_sets = Vec::new();
    for (labelled, first) in labelled.iter().zip(&truths).filter(|_| args.labels.is_some()) {
        let others = matched(&mut labelled.others.iter().map(|label| (labelled.line, label.as_str())))?;
        truth_sets.push(std::iter::once(first.clone()).chain(others).collect());
    }
    let languages = labelled.iter().filter(|_| args.by_language || args.language_field.is_some());
    let languages = languages.map(|labelled| labelled.item.language.clone().unwrap_or_default()).collect();
    let items: Vec<NewsItem> = labelled.into_iter().map(|labelled| labelled.item).collect();
    let peers = args.peers.as_deref().map(peers::read).transpose()?.unwrap_or_default();
    let mut outputs = Outputs::open([(&args.report, Evaluation::to_html as fn(&_) -> _), (&args.json, outputs::json)])?;
    let mut job = Job {
        args,
        about: about_run(args, &taxonomy, items.len()),
        taxonomy: scheme.clone(),
        mapping: mapping.clone(),
        truths,
        truth_sets,
        languages,
        peers,
        runs: Vec::new(),
        notes: Vec::new(),
    };

    let stop = Stop::default();
    stop::on_signals(&stop, || ());
    let mut stopped_by = None;
    for (number, (planned, categorizer)) in settings.iter().zip(&categorizers).enumerate() {
        say(&format!("setting {} of {}: {}", number + 1, settings.len(), planned.name()));
        let measured = measure::measure(categorizer, &items, &stop).await;
        stopped_by = measured.stopped_by;
        let correction = match &stopped_by {
            None => job.correction(*planned, categorizer).await,
            Some(_) => Correction::None,
        };
        job.note_advice(&measured.stats);
        job.note_tiers(*planned, &measured.stats);
        let setting = setting(args, *planned, categorizer, &measured.stats);
        job.runs.push(Run { setting, outcomes: measured.outcomes, stats: measured.stats, correction });
        if stopped_by.is_some() {
            break;
        }
        outputs.write(&job.evaluation(None)?)?;
    }
    if let Some(reason) = &stopped_by {
        job.notes.push(format!("Not finished: {reason}."));
    }
    let fitted = match &args.fit {
        Some(path) if stopped_by.is_none() => Some((path, job.fit()?)),
        _ => None,
    };
    let mut evaluation = job.evaluation(fitted.as_ref().map(|(_, fitted)| fitted))?;
    // A setting that was stopped before its first item has nothing to show.
    evaluation.settings.retain(|report| report.metrics.items > 0);
    evaluation.comparisons.retain(|comparison| comparison.paired.items > 0);
    if evaluation.settings.is_empty() {
        // Earlier reports are worth more than one without figures.
        return Err(stopped_by.unwrap_or_else(|| "nothing was measured".to_owned()));
    }
    outputs.write(&evaluation)?;
    // A closed standard output is no reason to fail: the files are written.
    let _ = write!(io::stdout(), "{}", table::table(&evaluation));
    if let Some((path, fitted)) = fitted {
        fitted.calibration.save(path).map_err(|error| error.to_string())?;
    }
    Ok(match stopped_by {
        Some(reason) => End::Stopped { reason },
        None if evaluation.settings.iter().any(|report| report.metrics.failed > 0) => End::SomeFailed,
        None => End::AllCategorized,
    })
}

/// What was run so far, and all that is needed to make an evaluation of it.
struct Job<'a> {
    args: &'a Args,
    about: About,
    /// The taxonomy of the labels.
    taxonomy: Taxonomy,
    /// What the categories that are asked for are in it, where it is another one.
    mapping: Option<Mapping>,
    truths: Vec<CategoryId>,
    /// All labels of each item, where several are wanted.
    truth_sets: Vec<BTreeSet<CategoryId>>,
    /// The language of each item, where figures are wanted by it.
    languages: Vec<String>,
    peers: Vec<Point>,
    runs: Vec<Run>,
    notes: Vec<String>,
}

impl Job<'_> {
    /// What is done to the probabilities of a setting.
    async fn correction(&mut self, planned: Planned, categorizer: &Categorizer) -> Correction {
        if self.args.calibration.is_some() {
            return Correction::Within(", calibrated");
        }
        if self.args.even_positions {
            return Correction::Within(", positions evened");
        }
        if !self.args.measure_prior {
            return Correction::None;
        }
        match categorizer.measure_prior().await {
            Ok(calibration) => Correction::By(Box::new(calibration), ", prior divided out"),
            Err(error) => {
                let note = format!("No prior for {}: {error}.", planned.name());
                say(&note);
                self.notes.push(note);
                Correction::None
            }
        }
    }

    /// Passes on what the servers' prefix caches lack, which makes every setting slower than it need be.
    fn note_advice(&mut self, stats: &Stats) {
        for advice in stats.endpoints.iter().filter_map(|endpoint| endpoint.prefix_cache.advice.as_ref()) {
            let note = format!("Prefix cache: {advice}.");
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }

    /// Says what each tier settled, and how often they agreed.
    fn note_tiers(&mut self, planned: Planned, stats: &Stats) {
        let Some(opinion) = stats.first_opinion.as_ref().filter(|_| planned.engine == Engine::Both) else { return };
        let note = format!("{}: of {} items {}", planned.name(), stats.items, tiers(opinion));
        say(&note);
        self.notes.push(note);
    }

    /// Fits a calibration, for all settings together.
    fn fit(&mut self) -> Result<Fitted, String> {
        let fitted = rows::fit(&self.runs, &self.truths, &self.taxonomy).map_err(|error| error.to_string())?;
        let calibration = &fitted.calibration;
        self.notes.push(format!(
            "Calibration fitted on {} items: temperature {:.2}, label strength {:.2}, position strength {:.2}. All figures are of \
             the other {}.",
            fitted.samples,
            calibration.temperature(),
            calibration.label_strength(),
            calibration.position_strength(),
            fitted.held_out.len(),
        ));
        for run in &mut self.runs {
            run.correction = Correction::By(Box::new(calibration.clone()), ", calibrated");
        }
        Ok(fitted)
    }

    /// The evaluation of what was run so far.
    fn evaluation(&self, fitted: Option<&Fitted>) -> Result<Evaluation, String> {
        let held_out = fitted.map(|fitted| fitted.held_out.as_slice());
        let mut evaluation = Evaluation::new(self.about.clone(), &self.taxonomy);
        evaluation.notes.clone_from(&self.notes);
        evaluation.points.clone_from(&self.peers);
        for part in rows::parts(&self.truths, &self.taxonomy, held_out, self.args.skew, &self.languages) {
            for run in &self.runs {
                let truths = (&self.truths[..], &self.truth_sets[..]);
                rows::add(&mut evaluation, run, truths, &part, &self.taxonomy, self.mapping.as_ref())
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(evaluation)
    }
}

/// What each tier before the servers settled, and how often it agreed with them.
fn tiers(opinion: &FirstOpinionStats) -> String {
    let agreed = |agreement: Option<(f64, Interval)>, audited: u64| match agreement {
        Some((agreement, Interval { low, high })) => {
            format!("{agreement:.3} ({low:.3} to {high:.3}) of {audited} asked at both agree")
        }
        None => "nothing was asked at both".to_owned(),
    };
    let mut settled = Vec::new();
    if opinion.threshold.is_some() || opinion.head.is_none() {
        let threshold = opinion.threshold.map_or_else(|| "none".to_owned(), |threshold| format!("{threshold:.3}"));
        let agreed = agreed(opinion.agreement(), opinion.audited);
        settled
            .push(format!("the embedding model settled {}, its threshold is {threshold}, {agreed}", opinion.settled));
    }
    if let Some(head) = &opinion.head {
        let (state, agreed) = (head.off_because.as_deref().unwrap_or("on"), agreed(head.agreement(), head.audited));
        let (by_head, drifts) = (opinion.settled_by_head, head.drifts);
        settled.push(format!("the learned head settled {by_head} ({state}), {agreed}, {drifts} drifts were seen"));
    }
    settled.join("; ") + "."
}

fn about_run(args: &Args, taxonomy: &Taxonomy, items: usize) -> About {
    let mut about = About::new(args.model_name(), taxonomy);
    let name = args.input.file_name().unwrap_or(args.input.as_os_str()).to_string_lossy().into_owned();
    about.data = Some(format!("{items} of {name}"));
    about.date = Some(httpdate::fmt_http_date(SystemTime::now()));
    about.server.clone_from(&args.about_server);
    about
}

fn setting(args: &Args, planned: Planned, categorizer: &Categorizer, stats: &Stats) -> Setting {
    let mut setting = Setting::new(planned.name(), planned.pack_size, planned.form.to_string());
    setting.prompt_version = Some(categorizer.prompt_version().to_string());
    setting.escalation = args.escalation_words().filter(|_| planned.is_escalated).map(|words| {
        let Stats { escalated, escalations_changed, escalations_refused, .. } = stats;
        format!("{words}: {escalated} items, {escalations_changed} changed, {escalations_refused} beyond the share")
    });
    setting
}

/// A line on standard error. A closed one is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints an error in one line.
fn complain(reason: &str) {
    say(&format!("error: {}", reason.split_whitespace().collect::<Vec<_>>().join(" ")));
}
