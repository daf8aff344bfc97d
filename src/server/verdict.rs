//! What an attempt means: a pure reading of status, headers and body.

use std::sync::Arc;
use std::time::Duration;

use super::dialect::Refused;
use super::error_words::error_words;
use super::transport::{Response, TransportError, TransportErrorKind};
use super::wire::{Completion, Finish, read_completion};
use crate::error::{Failure, FailureKind, redact, without_lines};

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// The model wrote something, whole or cut.
    Answer(Box<Completion>),
    /// Nothing usable came.
    Failed {
        failure: Failure,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
        /// The part of the request's form that the server does not know.
        refused: Option<Refused>,
        /// The context length that the server states, in tokens.
        context_tokens: Option<usize>,
    },
}

/// The result of sending one request, the timeout included.
#[derive(Clone, Debug)]
pub(crate) enum Attempt {
    Response(Response),
    Error(TransportError),
    TimedOut(Duration),
}

/// Judges an attempt. `request_text` and `key` are what must not be repeated in words.
pub(crate) fn judge(attempt: Attempt, endpoint: &Arc<str>, request_text: &str, key: Option<&str>) -> Verdict {
    let failure = |kind, http_status, words: &str, request_id| Failure {
        kind,
        endpoint: Arc::clone(endpoint),
        http_status,
        words: redact(words, request_text, key),
        request_id,
    };
    let failed = |failure| Verdict::Failed { failure, retry_after: None, refused: None, context_tokens: None };
    let response = match attempt {
        Attempt::TimedOut(after) => {
            let words = format!("no whole answer within {:.1} s", after.as_secs_f64());
            return failed(failure(FailureKind::Timeout, None, &words, None));
        }
        Attempt::Error(error) => {
            let kind = match error.kind {
                TransportErrorKind::Connect => FailureKind::Connect,
                TransportErrorKind::Interrupted => FailureKind::Interrupted,
                TransportErrorKind::TooLarge => FailureKind::UnusableResponse,
            };
            return failed(failure(kind, None, &error.reason, None));
        }
        Attempt::Response(response) => response,
    };
    let status = response.http_status;
    if (200..300).contains(&status) {
        let Some(completion) = read_completion(&response.body) else {
            let words = "the body is no answer of a model server";
            return failed(failure(FailureKind::UnusableResponse, Some(status), words, response.request_id));
        };
        let kind = match completion.finish {
            Finish::ContentFilter => FailureKind::ContentFilter,
            Finish::Refusal => FailureKind::Refusal,
            Finish::Stop | Finish::Length => return Verdict::Answer(Box::new(completion)),
        };
        let request_id = response.request_id.or(completion.id);
        return failed(failure(kind, Some(status), "", request_id));
    }
    let words = error_words(&response.body);
    // A title may say that a model was not found.
    let (kind, refused) = kind_of(status, &without_lines(&words, request_text));
    Verdict::Failed {
        failure: failure(kind, Some(status), &words, response.request_id),
        retry_after: response.retry_after,
        refused,
        context_tokens: (kind == FailureKind::ContextLength).then(|| context_tokens(&words)).flatten(),
    }
}

/// Servers state these conditions in words alone; the phrases are those of vLLM, SGLang, llama.cpp, Ollama and OpenAI.
fn kind_of(status: u16, words: &str) -> (FailureKind, Option<Refused>) {
    let words = words.to_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    // An account that is used up takes no request until somebody pays, so waiting and splitting are of no use.
    let is_used_up = says(&["insufficient_quota", "insufficient balance", "insufficient credit", "credit balance"]);
    match status {
        400..500 if is_used_up => (FailureKind::KeyRefused, None),
        429 | 503 | 529 => (FailureKind::Overloaded, None),
        401..=403 => (FailureKind::KeyRefused, None),
        404 | 405 => (FailureKind::UnknownModel, None),
        408 => (FailureKind::Timeout, None),
        413 => (FailureKind::ContextLength, None),
        500.. if says(&["context size", "context length"]) => (FailureKind::ContextLength, None),
        500.. => (FailureKind::ServerError, None),
        400.. => {
            if says(&[
                "context length",
                "context size",
                "context window",
                "maximum context",
                "max_model_len",
                "too many tokens",
                "input is too long",
                "longer than the maximum",
            ]) {
                (FailureKind::ContextLength, None)
            } else if says(&["content_filter", "content filter", "content management policy", "responsibleai"]) {
                (FailureKind::ContentFilter, None)
            } else if says(&["model"]) && says(&["does not exist", "not found", "unknown model", "invalid model"]) {
                (FailureKind::UnknownModel, None)
            } else if let Some(refused) = Refused::in_words(&words) {
                (FailureKind::Unsupported, Some(refused))
            } else {
                (FailureKind::Rejected, None)
            }
        }
        // A redirect or an informational status is not the address of an API.
        _ => (FailureKind::UnknownModel, None),
    }
}

