//! RSS, Atom and JSON feeds as news items (feature `feeds`).
//!
//! [`read`] takes the bytes of a feed as a server or a file gives them. The charset is found as browsers find it; entities,
//! also those that XML does not know, become characters; HTML becomes plain text, with a line for each paragraph. The text
//! itself is not touched: cleaning for the prompt is the run's affair.
//!
//! ```
//! let bytes = b"<?xml version='1.0' encoding='windows-1251'?><rss version='2.0'><channel><title>City news</title>\
//!     <item><guid>7</guid><title>Fish &amp; chips&hellip;</title>\
//!     <description><![CDATA[<p>Two <b>new</b> shops.</p><p>\xCE\xED\xE8 open.</p>]]></description></item>\
//!     <item><guid>8</guid></item></channel></rss>";
//! let feed = slugline::feeds::read(bytes, None)?;
//! let item = feed.entries[0].as_ref().expect("it has text");
//! assert_eq!((item.id.as_str(), item.title.as_str()), ("7", "Fish & chips…"));
//! assert_eq!(item.body, "Two new shops.\nОни open.");
//! assert_eq!(item.source.as_deref(), Some("City news"));
//! assert!(feed.entries[1].is_err(), "an entry without text is no item");
//! # Ok::<(), slugline::feeds::FeedError>(())
//! ```
//!
//! The parser is feed-rs. HTML is read by html5ever's tokenizer, by the rules of the HTML standard.

mod charset;
mod html;
mod references;

use std::panic::{AssertUnwindSafe, catch_unwind};

use feed_rs::model::{Content, Entry, Text};
use feed_rs::parser::{Builder, ParseErrorKind, ParseFeedError};

pub use self::html::html_to_text;
use crate::NewsItem;

/// The longest feed that is read, in bytes.
pub const MAX_FEED_BYTES: usize = 64 * 1024 * 1024;

/// A feed that was read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Feed {
    /// The feed's name. It is also the [`source`](NewsItem::source) of its items.
    pub title: Option<String>,
    /// One result for each entry that the parser found, in the order of the feed.
    pub entries: Vec<Result<NewsItem, EntryError>>,
    /// The charset in which it was read, by the name of the Encoding Standard.
    pub charset: &'static str,
    /// Whether some bytes were none of that charset and became U+FFFD: then the charset may be another.
    pub is_damaged: bool,
}

/// Why an entry of a feed is no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// It has no title and no text, for example a bare picture.
    #[error("the entry has neither a title nor text")]
    Empty,
}

/// Why bytes are no feed. No text of the feed is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// It is longer than [`MAX_FEED_BYTES`].
    #[error("the feed is longer than {} MiB", MAX_FEED_BYTES / 1024 / 1024)]
    TooLong,
    /// The given charset is not known.
    #[error("the charset {label:?} is not known; give one of the Encoding Standard, such as windows-1251, or none")]
    UnknownCharset {
        /// As it was given.
        label: String,
    },
    /// It is no RSS, Atom or JSON feed, for example the page of an error.
    #[error("neither RSS nor Atom nor JSON Feed: the element or version of a feed is missing")]
    NotAFeed,
    /// It is a feed, but its parser cannot read it to the end, for example since it is cut.
    #[error("the feed cannot be read to its end: {reason}")]
    Malformed {
        /// What is wrong, in words.
        reason: String,
    },
}

