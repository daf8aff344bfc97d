//! Answers of a given length, from servers that write on and from servers that do not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::items::generated_items;
use crate::FailureKind;
use crate::categorizer::Categorizer;
use crate::prompt::clean::CleanText;
use crate::run::request;
use crate::server::wire::{Finish, Request};
use crate::server::{Attempt, Dialect, Endpoint, Verdict, judge};

/// How answers are brought to a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lengthening {
    /// By `ignore_eos`: the model writes on behind its answer, as vLLM lets it also where a schema holds the answer. What
    /// stands there is read over.
    WriteOn,
    /// By a schema that asks for a long text behind the labels: for llama.cpp, which fails when it is to write on behind a
    /// schema that is fulfilled (HTTP 500, "Unexpected empty grammar stack"). It works wherever `minLength` does.
    LongText,
}

impl fmt::Display for Lengthening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::WriteOn => "writing on behind the answer (ignore_eos)",
            Self::LongText => "a schema that asks for a long text behind the labels",
        })
    }
}

impl Lengthening {
    /// Has the answer to a request written to so many tokens.
    pub(super) fn apply(self, request: &mut Request, output_tokens: usize) {
        let options = request.options_mut();
        options.limit_output(output_tokens);
        let format = options.response_format.as_deref().filter(|_| self == Self::LongText);
        match format.and_then(|format| with_long_text(format, output_tokens)) {
            Some(format) => options.response_format = Some(format),
            // Where no schema is fulfilled, every server can write on.
            None => options.ignore_eos = Some(true),
        }
    }
}

/// A token is seldom longer, so the text is not over before the tokens are.
const LETTERS_PER_TOKEN: usize = 8;
/// llama.cpp refuses grammars with longer repetitions.
const MOST_LETTERS: usize = 2_000;

/// The same schema with a text behind the array of labels; none for what is no schema. The members keep their order, since
/// decoders write them in it.
fn with_long_text(format: &RawValue, output_tokens: usize) -> Option<Arc<RawValue>> {
    #[derive(Deserialize)]
    struct Format<'a> {
        #[serde(borrow)]
        json_schema: Named<'a>,
    }
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        schema: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Root<'a> {
        #[serde(borrow)]
        properties: Option<Properties<'a>>,
    }
    #[derive(Deserialize)]
    struct Properties<'a> {
        #[serde(borrow)]
        items: &'a RawValue,
    }
    let schema = serde_json::from_str::<Format<'_>>(format.get()).ok()?.json_schema.schema;
    let root = serde_json::from_str::<Root<'_>>(schema.get()).ok()?;
    let array = root.properties.map_or(schema, |properties| properties.items).get();
    let letters = (LETTERS_PER_TOKEN * output_tokens).min(MOST_LETTERS);
    let text = format!(
        r#"{{"type":"json_schema","json_schema":{{"name":"categories","strict":true,"schema":{{"type":"object","properties":{{"items":{array},"reason":{{"type":"string","minLength":{letters}}}}},"required":["items","reason"],"additionalProperties":false}}}}}}"#
    );
    RawValue::from_string(text).ok().map(Arc::from)
}

/// What was found about the length of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LengthFound {
    /// What brings them to the length; none where nothing does.
    pub by: Option<Lengthening>,
    /// The same in a sentence, with why the others do not.
    pub words: String,
}

/// Enough to see that more is written than labels.
const LOOK_TOKENS: usize = 64;
/// A slow server's time for one short request, which also fills its cache.
const LOOK_TIMEOUT: Duration = Duration::from_secs(120);

/// Finds what brings the answers of all endpoints to a length, by one short request to each for every way that is tried.
///
/// Use a categorizer without another probe that lengthens answers; its limits are not asked, since nothing else runs.
pub async fn find_lengthening(categorizer: &Categorizer, output_tokens: usize) -> LengthFound {
    let mut refusals = String::new();
    for by in [Lengthening::WriteOn, Lengthening::LongText] {
        match try_all(categorizer, by, output_tokens).await {
            Ok(()) => {
                let words = format!("answers are brought to {output_tokens} tokens by {by}{refusals}");
                return LengthFound { by: Some(by), words };
            }
            Err(Refusal { words, is_final }) => {
                refusals += &format!("; not by {by}: {words}");
                if is_final {
                    break;
                }
            }
        }
    }
    LengthFound { by: None, words: format!("answers keep the length that the model gives them{refusals}") }
}

