//! What a record is kept under: the text of an item and everything else that decides the answer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use crate::answer::AnswerForm;
use crate::calibration;
use crate::dedup::TextHash;
use crate::escalation::{Escalation, Way};
use crate::prompt::PromptVersion;
use crate::prompt::prefix::WORDING;
use crate::server::Api;
use crate::taxonomy::Taxonomy;

pub(super) const KEY_BYTES: usize = 16;

/// The key of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; KEY_BYTES]);

impl Key {
    /// The key of a text under a question.
    pub(super) fn new(question: &blake3::Hash, text: TextHash) -> Self {
        let hash = blake3::Hasher::new().update(question.as_bytes()).update(text.as_bytes()).finalize();
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&hash.as_bytes()[..KEY_BYTES]);
        Self(key)
    }

    pub(super) fn of_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    pub(super) fn half(self) -> u64 {
        self.0.first_chunk().map_or(0, |half| u64::from_le_bytes(*half))
    }
}

/// How a categorizer asks: everything beside the text that decides the answer.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each can be set without the others")]
pub(crate) struct Asking<'a> {
    pub(crate) taxonomy: &'a Taxonomy,
    pub(crate) prompt_version: &'a PromptVersion,
    pub(crate) answer_form: AnswerForm,
    /// Whether the taxonomy is one level of a tree that is walked.
    pub(crate) is_level: bool,
    pub(crate) api: Api,
    pub(crate) has_confidence: bool,
    pub(crate) temperature: f32,
    pub(crate) request_fields: &'a BTreeMap<String, serde_json::Value>,
    pub(crate) evens_positions: bool,
    pub(crate) labels_with_parents: bool,
    pub(crate) is_across_versions: bool,
    pub(crate) escalation: Option<&'a Escalation>,
    pub(crate) calibrations: &'a [calibration::Ready],
}

/// The questions of a categorizer: one for each model, so that another model beside the first leaves its answers valid, and
/// one for failures, which are those of all models together.
#[derive(Debug)]
pub(crate) struct Questions {
    answers: Vec<(Arc<str>, blake3::Hash)>,
    failure: blake3::Hash,
    /// Those for answers that outlive a version of the taxonomy, where they are wanted.
    standing: Vec<(Arc<str>, blake3::Hash)>,
}

impl Questions {
    /// The models in the order in which their answers are looked for.
    pub(crate) fn new<'a>(asking: &Asking<'_>, models: impl Iterator<Item = &'a str>) -> Self {
        let mut answers: Vec<(Arc<str>, blake3::Hash)> = Vec::new();
        let mut standing = Vec::new();
        for model in models {
            if answers.iter().all(|(known, _)| **known != *model) {
                answers.push((model.into(), blake3::hash(asking.text(model).as_bytes())));
                let text = asking.is_across_versions.then(|| asking.standing_text(model));
                standing.extend(text.map(|text| (model.into(), blake3::hash(text.as_bytes()))));
            }
        }
        // In an order of their own, so that the order of the endpoints does not matter.
        let mut hashes: Vec<_> = answers.iter().map(|(_, hash)| *hash.as_bytes()).collect();
        hashes.sort_unstable();
        let failure = blake3::hash(&hashes.concat());
        Self { answers, failure, standing }
    }

    /// The keys under which answers to a text may stand.
    pub(crate) fn answers(&self, text: TextHash) -> impl Iterator<Item = Key> {
        self.answers.iter().map(move |(_, question)| Key::new(question, text))
    }

    /// The key of an answer of this model to a text.
    pub(crate) fn answer(&self, text: TextHash, model: &str) -> Option<Key> {
        let (_, question) = self.answers.iter().find(|(known, _)| **known == *model)?;
        Some(Key::new(question, text))
    }

    /// The keys under which answers of earlier versions may stand.
    pub(crate) fn standing(&self, text: TextHash) -> impl Iterator<Item = Key> {
        self.standing.iter().map(move |(_, question)| Key::new(question, text))
    }

    /// The key of an answer of this model that may outlive the version, where that is wanted.
    pub(crate) fn standing_of(&self, text: TextHash, model: &str) -> Option<Key> {
        let (_, question) = self.standing.iter().find(|(known, _)| **known == *model)?;
        Some(Key::new(question, text))
    }

    /// The key of a failure to answer a text.
    pub(crate) fn failure(&self, text: TextHash) -> Key {
        Key::new(&self.failure, text)
    }
}

impl Asking<'_> {
    /// The question to a model in words, which are hashed: a change of them asks everything anew.
    pub(super) fn text(&self, model: &str) -> String {
        let version = format!("taxonomy={}\nprompt={}\n", self.taxonomy.hash(), self.prompt_version);
        version + &self.other_text(model)
    }

    /// The same for any version of the taxonomy, but not of the prompt's other words. Of a tree, each list of children has its
    /// own, and the top level another than the whole as one list.
    fn standing_text(&self, model: &str) -> String {
        let (name, scope) = (self.taxonomy.name(), self.taxonomy.scope());
        let mut list = format!("any version of={name:?} {scope:?}\nwording={WORDING}\nanswers={}\n", self.answer_form);
        if self.is_level {
            list.push_str("level=true\n");
        }
        list + &self.other_text(model)
    }

    /// Everything but the taxonomy and the prompt.
    fn other_text(&self, model: &str) -> String {
        let stronger = match self.escalation.map(|escalation| &escalation.way) {
            Some(Way::Stronger(endpoint)) => endpoint.model.as_deref(),
            _ => None,
        };
        let mut text = format!(
            "model={model}\napi={}\nconfidence={}\ntemperature={}\neven-positions={}\n",
            match self.api {
                Api::Chat => "chat",
                Api::Completions => "completions",
            },
            self.has_confidence,
            self.temperature,
            self.evens_positions,
        );
        if self.labels_with_parents {
            text.push_str("labels-with-parents=true\n");
        }
        if !self.request_fields.is_empty() {
            // Names are strings and values JSON, so that cannot fail.
            let _ = writeln!(text, "fields={}", serde_json::to_string(self.request_fields).unwrap_or_default());
        }
        if let Some(Escalation { below, way, .. }) = self.escalation {
            let way = match way {
                Way::Alone => "alone".to_owned(),
                Way::Vote(packs) => format!("vote {packs}"),
                Way::Stronger(_) => format!("to {}", stronger.unwrap_or_default()),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "escalation=below {below} {way}");
        }
        let mut of_models: Vec<_> = self
            .calibrations
            .iter()
            .filter(|calibration| calibration.model == model || Some(&*calibration.model) == stronger)
            .map(|calibration| format!("calibration={} {}\n", calibration.version, calibration.model))
            .collect();
        of_models.sort_unstable();
        text + &of_models.concat()
    }
}
