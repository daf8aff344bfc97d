//! What a record says: an answer or a failure, in a few dozen bytes.
//!
//! ```text
//! payload = key (16) · kind (1: 1 answer, 2 failure, 3 standing: an answer for later versions of the taxonomy) · body
//! answer  = category · confidence · runners-up · probabilities · endpoint · model · attempts (4) · pack size (2) ·
//!           position (2) · written · calibration · first answer · further categories, where there are any
//! standing = hash of the category · confidence · list of runners-up by their hashes · endpoint · model · attempts (4) ·
//!           pack size (2) · position (2) · prompt version
//! failure = kind (1) · attempts (4) · elapsed ms (8) · failure of the last request or 0
//! ```
//!
//! Numbers are little endian. Categories are positions in the taxonomy (2 bytes, `0xffff` for none), which the key holds for:
//! by the taxonomy's hash, and by the prompt version, which also says their order. Hashes are texts. A list begins with its length in two bytes, a text with its length in one.

use std::time::Duration;

use super::key::{KEY_BYTES, Key};
use crate::error::{Failure, FailureKind, ItemError, ItemErrorKind};
use crate::outcome::{Assignment, Engine, Origin};
use crate::prompt::PromptVersion;
use crate::taxonomy::{CategoryId, Taxonomy};

/// What kind of record it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Answer,
    Failure,
    Standing,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Answer => 1,
            Self::Failure => 2,
            Self::Standing => 3,
        }
    }
}

/// The kinds by their codes. The order is part of the format: new ones go to the end.
const ERROR_KINDS: [ItemErrorKind; 14] = [
    ItemErrorKind::Empty,
    ItemErrorKind::TooLong,
    ItemErrorKind::Rejected,
    ItemErrorKind::ContentFilter,
    ItemErrorKind::Refusal,
    ItemErrorKind::Unreadable,
    ItemErrorKind::Missing,
    ItemErrorKind::Repeated,
    ItemErrorKind::UnknownLabel,
    ItemErrorKind::Shifted,
    ItemErrorKind::Cut,
    ItemErrorKind::Timeout,
    ItemErrorKind::Connection,
    ItemErrorKind::ServerError,
];

/// The same for the kinds of failures; 0 means that there is none.
const FAILURE_KINDS: [FailureKind; 13] = [
    FailureKind::Connect,
    FailureKind::Interrupted,
    FailureKind::Timeout,
    FailureKind::Overloaded,
    FailureKind::ServerError,
    FailureKind::UnusableResponse,
    FailureKind::KeyRefused,
    FailureKind::UnknownModel,
    FailureKind::ContextLength,
    FailureKind::Unsupported,
    FailureKind::Rejected,
    FailureKind::ContentFilter,
    FailureKind::Refusal,
];

const NO_CATEGORY: u16 = u16::MAX;
/// The longest text of a record; what is longer is cut.
const MAX_TEXT_BYTES: usize = 255;
/// The most shares of a list.
const MAX_SHARES: usize = 1_000;

/// The payload of an answer; none if it is of another taxonomy.
pub(crate) fn of_answer(key: Key, assignment: &Assignment, taxonomy: &Taxonomy) -> Option<Vec<u8>> {
    let mut out = Writer::new(key, Kind::Answer);
    let origin = &assignment.origin;
    let position = |id: &CategoryId| taxonomy.position(id.as_str());
    out.category(Some(position(&assignment.category)?));
    out.share(assignment.confidence);
    out.shares(&assignment.runners_up, position);
    out.shares(&assignment.probabilities, position);
    out.text(&origin.endpoint);
    out.text(&origin.model);
    out.bytes(&origin.attempts.to_le_bytes());
    out.number(origin.pack_size);
    out.number(origin.position);
    out.category(origin.written.as_ref().and_then(position));
    out.text(origin.calibration.as_deref().unwrap_or_default());
    let first = origin.first_answer.as_ref();
    out.category(first.and_then(|(id, _)| position(id)));
    out.share(first.map(|(_, share)| *share));
    if !assignment.secondary.is_empty() {
        out.number(assignment.secondary.len());
        for (id, share) in &assignment.secondary {
            out.category(position(id));
            out.share(*share);
        }
    }
    Some(out.0)
}