/// The context length that the words state: the number after "context length is", "context size" or the like.
fn context_tokens(words: &str) -> Option<usize> {
    let words = words.to_lowercase();
    let after = ["context length is", "context size", "context window of", "maximum context length of", "n_ctx"];
    let (at, phrase) = after.iter().find_map(|phrase| Some((words.find(phrase)?, phrase)))?;
    let digits = words[at + phrase.len()..].trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().filter(|tokens| (64..100_000_000).contains(tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Verdict {
        judge(Attempt::Response(Response::new(status, body.to_owned())), &"http://a/v1".into(), "", None)
    }

    fn kind(status: u16, body: &str) -> FailureKind {
        match judged(status, body) {
            Verdict::Failed { failure, .. } => failure.kind,
            Verdict::Answer(_) => panic!("an answer"),
        }
    }

    #[test]
    fn every_status_has_a_meaning_whatever_the_body() {
        for (status, expected) in [
            (400, FailureKind::Rejected),
            (401, FailureKind::KeyRefused),
            (402, FailureKind::KeyRefused),
            (403, FailureKind::KeyRefused),
            (404, FailureKind::UnknownModel),
            (422, FailureKind::Rejected),
            (429, FailureKind::Overloaded),
            (500, FailureKind::ServerError),
            (503, FailureKind::Overloaded),
            (529, FailureKind::Overloaded),
            (302, FailureKind::UnknownModel),
        ] {
            for body in ["", "<html><h1>no</h1></html>", "{\"error\":{\"message\":\"no\",\"code\":1}}", "null"] {
                assert_eq!(kind(status, body), expected, "{status} {body}");
            }
        }
        assert_eq!(kind(200, "<html>"), FailureKind::UnusableResponse);
    }

    #[test]
    fn the_words_of_servers_are_understood() {
        let vllm = r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens","code":400}}"#;
        let Verdict::Failed { failure, context_tokens, .. } = judged(400, vllm) else { panic!("an answer") };
        assert_eq!((failure.kind, context_tokens), (FailureKind::ContextLength, Some(4096)));
        let llama = r#"{"error":{"code":400,"message":"the request exceeds the available context size. try increasing it","type":"exceed_context_size_error","n_ctx":4096}}"#;
        assert_eq!(kind(400, llama), FailureKind::ContextLength);
        assert_eq!(
            kind(400, r#"{"error":{"message":"'response_format.type' must be 'text'"}}"#),
            FailureKind::Unsupported
        );
        assert_eq!(kind(400, r#"{"error":"model 'x' not found"}"#), FailureKind::UnknownModel);
        let used_up = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
        assert_eq!(kind(429, used_up), FailureKind::KeyRefused);
    }

    #[test]
    fn what_the_server_repeats_of_the_request_has_no_meaning() {
        let judged = |request: &str| {
            let body = r#"{"error":{"message":"cannot process: The model was not found"}}"#.to_owned();
            judge(Attempt::Response(Response::new(422, body)), &"http://a/v1".into(), request, None)
        };
        let kind = |request| match judged(request) {
            Verdict::Failed { failure, .. } => failure.kind,
            Verdict::Answer(_) => panic!("an answer"),
        };
        assert_eq!(kind("<item>\nThe model was not found\n</item>"), FailureKind::Rejected);
        assert_eq!(kind("<item>\nA striker signs\n</item>"), FailureKind::UnknownModel);
    }

    #[test]
    fn a_filter_is_no_answer() {
        let body = r#"{"id":"c-1","choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}"#;
        let Verdict::Failed { failure, .. } = judged(200, body) else { panic!("an answer") };
        assert_eq!((failure.kind, failure.request_id.as_deref()), (FailureKind::ContentFilter, Some("c-1")));
    }
}
