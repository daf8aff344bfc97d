//! A made-up tokenizer: words, digits and marks, about four to five bytes a token in English. It belongs to no model.

use super::hash::stable_hash;

/// The tokens of a text, in order; together they spell the text.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (token, after) = rest.split_at(token_len(rest));
        rest = after;
        Some(token)
    })
}

/// A number for each token of a text, the same for the same token.
pub(super) fn token_ids(text: &str) -> impl Iterator<Item = u64> {
    tokens(text).map(|token| stable_hash(0, token.as_bytes()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Letters of ASCII.
    Letter,
    /// Other alphabets.
    OtherLetter,
    /// Scripts with a sign a word or syllable.
    Sign,
    Digit,
    Space,
    Mark,
}

impl Kind {
    fn of(c: char) -> Self {
        match c {
            c if c.is_ascii_alphabetic() => Self::Letter,
            c if c.is_numeric() => Self::Digit,
            c if c.is_whitespace() => Self::Space,
            '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' => Self::Sign,
            c if c.is_alphabetic() => Self::OtherLetter,
            _ => Self::Mark,
        }
    }

    /// The most characters of this kind in one token.
    fn max_chars(self) -> usize {
        match self {
            Self::Letter => 7,
            Self::OtherLetter => 3,
            Self::Sign | Self::Digit => 1,
            Self::Space => 16,
            Self::Mark => 2,
        }
    }
}

/// The bytes of the first token: a run of one kind, with the single blank before it.
fn token_len(text: &str) -> usize {
    let body = match text.strip_prefix(' ') {
        Some(body) if body.starts_with(|c: char| !c.is_whitespace()) => body,
        _ => text,
    };
    let lead = text.len() - body.len();
    let Some(kind) = body.chars().next().map(Kind::of) else { return text.len() };
    let run = body.chars().take_while(|&c| Kind::of(c) == kind).take(kind.max_chars());
    lead + run.map(char::len_utf8).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_spell_the_text_again() {
        for text in [
            "",
            " ",
            "  a",
            "The council, in 2024, approved\n\nit.",
            "日本語のニュース",
            "Новости дня",
            "😀 ok",
            "a \u{3000} b",
        ] {
            assert_eq!(tokens(text).collect::<String>(), text);
        }
    }

    #[test]
    fn english_takes_four_to_five_bytes_a_token() {
        let text = "The central bank raised its main interest rate by a quarter point on Thursday, as economists had expected.";
        let bytes_per_token = text.len() as f64 / tokens(text).count() as f64;
        assert!((4.0..5.0).contains(&bytes_per_token), "{bytes_per_token}");
    }

    #[test]
    fn the_same_token_has_the_same_number() {
        let ids: Vec<_> = token_ids("a b a a").collect();
        assert_eq!(ids.len(), 4);
        assert_eq!(ids[2], ids[3]);
        assert_ne!(ids[0], ids[2]);
    }
}
