//! What the faults do to an answer: to its objects, to its tokens, and to its bytes.

use std::time::Duration;

use super::answer::{Draft, DraftObject, Token, plain};
use super::faults::{Decided, Fault};
use super::reply::{Content, Pace, SimulatedReply, SimulatedResponse};

/// A label that no taxonomy should have.
const NO_LABEL: &str = "simulated-nonsense";
/// More than the 8 MiB that a client may be willing to read.
const HUGE_BLANKS_BYTES: usize = 9 * 1024 * 1024;
/// A log-probability that is written as `NaN`; no real one is that low.
pub(super) const NAN_MARK: f64 = -987_654_321.25;
const DRIP_BYTES: usize = 8;
const DRIP_INTERVAL: Duration = Duration::from_secs(1);
pub(super) const REFUSAL: &str = "I'm sorry, but I can't help with that. (simulated)";

/// The output as it goes into the answer.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) tokens: Vec<Token>,
    pub(super) content: Content,
    pub(super) refusal: Option<&'static str>,
    pub(super) finish_reason: &'static str,
}

impl Output {
    pub(super) fn of(tokens: Vec<Token>) -> Self {
        Self { tokens, content: Content::Text, refusal: None, finish_reason: "stop" }
    }

    /// No content for the given reason.
    pub(super) fn none(finish_reason: &'static str) -> Self {
        Self { content: Content::Null, finish_reason, ..Self::of(Vec::new()) }
    }

    pub(super) fn refusal() -> Self {
        Self { refusal: Some(REFUSAL), ..Self::none("stop") }
    }

    /// Adds white space up to this many tokens.
    pub(super) fn pad(&mut self, output_tokens: usize) {
        let missing = output_tokens.saturating_sub(self.tokens.len());
        self.tokens.extend((0..missing).map(|number| plain(if number % 2 == 0 { "\n" } else { "  " })));
    }

    /// Holds the output to a limit.
    pub(super) fn limit(&mut self, max_tokens: usize) {
        if self.tokens.len() > max_tokens {
            self.cut(max_tokens, "length");
        }
    }

    fn cut(&mut self, tokens: usize, finish_reason: &'static str) {
        self.tokens.truncate(tokens);
        self.finish_reason = finish_reason;
    }
}

/// Changes the objects of an answer and what stands around them.
pub(super) fn spoil_draft(draft: &mut Draft, labels: &[String], decided: &mut Decided) {
    let faults = std::mem::take(&mut decided.faults);
    let items = draft.objects.len() as u64;
    for fault in &faults {
        spoil_objects(draft, labels, *fault, items, &mut decided.random);
        match fault {
            Fault::Fenced => {
                draft.before.insert_str(0, "```json\n");
                draft.after.push_str("\n```");
            }
            Fault::Prose => {
                draft.before.insert_str(0, "Sure! Here are the categories [as asked]:\n\n");
                draft.after.push_str("\n\nLet me know if you need {anything} else.");
            }
            Fault::ThinkBlock => {
                let thought = draft.objects.first().map(|object| object.id.clone()).unwrap_or_default();
                let json = format!("[{{\"id\":{thought},\"category\":\"{NO_LABEL}\"}}]");
                draft.before.insert_str(0, &format!("<think>\nPerhaps {json}? No.\n</think>\n\n"));
            }
            _ => {}
        }
    }
    decided.faults = faults;
}

fn spoil_objects(draft: &mut Draft, labels: &[String], fault: Fault, items: u64, random: &mut fastrand::Rng) {
    let objects = &mut draft.objects;
    if objects.is_empty() {
        return;
    }
    let at = random.usize(..objects.len());
    match fault {
        Fault::DropObject => {
            objects.remove(at);
        }
        Fault::DuplicateObject => {
            let mut again = objects[at].clone();
            if random.bool() {
                again.label = other_label(&again.label, labels, random);
            }
            objects.insert(random.usize(at..objects.len()) + 1, again);
        }
        Fault::SwapObjects => {
            let count = objects.len();
            objects.rotate_left(random.usize(1..count.max(2)) % count);
        }
        Fault::UnknownLabel => NO_LABEL.clone_into(&mut objects[at].label),
        Fault::LabelVariant => objects[at].label = variant(&objects[at].label, random),
        Fault::ExtraObject => {
            // Beyond all items, also where one was dropped: else it would take that one's number, and nobody could tell the
            // answer from a right one.
            let id = items + 1 + random.u64(..3);
            let shares = objects[at].shares.clone();
            objects.push(DraftObject::new(id, labels, shares, 1));
        }
        Fault::IdsFromZero => {
            for object in objects {
                if let Ok(id) = object.id.parse::<u64>() {
                    object.id = id.saturating_sub(1).to_string();
                }
            }
        }
        Fault::StringIds => {
            for object in objects {
                if !object.id.starts_with('"') {
                    object.id = format!("\"{}\"", object.id);
                }
            }
        }
        _ => {}
    }
}

