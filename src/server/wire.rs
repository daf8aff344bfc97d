//! The request and response bodies of an OpenAI-compatible server, in our own types: fields of vLLM pass, and an unknown
//! value in a response never costs the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::answer::confidence::Token;

/// A request body for either endpoint of the API.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Request {
    /// For `/chat/completions`.
    Chat(ChatRequest),
    /// For the legacy `/completions`.
    Completion(CompletionRequest),
}

impl Request {
    /// The text with the items, which differs from request to request.
    pub fn items_text(&self) -> &str {
        match self {
            Self::Chat(request) => &request.messages.1.content,
            Self::Completion(request) => request.prompt.get(request.items_start..).unwrap_or(&request.prompt),
        }
    }
}

/// The body for `/chat/completions`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The model's name.
    pub model: Arc<str>,
    /// The system message, serialized once, and the user message.
    pub messages: (SystemMessage, UserMessage),
    /// The options that both endpoints share.
    #[serde(flatten)]
    pub options: Options,
    /// Whether log-probabilities are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many alternatives are wanted at each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u32>,
}

/// The body for the legacy `/completions`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CompletionRequest {
    /// The model's name.
    pub model: Arc<str>,
    /// The prefix and the items.
    #[serde(serialize_with = "in_blocks")]
    pub prompt: String,
    /// The byte of the prompt where the items begin. Not sent.
    #[serde(skip)]
    pub items_start: usize,
    /// The options that both endpoints share.
    #[serde(flatten)]
    pub options: Options,
    /// How many alternatives are wanted at each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u32>,
}

/// What both endpoints take.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Options {
    /// The most tokens to generate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// The same by the name that newer models of OpenAI want.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<usize>,
    /// The sampling temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// What holds the decoder to the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Arc<RawValue>>,
    /// Whether to write on after the answer up to the limit, as vLLM and llama.cpp can. Set by [load tests](crate::load)
    /// alone, which want answers of a known length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_eos: Option<bool>,
    /// Further fields, as they were [set](crate::CategorizerBuilder::request_field).
    #[serde(flatten)]
    pub fields: Arc<BTreeMap<String, serde_json::Value>>,
}

impl Options {
    /// Bounds the answer by so many tokens instead, by the name that is in use.
    pub(crate) fn limit_output(&mut self, tokens: usize) {
        self.max_tokens = self.max_tokens.map(|_| tokens);
        self.max_completion_tokens = self.max_completion_tokens.map(|_| tokens);
    }
}

/// The fields that requests have anyhow.
pub(crate) const OWN_FIELDS: [&str; 12] = [
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "response_format",
    "ignore_eos",
    "logprobs",
    "top_logprobs",
    "stream",
    "n",
];

impl Request {
    /// The options, whichever the endpoint.
    pub fn options_mut(&mut self) -> &mut Options {
        match self {
            Self::Chat(request) => &mut request.options,
            Self::Completion(request) => &mut request.options,
        }
    }
}

/// The system message.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "role", rename = "system")]
#[non_exhaustive]
pub struct SystemMessage {
    /// The prefix as a JSON string.
    pub content: Arc<RawValue>,
}

/// The user message.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "role", rename = "user")]
#[non_exhaustive]
pub struct UserMessage {
    /// The framed items.
    #[serde(serialize_with = "in_blocks")]
    pub content: String,
}

/// Writes a text as serde_json does, but looks at many bytes at once: little in news is to be escaped.
fn in_blocks<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    RawValue::from_string(quoted(text)).map_err(serde::ser::Error::custom)?.serialize(serializer)
}

