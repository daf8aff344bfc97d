//! What a server says went wrong.

/// The words of an error body: `{"error": {"message": …}}`, `{"message"}`, `{"detail"}`, or the text itself.
pub(crate) fn error_words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(64 * 1024)]);
    let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else {
        return unescaped(&without_tags(&text));
    };
    let found = [&value["error"]["message"], &value["error"], &value["message"], &value["detail"]]
        .into_iter()
        .find_map(|value| value.as_str().map(str::to_owned));
    let words = unescaped(&found.unwrap_or_else(|| text.into_owned()));
    // Some conditions have a name that the message does not tell.
    match value["error"]["code"].as_str().filter(|code| !words.contains(code)) {
        Some(code) => format!("{words} ({code})"),
        None => words,
    }
}

/// Writes JSON's `\u` escapes out, in which a repetition of the request would not be known as one.
fn unescaped(text: &str) -> String {
    let (mut out, mut units) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    loop {
        let digits = rest.strip_prefix("\\u").and_then(|after| after.get(..4));
        if let Some(unit) = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            units.push(unit);
            rest = &rest[6..];
            continue;
        }
        out.extend(char::decode_utf16(units.drain(..)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
        let Some(first) = rest.chars().next() else { return out };
        let next = rest[first.len_utf8()..].find("\\u").map_or(rest.len(), |at| first.len_utf8() + at);
        out.push_str(&rest[..next]);
        rest = &rest[next..];
    }
}

/// An HTML error page reduced to its words.
fn without_tags(text: &str) -> String {
    crate::prompt::clean::clean(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_words_are_found_in_every_form() {
        for (body, words) in [
            (r#"{"error":{"message":"no such model","code":404}}"#, "no such model"),
            (r#"{"error":"model not found"}"#, "model not found"),
            (r#"{"error":{"message":"Pay","code":"insufficient_quota"}}"#, "Pay (insufficient_quota)"),
            (r#"{"object":"error","message":"too long"}"#, "too long"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"detail":[{"input":"\u041c\u0438\u0440 \ud83d\ude00"}]}"#, "{\"detail\":[{\"input\":\"Мир 😀\"}]}"),
            ("<html><body><h1>429</h1>Slow down</body></html>", "429 Slow down"),
            ("", ""),
        ] {
            assert_eq!(error_words(body.as_bytes()), words);
        }
    }
}
