//! `/v1/chat/completions` and `/v1/models`, as OpenAI has them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::chat::Message;
use crate::engine::{Answer, Engine, Failure, Step};
use crate::grammar::Form;

/// The most alternatives that a request may ask for at a token, as with OpenAI.
const MOST_ALTERNATIVES: u64 = 20;

#[derive(Clone)]
struct Served {
    name: Arc<str>,
    /// The mutex serves in the order of arrival, and forgets a request whose client has gone.
    engine: Arc<Mutex<Engine>>,
}

/// Serves a model under a name. One request is worked on at a time, by all cores.
pub(crate) fn router(name: &str, engine: Engine) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/models", get(models))
        .with_state(Served { name: name.into(), engine: Arc::new(Mutex::new(engine)) })
}

async fn models(State(served): State<Served>) -> Json<Value> {
    let model = json!({"id": &*served.name, "object": "model", "owned_by": "slugline-chat-model"});
    Json(json!({"object": "list", "data": [model]}))
}

async fn complete(State(served): State<Served>, Json(body): Json<Value>) -> Response {
    if body["model"] != *served.name {
        return refusal(StatusCode::NOT_FOUND, &format!("the model here is {}", served.name));
    }
    let form = match Form::of(&body["response_format"]) {
        Ok(form) => form,
        Err(refused) => return refusal(StatusCode::BAD_REQUEST, &refused.to_string()),
    };
    if messages(&body).is_none() {
        return refusal(
            StatusCode::BAD_REQUEST,
            "messages must be a list of objects with a role and a text as content",
        );
    }
    let logprobs = body["logprobs"] == true;
    let top = if logprobs { body["top_logprobs"].as_u64().unwrap_or(0).min(MOST_ALTERNATIVES) } else { 0 };
    let max_tokens = body["max_tokens"].as_u64().map_or(usize::MAX, |most| most as usize);

    let mut engine = served.engine.lock_owned().await;
    let work = move || engine.answer(&messages(&body).unwrap_or_default(), &form, top as usize);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(answer)) => Json(completion(&served.name, &answer, logprobs, max_tokens)).into_response(),
        Ok(Err(failure @ Failure::TooLong { .. })) => refusal(StatusCode::BAD_REQUEST, &failure.to_string()),
        Ok(Err(failure)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &failure.to_string()),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the model failed"),
    }
}

fn messages<'a>(body: &'a Value) -> Option<Vec<Message<'a>>> {
    let message =
        |value: &'a Value| Some(Message { role: value["role"].as_str()?, content: value["content"].as_str()? });
    body["messages"].as_array().filter(|messages| !messages.is_empty())?.iter().map(message).collect()
}

fn completion(name: &str, answer: &Answer, logprobs: bool, max_tokens: usize) -> Value {
    let is_cut = answer.steps.len() > max_tokens;
    let steps = &answer.steps[..answer.steps.len().min(max_tokens)];
    let content: String = if is_cut { steps.iter().map(|step| &*step.text).collect() } else { answer.text.clone() };
    let logprobs = logprobs.then(|| json!({"content": steps.iter().map(token).collect::<Vec<_>>()}));
    let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    json!({
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": seconds,
        "model": name,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content},
            "logprobs": logprobs,
            "finish_reason": if is_cut { "length" } else { "stop" },
        }],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": steps.len(),
            "total_tokens": answer.prompt_tokens + steps.len(),
            "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
        },
    })
}

