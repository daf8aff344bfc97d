//! Exact copies: one question, all copies answered.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use crate::error::ItemError;
use crate::outcome::{Assignment, Outcome};
use crate::prompt::clean::CleanText;

/// How many answered texts are remembered within a run: about 15 MB, 45 with log-probabilities.
/// Copies further apart are asked again.
const REMEMBERED: usize = 50_000;

/// A hash of the text that the model would see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextHash([u8; 16]);

/// Half of it is enough to find the place in a table.
impl Hash for TextHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (half, _) = self.0.split_at(8);
        state.write(half);
    }
}

impl TextHash {
    pub(crate) fn of(text: &CleanText) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(text.title.as_bytes()).update(b"\n").update(text.body.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(hash)
    }

    #[cfg(feature = "ledger")]
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A copy that waits for the answer to its original.
#[derive(Debug)]
struct Copy {
    index: u64,
    id: String,
}

#[derive(Debug)]
enum Entry {
    /// The original is on its way.
    Asked(Vec<Copy>),
    /// The original was answered, under this id.
    Answered(String, Box<Assignment>),
}

/// The texts that a run has seen.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    entries: HashMap<TextHash, Entry>,
    answered: VecDeque<TextHash>,
    /// The originals on their way, by index.
    asked: HashMap<u64, TextHash>,
}

/// What to do with an item.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It is the first with its text.
    New,
    /// It waits for the answer to its original.
    Waits,
    /// Its original was answered already.
    Answered(Box<Outcome>),
}

impl Dedup {
    /// Looks an item up by its text, and remembers it.
    pub(crate) fn see(&mut self, text: &CleanText, index: u64, id: &str) -> Seen {
        let hash = TextHash::of(text);
        match self.entries.get_mut(&hash) {
            None => {
                self.entries.insert(hash, Entry::Asked(Vec::new()));
                self.asked.insert(index, hash);
                Seen::New
            }
            Some(Entry::Asked(copies)) => {
                copies.push(Copy { index, id: id.to_owned() });
                Seen::Waits
            }
            Some(Entry::Answered(original, assignment)) => {
                let copy = Copy { index, id: id.to_owned() };
                Seen::Answered(Box::new(copy.answered(original, assignment)))
            }
        }
    }

    /// The text of an original that is on its way.
    #[cfg(feature = "ledger")]
    pub(crate) fn text_of(&self, index: u64) -> Option<TextHash> {
        self.asked.get(&index).copied()
    }

    /// The original was settled: gives the outcomes of its copies.
    pub(crate) fn settle(&mut self, index: u64, id: &str, result: &Result<Assignment, ItemError>) -> Vec<Outcome> {
        let Some(hash) = self.asked.remove(&index) else { return Vec::new() };
        let Some(Entry::Asked(copies)) = self.entries.remove(&hash) else { return Vec::new() };
        match result {
            Ok(assignment) => {
                self.entries.insert(hash, Entry::Answered(id.to_owned(), Box::new(assignment.clone())));
                self.answered.push_back(hash);
                if self.answered.len() > REMEMBERED
                    && let Some(oldest) = self.answered.pop_front()
                {
                    self.entries.remove(&oldest);
                }
                copies.into_iter().map(|copy| copy.answered(id, assignment)).collect()
            }
            Err(error) => copies
                .into_iter()
                .map(|copy| Outcome { id: copy.id, index: copy.index, result: Err(error.clone()) })
                .collect(),
        }
    }
}

impl Copy {
    fn answered(self, original: &str, assignment: &Assignment) -> Outcome {
        let mut assignment = assignment.clone();
        assignment.origin.duplicate_of = Some(original.to_owned());
        Outcome { id: self.id, index: self.index, result: Ok(assignment) }
    }
}
