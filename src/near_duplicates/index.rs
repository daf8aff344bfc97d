//! Finds the most similar of many texts without comparing with each: MinHash with banding.
//!
//! Of a set of shingles, the least hash under a random hash function is equal to that of another set with a probability
//! that is their similarity (Broder, *On the resemblance and containment of documents*, 1997). [`ROWS`] such hashes make a
//! band, and texts that agree in any of [`BANDS`] bands are compared in full. So a similarity `s` is found with a
//! probability of `1 - (1 - s^ROWS)^BANDS`: 0.73 at 0.5, 0.94 at 0.6, 0.996 at 0.7, 0.9999 at 0.8. What is found is exact.

use std::collections::HashMap;

use super::shingles::{fold, mixed, shingles, similarity};
use crate::prompt::clean::CleanText;

const BANDS: usize = 20;
const ROWS: usize = 4;

/// A text made ready to be found and compared.
#[derive(Debug)]
pub(crate) struct Fingerprint {
    folded: String,
    shingles: Vec<u64>,
    bands: [u32; BANDS],
}

impl Fingerprint {
    /// None for a text that is too short to compare.
    pub(crate) fn of(text: &CleanText) -> Option<Self> {
        let folded = fold(text);
        let shingles = shingles(&folded)?;
        Some(Self { bands: bands(&shingles), folded, shingles })
    }
}

/// The latest texts, each with a key.
#[derive(Debug)]
pub(crate) struct Texts<K> {
    at_least: f64,
    most: usize,
    /// A ring: when it is full, the oldest text gives its place to the next.
    ring: Vec<Text<K>>,
    next: usize,
    /// For each band of each text, the place of the latest text that has it.
    latest: HashMap<u32, u32>,
}

#[derive(Debug)]
struct Text<K> {
    key: K,
    /// A fifth of the bytes of its shingles, which are made again for the few comparisons.
    folded: Box<str>,
    shingles: usize,
    bands: [u32; BANDS],
}

impl<K> Texts<K> {
    /// Remembers `most` texts, and finds those that are at least so similar.
    pub(crate) fn new(at_least: f32, most: usize) -> Self {
        let most = most.clamp(1, u32::MAX as usize);
        Self { at_least: f64::from(at_least), most, ring: Vec::new(), next: 0, latest: HashMap::new() }
    }

    /// The most similar text among those whose key is `usable`, with its similarity.
    pub(crate) fn nearest(&self, text: &Fingerprint, usable: impl Fn(&K) -> bool) -> Option<(&K, f64)> {
        let mut compared: Vec<u32> = Vec::new();
        let mut best: Option<(&K, f64)> = None;
        for band in &text.bands {
            let Some(&place) = self.latest.get(band) else { continue };
            let Some(other) = self.ring.get(place as usize) else { continue };
            if compared.contains(&place) || !usable(&other.key) {
                continue;
            }
            compared.push(place);
            let similarity = other.similarity(text, self.at_least);
            if similarity >= self.at_least && best.is_none_or(|(_, known)| similarity > known) {
                best = Some((&other.key, similarity));
            }
        }
        best
    }

    /// Remembers a text in place of the oldest.
    pub(crate) fn remember(&mut self, text: Fingerprint, key: K) {
        let place = self.next as u32;
        self.next = (self.next + 1) % self.most;
        self.latest.extend(text.bands.iter().map(|&band| (band, place)));
        let text = Text { key, folded: text.folded.into_boxed_str(), shingles: text.shingles.len(), bands: text.bands };
        match self.ring.get_mut(place as usize) {
            None => self.ring.push(text),
            Some(old) => {
                let old = std::mem::replace(old, text);
                let new = &self.ring[place as usize].bands;
                for band in old.bands.iter().filter(|band| !new.contains(band)) {
                    if self.latest.get(band) == Some(&place) {
                        self.latest.remove(band);
                    }
                }
            }
        }
    }
}

impl<K> Text<K> {
    /// The similarity to another text; zero when their lengths alone tell that it is below the least that matters.
    fn similarity(&self, other: &Fingerprint, at_least: f64) -> f64 {
        let (fewer, more) = (self.shingles.min(other.shingles.len()), self.shingles.max(other.shingles.len()));
        if (fewer as f64) < at_least * more as f64 {
            return 0.0;
        }
        shingles(&self.folded).map_or(0.0, |shingles| similarity(&shingles, &other.shingles))
    }
}

