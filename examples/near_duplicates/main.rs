//! What near-duplicate detection finds in your own items: recall, precision, speed and memory.
//!
//! ```text
//! cargo run --release --features near-duplicates --example near_duplicates -- --input items.jsonl [--pairs pairs.jsonl]
//! ```
//!
//! Four things are measured, for several bounds of similarity:
//! - real pairs, where `--pairs` has a file that a person labelled: `{"a": ID, "b": ID, "same": true}` a line;
//! - pairs that are made from the items as newsrooms edit what they print again, so that their truth is known. They are
//!   edits of real texts, not real reprints;
//! - speed and memory, on made-up texts (`--synthetic N`);
//! - with `--model-folder` the made pairs once more, by the vectors of an embedding model.

mod edits;
mod embedding;
#[path = "../support/lines.rs"]
mod lines;
mod speed;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use slugline::NewsItem;
use slugline::embedded::SentenceModel;
use slugline::near_duplicates::{Index, NearDuplicates};

use self::edits::EDITS;

/// Measures near-duplicate detection on items of your own
#[derive(Parser)]
struct Args {
    /// Items, a JSON object per line; may be given several times. Without any, a small made-up sample is measured
    #[arg(long, value_name = "FILE.jsonl")]
    input: Vec<PathBuf>,
    /// Pairs that a person labelled: {"a": ID, "b": ID, "same": true or false} a line
    #[arg(long, value_name = "FILE.jsonl")]
    pairs: Option<PathBuf>,
    /// A folder with an embedding model, as examples/embedded/fetch-model.sh makes one: the made pairs by its vectors, too
    #[arg(long, value_name = "FOLDER")]
    model_folder: Option<PathBuf>,
    /// So many made-up texts for speed and memory
    #[arg(long, value_name = "N")]
    synthetic: Option<usize>,
}

/// The bounds that are compared; 0.7 is the default.
const BOUNDS: [f32; 6] = [0.5, 0.6, 0.7, 0.75, 0.8, 0.9];

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let mut items: Vec<NewsItem> = Vec::new();
    let (mut input, mut pairs) = (args.input.clone(), args.pairs.clone());
    if input.is_empty() && args.synthetic.is_none() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/near_duplicates");
        input.push(sample.join("sample.jsonl"));
        pairs.get_or_insert(sample.join("sample.pairs.jsonl"));
    }
    for path in &input {
        items.extend(read(path)?);
    }
    if !items.is_empty() {
        println!("{} items", items.len());
        // Without a file there are no labels: every pair that is found is shown, for a person to read.
        let labelled = pairs.as_deref().map(read).transpose()?.unwrap_or_default();
        real_pairs(&items, &labelled);
        let start = Instant::now();
        edited_pairs(&items);
        println!("in {:.2} s, all bounds and edits", start.elapsed().as_secs_f64());
        if let Some(folder) = &args.model_folder {
            let model = SentenceModel::open(folder).map_err(|error| error.to_string())?;
            embedding::edited_pairs(&items, model)?;
        }
    }
    if let Some(texts) = args.synthetic {
        speed::measure(texts);
    }
    Ok(())
}

/// Two items, and whether they are the same story.
#[derive(Deserialize)]
struct Pair {
    a: String,
    b: String,
    same: bool,
}

