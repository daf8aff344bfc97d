//! What newsrooms do to a text before they print it again, as functions on real texts, so that pairs can be made whose
//! truth is known.

use slugline::NewsItem;

/// A way to edit an item.
pub(crate) struct Edit {
    pub(crate) name: &'static str,
    /// Whether the result is still the same story.
    pub(crate) is_same_story: bool,
    /// Edits an item; another item of the same set lends text where some is needed. None where the item has nothing to edit.
    pub(crate) apply: fn(&NewsItem, &NewsItem) -> Option<NewsItem>,
}

/// Of fewer sentences one is half the story.
const FEWEST_SENTENCES: usize = 4;

/// All edits; the last is none: a template filled with other figures, as in tables of results, is another story.
pub(crate) const EDITS: [Edit; 9] = [
    Edit { name: "headline rewritten", is_same_story: true, apply: |item, _| headline(item) },
    Edit { name: "dateline and byline in front", is_same_story: true, apply: |item, _| Some(dateline(item)) },
    Edit { name: "last third cut", is_same_story: true, apply: |item, _| tail_cut(item) },
    Edit { name: "one sentence added in the middle", is_same_story: true, apply: sentence_added },
    Edit { name: "one sentence taken out", is_same_story: true, apply: |item, _| sentence_removed(item) },
    Edit { name: "agency credit at the end", is_same_story: true, apply: |item, _| Some(credit(item)) },
    Edit { name: "other quotes, dashes, blanks, case", is_same_story: true, apply: |item, _| Some(typography(item)) },
    Edit {
        name: "headline, dateline and tail together",
        is_same_story: true,
        apply: |item, _| headline(&tail_cut(item)?).map(|item| dateline(&item)),
    },
    Edit { name: "other figures in the same words", is_same_story: false, apply: |item, _| other_figures(item) },
];

/// A headline made of the words with which the text begins, as desks do that shorten the lead.
fn headline(item: &NewsItem) -> Option<NewsItem> {
    let words: Vec<_> = item.body.split_whitespace().collect();
    let title = if words.len() >= 12 {
        words[2..9].join(" ")
    } else {
        // Scripts without blanks.
        let chars: Vec<char> = item.body.chars().collect();
        (chars.len() >= 40).then(|| chars[4..16].iter().collect())?
    };
    Some(with(item, title, item.body.clone()))
}

fn dateline(item: &NewsItem) -> NewsItem {
    with(item, item.title.clone(), format!("By Our Correspondent LISBON, Aug. 12 (Agency) - {}", item.body))
}

fn tail_cut(item: &NewsItem) -> Option<NewsItem> {
    let sentences = sentences(&item.body);
    let kept = sentences.len() - sentences.len() / 3;
    (kept < sentences.len()).then(|| with(item, item.title.clone(), sentences[..kept].concat()))
}

fn sentence_added(item: &NewsItem, other: &NewsItem) -> Option<NewsItem> {
    let mut parts = sentences(&item.body);
    let added = format!(" {} ", sentences(&other.body).first()?.trim());
    // A sentence as long as the story makes another story.
    (parts.len() >= FEWEST_SENTENCES && added.len() < item.body.len() / 3)
        .then(|| parts.insert(parts.len() / 2, &added))?;
    Some(with(item, item.title.clone(), parts.concat()))
}

fn sentence_removed(item: &NewsItem) -> Option<NewsItem> {
    let mut parts = sentences(&item.body);
    (parts.len() >= FEWEST_SENTENCES).then(|| parts.remove(1))?;
    Some(with(item, item.title.clone(), parts.concat()))
}

fn credit(item: &NewsItem) -> NewsItem {
    let body = format!("{} (Additional reporting by the Lisbon bureau; editing by A. Silva)", item.body);
    with(item, item.title.clone(), body)
}

fn typography(item: &NewsItem) -> NewsItem {
    let restyled = |text: &str| {
        let text = text.replace(" - ", " \u{2014} ").replace("--", "\u{2014}").replace('\'', "\u{2019}");
        text.replace('"', "\u{201c}").replace(". ", ".\u{a0} ").replace(" percent", " per cent")
    };
    with(item, restyled(&item.title).to_uppercase(), restyled(&item.body))
}

/// The same words with every digit changed.
fn other_figures(item: &NewsItem) -> Option<NewsItem> {
    let changed = |text: &str| text.chars().map(|c| c.to_digit(10).map_or(c, other_digit)).collect::<String>();
    let has_figures = item.body.chars().filter(char::is_ascii_digit).count() >= 2;
    has_figures.then(|| with(item, changed(&item.title), changed(&item.body)))
}

fn other_digit(digit: u32) -> char {
    char::from_digit((digit + 3) % 10, 10).unwrap_or('0')
}

fn with(item: &NewsItem, title: String, body: String) -> NewsItem {
    NewsItem::new(format!("{} edited", item.id), title, body)
}

/// The sentences of a text with what stands between them, so that joining them gives the text again.
fn sentences(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut has_ended) = (0, false);
    for (at, c) in text.char_indices() {
        if has_ended && (c == ' ' || c == '\n') {
            parts.push(&text[start..at]);
            start = at;
        }
        has_ended = matches!(c, '.' | '!' | '?' | '\u{964}');
        if c == '\u{3002}' {
            parts.push(&text[start..at + c.len_utf8()]);
            start = at + c.len_utf8();
        }
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}