fn bands(shingles: &[u64]) -> [u32; BANDS] {
    let mut least = [u64::MAX; BANDS * ROWS];
    let factors: [u64; BANDS * ROWS] = std::array::from_fn(|at| mixed(at as u64) | 1);
    for shingle in shingles {
        for (least, factor) in least.iter_mut().zip(&factors) {
            // Multiplying by an odd number permutes all hashes; the high bits decide which is the least.
            *least = (*least).min(shingle.wrapping_mul(*factor));
        }
    }
    std::array::from_fn(|band| {
        let rows = &least[band * ROWS..(band + 1) * ROWS];
        rows.iter().fold(mixed(band as u64), |hash, least| mixed(hash ^ least)) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewsItem;

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::of(&CleanText::of(&NewsItem::new("a", "", body), 150).unwrap()).unwrap()
    }

    /// A made-up text of so many words, each of which depends on its number and the seed.
    fn text(seed: u64, words: u64) -> String {
        let word = |n: u64| format!("w{:x} ", mixed(seed.wrapping_mul(1_000) + n) % 1_000_000);
        (0..words).map(word).collect()
    }

    #[test]
    fn the_most_similar_text_is_found_and_others_are_not() {
        let mut texts = Texts::new(0.6, 100);
        for seed in 0..50 {
            texts.remember(fingerprint(&text(seed, 24)), seed);
        }
        texts.remember(fingerprint(&format!("{} {}", text(7, 24), text(99, 8))), 1_007);
        let copy = fingerprint(&format!("Another headline {}", text(7, 24)));
        let (key, similarity) = texts.nearest(&copy, |_| true).unwrap();
        assert_eq!(*key, 7);
        assert!((0.85..1.0).contains(&similarity), "{similarity}");
        assert_eq!(texts.nearest(&copy, |key| *key != 7).unwrap().0, &1_007);
        assert!(texts.nearest(&copy, |_| false).is_none());
        assert!(texts.nearest(&fingerprint(&text(200, 24)), |_| true).is_none());
    }

    #[test]
    fn nothing_below_the_bound_is_found() {
        let mut texts = Texts::new(0.95, 100);
        texts.remember(fingerprint(&text(7, 24)), ());
        assert!(texts.nearest(&fingerprint(&format!("Another headline {}", text(7, 24))), |()| true).is_none());
        assert!(texts.nearest(&fingerprint(&text(7, 24)), |()| true).is_some());
    }

    #[test]
    fn the_oldest_text_gives_its_place_and_nothing_of_it_stays() {
        let mut texts = Texts::new(0.7, 10);
        for seed in 0..35 {
            texts.remember(fingerprint(&text(seed, 24)), seed);
        }
        assert_eq!((texts.ring.len(), texts.latest.len()), (10, 10 * BANDS));
        assert!(texts.nearest(&fingerprint(&text(24, 24)), |_| true).is_none());
        assert_eq!(texts.nearest(&fingerprint(&text(25, 24)), |_| true).map(|found| *found.0), Some(25));
    }

    #[test]
    fn what_is_found_follows_the_formula() {
        // Pairs of a similarity of about 0.5, of which about 73 % should be found.
        let (mut found, mut sum, pairs) = (0, 0.0, 300);
        for seed in 0..pairs {
            let (a, b) = (text(seed, 20), text(seed + 10_000, 10));
            let (short, long) = (fingerprint(&a), fingerprint(&format!("{a}{b}")));
            sum += similarity(&short.shingles, &long.shingles);
            let mut texts = Texts::new(0.3, 1);
            texts.remember(short, ());
            found += usize::from(texts.nearest(&long, |()| true).is_some());
        }
        let mean = sum / pairs as f64;
        let expected = 1.0 - (1.0 - mean.powi(ROWS as i32)).powi(BANDS as i32);
        assert!((found as f64 / pairs as f64 - expected).abs() < 0.1, "{found} of {pairs} at {mean}");
    }
}
