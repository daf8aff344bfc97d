//! The form in which an endpoint takes requests, learned once.

use serde::{Deserialize, Serialize};

use crate::prompt::frame::Closing;

/// Which of the two endpoints of the API is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Api {
    /// `/chat/completions`, the default: the server applies the model's chat template.
    #[default]
    Chat,
    /// The legacy `/completions`: the prompt goes to the model as it is.
    Completions,
}

/// How the answer is held to its schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StructuredOutput {
    /// By a JSON schema with an array at its root.
    #[default]
    JsonSchema,
    /// By a JSON schema with an object around the array.
    JsonSchemaObject,
    /// To some JSON object.
    JsonObject,
    /// Not at all: the prompt alone asks for the form.
    None,
}

/// The form in which an endpoint takes requests. It begins with the best, and falls back, once, when the server refuses a
/// part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Dialect {
    /// The endpoint of the API.
    pub api: Api,
    /// What holds the answer to its schema.
    pub structured_output: StructuredOutput,
    /// Whether log-probabilities are asked for.
    pub logprobs: bool,
    /// Whether the length of the answer is bounded by `max_completion_tokens`, as newer models of OpenAI want it, and not by
    /// `max_tokens`, which all servers know.
    #[serde(default)]
    pub has_new_limit: bool,
    /// Whether the sampling temperature is stated. Some models take none but their own.
    #[serde(default = "yes")]
    pub temperature: bool,
}

/// What a dialect had before it had the field.
fn yes() -> bool {
    true
}

impl Dialect {
    pub(crate) fn new(api: Api, logprobs: bool) -> Self {
        let structured_output = StructuredOutput::default();
        Self { api, structured_output, logprobs, has_new_limit: false, temperature: true }
    }

    /// The operation by the name that OpenTelemetry has for it.
    pub(crate) fn operation(self) -> &'static str {
        match self.api {
            Api::Chat => "chat",
            Api::Completions => "text_completion",
        }
    }

    pub(crate) fn closing(self) -> Closing {
        match self.structured_output {
            StructuredOutput::JsonSchema | StructuredOutput::None => Closing::Array,
            StructuredOutput::JsonSchemaObject | StructuredOutput::JsonObject => Closing::Wrapped,
        }
    }

    /// The next simpler form without what the server refused; none when there is none.
    pub(crate) fn without(self, refused: Refused) -> Option<Self> {
        match refused {
            Refused::Logprobs => self.logprobs.then_some(Self { logprobs: false, ..self }),
            Refused::OldLimit => (!self.has_new_limit).then_some(Self { has_new_limit: true, ..self }),
            Refused::Temperature => self.temperature.then_some(Self { temperature: false, ..self }),
            Refused::ArrayRoot if self.structured_output == StructuredOutput::JsonSchema => {
                Some(Self { structured_output: StructuredOutput::JsonSchemaObject, ..self })
            }
            Refused::ArrayRoot | Refused::StructuredOutput => {
                let structured_output = match self.structured_output {
                    StructuredOutput::JsonSchema | StructuredOutput::JsonSchemaObject => StructuredOutput::JsonObject,
                    StructuredOutput::JsonObject => StructuredOutput::None,
                    StructuredOutput::None => return None,
                };
                Some(Self { structured_output, ..self })
            }
        }
    }
}

/// A part of the request's form that a server refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Logprobs,
    OldLimit,
    Temperature,
    ArrayRoot,
    StructuredOutput,
}

impl Refused {
    /// Finds the part in the server's words, given in lower case.
    pub(crate) fn in_words(words: &str) -> Option<Self> {
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
        if says(&["logprob"]) {
            Some(Self::Logprobs)
        } else if says(&["max_completion_tokens"]) && says(&["unsupported", "not supported"]) {
            Some(Self::OldLimit)
        } else if says(&["temperature"]) && says(&["support"]) {
            Some(Self::Temperature)
        } else if says(&["schema"])
            && says(&["\"object\"", "'object'", "type: object", "type object", "type=object", "root"])
        {
            Some(Self::ArrayRoot)
        } else if says(&[
            "response_format",
            "json_schema",
            "json schema",
            "structured",
            "guided",
            "grammar",
            "json_object",
        ]) {
            Some(Self::StructuredOutput)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_lead_down_to_the_plain_form_and_end_there() {
        let mut dialect = Dialect::new(Api::Chat, true);
        let mut forms = vec![dialect.structured_output];
        while let Some(next) = dialect.without(Refused::StructuredOutput) {
            dialect = next;
            forms.push(dialect.structured_output);
        }
        assert_eq!(forms, [StructuredOutput::JsonSchema, StructuredOutput::JsonObject, StructuredOutput::None]);
        assert_eq!(dialect.without(Refused::Logprobs).map(|dialect| dialect.logprobs), Some(false));
        assert_eq!(dialect.without(Refused::Logprobs).and_then(|dialect| dialect.without(Refused::Logprobs)), None);
    }

    #[test]
    fn what_newer_models_of_openai_refuse_is_left_out() {
        let limit = "unsupported parameter: 'max_tokens' is not supported with this model. use 'max_completion_tokens' instead.";
        let temperature = "unsupported value: 'temperature' does not support 0 with this model. only the default (1) \
                           value is supported.";
        assert_eq!(Refused::in_words(limit), Some(Refused::OldLimit));
        assert_eq!(Refused::in_words(temperature), Some(Refused::Temperature));
        let dialect = Dialect::new(Api::Chat, true).without(Refused::OldLimit).unwrap();
        let dialect = dialect.without(Refused::Temperature).unwrap();
        assert!(dialect.has_new_limit && !dialect.temperature && dialect.logprobs);
        assert_eq!((dialect.without(Refused::OldLimit), dialect.without(Refused::Temperature)), (None, None));
    }

    #[test]
    fn an_object_root_is_tried_before_no_schema() {
        let words = "invalid schema for response_format 'categories': schema must be a json schema of 'type: \"object\"', got 'type: \"array\"'.";
        assert_eq!(Refused::in_words(words), Some(Refused::ArrayRoot));
        let dialect = Dialect::new(Api::Chat, false).without(Refused::ArrayRoot).unwrap();
        assert_eq!(dialect.structured_output, StructuredOutput::JsonSchemaObject);
        assert_eq!(dialect.without(Refused::ArrayRoot).unwrap().structured_output, StructuredOutput::JsonObject);
    }
}
