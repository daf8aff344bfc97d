//! A head learns from the answers of an LLM, takes its items, and hands them back when the LLM changes its mind.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use clap::Args;
use futures_util::{StreamExt, stream};
use slugline::embedded::{FirstOpinion, HeadStats, LearnedHead, Learning, SentenceModel};
use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{Categorizer, EndpointConfig, Engine, NewsItem, Stats, Taxonomy};

use super::input;
use super::made_up::{CATEGORIES, made_up};
use super::server::ServerArgs;

#[derive(Args)]
pub(crate) struct LearnArgs {
    /// How many items; where the file has fewer, the title of one with the text of another of its label makes another item
    #[arg(long, default_value_t = 8_000)]
    items: u64,

    /// Labelled items to take instead of made-up ones, a JSON object per line; their labels are those of categories/ag-news.toml
    #[arg(long, value_name = "FILE.jsonl")]
    input: Option<PathBuf>,

    /// The field of a line that holds its label
    #[arg(long, value_name = "NAME", default_value = "label")]
    label_field: String,

    /// The item from which on the simulated LLM exchanges sports and technology
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    drift_at: u64,

    /// The share of wrong answers of the simulated LLM
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    noise: f64,

    /// The agreement to learn to, which errors of the LLM bound
    #[arg(long, value_name = "SHARE", default_value_t = 0.85)]
    target: f64,

    /// The answers that must be there before anything is learned, at least 200
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    least_answers: usize,

    /// The share of items that are asked at both once it has learned
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    audit: f64,

    /// The most items of a request
    #[arg(long, value_name = "N", default_value_t = 3)]
    pack_size: usize,

    /// The file of a head to begin with, if it is there; what was learned is saved to it
    #[arg(long, value_name = "FILE.json")]
    head: Option<PathBuf>,

    /// With --base-url the LLM is a real one, and no drift is injected
    #[command(flatten)]
    server: ServerArgs,
}

/// Items, each with the place of its category.
type Known = Vec<(NewsItem, usize)>;
/// What the simulated LLM answers to items under way, by what is left of their texts.
type Answers = Arc<Mutex<HashMap<String, usize>>>;

/// How many lines the table has.
const LINES: u64 = 16;
/// The letters by which the simulated LLM knows an item.
const KEY_LETTERS: usize = 120;

pub(crate) async fn learn(args: LearnArgs, model: SentenceModel, taxonomy: Taxonomy) -> Result<(), String> {
    let known = items(&args, &taxonomy)?;
    let is_real = !args.server.endpoints.base_url.is_empty();
    let (what, count) =
        (if args.input.is_some() { "items from the file" } else { "made-up items" }, known.len() as u64);
    if is_real {
        println!("{count} {what}; the LLM behind --base-url");
    } else {
        println!(
            "{count} {what}; a SIMULATED LLM that knows their categories and gets {:.0} % wrong; from item {} on it exchanges sports \
             and technology",
            100.0 * args.noise,
            args.drift_at
        );
    }
    println!("the head is to agree in {}, after {} answers at least", args.target, args.least_answers);
    if args.least_answers < 1_000 {
        println!(
            "FEWER THAN THE 1,000 ANSWERS OF THE DEFAULT: a quarter is held out, so the threshold stands on few items"
        );
    }

    let answers = Answers::default();
    let builder = if is_real { args.server.builder(taxonomy)? } else { simulated(taxonomy, &answers) };
    let mut learning = Learning::to(args.target).least_answers(args.least_answers);
    if let Some(path) = args.head.as_ref().filter(|path| path.exists()) {
        let head = LearnedHead::load(path).map_err(|error| error.to_string())?;
        println!("it begins with the head of {}, learned from {} answers", path.display(), head.answers());
        learning = learning.head(head);
    }
    let opinion = FirstOpinion::of(model).audit(args.audit).learn(learning);
    let builder = builder.pack_size(args.pack_size).seed(1).first_opinion(opinion);
    let categorizer = builder.build().map_err(|error| error.to_string())?;
    run(&args, &categorizer, &known, &answers, is_real).await?;

    match (&args.head, categorizer.learned_head()) {
        (Some(path), Some(head)) => {
            head.save(path).map_err(|error| error.to_string())?;
            let loaded = LearnedHead::load(path).map_err(|error| error.to_string())?;
            println!(
                "the head is saved: {}, {} answers, for the taxonomy {}; loaded again it is {}",
                path.display(),
                loaded.answers(),
                loaded.taxonomy_hash(),
                if loaded == head { "the same" } else { "ANOTHER" }
            );
        }
        (Some(_), None) => println!("there is no head to save"),
        _ => {}
    }
    Ok(())
}

