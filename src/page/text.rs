//! Text and numbers for the page.

/// Text made safe to stand in HTML and in attributes, without control characters.
pub(crate) fn escape(text: &str) -> String {
    let shown: String = text.chars().filter(|c| !c.is_control()).collect();
    html_escape::encode_safe(&shown).into_owned()
}

/// Text of at most so many characters.
pub(crate) fn shorten(text: &str, most_chars: usize) -> String {
    if text.chars().count() <= most_chars {
        return text.to_owned();
    }
    text.chars().take(most_chars.saturating_sub(1)).chain(['…']).collect()
}

/// A share as a percentage with one digit.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * share)
}

/// A share as a percentage, a dash where there is none.
pub(crate) fn percent_or_dash(share: Option<f64>) -> String {
    share.map_or_else(dash, percent)
}

/// A number with about three digits that count.
pub(crate) fn rough(number: f64) -> String {
    match number.abs() {
        large if large >= 99.95 => grouped(number.round() as i64),
        medium if medium >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Such a number, "unknown" where there is none.
pub(crate) fn rough_or_unknown(number: Option<f64>) -> String {
    number.map_or_else(|| r#"<span class="muted">unknown</span>"#.to_owned(), rough)
}

/// A difference of shares in percentage points, with its sign.
pub(crate) fn points(difference: f64) -> String {
    let number = format!("{:.1}", 100.0 * difference.abs());
    let sign = match difference {
        _ if number == "0.0" => "",
        negative if negative < 0.0 => "−",
        _ => "+",
    };
    format!("{sign}{number}")
}

/// A probability by chance, in the usual three digits.
pub(crate) fn p_value(p: f64) -> String {
    if p < 0.001 { "&lt; 0.001".to_owned() } else { format!("{p:.3}") }
}

/// A whole number with narrow blanks between its thousands.
pub(crate) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::from(if number < 0 { "−" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

pub(crate) fn dash() -> String {
    r#"<span class="muted">–</span>"#.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_text() {
        assert_eq!(escape("<b>\"a\" & 'b'\u{0}\n</b>"), "&lt;b&gt;&quot;a&quot; &amp; &#x27;b&#x27;&lt;&#x2F;b&gt;");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([rough(0.0), rough(3.456), rough(42.55), rough(1_234.4)], ["0.00", "3.46", "42.5", "1\u{202f}234"]);
        assert_eq!([points(0.0213), points(-0.05), points(-0.0001)], ["+2.1", "−5.0", "0.0"]);
        assert_eq!([p_value(0.00001), p_value(0.0523)], ["&lt; 0.001", "0.052"]);
        assert_eq!([shorten("schön", 5), shorten("schöner", 5)], ["schön", "schö…"]);
        assert_eq!(grouped(1_000_000), "1\u{202f}000\u{202f}000");
    }
}