fn quoted(text: &str) -> String {
    const BLOCK: usize = 32;
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    let mut out = String::with_capacity(text.len() + text.len() / 16 + 16);
    out.push('"');
    let mut rest = text;
    while !rest.is_empty() {
        // Whole blocks without an early exit, so that many bytes are compared at once.
        let blocks = rest.as_bytes().chunks_exact(BLOCK);
        let plain =
            BLOCK * blocks.take_while(|block| block.iter().fold(true, |all, &byte| all & is_plain(byte))).count();
        let run = plain + rest.as_bytes()[plain..].iter().take_while(|byte| is_plain(**byte)).count();
        // Only ASCII is to be escaped, so both ends are those of characters.
        out.push_str(&rest[..run]);
        let mut escaped = rest[run..].chars();
        match escaped.next() {
            Some('\n') => out.push_str("\\n"),
            Some(c @ ('"' | '\\')) => out.extend(['\\', c]),
            Some(c) => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            None => {}
        }
        rest = escaped.as_str();
    }
    out.push('"');
    out
}

/// What a server answered to a request, reduced to what is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Completion {
    pub(crate) id: Option<String>,
    pub(crate) text: String,
    pub(crate) finish: Finish,
    pub(crate) tokens: Option<Vec<Token>>,
    pub(crate) usage: Option<Usage>,
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Finish {
    /// At its own end, or for a reason that we do not know.
    #[default]
    Stop,
    /// At the token limit.
    Length,
    /// By a content filter.
    ContentFilter,
    /// The model declined.
    Refusal,
}

/// The tokens that the server counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "they are the wire's names")]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: u64,
    /// None when the server does not say, which is not zero.
    pub(crate) cached_tokens: Option<u64>,
    pub(crate) output_tokens: u64,
}

/// A body whose log-probabilities are read as `L`.
#[derive(Deserialize)]
struct Body<'a, L> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Vec<Choice<'a, L>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timings: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a, L> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
    logprobs: Option<L>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
}

/// Reads a response body. None when it is not the answer of a model server.
pub(crate) fn read_completion(body: &[u8]) -> Option<Completion> {
    // Most bodies are clean; the others get bad UTF-8 replaced, and the NaN that Python writes turned into null.
    let text = std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
    // The log-probabilities are most of a body, so those in the usual form are read in the same pass.
    if let Ok(body) = serde_json::from_str::<Body<'_, ChatLogprobs<'_>>>(&text) {
        return completion(body, |logprobs| Some(logprobs.tokens()));
    }
    let any_tokens = |logprobs: &RawValue| read_tokens(logprobs.get());
    if let Ok(body) = serde_json::from_str::<Body<'_, &RawValue>>(&text) {
        return completion(body, any_tokens);
    }
    let text = nan_to_null(&text)?;
    completion(serde_json::from_str::<Body<'_, &RawValue>>(&text).ok()?, any_tokens)
}

fn completion<L>(body: Body<'_, L>, tokens: impl Fn(L) -> Option<Vec<Token>>) -> Option<Completion> {
    let choice = body.choices.into_iter().next()?;
    let as_text = |value: Option<&RawValue>| value.and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let (content, refusal) = match choice.message {
        Some(message) => (as_text(message.content), as_text(message.refusal)),
        None => (choice.text.map(Cow::into_owned), None),
    };
    let finish = match choice.finish_reason.map(RawValue::get) {
        Some(r#""length""#) => Finish::Length,
        Some(r#""content_filter""#) => Finish::ContentFilter,
        _ if refusal.is_some_and(|refusal| !refusal.is_empty()) => Finish::Refusal,
        _ => Finish::Stop,
    };
    Some(Completion {
        id: as_text(body.id).map(|id| if id.len() > 80 { id.chars().take(80).collect() } else { id }),
        text: content.unwrap_or_default(),
        finish,
        tokens: choice.logprobs.and_then(tokens),
        usage: body.usage.and_then(|usage| read_usage(usage.get(), body.timings.map(RawValue::get))),
    })
}

/// Reads the usage. Versions of llama.cpp before 2026 say what was cached in their own `timings` alone.
fn read_usage(json: &str, timings: Option<&str>) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Fields {
        prompt_tokens: u64,
        #[serde(default)]
        completion_tokens: u64,
        #[serde(default)]
        prompt_tokens_details: Option<Details>,
    }
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        cached_tokens: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Timings {
        cache_n: u64,
    }
    let fields: Fields = serde_json::from_str(json).ok()?;
    let by_timings = || Some(serde_json::from_str::<Timings>(timings?).ok()?.cache_n);
    Some(Usage {
        prompt_tokens: fields.prompt_tokens,
        cached_tokens: fields.prompt_tokens_details.and_then(|details| details.cached_tokens).or_else(by_timings),
        output_tokens: fields.completion_tokens,
    })
}

/// The log-probabilities of `/chat/completions`.
#[derive(Deserialize)]
struct ChatLogprobs<'a> {
    #[serde(borrow)]
    content: Vec<ChatToken<'a>>,
}

