//! The way of a completion request through the simulated server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::answer::{Draft, DraftObject, Form, Style, plain_text};
use super::cache::SlotCache;
use super::classify::Classifier;
use super::engine::{Inner, SimulatedEngine};
use super::faults::{Decided, Fault, Overload, Poison, Verdict};
use super::prefix::Prefix;
use super::prompt::{self, Framed, Listed};
use super::reply::{Answer, PromptTokensDetails, SimulatedReply, SimulatedResponse, Usage};
use super::request::{Ask, Endpoint, Format};
use super::settings::StructuredOutputs;
use super::spoil::{Output, spoil_draft, spoil_output, spoil_response};

/// What the simulation says to a prompt in which it finds no items or no categories.
const NOTHING_TO_DO: &str = "There is nothing to categorize in this prompt. (simulated)";
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// A prompt, read.
struct Prompt {
    prefix: Arc<Prefix>,
    items: Vec<Framed>,
    token_ids: Vec<u64>,
}

impl SimulatedEngine {
    pub(super) async fn complete(&self, endpoint: Endpoint, body: &[u8]) -> SimulatedReply {
        let _in_flight = self.inner.in_flight.enter();
        // Both are replies; the error is one that comes early.
        match self.try_complete(endpoint, body).await {
            Ok(reply) | Err(reply) => reply,
        }
    }

    async fn try_complete(&self, endpoint: Endpoint, body: &[u8]) -> Result<SimulatedReply, SimulatedReply> {
        let inner = &*self.inner;
        let mut decided = self.decide(body)?;
        let ask = Ask::read(endpoint, body).map_err(|message| refusal(400, &message, None))?;
        let prompt = inner.read_prompt(&ask);
        if inner.replace_answer(&ask, &prompt, &decided)? {
            std::future::pending::<()>().await;
        }
        let max_tokens = inner.check(&ask, &prompt)?;
        let poison = inner.poison_of(&prompt.items);
        if let Some(reply) = poison.and_then(poisoned_reply) {
            return Err(reply);
        }
        let output = match poison {
            Some(Poison::ContentFilter) => Output::none("content_filter"),
            Some(_) => Output::refusal(),
            None => inner.write(&ask, &prompt, max_tokens, &mut decided),
        };
        let usage = inner.run(&prompt.token_ids, output.tokens.len()).await?;
        Ok(inner.finish(&ask, &prompt, output, usage, &decided))
    }

    /// Whether the request is handled at all, and with which faults.
    fn decide(&self, body: &[u8]) -> Result<Decided, SimulatedReply> {
        let inner = &*self.inner;
        let (verdict, overload) = {
            let mut state = inner.faults();
            (state.next(body), state.faults.overload)
        };
        let decided = match verdict {
            Verdict::Refused => return Err(refusal(503, "The model is still loading. (simulated)", None)),
            Verdict::Dies(death) => {
                self.die(death);
                return Err(SimulatedReply::Reset);
            }
            Verdict::Handled(decided) => decided,
        };
        if let Some((most, overload)) = overload.filter(|(most, _)| inner.in_flight.now() > *most) {
            inner.counts().overloaded += 1;
            let status = match overload {
                Overload::TooManyRequests => 429,
                Overload::Unavailable => 503,
            };
            return Err(refusal(status, &format!("More than {most} requests in flight. (simulated)"), None));
        }
        Ok(decided)
    }
}

impl Inner {
    fn read_prompt(&self, ask: &Ask) -> Prompt {
        let prefix = self.prefixes.of(ask.endpoint, &ask.prefix);
        let stamp = self.settings.has_stamped_template.then(|| self.counts().completion_requests());
        let token_ids = prefix.prompt_tokens(stamp, &ask.message);
        Prompt { prefix, items: prompt::items(&ask.message), token_ids }
    }

