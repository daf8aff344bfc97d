//! A transport that answers from a script, in memory: for tests of logic, under tokio's paused clock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::server::{BoxFuture, Request, Response, Transport, TransportError};

/// What a scripted server does with one request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// How long it takes.
    pub after: Duration,
    /// What comes back; `None` never comes.
    pub result: Option<Result<Response, TransportError>>,
}

impl Reply {
    /// A chat completion with this text, at once.
    pub fn text(text: &str) -> Self {
        let body = serde_json::json!({
            "id": "scripted",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20},
        });
        Self::response(Response::new(200, body.to_string()))
    }

    /// Labels for the items 1, 2, 3, … of a pack, at once.
    pub fn labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> Self {
        let object = |(id, label)| serde_json::json!({"id": id, "category": label});
        let objects: Vec<_> = (1..).zip(labels).map(object).collect();
        Self::text(&serde_json::Value::from(objects).to_string())
    }

    /// Labels with log-probabilities, for the items 1, 2, 3, … of a pack, at once: for each item the probabilities of the
    /// labels, of which the most probable is written.
    pub fn probabilities<'a>(items: impl IntoIterator<Item = Vec<(&'a str, f64)>>) -> Self {
        let token = |text: &str, logprob: f64, others: &[(&str, f64)]| {
            let other = |(text, share): &(&str, f64)| serde_json::json!({"token": text, "logprob": share.ln()});
            let others: Vec<_> = others.iter().map(other).collect();
            serde_json::json!({"token": text, "logprob": logprob, "top_logprobs": others})
        };
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut push = |part: &str, share: f64, others: &[(&str, f64)]| {
            text.push_str(part);
            tokens.push(token(part, share.ln(), others));
        };
        for (id, shares) in (1..).zip(items) {
            let best = shares.iter().copied().reduce(|a, b| if b.1 > a.1 { b } else { a });
            let Some((label, share)) = best else { continue };
            let before = if id == 1 { "[" } else { "," };
            push(&format!("{before}{{\"id\":{id},\"category\":\""), 1.0, &[]);
            push(label, share, &shares);
            push("\"}", 1.0, &[]);
        }
        push("]", 1.0, &[]);
        let body = serde_json::json!({
            "choices": [{
                "message": {"role": "assistant", "content": text},
                "logprobs": {"content": tokens},
                "finish_reason": "stop",
            }],
            "usage": {"prompt_tokens": 100, "completion_tokens": tokens.len()},
        });
        Self::response(Response::new(200, body.to_string()))
    }

    /// A status with a body, at once.
    pub fn status(http_status: u16, body: &str) -> Self {
        Self::response(Response::new(http_status, body.to_owned()))
    }

    /// A response, at once.
    pub fn response(response: Response) -> Self {
        Self { after: Duration::ZERO, result: Some(Ok(response)) }
    }

    /// No response, at once.
    pub fn error(error: TransportError) -> Self {
        Self { after: Duration::ZERO, result: Some(Err(error)) }
    }

    /// Nothing, ever.
    pub fn hang() -> Self {
        Self { after: Duration::ZERO, result: None }
    }

    /// The same, later.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.after = wait;
        self
    }
}

/// A request as a script sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// The number of the request, from 0.
    pub number: usize,
    /// The whole request.
    pub request: Request,
    /// The text lines of each item of the pack, title first.
    pub items: Vec<String>,
}

impl Asked {
    fn new(number: usize, request: &Request) -> Self {
        let text = request.items_text();
        let frames = text.split("<item id=\"").skip(1);
        let items = frames.filter_map(|frame| Some(frame.split_once("\">\n")?.1.split_once("\n</item>")?.0.to_owned()));
        Self { number, request: request.clone(), items: items.collect() }
    }
}

type Script = dyn FnMut(&Asked) -> Reply + Send;

/// Answers each request by a closure, and keeps what it was asked.
///
/// ```
/// use slugline::testing::{Reply, ScriptedTransport};
/// use slugline::{Categorizer, Category, EndpointConfig, NewsItem, Taxonomy};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let taxonomy = Taxonomy::new("desk", "1", [
///     Category::new("sport", "Sport", "Games."),
///     Category::new("business", "Business", "Trade."),
/// ])?;
/// let server = ScriptedTransport::new(|asked| Reply::labels(asked.items.iter().map(|_| "sport")));
/// let endpoint = EndpointConfig::new("scripted").transport(server.clone());
/// let categorizer = Categorizer::builder(taxonomy).endpoint(endpoint).model("m").build()?;
/// let report = categorizer.categorize([NewsItem::new("a", "Cup final", "")]).await;
/// assert_eq!((report.categorized(), server.asked().len()), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct ScriptedTransport {
    script: Arc<Mutex<Script>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ScriptedTransport {
    /// A server that does with each request what the closure says.
    pub fn new(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        Self { script: Arc::new(Mutex::new(script)), asked: Arc::default() }
    }

    /// The requests so far, in the order in which they came.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for ScriptedTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScriptedTransport").field("asked", &self.asked().len()).finish_non_exhaustive()
    }
}

impl Transport for ScriptedTransport {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        let reply = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let one = Asked::new(asked.len(), request);
            asked.push(one.clone());
            (self.script.lock().unwrap_or_else(PoisonError::into_inner))(&one)
        };
        Box::pin(async move {
            // Even "at once" lets others run first, as a socket would.
            tokio::task::yield_now().await;
            if !reply.after.is_zero() {
                tokio::time::sleep(reply.after).await;
            }
            match reply.result {
                Some(result) => result,
                None => std::future::pending().await,
            }
        })
    }
}