fn other_label(label: &str, labels: &[String], random: &mut fastrand::Rng) -> String {
    let others: Vec<_> = labels.iter().filter(|other| *other != label).collect();
    random.choice(others).cloned().unwrap_or_else(|| NO_LABEL.to_owned())
}

/// The same label as a careless model may write it.
fn variant(label: &str, random: &mut fastrand::Rng) -> String {
    match random.u8(..4) {
        0 => label.to_uppercase(),
        1 => format!(" {label}."),
        2 => label.replace('-', " "),
        _ => label.chars().take(1).flat_map(char::to_uppercase).chain(label.chars().skip(1)).collect(),
    }
}

/// Changes the tokens of an answer and how it ends.
pub(super) fn spoil_output(output: &mut Output, max_tokens: usize, decided: &mut Decided) {
    for fault in &decided.faults {
        // Somewhere in the middle half, so that whole objects may stand before it.
        let length = output.tokens.len();
        let middle = decided.random.usize(length / 4..=length - length / 4);
        match fault {
            Fault::CutAnswer => output.cut(middle, "length"),
            Fault::Abort => output.cut(middle, "abort"),
            Fault::WhitespaceLoop => {
                output.cut(middle, "length");
                output.pad(max_tokens);
            }
            Fault::EmptyContent => output.tokens.clear(),
            Fault::NullContent => output.content = Content::Null,
            Fault::ContentFilter => *output = Output::none("content_filter"),
            Fault::Refusal => *output = Output::refusal(),
            Fault::NanLogprobs => {
                for token in &mut output.tokens {
                    token.logprob = NAN_MARK;
                    token.alternatives.iter_mut().for_each(|(_, logprob)| *logprob = NAN_MARK);
                }
            }
            _ => {}
        }
    }
}

/// Changes the bytes of a response and how they arrive.
pub(super) fn spoil_response(mut response: SimulatedResponse, decided: &Decided) -> SimulatedReply {
    if decided.has(Fault::NanLogprobs) {
        // The serializer writes no NaN, so a mark stands for it until here.
        let text = String::from_utf8_lossy(&response.body).replace(&NAN_MARK.to_string(), "NaN");
        response.body = text.into();
    }
    if decided.has(Fault::BadUtf8) {
        response.body = with_bad_utf8(&response.body).into();
    }
    if decided.has(Fault::HugeBody) {
        let mut body = response.body.to_vec();
        body.resize(body.len() + HUGE_BLANKS_BYTES, b' ');
        response.body = body.into();
    }
    if decided.has(Fault::EndlessBody) {
        response.body = vec![b' '; 16 * 1024].into();
        response.pace = Pace::Endless;
    } else if decided.has(Fault::CloseEarly) {
        let after_bytes = response.body.len() / 2;
        return SimulatedReply::CloseEarly { response, after_bytes };
    } else if decided.has(Fault::SlowDrip) {
        response.pace = Pace::Drip { bytes: DRIP_BYTES, interval: DRIP_INTERVAL };
    }
    SimulatedReply::Response(response)
}

