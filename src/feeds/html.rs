//! HTML reduced to text.

use std::cell::RefCell;

use html5ever::buffer_queue::BufferQueue;
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts};

/// The most bytes that are looked at. The tokenizer compares each attribute of a tag with all before it, so this bounds the
/// time that hostile HTML can take to seconds.
const MAX_HTML_BYTES: usize = 512 * 1024;

/// Gives the text of HTML: a line for each paragraph, list item or table row, without tags, scripts, styles and comments,
/// with entities as characters and white space folded as a browser folds it. Plain text stays as it is but for that.
///
/// A `<` that begins no tag, or one that is never closed, is text. Of more than 512 KiB the beginning is read.
///
/// ```
/// use slugline::feeds::html_to_text;
///
/// assert_eq!(html_to_text("<p>Caf&eacute; <b>o</b>pens</p><ul><li>8&nbsp;am</ul>"), "Café opens\n8\u{a0}am");
/// assert_eq!(html_to_text("5 < 6"), "5 < 6");
/// ```
pub fn html_to_text(html: &str) -> String {
    let sink = Sink::default();
    let tokenizer = Tokenizer::new(sink, TokenizerOpts::default());
    let input = BufferQueue::default();
    let (closed, open) = split_at_open_tag(&html[..html.floor_char_boundary(MAX_HTML_BYTES)]);
    // A tag that was cut off is no text.
    let open = if html.len() > MAX_HTML_BYTES { "" } else { open };
    input.push_back(StrTendril::from_slice(closed));
    // The sink never asks for a script to be run, so one call takes all.
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    let mut text = tokenizer.sink.text.into_inner();
    if !open.is_empty() {
        text.push('<');
        text.push_characters(&open[1..]);
    }
    text.out
}

/// Splits before a last `<` that is never closed, and that a tokenizer would swallow with all that follows.
fn split_at_open_tag(html: &str) -> (&str, &str) {
    let after_last_end = html.rfind('>').map_or(0, |at| at + 1);
    let open = html[after_last_end..].find('<').map_or(html.len(), |at| after_last_end + at);
    html.split_at(open)
}

#[derive(Default)]
struct Sink {
    text: RefCell<Text>,
}

/// Text while it grows.
#[derive(Default)]
struct Text {
    out: String,
    /// White space that was met and is written when something follows.
    gap: Gap,
    /// The element whose content is not text, while within it.
    hidden: Option<String>,
}

#[derive(Clone, Copy, Default, PartialEq, PartialOrd)]
enum Gap {
    #[default]
    None,
    Blank,
    Line,
}

impl Text {
    fn gap(&mut self, gap: Gap) {
        if gap > self.gap {
            self.gap = gap;
        }
    }

    fn push(&mut self, c: char) {
        let gap = std::mem::take(&mut self.gap);
        if !self.out.is_empty() {
            match gap {
                Gap::None => {}
                Gap::Blank => self.out.push(' '),
                Gap::Line => self.out.push('\n'),
            }
        }
        self.out.push(c);
    }

    fn push_characters(&mut self, text: &str) {
        for c in text.chars() {
            // Not the other white space: a browser shows it.
            if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
                self.gap(Gap::Blank);
            } else {
                self.push(c);
            }
        }
    }

    fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name = &*tag.name;
        if let Some(hidden) = &self.hidden {
            if tag.kind == TagKind::EndTag && hidden == name {
                self.hidden = None;
            }
            return TokenSinkResult::Continue;
        }
        self.gap(gap_of(name));
        // A browser takes `<iframe/>` for open, and with it all text to the end; who writes it means XML.
        if tag.kind == TagKind::EndTag || tag.self_closing {
            return TokenSinkResult::Continue;
        }
        // What is within these is no markup: a `<` in a script begins no tag.
        let raw = match name {
            "script" => RawKind::ScriptData,
            "style" | "iframe" | "noembed" | "noframes" => RawKind::Rawtext,
            "title" | "textarea" => RawKind::Rcdata,
            _ => return TokenSinkResult::Continue,
        };
        if name != "textarea" {
            self.hidden = Some(name.to_owned());
        }
        TokenSinkResult::RawData(raw)
    }
}

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let mut text = self.text.borrow_mut();
        match token {
            Token::TagToken(tag) => return text.tag(&tag),
            Token::CharacterTokens(characters) if text.hidden.is_none() => text.push_characters(&characters),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// What an element's begin and end put between the words around them.
fn gap_of(name: &str) -> Gap {
    match name {
        "td" | "th" => Gap::Blank,
        "address" | "article" | "aside" | "blockquote" | "br" | "caption" | "center" | "dd" | "details" | "div"
        | "dl" | "dt" | "fieldset" | "figcaption" | "figure" | "footer" | "form" | "h1" | "h2" | "h3" | "h4" | "h5"
        | "h6" | "header" | "hr" | "li" | "main" | "nav" | "ol" | "p" | "pre" | "section" | "summary" | "table"
        | "tbody" | "tfoot" | "thead" | "tr" | "ul" => Gap::Line,
        _ => Gap::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_goes_and_text_stays() {
        for (html, expected) in [
            ("<p>One</p>\n\n<p>Two <b>th</b>ree</p>", "One\nTwo three"),
            ("a<br/>b<hr>c", "a\nb\nc"),
            ("<table><tr><td>x<td>y<tr><td>z</table>", "x y\nz"),
            ("a<!-- > hidden -->b<script>if (a<b) { x = '</p>' }</script>c<style>p{}</style>d", "abcd"),
            ("<title>Page</title>text<iframe src='x'/> more", "text more"),
            ("5 < 6 & 7 > 3 &amp;lt; &#146;", "5 < 6 & 7 > 3 &lt; ’"),
            ("he said <quote me", "he said <quote me"),
            ("", ""),
            ("<img src='a' alt='b'>", ""),
        ] {
            assert_eq!(html_to_text(html), expected, "{html}");
        }
    }

    #[test]
    fn scripts_and_signs_stay_intact() {
        for text in [
            "日本語の記事。中文也行",
            "می\u{200c}شود و عربي\u{200f}",
            "עברית ܐ हिन्दी ไทย",
            "👩\u{200d}👩\u{200d}👧 🇺🇦 é e\u{301}",
        ] {
            assert_eq!(html_to_text(&format!("<div><b>{text}</b></div>")), text);
        }
    }

    #[test]
    fn hostile_html_costs_little_time_and_no_stack() {
        for part in ["<", "<a", "<a ", "<a b", "<!--", "<script>", "<div>", "&lt;", "&", "<![CDATA["] {
            let html = part.repeat(100_000 / part.len());
            assert!(html_to_text(&html).len() <= 2 * html.len(), "{part}");
            assert!(html_to_text(&(html.clone() + ">")).len() <= 2 * html.len(), "{part}");
        }
        let attributes = " a=1".repeat(3_000);
        assert_eq!(html_to_text(&format!("<p{attributes}>x")), "x");
    }
}
