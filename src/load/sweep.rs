//! Several steps, as they are written to a file.

use serde::{Deserialize, Serialize};

use super::advice::{Advice, Targets, advise};
use super::html;
use super::step::Step;
use crate::page::file;

/// The version of the form in which sweeps are written. It changes with the meaning of a field, not with a new one.
pub const FORMAT: u32 = 1;

/// Several steps with the same server and items. Serialized it has no text of the items.
///
/// ```
/// use slugline::load::{About, Sweep, Targets};
///
/// let sweep = Sweep::new(About::new("my-model"), Targets::default());
/// let again = Sweep::from_json(&serde_json::to_string(&sweep)?)?;
/// assert_eq!(again.advice.reason, "no request was answered");
/// assert!(again.to_html().starts_with("<!doctype html>"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Sweep {
    /// The version of this form, [`FORMAT`].
    pub format: u32,
    /// What was measured.
    pub about: About,
    /// What a step must keep to be recommended.
    pub targets: Targets,
    /// The steps, in the order in which they were added.
    pub steps: Vec<Step>,
    /// What follows from them.
    pub advice: Advice,
    /// What a reader should know, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct About {
    /// The model, by the name that the server has for it.
    pub model: String,
    /// The items, in words.
    #[serde(default)]
    pub items: Option<String>,
    /// The server and the machine, in words.
    #[serde(default)]
    pub server: Option<String>,
    /// When it was run.
    #[serde(default)]
    pub date: Option<String>,
    /// The version of slugline.
    pub slugline: String,
}

impl About {
    /// What is known of itself; the rest can be set.
    pub fn new(model: impl Into<String>) -> Self {
        let slugline = env!("CARGO_PKG_VERSION").to_owned();
        Self { model: model.into(), items: None, server: None, date: None, slugline }
    }
}

/// Why a file is no sweep.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is not JSON of this form.
    #[error("not a sweep of a load test: {0}")]
    Json(#[from] serde_json::Error),
    /// It was written by a version whose form differs.
    #[error("a sweep of form {found}, and this version reads form {FORMAT}; measure it again")]
    Format {
        /// The form that was found.
        found: u32,
    },
}

impl Sweep {
    /// Without steps.
    pub fn new(about: About, targets: Targets) -> Self {
        let advice = advise(&[], &targets);
        Self { format: FORMAT, about, targets, steps: Vec::new(), advice, notes: Vec::new() }
    }

    /// Adds a step, and thinks again about what follows.
    pub fn add(&mut self, step: Step) {
        self.steps.push(step);
        self.advice = advise(&self.steps, &self.targets);
    }

    /// The recommended step, if there is one.
    pub fn recommended(&self) -> Option<&Step> {
        self.steps.get(self.advice.recommended?)
    }

    /// Reads what was serialized as JSON.
    ///
    /// # Errors
    /// The text is no sweep, or one of another form.
    pub fn from_json(json: &str) -> Result<Self, ReadError> {
        file::read(json, FORMAT, |found| ReadError::Format { found })
    }

    /// The steps as a table for other programs, a line each below a line of names. What is unknown is empty.
    pub fn to_csv(&self) -> String {
        let mut out = COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",") + "\n";
        for step in &self.steps {
            let cells =
                COLUMNS.iter().map(|(_, figure)| figure(step).map_or_else(String::new, |figure| figure.to_string()));
            out += &(cells.collect::<Vec<_>>().join(",") + "\n");
        }
        out
    }

    /// One HTML file that needs no script and nothing from elsewhere: charts, the table of the steps, and the comparison with
    /// the reference deployment.
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

const COLUMNS: [(&str, fn(&Step) -> Option<f64>); 26] = [
    ("concurrency", |step| Some(step.concurrency as f64)),
    ("servers", |step| Some(step.servers as f64)),
    ("due_per_second", |step| step.due_per_second),
    ("seconds", |step| Some(step.seconds)),
    ("requests", |step| Some(step.requests as f64)),
    ("answered", |step| Some(step.answered as f64)),
    ("retries", |step| Some(step.retries as f64)),
    ("items", |step| Some(step.items as f64)),
    ("valid_items", |step| Some(step.valid_items as f64)),
    ("requests_per_second", |step| Some(step.requests_per_second)),
    ("items_per_second", |step| Some(step.items_per_second)),
    ("valid_items_per_second", |step| Some(step.valid_items_per_second)),
    ("prompt_tokens_per_second", |step| step.prompt_tokens_per_second),
    ("output_tokens_per_second", |step| step.output_tokens_per_second),
    ("prompt_tokens_per_request", |step| step.prompt_tokens_per_request),
    ("output_tokens_per_request", |step| step.output_tokens_per_request),
    ("success_share", |step| Some(step.success_share)),
    ("mean_s", |step| Some(step.caller_latency()?.mean_s)),
    ("p50_s", |step| Some(step.caller_latency()?.p50_s)),
    ("p95_s", |step| Some(step.caller_latency()?.p95_s)),
    ("p99_s", |step| Some(step.caller_latency()?.p99_s)),
    ("max_s", |step| Some(step.caller_latency()?.max_s)),
    ("first_token_s", |step| step.first_token_s),
    ("cached_share", |step| step.cached_share),
    ("mean_in_flight", |step| Some(step.mean_in_flight)),
    ("max_in_flight", |step| Some(step.max_in_flight as f64)),
];

#[cfg(test)]
mod tests {
    use super::super::step::LatencySummary;
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_other_forms_are_refused() {
        let mut sweep = Sweep::new(About::new("m"), Targets::default());
        let latency = LatencySummary::of(vec![1.0]);
        sweep.add(Step { concurrency: 5, valid_items_per_second: 3.0, success_share: 1.0, latency, ..Step::default() });
        let json = serde_json::to_string(&sweep).unwrap();
        assert_eq!(Sweep::from_json(&json).unwrap(), sweep);
        assert_eq!(sweep.recommended().map(|step| step.concurrency), Some(5));
        let newer = json.replacen("\"format\":1", "\"format\":2", 1);
        assert!(matches!(Sweep::from_json(&newer), Err(ReadError::Format { found: 2 })));
        assert!(matches!(Sweep::from_json("[]"), Err(ReadError::Json(_))));
    }

    #[test]
    fn the_table_has_a_cell_for_each_name() {
        let mut sweep = Sweep::new(About::new("m"), Targets::default());
        sweep.add(Step { concurrency: 5, cached_share: Some(0.5), ..Step::default() });
        let csv = sweep.to_csv();
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!((lines.len(), lines[0].len(), lines[1].len()), (2, COLUMNS.len(), COLUMNS.len()));
        let cell = |name: &str| lines[1][lines[0].iter().position(|known| *known == name).unwrap()];
        assert_eq!([cell("concurrency"), cell("cached_share"), cell("p95_s")], ["5", "0.5", ""]);
    }
}