/// The payload of a failure; none if it is no failure to answer.
pub(crate) fn of_failure(key: Key, error: &ItemError) -> Option<Vec<u8>> {
    let mut out = Writer::new(key, Kind::Failure);
    out.code(ERROR_KINDS.iter().position(|kind| *kind == error.kind)?);
    out.bytes(&error.attempts.to_le_bytes());
    out.bytes(&u64::try_from(error.elapsed.as_millis()).unwrap_or(u64::MAX).to_le_bytes());
    let code = |failure: &Failure| Some(1 + FAILURE_KINDS.iter().position(|kind| *kind == failure.kind)?);
    out.code(error.failure.as_ref().and_then(code).unwrap_or(0));
    if let Some(failure) = &error.failure {
        out.text(&failure.endpoint);
        out.bytes(&failure.http_status.unwrap_or(0).to_le_bytes());
        out.text(failure.words.as_deref().unwrap_or_default());
        out.text(failure.request_id.as_deref().unwrap_or_default());
    }
    Some(out.0)
}

/// The key and kind of a payload; none if this version does not know the kind.
pub(super) fn head(payload: &[u8]) -> Option<(Key, Kind)> {
    let key = Key::of_bytes(*payload.first_chunk()?);
    let code = *payload.get(KEY_BYTES)?;
    let kind = [Kind::Answer, Kind::Failure, Kind::Standing].into_iter().find(|kind| kind.code() == code)?;
    Some((key, kind))
}

/// What a payload says; none if it cannot be understood.
pub(crate) fn read(
    payload: &[u8],
    taxonomy: &Taxonomy,
    prompt_version: &PromptVersion,
) -> Option<Result<Assignment, ItemError>> {
    let (_, kind) = head(payload)?;
    let mut reader = Reader(&payload[KEY_BYTES + 1..]);
    match kind {
        Kind::Answer => answer(&mut reader, taxonomy, prompt_version).map(Ok),
        Kind::Failure => failure(&mut reader).map(Err),
        Kind::Standing => None,
    }
}

/// The payload of an answer by what its category means, for later versions of the taxonomy.
pub(crate) fn of_standing(key: Key, assignment: &Assignment, taxonomy: &Taxonomy) -> Option<Vec<u8>> {
    let mut out = Writer::new(key, Kind::Standing);
    let hash = |id: &CategoryId| taxonomy.hash_at(taxonomy.position(id.as_str())?);
    let origin = &assignment.origin;
    out.text(hash(&assignment.category)?);
    out.share(assignment.confidence);
    out.number(assignment.runners_up.len());
    for (id, share) in &assignment.runners_up {
        out.text(hash(id)?);
        out.share(Some(*share));
    }
    out.text(&origin.endpoint);
    out.text(&origin.model);
    out.bytes(&origin.attempts.to_le_bytes());
    out.number(origin.pack_size);
    out.number(origin.position);
    out.text(origin.prompt_version.as_str());
    Some(out.0)
}

/// Whether a payload is such an answer.
pub(crate) fn is_standing(payload: &[u8]) -> bool {
    head(payload).is_some_and(|(_, kind)| kind == Kind::Standing)
}

/// Such an answer, if its category is in this taxonomy with the same meaning, and its runners-up, too, where that is wanted.
pub(crate) fn read_standing(payload: &[u8], taxonomy: &Taxonomy, with_rivals: bool) -> Option<Assignment> {
    let mut reader = Reader(payload.get(KEY_BYTES + 1..)?);
    let position = taxonomy.with_hash(reader.text()?)?;
    let category = taxonomy.at(position)?;
    let confidence = Some(reader.share()?).filter(|share| !share.is_nan());
    let mut runners_up = Vec::new();
    for _ in 0..reader.number()? {
        let (rival, share) = (taxonomy.with_hash(reader.text()?), reader.share()?);
        match rival.and_then(|rival| taxonomy.at(rival)) {
            Some(rival) => runners_up.push((rival.id.clone(), share)),
            None if with_rivals => return None,
            None => {}
        }
    }
    Some(Assignment {
        category: category.id.clone(),
        name: category.name.as_str().into(),
        category_hash: taxonomy.hash_at(position)?.clone(),
        is_fallback: category.fallback,
        confidence,
        runners_up,
        probabilities: [].into(),
        secondary: Vec::new(),
        secondary_paths: Vec::new(),
        origin: Origin {
            // Answers of engines in the process are not kept.
            engine: Engine::LanguageModel,
            endpoint: reader.text()?.into(),
            model: reader.text()?.into(),
            attempts: u32::from_le_bytes(reader.chunk()?),
            pack_size: reader.number()?.into(),
            position: reader.number()?.into(),
            prompt_version: PromptVersion::of(reader.text()?),
            written: None,
            calibration: None,
            first_answer: None,
            duplicate_of: None,
            similarity: None,
            from_ledger: true,
        },
    })
}

