//! From runs to the rows of an evaluation: a run may be read in two ways, without and with a correction, and on a part of
//! its items.

use std::collections::{BTreeMap, BTreeSet};

use slugline::calibration::{Calibration, CalibrationError, Sample};
use slugline::evaluate::{
    Evaluation, GradedItem, GradedSet, Mapping, Setting, Throughput, UnknownTruth, halves, skewed,
};
use slugline::{CategoryId, Outcome, Stats, Taxonomy};

/// The split and the skewed part are the same in every evaluation of the same items.
const SEED: u64 = 0;

/// A setting that was run.
pub(crate) struct Run {
    pub(crate) setting: Setting,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) stats: Stats,
    pub(crate) correction: Correction,
}

impl Run {
    /// The model that answered an item; none for one without a category.
    fn model_of(&self, item: &GradedItem) -> Option<&str> {
        let assignment = self.outcomes.get(item.index as usize)?.result.as_ref().ok()?;
        Some(&assignment.origin.model)
    }
}

/// What is done to the model's probabilities.
pub(crate) enum Correction {
    None,
    /// In the run itself; the word is for the name of the setting.
    Within(&'static str),
    /// Afterwards.
    By(Box<Calibration>, &'static str),
}

/// A part of the items.
pub(crate) struct Part {
    /// In words; none for all.
    words: Option<String>,
    /// Added to the names of settings.
    suffix: String,
    /// The language of its items, where it is one of each.
    language: Option<String>,
    /// The numbers of its items, in order.
    items: Vec<usize>,
}

/// A calibration fitted on one half of the items, and the other half.
pub(crate) struct Fitted {
    pub(crate) calibration: Calibration,
    pub(crate) samples: usize,
    pub(crate) held_out: Vec<usize>,
}

/// Fits on one half of the items, with all runs together.
pub(crate) fn fit(runs: &[Run], truths: &[CategoryId], taxonomy: &Taxonomy) -> Result<Fitted, CalibrationError> {
    let [fitted_on, held_out] = halves(truths, SEED);
    let outcomes = || runs.iter().flat_map(|run| fitted_on.iter().filter_map(|item| run.outcomes.get(*item)));
    let answered = || outcomes().filter_map(|outcome| Some((outcome, outcome.result.as_ref().ok()?)));
    let samples: Vec<Sample<'_>> = answered()
        .filter_map(|(outcome, assignment)| Some(Sample { assignment, truth: truths.get(outcome.index as usize)? }))
        .collect();
    let measured = Calibration::of_stream(taxonomy, answered().map(|(_, assignment)| assignment))?;
    Ok(Fitted { calibration: measured.fit(&samples, taxonomy), samples: fitted_on.len(), held_out })
}

/// The parts that figures are wanted of.
pub(crate) fn parts(
    truths: &[CategoryId],
    taxonomy: &Taxonomy,
    held_out: Option<&[usize]>,
    skew: bool,
    languages: &[String],
) -> Vec<Part> {
    let whole = Part {
        words: held_out.map(|_| "of the half that was not fitted on".to_owned()),
        suffix: String::new(),
        language: None,
        items: held_out.map_or_else(|| (0..truths.len()).collect(), <[usize]>::to_vec),
    };
    let mut parts = by_language(&whole, languages);
    if !skew {
        parts.insert(0, whole);
        return parts;
    }
    let of_part: Vec<CategoryId> = whole.items.iter().filter_map(|item| truths.get(*item).cloned()).collect();
    let items = skewed(&of_part, taxonomy, SEED).into_iter().map(|place| whole.items[place]).collect();
    let words = match &whole.words {
        Some(words) => format!("of a skewed part {words}"),
        None => "of a skewed part".to_owned(),
    };
    let skewed = Part { words: Some(words), suffix: ", skewed".to_owned(), language: None, items };
    [whole, skewed].into_iter().chain(parts).collect()
}

/// The items of a part by their language, one for each item of the set; those without one are no part.
fn by_language(whole: &Part, languages: &[String]) -> Vec<Part> {
    let mut parts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &item in &whole.items {
        if let Some(language) = languages.get(item).filter(|language| !language.is_empty()) {
            parts.entry(language).or_default().push(item);
        }
    }
    let part = |(language, items): (&str, Vec<usize>)| {
        let words = whole.words.as_deref().map(|words| format!(" {words}")).unwrap_or_default();
        Part {
            words: Some(format!("in {language}{words}")),
            suffix: format!(", {language}"),
            language: Some(language.to_owned()),
            items,
        }
    };
    parts.into_iter().map(part).collect()
}

/// Adds a run, once for each part and way of reading it. The sets are all labels of each item, where several are wanted, else
/// empty.
pub(crate) fn add(
    evaluation: &mut Evaluation,
    run: &Run,
    (truths, sets): (&[CategoryId], &[BTreeSet<CategoryId>]),
    part: &Part,
    taxonomy: &Taxonomy,
    mapping: Option<&Mapping>,
) -> Result<(), UnknownTruth> {
    let mapped = |item: GradedItem| mapping.map_or_else(|| item.clone(), |mapping| mapping.apply(&item));
    let grade = |how: fn(&Outcome, CategoryId) -> GradedItem| -> Vec<GradedItem> {
        let graded = |item: &usize| Some(mapped(how(run.outcomes.get(*item)?, truths.get(*item)?.clone())));
        part.items.iter().filter_map(graded).collect()
    };
    let written = grade(GradedItem::as_written);
    let corrected = match &run.correction {
        Correction::None => None,
        Correction::Within(word) => Some((*word, grade(GradedItem::new))),
        Correction::By(calibration, word) => {
            let correct = |item: &GradedItem| {
                let is_of_model = run.model_of(item).is_some_and(|model| model == calibration.model());
                if is_of_model { item.corrected(calibration, taxonomy) } else { item.clone() }
            };
            Some((*word, written.iter().map(correct).collect()))
        }
    };
    let all: Vec<GradedItem> = run
        .outcomes
        .iter()
        .zip(truths)
        .map(|(outcome, truth)| mapped(GradedItem::new(outcome, truth.clone())))
        .collect();
    let throughput = Throughput::from_stats(&run.stats, &all);
    for (word, items) in [("", written)].into_iter().chain(corrected) {
        let mut setting = run.setting.clone();
        let calibration = Some(word.trim_start_matches(", ")).filter(|word| !word.is_empty());
        setting.name = format!("{}{word}{}", setting.name, part.suffix);
        setting.calibration = calibration.map(str::to_owned);
        setting.sample.clone_from(&part.words);
        setting.language.clone_from(&part.language);
        let throughput = throughput.on_sample(&items);
        evaluation.add(setting, items, throughput)?;
        if !sets.is_empty() {
            let graded = |item: &usize| Some(GradedSet::new(run.outcomes.get(*item)?, sets.get(*item)?.clone()));
            evaluation.add_sets(&part.items.iter().filter_map(graded).collect::<Vec<_>>());
        }
    }
    Ok(())
}
