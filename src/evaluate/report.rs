//! A whole evaluation, as it is written to a file.

use serde::{Deserialize, Serialize};

use super::compare::Paired;
use super::interval::Interval;
use super::item::GradedItem;
use super::metrics::{Metrics, UnknownTruth};
use super::several::{GradedSet, SeveralMetrics};
use crate::error::ItemErrorKind;
use crate::stats::Stats;
use crate::taxonomy::{CategoryId, Taxonomy};

/// The version of the form in which evaluations are written. It changes with the meaning of a field, not with a new one.
pub const FORMAT: u32 = 1;

/// An evaluation: several settings on the same labelled items. Serialized it has no text of the items.
///
/// ```
/// use std::time::Duration;
/// use slugline::evaluate::{About, Evaluation, GradedItem, Prediction, Setting, Throughput};
/// use slugline::Taxonomy;
///
/// let taxonomy = Taxonomy::load("categories/ag-news.toml")?;
/// let mut evaluation = Evaluation::new(About::new("my-model", &taxonomy), &taxonomy);
/// let right = GradedItem { index: 0, id: "a1".into(), truth: "sports".into(), result: Ok(Prediction::new("sports")) };
/// let speed = Throughput::new(Duration::from_secs(2), 1, &[right.clone()]);
/// evaluation.add(Setting::new("one item a request", 1, "objects"), vec![right], speed)?;
///
/// let json = serde_json::to_string(&evaluation)?;
/// let again = Evaluation::from_json(&json)?;
/// assert_eq!(again.settings[0].metrics.accuracy, 1.0);
/// assert!(again.to_html().starts_with("<!doctype html>"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// The version of this form, [`FORMAT`].
    pub format: u32,
    /// What was evaluated.
    pub about: About,
    /// The categories, in the order of the taxonomy.
    pub categories: Vec<ListedCategory>,
    /// The settings, in the order in which they were added.
    pub settings: Vec<SettingReport>,
    /// Each setting with each earlier one of the same sample.
    pub comparisons: Vec<Comparison>,
    /// Other ways to do the same, to be shown beside the settings.
    #[serde(default)]
    pub points: Vec<Point>,
    /// What a reader should know, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What was evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct About {
    /// The model, by the name that the server has for it.
    pub model: String,
    /// The taxonomy's name and version.
    pub taxonomy: String,
    /// The [hash](Taxonomy::hash) of what the taxonomy says.
    pub taxonomy_hash: String,
    /// The labelled items, for example by the name of their file.
    #[serde(default)]
    pub data: Option<String>,
    /// When it was run.
    #[serde(default)]
    pub date: Option<String>,
    /// The server and the machine, in words.
    #[serde(default)]
    pub server: Option<String>,
    /// The version of slugline.
    pub slugline: String,
}

impl About {
    /// What is known of itself; the rest can be set.
    pub fn new(model: impl Into<String>, taxonomy: &Taxonomy) -> Self {
        Self {
            model: model.into(),
            taxonomy: format!("{} {}", taxonomy.name(), taxonomy.version()),
            taxonomy_hash: taxonomy.hash().to_owned(),
            data: None,
            date: None,
            server: None,
            slugline: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A category by id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListedCategory {
    /// The id.
    pub id: CategoryId,
    /// The name for people.
    pub name: String,
}

/// How items are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Setting {
    /// A short name, different from those of the other settings.
    pub name: String,
    /// The most items of a request.
    pub pack_size: usize,
    /// The form of the answer.
    pub answer_form: String,
    /// The version of the prompt.
    #[serde(default)]
    pub prompt_version: Option<String>,
    /// The calibration that was applied, in words.
    #[serde(default)]
    pub calibration: Option<String>,
    /// Which items were asked again since their first answer was not sure enough, in words.
    #[serde(default)]
    pub escalation: Option<String>,
    /// The part of the items that it is measured on, in words; none for all of them. Settings of different samples are not
    /// compared with each other.
    #[serde(default)]
    pub sample: Option<String>,
    /// The language of the items that it is measured on, where figures are by language.
    #[serde(default)]
    pub language: Option<String>,
}

impl Setting {
    /// A setting without calibration, on all items.
    pub fn new(name: impl Into<String>, pack_size: usize, answer_form: impl Into<String>) -> Self {
        let (name, answer_form) = (name.into(), answer_form.into());
        Self {
            name,
            pack_size,
            answer_form,
            prompt_version: None,
            calibration: None,
            escalation: None,
            sample: None,
            language: None,
        }
    }
}

/// What a setting brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SettingReport {
    /// The setting.
    pub setting: Setting,
    /// Its quality; of several categories, that of the first.
    pub metrics: Metrics,
    /// The quality of all categories of the items, where they may have several.
    #[serde(default)]
    pub several: Option<SeveralMetrics>,
    /// Its speed and what it costs.
    pub throughput: Throughput,
    /// Items that were not asked, since the run was stopped before. They are not part of any figure.
    pub not_attempted: u64,
    /// Every item that was asked, in the order of the set.
    pub items: Vec<GradedItem>,
}

/// How fast a setting is, and what it costs. Tokens are as the server counts them; none is unknown, not zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Throughput {
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// Requests that were sent, those that failed included.
    pub requests: u64,
    /// Items settled per second, failed ones included.
    pub items_per_second: f64,
    /// Items with a category per second.
    pub valid_items_per_second: f64,
    /// Items with the right category per second.
    pub correct_items_per_second: f64,
    /// Prompt tokens for each item, cached ones included.
    pub prompt_tokens_per_item: Option<f64>,
    /// Those of them that came from the server's prefix cache.
    pub cached_tokens_per_item: Option<f64>,
    /// Generated tokens for each item.
    pub output_tokens_per_item: Option<f64>,
}

