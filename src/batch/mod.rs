//! Offline batches: the packs of a run as an input file for the OpenAI Batch API or `vllm run-batch`, and the result file
//! back under the same contract as answers of a server.
//!
//! A batch goes in rounds. [`Batch::begin`] packs the items; [`Batch::write_requests`] writes the requests of a round;
//! whoever runs them gives result files, in any order and state; [`Batch::settle`] reads them into outcomes and the next
//! round, which has everything that is still without one: requests that are missing from the results, failed ones, and
//! items whose answer was not valid. The last round is empty, and every item has had exactly one outcome.
//!
//! Between rounds a [`Round`] is kept in a file ([`Batch::save`], [`Batch::load`]), so that another process can go on. It
//! holds the text of the items that are not settled: about a kilobyte each, in the file and in memory.
//!
//! **Nothing is mislabelled.** The `custom_id` of a request is a hash of its items, their order, the model and the prompt: a
//! result belongs to exactly the request it was made for, or to none. Requests that were missing keep theirs, so a result
//! that comes late still counts. Where two results of one request give an item different labels, neither is believed.
//!
//! Near-duplicates, escalation, evened positions and pack sizes by measurement need answers while the run goes: a batch
//! refuses them. Exact copies are asked once, calibrations are applied.

mod pack;
mod results;
mod round;
mod settle;

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use serde::Serialize;

pub use self::round::{BatchError, Round};
pub use self::settle::{Settled, Tally};
use crate::NewsItem;
use crate::outcome::Outcome;
use crate::run::Shared;
use crate::server::{
    BoxFuture, Dialect, EndpointConfig, Request, Response, StructuredOutput, Transport, TransportError,
    TransportErrorKind,
};

/// Writes requests to files and reads results from files; made by
/// [`CategorizerBuilder::batch`](crate::CategorizerBuilder::batch).
///
/// ```
/// use slugline::{Categorizer, Category, NewsItem, Taxonomy};
/// use slugline::batch::Limits;
///
/// let taxonomy = Taxonomy::new("desk", "1", [
///     Category::new("sport", "Sport", "Games."),
///     Category::new("business", "Business", "Trade."),
/// ])?;
/// let batch = Categorizer::builder(taxonomy).model("Qwen/Qwen2.5-7B-Instruct-AWQ").batch()?;
/// let (round, outcomes) = batch.begin([NewsItem::new("a", "Cup final", "The club won.")]);
/// assert!(outcomes.is_empty(), "only items without text are settled at once");
///
/// let parts = batch.write_requests(&round, Limits::default(), |_| Ok(Vec::new()))?;
/// // Whoever runs the file answers with lines like this one.
/// let request: serde_json::Value = serde_json::from_slice(&parts[0].file)?;
/// let answer = serde_json::json!({"choices": [{"message": {"content": r#"[{"id":1,"category":"sport"}]"#}}]});
/// let line = serde_json::json!({"custom_id": request["custom_id"], "response": {"status_code": 200, "body": answer}});
///
/// let settled = batch.settle(&round, [line.to_string().as_bytes()])?;
/// assert_eq!(settled.outcomes[0].result.as_ref().unwrap().category.as_str(), "sport");
/// assert!(settled.next.is_done());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    shared: Arc<Shared>,
    /// The form of the first round; later ones may have learned that a part of it is refused.
    dialect: Dialect,
    model: Arc<str>,
    /// What stands in outcomes in place of an endpoint.
    endpoint: Arc<str>,
}

/// What a file of requests may hold.
///
/// Defaults: 50,000 requests and 200 MB, as the OpenAI Batch API allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    requests: usize,
    bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 50_000, bytes: 200_000_000 }
    }
}

impl Limits {
    /// The most requests of a file, at least 1. Default: 50,000.
    #[must_use]
    pub fn requests(self, most: usize) -> Self {
        Self { requests: most.max(1), ..self }
    }

    /// The most bytes of a file; a single larger request has a file of its own. Default: 200,000,000.
    #[must_use]
    pub fn bytes(self, most: u64) -> Self {
        Self { bytes: most, ..self }
    }
}

/// A file of requests that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part<W> {
    /// The file, flushed.
    pub file: W,
    /// Its requests.
    pub requests: usize,
    /// Its size.
    pub bytes: u64,
}

