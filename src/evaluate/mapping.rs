//! A labelled set in one scheme, scored against outcomes in another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::item::{GradedItem, Prediction};
use crate::error::Error;
use crate::taxonomy::{CategoryId, Taxonomy};

/// Which category of one taxonomy stands for which of another, so that a set that is labelled in the second can be scored
/// against outcomes in the first. A category without an entry goes with the nearest one above it that has one.
///
/// In a file:
///
/// ```toml
/// scheme = "ag-news.toml"     # the taxonomy of the labels, beside the mapping
///
/// [to]
/// sport = "sports"            # with all that is below sport
/// economy-business = "business"
/// ```
///
/// ```
/// use slugline::evaluate::Mapping;
/// use slugline::{Category, Taxonomy};
///
/// let from = Taxonomy::new("t", "1", [
///     Category::new("sport", "Sport", "Games."),
///     Category::new("golf", "Golf", "").with_parent("sport"),
///     Category::new("weather", "Weather", "Storms."),
/// ])?;
/// let scheme = Taxonomy::load("categories/ag-news.toml")?;
/// let mapping = Mapping::new(&from, &scheme, [("sport", "Sports")])?;
/// assert_eq!(mapping.get(&"golf".into()).unwrap().as_str(), "sports");
/// assert!(mapping.get(&"weather".into()).is_none());
/// # Ok::<(), slugline::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mapping {
    from: Taxonomy,
    scheme: Taxonomy,
    to: BTreeMap<CategoryId, CategoryId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scheme: PathBuf,
    to: BTreeMap<String, String>,
}

/// What is given to an item whose category stands for none of the scheme.
const NONE: &str = "(unmapped)";

impl Mapping {
    /// Makes a mapping from the categories of one taxonomy to those of another, by their labels.
    ///
    /// # Errors
    /// [`Error::Configuration`] with every label that is of no category.
    pub fn new<'a>(
        from: &Taxonomy,
        scheme: &Taxonomy,
        to: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Error> {
        let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
        let unknown = |label: &str, of: &Taxonomy| format!("no category of {:?} is {label:?}", of.name());
        for (label, target) in to {
            match (from.find(label), scheme.find(target)) {
                (Some(category), Some(target)) => drop(found.insert(category.id.clone(), target.id.clone())),
                (category, target_category) => {
                    problems.extend(category.is_none().then(|| unknown(label, from)));
                    problems.extend(target_category.is_none().then(|| unknown(target, scheme)));
                }
            }
        }
        if !problems.is_empty() {
            return Err(Error::configuration(problems));
        }
        Ok(Self { from: from.clone(), scheme: scheme.clone(), to: found })
    }

    /// Loads a mapping from categories of a taxonomy, and the scheme that it names.
    ///
    /// # Errors
    /// A file cannot be read or understood, or a label is of no category.
    pub fn load(path: impl AsRef<Path>, from: &Taxonomy) -> Result<Self, Error> {
        let path = path.as_ref();
        let about = |reason: String| Error::configuration([format!("mapping {}: {reason}", path.display())]);
        let text = std::fs::read_to_string(path).map_err(|error| about(error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| about(error.message().to_owned()))?;
        let scheme = Taxonomy::load(path.parent().unwrap_or(Path::new("")).join(file.scheme))?;
        Self::new(from, &scheme, file.to.iter().map(|(label, target)| (label.as_str(), target.as_str())))
    }

    /// The taxonomy of the labels.
    pub fn scheme(&self) -> &Taxonomy {
        &self.scheme
    }

    /// The category of the scheme that one stands for.
    pub fn get(&self, category: &CategoryId) -> Option<&CategoryId> {
        self.from.path(category).into_iter().rev().find_map(|category| self.to.get(&category.id))
    }

    /// The same item as if it had been given a category of the scheme. One that stands for none is outside of the scheme,
    /// and wrong. Probabilities of categories that stand for the same one are added up.
    #[must_use]
    pub fn apply(&self, item: &GradedItem) -> GradedItem {
        let of = |category: &CategoryId| self.get(category).cloned().unwrap_or_else(|| NONE.into());
        let mut item = item.clone();
        if let Ok(Prediction { category, confidence, probabilities, .. }) = &mut item.result {
            let target = of(category);
            let is_raw = probabilities.get(category).copied() == *confidence;
            let mut sums: BTreeMap<CategoryId, f32> = BTreeMap::new();
            for (category, share) in std::mem::take(probabilities) {
                *sums.entry(of(&category)).or_default() += share;
            }
            // A confidence that is another figure, such as a corrected one or the mean of a vote, cannot be added to.
            if let Some(sum) = sums.get(&target).filter(|_| is_raw) {
                *confidence = Some(sum.min(1.0));
            }
            (*category, *probabilities) = (target, sums);
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn mapping(to: &[(&'static str, &'static str)]) -> Result<Mapping, Error> {
        let from = ["war", "vote", "golf"].map(|id| Category::new(id, id.to_uppercase(), "Text."));
        let scheme = ["world", "sports"].map(|id| Category::new(id, id.to_uppercase(), "Text."));
        let taxonomy = |categories| Taxonomy::new("t", "1", categories).unwrap();
        Mapping::new(&taxonomy(from.to_vec()), &taxonomy(scheme.to_vec()), to.iter().copied())
    }

    #[test]
    fn probabilities_of_one_target_are_added_up() {
        let mapping = mapping(&[("war", "world"), ("vote", "World")]).unwrap();
        let mut prediction = Prediction::new("war");
        prediction.confidence = Some(0.4);
        prediction.probabilities = [("war", 0.4), ("vote", 0.35), ("golf", 0.25)].map(|(id, p)| (id.into(), p)).into();
        let item = GradedItem { index: 0, id: "a".into(), truth: "world".into(), result: Ok(prediction) };
        let mapped = mapping.apply(&item);
        assert!(mapped.is_correct());
        assert!((mapped.confidence().unwrap() - 0.75).abs() < 1e-6);
        let corrected = mapped_with(&mapping, &item, 0.2);
        let is_kept = corrected.confidence().is_some_and(|confidence| (confidence - 0.2).abs() < 1e-6);
        assert!(is_kept, "the probabilities are those before the correction");
        let other = GradedItem { result: Ok(Prediction::new("golf")), ..item };
        assert_eq!(mapping.apply(&other).result.unwrap().category.as_str(), NONE);
    }

    fn mapped_with(mapping: &Mapping, item: &GradedItem, confidence: f32) -> GradedItem {
        let prediction = Prediction { confidence: Some(confidence), ..item.result.clone().unwrap() };
        mapping.apply(&GradedItem { result: Ok(prediction), ..item.clone() })
    }

    #[test]
    fn every_unknown_label_is_named() {
        let error = mapping(&[("chess", "world"), ("war", "Mars")]).unwrap_err().to_string();
        assert!(error.contains("\"chess\"") && error.contains("\"Mars\""), "{error}");
    }
}
