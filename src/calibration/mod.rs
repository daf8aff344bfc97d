//! Corrections of the probabilities that a model gives to labels, from what the same model does with other items.
//!
//! A model favours some labels whatever the item says, and in a pack it favours them differently at each position: on a
//! 1.5B model the third position of packs of three gave one label four fifths of the probability of an item without
//! content. Dividing by such a **prior** takes the habit out and leaves what the item says ("contextual calibration",
//! Zhao et al., *Calibrate Before Use*, 2021; batch calibration, Zhou et al., 2023). A **temperature** then makes the
//! probabilities as sure as they are right (Guo et al., *On Calibration of Modern Neural Networks*, 2017).
//!
//! With the model's probability `p` of a label, its prior `r` at single items (or over all positions, where fewer single items
//! were seen than at each of them) and its prior `q` at the item's position in packs of this size, the corrected probability is
//!
//! ```text
//! p' ∝ (p / (r^a · (q/r)^b))^(1/T)        a: label strength   b: position strength   T: temperature
//! ```
//!
//! `q/r` compares positions that saw the same stream, so it says nothing of the stream itself and can be divided out whole.
//! `r` holds the habit of the model *and* the mix of the stream it was measured on; where that was the run's own stream and
//! not items without content, dividing it out whole would flatten a feed that really is mostly about one thing, so it is
//! done by half unless a labelled sample says how far to go.

mod file;
mod fit;
mod measure;
mod prior;

use std::sync::Arc;

pub use self::file::CalibrationError;
pub use self::fit::Sample;
pub(crate) use self::measure::content_free_items;
pub(crate) use self::prior::PriorCounts;
use self::prior::{Prior, reference};
use crate::outcome::Assignment;
use crate::taxonomy::{CategoryId, Taxonomy};

/// A correction for one model, taxonomy and prompt.
///
/// It may change labels: an assignment then says what the model had written
/// ([`Origin::written`](crate::Origin::written)).
///
/// ```
/// use slugline::calibration::Calibration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join("slugline-doc-calibration.toml");
/// # std::fs::write(&path, "format = 1\nmodel = \"m\"\ntaxonomy = \"t\"\nprompt_version = \"p\"\ntemperature = 1.7\nlabel_strength = 0.5\nposition_strength = 1.0\n")?;
/// let calibration = Calibration::load(&path)?;
/// assert_eq!(calibration.temperature(), 1.7);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    model: String,
    taxonomy: String,
    prompt_version: String,
    temperature: f64,
    label_strength: f64,
    position_strength: f64,
    priors: Vec<Prior>,
}

/// How far the labels' own prior is divided out when it comes from a stream whose mix is not known.
const STREAM_LABEL_STRENGTH: f64 = 0.5;
/// Items that a prior from a stream is worth before it has seen any, at the reference: keeps a few items from deciding.
const STREAM_PSEUDO_ITEMS: f64 = 20.0;
/// The same for items without content, which hardly differ among each other.
const CONTENT_FREE_PSEUDO_ITEMS: f64 = 1.0;

