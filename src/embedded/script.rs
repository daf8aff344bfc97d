//! Whether a text is in another script than the models know best.

/// Whether most letters of a text are not Latin. Punctuation and digits do not count; a text without letters is in no other
/// script. Which language a Latin text is in, this does not tell.
pub(super) fn is_other(text: &str) -> bool {
    let letters = text.chars().filter(|c| c.is_alphabetic());
    let (mut latin, mut other) = (0_usize, 0_usize);
    for c in letters {
        if is_latin(c) { latin += 1 } else { other += 1 }
    }
    other > latin
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
        || matches!(c, '\u{aa}' | '\u{ba}' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' | '\u{ff21}'..='\u{ff5a}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_letters_decide() {
        for text in ["Late goal wins the cup", "Çédille à Łódź", "Nghị quyết mới", "3:2", "", "Sony 新製品"]
        {
            assert!(!is_other(text), "{text}");
        }
        for text in ["Выборы прошли спокойно", "選挙の結果", "انتخابات", "चुनाव", "Εκλογές στην ΕΕ by AP"]
        {
            assert!(is_other(text), "{text}");
        }
    }
}
