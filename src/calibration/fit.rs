//! Fits what a labelled sample can tell: how far to divide the priors out, and the temperature.

use super::{Calibration, Ready};
use crate::outcome::Assignment;
use crate::taxonomy::{CategoryId, Taxonomy};

/// An answered item whose true category is known.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What the model answered, with its probabilities.
    pub assignment: &'a Assignment,
    /// The true category.
    pub truth: &'a CategoryId,
}

/// The strengths that are tried.
const STRENGTHS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
const LEAST_TEMPERATURE: f64 = 0.2;
const GREATEST_TEMPERATURE: f64 = 10.0;
/// The probability that a true label is counted with when the model gave it none.
const LEAST_PROBABILITY: f64 = 1e-4;
/// Fewer items than this say too little.
const LEAST_SAMPLES: usize = 20;

impl Calibration {
    /// The same priors with the strengths and the temperature that make the true labels of a sample most likely: the least
    /// mean of `-ln p'(truth)`, over a grid of strengths and a search over temperatures. With fewer than 20 samples that
    /// have probabilities nothing changes.
    ///
    /// Judge the result on other items than those of the fit.
    #[must_use]
    pub fn fit(&self, samples: &[Sample<'_>], taxonomy: &Taxonomy) -> Self {
        let cases: Vec<Case> = samples.iter().filter_map(|sample| Case::new(sample, taxonomy)).collect();
        if cases.len() < LEAST_SAMPLES {
            return self.clone();
        }
        let mut best = (f64::INFINITY, self.clone());
        for label_strength in STRENGTHS {
            for position_strength in STRENGTHS {
                let candidate = Self { label_strength, position_strength, temperature: 1.0, ..self.clone() };
                let ready = Ready::new(&candidate, taxonomy);
                let (temperature, loss) = best_temperature(|temperature| mean_loss(&cases, &ready, temperature));
                if loss < best.0 {
                    best = (loss, Self { temperature, ..candidate });
                }
            }
        }
        best.1
    }
}

struct Case {
    probabilities: Vec<(usize, f32)>,
    pack_size: usize,
    position: usize,
    truth: usize,
}

impl Case {
    fn new(sample: &Sample<'_>, taxonomy: &Taxonomy) -> Option<Self> {
        let assignment = sample.assignment;
        (!assignment.probabilities.is_empty()).then_some(())?;
        Some(Self {
            probabilities: super::positions(&assignment.probabilities, taxonomy),
            pack_size: assignment.origin.pack_size,
            position: assignment.origin.position,
            truth: taxonomy.position(sample.truth.as_str())?,
        })
    }
}

fn mean_loss(cases: &[Case], ready: &Ready, temperature: f64) -> f64 {
    let loss = |case: &Case| {
        let offsets = ready.offsets_of(case.pack_size, case.position);
        let corrected = super::correct(&case.probabilities, offsets, temperature);
        let of_truth =
            corrected.iter().find(|(label, _)| *label == case.truth).map_or(0.0, |(_, share)| f64::from(*share));
        -of_truth.max(LEAST_PROBABILITY).ln()
    };
    cases.iter().map(loss).sum::<f64>() / cases.len() as f64
}

/// The temperature with the least loss, and the loss, by golden-section search over its logarithm: the loss has one valley.
fn best_temperature(loss: impl Fn(f64) -> f64) -> (f64, f64) {
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (LEAST_TEMPERATURE.ln(), GREATEST_TEMPERATURE.ln());
    for _ in 0..24 {
        let (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
        if loss(left.exp()) < loss(right.exp()) { high = right } else { low = left }
    }
    let temperature = f64::midpoint(low, high).exp();
    (temperature, loss(temperature))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{calibration, taxonomy};
    use super::*;
    use crate::outcome::tests::assignment;

    #[test]
    fn a_search_finds_the_valley() {
        let (temperature, _) = best_temperature(|t| (t.ln() - 3.0_f64.ln()).powi(2));
        assert!((temperature - 3.0).abs() < 1e-3, "{temperature}");
    }

    #[test]
    fn a_model_that_is_too_sure_gets_a_high_temperature_and_its_habit_is_divided_out() {
        // True labels even; the model gives "world" a factor of 6 too much, and is right three times in four otherwise.
        let taxonomy = taxonomy();
        let ids: Vec<_> = taxonomy.categories().map(|category| category.id.clone()).collect();
        let mut answers = Vec::new();
        for item in 0..240 {
            let truth = item % 3;
            let seen = if item % 4 == 0 { (truth + 1) % 3 } else { truth };
            let weights: Vec<f32> = (0..3)
                .map(|label| if label == seen { 20.0 } else { 1.0 } * if label == 0 { 6.0 } else { 1.0 })
                .collect();
            let total: f32 = weights.iter().sum();
            let shares: Vec<_> = ids.iter().cloned().zip(weights.iter().map(|weight| weight / total)).collect();
            answers.push((assignment(&shares, 1, 1), ids[truth].clone()));
        }
        let samples: Vec<_> = answers.iter().map(|(assignment, truth)| Sample { assignment, truth }).collect();
        let measured = Calibration::of_stream(&taxonomy, answers.iter().map(|(assignment, _)| assignment)).unwrap();
        assert!((measured.label_strength() - 0.5).abs() < 1e-9);
        let fitted = measured.fit(&samples, &taxonomy);
        assert!(fitted.temperature() > 1.5, "{}", fitted.temperature());
        assert!(fitted.label_strength() >= 0.75, "{}", fitted.label_strength());
        let right = |calibration: &Calibration| {
            let is_right = |sample: &&Sample<'_>| {
                let found = calibration.correct(&sample.assignment.probabilities, 1, 1, &taxonomy);
                found[0].0 == *sample.truth
            };
            samples.iter().filter(is_right).count()
        };
        assert!(right(&fitted) >= 180, "{}", right(&fitted));
    }

    #[test]
    fn a_handful_of_labels_changes_nothing() {
        let calibration = calibration(&[(1, 1, [0.6, 0.2, 0.2])]);
        assert_eq!(calibration.fit(&[], &taxonomy()), calibration);
    }
}
