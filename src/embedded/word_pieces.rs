//! From a text to the tokens of a model of the BERT family, by its `tokenizer.json`.
//!
//! The steps are those of rten-text, put together here: its own `Tokenizer` (0.27) also computes where in the text each token
//! stands, and panics where a word of several pieces ends in one that is not in the vocabulary, as in many names in Arabic or
//! Greek script.

use std::collections::HashMap;

use rten_text::models::{Model, WordPiece, WordPieceOptions};
use rten_text::normalizers::{Bert as Normalizer, BertOptions, Normalizer as _};
use rten_text::pre_tokenizers::{Bert as Words, PreTokenizer as _};
use serde::Deserialize;

/// A WordPiece tokenizer (Schuster and Nakajima, *Japanese and Korean voice search*, 2012).
pub(super) struct WordPieces {
    normalizer: Normalizer,
    pieces: WordPiece,
    begin: u32,
    end: u32,
}

/// What a `tokenizer.json` says, as far as it matters here.
#[derive(Deserialize)]
struct File {
    normalizer: FileNormalizer,
    model: FileModel,
}

#[derive(Deserialize)]
struct FileNormalizer {
    #[serde(rename = "type")]
    kind: String,
    lowercase: bool,
    strip_accents: Option<bool>,
}

#[derive(Deserialize)]
struct FileModel {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    vocab: HashMap<String, u32>,
}

impl WordPieces {
    /// Reads the text of a `tokenizer.json`. An error says why it cannot be used.
    pub(super) fn from_json(json: &str) -> Result<Self, String> {
        let File { normalizer, model } =
            serde_json::from_str(json).map_err(|error| format!("it is no tokenizer of BERT: {error}"))?;
        if normalizer.kind != "BertNormalizer" || model.kind.is_some_and(|kind| kind != "WordPiece") {
            return Err("it is no tokenizer of BERT: BertNormalizer and WordPiece are known here".to_owned());
        }
        let token = |name: &str| model.vocab.get(name).copied().ok_or(format!("its vocabulary has no {name}"));
        let (begin, end) = (token("[CLS]")?, token("[SEP]")?);
        token("[UNK]")?;
        let options = BertOptions {
            lowercase: normalizer.lowercase,
            strip_accents: normalizer.strip_accents.unwrap_or(normalizer.lowercase),
        };
        let pieces = WordPiece::from_vocab(model.vocab, WordPieceOptions::default());
        Ok(Self { normalizer: Normalizer::new(options), pieces, begin, end })
    }

    /// The tokens of a text, at most so many, those of its begin and end included. None where it cannot be read.
    pub(super) fn of(&self, text: &str, most: usize) -> Option<Vec<i32>> {
        let (text, _) = self.normalizer.normalize(&spaced(text)).ok()?;
        let mut tokens = vec![self.begin];
        for word in Words::new().pre_tokenize(&text).ok()? {
            if tokens.len() + 1 >= most {
                break;
            }
            tokens.extend(self.pieces.encode(word).ok()?);
        }
        tokens.truncate(most.saturating_sub(1));
        tokens.push(self.end);
        Some(tokens.into_iter().map(u32::cast_signed).collect())
    }
}

/// Chinese characters are words of their own.
fn spaced(text: &str) -> String {
    let is_word = |c: char| matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{2fa1f}');
    let mut spaced = String::with_capacity(text.len());
    for c in text.chars() {
        if is_word(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const JSON: &str = r###"{
        "normalizer": {"type": "BertNormalizer", "lowercase": true, "strip_accents": null},
        "model": {"type": "WordPiece", "vocab": {
            "[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "late": 3, "goal": 4, "##s": 5, "ε": 6, "##κ": 7, "星": 8, ".": 9
        }}
    }"###;

    #[test]
    fn words_are_folded_and_taken_apart() {
        let pieces = WordPieces::from_json(JSON).unwrap();
        assert_eq!(pieces.of("Láte  GOALS.", 64).unwrap(), [1, 3, 4, 5, 9, 2]);
        assert_eq!(pieces.of("星late星", 64).unwrap(), [1, 8, 3, 8, 2]);
        assert_eq!(pieces.of("", 64).unwrap(), [1, 2]);
        assert_eq!(pieces.of("late late late", 4).unwrap(), [1, 3, 3, 2]);
        assert_eq!(pieces.of("late goals", 4).unwrap().len(), 4);
    }

    #[test]
    fn a_word_that_ends_in_an_unknown_piece_does_no_harm() {
        let pieces = WordPieces::from_json(JSON).unwrap();
        assert_eq!(pieces.of("Εκκϗ", 64).unwrap(), [1, 6, 7, 7, 0, 2]);
    }

    #[test]
    fn what_is_no_such_tokenizer_is_refused() {
        for (json, reason) in [
            ("{}", "no tokenizer of BERT"),
            (&*JSON.replace("WordPiece", "BPE"), "are known here"),
            (&*JSON.replace("[CLS]", "<s>"), "no [CLS]"),
        ] {
            let error = WordPieces::from_json(json).err().unwrap();
            assert!(error.contains(reason), "{error}");
        }
    }
}
