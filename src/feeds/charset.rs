//! From the bytes of a feed to text.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::FeedError;

/// How far into a document an XML declaration may end.
const MAX_DECLARATION_BYTES: usize = 1024;

/// Text with where it came from.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) text: String,
    pub(super) charset: &'static Encoding,
    pub(super) is_damaged: bool,
}

/// Decodes a document: by its byte order mark, else by the given charset, else by its XML declaration, else as UTF-8.
pub(super) fn decode(bytes: &[u8], given: Option<&str>) -> Result<Decoded, FeedError> {
    let given = given.map(|label| {
        let unknown = || FeedError::UnknownCharset { label: label.chars().take(40).collect() };
        Encoding::for_label(label.trim().as_bytes()).ok_or_else(unknown)
    });
    let charset = given.transpose()?.or_else(|| looks_like_utf_16(bytes)).or_else(|| declared(bytes)).unwrap_or(UTF_8);
    let (text, charset, is_damaged) = charset.decode(bytes);
    Ok(Decoded { text: text.into_owned(), charset, is_damaged })
}

/// UTF-16 without a mark: the first character of an XML document is known.
fn looks_like_utf_16(bytes: &[u8]) -> Option<&'static Encoding> {
    match bytes {
        [b'<', 0, ..] => Some(UTF_16LE),
        [0, b'<', ..] => Some(UTF_16BE),
        _ => None,
    }
}

/// The charset of the XML declaration. One that could be read byte by byte is not UTF-16, whatever it says.
fn declared(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes.trim_ascii_start();
    let head = &head[..head.len().min(MAX_DECLARATION_BYTES)];
    let head = head.strip_prefix(b"<?xml")?;
    let end = head.windows(2).position(|pair| pair == b"?>")?;
    let declaration = std::str::from_utf8(&head[..end]).ok()?;
    let value = declaration.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let label = value[1..].split(quote).next()?;
    let charset = Encoding::for_label(label.trim().as_bytes())?;
    Some(if charset == UTF_16LE || charset == UTF_16BE { UTF_8 } else { charset })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], given: Option<&str>) -> (String, &'static str, bool) {
        let Decoded { text, charset, is_damaged } = decode(bytes, given).unwrap();
        (text, charset.name(), is_damaged)
    }

    #[test]
    fn the_charset_is_found_where_it_stands() {
        let declared = |label: &str, text: &[u8]| {
            let mut document = format!("<?xml version='1.0' encoding=\"{label}\"?>").into_bytes();
            document.extend_from_slice(text);
            let (text, charset, is_damaged) = decoded(&document, None);
            assert!(!is_damaged);
            (text.split_once("?>").unwrap().1.to_owned(), charset)
        };
        assert_eq!(declared("windows-1251", b"\xcf\xf0\xe8"), ("При".into(), "windows-1251"));
        // The Encoding Standard takes Latin-1 for its superset.
        assert_eq!(declared("ISO-8859-1", b"caf\xe9 \x96"), ("café –".into(), "windows-1252"));
        assert_eq!(declared("Shift_JIS", b"\x93\xfa\x96\x7b"), ("日本".into(), "Shift_JIS"));
        assert_eq!(declared("gb2312", b"\xd6\xd0"), ("中".into(), "GBK"));
        assert_eq!(declared("no-such", "é".as_bytes()), ("é".into(), "UTF-8"));
        assert_eq!(declared("utf-16", "é".as_bytes()), ("é".into(), "UTF-8"));
    }

    #[test]
    fn a_mark_is_stronger_than_what_was_given_and_that_than_the_declaration() {
        assert_eq!(decoded(b"\xef\xbb\xbf\xc3\xa9", Some("windows-1251")), ("é".into(), "UTF-8", false));
        assert_eq!(decoded(b"\xff\xfe<\0\xe9\0", None), ("<é".into(), "UTF-16LE", false));
        assert_eq!(decoded(b"\0<\0\xe9", None), ("<é".into(), "UTF-16BE", false));
        let document = b"<?xml version='1.0' encoding='utf-8'?>\xcf";
        assert!(decoded(document, Some(" Windows-1251 ")).0.ends_with('П'));
        assert!(decoded(document, None).2, "damage is noticed");
        assert!(matches!(decode(b"", Some("klingon")), Err(FeedError::UnknownCharset { .. })));
    }
}