    /// Gives the reply of a fault that takes the place of an answer as the error, or whether the request hangs.
    fn replace_answer(&self, ask: &Ask, prompt: &Prompt, decided: &Decided) -> Result<bool, SimulatedReply> {
        let Some(fault) = decided.faults.first().copied().filter(|fault| fault.is_instead_of_answer()) else {
            return Ok(false);
        };
        let applies = match fault {
            Fault::ResponseFormatRefused => ask.format != Format::Text,
            Fault::LogprobsRefused => ask.top_logprobs.is_some(),
            _ => true,
        };
        if !applies {
            return Ok(false);
        }
        *self.counts().faults.entry(fault).or_default() += 1;
        let wait = self.faults().faults.retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
        match fault {
            Fault::Hang => Ok(true),
            Fault::ContextLength => Err(self.context_refusal(prompt.token_ids.len(), ask.max_tokens.unwrap_or(0))),
            Fault::ModelMissing => Err(model_refusal(&ask.model)),
            fault => Err(fault_reply(fault, wait)),
        }
    }

    /// What vLLM checks before a request may run. Gives the most output tokens.
    fn check(&self, ask: &Ask, prompt: &Prompt) -> Result<usize, SimulatedReply> {
        if ask.model != self.settings.model {
            return Err(model_refusal(&ask.model));
        }
        let refused = match (self.settings.structured_outputs, &ask.format) {
            (_, Format::Text)
            | (StructuredOutputs::JsonSchema, _)
            | (StructuredOutputs::JsonSchemaObjectRootOnly | StructuredOutputs::JsonObjectOnly, Format::JsonObject) => None,
            (StructuredOutputs::JsonSchemaObjectRootOnly, Format::JsonSchema(schema)) => (!schema.root_is_object).then_some(
                "Invalid schema for response_format: schema must be a JSON Schema of 'type: \"object\"', got 'type: \"array\"'.",
            ),
            (StructuredOutputs::JsonObjectOnly, Format::JsonSchema(_)) => {
                Some("response_format type must be one of 'text', 'json_object'; got 'json_schema'.")
            }
            (StructuredOutputs::None, _) => Some("response_format is not supported by this server."),
        };
        if let Some(message) = refused {
            return Err(refusal(400, message, Some("response_format")));
        }
        let room = self.settings.max_model_len.saturating_sub(prompt.token_ids.len());
        let max_tokens = ask.max_tokens.unwrap_or(room);
        if room == 0 || max_tokens > room {
            return Err(self.context_refusal(prompt.token_ids.len(), max_tokens));
        }
        Ok(max_tokens)
    }

