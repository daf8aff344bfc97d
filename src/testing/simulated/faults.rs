//! Which faults a simulated server has, and for which requests.

use std::collections::HashMap;
use std::time::Duration;

use super::hash::stable_hash;

/// The ways in which a simulated server can fail a request, each with a rate in [`Faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    // The order matters: what stands before `SlowDrip` takes the place of an answer.
    /// Never answers; the connection stays open.
    Hang,
    /// The connection is reset before the answer.
    Reset,
    /// Status 429 with a page of HTML.
    TooManyRequestsHtml,
    /// Status 429 with `Retry-After` in seconds.
    TooManyRequestsSeconds,
    /// Status 429 with `Retry-After` as a date.
    TooManyRequestsDate,
    /// Status 500 with a JSON error.
    InternalError,
    /// Status 503 with an empty body.
    UnavailableEmpty,
    /// Status 529 with a JSON error that is not vLLM's.
    Overloaded529,
    /// Status 400 for the whole request, with vLLM's integer `code`.
    BadRequest,
    /// Status 400: the prompt is said to be too long.
    ContextLength,
    /// Status 400 on the `response_format`, if the request has one.
    ResponseFormatRefused,
    /// Status 400 on `logprobs`, if the request has them.
    LogprobsRefused,
    /// Status 401.
    Unauthorized,
    /// Status 403.
    Forbidden,
    /// Status 404: the model is said not to exist.
    ModelMissing,

    /// The answer arrives a few bytes at a time: 8 every second.
    SlowDrip,
    /// The connection closes in the middle of the answer's body.
    CloseEarly,
    /// The answer is followed by blanks, 9 MiB of them.
    HugeBody,
    /// The answer is followed by blanks without end.
    EndlessBody,
    /// The answer's text has bytes that are not UTF-8.
    BadUtf8,
    /// The log-probabilities are `NaN`, so that the body is not JSON. Nothing happens to an answer without any.
    NanLogprobs,

    /// One object is missing.
    DropObject,
    /// One object is there twice, half of the time with another label.
    DuplicateObject,
    /// The objects are in another order; their ids are right. Nothing happens to a single one.
    SwapObjects,
    /// A label that is no category.
    UnknownLabel,
    /// A label in other case or with other punctuation.
    LabelVariant,
    /// One more object, with an id that no item has.
    ExtraObject,
    /// Ids that count from zero.
    IdsFromZero,
    /// Ids that are strings.
    StringIds,
    /// The JSON stands in a Markdown fence.
    Fenced,
    /// The JSON stands between sentences.
    Prose,
    /// A `<think>` block before the JSON, with a JSON array in it.
    ThinkBlock,

    /// The answer stops in the middle, with `finish_reason: "length"`.
    CutAnswer,
    /// From some point on there is nothing but white space up to `max_tokens`, with `finish_reason: "length"`.
    WhitespaceLoop,
    /// The content is an empty string.
    EmptyContent,
    /// The content is null.
    NullContent,
    /// `finish_reason: "content_filter"` and no content.
    ContentFilter,
    /// A refusal instead of content.
    Refusal,
    /// `finish_reason: "abort"` in the middle of the answer, as vLLM gives it for an aborted request.
    Abort,
}