fn token(step: &Step) -> Value {
    let one = |text: &str, logprob: f32| json!({"token": text, "logprob": logprob, "bytes": text.as_bytes()});
    let mut token = one(&step.text, step.logprob);
    token["top_logprobs"] = step.alternatives.iter().map(|(text, logprob)| one(text, *logprob)).collect();
    token
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let error = json!({"message": message, "type": kind, "param": null, "code": status.as_u16()});
    (status, Json(json!({"error": error}))).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::tiny;
    use slugline::{AnswerForm, Categorizer, Category, NewsItem, Taxonomy};

    async fn start() -> String {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router("tiny", tiny::engine())).await });
        base_url
    }

    fn taxonomy() -> Taxonomy {
        let category = |id: &str, name: &str, description: &str| Category::new(id, name, description);
        Taxonomy::new(
            "desk",
            "1",
            [
                category("sport", "Sport", "Matches, athletes and clubs."),
                category("spore", "Fungi", "Mushrooms, moulds and yeasts."),
                category("art", "Art", "Paintings, museums and galleries."),
            ],
        )
        .unwrap()
    }

    #[tokio::test]
    async fn the_client_of_slugline_runs_unchanged() {
        let base_url = start().await;
        for (form, pack_size) in
            [(AnswerForm::Objects, 3), (AnswerForm::Objects, 1), (AnswerForm::Bare, 1), (AnswerForm::Category, 1)]
        {
            let categorizer = Categorizer::builder(taxonomy())
                .endpoint(base_url.as_str())
                .model("tiny")
                .answer_form(form)
                .pack_size(pack_size)
                .build()
                .unwrap();
            let items =
                (0..6).map(|n| NewsItem::new(n.to_string(), format!("Title {n}"), format!("Body {n} says more.")));
            let report = categorizer.categorize(items).await;
            for outcome in &report.outcomes {
                let assignment = outcome.result.as_ref().unwrap();
                // Where each byte is a token, an answer to three items is cut, and some are asked again.
                assert!(pack_size > 1 || assignment.origin.attempts == 1, "{form:?}");
                // A model of random weights is sure of nothing.
                assert!(assignment.confidence.is_none_or(|share| (0.0..=1.0).contains(&share)), "{assignment:?}");
            }
            assert_eq!(report.outcomes.len(), 6);
            let cached_share = report.stats.cached_share().unwrap();
            assert!(cached_share > 0.3, "{form:?}: {cached_share} of the prompt tokens were read once");
        }
    }

    #[tokio::test]
    async fn what_it_cannot_do_is_refused_with_a_word() {
        let served = Served { name: "tiny".into(), engine: Arc::new(Mutex::new(tiny::engine())) };
        let message = json!({"role": "user", "content": "One"});
        let schema = json!({"type": "array", "items": {"type": "string", "enum": ["a"]}, "minItems": 1, "maxItems": 1});
        let format = json!({"type": "json_schema", "json_schema": {"schema": schema}});
        for (body, status) in [
            (json!({"model": "tiny", "messages": [message], "response_format": format}), StatusCode::OK),
            (json!({"model": "other", "messages": [message], "response_format": format}), StatusCode::NOT_FOUND),
            (json!({"model": "tiny", "messages": [message]}), StatusCode::BAD_REQUEST),
            (json!({"model": "tiny", "messages": [], "response_format": format}), StatusCode::BAD_REQUEST),
            (
                json!({"model": "tiny", "messages": [{"role": "user"}], "response_format": format}),
                StatusCode::BAD_REQUEST,
            ),
        ] {
            let response = complete(State(served.clone()), Json(body.clone())).await;
            assert_eq!(response.status(), status, "{body}");
        }
    }

    #[test]
    fn an_answer_over_the_limit_is_cut_and_says_so() {
        let step = |text: &str| Step { text: text.to_owned(), logprob: 0.0, alternatives: vec![] };
        let steps = ["[", "\"a", "\"]"].map(step).to_vec();
        let answer = Answer { text: "[\"a\"]".to_owned(), steps, prompt_tokens: 9, cached_tokens: 4 };
        let cut = completion("tiny", &answer, false, 2);
        assert_eq!(cut["choices"][0]["message"]["content"], "[\"a");
        assert_eq!(
            (&cut["choices"][0]["finish_reason"], &cut["usage"]["completion_tokens"]),
            (&json!("length"), &json!(2))
        );
        assert_eq!(completion("tiny", &answer, false, 3)["choices"][0]["finish_reason"], "stop");
    }
}