    /// A 400 in the words of vLLM.
    fn context_refusal(&self, prompt_tokens: usize, max_tokens: usize) -> SimulatedReply {
        let (limit, total) = (self.settings.max_model_len, prompt_tokens.saturating_add(max_tokens));
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, you requested {total} tokens ({prompt_tokens} \
             in the messages, {max_tokens} in the completion). Please reduce the length of the messages or completion."
        );
        refusal(400, &message, None)
    }

    fn poison_of(&self, items: &[Framed]) -> Option<Poison> {
        let state = self.faults();
        let is_in = |word: &String| items.iter().any(|item| item.text.contains(word.as_str()));
        let poison = state.faults.poisons.iter().find(|(word, _)| is_in(word)).map(|(_, poison)| *poison);
        if poison.is_some() {
            self.counts().poisoned += 1;
        }
        poison
    }

    /// Writes the answer, with the faults in it.
    fn write(&self, ask: &Ask, prompt: &Prompt, max_tokens: usize, decided: &mut Decided) -> Output {
        let allowed = match &ask.format {
            Format::JsonSchema(schema) => schema.labels.as_slice(),
            Format::Text | Format::JsonObject => &[],
        };
        // Without a listing in the prompt the labels of the schema are all there is to choose from.
        let bare;
        let mut classifier = &prompt.prefix.classifier;
        if classifier.labels().is_empty() && !allowed.is_empty() {
            let listed = |id: &String| Listed { id: id.clone(), name: String::new(), description: String::new() };
            bare = Classifier::new(&allowed.iter().map(listed).collect::<Vec<_>>(), None);
            classifier = &bare;
        }
        let mut output = if prompt.items.is_empty() || classifier.labels().is_empty() {
            Output::of(plain_text(NOTHING_TO_DO))
        } else {
            let mut draft = self.draft(ask, &prompt.items, classifier, allowed);
            let labels = classifier.labels();
            spoil_draft(&mut draft, labels, decided);
            Output::of(draft.write(Style { labels, blanks: self.settings.has_label_whitespace }))
        };
        spoil_output(&mut output, max_tokens, decided);
        if output.finish_reason == "stop" {
            if ask.ignores_eos {
                output.pad(max_tokens);
                output.finish_reason = "length";
            } else if let Some(output_tokens) = self.settings.output_tokens {
                output.pad(output_tokens.min(max_tokens));
            }
        }
        output.limit(max_tokens);
        output
    }

    fn draft(&self, ask: &Ask, items: &[Framed], classifier: &Classifier, allowed: &[String]) -> Draft {
        let labels = classifier.labels();
        let allowed: BTreeSet<_> = allowed.iter().collect();
        let most_labels = ask.format.most_labels(&ask.prefix);
        let object = |item: &Framed| {
            let mut shares = classifier.probabilities(&item.text, self.settings.noise, self.settings.seed);
            // A grammar leaves no other label than those of the schema.
            if labels.iter().any(|label| allowed.contains(label)) {
                for (share, label) in shares.iter_mut().zip(labels) {
                    *share = if allowed.contains(label) { *share } else { 0.0 };
                }
                let total: f64 = shares.iter().sum();
                for share in &mut shares {
                    *share /= total;
                }
            }
            DraftObject::new(item.id, labels, shares, most_labels)
        };
        let form = match &ask.format {
            Format::JsonSchema(schema) if schema.is_single => Form::Single,
            Format::Text if prompt::asks_for_wrapped(&ask.message) => Form::Wrapped,
            format if format.root_is_object() => Form::Wrapped,
            _ => Form::Array,
        };
        Draft {
            objects: items.iter().map(object).collect(),
            form,
            element: ask.format.element(&ask.prefix),
            before: String::new(),
            after: String::new(),
        }
    }

    /// Lets the request wait, and then run.
    async fn run(&self, prompt: &[u64], output_tokens: usize) -> Result<Usage, SimulatedReply> {
        let place = self.schedule.admit(prompt.len() + output_tokens).await.map_err(|_| {
            self.counts().overloaded += 1;
            refusal(429, "Too many requests are waiting. (simulated)", None)
        })?;
        self.lose_cache();
        let slot = self.slots.as_ref().map(|slots| TakenSlot::take(slots, prompt));
        let cached_tokens = slot.as_ref().map_or_else(|| self.cache().cached_tokens(prompt), |slot| slot.cached_tokens);
        let cached_tokens = if cached_tokens < self.settings.least_cached_tokens { 0 } else { cached_tokens };
        place.prefill(prompt.len() - cached_tokens).await;
        // Only now, so that requests that arrive together all compute a prefix that is new.
        self.cache().insert(prompt);
        place.write(output_tokens, self.settings.latency.pace_of(prompt)).await;
        Ok(Usage {
            prompt_tokens: prompt.len(),
            completion_tokens: output_tokens,
            total_tokens: prompt.len() + output_tokens,
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens }),
        })
    }

    /// Empties the cache where that is due.
    fn lose_cache(&self) {
        let every = self.faults().faults.cache_lost_every;
        let answers: u64 = self.counts().finish_reasons.values().sum();
        if every.is_some_and(|every| answers.is_multiple_of(every)) {
            self.clear_cache();
        }
    }

    fn finish(&self, ask: &Ask, prompt: &Prompt, output: Output, usage: Usage, decided: &Decided) -> SimulatedReply {
        let (has_no_usage, has_no_cached_tokens) = {
            let state = self.faults();
            (state.faults.has_no_usage, state.faults.has_no_cached_tokens)
        };
        let number = self.count_answer(prompt, &output, &usage, decided);
        let details = usage.prompt_tokens_details.filter(|_| !has_no_cached_tokens);
        let answer = Answer {
            endpoint: ask.endpoint,
            number,
            model: &self.settings.model,
            tokens: output.tokens,
            content: output.content,
            refusal: output.refusal,
            finish_reason: output.finish_reason,
            top_logprobs: ask.top_logprobs.filter(|_| self.settings.has_logprobs),
            usage: (!has_no_usage).then_some(Usage { prompt_tokens_details: details, ..usage }),
        };
        spoil_response(answer.response(), decided)
    }

    /// Gives the number of the answer.
    fn count_answer(&self, prompt: &Prompt, output: &Output, usage: &Usage, decided: &Decided) -> u64 {
        let mut counts = self.counts();
        counts.items += prompt.items.len() as u64;
        counts.prompt_tokens += usage.prompt_tokens as u64;
        counts.output_tokens += usage.completion_tokens as u64;
        counts.cached_tokens += usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens as u64);
        *counts.finish_reasons.entry(output.finish_reason).or_default() += 1;
        for fault in decided.faults.iter().filter(|fault| !fault.is_instead_of_answer()) {
            *counts.faults.entry(*fault).or_default() += 1;
        }
        counts.finish_reasons.values().sum()
    }
}