impl Fault {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Hang,
        Self::Reset,
        Self::TooManyRequestsHtml,
        Self::TooManyRequestsSeconds,
        Self::TooManyRequestsDate,
        Self::InternalError,
        Self::UnavailableEmpty,
        Self::Overloaded529,
        Self::BadRequest,
        Self::ContextLength,
        Self::ResponseFormatRefused,
        Self::LogprobsRefused,
        Self::Unauthorized,
        Self::Forbidden,
        Self::ModelMissing,
        Self::SlowDrip,
        Self::CloseEarly,
        Self::HugeBody,
        Self::EndlessBody,
        Self::BadUtf8,
        Self::NanLogprobs,
        Self::DropObject,
        Self::DuplicateObject,
        Self::SwapObjects,
        Self::UnknownLabel,
        Self::LabelVariant,
        Self::ExtraObject,
        Self::IdsFromZero,
        Self::StringIds,
        Self::Fenced,
        Self::Prose,
        Self::ThinkBlock,
        Self::CutAnswer,
        Self::WhitespaceLoop,
        Self::EmptyContent,
        Self::NullContent,
        Self::ContentFilter,
        Self::Refusal,
        Self::Abort,
    ];

    /// Whether [`Faults::mix`] has it: what a good server does now and then, without meaning anything for other requests.
    /// Refused keys, models and dialects are not among it, nor are bodies of gigabytes in all.
    fn is_in_mix(self) -> bool {
        !matches!(
            self,
            Self::ContextLength
                | Self::ResponseFormatRefused
                | Self::LogprobsRefused
                | Self::Unauthorized
                | Self::Forbidden
                | Self::ModelMissing
                | Self::HugeBody
                | Self::EndlessBody
        )
    }

    /// Whether it takes the place of an answer, so that nothing is computed. They are the first ones of the enum.
    pub(super) fn is_instead_of_answer(self) -> bool {
        self < Self::SlowDrip
    }
}

/// How a request fails that holds a poison item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poison {
    /// Status 400.
    Status400,
    /// Status 500.
    Status500,
    /// `finish_reason: "content_filter"` and no content.
    ContentFilter,
    /// A refusal instead of content.
    Refusal,
    /// The connection is reset.
    CloseConnection,
}

/// What a server says that has too many requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overload {
    /// Status 429 with a JSON error, without `Retry-After`.
    TooManyRequests,
    /// Status 503 with a JSON error, without `Retry-After`.
    Unavailable,
}

/// The faults of a [`SimulatedServer`](super::SimulatedServer). Default: none.
///
/// Whether a request meets a fault depends on the seed, the bytes of its body, and how often that same body has been
/// seen: not on the order or the time in which requests arrive. The kinds are decided independently of each other. Of
/// those that take the place of an answer the first in [`Fault::ALL`] happens; of the others all happen, where they can
/// meet: an object may be missing from an answer that is fenced and arrives slowly.
///
/// ```
/// use slugline::testing::{Fault, Faults, Poison};
///
/// let faults = Faults::mix(0.15).with(Fault::Hang, 0.0).poison("xyzzy", Poison::Status400);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    rates: Vec<(Fault, f64)>,
    pub(super) poisons: Vec<(String, Poison)>,
    pub(super) overload: Option<(usize, Overload)>,
    pub(super) refused_first: u64,
    pub(super) death: Option<Death>,
    pub(super) retry_after: Option<Duration>,
    pub(super) has_no_usage: bool,
    pub(super) has_no_cached_tokens: bool,
    pub(super) cache_lost_every: Option<u64>,
}

/// When a server dies, and when it lives again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Death {
    pub(super) after_requests: u64,
    pub(super) revival: Option<Duration>,
}

impl Faults {
    /// No faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// An even mix of the faults that a good server may have now and then, so that about this share of the requests (0
    /// to 1) meets one of them. Left out are those that mean something for all other requests (401, 403, 404, refused
    /// dialects, context length) and the huge and endless bodies.
    pub fn mix(total_rate: f64) -> Self {
        let kinds: Vec<_> = Fault::ALL.iter().copied().filter(|fault| fault.is_in_mix()).collect();
        let rate = 1.0 - (1.0 - total_rate.clamp(0.0, 1.0)).powf(1.0 / kinds.len() as f64);
        kinds.into_iter().fold(Self::default(), |faults, fault| faults.with(fault, rate))
    }