/// The name that stands in outcomes of a batch in place of an endpoint.
const ENDPOINT: &str = "batch";

/// What a categorizer has in place of an endpoint where it is made for a batch.
pub(crate) fn endpoint() -> EndpointConfig {
    EndpointConfig::new(ENDPOINT).transport(NoServer)
}

impl Batch {
    pub(crate) fn new(shared: Arc<Shared>, dialect: Dialect) -> Self {
        let model = shared.pool.models().next().unwrap_or_default().into();
        Self { shared, dialect, model, endpoint: ENDPOINT.into() }
    }

    /// What holds answers to their schema in the first round. Servers that refuse an array at the root of a schema, as OpenAI
    /// does, need [`StructuredOutput::JsonSchemaObject`]; without it the first round is refused and the second one has it.
    /// Default: [`StructuredOutput::JsonSchema`].
    #[must_use]
    pub fn structured_output(mut self, form: StructuredOutput) -> Self {
        self.dialect.structured_output = form;
        self
    }

    /// Packs the items into the first round. Items without text have their outcomes at once.
    pub fn begin(&self, items: impl IntoIterator<Item = NewsItem>) -> (Round, Vec<Outcome>) {
        self.first_round(items)
    }

    /// Writes the requests of a round as lines `{"custom_id", "method", "url", "body"}`. `open` makes the file for the part
    /// with this number, from 0; it is flushed and given back. An empty round opens none.
    ///
    /// # Errors
    /// A file cannot be opened or written.
    pub fn write_requests<W: Write>(
        &self,
        round: &Round,
        limits: Limits,
        mut open: impl FnMut(usize) -> io::Result<W>,
    ) -> io::Result<Vec<Part<W>>> {
        let mut parts: Vec<Part<W>> = Vec::new();
        let mut line = Vec::new();
        for (custom_id, request) in round.requests(self) {
            line.clear();
            let url = match &request {
                Request::Chat(_) => "/v1/chat/completions",
                Request::Completion(_) => "/v1/completions",
            };
            serde_json::to_writer(&mut line, &RequestLine { custom_id, method: "POST", url, body: &request })?;
            line.push(b'\n');
            let bytes = line.len() as u64;
            let has_room =
                |part: &Part<W>| part.requests < limits.requests && part.bytes.saturating_add(bytes) <= limits.bytes;
            if !parts.last().is_some_and(has_room) {
                if let Some(full) = parts.last_mut() {
                    full.file.flush()?;
                }
                parts.push(Part { file: open(parts.len())?, requests: 0, bytes: 0 });
            }
            if let Some(part) = parts.last_mut() {
                part.file.write_all(&line)?;
                part.requests += 1;
                part.bytes += bytes;
            }
        }
        if let Some(last) = parts.last_mut() {
            last.file.flush()?;
        }
        Ok(parts)
    }

    /// Reads result files, in any order, and settles what they answer. The round itself stays as it is, so that the same
    /// can be done again. Lines that cannot be read, are of no request of the round or give no answer are counted and
    /// otherwise ignored: their items are in the next round.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn settle<R: BufRead>(&self, round: &Round, results: impl IntoIterator<Item = R>) -> io::Result<Settled> {
        self.settle_results(round, results)
    }

    /// Writes a round, for [`load`](Self::load).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, round: &Round, out: impl Write) -> io::Result<()> {
        round.save(self, out)
    }

    /// Reads a round that [`save`](Self::save) wrote, also that of another process or an earlier version.
    ///
    /// # Errors
    /// The file cannot be read, is not whole, or belongs to another taxonomy, prompt or model.
    pub fn load(&self, from: impl BufRead) -> Result<Round, BatchError> {
        Round::load(self, from)
    }
}

/// A line of a file of requests.
#[derive(Serialize)]
struct RequestLine<'a> {
    custom_id: &'a str,
    method: &'static str,
    url: &'static str,
    body: &'a Request,
}

#[derive(Debug)]
struct NoServer;

impl Transport for NoServer {
    fn send<'a>(&'a self, _: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        let error = TransportError::new(TransportErrorKind::Connect, "a batch has no server");
        Box::pin(std::future::ready(Err(error)))
    }
}
