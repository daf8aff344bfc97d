//! The same edited pairs, looked for by the vectors of an embedding model instead of shingles.

use std::time::Instant;

use slugline::NewsItem;
use slugline::embedded::{Embed, SentenceModel};

use super::edits::EDITS;
use super::share;

/// The cosines that are compared as bounds.
const BOUNDS: [f32; 6] = [0.8, 0.85, 0.9, 0.93, 0.95, 0.97];
/// As many tokens as the shingles are made of.
const ITEM_TOKENS: usize = 150;
/// The texts that are embedded at once.
const BATCH: usize = 64;

/// Each edit of each item, looked for among all items of the set by the greatest cosine.
pub(crate) fn edited_pairs(items: &[NewsItem], model: SentenceModel) -> Result<(), String> {
    let model = model.max_tokens(ITEM_TOKENS);
    let start = Instant::now();
    let originals = vectors(&model, items)?;
    let rate = items.len() as f64 / start.elapsed().as_secs_f64();
    println!("\nthe same by embedding ({}): {rate:.0} items/s embedded", model.name());
    println!("{:40} {:>6} {}", "edit", "pairs", BOUNDS.map(|bound| format!("{bound:>6}")).join(" "));
    let mut totals = [(0, 0); BOUNDS.len()];
    let mut others = [0; BOUNDS.len()];
    for edit in EDITS {
        let apply =
            |(at, item): (usize, &NewsItem)| Some((at, (edit.apply)(item, &items[(at * 7 + 3) % items.len()])?));
        let (places, edited): (Vec<usize>, Vec<NewsItem>) = items.iter().enumerate().filter_map(apply).unzip();
        let found: Vec<(f32, bool)> = (places.iter().zip(vectors(&model, &edited)?))
            .map(|(&at, vector)| {
                let (nearest, cosine) = nearest(&originals, &vector);
                // Originals that are the same stand for each other.
                (cosine, nearest == at || dot(&originals[nearest], &originals[at]) > 0.999)
            })
            .collect();
        let of = |bound: f32, is_own: bool| found.iter().filter(|of| of.0 >= bound && of.1 == is_own).count();
        for (at, bound) in BOUNDS.into_iter().enumerate() {
            others[at] += of(bound, false);
            if edit.is_same_story {
                totals[at] = (totals[at].0 + of(bound, true), totals[at].1 + found.len());
            }
        }
        let row = BOUNDS.map(|bound| format!("{:>6}", share(of(bound, true), found.len())));
        println!("{:40} {:>6} {}", edit.name, found.len(), row.join(" "));
    }
    let recall = totals.map(|(own, pairs)| format!("{:>6}", share(own, pairs)));
    println!("{:40} {:>6} {}", "recall over the same stories", totals[0].1, recall.join(" "));
    println!("{:40} {:>6} {}", "found another item of the set", "", others.map(|n| format!("{n:>6}")).join(" "));
    let partners = BOUNDS.map(|bound| {
        let has_partner = |at: &usize| {
            (0..originals.len()).any(|other| other != *at && dot(&originals[other], &originals[*at]) >= bound)
        };
        format!("{:>6}", (0..originals.len()).filter(has_partner).count())
    });
    println!("{:40} {:>6} {}", "unedited items with a partner in the set", items.len(), partners.join(" "));
    Ok(())
}

fn vectors(model: &SentenceModel, items: &[NewsItem]) -> Result<Vec<Vec<f32>>, String> {
    let texts: Vec<String> = items.iter().map(|item| format!("{}. {}", item.title, item.body)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        vectors.extend(model.embed(batch).map_err(|error| error.to_string())?);
    }
    Ok(vectors)
}

/// The place of the nearest vector, with its cosine; all have the length 1.
fn nearest(vectors: &[Vec<f32>], vector: &[f32]) -> (usize, f32) {
    let cosines = vectors.iter().map(|other| dot(other, vector)).enumerate();
    cosines.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