/// Why answers cannot be lengthened so.
struct Refusal {
    words: String,
    /// Whether another way would meet the same.
    is_final: bool,
}

async fn try_all(categorizer: &Categorizer, by: Lengthening, output_tokens: usize) -> Result<(), Refusal> {
    let endpoints = categorizer.endpoints();
    for (endpoint, snapshot) in categorizer.shared.pool.endpoints().iter().zip(&endpoints) {
        try_one(categorizer, endpoint, snapshot.dialect, by, output_tokens).await?;
    }
    Ok(())
}

async fn try_one(
    categorizer: &Categorizer,
    endpoint: &Endpoint,
    dialect: Dialect,
    by: Lengthening,
    output_tokens: usize,
) -> Result<(), Refusal> {
    let refusal = |words: String| Refusal { words, is_final: false };
    let shared = &categorizer.shared;
    let texts: Vec<_> = generated_items(0)
        .filter_map(|item| CleanText::of(&item, shared.settings.item_tokens))
        .take(1)
        .map(Arc::new)
        .collect();
    let mut request = request(shared, &texts, dialect, Arc::clone(&endpoint.model));
    by.apply(&mut request, output_tokens);
    let most = output_tokens.min(LOOK_TOKENS);
    request.options_mut().limit_output(most);
    let attempt = match tokio::time::timeout(LOOK_TIMEOUT, endpoint.transport.send(&request)).await {
        Ok(Ok(response)) => Attempt::Response(response),
        Ok(Err(error)) => Attempt::Error(error),
        Err(_) => Attempt::TimedOut(LOOK_TIMEOUT),
    };
    let key = endpoint.key.as_ref().map(ExposeSecret::expose_secret);
    let completion = match judge(attempt, &endpoint.base_url, request.items_text(), key) {
        Verdict::Answer(completion) => completion,
        Verdict::Failed { failure, .. } => {
            let is_final = matches!(
                failure.kind,
                FailureKind::Connect | FailureKind::Timeout | FailureKind::KeyRefused | FailureKind::UnknownModel
            );
            return Err(Refusal { words: failure.to_string(), is_final });
        }
    };
    let was_cut = completion.finish == Finish::Length;
    let wrote = completion.usage.map(|usage| usage.output_tokens);
    if wrote.map_or(!was_cut, |wrote| wrote < most as u64) {
        let wrote = wrote.map_or_else(|| "fewer".to_owned(), |wrote| wrote.to_string());
        return Err(refusal(format!("{} wrote {wrote} tokens of {most}", endpoint.base_url)));
    }
    let labels = shared.reader.understand(&completion.text, was_cut, None, texts.len());
    if labels.iter().any(Result::is_err) {
        return Err(refusal(format!("{} wrote an answer without a valid label", endpoint.base_url)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARRAY: &str = r#"{"type":"array","items":{"type":"object","properties":{"id":{"type":"integer"},"category":{"enum":["a"]}}},"minItems":2,"maxItems":2}"#;

    fn lengthened(schema: &str, output_tokens: usize) -> String {
        let format = format!(
            r#"{{"type":"json_schema","json_schema":{{"name":"categories","strict":true,"schema":{schema}}}}}"#
        );
        with_long_text(&RawValue::from_string(format).unwrap(), output_tokens).unwrap().get().to_owned()
    }

    #[test]
    fn the_labels_stand_before_the_text_with_either_root() {
        let expected = format!(
            r#""schema":{{"type":"object","properties":{{"items":{ARRAY},"reason":{{"type":"string","minLength":1600}}}},"required":["items","reason"],"additionalProperties":false}}"#
        );
        let wrapped = format!(r#"{{"type":"object","properties":{{"items":{ARRAY}}},"required":["items"]}}"#);
        for schema in [ARRAY, &wrapped] {
            assert!(lengthened(schema, 200).contains(&expected), "{}", lengthened(schema, 200));
        }
        assert!(lengthened(ARRAY, 5_000).contains("\"minLength\":2000"));
    }

    #[test]
    fn what_is_no_schema_stays() {
        let format = RawValue::from_string(r#"{"type":"json_object"}"#.to_owned()).unwrap();
        assert!(with_long_text(&format, 200).is_none());
    }
}