/// Puts bytes that no UTF-8 has at the beginning of the answer's text.
fn with_bad_utf8(body: &[u8]) -> Vec<u8> {
    let after = |key: &[u8]| body.windows(key.len()).position(|window| window == key).map(|at| at + key.len());
    let at = after(b"\"content\":\"").or_else(|| after(b"\"text\":\"")).unwrap_or(body.len());
    let (head, tail) = body.split_at(at);
    [head, b"\xff\xc3\x28", tail].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::answer::{Element, Form, Style, plain_text};
    use super::*;
    use crate::answer::{AnswerForm, Reader};
    use crate::{Category, Taxonomy};

    fn labels() -> Vec<String> {
        ["sport", "sci-tech"].map(str::to_owned).to_vec()
    }

    fn decided(faults: &[Fault], seed: u64) -> Decided {
        Decided { faults: faults.to_vec(), random: fastrand::Rng::with_seed(seed) }
    }

    fn spoiled(faults: &[Fault], seed: u64) -> String {
        let labels = labels();
        let objects = (1..=3).map(|id| DraftObject::new(id, &labels, vec![0.2, 0.8], 1)).collect();
        let mut draft = Draft {
            objects,
            form: Form::Array,
            element: Element::Numbered,
            before: String::new(),
            after: String::new(),
        };
        spoil_draft(&mut draft, &labels, &mut decided(faults, seed));
        draft.write(Style { labels: &labels, blanks: false }).iter().map(|token| token.text.as_str()).collect()
    }

    /// The ids and labels of a spoiled answer.
    fn objects(faults: &[Fault], seed: u64) -> Vec<(String, String)> {
        let values: Vec<serde_json::Value> = serde_json::from_str(&spoiled(faults, seed)).unwrap();
        values.iter().map(|value| (value["id"].to_string(), value["category"].as_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn objects_are_spoiled_as_the_fault_says() {
        for seed in 0..20 {
            let ids = |faults: &[Fault]| objects(faults, seed).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
            assert_eq!(ids(&[Fault::DropObject]).len(), 2);
            let mut doubled = ids(&[Fault::DuplicateObject]);
            doubled.sort();
            doubled.dedup();
            assert_eq!((ids(&[Fault::DuplicateObject]).len(), doubled.len()), (4, 3));
            let swapped = ids(&[Fault::SwapObjects]);
            assert!(swapped != ["1", "2", "3"] && swapped.len() == 3, "{swapped:?}");
            assert_eq!(ids(&[Fault::IdsFromZero]), ["0", "1", "2"]);
            assert_eq!(ids(&[Fault::StringIds]), ["\"1\"", "\"2\"", "\"3\""]);
            assert_eq!(ids(&[Fault::IdsFromZero, Fault::StringIds]), ["\"0\"", "\"1\"", "\"2\""]);
            assert!(ids(&[Fault::ExtraObject])[3].parse::<u32>().unwrap() > 3);
            let strange = |fault| {
                let found = objects(&[fault], seed).into_iter();
                found.filter(|(_, label)| label != "sci-tech").map(|(_, label)| label).collect::<Vec<_>>()
            };
            assert_eq!(strange(Fault::UnknownLabel), [NO_LABEL]);
            let variant = strange(Fault::LabelVariant);
            assert!(variant.len() == 1 && variant[0] != "sport", "{variant:?}");
        }
    }

    /// What a client reads of an answer to items that belong to the labels in their order, with these faults: whether some item
    /// got a label that is not its own. The answer may have as many tokens as a right one.
    fn misleads(faults: &[Fault], items: usize, seed: u64, reader: &Reader, labels: &[String]) -> bool {
        let shares = |own: usize| (0..labels.len()).map(|label| if label == own { 0.9 } else { 0.1 }).collect();
        let objects = (0..items).map(|own| DraftObject::new(own as u64 + 1, labels, shares(own), 1)).collect();
        let (before, after) = (String::new(), String::new());
        let mut draft = Draft { objects, form: Form::Array, element: Element::Numbered, before, after };
        let style = Style { labels, blanks: false };
        let max_tokens = draft.write(style).len();
        let mut decided = decided(faults, seed);
        spoil_draft(&mut draft, labels, &mut decided);
        let mut output = Output::of(draft.write(style));
        spoil_output(&mut output, max_tokens, &mut decided);
        output.limit(max_tokens);
        let text: String = output.tokens.iter().map(|token| token.text.as_str()).collect();
        let read = reader.understand(&text, output.finish_reason == "length", None, items);
        read.iter().enumerate().any(|(own, label)| label.as_ref().is_ok_and(|label| label.category != own))
    }

    /// No fault and no two at once make a client take a label that is not an item's own, with one exception that nobody could
    /// tell from a right answer: the model writes a second label for an item first, and the answer is cut before the right one.
    #[test]
    fn of_two_faults_at_once_one_pair_alone_misleads() {
        let ids = ["sport", "health", "arts", "crime"];
        let category = |id: &str| Category::new(id, id.to_uppercase(), format!("About {id}."));
        let taxonomy = Taxonomy::new("t", "1", ids.map(category)).unwrap();
        let reader = Reader::new(&taxonomy, AnswerForm::Objects);
        let labels = ids.map(str::to_owned);
        let kinds = || Fault::ALL.iter().copied().filter(|fault| !fault.is_instead_of_answer());
        let mut misleading = BTreeSet::new();
        for (first, second) in kinds().flat_map(|first| kinds().map(move |second| (first, second))) {
            let faults = if first == second { vec![first] } else { vec![first, second] };
            let of_items = |items| (0..50).any(|seed| misleads(&faults, items, seed, &reader, &labels));
            if first <= second && (1..=ids.len()).any(of_items) {
                misleading.insert((first, second));
            }
        }
        assert_eq!(Vec::from_iter(misleading), [(Fault::DuplicateObject, Fault::SwapObjects)]);
    }

    #[test]
    fn text_stands_around_the_json() {
        assert!(spoiled(&[Fault::Fenced], 1).starts_with("```json\n[{"));
        assert!(spoiled(&[Fault::Prose], 1).starts_with("Sure!"));
        let all = spoiled(&[Fault::Fenced, Fault::Prose, Fault::ThinkBlock], 1);
        assert!(all.starts_with("<think>\nPerhaps [{\"id\":1,\"category\":\"simulated-nonsense\"}]"));
        assert!(all.contains("Sure!") && all.contains("```json") && all.ends_with("else."));
    }

    #[test]
    fn outputs_end_as_the_fault_says() {
        let output = |fault| {
            let mut output = Output::of(plain_text("one two three four five six seven eight"));
            spoil_output(&mut output, 30, &mut decided(&[fault], 5));
            output
        };
        let cut = output(Fault::CutAnswer);
        assert!((2..=6).contains(&cut.tokens.len()));
        assert_eq!((cut.finish_reason, output(Fault::Abort).finish_reason), ("length", "abort"));
        let looped = output(Fault::WhitespaceLoop);
        assert_eq!((looped.tokens.len(), looped.finish_reason), (30, "length"));
        assert!(output(Fault::EmptyContent).tokens.is_empty());
        assert_eq!(output(Fault::NullContent).content, Content::Null);
        assert_eq!(output(Fault::ContentFilter).finish_reason, "content_filter");
        assert_eq!(output(Fault::Refusal).refusal, Some(REFUSAL));
    }

    #[test]
    fn a_limit_cuts_and_padding_fills() {
        let mut output = Output::of(plain_text("one two three"));
        output.pad(10);
        assert_eq!((output.tokens.len(), output.finish_reason), (10, "stop"));
        output.limit(10);
        assert_eq!(output.finish_reason, "stop");
        output.limit(2);
        assert_eq!((output.tokens.len(), output.finish_reason), (2, "length"));
        Output::of(Vec::new()).limit(0);
    }

    #[test]
    fn responses_arrive_as_the_fault_says() {
        let body = br#"{"choices":[{"message":{"content":"abc"}}],"x":-987654321.25}"#;
        let reply = |faults: &[Fault]| {
            spoil_response(SimulatedResponse::new(200, "application/json", body.to_vec()), &decided(faults, 1))
        };
        let response = |faults: &[Fault]| match reply(faults) {
            SimulatedReply::Response(response) => response,
            other => panic!("{other:?}"),
        };
        assert_eq!(&response(&[]).body[..], body);
        let nan = response(&[Fault::NanLogprobs]).body;
        assert!(nan.ends_with(b"\"x\":NaN}") && serde_json::from_slice::<serde_json::Value>(&nan).is_err());
        assert!(std::str::from_utf8(&response(&[Fault::BadUtf8]).body).is_err());
        assert!(response(&[Fault::HugeBody]).body.len() > 8 * 1024 * 1024);
        assert_eq!(response(&[Fault::EndlessBody, Fault::SlowDrip]).pace, Pace::Endless);
        assert!(matches!(response(&[Fault::SlowDrip]).pace, Pace::Drip { bytes: 8, .. }));
        let SimulatedReply::CloseEarly { response, after_bytes } = reply(&[Fault::CloseEarly]) else { panic!() };
        assert_eq!((response.body.len(), after_bytes), (body.len(), body.len() / 2));
    }
}
