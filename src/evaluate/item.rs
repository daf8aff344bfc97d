//! An item with its true category and what a setting made of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::calibration::Calibration;
use crate::outcome::{Assignment, Outcome};
use crate::taxonomy::{CategoryId, Taxonomy};

/// One item of a labelled set: its true category, and what a setting made of it. It has none of the item's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
pub struct GradedItem {
    /// The item's number in the set, from 0: the same item has the same number in every setting.
    pub index: u64,
    /// The item's id.
    pub id: String,
    /// The category that is right.
    pub truth: CategoryId,
    /// The category that was given, or the kind of the error (see [`ItemErrorKind::as_str`](crate::ItemErrorKind::as_str))
    /// if none was.
    pub result: Result<Prediction, String>,
}

/// A category that was given to an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The category.
    pub category: CategoryId,
    /// How probable it is said to be, 0 to 1; none where that is unknown.
    pub confidence: Option<f32>,
    /// The probabilities of the categories as the model puts them, before any calibration. Categories that it gave nothing
    /// are left out; empty where all are unknown.
    pub probabilities: BTreeMap<CategoryId, f32>,
    /// The item's place in its request, from 1.
    pub position: Option<usize>,
    /// How many items its request had.
    pub pack_size: Option<usize>,
}

impl Prediction {
    /// A category with nothing else known.
    pub fn new(category: impl Into<CategoryId>) -> Self {
        Self {
            category: category.into(),
            confidence: None,
            probabilities: BTreeMap::new(),
            position: None,
            pack_size: None,
        }
    }
}

impl GradedItem {
    /// Grades an outcome as it is.
    pub fn new(outcome: &Outcome, truth: CategoryId) -> Self {
        Self::of(outcome, truth, |assignment| (assignment.category.clone(), assignment.confidence))
    }

    /// Grades what the model itself had written, before a [calibration](crate::calibration) corrected it.
    pub fn as_written(outcome: &Outcome, truth: CategoryId) -> Self {
        Self::of(outcome, truth, |assignment| {
            let origin = &assignment.origin;
            if origin.calibration.is_none() {
                return (assignment.category.clone(), assignment.confidence);
            }
            let written = origin.written.as_ref().unwrap_or(&assignment.category);
            let confidence = assignment.probabilities.iter().find(|(category, _)| category == written);
            (written.clone(), confidence.map(|(_, share)| *share))
        })
    }

    fn of(outcome: &Outcome, truth: CategoryId, answer: impl Fn(&Assignment) -> (CategoryId, Option<f32>)) -> Self {
        let predict = |assignment: &Assignment| {
            let (category, confidence) = answer(assignment);
            Prediction {
                category,
                confidence,
                probabilities: assignment.probabilities.iter().cloned().collect(),
                position: Some(assignment.origin.position),
                pack_size: Some(assignment.origin.pack_size),
            }
        };
        let result = outcome.result.as_ref().map(predict).map_err(|error| error.kind.as_str().to_owned());
        Self { index: outcome.index, id: outcome.id.clone(), truth, result }
    }

    /// The same item with the category and the confidence to which a calibration corrects the model's probabilities. Without
    /// probabilities nothing changes.
    #[must_use]
    pub fn corrected(&self, calibration: &Calibration, taxonomy: &Taxonomy) -> Self {
        let mut item = self.clone();
        if let Ok(Prediction {
            category,
            confidence,
            probabilities,
            position: Some(position),
            pack_size: Some(pack_size),
        }) = &mut item.result
        {
            let given: Vec<_> = probabilities.iter().map(|(category, share)| (category.clone(), *share)).collect();
            if let Some((best, share)) = calibration.correct(&given, *pack_size, *position, taxonomy).into_iter().next()
            {
                (*category, *confidence) = (best, Some(share));
            }
        }
        item
    }

    /// Whether the right category was given. A failed item is not right.
    pub fn is_correct(&self) -> bool {
        self.result.as_ref().is_ok_and(|prediction| prediction.category == self.truth)
    }

    /// How probable the given category is said to be, where that is known and is a probability.
    pub fn confidence(&self) -> Option<f64> {
        let confidence = self.result.as_ref().ok()?.confidence?;
        (0.0..=1.0).contains(&confidence).then(|| f64::from(confidence))
    }
}

/// The form in files: flat.
#[derive(Serialize, Deserialize)]
struct Record {
    index: u64,
    id: String,
    truth: CategoryId,
    predicted: Option<CategoryId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    confidence: Option<f32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    probabilities: BTreeMap<CategoryId, f32>,
    position: Option<usize>,
    pack_size: Option<usize>,
}

