//! Reads result files: which request a line answers, and how.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::round::Round;
use super::{Batch, Tally};
use crate::answer::{Fault, Label};
use crate::error::Failure;
use crate::prompt::frame::user_message;
use crate::server::wire::{Finish, nan_to_null};
use crate::server::{Attempt, Refused, Response, Verdict, judge};

/// The longest line that is read. An answer to sixteen items with log-probabilities takes an eightieth of it.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// What became of a request.
pub(super) enum Answer {
    /// For each item, in their order.
    Labels(Vec<Result<Label, Fault>>),
    Failed {
        failure: Failure,
        refused: Option<Refused>,
    },
}

/// The answers to the requests of a round.
pub(super) struct Results<'a> {
    batch: &'a Batch,
    round: &'a Round,
    at_id: HashMap<&'a str, usize>,
    /// In the order of the requests.
    pub(super) answers: Vec<Option<Answer>>,
    pub(super) tally: Tally,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    #[serde(borrow, default)]
    response: Option<LineResponse<'a>>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct LineResponse<'a> {
    status_code: u16,
    #[serde(default)]
    request_id: Option<String>,
    #[serde(borrow, default)]
    body: Option<&'a RawValue>,
}

impl<'a> Results<'a> {
    pub(super) fn new(batch: &'a Batch, round: &'a Round) -> Self {
        let at_id = round.asks.iter().zip(0..).map(|(ask, at)| (&*ask.custom_id, at)).collect();
        let answers = round.asks.iter().map(|_| None).collect();
        Self { batch, round, at_id, answers, tally: Tally::default() }
    }