impl Throughput {
    /// The speed over graded items, with unknown tokens. Items that were not attempted do not count.
    pub fn new(elapsed: std::time::Duration, requests: u64, items: &[GradedItem]) -> Self {
        Self::of_seconds(elapsed.as_secs_f64(), requests, items)
    }

    /// What a run measured over these items. Tokens are the mean of the answers whose server counts them, times the answers
    /// for each item.
    pub fn from_stats(stats: &Stats, items: &[GradedItem]) -> Self {
        let asked = items.iter().filter(|item| is_attempted(item)).count() as f64;
        let known = stats.answers_with_usage as f64;
        let per_item =
            |tokens: u64| (known > 0.0 && asked > 0.0).then(|| tokens as f64 / known * stats.answered as f64 / asked);
        let prompt_tokens_per_item = per_item(stats.prompt_tokens);
        Self {
            prompt_tokens_per_item,
            cached_tokens_per_item: prompt_tokens_per_item
                .zip(stats.cached_share())
                .map(|(tokens, share)| tokens * share),
            output_tokens_per_item: per_item(stats.output_tokens),
            ..Self::of_seconds(stats.elapsed_s, stats.requests, items)
        }
    }

    /// The same run seen on a part of its items, or with other categories for them: the speed is the run's, and of it the
    /// rates with a category and with the right one are these items' shares.
    #[must_use]
    pub fn on_sample(&self, items: &[GradedItem]) -> Self {
        let asked = items.iter().filter(|item| is_attempted(item)).count();
        let rate = |is_counted: &dyn Fn(&GradedItem) -> bool| {
            let count = items.iter().filter(|item| is_counted(item)).count();
            if asked > 0 { self.items_per_second * count as f64 / asked as f64 } else { 0.0 }
        };
        Self {
            valid_items_per_second: rate(&|item| item.result.is_ok()),
            correct_items_per_second: rate(&GradedItem::is_correct),
            ..*self
        }
    }

    fn of_seconds(seconds: f64, requests: u64, items: &[GradedItem]) -> Self {
        let per_second = |is_counted: &dyn Fn(&GradedItem) -> bool| {
            let count = items.iter().filter(|item| is_counted(item)).count() as f64;
            if seconds > 0.0 { count / seconds } else { 0.0 }
        };
        Self {
            seconds,
            requests,
            items_per_second: per_second(&is_attempted),
            valid_items_per_second: per_second(&|item| item.result.is_ok()),
            correct_items_per_second: per_second(&GradedItem::is_correct),
            prompt_tokens_per_item: None,
            cached_tokens_per_item: None,
            output_tokens_per_item: None,
        }
    }
}

fn is_attempted(item: &GradedItem) -> bool {
    item.result.as_ref().err().is_none_or(|error| error != ItemErrorKind::NotAttempted.as_str())
}

/// Two settings, item by item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The name of the setting that is compared with.
    pub first: String,
    /// The name of the setting that is compared.
    pub second: String,
    /// The figures.
    pub paired: Paired,
}

/// A way to categorize the same items, as a point of accuracy and speed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// A short name.
    pub name: String,
    /// The share of items with the right category, 0 to 1.
    pub accuracy: f64,
    /// The 95 % interval of the accuracy, where it is known.
    #[serde(default)]
    pub interval: Option<Interval>,
    /// Items settled per second.
    pub items_per_second: f64,
}