impl Calibration {
    /// Measures the priors on a run's own outcomes, no labels needed: the label's prior is divided out by half, the
    /// position's whole. Assignments without probabilities are passed over, and so are copies.
    ///
    /// Chance must have brought the items to their positions in the packs: shuffle them, or let the run have
    /// [`even_positions`](crate::CategorizerBuilder::even_positions). Of three feeds taken by turns, each would have a position
    /// of its own, and what they are about would pass for a habit of the model.
    ///
    /// # Errors
    /// [`CalibrationError::NothingToMeasure`] without any probabilities, [`CalibrationError::Mixed`] when the assignments come
    /// from more than one model or prompt.
    pub fn of_stream<'a>(
        taxonomy: &Taxonomy,
        assignments: impl IntoIterator<Item = &'a Assignment>,
    ) -> Result<Self, CalibrationError> {
        Self::measured(taxonomy, assignments, STREAM_PSEUDO_ITEMS, STREAM_LABEL_STRENGTH)
    }

    /// The same on items without content, whose prior is the model's habit alone and is divided out whole.
    pub(crate) fn of_content_free<'a>(
        taxonomy: &Taxonomy,
        assignments: impl IntoIterator<Item = &'a Assignment>,
    ) -> Result<Self, CalibrationError> {
        Self::measured(taxonomy, assignments, CONTENT_FREE_PSEUDO_ITEMS, 1.0)
    }

    fn measured<'a>(
        taxonomy: &Taxonomy,
        assignments: impl IntoIterator<Item = &'a Assignment>,
        pseudo_items: f64,
        label_strength: f64,
    ) -> Result<Self, CalibrationError> {
        let mut counts = PriorCounts::new(taxonomy.len());
        let mut source = None;
        for assignment in assignments {
            let origin = &assignment.origin;
            if assignment.probabilities.is_empty() || origin.duplicate_of.is_some() {
                continue;
            }
            let this = (&origin.model, &origin.prompt_version);
            if *source.get_or_insert(this) != this {
                return Err(CalibrationError::Mixed);
            }
            counts.add(origin.pack_size, origin.position, &positions(&assignment.probabilities, taxonomy));
        }
        let (model, prompt_version) = source.ok_or(CalibrationError::NothingToMeasure)?;
        Ok(Self {
            model: model.to_string(),
            taxonomy: taxonomy.hash().to_owned(),
            prompt_version: prompt_version.to_string(),
            temperature: 1.0,
            label_strength,
            position_strength: 1.0,
            priors: counts.priors(pseudo_items, taxonomy),
        })
    }

    /// The model that it was measured on.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What the probabilities are flattened by; above 1 the model was surer than right.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// How far the labels' own prior is divided out, 0 to 1.
    pub fn label_strength(&self) -> f64 {
        self.label_strength
    }

    /// How far the difference of a position from single items is divided out, 0 to 1.
    pub fn position_strength(&self) -> f64 {
        self.position_strength
    }

    /// The pack sizes that priors were measured for, in order.
    pub fn pack_sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<_> = self.priors.iter().map(|prior| prior.pack_size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// What is recorded in the assignments that it corrected: a hash of its content, 8 hexadecimal digits.
    pub fn version(&self) -> String {
        blake3::hash(self.to_toml().as_bytes()).to_hex()[..8].to_owned()
    }

    /// The corrected probabilities of an item, highest first, from those that the model gave at a position, counted from 1,
    /// of a pack. Labels that the model gives nothing stay at nothing.
    pub fn correct(
        &self,
        probabilities: &[(CategoryId, f32)],
        pack_size: usize,
        position: usize,
        taxonomy: &Taxonomy,
    ) -> Vec<(CategoryId, f32)> {
        let ready = Ready::new(self, taxonomy);
        let corrected = ready.correct(&positions(probabilities, taxonomy), pack_size, position);
        corrected.into_iter().filter_map(|(at, share)| Some((taxonomy.at(at)?.id.clone(), share))).collect()
    }

    /// What does not fit a categorizer of this taxonomy and prompt, in words.
    pub(crate) fn misfit(&self, taxonomy: &Taxonomy, prompt_version: &str) -> Option<String> {
        let model = &self.model;
        if self.taxonomy != taxonomy.hash() {
            return Some(format!("the calibration for {model} was measured with another taxonomy: measure it anew"));
        }
        (self.prompt_version != prompt_version)
            .then(|| format!("the calibration for {model} was measured with another prompt: measure it anew"))
    }
}

fn positions(probabilities: &[(CategoryId, f32)], taxonomy: &Taxonomy) -> Vec<(usize, f32)> {
    probabilities.iter().filter_map(|(id, share)| Some((taxonomy.position(id.as_str())?, *share))).collect()
}

/// A calibration prepared for the labels of a taxonomy.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) model: String,
    pub(crate) version: Arc<str>,
    temperature: f64,
    /// By pack size and position: what is taken from the logarithm of each label's probability.
    offsets: Vec<((usize, usize), Vec<f64>)>,
}

impl Ready {
    pub(crate) fn new(calibration: &Calibration, taxonomy: &Taxonomy) -> Self {
        let reference = reference(&calibration.priors, taxonomy);
        let offset = |prior: &Prior| {
            let at = |(position, category): (usize, &Arc<crate::Category>)| {
                let (r, q) = (reference[position].ln(), prior.share(&category.id, taxonomy.len()).ln());
                calibration.label_strength * r + calibration.position_strength * (q - r)
            };
            (0..taxonomy.len()).filter_map(|position| Some(at((position, taxonomy.at(position)?)))).collect()
        };
        Self {
            model: calibration.model.clone(),
            version: calibration.version().into(),
            temperature: calibration.temperature,
            offsets: calibration
                .priors
                .iter()
                .map(|prior| ((prior.pack_size, prior.position), offset(prior)))
                .collect(),
        }
    }

    /// Corrects probabilities by position in the taxonomy; highest first.
    pub(crate) fn correct(
        &self,
        probabilities: &[(usize, f32)],
        pack_size: usize,
        position: usize,
    ) -> Vec<(usize, f32)> {
        correct(probabilities, self.offsets_of(pack_size, position), self.temperature)
    }

    /// The offsets of the nearest pack size and position that were measured: packs are sometimes part-filled.
    fn offsets_of(&self, pack_size: usize, position: usize) -> Option<&[f64]> {
        let distance = |of: &(usize, usize)| (of.0.abs_diff(pack_size), of.1.abs_diff(position));
        self.offsets.iter().min_by_key(|(of, _)| distance(of)).map(|(_, offsets)| offsets.as_slice())
    }
}

