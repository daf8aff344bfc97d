//! Speed and memory of the index on made-up texts, as long as real ones.

use std::time::Instant;

use slugline::NewsItem;
use slugline::near_duplicates::{Index, NearDuplicates};

/// The words of a text: about 150 tokens.
const WORDS: usize = 100;
/// How many words there are. Real texts have shingles in common, too.
const VOCABULARY: usize = 30_000;

/// Fills an index with so many texts of which each is new, then looks for slightly edited ones.
pub(crate) fn measure(texts: usize) {
    let mut random = fastrand::Rng::with_seed(1);
    let vocabulary: Vec<String> = (0..VOCABULARY).map(|_| word(&mut random)).collect();
    let text = |number: usize, edits: usize| {
        // Each number has its own stream, so that a text can be made again.
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut words: Vec<&str> = (0..WORDS).map(|_| common(&vocabulary, &mut random)).collect();
        (0..edits).for_each(|edit| words[(edit * 37 + 11) % WORDS] = "edited");
        NewsItem::new(number.to_string(), words[..8].join(" "), words[8..].join(" "))
    };

    let before = resident_kib();
    let mut index = Index::new(&NearDuplicates::default().remember(texts));
    let start = Instant::now();
    // Making a text takes time, too, which is taken off again.
    let making = (0..texts).map(|number| text(number, 0).body.len()).sum::<usize>();
    let making_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let taken_for_new = (0..texts).filter(|number| index.see(&text(*number, 0)).is_none()).count();
    let seconds = start.elapsed().as_secs_f64() - making_s;
    println!("\nsynthetic texts: {texts} of {WORDS} words ({} bytes on average)", making / texts.max(1));
    println!("{taken_for_new} taken for new, {:.0} items/s, cleaning included", texts as f64 / seconds);
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        let grown = after.saturating_sub(before);
        println!("{} MiB resident, {:.0} bytes an item", grown / 1_024, grown as f64 * 1_024.0 / texts.max(1) as f64);
    }
    let (start, looked_for) = (Instant::now(), texts.min(10_000));
    let found = (0..looked_for)
        .map(|number| texts - 1 - number)
        .filter(|&number| index.find(&text(number, 5)).is_some_and(|similar| similar.id == number.to_string()))
        .count();
    let rate = looked_for as f64 / start.elapsed().as_secs_f64();
    println!("{found} of {looked_for} found again with 5 words of {WORDS} changed, {rate:.0} items/s");
}

fn word(random: &mut fastrand::Rng) -> String {
    (0..random.usize(2..10)).map(|_| random.lowercase()).collect()
}

/// A word, early ones of the vocabulary far more often, as in language.
fn common<'a>(vocabulary: &'a [String], random: &mut fastrand::Rng) -> &'a str {
    let rank = (VOCABULARY as f64).powf(random.f64()) as usize;
    &vocabulary[rank.min(VOCABULARY - 1)]
}

/// The resident memory of this process, where the system tells (Linux).
fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
