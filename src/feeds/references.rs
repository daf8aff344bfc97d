//! Entities of HTML in XML.
//!
//! XML knows five entities. Feeds use those of HTML as well, leave ampersands as they are, and have numbers that no
//! character has; a strict parser refuses the whole feed for one of them, or shows the entity instead of the character.

use std::borrow::Cow;

use html_escape::decode_html_entities;

/// The longest name of an HTML entity is 31 characters long.
const MAX_NAME_BYTES: usize = 32;

/// Replaces what XML does not know: HTML's entities by their characters, an ampersand that begins nothing by `&amp;`.
pub(super) fn resolve(xml: &str) -> Cow<'_, str> {
    if !xml.contains('&') {
        return Cow::Borrowed(xml);
    }
    let mut out = String::with_capacity(xml.len() + xml.len() / 16);
    let mut rest = xml;
    while let Some(at) = rest.find(['&', '<']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = if rest.starts_with('<') { verbatim_length(rest) } else { resolve_one(rest, &mut out) };
        if rest.starts_with('<') {
            out.push_str(&rest[..taken]);
        }
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The length of what begins with `<` and has no references: a CDATA section or a comment whole, else one byte.
fn verbatim_length(text: &str) -> usize {
    let end_of = |start: &str, end: &str| {
        text.starts_with(start).then(|| text.find(end).map_or(text.len(), |at| at + end.len()))
    };
    end_of("<![CDATA[", "]]>").or_else(|| end_of("<!--", "-->")).unwrap_or(1)
}

/// Writes the character for the reference at the beginning, as XML can have it. Gives the bytes that it stood for.
fn resolve_one(text: &str, out: &mut String) -> usize {
    let name_bytes = text.bytes().skip(1).take(MAX_NAME_BYTES).take_while(|&b| b.is_ascii_alphanumeric() || b == b'#');
    let end = 1 + name_bytes.count();
    if end == 1 || text.as_bytes().get(end) != Some(&b';') {
        out.push_str("&amp;");
        return 1;
    }
    let (name, whole) = (&text[1..end], &text[..=end]);
    match name.strip_prefix('#') {
        Some(number) => match character(number) {
            Some(c) => push_escaped(out, c),
            None => out.push('\u{fffd}'),
        },
        None if matches!(name, "amp" | "lt" | "gt" | "quot" | "apos") => out.push_str(whole),
        None => match decode_html_entities(whole) {
            // An entity that nobody knows is shown as it stands.
            decoded if decoded == whole => out.push_str(&format!("&amp;{name};")),
            decoded => decoded.chars().for_each(|c| push_escaped(out, c)),
        },
    }
    end + 1
}

/// The character of a number. Those from 128 to 159 are controls that nobody means: they are read as windows-1252, as HTML
/// has it.
fn character(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => number.parse().ok()?,
    };
    match code {
        0x80..=0x9f => encoding_rs::WINDOWS_1252.decode_without_bom_handling(&[code as u8]).0.chars().next(),
        0x9 | 0xa | 0xd => char::from_u32(code),
        _ => char::from_u32(code).filter(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')),
    }
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_does_not_know_becomes_what_it_knows() {
        for (raw, expected) in [
            ("caf&eacute;&nbsp;&mdash; &amp; &lt;b&gt;", "café\u{a0}— &amp; &lt;b&gt;"),
            ("AT&T, R&D; a & b &", "AT&amp;T, R&amp;D; a &amp; b &amp;"),
            ("&#8217;&#x2019;&#146;&#60;&#38;", "’’’&lt;&amp;"),
            ("&#0;&#xd800;&#x1;&#999999999999;&#;", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            (
                "<a x=\"1&2\"><![CDATA[R&D &nbsp;]]><!-- & -->&copy;</a>",
                "<a x=\"1&amp;2\"><![CDATA[R&D &nbsp;]]><!-- & -->©</a>",
            ),
            ("<![CDATA[cut & never closed", "<![CDATA[cut & never closed"),
            ("&日本;", "&amp;日本;"),
        ] {
            assert_eq!(resolve(raw), expected, "{raw}");
        }
        assert!(matches!(resolve("nothing"), Cow::Borrowed(_)));
    }
}