/// `softmax((ln p - offset) / T)`, highest first; what has no probability is left out.
pub(crate) fn correct(probabilities: &[(usize, f32)], offsets: Option<&[f64]>, temperature: f64) -> Vec<(usize, f32)> {
    let offset = |label: usize| offsets.and_then(|offsets| offsets.get(label)).copied().unwrap_or(0.0);
    let given = probabilities.iter().filter(|(_, share)| *share > 0.0);
    let mut scores: Vec<(usize, f64)> =
        given.map(|&(label, share)| (label, (f64::from(share).ln() - offset(label)) / temperature)).collect();
    let highest = scores.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|(_, score)| *score = (*score - highest).exp());
    let total: f64 = scores.iter().map(|(_, score)| score).sum();
    scores.sort_by(|a, b| b.1.total_cmp(&a.1));
    scores.into_iter().map(|(label, score)| (label, (score / total) as f32)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Category;

    pub(super) fn taxonomy() -> Taxonomy {
        let ids = ["world", "sport", "business"];
        Taxonomy::new("t", "1", ids.map(|id| Category::new(id, id, format!("About {id}.")))).unwrap()
    }

    pub(super) fn calibration(priors: &[(usize, usize, [f64; 3])]) -> Calibration {
        let taxonomy = taxonomy();
        let shares = |shares: &[f64; 3]| {
            let ids = taxonomy.categories().map(|category| category.id.clone());
            ids.zip(*shares).collect()
        };
        Calibration {
            model: "m".into(),
            taxonomy: taxonomy.hash().into(),
            prompt_version: "p".into(),
            temperature: 1.0,
            label_strength: 1.0,
            position_strength: 1.0,
            priors: priors
                .iter()
                .map(|(pack_size, position, of)| Prior {
                    pack_size: *pack_size,
                    position: *position,
                    items: 100,
                    shares: shares(of),
                })
                .collect(),
        }
    }

    fn corrected(calibration: &Calibration, shares: [f32; 3], pack_size: usize, position: usize) -> Vec<(usize, f32)> {
        Ready::new(calibration, &taxonomy()).correct(
            &[(0, shares[0]), (1, shares[1]), (2, shares[2])],
            pack_size,
            position,
        )
    }

    #[test]
    fn a_prior_is_divided_out() {
        let calibration = calibration(&[(1, 1, [0.6, 0.2, 0.2])]);
        let found = corrected(&calibration, [0.6, 0.3, 0.1], 1, 1);
        // .6/.6 : .3/.2 : .1/.2 = 1 : 1.5 : 0.5
        assert_eq!(found[0].0, 1);
        for (label, share) in [(1, 0.5), (0, 1.0 / 3.0), (2, 1.0 / 6.0)] {
            let of = found.iter().find(|found| found.0 == label).unwrap().1;
            assert!((of - share).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn a_position_is_compared_with_single_items_so_the_mix_of_the_feed_stays() {
        let mut calibration = calibration(&[(1, 1, [0.8, 0.1, 0.1]), (3, 3, [0.9, 0.05, 0.05])]);
        calibration.label_strength = 0.0;
        assert_eq!(corrected(&calibration, [0.5, 0.3, 0.2], 1, 1)[0], (0, 0.5));
        let third = corrected(&calibration, [0.5, 0.3, 0.2], 3, 3);
        // .5·(.8/.9) : .3·2 : .2·2
        assert_eq!(third[0].0, 1);
        assert!((third[0].1 - 0.6 / (0.5 * 0.8 / 0.9 + 0.6 + 0.4)).abs() < 1e-3, "{third:?}");
    }

    #[test]
    fn a_temperature_changes_no_label() {
        let mut calibration = calibration(&[]);
        calibration.temperature = 2.0;
        let found = corrected(&calibration, [0.9, 0.1, 0.0], 3, 1);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].0, 0);
        assert!((found[0].1 - 0.75).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn an_unmeasured_pack_size_takes_the_nearest() {
        let calibration = calibration(&[(1, 1, [1.0, 0.0, 0.0]), (3, 1, [0.0, 1.0, 0.0]), (3, 2, [0.0, 0.0, 1.0])]);
        let ready = Ready::new(&calibration, &taxonomy());
        assert_eq!(ready.offsets_of(5, 4), ready.offsets_of(3, 2));
        assert_eq!(ready.offsets_of(1, 1), Some(ready.offsets[0].1.as_slice()));
    }

    #[test]
    fn it_belongs_to_its_taxonomy_and_prompt() {
        let calibration = calibration(&[]);
        assert_eq!(calibration.misfit(&taxonomy(), "p"), None);
        assert!(calibration.misfit(&taxonomy(), "q").unwrap().contains("another prompt"));
        let other =
            Taxonomy::new("t", "1", [Category::new("a", "A", "Text."), Category::new("b", "B", "Text.")]).unwrap();
        assert!(calibration.misfit(&other, "p").unwrap().contains("another taxonomy"));
    }
}