#[derive(Deserialize)]
struct ChatToken<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    logprob: Option<f64>,
    #[serde(borrow, default)]
    top_logprobs: Vec<Alternative<'a>>,
}

#[derive(Deserialize)]
struct Alternative<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    logprob: Option<f64>,
}

impl ChatLogprobs<'_> {
    fn tokens(self) -> Vec<Token> {
        let alternative = |alternative: Alternative<'_>| (alternative.token.into_owned(), or_nan(alternative.logprob));
        let token = |token: ChatToken<'_>| Token {
            text: token.token.into_owned(),
            logprob: or_nan(token.logprob),
            alternatives: token.top_logprobs.into_iter().map(alternative).collect(),
        };
        self.content.into_iter().map(token).collect()
    }
}

fn or_nan(logprob: Option<f64>) -> f64 {
    logprob.unwrap_or(f64::NAN)
}

/// Reads the log-probabilities of either endpoint: a list of objects, or four parallel lists.
fn read_tokens(json: &str) -> Option<Vec<Token>> {
    #[derive(Deserialize)]
    struct CompletionLogprobs {
        tokens: Vec<String>,
        token_logprobs: Vec<Option<f64>>,
        #[serde(default)]
        top_logprobs: Vec<Option<std::collections::HashMap<String, Option<f64>>>>,
    }
    if let Ok(logprobs) = serde_json::from_str::<ChatLogprobs<'_>>(json) {
        return Some(logprobs.tokens());
    }
    let logprobs: CompletionLogprobs = serde_json::from_str(json).ok()?;
    let mut alternatives = logprobs.top_logprobs.into_iter();
    let tokens = logprobs.tokens.into_iter().zip(logprobs.token_logprobs).map(|(text, logprob)| Token {
        text,
        logprob: or_nan(logprob),
        alternatives: alternatives
            .next()
            .flatten()
            .map(|map| map.into_iter().map(|(text, logprob)| (text, or_nan(logprob))).collect())
            .unwrap_or_default(),
    });
    Some(tokens.collect())
}