/// A file that is no evaluation of this version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is not JSON, or not that of an evaluation.
    #[error("not an evaluation in JSON")]
    Json(#[from] serde_json::Error),
    /// It has another version.
    #[error("an evaluation of format {found}, and this version reads format {FORMAT}; run it again or use its version")]
    Format {
        /// The version that it has.
        found: u32,
    },
}

impl Evaluation {
    /// An evaluation without any setting yet.
    pub fn new(about: About, taxonomy: &Taxonomy) -> Self {
        let listed =
            |category: &crate::Category| ListedCategory { id: category.id.clone(), name: category.name.clone() };
        Self {
            format: FORMAT,
            about,
            categories: taxonomy.categories().map(listed).collect(),
            settings: Vec::new(),
            comparisons: Vec::new(),
            points: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a setting: grades its items and compares it with all settings of the same sample so far. Items that were not
    /// attempted are counted apart and are not part of any figure: nobody asked about them.
    ///
    /// # Errors
    /// An item's truth is not a category of the taxonomy.
    pub fn add(
        &mut self,
        setting: Setting,
        items: Vec<GradedItem>,
        throughput: Throughput,
    ) -> Result<(), UnknownTruth> {
        let categories: Vec<CategoryId> = self.categories.iter().map(|category| category.id.clone()).collect();
        let all = items.len();
        let mut items: Vec<GradedItem> = items.into_iter().filter(is_attempted).collect();
        items.sort_by_key(|item| item.index);
        let metrics = Metrics::new(&categories, &items)?;
        for earlier in self.settings.iter().filter(|earlier| earlier.setting.sample == setting.sample) {
            let paired = Paired::new(&earlier.items, &items);
            let (first, second) = (earlier.setting.name.clone(), setting.name.clone());
            self.comparisons.push(Comparison { first, second, paired });
        }
        let not_attempted = (all - items.len()) as u64;
        self.settings.push(SettingReport { setting, metrics, several: None, throughput, not_attempted, items });
        Ok(())
    }

    /// Adds the figures of several categories for each item to the setting that was added last; nothing happens before the
    /// first one.
    pub fn add_sets(&mut self, items: &[GradedSet]) {
        if let Some(report) = self.settings.last_mut() {
            report.several = Some(SeveralMetrics::new(items));
        }
    }

    /// All points of accuracy and speed: the settings' of the first one's sample, then the others.
    pub fn frontier(&self) -> Vec<Point> {
        let sample = self.settings.first().and_then(|report| report.setting.sample.as_ref());
        let is_of_sample = |report: &&SettingReport| report.setting.sample.as_ref() == sample;
        let of_setting = |report: &SettingReport| Point {
            name: report.setting.name.clone(),
            accuracy: report.metrics.accuracy,
            interval: Some(report.metrics.accuracy_interval),
            items_per_second: report.throughput.items_per_second,
        };
        self.settings.iter().filter(is_of_sample).map(of_setting).chain(self.points.iter().cloned()).collect()
    }

    /// Reads what [`serde_json`] wrote.
    ///
    /// # Errors
    /// [`ReadError`] if it is something else, or of another version.
    pub fn from_json(json: &str) -> Result<Self, ReadError> {
        crate::page::file::read(json, FORMAT, |found| ReadError::Format { found })
    }

    /// The evaluation as a page: one HTML file without scripts or anything from elsewhere.
    pub fn to_html(&self) -> String {
        super::html::page(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::item::Prediction;
    use super::*;
    use crate::Category;

    fn taxonomy() -> Taxonomy {
        Taxonomy::new("t", "1", [Category::new("a", "A", "First."), Category::new("b", "B", "Second.")]).unwrap()
    }

    fn items(results: &[Result<&str, &str>]) -> Vec<GradedItem> {
        let item = |(index, result): (usize, &Result<&str, &str>)| GradedItem {
            index: index as u64,
            id: format!("item-{index}"),
            truth: "a".into(),
            result: result.map(Prediction::new).map_err(str::to_owned),
        };
        results.iter().enumerate().map(item).collect()
    }

    fn evaluation() -> Evaluation {
        let mut evaluation = Evaluation::new(About::new("m", &taxonomy()), &taxonomy());
        for (name, results) in [
            ("one", [Ok("a"), Ok("a"), Ok("b"), Err("not-attempted")]),
            ("three", [Ok("a"), Ok("b"), Err("cut"), Ok("a")]),
        ] {
            let items = items(&results);
            let throughput = Throughput::new(Duration::from_secs(2), 3, &items);
            evaluation.add(Setting::new(name, 1, "objects"), items, throughput).unwrap();
        }
        evaluation
    }

    #[test]
    fn items_that_nobody_asked_about_are_part_of_no_figure() {
        let evaluation = evaluation();
        let [one, three] = &evaluation.settings[..] else { panic!("two settings") };
        assert_eq!((one.metrics.items, one.not_attempted, one.items.len()), (3, 1, 3));
        assert_eq!((one.throughput.items_per_second, one.throughput.correct_items_per_second), (1.5, 1.0));
        assert_eq!((three.throughput.items_per_second, three.throughput.valid_items_per_second), (2.0, 1.5));
        let [Comparison { first, second, paired }] = &evaluation.comparisons[..] else { panic!("one pair") };
        assert_eq!((first.as_str(), second.as_str()), ("one", "three"));
        assert_eq!((paired.items, paired.both, paired.only_first, paired.neither), (3, 1, 1, 1));
    }

    #[test]
    fn a_part_of_a_run_has_the_speed_of_the_run() {
        let evaluation = evaluation();
        let three = &evaluation.settings[1];
        let part = three.throughput.on_sample(&three.items[1..]);
        assert_eq!((part.items_per_second, part.seconds), (2.0, 2.0));
        assert!((part.valid_items_per_second - 4.0 / 3.0).abs() < 1e-9);
        assert!((part.correct_items_per_second - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn only_settings_of_the_same_sample_are_compared() {
        let mut evaluation = evaluation();
        let items = items(&[Ok("a"), Ok("a")]);
        for name in ["skewed", "skewed, calibrated"] {
            let mut setting = Setting::new(name, 1, "objects");
            setting.sample = Some("skewed".into());
            evaluation.add(setting, items.clone(), Throughput::new(Duration::from_secs(1), 2, &items)).unwrap();
        }
        let pairs: Vec<_> = evaluation.comparisons.iter().map(|of| (of.first.as_str(), of.second.as_str())).collect();
        assert_eq!(pairs, [("one", "three"), ("skewed", "skewed, calibrated")]);
        let drawn: Vec<_> = evaluation.frontier().into_iter().map(|point| point.name).collect();
        assert_eq!(drawn, ["one", "three"]);
    }

    #[test]
    fn a_file_without_what_was_added_later_is_read() {
        let mut json = serde_json::to_value(evaluation()).unwrap();
        for report in json["settings"].as_array_mut().unwrap() {
            assert!(report.as_object_mut().unwrap().remove("several").is_some());
            assert!(report["setting"].as_object_mut().unwrap().remove("language").is_some());
        }
        let again = Evaluation::from_json(&json.to_string()).unwrap();
        assert!(again.settings.iter().all(|report| report.several.is_none() && report.setting.language.is_none()));
    }

    #[test]
    fn a_file_comes_back_whole_and_another_version_is_refused() {
        let mut evaluation = evaluation();
        let set = |ids: &[&str]| ids.iter().map(|id| CategoryId::from(*id)).collect();
        evaluation.add_sets(&[GradedSet { truth: set(&["a", "b"]), given: Ok(set(&["a"])) }]);
        assert!((evaluation.settings[1].several.as_ref().unwrap().jaccard - 0.5).abs() < 1e-12);
        evaluation.points.push(Point { name: "peer".into(), accuracy: 0.5, interval: None, items_per_second: 7.0 });
        let json = serde_json::to_string(&evaluation).unwrap();
        let again = Evaluation::from_json(&json).unwrap();
        assert_eq!(
            (&again.about, &again.points, &again.settings[1].items),
            (&evaluation.about, &evaluation.points, &evaluation.settings[1].items)
        );
        assert_eq!(again.settings[1].several, evaluation.settings[1].several);
        assert_eq!(again.settings[0].metrics.confusion, evaluation.settings[0].metrics.confusion);
        // serde_json reads the last of seventeen digits roughly.
        let change = again.comparisons[0].paired.interval.high - evaluation.comparisons[0].paired.interval.high;
        assert!(change.abs() < 1e-12, "{change}");
        assert_eq!(evaluation.frontier().len(), 3);
        let other = json.replacen("\"format\":1", "\"format\":2", 1);
        assert!(matches!(Evaluation::from_json(&other), Err(ReadError::Format { found: 2 })));
        for broken in ["", "[]", "{}", r#"{"format":1}"#] {
            assert!(matches!(Evaluation::from_json(broken), Err(ReadError::Json(_))), "{broken}");
        }
    }
}
