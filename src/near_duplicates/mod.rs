//! Wire copy and reprints: texts that are nearly those of another item, which is asked in their place.
//!
//! Two texts are as similar as the share of shingles, runs of five letters, that they have in common among all that either
//! has (Jaccard's coefficient), in the text that the model would be shown: about the first 150 tokens. Blanks, punctuation
//! and case do not count, and any script will do. Texts of fewer than 40 shingles, such as a short headline, are never
//! taken for near-duplicates: in those a single word makes another story.
//!
//! A report whose words stay while its figures change, such as a company's result of another quarter, is very similar to
//! the one before. It is not the same story, though nearly always of the same category.

mod index;
mod shingles;

pub(crate) use self::index::{Fingerprint, Texts};
use crate::NewsItem;
use crate::prompt::clean::CleanText;

/// The tokens of an item that are compared, as many as a categorizer shows by default.
const ITEM_TOKENS: usize = 150;

/// What is taken for a near-duplicate, and how many items are remembered.
///
/// Defaults: a similarity of at least 0.7, 50,000 items.
///
/// ```
/// # use slugline::{Categorizer, Category, NearDuplicates, Taxonomy};
/// # let taxonomy = Taxonomy::new("t", "1", [Category::new("a", "A", "One."), Category::new("b", "B", "Two.")])?;
/// let categorizer = Categorizer::builder(taxonomy)
///     .endpoint("http://localhost:8000/v1")
///     .model("Qwen/Qwen2.5-7B-Instruct-AWQ")
///     .near_duplicates(NearDuplicates::at_least(0.8))
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct NearDuplicates {
    pub(crate) at_least: f32,
    pub(crate) remembered: usize,
}

impl Default for NearDuplicates {
    fn default() -> Self {
        Self::at_least(0.7)
    }
}

impl NearDuplicates {
    /// Takes items for near-duplicates that are at least so similar, 0.5 to 1. Default: 0.7.
    pub fn at_least(similarity: f32) -> Self {
        Self { at_least: similarity, remembered: 50_000 }
    }

    /// How many of the latest items that were asked are remembered; copies further apart, exact ones too, are asked again.
    /// A thousand take about a megabyte. Default: 50,000.
    #[must_use]
    pub fn remember(self, items: usize) -> Self {
        Self { remembered: items, ..self }
    }

    /// What is wrong with the numbers.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(0.5..=1.0).contains(&self.at_least) {
            problems.push("the similarity of near-duplicates must be 0.5 to 1".to_owned());
        }
        if !(1..=u32::MAX as usize).contains(&self.remembered) {
            problems
                .push("near-duplicates need at least 1 item to be remembered, and at most 4,294,967,295".to_owned());
        }
        problems
    }
}

/// Finds near-duplicates without asking a model: to see what a similarity finds in your own items, or to thin out an
/// archive. The same items in the same order always give the same answers.
///
/// ```
/// use slugline::NewsItem;
/// use slugline::near_duplicates::{Index, NearDuplicates};
///
/// let mut index = Index::new(&NearDuplicates::default());
/// let story = "The council approved the new runway on Tuesday by a single vote, after a debate of nine hours.";
/// assert_eq!(index.see(&NewsItem::new("a1", "Runway approved", story)), None);
/// let reprint = NewsItem::new("b7", "Council says yes to runway", story);
/// assert_eq!(index.see(&reprint).unwrap().id, "a1");
/// ```
#[derive(Debug)]
pub struct Index {
    texts: Texts<String>,
}

/// An item that another is nearly the same as.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Similar {
    /// The id of the item that was seen first.
    pub id: String,
    /// The share of shingles that the two have in common, 0 to 1.
    pub similarity: f32,
}

impl Index {
    /// An empty index. A similarity below 0.5 works, but misses most of what it could find.
    pub fn new(settings: &NearDuplicates) -> Self {
        Self { texts: Texts::new(settings.at_least, settings.remembered) }
    }

    /// Looks for the most similar item seen before. An item without one is remembered, as in a run, where it is asked.
    pub fn see(&mut self, item: &NewsItem) -> Option<Similar> {
        let text = fingerprint(item)?;
        let found = self.nearest(&text);
        if found.is_none() {
            self.texts.remember(text, item.id.clone());
        }
        found
    }

    /// Looks for the most similar item seen before, and remembers nothing.
    pub fn find(&self, item: &NewsItem) -> Option<Similar> {
        self.nearest(&fingerprint(item)?)
    }

    fn nearest(&self, text: &Fingerprint) -> Option<Similar> {
        let (id, similarity) = self.texts.nearest(text, |_| true)?;
        Some(Similar { id: id.clone(), similarity: similarity as f32 })
    }
}

fn fingerprint(item: &NewsItem) -> Option<Fingerprint> {
    Fingerprint::of(&CleanText::of(item, ITEM_TOKENS)?)
}