/// Replaces the bare words `NaN`, `Infinity` and `-Infinity` outside of strings by `null`; none when there are none.
pub(crate) fn nan_to_null(json: &str) -> Option<String> {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped, mut found) = (false, false, false);
    let mut rest = json;
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            out.push_str("null");
            rest = &rest[word.len()..];
            found = true;
            continue;
        }
        match c {
            '"' if !escaped => in_string = !in_string,
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_json() {
        let odd = "one\ntwo \"three\" \\four\\ \u{0}\u{1f}\u{7f}\r\t \u{e9}\u{2028}\u{1f600}";
        let texts = (0..70).map(|before| format!("{}{odd}{}", "a".repeat(before), "\u{8a18}b".repeat(before)));
        for text in texts.chain([String::new(), "\"".into(), odd.into()]) {
            assert_eq!(serde_json::from_str::<String>(&quoted(&text)).unwrap(), text);
            RawValue::from_string(quoted(&text)).unwrap();
        }
        assert_eq!(quoted("a\n\"b\" \\"), serde_json::to_string("a\n\"b\" \\").unwrap());
    }

    #[test]
    fn a_response_of_vllm_is_read() {
        let body = br#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,
            "message":{"role":"assistant","content":"[]","refusal":null,"reasoning_content":null},"logprobs":
            {"content":[{"token":"[]","logprob":-0.5,"bytes":[91,93],"top_logprobs":[{"token":"[","logprob":-9999.0}]}]},
            "finish_reason":"stop","stop_reason":null}],"usage":{"prompt_tokens":10,"total_tokens":12,
            "completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}},"kv_transfer_params":null}"#;
        let completion = read_completion(body).unwrap();
        assert_eq!(completion.id.as_deref(), Some("chatcmpl-1"));
        assert_eq!(completion.text, "[]");
        let tokens = completion.tokens.unwrap();
        assert_eq!(tokens[0].alternatives, [("[".to_owned(), -9999.0)]);
        assert_eq!(completion.usage, Some(Usage { prompt_tokens: 10, cached_tokens: Some(8), output_tokens: 2 }));
    }

    #[test]
    fn odd_values_do_not_cost_the_answer() {
        let body = br#"{"choices":[{"message":{"content":"[1]"},"finish_reason":"abort","logprobs":{"content":[{"token":
            "a \" NaN","logprob":NaN,"top_logprobs":[{"token":"b","logprob":-Infinity}]}]}}],"usage":{"prompt_tokens":-1}}"#;
        let completion = read_completion(body).unwrap();
        assert_eq!((completion.text.as_str(), completion.finish, completion.usage), ("[1]", Finish::Stop, None));
        let token = &completion.tokens.unwrap()[0];
        assert_eq!(token.text, "a \" NaN");
        assert!(token.logprob.is_nan());

        let mut bad_utf8 = br#"{"choices":[{"message":{"content":"[]"#.to_vec();
        bad_utf8.extend_from_slice(b"\xff\xfe\"}}]}");
        assert_eq!(read_completion(&bad_utf8).unwrap().text, "[]\u{fffd}\u{fffd}");
    }

    #[test]
    fn empty_contents_and_refusals_are_told_apart() {
        let read = |choice: &str| read_completion(format!("{{\"choices\":[{choice}]}}").as_bytes());
        assert_eq!(read(r#"{"message":{"content":null}}"#).unwrap().text, "");
        assert_eq!(read(r#"{"message":{"content":null,"refusal":"no"}}"#).unwrap().finish, Finish::Refusal);
        assert_eq!(read(r#"{"text":"x","finish_reason":"length"}"#).unwrap().finish, Finish::Length);
        assert_eq!(
            read(r#"{"message":{"content":""},"finish_reason":"content_filter"}"#).unwrap().finish,
            Finish::ContentFilter
        );
        assert_eq!(read(""), None);
        assert_eq!(read_completion(b"<html>"), None);
        assert_eq!(read_completion(b""), None);
    }

    #[test]
    fn cached_tokens_of_older_llama_cpp_are_found() {
        let cached = |rest: &str| {
            let body = format!("{{\"choices\":[{{\"text\":\"\"}}],\"usage\":{{\"prompt_tokens\":10{rest}}}");
            read_completion(body.as_bytes()).unwrap().usage.unwrap().cached_tokens
        };
        assert_eq!(cached("},\"timings\":{\"cache_n\":7,\"prompt_n\":3}"), Some(7));
        assert_eq!(cached(",\"prompt_tokens_details\":{\"cached_tokens\":5}},\"timings\":{\"cache_n\":7}"), Some(5));
        assert_eq!(cached("},\"timings\":{\"cache_n\":-1}"), None);
        assert_eq!(cached("},\"timings\":null"), None);
    }

    #[test]
    fn completions_have_four_parallel_lists() {
        let body = br#"{"choices":[{"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,-1.0],
            "top_logprobs":[null,{"b":-1.0,"c":-2.0}],"text_offset":[0,1]}}]}"#;
        let tokens = read_completion(body).unwrap().tokens.unwrap();
        assert!(tokens[0].logprob.is_nan() && tokens[0].alternatives.is_empty());
        assert_eq!(tokens[1].alternatives.len(), 2);
    }
}
