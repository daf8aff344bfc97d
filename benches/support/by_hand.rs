//! The least that a user must write over a bare reqwest client: the JSON of each request from its items, the answer into
//! typed structs, every id and label checked. No cleaning, no cutting, no limits, no retries, no copies, no statistics.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use slugline::NewsItem;

use crate::clients::{Result, Run, in_workers};
use crate::fixtures::taxonomy;

/// A request with all that does not change, as its JSON is known from one that slugline sends.
#[derive(Clone, Deserialize, Serialize)]
struct Request {
    model: String,
    messages: Vec<Message>,
    max_tokens: usize,
    temperature: f32,
    response_format: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logprobs: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    top_logprobs: Option<u32>,
}

#[derive(Clone, Deserialize, Serialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Content,
    /// None where they were not asked for.
    logprobs: Option<Logprobs>,
}

#[derive(Deserialize)]
struct Content {
    content: String,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Vec<Generated>,
}

#[derive(Deserialize)]
struct Generated {
    token: String,
    logprob: f64,
    #[serde(default)]
    top_logprobs: Vec<Generated>,
}

#[derive(Deserialize)]
struct Label {
    id: usize,
    category: String,
}

/// `body` is that of any request for full packs of these items.
pub(crate) fn by_hand(base_url: &str, body: &Bytes, items: &[NewsItem], pack_size: usize) -> Result<Run> {
    let client = reqwest::Client::builder().tcp_nodelay(true).build()?;
    let url = format!("{base_url}/chat/completions");
    let template: Request = serde_json::from_slice(body)?;
    let labels: HashSet<String> = taxonomy()?.categories().map(|category| category.id.to_string()).collect();
    let labels = Arc::new(labels);
    let packs: Vec<Vec<NewsItem>> = items.chunks(pack_size).map(<[NewsItem]>::to_vec).collect();
    let worker = move |packs: Vec<Vec<NewsItem>>| {
        let (client, url, labels, mut request) = (client.clone(), url.clone(), Arc::clone(&labels), template.clone());
        async move {
            for pack in packs {
                request.messages[1].content = user_message(&pack);
                let response = client.post(&url).header("content-type", "application/json");
                let response = response.body(serde_json::to_vec(&request)?).send().await?;
                let answer: Answer = serde_json::from_slice(&response.error_for_status()?.bytes().await?)?;
                let choice = answer.choices.into_iter().next().ok_or("no choice")?;
                let found: Vec<Label> = serde_json::from_str(&choice.message.content)?;
                let are_in_order = found.iter().map(|label| label.id).eq(1..=pack.len());
                if !are_in_order || found.iter().any(|label| !labels.contains(&label.category)) {
                    return Err("an id or a label is wrong".into());
                }
                if request.logprobs.is_some() {
                    least_probability(&choice.logprobs.ok_or("no log-probabilities")?);
                }
            }
            Ok(())
        }
    };
    Ok(in_workers(&packs, worker))
}

fn user_message(pack: &[NewsItem]) -> String {
    let items: Vec<_> = (1..)
        .zip(pack)
        .map(|(id, item)| format!("<item id=\"{id}\">\n{}\n{}\n</item>\n", item.title, item.body))
        .collect();
    format!("{}Categories of items 1 to {}, as a JSON array:", items.concat(), pack.len())
}

/// A use of what was asked for: the probability of the least sure token, of those that are among their own alternatives.
fn least_probability(logprobs: &Logprobs) -> f64 {
    let is_among = |token: &&Generated| token.top_logprobs.iter().any(|other| other.token == token.token);
    logprobs.content.iter().filter(is_among).map(|token| token.logprob.exp()).fold(1.0, f64::min)
}