/// Reads an RSS 0.9x, 1.0 or 2.0, Atom or JSON feed.
///
/// The charset is that of a byte order mark, else `charset` (the one in the `Content-Type` of an HTTP answer goes here), else
/// the one in the XML declaration, else UTF-8. The id of an item is the entry's own, else its link, else a hash of its text.
/// Its body is the whole text where the feed has it, else the summary.
///
/// # Errors
/// [`FeedError`]: too long, an unknown `charset`, no feed, or one that is cut or not well-formed. An entry without text is an
/// error in [`Feed::entries`].
pub fn read(bytes: &[u8], charset: Option<&str>) -> Result<Feed, FeedError> {
    if bytes.len() > MAX_FEED_BYTES {
        return Err(FeedError::TooLong);
    }
    let decoded = charset::decode(bytes, charset)?;
    let text = without_declaration(&decoded.text);
    let text = if text.starts_with('<') { references::resolve(text) } else { text.into() };
    // Its own ids for entries without one are random where there is no link.
    let parser = Builder::new().id_generator(|_, _, _| String::new()).build();
    // feed-rs 3.0 slices the names of authors in the middle of a character. Nothing of the parser outlives the call.
    let feed = catch_unwind(AssertUnwindSafe(|| parser.parse(text.as_bytes())))
        .map_err(|_| malformed("the parser broke down"))?
        .map_err(|error| error_of(&error))?;
    let title = feed.title.as_ref().map(text_of).filter(|title| !title.is_empty());
    let entries = feed.entries.iter().map(|entry| item_of(entry, title.as_deref(), feed.language.as_deref()));
    Ok(Feed {
        entries: entries.collect(),
        title: title.clone(),
        charset: decoded.charset.name(),
        is_damaged: decoded.is_damaged,
    })
}

/// The text without its XML declaration, which names a charset that the text no longer has.
fn without_declaration(text: &str) -> &str {
    let text = text.trim_start();
    let declaration = text.strip_prefix("<?xml").filter(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace()));
    let rest = declaration.and_then(|rest| Some(&rest[rest.find("?>")? + 2..]));
    rest.unwrap_or(text).trim_start()
}

fn item_of(entry: &Entry, source: Option<&str>, language: Option<&str>) -> Result<NewsItem, EntryError> {
    let title = entry.title.as_ref().map(text_of).unwrap_or_default();
    let whole = entry.content.as_ref().map(content_text).filter(|text| !text.is_empty());
    let body = whole.or_else(|| entry.summary.as_ref().map(text_of)).unwrap_or_default();
    if title.is_empty() && body.is_empty() {
        return Err(EntryError::Empty);
    }
    let link = entry.links.iter().find(|link| link.rel.as_deref().is_none_or(|rel| rel == "alternate"));
    let given = [Some(entry.id.trim()), link.map(|link| link.href.trim())];
    let id = given.into_iter().flatten().find(|id| !id.is_empty()).map(str::to_owned);
    let mut item = NewsItem::new(id.unwrap_or_else(|| hash_of(&title, &body)), title, body);
    item.source = source.map(str::to_owned);
    item.language = entry.language.as_deref().or(language).map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned);
    item.published = entry.published.or(entry.updated).map(|time| time.to_rfc3339());
    Ok(item)
}

/// The text of an element. RSS does not say whether a title is plain or HTML, and feeds have both; only Atom's plain text is
/// known to be plain, and is seldom anything that HTML would take for a tag.
fn text_of(text: &Text) -> String {
    html_to_text(&text.content)
}

fn content_text(content: &Content) -> String {
    let body = content.body.as_deref().unwrap_or_default();
    match (content.content_type.ty().as_str(), content.content_type.subty().as_str()) {
        ("text", _) | ("application", "xhtml") => html_to_text(body),
        // Pictures and the like, in base64.
        _ => String::new(),
    }
}

