//! A sentence-embedding model in the process, with the feature `embedded`: by itself where there is no server, or as a first
//! opinion that spares the server the easy items.
//!
//! **It is an embedding model, not a large language model.** It turns a text into a vector, and an item gets the category whose
//! name, description and keywords point the same way. That is fast and needs no server, but it reads no instructions and follows
//! no definition: "profits of technology companies go to business" is lost on it. The usual models know English best; an item
//! in another script is marked ([`Engine::EmbeddingModel`](crate::Engine::EmbeddingModel)) and counted
//! ([`FirstOpinionStats::other_script`]), and where there is a server, it is the server that is asked about it.
//!
//! # By itself
//!
//! ```no_run
//! use slugline::embedded::SentenceModel;
//! use slugline::{Categorizer, NewsItem, Taxonomy};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let model = SentenceModel::open("models/all-minilm-l6-v2")?; // has model.onnx and tokenizer.json
//! let categorizer = Categorizer::builder(Taxonomy::load("categories/newsroom.toml")?).embedded(model).build()?;
//! let report = categorizer.categorize([NewsItem::new("a1", "Late goal wins the cup", "The club won both.")]).await;
//! # Ok(())
//! # }
//! ```
//!
//! # As a first opinion
//!
//! A [`FirstOpinion`] beside endpoints settles the items that it is sure of, and leaves the others to the LLM. How sure it
//! must be is a threshold that is given, or found while the run goes from a random share of items that are asked at both, the
//! audit. The same audit measures how often the two agree, and a [`Learning`] trains a linear head on its answers.
//!
//! ```no_run
//! use slugline::embedded::{FirstOpinion, Learning, SentenceModel};
//! use slugline::{Categorizer, Taxonomy};
//!
//! # fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let model = SentenceModel::open("models/all-minilm-l6-v2")?;
//! let categorizer = Categorizer::builder(Taxonomy::load("categories/newsroom.toml")?)
//!     .endpoint("http://localhost:8000/v1")
//!     .model("Qwen/Qwen2.5-7B-Instruct-AWQ")
//!     .first_opinion(FirstOpinion::of(model).agreeing(0.95).learn(Learning::to(0.95)))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! Answers of the engine are not kept in a ledger: they cost nothing to repeat, and what it may settle depends on thresholds that
//! change. Answers of the LLM that a ledger has come before any opinion of the engine.

mod desk;
mod head;
mod labels;
mod learner;
mod opinion;
mod ridge;
mod script;
mod sentence;
mod stats;
mod threshold;
mod word_pieces;

use std::path::PathBuf;

pub(crate) use self::desk::{Decision, Desk, Opinion, Sampled};
pub use self::head::{HeadError, LearnedHead};
pub use self::learner::Learning;
pub use self::opinion::FirstOpinion;
pub use self::sentence::SentenceModel;
pub(crate) use self::stats::Counts;
pub use self::stats::{FirstOpinionStats, HeadStats};

/// Turns texts into vectors that are close where the texts mean something alike.
///
/// [`SentenceModel`] does it with a model file; another engine can be put in its place.
pub trait Embed: Send + Sync + 'static {
    /// The model's name, as it stands in outcomes.
    fn name(&self) -> &str;

    /// What tells this model from another that has the same name; a learned head holds for it alone. By default the name.
    fn identity(&self) -> String {
        self.name().to_owned()
    }

    /// The vectors of texts, in their order, all of one length. It is called off the async runtime and may use all cores.
    ///
    /// # Errors
    /// The model cannot be run.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError>;
}

impl<T: Embed + ?Sized> Embed for std::sync::Arc<T> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn identity(&self) -> String {
        (**self).identity()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        (**self).embed(texts)
    }
}

/// Why an embedding model cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// A file of the model cannot be read.
    #[error("cannot read {}: {reason}; a model folder has model.onnx and tokenizer.json", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A file is no model or tokenizer that can be used.
    #[error("{} cannot be used: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The model failed on texts.
    #[error("the embedding model failed: {reason}")]
    Failed {
        /// Why, without the texts.
        reason: String,
    },
}

impl EmbedError {
    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into() }
    }
}

/// The vectors of texts by a model, if they can be believed: one for each text, all of one length, which may be known, and of
/// finite numbers.
pub(crate) fn vectors(model: &dyn Embed, texts: &[&str], length: Option<usize>) -> Result<Vec<Vec<f32>>, EmbedError> {
    let vectors = model.embed(texts)?;
    let length = length.or_else(|| vectors.first().map(Vec::len)).unwrap_or_default();
    if vectors.len() != texts.len() || length == 0 || vectors.iter().any(|vector| vector.len() != length) {
        return Err(EmbedError::failed("its vectors are not one for each text, of one length"));
    }
    if vectors.iter().flatten().any(|number| !number.is_finite()) {
        return Err(EmbedError::failed("its vectors have numbers that are not finite"));
    }
    Ok(vectors)
}

/// A vector of length 1 in the same direction; one without length stays as it is.
pub(crate) fn normalized(mut vector: Vec<f32>) -> Vec<f32> {
    let length = dot(&vector, &vector).sqrt();
    if length > 0.0 && length.is_finite() {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Probabilities from scores, `softmax(score / temperature)`, by position.
pub(crate) fn softmax(scores: &[f32], temperature: f32) -> Vec<f32> {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let raised: Vec<f32> = scores.iter().map(|score| ((score - highest) / temperature).exp()).collect();
    let total: f32 = raised.iter().sum();
    raised.into_iter().map(|share| share / total).collect()
}

/// Probabilities with their positions, highest first.
pub(crate) fn ranked(probabilities: Vec<f32>) -> Vec<(usize, f32)> {
    let mut ranked: Vec<_> = probabilities.into_iter().enumerate().collect();
    // Stable, so that of equals the first of the taxonomy stays in front.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

/// A stand-in for a model in unit tests of logic: a fake, which knows words by their hash and nothing else.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Puts each word of a text on one of 64 axes.
    #[derive(Debug, Default)]
    pub(crate) struct FakeModel;

    impl Embed for FakeModel {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
            Ok(texts.iter().map(|text| vector(text)).collect())
        }
    }

    fn vector(text: &str) -> Vec<f32> {
        let mut vector = vec![0.0; 64];
        for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
            let hash = blake3::hash(word.to_lowercase().as_bytes());
            vector[usize::from(hash.as_bytes()[0] % 64)] += 1.0;
        }
        normalized(vector)
    }

    #[test]
    fn probabilities_are_a_distribution_whatever_the_temperature() {
        for temperature in [0.001, 0.05, 10.0] {
            let shares = softmax(&[0.3, 0.9, -1.0], temperature);
            assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{shares:?}");
            assert_eq!(ranked(shares)[0].0, 1);
        }
        assert_eq!(ranked(softmax(&[0.5, 0.5], 1.0))[0].0, 0, "of equals the first");
    }

    #[test]
    fn a_vector_without_length_does_no_harm() {
        assert_eq!(normalized(vec![0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(normalized(vec![3.0, 4.0]), [0.6, 0.8]);
    }
}