    /// With this fault for this share of the requests, 0 to 1; replaces an earlier rate of the same fault.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: f64) -> Self {
        self.rates.retain(|(known, _)| *known != fault);
        self.rates.push((fault, rate));
        self
    }

    /// The rate of a fault, 0 to 1.
    pub fn rate(&self, fault: Fault) -> f64 {
        self.rates.iter().find(|(known, _)| *known == fault).map_or(0.0, |(_, rate)| *rate)
    }

    /// Any request that holds an item whose text contains this word, in the same case, fails in this way, always.
    #[must_use]
    pub fn poison(mut self, word: impl Into<String>, poison: Poison) -> Self {
        self.poisons.push((word.into(), poison));
        self
    }

    /// Requests are turned away while more than this number would be in flight.
    #[must_use]
    pub fn overload_above(mut self, in_flight: usize, overload: Overload) -> Self {
        self.overload = Some((in_flight, overload));
        self
    }

    /// The first completion requests after these faults are set get status 503, as from a server that still loads its
    /// model.
    #[must_use]
    pub fn refuse_first(mut self, requests: u64) -> Self {
        self.refused_first = requests;
        self
    }

    /// The completion request after this many, counted from when these faults are set, kills the server: it and all in
    /// flight are reset, later ones refused. After the revival time, if there is one, the server is back, its prefix cache
    /// empty; it dies only once.
    #[must_use]
    pub fn die_after(mut self, requests: u64, revival: Option<Duration>) -> Self {
        self.death = Some(Death { after_requests: requests, revival });
        self
    }

    /// What the faults with `Retry-After` say, in whole seconds rounded up. Default 1 s.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Answers have no `usage`.
    #[must_use]
    pub fn without_usage(mut self) -> Self {
        self.has_no_usage = true;
        self
    }

    /// The `usage` says nothing of cached tokens, as vLLM's does without `--enable-prompt-tokens-details`.
    #[must_use]
    pub fn without_cached_tokens(mut self) -> Self {
        self.has_no_cached_tokens = true;
        self
    }

    /// The prefix cache is emptied before each of this many-th answers, as the load of others does to it.
    #[must_use]
    pub fn lose_cache_every(mut self, answers: u64) -> Self {
        self.cache_lost_every = Some(answers.max(1));
        self
    }
}

/// The faults with what they remember.
#[derive(Debug)]
pub(super) struct FaultState {
    pub(super) faults: Faults,
    seed: u64,
    requests: u64,
    seen: Seen,
}

/// What happens to one request before it is looked at.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// The server still loads.
    Refused,
    /// The server dies.
    Dies(Death),
    /// The request is handled, with these faults.
    Handled(Decided),
}

/// The faults of one request.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    /// In the order of [`Fault::ALL`]. One that takes the place of the answer stands alone.
    pub(super) faults: Vec<Fault>,
    /// For the details of the faults.
    pub(super) random: fastrand::Rng,
}

impl Decided {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

impl FaultState {
    pub(super) fn new(faults: Faults, seed: u64) -> Self {
        Self { faults, seed, requests: 0, seen: Seen::default() }
    }

