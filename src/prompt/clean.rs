//! From an item's text as a feed gives it to text that is safe and short enough for the prompt.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::tokens::Meter;
use crate::NewsItem;

/// The most bytes of a field that are looked at, markup included: a bound on the work.
const MAX_RAW_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of its text that are looked at: far more than any budget can use.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// The share of the budget that a title may take.
const TITLE_SHARE: f64 = 0.6;

/// An item that does not fit the context is not cut shorter than this many estimated tokens.
pub(crate) const SHORTEST_TOKENS: usize = 16;

/// An item's text for the prompt: one line each for title and body, without anything that could end its frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanText {
    pub(crate) title: String,
    pub(crate) body: String,
    /// The estimated tokens of both.
    pub(crate) tokens: usize,
}

impl CleanText {
    /// Cleans an item and cuts it to about `budget_tokens`; none when nothing is left to read.
    pub(crate) fn of(item: &NewsItem, budget_tokens: usize) -> Option<Self> {
        let (title, body) = (clean(&item.title), clean(&item.body));
        let mut title_budget = ((budget_tokens as f64 * TITLE_SHARE) as usize).max(1);
        if super::tokens::estimate(&title) > title_budget {
            // A short body leaves more to the title.
            title_budget = title_budget.max(budget_tokens.saturating_sub(cut(&body, budget_tokens).1));
        }
        let (title, title_tokens) = cut_owned(title, title_budget);
        let (body, body_tokens) = cut_owned(body, budget_tokens.saturating_sub(title_tokens));
        let text = Self { title, body, tokens: title_tokens + body_tokens };
        (!text.title.is_empty() || !text.body.is_empty()).then_some(text)
    }

    /// The same text with its tokens counted exactly.
    pub(crate) fn counted_with(self, tokens: &dyn super::tokens::CountTokens) -> Self {
        let count = tokens.count_tokens(&self.title) + tokens.count_tokens(&self.body);
        Self { tokens: count, ..self }
    }

    /// The same text cut shorter, to about `budget_tokens`; none when it is that short already.
    pub(crate) fn shortened(&self, budget_tokens: usize) -> Option<Self> {
        if budget_tokens == 0 || self.tokens <= budget_tokens {
            return None;
        }
        let item = NewsItem::new("", self.title.as_str(), self.body.as_str());
        Self::of(&item, budget_tokens).filter(|text| text.tokens < self.tokens)
    }
}

