//! What goes back to the client: the bytes, and how they arrive.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use super::answer::Token;
use super::request::Endpoint;

/// What a client of the simulated server sees of one request. A request that hangs has none:
/// [`handle`](super::SimulatedEngine::handle) then never returns.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SimulatedReply {
    /// A whole response, perhaps a slow or an endless one.
    Response(SimulatedResponse),
    /// The connection closes after some bytes of the response's body.
    CloseEarly {
        /// The response as it would have been; its header names its full length.
        response: SimulatedResponse,
        /// The bytes of the body that arrive.
        after_bytes: usize,
    },
    /// The connection is reset before anything arrives.
    Reset,
    /// Nothing listens: the connection is refused.
    Refused,
}

/// A response of the simulated server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimulatedResponse {
    /// The HTTP status.
    pub status: u16,
    /// Names, in lower case, and values. The length of the body is not among them.
    pub headers: Vec<(String, String)>,
    /// The body, or its first part when it is endless.
    pub body: Bytes,
    /// How the body arrives.
    pub pace: Pace,
}

/// How the body of a response arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pace {
    /// At once.
    Whole,
    /// Some bytes at a time.
    Drip {
        /// The bytes of each part.
        bytes: usize,
        /// The time before each part.
        interval: Duration,
    },
    /// The body, and then the same bytes again and again without end.
    Endless,
}

impl SimulatedResponse {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self { status, headers, body: body.into(), pace: Pace::Whole }
    }

    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        // Only strings, numbers and lists are serialized here, which cannot fail.
        Self::new(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// An error as vLLM words it, with the status as an integer `code`.
    pub(super) fn error(status: u16, message: &str, param: Option<&str>) -> Self {
        let kind = match status {
            401 => "AuthenticationError",
            403 => "PermissionDeniedError",
            404 => "NotFoundError",
            429 => "RateLimitError",
            400..=499 => "BadRequestError",
            503 => "ServiceUnavailableError",
            _ => "InternalServerError",
        };
        Self::json(status, &ErrorBody { error: ErrorFacts { message, r#type: kind, param, code: status } })
    }

    pub(super) fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFacts<'a>,
}

#[derive(Serialize)]
struct ErrorFacts<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: u16,
}

/// A finished answer.
#[derive(Clone, Debug)]
pub(super) struct Answer<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) number: u64,
    pub(super) model: &'a str,
    pub(super) tokens: Vec<Token>,
    /// What stands in place of the text of the tokens: nothing, or null.
    pub(super) content: Content,
    pub(super) refusal: Option<&'a str>,
    pub(super) finish_reason: &'a str,
    pub(super) top_logprobs: Option<usize>,
    pub(super) usage: Option<Usage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Text,
    Null,
}

/// The `usage` of an answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) total_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct PromptTokensDetails {
    pub(super) cached_tokens: usize,
}

impl Answer<'_> {
    /// The response with status 200.
    pub(super) fn response(&self) -> SimulatedResponse {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text: String = self.tokens.iter().map(|token| token.text.as_str()).collect();
        let text = (self.content == Content::Text).then_some(text.as_str());
        let response = match self.endpoint {
            Endpoint::Chat => SimulatedResponse::json(
                200,
                &ChatBody {
                    id: format!("chatcmpl-simulated-{}", self.number),
                    object: "chat.completion",
                    created,
                    model: self.model,
                    choices: [ChatChoice {
                        index: 0,
                        message: ChatMessage { role: "assistant", content: text, refusal: self.refusal },
                        logprobs: self.top_logprobs.map(|top| ChatLogprobs::new(&self.tokens, top)),
                        finish_reason: self.finish_reason,
                    }],
                    usage: self.usage,
                },
            ),
            Endpoint::Completions => SimulatedResponse::json(
                200,
                &TextBody {
                    id: format!("cmpl-simulated-{}", self.number),
                    object: "text_completion",
                    created,
                    model: self.model,
                    choices: [TextChoice {
                        index: 0,
                        text,
                        logprobs: self.top_logprobs.map(|top| TextLogprobs::new(&self.tokens, top)),
                        finish_reason: self.finish_reason,
                    }],
                    usage: self.usage,
                },
            ),
        };
        response.with_header("x-request-id", format!("simulated-{}", self.number))
    }
}

#[derive(Serialize)]
struct ChatBody<'a> {
    id: String,
    object: &'a str,
    created: u64,
    model: &'a str,
    choices: [ChatChoice<'a>; 1],
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct ChatChoice<'a> {
    index: u32,
    message: ChatMessage<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    finish_reason: &'a str,
}

#[derive(Serialize)]
struct ChatMessage<'a> {
    role: &'a str,
    content: Option<&'a str>,
    refusal: Option<&'a str>,
}