/// A slot in use, given back when the request is over or given up.
struct TakenSlot<'a> {
    slots: &'a Mutex<SlotCache>,
    number: usize,
    cached_tokens: usize,
}

impl<'a> TakenSlot<'a> {
    fn take(slots: &'a Mutex<SlotCache>, prompt: &[u64]) -> Self {
        let (number, cached_tokens) = slots.lock().unwrap_or_else(PoisonError::into_inner).take(prompt);
        Self { slots, number, cached_tokens }
    }
}

impl Drop for TakenSlot<'_> {
    fn drop(&mut self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.number);
    }
}

/// The replies to poison that come without an answer.
fn poisoned_reply(poison: Poison) -> Option<SimulatedReply> {
    match poison {
        Poison::Status400 => Some(refusal(400, "The request cannot be processed. (simulated)", None)),
        Poison::Status500 => Some(refusal(500, "Internal server error. (simulated)", None)),
        Poison::CloseConnection => Some(SimulatedReply::Reset),
        Poison::ContentFilter | Poison::Refusal => None,
    }
}

fn refusal(status: u16, message: &str, param: Option<&str>) -> SimulatedReply {
    SimulatedReply::Response(SimulatedResponse::error(status, message, param))
}

fn model_refusal(model: &str) -> SimulatedReply {
    refusal(404, &format!("The model `{model}` does not exist."), Some("model"))
}

/// The replies of the faults that are the same for every request.
fn fault_reply(fault: Fault, retry_after: Duration) -> SimulatedReply {
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    let too_many = || SimulatedResponse::error(429, "Too many requests. (simulated)", None);
    let response = match fault {
        Fault::Reset => return SimulatedReply::Reset,
        Fault::TooManyRequestsHtml => {
            let page = "<html><head><title>429 Too Many Requests</title></head>\n<body><h1>429 Too Many Requests</h1></body></html>\n";
            SimulatedResponse::new(429, "text/html", page)
        }
        Fault::TooManyRequestsSeconds => too_many().with_header("retry-after", seconds.to_string()),
        Fault::TooManyRequestsDate => {
            // Dates have whole seconds; rounded up, so that the wait is never too short.
            let date = SystemTime::now() + Duration::from_secs(seconds) + Duration::from_millis(999);
            too_many().with_header("retry-after", httpdate::fmt_http_date(date))
        }
        Fault::UnavailableEmpty => SimulatedResponse::new(503, "text/plain", ""),
        Fault::Overloaded529 => {
            let body = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded (simulated)"}}"#;
            SimulatedResponse::new(529, "application/json", body)
        }
        Fault::BadRequest => SimulatedResponse::error(400, "The request cannot be processed. (simulated)", None),
        Fault::ResponseFormatRefused => {
            let message = "response_format is not supported by this server. (simulated)";
            SimulatedResponse::error(400, message, Some("response_format"))
        }
        Fault::LogprobsRefused => {
            SimulatedResponse::error(400, "logprobs are not supported by this server. (simulated)", Some("logprobs"))
        }
        Fault::Unauthorized => SimulatedResponse::error(401, "The key is not valid. (simulated)", None),
        Fault::Forbidden => SimulatedResponse::error(403, "The key may not use this model. (simulated)", None),
        _ => SimulatedResponse::error(500, "Internal server error. (simulated)", None),
    };
    SimulatedReply::Response(response)
}