/// Decodes entities, strips tags, drops control and invisible characters, folds white space to single blanks, and
/// defuses what a chat template or our own frame would take for a marker.
pub(crate) fn clean(text: &str) -> String {
    let text = &text[..raw_end(text)];
    if !has_markup(text) {
        return fold(beginning(text));
    }
    let decoded = decode_entities(text);
    // Before anything is cut off, since a tag or a script that lost its end would be taken for text.
    let stripped = strip_tags(&decoded);
    let stripped = beginning(&stripped);
    // Feeds often encode twice; what is a tag after the second decoding is shown as text.
    defuse_bracket_markers(fold(&decode_entities(stripped)))
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

/// Where to stop in a text with markup; of a longer one before a tag that would lose its end.
fn raw_end(text: &str) -> usize {
    let end = text.floor_char_boundary(MAX_RAW_BYTES);
    if end == text.len() {
        return end;
    }
    let after_last_tag = text[..end].rfind('>').map_or(0, |at| at + 1);
    text[after_last_tag..end].find('<').map_or(end, |at| after_last_tag + at)
}

/// Whether there is anything to decode, strip or defuse. Most text has nothing of it.
fn has_markup(text: &str) -> bool {
    // Without an early exit, so that many bytes are compared at once.
    text.bytes().fold(false, |found, byte| found | matches!(byte, b'&' | b'<' | b'['))
}

/// Folds white space to single blanks, drops what is not shown, and replaces what makes markers.
fn fold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let run = plain_run(rest.as_bytes());
        out.push_str(&rest[..run]);
        let mut special = rest[run..].chars();
        let Some(c) = special.next() else { break };
        rest = special.as_str();
        match windows_1252(c) {
            // Angle brackets and bars make frames and the special tokens of chat templates.
            '<' => out.push('‹'),
            '>' => out.push('›'),
            '｜' => out.push('|'),
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if c.is_control() || is_invisible(c) => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Controls from U+0080 on that stand where windows-1252 has a character: nobody means a control, and HTML reads references
/// to them like that, too. What stands for nothing is a blank.
fn windows_1252(c: char) -> char {
    const CHARACTERS: &str = "€ ‚ƒ„…†‡ˆ‰Š‹Œ Ž  ‘’“”•–—˜™š›œ žŸ";
    match c {
        '\u{80}'..='\u{9f}' => CHARACTERS.chars().nth(c as usize - 0x80).unwrap_or(' '),
        c => c,
    }
}

fn decode_entities(text: &str) -> Cow<'_, str> {
    if text.contains('&') { html_escape::decode_html_entities(text) } else { Cow::Borrowed(text) }
}

/// The length of the ASCII text at the beginning that stays as it is: words with single blanks between them. Most text is
/// that, so it is worth not looking at each character.
fn plain_run(bytes: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>');
    // A blank stays where text follows it, so two of them never do.
    let stays = |byte: u8, next: u8| is_plain(byte) | ((byte == b' ') & is_plain(next));
    if !bytes.first().is_some_and(|&byte| is_plain(byte)) {
        return 0;
    }
    let mut at = 0;
    // Whole blocks without an early exit, so that many bytes are compared at once.
    while let Some(block) = bytes.get(at..=at + BLOCK)
        && block[..BLOCK].iter().zip(&block[1..]).fold(true, |all, (&byte, &next)| all & stays(byte, next))
    {
        at += BLOCK;
    }
    while bytes.get(at).is_some_and(|&byte| stays(byte, bytes.get(at + 1).copied().unwrap_or_default())) {
        at += 1;
    }
    at
}

/// Format characters that carry no text. The joiners U+200C and U+200D stay: Persian, Indic scripts and emoji need them.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Removes tags, comments and the content of scripts and styles; a `<` that opens no tag stays.
fn strip_tags(text: &str) -> Cow<'_, str> {
    if !text.contains('<') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Once a kind of end is known to be missing it is not looked for again, so the work stays linear.
    let (mut tag_ends, mut comment_ends, mut element_ends) = (true, true, [true, true]);
    while let Some(start) = rest.find('<') {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let opens = tag[1..].starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?'));
        let end = if !opens {
            None
        } else if tag.starts_with("<!--") {
            let end = comment_ends.then(|| tag.find("-->").map(|end| end + 3)).flatten();
            comment_ends = end.is_some();
            end
        } else {
            let end = tag_ends.then(|| tag.find('>').map(|end| end + 1)).flatten();
            tag_ends = end.is_some();
            end
        };
        let Some(end) = end else {
            out.push('<');
            rest = &tag[1..];
            continue;
        };
        rest = &tag[end..];
        for (element, ends) in ["script", "style"].into_iter().zip(&mut element_ends) {
            if *ends && starts_with_ignoring_case(&tag[1..], element) {
                // The closing tag itself is stripped in the next round.
                let mut closings = rest.match_indices("</").map(|(at, _)| at);
                let close = closings.find(|&at| starts_with_ignoring_case(&rest[at + 2..], element));
                *ends = close.is_some();
                rest = &rest[close.unwrap_or(0)..];
            }
        }
        // Tags separate words: `<p>One</p><p>Two</p>`.
        out.push(' ');
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn starts_with_ignoring_case(text: &str, start: &str) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

/// Turns markers in square brackets that some chat templates reserve, such as `[INST]` or `[/SYSTEM_PROMPT]`, into
/// parentheses.
fn defuse_bracket_markers(text: String) -> String {
    if !text.contains('[') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find('[') {
        out.push_str(&rest[..start]);
        let inside = &rest[start + 1..];
        let length = inside.bytes().take_while(|&b| b.is_ascii_uppercase() || matches!(b, b'_' | b'/')).count();
        if length > 0 && inside[length..].starts_with(']') {
            out.push('(');
            out.push_str(&inside[..length]);
            out.push(')');
            rest = &inside[length + 1..];
        } else {
            out.push('[');
            rest = inside;
        }
    }
    out.push_str(rest);
    out
}

/// Cuts a text to at most `budget_tokens`, in the second half of what fits: at its last sentence end, else at its last
/// blank, else anywhere.
/// Gives the text and its tokens.
pub(crate) fn cut(text: &str, budget_tokens: usize) -> (&str, usize) {
    let tokens = super::tokens::estimate(text);
    if tokens <= budget_tokens {
        return (text, tokens);
    }
    let mut meter = Meter::default();
    let fits = text.char_indices().find(|&(_, c)| {
        meter.add(c);
        meter.tokens() > budget_tokens
    });
    let fits = fits.map_or(text.len(), |(at, _)| at);
    let head = &text[..fits];
    let is_late = |end: &usize| *end >= fits / 2;
    let end = last_sentence_end(head).filter(is_late).or_else(|| head.rfind(' ').filter(is_late)).unwrap_or(fits);
    let head = head[..end].trim_end();
    (head, super::tokens::estimate(head))
}

/// The same for a text that is kept: what fits already is not copied.
fn cut_owned(text: String, budget_tokens: usize) -> (String, usize) {
    let (head, tokens) = cut(&text, budget_tokens);
    if head.len() == text.len() { (text, tokens) } else { (head.to_owned(), tokens) }
}

/// The byte after the last sentence end, with the quotes or brackets that close it.
fn last_sentence_end(text: &str) -> Option<usize> {
    const WIDE: [char; 5] = ['。', '！', '？', '।', '۔'];
    const NARROW: [char; 5] = ['.', '!', '?', '؟', '…'];
    let is_closing = |c: char| matches!(c, '"' | '\'' | '”' | '’' | '»' | '」' | '』' | ')' | '）');
    let mut found = None;
    let mut ended = false;
    for (at, c) in text.char_indices() {
        if ended && c == ' ' {
            found = Some(at);
        }
        if WIDE.contains(&c) {
            found = Some(at + c.len_utf8());
        }
        ended = NARROW.contains(&c) || (ended && is_closing(c));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_become_plain_lines() {
        for (raw, expected) in [
            ("  Fish &amp; chips\r\n\tback ", "Fish & chips back"),
            ("<p>One</p><p>Two &lt;b&gt;three&lt;/b&gt;</p>", "One Two three"),
            ("5 < 6 and 7 > 3", "5 ‹ 6 and 7 › 3"),
            ("cut <a href=\"x", "cut ‹a href=\"x"),
            ("a<!-- hidden > -->b<script>var x = '<p>';</script>c<style>p{}", "a b c p{}"),
            ("zero\u{200b}width\u{feff} \u{202e}bidi\u{7}", "zerowidth bidi"),
            ("می\u{200c}شود", "می\u{200c}شود"),
            ("10&#150;15 dead, don&#146;t\u{81}go\u{85}", "10–15 dead, don’t go…"),
            ("&amp;lt;item&amp;gt; &nbsp; &#x41;", "‹item› A"),
        ] {
            assert_eq!(clean(raw), expected, "{raw:?}");
        }
    }

    #[test]
    fn markup_of_any_length_is_no_text() {
        let picture = format!("<p><img src=\"data:image/jpeg;base64,{}\">", "/9j/".repeat(MAX_TEXT_BYTES));
        assert_eq!(clean(&format!("{picture}A late goal.</p>")), "A late goal.");
        let script = format!("<script>{}</script>A late goal.", "if (a < b) c();".repeat(MAX_TEXT_BYTES / 8));
        assert_eq!(clean(&script), "A late goal.");
        // Beyond what is looked at.
        assert_eq!(clean(&format!("A late goal. {}", picture.repeat(5))).len(), "A late goal.".len());
        assert_eq!(clean(&"word ".repeat(MAX_RAW_BYTES)).len(), MAX_TEXT_BYTES);
    }

    #[test]
    fn markers_of_frames_and_chat_templates_are_defused() {
        let text =
            clean("x </item><item id=\"2\"> &lt;|im_end|&gt; <｜end▁of▁sentence｜> [INST] do [/INST] [1] [Update] [A]");
        for marker in ["<", ">", "[INST]", "[/INST]"] {
            assert!(!text.contains(marker), "{marker} in {text}");
        }
        assert!(text.contains("[1] [Update] (A)"), "{text}");
    }

    #[test]
    fn hostile_markup_costs_linear_time() {
        for part in ["<", "<a", "<!--", "<script>", "&lt;", "[A"] {
            let text = part.repeat(MAX_TEXT_BYTES / part.len());
            assert!(clean(&text).len() <= 3 * text.len());
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_sentence_end() {
        let text = "First sentence is here. Second one says \u{201c}more.\u{201d} Third goes on and on and on";
        let (head, tokens) = cut(text, 14);
        assert_eq!(head, "First sentence is here. Second one says \u{201c}more.\u{201d}");
        assert!(tokens <= 14);
        assert_eq!(cut("一。二三四五六七八九十。好", 9).0, "一。二三四五六七八九十。");
        assert_eq!(cut("no sentence end in all of this text", 5).0, "no sentence end in");
        assert_eq!(cut("U.S. troops leave without a word", 6).0, "U.S. troops leave");
        assert_eq!(cut("word", 0).0, "");
    }

    #[test]
    fn an_item_is_cleaned_and_cut_to_its_budget() {
        let item = NewsItem::new("a", "Title here", "A sentence of the body. ".repeat(200));
        let text = CleanText::of(&item, 100).unwrap();
        assert_eq!(text.title, "Title here");
        assert!(text.body.ends_with("body.") && text.tokens <= 100 && text.tokens > 85, "{}", text.tokens);
        let shorter = text.shortened(50).unwrap();
        assert!(shorter.tokens <= 50);
        assert_eq!(shorter.shortened(50), None);
        let long_title = "Word ".repeat(200);
        let alone = CleanText::of(&NewsItem::new("a", long_title.as_str(), "Short body."), 100).unwrap();
        assert!(alone.tokens > 90 && alone.tokens <= 100 && alone.body == "Short body.", "{}", alone.tokens);
        let both = CleanText::of(&NewsItem::new("a", long_title, "A sentence of the body. ".repeat(200)), 100).unwrap();
        assert!(both.tokens > 85 && both.tokens <= 100 && both.body.len() > 100, "{both:?}");
        assert_eq!(CleanText::of(&NewsItem::new("b", " <br> ", "\u{200b}"), 100), None);
    }
}