fn real_pairs(items: &[NewsItem], labelled: &[Pair]) {
    let truth: HashMap<(&str, &str), bool> = labelled
        .iter()
        .flat_map(|pair| [((&*pair.a, &*pair.b), pair.same), ((&*pair.b, &*pair.a), pair.same)])
        .collect();
    // Of each item that has a partner before it, that partner, or another, should be found.
    let mut before = HashSet::new();
    let mut wanted = HashSet::new();
    for item in items {
        let is_known = |pair: &&Pair| pair.same && (pair.a == item.id || pair.b == item.id);
        if labelled.iter().filter(is_known).any(|pair| before.contains(&pair.a) || before.contains(&pair.b)) {
            wanted.insert(&*item.id);
        }
        before.insert(item.id.clone());
    }
    println!("\nreal pairs: {} items have an earlier partner that a person found", wanted.len());
    println!("{:>6} {:>7} {:>9} {:>7} {:>10}", "bound", "recall", "precision", "found", "unlabelled");
    for bound in BOUNDS {
        let mut index = Index::new(&NearDuplicates::at_least(bound));
        let (mut right, mut wrong, mut unlabelled) = (0, 0, Vec::new());
        for item in items {
            let Some(similar) = index.see(item) else { continue };
            match truth.get(&(&*similar.id, &*item.id)) {
                Some(true) => right += 1,
                Some(false) => wrong += 1,
                None => unlabelled.push(format!("{} {} {:.3}", similar.id, item.id, similar.similarity)),
            }
        }
        let found = right + wrong + unlabelled.len();
        println!(
            "{bound:>6} {:>7} {:>9} {found:>7} {:>10}",
            share(right, wanted.len()),
            share(right, right + wrong),
            unlabelled.len()
        );
        if bound == BOUNDS[0] {
            unlabelled.iter().for_each(|pair| println!("       unlabelled: {pair}"));
        }
    }
}

/// Each edit of each item, looked for among all items of the set.
fn edited_pairs(items: &[NewsItem]) {
    println!("\nmade pairs: each item edited, and looked for among all {}", items.len());
    println!("{:40} {:>6} {}", "edit", "pairs", BOUNDS.map(|bound| format!("{bound:>6}")).join(" "));
    let mut totals = [(0, 0); BOUNDS.len()];
    let mut others = [0; BOUNDS.len()];
    for edit in EDITS {
        let mut row = Vec::new();
        let mut count = 0;
        for (at, bound) in BOUNDS.into_iter().enumerate() {
            let (own, other, pairs) = found(items, &edit, bound);
            row.push(format!("{:>6}", share(own, pairs)));
            count = pairs;
            if edit.is_same_story {
                totals[at] = (totals[at].0 + own, totals[at].1 + pairs);
            }
            others[at] += other;
        }
        println!("{:40} {count:>6} {}", edit.name, row.join(" "));
    }
    let pairs = totals.first().map_or(0, |total| total.1);
    let recall = totals.map(|(own, pairs)| format!("{:>6}", share(own, pairs)));
    println!("{:40} {pairs:>6} {}", "recall over the same stories", recall.join(" "));
    println!(
        "{:40} {:>6} {}",
        "found another item of the set",
        "",
        others.map(|other| format!("{other:>6}")).join(" ")
    );
}

/// How many edited items find their own original, or another item, and how many there are. Originals that are near-duplicates
/// of each other stand for each other.
fn found(items: &[NewsItem], edit: &edits::Edit, bound: f32) -> (usize, usize, usize) {
    let mut index = Index::new(&NearDuplicates::at_least(bound));
    let originals: Vec<String> =
        items.iter().map(|item| index.see(item).map_or_else(|| item.id.clone(), |similar| similar.id)).collect();
    let (mut own, mut other, mut pairs) = (0, 0, 0);
    for (at, item) in items.iter().enumerate() {
        let lender = &items[(at * 7 + 3) % items.len()];
        let Some(edited) = (edit.apply)(item, lender) else { continue };
        pairs += 1;
        // An edited item that is not found would be remembered, and found for the next.
        match index.find(&edited) {
            Some(similar) if similar.id == originals[at] => own += 1,
            Some(_) => other += 1,
            None => {}
        }
    }
    (own, other, pairs)
}

fn share(part: usize, whole: usize) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.3}", part as f64 / whole as f64) }
}

/// The values of a file with one in each line; a line that is none ends it with an error.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, String> {
    let failed = |error: &std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut reader = BufReader::new(File::open(path).map_err(|error| failed(&error))?);
    let (mut line, mut number, mut values) = (Vec::new(), 0, Vec::new());
    while lines::read_line(&mut reader, &mut line).map_err(|error| failed(&error))?.is_some() {
        number += 1;
        let content = lines::content(&line, number);
        if content.is_empty() {
            continue;
        }
        let value = lines::object_text(content)
            .and_then(|text| serde_json::from_str(text).map_err(|error| lines::reason_of(&error)));
        values.push(value.map_err(|reason| format!("{} line {number}: {reason}", path.display()))?);
    }
    Ok(values)
}
