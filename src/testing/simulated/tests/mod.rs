//! Tests of the simulated server as a whole.

mod answers;
mod faults;
mod load;
mod socket;

use serde_json::{Value, json};

use super::{SimulatedEngine, SimulatedReply, SimulatedResponse};

pub(super) const PREFIX: &str = "You are a news editor.\n\nCategories, as id: name. what belongs there.\n\
    - sport: Sport. Matches, athletes, leagues and championships.\n\
    - business: Business. Companies, markets, banks and trade.\n\
    - sci-tech: Science and Technology. Research, software, space and computers.\n\
    - other: Other. None of these.\n\nExample:\n<item id=\"1\">\nSport\nMatches.\n</item>\n\
    [{\"id\":1,\"category\":\"sport\"}]\n";

pub(super) const THREE: [&str; 3] =
    ["The league match ended late", "Banks lead the markets", "New software for computers in space"];

/// A user message with these items.
pub(super) fn message(texts: &[&str]) -> String {
    let frames = (1..).zip(texts).map(|(id, text)| format!("<item id=\"{id}\">\n{text}\n</item>\n"));
    format!("{}Categories of items 1 to {}, as a JSON array:", frames.collect::<String>(), texts.len())
}

/// A chat request about these items, with logprobs, for an array held to a schema.
pub(super) fn chat(texts: &[&str]) -> Value {
    let labels = ["sport", "business", "sci-tech", "other"];
    let object = json!({"type": "object", "properties": {"id": {"type": "integer"}, "category": {"enum": labels}}});
    let schema = json!({"type": "array", "minItems": texts.len(), "maxItems": texts.len(), "items": object});
    json!({
        "model": "simulated",
        "messages": [{"role": "system", "content": PREFIX}, {"role": "user", "content": message(texts)}],
        "max_tokens": 200, "temperature": 0, "logprobs": true, "top_logprobs": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "c", "strict": true, "schema": schema}},
    })
}

pub(super) async fn ask(engine: &SimulatedEngine, body: &Value) -> SimulatedReply {
    engine.handle("/v1/chat/completions", None, body.to_string().as_bytes()).await
}

pub(super) async fn respond(engine: &SimulatedEngine, body: &Value) -> SimulatedResponse {
    match ask(engine, body).await {
        SimulatedReply::Response(response) => response,
        other => panic!("{other:?}"),
    }
}

/// The status and the body, which must be JSON or empty.
pub(super) async fn answer(engine: &SimulatedEngine, body: &Value) -> (u16, Value) {
    let response = respond(engine, body).await;
    let value = if response.body.is_empty() { Value::Null } else { serde_json::from_slice(&response.body).unwrap() };
    (response.status, value)
}

/// The text of an answer.
pub(super) fn content(body: &Value) -> &str {
    body["choices"][0]["message"]["content"].as_str().unwrap_or_default()
}
