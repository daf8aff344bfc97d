//! What all benches work on: a taxonomy, items of the length of a news agency's, and a server that answers at once.

use bytes::Bytes;
use slugline::server::{BoxFuture, Request, Response, Transport, TransportError};
use slugline::{NewsItem, Taxonomy, TaxonomyError};

/// The most items of a request that there is an answer for.
const MAX_PACK_SIZE: usize = 16;

pub(crate) fn taxonomy() -> Result<Taxonomy, TaxonomyError> {
    Taxonomy::load(concat!(env!("CARGO_MANIFEST_DIR"), "/categories/newsroom.toml"))
}

pub(crate) fn items(count: usize) -> impl Iterator<Item = NewsItem> {
    let body =
        "The council approved the plan after a long debate. Opponents said that the costs are not known. ".repeat(6);
    (0..count).map(move |n| NewsItem::new(n.to_string(), format!("Story number {n}"), body.as_str()))
}

/// The text that a model writes for so many items: the same label for each.
pub(crate) fn answer_text(count: usize) -> String {
    let objects: Vec<_> = (1..=count).map(|id| format!("{{\"id\":{id},\"category\":\"sport\"}}")).collect();
    format!("[{}]", objects.join(","))
}

/// The response body with this answer, without log-probabilities.
pub(crate) fn response_body(count: usize) -> Bytes {
    let body = serde_json::json!({
        "id": "stub",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": answer_text(count)},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 1_100, "completion_tokens": 40},
    });
    body.to_string().into()
}

/// The same with 20 log-probabilities for each token, as vLLM writes it, with the answer in tokens of four letters.
pub(crate) fn response_with_logprobs(count: usize, taxonomy: &Taxonomy) -> Bytes {
    let text = answer_text(count);
    let labels: Vec<_> = taxonomy.categories().map(|category| category.id.as_str()).collect();
    let tokens: Vec<_> = text
        .as_bytes()
        .chunks(4)
        .map(|token| {
            let token = String::from_utf8_lossy(token);
            let alternatives: Vec<_> = (0..20)
                .map(|rank| {
                    let text = if rank == 0 { &*token } else { labels[rank % labels.len()] };
                    serde_json::json!({"token": text, "logprob": -0.25 - rank as f64, "bytes": text.as_bytes()})
                })
                .collect();
            serde_json::json!({"token": token, "logprob": -0.25, "bytes": token.as_bytes(), "top_logprobs": alternatives})
        })
        .collect();
    let body = serde_json::json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": null},
            "logprobs": {"content": tokens},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 1_100, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 1_024}},
    });
    body.to_string().into()
}

/// A server in memory, without sockets and without waiting.
#[derive(Clone, Debug)]
pub(crate) struct AtOnce {
    plain: Vec<Bytes>,
    with_logprobs: Vec<Bytes>,
}

impl AtOnce {
    pub(crate) fn new() -> Result<Self, TaxonomyError> {
        let taxonomy = taxonomy()?;
        let counts = 0..=MAX_PACK_SIZE;
        let with_logprobs = counts.clone().map(|count| response_with_logprobs(count, &taxonomy)).collect();
        Ok(Self { plain: counts.map(response_body).collect(), with_logprobs })
    }

    /// The answer for so many items.
    pub(crate) fn body(&self, count: usize, has_logprobs: bool) -> Bytes {
        let bodies = if has_logprobs { &self.with_logprobs } else { &self.plain };
        bodies.get(count).cloned().unwrap_or_default()
    }
}

impl Transport for AtOnce {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        // The number of the last item is that of the items.
        let last = request.items_text().rsplit_once("<item id=\"").map_or("", |(_, last)| last);
        let count: usize = last.split('"').next().and_then(|count| count.parse().ok()).unwrap_or_default();
        let has_logprobs = matches!(request, Request::Chat(request) if request.logprobs.is_some());
        Box::pin(std::future::ready(Ok(Response::new(200, self.body(count, has_logprobs)))))
    }
}