    /// Decides on the next completion request.
    pub(super) fn next(&mut self, body: &[u8]) -> Verdict {
        self.requests += 1;
        if self.requests <= self.faults.refused_first {
            return Verdict::Refused;
        }
        if let Some(death) = self.faults.death.filter(|death| self.requests > death.after_requests) {
            self.faults.death = None;
            return Verdict::Dies(death);
        }
        if self.faults.rates.is_empty() {
            return Verdict::Handled(Decided { faults: Vec::new(), random: fastrand::Rng::with_seed(self.seed) });
        }
        let hash = stable_hash(self.seed, body);
        let times = self.seen.count(hash);
        let mut random = fastrand::Rng::with_seed(stable_hash(hash, &times.to_le_bytes()));
        let mut faults = Vec::new();
        for fault in Fault::ALL {
            // Drawn for every kind, so that the rate of one does not move the others.
            let drawn = random.f64();
            if drawn < self.faults.rate(*fault) {
                faults.push(*fault);
            }
        }
        if faults.first().is_some_and(|fault| fault.is_instead_of_answer()) {
            faults.truncate(1);
        }
        Verdict::Handled(Decided { faults, random })
    }
}

/// How many bodies are remembered at least; twice as many at most, which bounds the memory of a long run.
const REMEMBERED_BODIES: usize = 32_768;

/// Counts how often the same body was seen, for the latest bodies.
#[derive(Debug, Default)]
struct Seen {
    young: HashMap<u64, u32>,
    old: HashMap<u64, u32>,
}

impl Seen {
    /// How often it was seen before.
    fn count(&mut self, hash: u64) -> u32 {
        if self.young.len() >= REMEMBERED_BODIES {
            self.old = std::mem::take(&mut self.young);
        }
        let before = self.old.get(&hash).copied().unwrap_or(0);
        let count = self.young.entry(hash).or_insert(before);
        *count += 1;
        *count - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(state: &mut FaultState, body: &str) -> Vec<Fault> {
        match state.next(body.as_bytes()) {
            Verdict::Handled(decided) => decided.faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_lists_every_fault_once_and_in_order() {
        assert!(Fault::ALL.is_sorted_by(|a, b| a < b));
        assert_eq!(Fault::ALL.last(), Some(&Fault::Abort));
        assert_eq!(Fault::ALL.len(), Fault::Abort as usize + 1);
    }

    #[test]
    fn decisions_follow_seed_body_and_repetition_but_not_order() {
        let faults = Faults::mix(0.5);
        let run = |seed: u64, bodies: &mut dyn Iterator<Item = u32>| {
            let mut state = FaultState::new(faults.clone(), seed);
            let mut decided: Vec<_> = bodies.map(|n| (n, decide(&mut state, &format!("body {}", n / 2)))).collect();
            decided.sort();
            decided
        };
        let forward = run(1, &mut (0..200).step_by(2));
        assert_eq!(forward, run(1, &mut (0..200).step_by(2).rev()));
        assert_ne!(forward, run(2, &mut (0..200).step_by(2)));
        let mut state = FaultState::new(faults, 1);
        let same: Vec<_> = (0..20).map(|_| decide(&mut state, "body")).collect();
        assert!(same.windows(2).any(|two| two[0] != two[1]), "a second try may go well");
    }

    #[test]
    fn rates_are_met() {
        let mut state = FaultState::new(Faults::none().with(Fault::Fenced, 0.9).with(Fault::Fenced, 0.1), 1);
        let met = (0..5_000).filter(|n| !decide(&mut state, &n.to_string()).is_empty()).count();
        assert!((400..600).contains(&met), "{met}");
        let mut state = FaultState::new(Faults::mix(0.15), 1);
        let met = (0..10_000).filter(|n| !decide(&mut state, &n.to_string()).is_empty()).count();
        assert!((1_350..1_650).contains(&met), "{met}");
    }

    #[test]
    fn what_takes_the_place_of_an_answer_stands_alone_and_the_rest_combine() {
        let faults = Faults::none().with(Fault::Fenced, 1.0).with(Fault::StringIds, 1.0);
        let mut state = FaultState::new(faults.clone(), 1);
        assert_eq!(decide(&mut state, "x"), [Fault::StringIds, Fault::Fenced]);
        let mut state = FaultState::new(faults.with(Fault::InternalError, 1.0).with(Fault::Hang, 1.0), 1);
        assert_eq!(decide(&mut state, "x"), [Fault::Hang]);
    }

    #[test]
    fn a_server_refuses_at_first_and_dies_once() {
        let faults = Faults::none().refuse_first(2).die_after(4, None);
        let mut state = FaultState::new(faults, 1);
        let kinds: Vec<_> = (0..8)
            .map(|_| match state.next(b"x") {
                Verdict::Refused => "refused",
                Verdict::Dies(_) => "dies",
                Verdict::Handled(_) => "handled",
            })
            .collect();
        assert_eq!(kinds, ["refused", "refused", "handled", "handled", "dies", "handled", "handled", "handled"]);
    }

    #[test]
    fn the_memory_of_bodies_is_bounded() {
        let mut seen = Seen::default();
        for n in 0..200_000_u64 {
            assert_eq!(seen.count(n), 0);
        }
        assert!(seen.young.len() + seen.old.len() <= 2 * REMEMBERED_BODIES);
        assert_eq!((seen.count(199_999), seen.count(199_999)), (1, 2));
    }
}