#[derive(Serialize)]
struct ChatLogprobs<'a> {
    content: Vec<ChatToken<'a>>,
}

#[derive(Serialize)]
struct ChatToken<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
    top_logprobs: Vec<ChatAlternative<'a>>,
}

#[derive(Serialize)]
struct ChatAlternative<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

impl<'a> ChatLogprobs<'a> {
    fn new(tokens: &'a [Token], top: usize) -> Self {
        let alternative = |token: &'a str, logprob| ChatAlternative { token, logprob, bytes: token.as_bytes() };
        let content = tokens.iter().map(|token| ChatToken {
            token: &token.text,
            logprob: token.logprob,
            bytes: token.text.as_bytes(),
            top_logprobs: token
                .alternatives
                .iter()
                .take(top)
                .map(|(text, logprob)| alternative(text, *logprob))
                .collect(),
        });
        Self { content: content.collect() }
    }
}

#[derive(Serialize)]
struct TextBody<'a> {
    id: String,
    object: &'a str,
    created: u64,
    model: &'a str,
    choices: [TextChoice<'a>; 1],
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct TextChoice<'a> {
    index: u32,
    text: Option<&'a str>,
    logprobs: Option<TextLogprobs<'a>>,
    finish_reason: &'a str,
}

#[derive(Serialize)]
struct TextLogprobs<'a> {
    text_offset: Vec<usize>,
    tokens: Vec<&'a str>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> TextLogprobs<'a> {
    fn new(tokens: &'a [Token], top: usize) -> Self {
        let mut offset = 0;
        let text_offset = tokens.iter().map(|token| {
            let at = offset;
            // Counted in characters, as Python does.
            offset += token.text.chars().count();
            at
        });
        let top_of = |token: &Token| {
            token.alternatives.iter().take(top).map(|(text, logprob)| (text.clone(), (*logprob).into())).collect()
        };
        Self {
            text_offset: text_offset.collect(),
            tokens: tokens.iter().map(|token| token.text.as_str()).collect(),
            token_logprobs: tokens.iter().map(|token| token.logprob).collect(),
            top_logprobs: tokens.iter().map(top_of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::answer::plain_text;
    use super::*;

    fn answer<'a>(endpoint: Endpoint) -> Answer<'a> {
        let mut tokens = plain_text("ab é");
        tokens[0].alternatives.push(("x".into(), -3.5));
        let usage = Usage {
            prompt_tokens: 5,
            completion_tokens: 2,
            total_tokens: 7,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: 4 }),
        };
        Answer {
            endpoint,
            number: 3,
            model: "m",
            tokens,
            content: Content::Text,
            refusal: None,
            finish_reason: "stop",
            top_logprobs: Some(20),
            usage: Some(usage),
        }
    }

    fn body(answer: &Answer<'_>) -> Value {
        serde_json::from_slice(&answer.response().body).unwrap()
    }

    #[test]
    fn a_chat_answer_has_the_shape_of_vllm() {
        let body = body(&answer(Endpoint::Chat));
        assert_eq!(body["id"], "chatcmpl-simulated-3");
        let choice = &body["choices"][0];
        assert_eq!(choice["message"], json!({"role": "assistant", "content": "ab é", "refusal": null}));
        assert_eq!(choice["finish_reason"], "stop");
        let first = &choice["logprobs"]["content"][0];
        assert_eq!((&first["token"], &first["bytes"]), (&json!("ab"), &json!([97, 98])));
        assert_eq!(first["top_logprobs"][1], json!({"token": "x", "logprob": -3.5, "bytes": [120]}));
        assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    }

    #[test]
    fn a_completion_has_the_shape_of_vllm() {
        let body = body(&answer(Endpoint::Completions));
        assert_eq!(body["id"], "cmpl-simulated-3");
        let logprobs = &body["choices"][0]["logprobs"];
        assert_eq!(logprobs["tokens"], json!(["ab", " é"]));
        assert_eq!(logprobs["text_offset"], json!([0, 2]));
        assert_eq!(logprobs["top_logprobs"][0]["x"], -3.5);
        assert_eq!(body["choices"][0]["text"], "ab é");
    }

    #[test]
    fn what_is_not_asked_or_not_there_is_null() {
        let mut answer = answer(Endpoint::Chat);
        answer.top_logprobs = None;
        answer.content = Content::Null;
        answer.usage = None;
        let body = body(&answer);
        assert_eq!(body["choices"][0]["logprobs"], Value::Null);
        assert_eq!(body["choices"][0]["message"]["content"], Value::Null);
        assert_eq!(body["usage"], Value::Null);
    }

    #[test]
    fn errors_carry_the_status_as_an_integer() {
        let error = SimulatedResponse::error(404, "The model `x` does not exist.", Some("model"));
        assert_eq!(
            String::from_utf8_lossy(&error.body),
            r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#
        );
    }
}
