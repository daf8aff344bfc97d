//! Items without content, for measuring what a model says when there is nothing to say it about.

use crate::NewsItem;

/// What stands where a title or a body would be.
const FILLERS: [&str; 12] = [
    "N/A",
    "Untitled",
    "No text",
    "News item",
    "(empty)",
    "Text",
    "Item",
    "No title",
    "Article",
    "Content",
    "Update",
    "...",
];

/// So many different items without content, at most 144.
pub(crate) fn content_free_items(count: usize) -> impl Iterator<Item = NewsItem> {
    let kinds = FILLERS.len();
    // Each pair of a title and a body once, since equal items would be asked once.
    (0..count.min(kinds * kinds)).map(move |number| {
        let (round, title) = (number / kinds, number % kinds);
        NewsItem::new(format!("content-free-{number}"), FILLERS[title], FILLERS[(5 * title + round) % kinds])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::prompt::clean::CleanText;

    #[test]
    fn all_are_different_and_none_is_empty() {
        let texts: HashSet<_> = content_free_items(1_000)
            .map(|item| CleanText::of(&item, 150).map(|text| (text.title.clone(), text.body.clone())).unwrap())
            .collect();
        assert_eq!(texts.len(), 144);
    }
}