fn answer(reader: &mut Reader<'_>, taxonomy: &Taxonomy, prompt_version: &PromptVersion) -> Option<Assignment> {
    let position = usize::from(reader.number()?);
    let category = taxonomy.at(position)?;
    // No taxonomy has a category at the position that means none.
    let id = |position: u16| taxonomy.at(position.into()).map(|category| category.id.clone());
    let mut assignment = Assignment {
        category: category.id.clone(),
        name: category.name.as_str().into(),
        category_hash: taxonomy.hash_at(position)?.clone(),
        is_fallback: category.fallback,
        confidence: Some(reader.share()?).filter(|share| !share.is_nan()),
        runners_up: reader.shares(taxonomy)?,
        probabilities: reader.shares(taxonomy)?.into(),
        secondary: Vec::new(),
        secondary_paths: Vec::new(),
        origin: Origin {
            // Answers of engines in the process are not kept.
            engine: Engine::LanguageModel,
            endpoint: reader.text()?.into(),
            model: reader.text()?.into(),
            prompt_version: prompt_version.clone(),
            attempts: u32::from_le_bytes(reader.chunk()?),
            pack_size: reader.number()?.into(),
            position: reader.number()?.into(),
            written: id(reader.number()?),
            calibration: Some(reader.text()?).filter(|version| !version.is_empty()).map(Into::into),
            first_answer: id(reader.number()?).zip(Some(reader.share()?).filter(|share| !share.is_nan())),
            duplicate_of: None,
            similarity: None,
            from_ledger: true,
        },
    };
    if !reader.0.is_empty() {
        let further = reader.shares(taxonomy)?;
        assignment.secondary =
            further.into_iter().map(|(id, share)| (id, Some(share).filter(|share| !share.is_nan()))).collect();
    }
    Some(assignment)
}

fn failure(reader: &mut Reader<'_>) -> Option<ItemError> {
    let kind = *ERROR_KINDS.get(reader.code()?)?;
    let attempts = u32::from_le_bytes(reader.chunk()?);
    let elapsed = Duration::from_millis(u64::from_le_bytes(reader.chunk()?));
    let failure = match reader.code()? {
        0 => None,
        code => Some(Failure {
            kind: *FAILURE_KINDS.get(code - 1)?,
            endpoint: reader.text()?.into(),
            http_status: Some(reader.number()?).filter(|status| *status > 0),
            words: Some(reader.text()?).filter(|words| !words.is_empty()).map(str::to_owned),
            request_id: Some(reader.text()?).filter(|id| !id.is_empty()).map(str::to_owned),
        }),
    };
    Some(ItemError { kind, attempts, elapsed, failure, best: None })
}

struct Writer(Vec<u8>);