    pub(super) fn read(&mut self, mut from: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        while read_line(&mut from, &mut line)? {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim().trim_start_matches('\u{feff}');
            if text.is_empty() {
                continue;
            }
            if let Ok(line) = serde_json::from_str(text) {
                self.take(&line);
                continue;
            }
            // Python writes NaN.
            let repaired = nan_to_null(text);
            match repaired.as_deref().map(serde_json::from_str::<Line<'_>>) {
                Some(Ok(line)) => self.take(&line),
                _ => self.tally.unreadable_lines += 1,
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &Line<'_>) {
        let Some(&at) = self.at_id.get(&*line.custom_id) else {
            self.tally.unknown_lines += 1;
            return;
        };
        // Without a response the request was never sent: it expired, or the batch was cancelled.
        let Some(response) = &line.response else { return };
        let answer = self.answer(at, response, line.error);
        let slot = &mut self.answers[at];
        *slot = Some(match slot.take() {
            None => answer,
            Some(known) => {
                self.tally.repeated_lines += 1;
                agreed(known, answer)
            }
        });
    }

    fn answer(&self, at: usize, response: &LineResponse<'_>, error: Option<&RawValue>) -> Answer {
        let texts = self.round.asks[at].texts();
        // vLLM puts the body of a failure beside the response, and its real status into that.
        let (status, body) = match (response.body, error) {
            (None, Some(error)) => (status_of(error).unwrap_or(response.status_code), error.get()),
            (body, _) => (response.status_code, body.map_or("", RawValue::get)),
        };
        let mut received = Response::new(status, body.to_owned());
        received.request_id = response.request_id.as_ref().map(|id| id.chars().take(80).collect());
        let message = user_message(texts.iter().map(AsRef::as_ref), self.round.dialect.closing());
        match judge(Attempt::Response(received), &self.batch.endpoint, &message, None) {
            Verdict::Failed { failure, refused, .. } => Answer::Failed { failure, refused },
            Verdict::Answer(completion) => Answer::Labels(self.batch.shared.reader.understand(
                &completion.text,
                completion.finish == Finish::Length,
                completion.tokens.as_deref(),
                texts.len(),
            )),
        }
    }
}

/// Whether two labels name the same categories, the further ones included.
fn is_same(first: &Label, second: &Label) -> bool {
    let further = |label: &Label| label.secondary.iter().map(|(category, _)| *category).collect::<Vec<_>>();
    first.category == second.category && further(first) == further(second)
}

/// What two results of one request say together: an item has a label where one gives it, and none where they differ.
fn agreed(first: Answer, second: Answer) -> Answer {
    match (first, second) {
        (Answer::Labels(first), Answer::Labels(second)) => Answer::Labels(
            first
                .into_iter()
                .zip(second)
                .map(|labels| match labels {
                    (Ok(first), Ok(second)) if !is_same(&first, &second) => Err(Fault::Repeated),
                    // Once two have differed, a third does not decide.
                    (Err(Fault::Repeated), _) | (_, Err(Fault::Repeated)) => Err(Fault::Repeated),
                    (Ok(label), _) | (_, Ok(label)) => Ok(label),
                    (fault, _) => fault,
                })
                .collect(),
        ),
        (Answer::Labels(labels), Answer::Failed { .. }) | (Answer::Failed { .. }, Answer::Labels(labels)) => {
            Answer::Labels(labels)
        }
        (first, Answer::Failed { .. }) => first,
    }
}

/// The status inside of an error, `{"error": {"code": 500}}` or `{"code": 500}`.
fn status_of(error: &RawValue) -> Option<u16> {
    #[derive(Deserialize)]
    struct Coded {
        #[serde(default)]
        code: Option<serde_json::Value>,
        #[serde(default)]
        error: Option<Box<Coded>>,
    }
    let coded: Coded = serde_json::from_str(error.get()).ok()?;
    let code = coded.code.or_else(|| coded.error?.code)?.as_u64()?;
    u16::try_from(code).ok().filter(|status| (400..600).contains(status))
}

/// Reads a line of any length into `line`, cut at a bound so that it cannot be parsed. False at the end.
fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    if from.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
        // The rest is passed over without being kept.
        from.skip_until(b'\n')?;
        line.truncate(1);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(category: usize) -> Label {
        Label { category, probabilities: Vec::new(), secondary: Vec::new() }
    }

    fn labels(answer: Answer) -> Vec<Result<usize, Fault>> {
        let Answer::Labels(labels) = answer else { panic!("a failure") };
        labels.into_iter().map(|label| label.map(|label| label.category)).collect()
    }

    #[test]
    fn results_that_differ_are_not_believed_and_others_complete_each_other() {
        let first = Answer::Labels(vec![Ok(label(0)), Ok(label(1)), Err(Fault::Cut), Err(Fault::Cut)]);
        let second = Answer::Labels(vec![Ok(label(0)), Ok(label(2)), Ok(label(3)), Err(Fault::Missing)]);
        let both = agreed(first, second);
        let third = Answer::Labels(vec![Ok(label(0)), Ok(label(1)), Ok(label(3)), Ok(label(4))]);
        assert_eq!(labels(agreed(both, third)), [Ok(0), Err(Fault::Repeated), Ok(3), Ok(4)]);
    }

    #[test]
    fn a_status_is_found_in_either_form_of_error() {
        let status = |json: &str| status_of(&RawValue::from_string(json.to_owned()).unwrap());
        assert_eq!(status(r#"{"error":{"message":"no","code":500}}"#), Some(500));
        assert_eq!(status(r#"{"object":"error","message":"no","code":429}"#), Some(429));
        for odd in [r#""no""#, "7", "{}", r#"{"code":"invalid"}"#, r#"{"code":99999}"#, r#"{"error":null}"#] {
            assert_eq!(status(odd), None, "{odd}");
        }
    }

    #[test]
    fn an_endless_line_is_passed_over() {
        let text = [vec![b'{'; MAX_LINE_BYTES as usize + 10], b"\n{}\n".to_vec()].concat();
        let (mut from, mut line) = (&*text, Vec::new());
        assert!(read_line(&mut from, &mut line).unwrap());
        assert_eq!(line, b"{");
        assert!(read_line(&mut from, &mut line).unwrap());
        assert_eq!(line, b"{}\n");
        assert!(!read_line(&mut from, &mut line).unwrap());
    }
}
