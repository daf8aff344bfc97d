//! A linear head on the vectors of an embedding model, learned from the answers of an LLM.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::threshold::{self, Found, Pair};
use super::{ridge, softmax};
use crate::evaluate::{Interval, Z_99};
use crate::taxonomy::Taxonomy;

/// A linear head that was learned from the answers of an LLM; see [`Learning`](super::Learning).
///
/// It holds for one taxonomy and one embedding model, and is used for no other. It has no text of any item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LearnedHead {
    format: u32,
    taxonomy: String,
    /// The ids of its categories in their order, which the hash leaves open.
    categories: Vec<String>,
    model: String,
    /// The answers that it was learned from, those held out included.
    answers: u64,
    /// How sure it must be to settle an item, and what was seen above that among answers held out.
    threshold: f32,
    agreed: u64,
    held_out: u64,
    temperature: f32,
    /// By category: one for each number of a vector, and the bias.
    weights: Vec<Vec<f32>>,
}

/// Why a head cannot be saved or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The file cannot be read or written.
    #[error("cannot {action} the learned head {}: {reason}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no learned head, or of a newer format.
    #[error("{} is no learned head of format 2: {reason}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

const FORMAT: u32 = 2;

impl LearnedHead {
    /// Writes it to a JSON file, replacing what is there once all is written.
    ///
    /// # Errors
    /// [`HeadError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), HeadError> {
        let path = path.as_ref();
        let io =
            |reason: String| HeadError::Io { action: "write", path: path.to_owned(), reason: reason.to_lowercase() };
        let json = serde_json::to_vec(self).map_err(|error| io(error.to_string()))?;
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let written = std::fs::write(&partial, json).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(|error| io(error.to_string()))
    }

    /// Reads a file that [`save`](Self::save) wrote. Whether it fits is checked when a categorizer is built with it.
    ///
    /// # Errors
    /// The file cannot be read, or is no learned head.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, HeadError> {
        let path = path.as_ref();
        let json = std::fs::read(path).map_err(|error| HeadError::Io {
            action: "read",
            path: path.to_owned(),
            reason: error.to_string().to_lowercase(),
        })?;
        let unreadable = |reason: String| HeadError::Unreadable { path: path.to_owned(), reason };
        let head: Self = serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string()))?;
        match head.problem() {
            None => Ok(head),
            Some(problem) => Err(unreadable(problem.to_owned())),
        }
    }

    /// The hash of the taxonomy that it holds for; see [`Taxonomy::hash`].
    pub fn taxonomy_hash(&self) -> &str {
        &self.taxonomy
    }

    /// The embedding model that it holds for.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The answers that it was learned from, those held out included.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// How sure it must be to settle an item, 0 to 1.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// How many of the answers held out agreed with it where it was that sure, and of how many.
    pub fn held_out(&self) -> (u64, u64) {
        (self.agreed, self.held_out)
    }

    /// The probability of each category for a vector, by position.
    pub(super) fn probabilities(&self, vector: &[f32]) -> Vec<f32> {
        softmax(&ridge::scores(&self.weights, vector), self.temperature)
    }

    /// Why it does not fit, in words. It was learned to some agreement, which may be less than is wanted now.
    pub(super) fn misfit(&self, taxonomy: &Taxonomy, model: &str, target: f64) -> Option<String> {
        let is_same_list = taxonomy.categories().map(|category| category.id.as_str()).eq(&self.categories);
        if self.taxonomy != taxonomy.hash() || !is_same_list || self.weights.len() != taxonomy.len() {
            return Some("the learned head is of another taxonomy, or of another order of its categories: leave it out, it is learned anew"
                    .to_owned(),
            );
        }
        let other = &self.model;
        if other != model {
            return Some(format!("the learned head is of the embedding model {other}, not of {model}"));
        }
        let reached = Interval::wilson_at(Z_99, self.agreed, self.held_out).low;
        (reached < target).then(|| {
            format!(
                "the learned head was shown to agree in {reached:.3}, not in {target}: leave it out, it is learned anew"
            )
        })
    }

    pub(super) fn width(&self) -> usize {
        self.weights.first().map_or(0, |weights| weights.len() - 1)
    }

    fn problem(&self) -> Option<&'static str> {
        let width = self.weights.first().map_or(0, Vec::len);
        if self.format != FORMAT {
            return Some("it is of another format");
        }
        if width < 2 || self.weights.iter().any(|weights| weights.len() != width) {
            return Some("its weights are not of one length");
        }
        let is_usable = self.weights.iter().flatten().all(|weight| weight.is_finite())
            && self.temperature > 0.0
            && self.temperature.is_finite()
            && (0.0..=1.0).contains(&self.threshold)
            && self.agreed <= self.held_out;
        (!is_usable).then_some("its numbers cannot be used")
    }
}

/// An answer of the LLM to learn from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) vector: &'a [f32],
    pub(super) category: usize,
    /// Whether it is kept out of the learning, to measure it.
    pub(super) is_held_out: bool,
}

/// What came of learning.
#[derive(Debug)]
pub(super) struct Trained {
    /// None where no threshold reaches the target.
    pub(super) head: Option<LearnedHead>,
    /// How many of the answers held out agree, and of how many, whatever the confidence.
    pub(super) agreed: u64,
    pub(super) of: u64,
}

/// What a vector of length 1 is drawn towards nothing by; .3 to 3 made no difference of a point on AG News.
const PENALTY: f64 = 1.0;