impl Writer {
    fn new(key: Key, kind: Kind) -> Self {
        let mut out = Self(Vec::with_capacity(192));
        out.bytes(key.as_bytes());
        out.bytes(&[kind.code()]);
        out
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn code(&mut self, code: usize) {
        self.bytes(&[code as u8]);
    }

    /// Counts within a pack, which are small.
    fn number(&mut self, number: usize) {
        self.bytes(&u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes());
    }

    fn category(&mut self, position: Option<usize>) {
        self.number(position.unwrap_or(NO_CATEGORY as usize));
    }

    /// A probability, or NaN for none.
    fn share(&mut self, share: Option<f32>) {
        self.bytes(&share.unwrap_or(f32::NAN).to_le_bytes());
    }

    fn shares(&mut self, shares: &[(CategoryId, f32)], position: impl Fn(&CategoryId) -> Option<usize>) {
        let shares = &shares[..shares.len().min(MAX_SHARES)];
        self.number(shares.len());
        for (id, share) in shares {
            self.category(position(id));
            self.share(Some(*share));
        }
    }

    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
        self.code(text.len());
        self.bytes(text.as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn code(&mut self) -> Option<usize> {
        self.chunk::<1>().map(|[code]| code.into())
    }

    fn number(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    /// A probability, or NaN for none.
    fn share(&mut self) -> Option<f32> {
        self.chunk().map(f32::from_le_bytes)
    }

    fn shares(&mut self, taxonomy: &Taxonomy) -> Option<Vec<(CategoryId, f32)>> {
        let count = self.number()?;
        let mut share = || Some((taxonomy.at(self.number()?.into())?.id.clone(), self.share()?));
        (0..count).map(|_| share()).collect()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.code()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompt::Prefix;

    pub(in crate::ledger) fn taxonomy() -> Taxonomy {
        let categories = ["a", "b", "c"].map(|id| crate::Category::new(id, id.to_uppercase(), "Text."));
        Taxonomy::new("t", "1", categories).unwrap()
    }

    fn answers() -> Vec<Assignment> {
        let mut plain = crate::outcome::tests::assignment(&[("b".into(), 0.7), ("a".into(), 0.3)], 3, 2);
        plain.origin.prompt_version = Prefix::new(&taxonomy()).version().clone();
        plain.name = "B".into();
        plain.category_hash = taxonomy().hash_at(1).unwrap().clone();
        plain.origin.from_ledger = true;
        let mut rich = plain.clone();
        rich.runners_up = vec![("a".into(), 0.2), ("c".into(), 0.1)];
        rich.origin.written = Some("c".into());
        rich.origin.calibration = Some("1234abcd".into());
        rich.origin.first_answer = Some(("a".into(), 0.4));
        let mut bare = plain.clone();
        bare.confidence = None;
        bare.probabilities = [].into();
        let mut several = bare.clone();
        several.secondary = vec![("a".into(), None), ("c".into(), Some(0.25))];
        vec![plain, rich, bare, several]
    }

    fn failures() -> Vec<ItemError> {
        let failure = |kind| Failure {
            kind,
            endpoint: "http://e".into(),
            http_status: Some(422),
            words: Some("bad".into()),
            request_id: None,
        };
        let error =
            |kind, failure| ItemError { kind, attempts: 3, elapsed: Duration::from_millis(1_234), failure, best: None };
        let kinds = ERROR_KINDS.map(|kind| error(kind, None));
        kinds.into_iter().chain(FAILURE_KINDS.map(|kind| error(ItemErrorKind::Rejected, Some(failure(kind))))).collect()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (key, taxonomy) = (Key::of_bytes([7; 16]), taxonomy());
        let version = Prefix::new(&taxonomy).version().clone();
        for answer in answers() {
            let payload = of_answer(key, &answer, &taxonomy).unwrap();
            assert_eq!(head(&payload), Some((key, Kind::Answer)));
            assert_eq!(read(&payload, &taxonomy, &version), Some(Ok(answer)));
        }
        for failure in failures() {
            let payload = of_failure(key, &failure).unwrap();
            assert_eq!(head(&payload), Some((key, Kind::Failure)));
            assert_eq!(read(&payload, &taxonomy, &version), Some(Err(failure)));
        }
        assert_eq!(of_failure(key, &ItemError::of(ItemErrorKind::NotAttempted)), None);
    }

    #[test]
    fn texts_that_are_too_long_are_cut_and_unknown_kinds_passed_over() {
        let (key, taxonomy) = (Key::of_bytes([7; 16]), taxonomy());
        let mut answer = answers().remove(0);
        answer.origin.endpoint = "é".repeat(400).into();
        let payload = of_answer(key, &answer, &taxonomy).unwrap();
        let found = read(&payload, &taxonomy, &answer.origin.prompt_version).unwrap().unwrap();
        assert_eq!(found.origin.endpoint.len(), 254);
        let mut newer = payload;
        newer[KEY_BYTES] = 9;
        assert_eq!(head(&newer), None);
        answer.category = "of-another-taxonomy".into();
        assert_eq!(of_answer(key, &answer, &taxonomy), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_bytes_are_reading_them_does_no_harm(
            kind in 1_u8..=3, body in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let taxonomy = taxonomy();
            let payload = [&[0; KEY_BYTES], &[kind][..], &body].concat();
            let _ = read(&payload, &taxonomy, Prefix::new(&taxonomy).version());
            let _ = read_standing(&payload, &taxonomy, true);
        }
    }
}