fn hash_of(title: &str, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(title.as_bytes());
    hasher.update(b"\n");
    hasher.update(body.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The parser's error without the words of the feed that some of its messages quote.
fn error_of(error: &ParseFeedError) -> FeedError {
    let at = |what: &str, position: u64| malformed(&format!("{what} near byte {position}"));
    match error {
        ParseFeedError::ParseError(kind) => match kind {
            ParseErrorKind::NoFeedRoot => FeedError::NotAFeed,
            ParseErrorKind::UnknownMimeType { position, .. } => at("an unknown type of content", *position),
            ParseErrorKind::MissingContent { position, .. } => at("an element without its content", *position),
            ParseErrorKind::UnknownEnumVariant { position, .. } | ParseErrorKind::IllegalState { position, .. } => {
                at("an element that is not allowed", *position)
            }
        },
        ParseFeedError::JsonSerde(error) => {
            malformed(&format!("no JSON Feed at line {} column {}", error.line(), error.column()))
        }
        ParseFeedError::JsonUnsupportedVersion(_) => FeedError::NotAFeed,
        ParseFeedError::IoError(_) | ParseFeedError::XmlReader(_) => malformed("its XML is not well-formed, or cut"),
    }
}

fn malformed(reason: &str) -> FeedError {
    FeedError::Malformed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rss(items: &str) -> String {
        format!("<rss version=\"2.0\"><channel><title>F</title><language>EN</language>{items}</channel></rss>")
    }

    fn items(feed: &[u8]) -> Vec<NewsItem> {
        read(feed, None).unwrap().entries.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn an_item_has_the_best_id_and_the_whole_text() {
        let feed =
            rss("<item><title>A</title><link>http://x/1</link><guid> g1 </guid><description>Lead.</description>\
             <content:encoded xmlns:content=\"http://purl.org/rss/1.0/modules/content/\"><![CDATA[<p>Whole.</p>]]>\
             </content:encoded><pubDate>Wed, 12 Aug 2026 19:14:11 +0530</pubDate></item>\
             <item><title>B</title><link>http://x/2</link><description>&lt;img src='x'&gt;</description></item>\
             <item><title>C</title></item><item><title>D</title></item>");
        let items = items(feed.as_bytes());
        let expected = NewsItem::new("g1", "A", "Whole.")
            .with_source("F")
            .with_language("en")
            .with_published("2026-08-12T13:44:11+00:00");
        assert_eq!(items[0], expected);
        assert_eq!((items[1].id.as_str(), items[1].body.as_str()), ("http://x/2", ""));
        assert_eq!(items[2].id.len(), 32);
        assert_ne!(items[2].id, items[3].id);
        assert_eq!(items[2], self::items(feed.as_bytes())[2], "the same each time");
    }

    #[test]
    fn atom_with_every_kind_of_text() {
        let feed = "<feed xmlns=\"http://www.w3.org/2005/Atom\" xml:lang=\"de\"><id>f</id><title>Zeitung</title>\
            <entry><id>1</id><title type=\"html\">Caf&amp;eacute; &amp;amp; Bar</title><content type=\"xhtml\"><div \
            xmlns=\"http://www.w3.org/1999/xhtml\"><p>Eins</p><p>Zwei &lt; drei</p></div></content></entry>\
            <entry><id>2</id><title>5 &lt; 6</title><summary type=\"html\">&lt;b&gt;kurz&lt;/b&gt;</summary></entry></feed>";
        let items = items(feed.as_bytes());
        assert_eq!((items[0].title.as_str(), items[0].body.as_str()), ("Café & Bar", "Eins\nZwei < drei"));
        assert_eq!((items[1].title.as_str(), items[1].body.as_str()), ("5 < 6", "kurz"));
    }

    #[test]
    fn json_feeds_and_rdf_are_feeds() {
        let json =
            r#"{"version":"https://jsonfeed.org/version/1.1","title":"J","items":[{"id":"1","content_html":"<p>T"}]}"#;
        assert_eq!(items(json.as_bytes())[0].body, "T");
        let rdf = "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\" xmlns=\"http://purl.org/rss/1.0/\">\
            <channel><title>R</title></channel><item><title>T</title><link>http://x/1</link></item></rdf:RDF>";
        assert_eq!(items(rdf.as_bytes())[0].id, "http://x/1");
    }

    #[test]
    fn what_is_no_feed_says_so_without_its_text() {
        assert_eq!(read(b"<html><body>Moved</body></html>", None).unwrap_err(), FeedError::NotAFeed);
        assert_eq!(read(b"", None).unwrap_err(), FeedError::NotAFeed);
        let cut = rss("<item><title>secret");
        let cut = &cut[..cut.len() - "</channel></rss>".len()];
        let error = read(cut.as_bytes(), None).unwrap_err();
        assert!(matches!(error, FeedError::Malformed { .. }) && !error.to_string().contains("secret"), "{error}");
        assert_eq!(read(&vec![b' '; MAX_FEED_BYTES + 1], None).unwrap_err(), FeedError::TooLong);
    }

    #[test]
    fn a_parser_that_breaks_down_is_an_error() {
        let feed = rss("<item><title>T</title><author>\u{ff08}someone@example.org</author></item>");
        // Whether it breaks down is the parser's affair; that it does not end the program is ours.
        if let Err(error) = read(feed.as_bytes(), None) {
            assert_eq!(error, malformed("the parser broke down"));
        }
    }
}
