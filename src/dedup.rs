//! Copies: one question, all copies answered. Exact ones always, near ones where that is wanted.

use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use crate::error::ItemError;
#[cfg(feature = "near-duplicates")]
use crate::near_duplicates::{Fingerprint, Texts};
use crate::outcome::{Assignment, Outcome};
use crate::prompt::clean::CleanText;
use crate::run::{Item, Settings};

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

    #[cfg(any(feature = "ledger", feature = "embedded"))]
    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A copy that waits for the answer to its original.
#[derive(Debug)]
struct Copy {
    item: Item,
    /// None for an exact copy.
    similarity: Option<f32>,
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
    /// How many answered texts are remembered.
    remembered: usize,
    answered: VecDeque<TextHash>,
    /// The originals on their way, by index.
    asked: HashMap<u64, TextHash>,
    /// The texts that were asked; those that failed since have no entry.
    #[cfg(feature = "near-duplicates")]
    near: Option<Texts<TextHash>>,
}

/// What to do with an item.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It is the first with its text.
    New(Item),
    /// It waits for the answer to its original.
    Waits,
    /// Its original was answered already.
    Answered(Box<Outcome>),
}

/// The copies of an item that was settled.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    pub(crate) settled: Vec<Outcome>,
    /// Near copies of an item that failed: their text is another, and may fare better.
    pub(crate) unsettled: Vec<Item>,
}

impl Dedup {
    /// Finds near copies, too, where the settings say so; by default exact ones alone.
    pub(crate) fn new(settings: &Settings) -> Self {
        #[cfg(feature = "near-duplicates")]
        if let Some(near) = &settings.near_duplicates {
            let texts = Texts::new(near.at_least, near.remembered);
            return Self { remembered: near.remembered, near: Some(texts), ..Self::default() };
        }
        Self { remembered: settings.remembered_texts, ..Self::default() }
    }

    /// The text of an original that is on its way.
    #[cfg(feature = "ledger")]
    pub(crate) fn text_of(&self, index: u64) -> Option<TextHash> {
        self.asked.get(&index).copied()
    }

    /// Looks an item up by its text, and remembers it.
    pub(crate) fn see(&mut self, item: Item) -> Seen {
        let hash = TextHash::of(&item.text);
        if let Some(entry) = self.entries.get_mut(&hash) {
            return entry.see(Copy { item, similarity: None });
        }
        #[cfg(feature = "near-duplicates")]
        if let Some((original, similarity)) = self.near_original(&item, hash)
            && let Some(entry) = self.entries.get_mut(&original)
        {
            return entry.see(Copy { item, similarity: Some(similarity) });
        }
        self.entries.insert(hash, Entry::Asked(Vec::new()));
        self.asked.insert(item.index, hash);
        Seen::New(item)
    }

    /// The text that an item's text is nearly the same as. A text without one is remembered, unless it speaks to the model:
    /// what that may have done to its answer should not be carried over.
    #[cfg(feature = "near-duplicates")]
    fn near_original(&mut self, item: &Item, hash: TextHash) -> Option<(TextHash, f32)> {
        let near = self.near.as_mut().filter(|_| !item.is_suspect)?;
        let text = Fingerprint::of(&item.text)?;
        if let Some((original, similarity)) = near.nearest(&text, |hash| self.entries.contains_key(hash)) {
            return Some((*original, similarity as f32));
        }
        near.remember(text, hash);
        None
    }

    /// The original was settled: gives its copies.
    pub(crate) fn settle(&mut self, index: u64, id: &str, result: &Result<Assignment, ItemError>) -> Copies {
        let mut copies = Copies::default();
        let Some(hash) = self.asked.remove(&index) else { return copies };
        let Some(Entry::Asked(waiting)) = self.entries.remove(&hash) else { return copies };
        match result {
            Ok(assignment) => {
                self.entries.insert(hash, Entry::Answered(id.to_owned(), Box::new(assignment.clone())));
                self.answered.push_back(hash);
                if self.answered.len() > self.remembered
                    && let Some(oldest) = self.answered.pop_front()
                {
                    self.entries.remove(&oldest);
                }
                copies.settled = waiting.into_iter().map(|copy| copy.answered(id, assignment)).collect();
            }
            Err(error) => {
                for Copy { item, similarity } in waiting {
                    if similarity.is_some() {
                        copies.unsettled.push(item);
                    } else {
                        copies.settled.push(Outcome {
                            id: item.id,
                            index: item.index,
                            result: Err(error.clone()),
                            path: None,
                        });
                    }
                }
            }
        }
        copies
    }
}

impl Entry {
    /// Answers a copy, or lets it wait.
    fn see(&mut self, copy: Copy) -> Seen {
        match self {
            Self::Asked(copies) => {
                copies.push(copy);
                Seen::Waits
            }
            Self::Answered(original, assignment) => Seen::Answered(Box::new(copy.answered(original, assignment))),
        }
    }
}

impl Copy {
    fn answered(self, original: &str, assignment: &Assignment) -> Outcome {
        let result = Ok(assignment.for_copy(original, self.similarity));
        Outcome { id: self.item.id, index: self.item.index, result, path: None }
    }
}