impl From<GradedItem> for Record {
    fn from(GradedItem { index, id, truth, result }: GradedItem) -> Self {
        let blank = Self {
            index,
            id,
            truth,
            predicted: None,
            error: None,
            confidence: None,
            probabilities: BTreeMap::new(),
            position: None,
            pack_size: None,
        };
        match result {
            Ok(Prediction { category, confidence, probabilities, position, pack_size }) => {
                Self { predicted: Some(category), confidence, probabilities, position, pack_size, ..blank }
            }
            Err(error) => Self { error: Some(error), ..blank },
        }
    }
}

impl TryFrom<Record> for GradedItem {
    type Error = String;

    fn try_from(record: Record) -> Result<Self, String> {
        let Record { index, id, truth, predicted, error, confidence, probabilities, position, pack_size } = record;
        let result = match (predicted, error) {
            (Some(category), None) => Ok(Prediction { category, confidence, probabilities, position, pack_size }),
            (None, Some(error)) => Err(error),
            _ => return Err(format!("item {index} must have either `predicted` or `error`")),
        };
        Ok(Self { index, id, truth, result })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;
    use crate::outcome::tests::assignment;

    #[test]
    fn records_are_flat_and_come_back_whole() {
        let known = Prediction {
            confidence: Some(0.7331),
            probabilities: BTreeMap::from([("sport".into(), 0.75), ("a".into(), 0.25)]),
            position: Some(2),
            pack_size: Some(3),
            ..Prediction::new("sport")
        };
        let right = GradedItem { index: 4, id: "a".into(), truth: "sport".into(), result: Ok(known) };
        let failed = GradedItem { result: Err("cut".into()), ..right.clone() };
        let json = serde_json::to_string(&right).unwrap();
        assert_eq!(
            json,
            r#"{"index":4,"id":"a","truth":"sport","predicted":"sport","confidence":0.7331,"probabilities":{"a":0.25,"sport":0.75},"position":2,"pack_size":3}"#
        );
        for item in [&right, &failed] {
            let json = serde_json::to_string(item).unwrap();
            assert_eq!(*item, serde_json::from_str::<GradedItem>(&json).unwrap());
        }
        assert!(right.is_correct() && !failed.is_correct());
        let error = serde_json::from_str::<GradedItem>(r#"{"index":1,"id":"a","truth":"b"}"#).unwrap_err();
        assert!(error.to_string().starts_with("item 1 must have either"), "{error}");
    }

    #[test]
    fn what_was_written_and_what_a_calibration_makes_of_it() {
        let taxonomy = Taxonomy::new("t", "1", ["a", "b"].map(|id| Category::new(id, id, "Text."))).unwrap();
        let mut assignment = assignment(&[("a".into(), 0.6), ("b".into(), 0.4)], 3, 2);
        assignment.category = "b".into();
        assignment.confidence = Some(0.7);
        assignment.origin.written = Some("a".into());
        assignment.origin.calibration = Some("stream".into());
        let outcome = Outcome { id: "x".into(), index: 0, result: Ok(assignment), path: None };
        let said = |item: &GradedItem| {
            let prediction = item.result.clone().unwrap();
            (prediction.category.to_string(), prediction.confidence.unwrap())
        };
        assert_eq!(said(&GradedItem::new(&outcome, "b".into())), ("b".to_owned(), 0.7));
        let written = GradedItem::as_written(&outcome, "b".into());
        assert_eq!(said(&written), ("a".to_owned(), 0.6));

        let toml = format!(
            "format = 1\nmodel = \"m\"\ntaxonomy = {:?}\nprompt_version = \"p\"\ntemperature = 1.0\nlabel_strength = 1.0\n\
             position_strength = 1.0\n[[prior]]\npack_size = 3\nposition = 2\nitems = 9\nshares = {{ a = 0.8, b = 0.2 }}\n",
            taxonomy.hash()
        );
        let calibration = Calibration::from_toml(&toml).unwrap();
        // .6/.8 : .4/.2 = .75 : 2
        let (category, confidence) = said(&written.corrected(&calibration, &taxonomy));
        assert_eq!(category, "b");
        assert!((confidence - 2.0 / 2.75).abs() < 1e-3, "{confidence}");

        let unknown = GradedItem { result: Ok(Prediction::new("a")), ..written };
        assert_eq!(unknown.corrected(&calibration, &taxonomy), unknown);
    }

    #[test]
    fn a_confidence_that_is_no_probability_is_none() {
        for (confidence, known) in [(f32::NAN, false), (1.5, false), (-0.1, false), (1.0, true), (0.0, true)] {
            let prediction = Prediction { confidence: Some(confidence), ..Prediction::new("a") };
            let item = GradedItem { index: 0, id: String::new(), truth: "a".into(), result: Ok(prediction) };
            assert_eq!(item.confidence().is_some(), known, "{confidence}");
        }
    }
}
