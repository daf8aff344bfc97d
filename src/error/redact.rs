//! A server's words made fit to be shown.

use std::borrow::Cow;

/// The most bytes of a server's words that are kept.
const MAX_WORDS_BYTES: usize = 300;
/// A run of this many characters that also stands in the request is taken for an echo of it.
const ECHO_CHARS: usize = 10;
/// A line of the request of at least this many bytes is taken out whole, however short: most are titles.
const ECHO_LINE_BYTES: usize = 4;

/// A server's words made fit to be shown: one line, short, without the key and without what the request said.
pub(crate) fn redact(words: &str, request_text: &str, key: Option<&str>) -> Option<String> {
    let mut line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(key) = key.filter(|key| !key.is_empty()) {
        line = line.replace(key, "[key]");
    }
    line = without_lines(&line, request_text);
    let chars: Vec<char> = line.chars().take(4 * MAX_WORDS_BYTES).filter(|c| !c.is_control()).collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() && out.len() < MAX_WORDS_BYTES {
        let echoes = |length: usize| {
            let window: Cow<'_, str> = chars[at..at + length].iter().collect::<String>().into();
            request_text.contains(&*window)
        };
        let mut length = ECHO_CHARS;
        if at + length <= chars.len() && echoes(length) {
            while at + length < chars.len() && echoes(length + 1) {
                length += 1;
            }
            out.push_str("[text of the request]");
            at += length;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    if at < chars.len() {
        out.push('…');
    }
    (!out.is_empty()).then_some(out)
}

/// The words without whole lines of the request, which say nothing of the server.
pub(crate) fn without_lines(words: &str, request_text: &str) -> String {
    let lines = request_text.lines().filter(|line| line.len() >= ECHO_LINE_BYTES && words.contains(line));
    lines.fold(words.to_owned(), |words, line| words.replace(line, "[text of the request]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_server_lose_keys_and_echoes() {
        let request = "The minister of transport resigned on Monday after talks.";
        let words = "bad input:\n 'The minister of transport resigned on Monday' with key sk-123";
        assert_eq!(
            redact(words, request, Some("sk-123")).as_deref(),
            Some("bad input: '[text of the request]' with key [key]")
        );
        assert_eq!(redact("no 'Cup final'", "x\nCup final\ny", None).as_deref(), Some("no '[text of the request]'"));
        assert_eq!(redact(" \n", request, None), None);
        assert!(redact(&"é".repeat(5_000), request, None).unwrap().len() <= MAX_WORDS_BYTES + 8);
    }
}