pub(super) fn train(answers: &[Answer<'_>], taxonomy: &Taxonomy, model: &str, target: f64) -> Trained {
    let (held_out, learned): (Vec<_>, Vec<_>) = answers.iter().copied().partition(|answer| answer.is_held_out);
    let samples: Vec<ridge::Sample<'_>> = learned.iter().map(|answer| (answer.vector, answer.category)).collect();
    let Some(weights) = ridge::fit(&samples, taxonomy.len(), PENALTY) else {
        return Trained { head: None, agreed: 0, of: 0 };
    };
    let scored: Vec<(Vec<f32>, usize)> =
        held_out.iter().map(|answer| (ridge::scores(&weights, answer.vector), answer.category)).collect();
    let temperature = temperature(&scored);
    let pairs: Vec<Pair> = scored
        .iter()
        .map(|(scores, category)| {
            let best = super::ranked(softmax(scores, temperature)).first().copied().unwrap_or_default();
            Pair { confidence: best.1, agrees: best.0 == *category }
        })
        .collect();
    let agreed = pairs.iter().filter(|pair| pair.agrees).count() as u64;
    let of = pairs.len() as u64;
    let head = threshold::lowest(pairs, target).map(|Found { confidence, agreed, of }| LearnedHead {
        format: FORMAT,
        taxonomy: taxonomy.hash().to_owned(),
        categories: taxonomy.categories().map(|category| category.id.to_string()).collect(),
        model: model.to_owned(),
        answers: answers.len() as u64,
        threshold: confidence,
        agreed,
        held_out: of,
        temperature,
        weights,
    });
    Trained { head, agreed, of }
}

/// What makes the probabilities as sure as they are right: of 40 temperatures from .02 to 1, the one with the least mean of
/// `-ln p(answer)`.
fn temperature(scored: &[(Vec<f32>, usize)]) -> f32 {
    let loss = |temperature: f32| -> f64 {
        let of =
            |(scores, category): &(Vec<f32>, usize)| -f64::from(softmax(scores, temperature)[*category].max(1e-9).ln());
        scored.iter().map(of).sum()
    };
    let candidates = (0..40).map(|step| 0.02 * 50_f32.powf(step as f32 / 39.0));
    candidates.map(|t| (t, loss(t))).min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0.1, |(temperature, _)| temperature)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::Category;

    pub(in super::super) fn taxonomy() -> Taxonomy {
        let categories = ["sport", "business", "science"].map(|id| Category::new(id, id, format!("About {id}.")));
        Taxonomy::new("t", "1", categories).unwrap()
    }

    /// Vectors near one axis for each category; one of ten labels is wrong.
    fn vectors(count: usize) -> Vec<(Vec<f32>, usize)> {
        let mut random = fastrand::Rng::with_seed(7);
        let vector = |n: usize| {
            let category = n % 3;
            let mut vector: Vec<f32> = (0..8).map(|_| random.f32() - 0.5).collect();
            vector[category] += 1.5;
            let label = if random.f32() < 0.1 { (category + 1) % 3 } else { category };
            (super::super::normalized(vector), label)
        };
        (0..count).map(vector).collect()
    }

    fn trained(count: usize, target: f64) -> Trained {
        let vectors = vectors(count);
        let answers: Vec<_> = vectors
            .iter()
            .enumerate()
            .map(|(at, (vector, category))| Answer { vector, category: *category, is_held_out: at.is_multiple_of(4) })
            .collect();
        train(&answers, &taxonomy(), "fake", target)
    }

    #[test]
    fn it_learns_what_the_answers_say_and_is_as_good_as_they_are() {
        let Trained { head, agreed, of } = trained(2_000, 0.85);
        assert!(agreed as f64 / of as f64 > 0.87, "{agreed} of {of}");
        let head = head.unwrap();
        for (vector, _) in vectors(30).iter().enumerate().map(|(at, (vector, _))| (vector, at % 3)) {
            let shares = head.probabilities(vector);
            assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert!(trained(2_000, 0.95).head.is_none(), "with a tenth of the answers wrong, .95 cannot be reached");
    }

    #[test]
    fn the_same_answers_give_the_same_head() {
        assert_eq!(trained(1_000, 0.8).head.unwrap(), trained(1_000, 0.8).head.unwrap());
    }

    #[test]
    fn it_is_saved_and_loaded_whole_and_used_for_nothing_else() {
        let head = trained(1_000, 0.8).head.unwrap();
        let path = std::env::temp_dir().join(format!("slugline-head-{}.json", std::process::id()));
        head.save(&path).unwrap();
        assert_eq!(LearnedHead::load(&path).unwrap(), head);
        assert_eq!(head.misfit(&taxonomy(), "fake", 0.8), None);
        assert!(head.misfit(&taxonomy(), "other", 0.8).unwrap().contains("not of other"));
        assert!(head.misfit(&taxonomy(), "fake", 0.95).unwrap().contains("not in 0.95"));
        let turned: Vec<_> = taxonomy().categories().cloned().collect();
        let turned = Taxonomy::new("t", "1", turned.into_iter().rev()).unwrap();
        assert_eq!(turned.hash(), taxonomy().hash());
        assert!(head.misfit(&turned, "fake", 0.8).unwrap().contains("another order"));
        let other = Taxonomy::new("t", "1", ["a", "b", "c"].map(|id| Category::new(id, id, "Text."))).unwrap();
        assert!(head.misfit(&other, "fake", 0.8).unwrap().contains("another taxonomy"));

        for (broken, reason) in [
            (LearnedHead { format: 1, ..head.clone() }, "another format"),
            (LearnedHead { temperature: 0.0, ..head.clone() }, "cannot be used"),
            (LearnedHead { weights: vec![vec![1.0, 2.0], vec![1.0]], ..head }, "one length"),
        ] {
            broken.save(&path).unwrap();
            let error = LearnedHead::load(&path).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(LearnedHead::load(&path), Err(HeadError::Unreadable { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(LearnedHead::load(&path), Err(HeadError::Io { action: "read", .. })));
    }
}
