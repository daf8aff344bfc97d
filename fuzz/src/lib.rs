//! What the fuzz targets do with an input. `tests/it/corpus.rs` of the crate does the same with the corpus.

use std::sync::LazyLock;

use slugline::feeds;
use slugline::prompt::{Prefix, tokens};
use slugline::testing::entry;
use slugline::{NewsItem, Taxonomy};

/// Every target by its name.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("read_answer", read_answer),
    ("read_response", read_response),
    ("read_taxonomy", read_taxonomy),
    ("clean_text", clean_text),
    ("read_feed", read_feed),
];

static NEWSROOM: LazyLock<Taxonomy> =
    LazyLock::new(|| Taxonomy::from_toml(include_str!("../../categories/newsroom.toml")).expect("a valid taxonomy"));

/// The number of items, from the low half of a byte: `3` is 3, `c` is 3, too, and `0` is 16.
fn pack_len(byte: u8) -> usize {
    match byte & 0x0f {
        0 => 16,
        count => usize::from(count),
    }
}

/// The text that a model wrote. The first byte is the number of items: a digit, or a letter (`a` for 1) when the answer
/// was cut.
pub fn read_answer(data: &[u8]) {
    let Some((first, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let labels = entry::read_answer(&text, pack_len(*first), first & 0x40 != 0, &NEWSROOM);
    for (id, label) in (1..).zip(labels) {
        assert!(label.is_none() || text.contains(&format!("{id}")), "a label for an item that nobody named");
    }
}

/// A response body. The first byte is the status, the second the number of items.
pub fn read_response(data: &[u8]) {
    let [first, second, body @ ..] = data else { return };
    let http_status = match first {
        b'0' => 413,
        b'1' => 401,
        b'3' => 302,
        b'4' => 400,
        b'5' => 500,
        b'6' => 404,
        b'7' => 422,
        b'8' => 429,
        b'9' => 503,
        _ => 200,
    };
    entry::read_response(http_status, body, pack_len(*second), &NEWSROOM);
    if let Some(wait_s) = entry::read_retry_after(&String::from_utf8_lossy(body)) {
        assert!(wait_s.is_finite() && wait_s >= 0.0, "a wait of {wait_s} seconds");
    }
}

/// The text of a taxonomy file.
pub fn read_taxonomy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let taxonomy = match Taxonomy::from_toml(&text) {
        Ok(taxonomy) => taxonomy,
        Err(error) => {
            assert!(!error.problems().is_empty() && error.to_string().len() > 20, "an error says what is wrong");
            return;
        }
    };
    let labels = taxonomy.categories().filter(|category| taxonomy.find(category.id.as_str()) == Some(category));
    assert_eq!(labels.count(), taxonomy.len(), "every id finds its category");
    let prefix = Prefix::new(&taxonomy);
    // The second paragraph; its first line is a heading.
    let listed: Vec<_> = prefix.text().split("\n\n").nth(1).unwrap_or_default().lines().skip(1).collect();
    assert_eq!(listed.len(), taxonomy.len(), "a category has one line");
    let tokens: usize = listed.into_iter().map(tokens::estimate).sum();
    assert!(tokens <= slugline::taxonomy::LISTING_BUDGET_TOKENS, "{tokens} tokens");
    let opened = prefix.text().lines().filter(|line| line.starts_with("<item id=")).count();
    let closed = prefix.text().lines().filter(|line| *line == "</item>").count();
    assert!(opened == closed && opened <= 1, "the example has one item, not {opened}");
}

/// A field of an item, and the JSON of a whole one.
pub fn clean_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let clean = entry::clean_text(&text);
    assert_eq!(clean.trim(), clean);
    assert!(!clean.contains("  "), "white space is folded");
    assert!(!clean.chars().any(char::is_control), "no control characters");
    if let Ok(item) = serde_json::from_slice::<NewsItem>(data) {
        assert!(!item.id.is_empty());
        let json = serde_json::to_string(&item).expect("an item can be written");
        let again: NewsItem = serde_json::from_str(&json).expect("what was written can be read");
        assert_eq!(item, again);
        entry::clean_text(&item.title);
        entry::clean_text(&item.body);
    }
}

/// A feed, or HTML.
pub fn read_feed(data: &[u8]) {
    if let Ok(feed) = feeds::read(data, None) {
        for item in feed.entries.into_iter().flatten() {
            assert!(!item.id.is_empty(), "an item without id");
            assert!(!item.title.is_empty() || !item.body.is_empty(), "an item without text");
        }
    }
    let text = feeds::html_to_text(&String::from_utf8_lossy(data));
    assert_eq!(text.trim_matches([' ', '\n', '\t', '\r']), text);
    assert!(!["  ", "\n\n", " \n", "\n "].iter().any(|gap| text.contains(gap)), "white space is folded");
}
