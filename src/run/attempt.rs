//! One attempt: write the request, send it, read the answer. Runs as a task of its own, so that requests make progress
//! and time out rightly even while the consumer of the outcomes is busy.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::Instant;
use tracing::Span;

use super::Shared;
use crate::answer::{Fault, Label};
use crate::error::Failure;
use crate::prompt::clean::CleanText;
use crate::prompt::frame::{self, CLOSING_TOKENS, FRAME_TOKENS};
use crate::server::wire::{
    ChatRequest, CompletionRequest, Finish, Options, Request, SystemMessage, Usage, UserMessage,
};
use crate::server::{Admission, Api, Attempt, Dialect, Refused, Verdict, judge};

/// What an attempt came to, for the run loop to settle.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) admission: Admission,
    pub(super) result: AttemptResult,
}

#[derive(Debug)]
pub(super) enum AttemptResult {
    /// The model answered; one label or fault for each item of the pack, in its order.
    Answered { labels: Vec<Result<Label, Fault>>, latency: Duration, usage: Option<Usage> },
    /// There is no answer.
    Failed { failure: Failure, retry_after: Option<Duration>, refused: Option<Refused>, context_tokens: Option<usize> },
}

/// How many alternatives are asked for at each token: as many as vLLM and OpenAI allow.
const TOP_LOGPROBS: u32 = 20;

/// Sends the texts and reads the answer. What comes of it is noted in the span, which is that of the attempt.
pub(super) async fn attempt(
    shared: Arc<Shared>,
    texts: Vec<Arc<CleanText>>,
    admission: Admission,
    span: Span,
) -> Finished {
    let endpoint = admission.endpoint();
    let request = request(&shared, &texts, admission.dialect, Arc::clone(&endpoint.model));
    let started = Instant::now();
    let attempt = match tokio::time::timeout(admission.timeout, endpoint.transport.send(&request)).await {
        Ok(Ok(response)) => Attempt::Response(response),
        Ok(Err(error)) => Attempt::Error(error),
        Err(_) => Attempt::TimedOut(admission.timeout),
    };
    let latency = started.elapsed();
    let key = endpoint.key.as_ref().map(ExposeSecret::expose_secret);
    let result = match judge(attempt, &endpoint.base_url, request.items_text(), key) {
        Verdict::Failed { failure, retry_after, refused, context_tokens } => {
            span.record("error.type", tracing::field::display(failure.kind));
            AttemptResult::Failed { failure, retry_after, refused, context_tokens }
        }
        Verdict::Answer(completion) => {
            if let Some(usage) = completion.usage {
                span.record("gen_ai.usage.input_tokens", usage.prompt_tokens);
                span.record("gen_ai.usage.output_tokens", usage.output_tokens);
                span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
                shared.estimator.observe(shared.prefix.tokens(), items_tokens(&texts), usage.prompt_tokens);
            }
            let was_cut = completion.finish == Finish::Length;
            let tokens = completion.tokens.as_deref();
            let labels = shared.reader.understand(&completion.text, was_cut, tokens, texts.len());
            AttemptResult::Answered { labels, latency, usage: completion.usage }
        }
    };
    Finished { admission, result }
}

/// The estimated tokens of the user message.
pub(super) fn items_tokens(texts: &[Arc<CleanText>]) -> usize {
    texts.iter().map(|text| text.tokens + FRAME_TOKENS).sum::<usize>() + CLOSING_TOKENS
}

/// The request for a pack of these texts.
pub(crate) fn request(shared: &Shared, texts: &[Arc<CleanText>], dialect: Dialect, model: Arc<str>) -> Request {
    let items = frame::user_message(texts.iter().map(AsRef::as_ref), dialect.closing());
    let most_tokens = shared.max_output_tokens(texts.len());
    let options = Options {
        max_tokens: (!dialect.has_new_limit).then_some(most_tokens),
        max_completion_tokens: dialect.has_new_limit.then_some(most_tokens),
        temperature: dialect.temperature.then_some(shared.settings.temperature),
        response_format: shared.schemas.response_format(texts.len(), dialect.structured_output),
        ignore_eos: None,
        fields: Arc::clone(&shared.settings.request_fields),
    };
    match dialect.api {
        Api::Chat => Request::Chat(ChatRequest {
            model,
            messages: (SystemMessage { content: Arc::clone(shared.prefix.json()) }, UserMessage { content: items }),
            options,
            logprobs: dialect.logprobs.then_some(true),
            top_logprobs: dialect.logprobs.then_some(TOP_LOGPROBS),
        }),
        Api::Completions => Request::Completion(CompletionRequest {
            model,
            prompt: format!("{}\n{items}\n", shared.prefix.text()),
            items_start: shared.prefix.text().len(),
            options,
            logprobs: dialect.logprobs.then_some(TOP_LOGPROBS),
        }),
    }
}