async fn run(
    args: &LearnArgs,
    categorizer: &Categorizer,
    known: &Known,
    answers: &Answers,
    is_real: bool,
) -> Result<(), String> {
    let drift_at = if is_real { u64::MAX } else { args.drift_at };
    let source = stream::iter(known.iter().zip(0..)).map(|((item, category), number)| {
        let answer = noisy(drifted(*category, number, drift_at), number, args.noise);
        answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key(&format!("{} {}", item.title, item.body)), answer);
        item.clone()
    });
    let mut outcomes = categorizer.stream(source);
    let start = Instant::now();
    let mut tiers = Tiers::default();
    let line_items = (known.len() as u64 / LINES).max(1);
    let (mut settled, mut before, mut last_line) = (0, Moment::default(), Moment::default());
    println!("{:>7} {:>9} {:>12} {:>15}  head", "items", "requests", "by the head", "items a request");
    while let Some(outcome) = outcomes.next().await {
        settled += 1;
        match &outcome.result {
            Ok(assignment) => {
                let truth = drifted(known[outcome.index as usize].1, outcome.index, drift_at);
                let is_right = assignment.category.as_str() == CATEGORIES[truth];
                tiers.count(assignment.origin.engine, is_right);
            }
            Err(_) => tiers.failed += 1,
        }
        // Often enough to see when it comes on, and when a drift is seen.
        if settled % 20 == 0 || settled == known.len() as u64 {
            let now = Moment::of(settled, &outcomes.stats());
            tiers.between(&before, &now, drift_at);
            before = now.clone();
            if settled % line_items < 20 || settled == known.len() as u64 {
                let (requests, by_head) = (now.requests - last_line.requests, now.by_head - last_line.by_head);
                let rate = (now.items - last_line.items) as f64 / requests.max(1) as f64;
                println!("{settled:>7} {requests:>9} {by_head:>12} {rate:>15.1}  {}", switch(&now.head));
                last_line = now;
            }
        }
    }
    if let Some(error) = outcomes.error() {
        return Err(error.to_string());
    }
    tiers.print(args.target, is_real);
    println!("{:.1} items/s", settled as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// What was counted after so many items.
#[derive(Clone, Default)]
struct Moment {
    items: u64,
    requests: u64,
    by_head: u64,
    head: HeadStats,
}

impl Moment {
    fn of(items: u64, stats: &Stats) -> Self {
        let opinion = stats.first_opinion.clone().unwrap_or_default();
        Self {
            items,
            requests: stats.requests,
            by_head: opinion.settled_by_head,
            head: opinion.head.unwrap_or_default(),
        }
    }
}

/// What each tier did.
#[derive(Default)]
struct Tiers {
    failed: u64,
    /// Items and those of them that are right, by the LLM and by the head.
    llm: (u64, u64),
    head: (u64, u64),
    /// Items and requests while the head was off and had never been on, and while it was on before the drift.
    off: (u64, u64),
    on: (u64, u64),
    on_at: Option<u64>,
    before_drift: Option<HeadStats>,
    seen_at: Option<u64>,
    drift_at: u64,
}

impl Tiers {
    fn count(&mut self, engine: Engine, is_right: bool) {
        let tier = if engine == Engine::LearnedHead { &mut self.head } else { &mut self.llm };
        *tier = (tier.0 + 1, tier.1 + u64::from(is_right));
    }

    fn between(&mut self, before: &Moment, now: &Moment, drift_at: u64) {
        self.drift_at = drift_at;
        let (items, requests) = (now.items - before.items, now.requests - before.requests);
        if now.head.is_on && self.on_at.is_none() {
            self.on_at = Some(now.items);
        }
        match self.on_at {
            None => self.off = (self.off.0 + items, self.off.1 + requests),
            Some(_) if before.head.is_on && now.items <= drift_at => {
                self.on = (self.on.0 + items, self.on.1 + requests);
            }
            Some(_) => {}
        }
        if now.items <= drift_at {
            self.before_drift = Some(now.head.clone());
        }
        if now.items > drift_at && now.head.drifts > before.head.drifts && self.seen_at.is_none() {
            self.seen_at = Some(now.items);
        }
    }

    fn print(&self, target: f64, is_real: bool) {
        let rate = |(items, requests): (u64, u64)| items as f64 / requests.max(1) as f64;
        match self.on_at {
            Some(at) => println!(
                "the head was on after {at} items: {:.1} items a request before, {:.1} while it was on{}",
                rate(self.off),
                rate(self.on),
                if is_real { "" } else { " and nothing had drifted" }
            ),
            None => println!("the head was never on: {:.1} items a request", rate(self.off)),
        }
        let audit = self.before_drift.as_ref().and_then(|head| Some((head.agreement()?, head.audited, head.drifts)));
        if let Some(((agreement, interval), audited, drifts)) = audit {
            println!(
                "audit{}: {agreement:.3} ({:.3} to {:.3}) of {audited} agreed, the target is {target}; {drifts} drifts seen",
                if is_real { "" } else { " before the drift" },
                interval.low,
                interval.high,
            );
        }
        if let Some(at) = self.seen_at {
            println!("the drift at item {} was seen by item {at}", self.drift_at);
        }
        let right = |(items, right): (u64, u64)| format!("{items}, {:.3} right", right as f64 / items.max(1) as f64);
        println!(
            "by the labels: the LLM settled {}; the head settled {}; {} failed",
            right(self.llm),
            right(self.head),
            self.failed
        );
    }
}

fn switch(head: &HeadStats) -> String {
    match (&head.off_because, head.threshold, head.held_out) {
        (None, Some(threshold), Some((agreed, of))) => {
            format!("on above {threshold:.3}, {agreed} of {of} held out agreed")
        }
        (reason, ..) => format!("off: {}", reason.as_deref().unwrap_or_default()),
    }
}

/// The items of the run.
fn items(args: &LearnArgs, taxonomy: &Taxonomy) -> Result<Known, String> {
    let Some(path) = &args.input else { return Ok((0..args.items).map(made_up).collect()) };
    let place = |label: &str| {
        let category = taxonomy.find(label).ok_or_else(|| format!("{label} is no label of categories/ag-news.toml"))?;
        CATEGORIES.iter().position(|id| *id == category.id.as_str()).ok_or_else(|| "another taxonomy".to_owned())
    };
    let labelled = input::read(path, &args.label_field, None, usize::MAX)?;
    let mut file =
        labelled.into_iter().map(|of| Ok((of.item, place(&of.label)?))).collect::<Result<Known, String>>()?;
    // Markup, which cleaning changes, and the simulation would not know them again.
    file.retain(|(item, _)| !item.title.contains(['&', '<', '\\']) && !item.body.contains(['&', '<', '\\']));
    let mut of_category = vec![Vec::new(); CATEGORIES.len()];
    file.iter().enumerate().for_each(|(at, (_, category))| of_category[*category].push(at));
    let mixed = |number: usize| {
        let (item, category) = &file[number % file.len()];
        let alike = &of_category[*category];
        // In each round through the file, the text of the item that is so many further on.
        let own = alike.iter().position(|at| *at == number % file.len()).unwrap_or_default();
        let (body, _) = &file[alike[(own + number / file.len()) % alike.len()]];
        (NewsItem::new(number.to_string(), item.title.clone(), body.body.clone()), *category)
    };
    Ok((0..args.items as usize).filter(|_| !file.is_empty()).map(mixed).collect())
}

/// The category that the LLM goes by.
fn drifted(category: usize, number: u64, drift_at: u64) -> usize {
    match category {
        1 if number >= drift_at => 3,
        3 if number >= drift_at => 1,
        category => category,
    }
}

/// Another category for a share of the items.
fn noisy(category: usize, number: u64, noise: f64) -> usize {
    let mut random = fastrand::Rng::with_seed(number ^ 0x6e6f_6973_6500);
    if random.f64() < noise { (category + random.usize(1..CATEGORIES.len())) % CATEGORIES.len() } else { category }
}

fn simulated(taxonomy: Taxonomy, answers: &Answers) -> slugline::CategorizerBuilder {
    let answers = Arc::clone(answers);
    let server = ScriptedTransport::new(move |asked: &Asked| {
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        // The canary of a run is no item.
        Reply::labels(asked.items.iter().map(|item| CATEGORIES[answers.remove(&key(item)).unwrap_or_default()]))
    });
    let endpoint = EndpointConfig::new("in-process").transport(server);
    Categorizer::builder(taxonomy).endpoint(endpoint).model("simulated")
}

/// The first letters and digits of a text, which cleaning leaves as they are.
fn key(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).take(KEY_LETTERS).collect()
}
