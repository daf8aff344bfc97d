//! From labels to the tokens of an answer, with the log-probabilities where a label is written.

use super::classify::best_of;
use super::tokens;

/// One token of the output.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) logprob: f64,
    /// What else could have stood here and the token itself, the most likely first.
    pub(super) alternatives: Vec<(String, f64)>,
}

/// An answer before it is written: what faults change.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) objects: Vec<DraftObject>,
    pub(super) form: Form,
    pub(super) element: Element,
    /// Text before and after the JSON.
    pub(super) before: String,
    pub(super) after: String,
}

/// What stands around the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `[{"id": 1, "category": "sport"}, …]`
    Array,
    /// The array in `{"items": …}`.
    Wrapped,
    /// `{"category": "sport"}` for the first item alone, as clients ask that send one item a request.
    Single,
}

/// What stands for each item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Element {
    /// `{"id": 1, "category": "sport"}`
    #[default]
    Numbered,
    /// `{"id": 1, "categories": ["sport", "health"]}`
    List,
    /// `{"category": "sport"}`
    Category,
    /// `"sport"`
    Bare,
}

/// One object of the array.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DraftObject {
    /// The id as JSON: a number or a quoted string.
    pub(super) id: String,
    pub(super) label: String,
    /// Further labels, where it may have several.
    pub(super) others: Vec<String>,
    /// The probability of every label, in their order.
    pub(super) shares: Vec<f64>,
}

/// How answers are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style<'a> {
    /// All labels.
    pub(super) labels: &'a [String],
    /// A blank after every colon and comma.
    pub(super) blanks: bool,
}

/// Ends the label and its object, in one token.
const OBJECT_END: &str = "\"}";
/// The log-probability of a token that could hardly be another.
const SURE: f64 = -0.000_1;
/// The share of all tokens that lead to no label, as a real model has them where its grammar forbids them.
const STRAY_SHARE: f64 = 0.02;
const STRAY: &str = "The";
/// The share from which a further label is written.
const FURTHER_SHARE: f64 = 0.15;

impl DraftObject {
    /// The object for an item, with the label of the greatest share, and those of the next ones where it may have several.
    pub(super) fn new(id: u64, labels: &[String], shares: Vec<f64>, most_labels: usize) -> Self {
        let label = labels.get(best_of(&shares)).cloned().unwrap_or_default();
        let mut others: Vec<(f64, &String)> = shares
            .iter()
            .copied()
            .zip(labels)
            .filter(|(share, other)| *share >= FURTHER_SHARE && **other != label)
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0));
        let others = others.into_iter().take(most_labels - 1).map(|(_, other)| other.clone()).collect();
        Self { id: id.to_string(), label, others, shares }
    }
}

impl Draft {
    /// The tokens of the answer.
    pub(super) fn write(&self, style: Style<'_>) -> Vec<Token> {
        let mut out = Vec::with_capacity(16 * (self.objects.len() + 1));
        push_text(&mut out, &self.before);
        match self.form {
            Form::Single => {
                if let Some(object) = self.objects.first() {
                    push(&mut out, "{\"");
                    object.write_category(&mut out, style, self.element == Element::List);
                }
            }
            Form::Array => {
                push(&mut out, "[");
                self.write_objects(&mut out, style);
                push(&mut out, "]");
            }
            Form::Wrapped => {
                push_all(
                    &mut out,
                    if style.blanks { &["{\"", "items", "\":", " ["] } else { &["{\"", "items", "\":["] },
                );
                self.write_objects(&mut out, style);
                push(&mut out, "]}");
            }
        }
        push_text(&mut out, &self.after);
        out
    }

    fn write_objects(&self, out: &mut Vec<Token>, style: Style<'_>) {
        for (number, object) in self.objects.iter().enumerate() {
            if number > 0 {
                push(out, ",");
            }
            let has_blank = style.blanks && number > 0;
            match self.element {
                Element::Bare => {
                    push(out, if has_blank { " \"" } else { "\"" });
                    object.write_label(out, &object.label, style.labels, "\"");
                }
                Element::Category => {
                    push(out, if has_blank { " {\"" } else { "{\"" });
                    object.write_category(out, style, false);
                }
                Element::Numbered => object.write(out, style, has_blank, false),
                Element::List => object.write(out, style, has_blank, true),
            }
        }
    }
}

impl DraftObject {
    fn write(&self, out: &mut Vec<Token>, style: Style<'_>, has_blank: bool, has_lists: bool) {
        push_all(out, &[if has_blank { " {\"" } else { "{\"" }, "id", "\":"]);
        if style.blanks {
            push(out, " ");
        }
        push_text(out, &self.id);
        push_all(out, if style.blanks { &[",", " \""] } else { &[",\""] });
        self.write_category(out, style, has_lists);
    }

    /// Writes what follows the quote that opens the key, and the end of the object.
    fn write_category(&self, out: &mut Vec<Token>, style: Style<'_>, has_lists: bool) {
        if has_lists {
            push_all(out, if style.blanks { &["categories", "\":", " [\""] } else { &["categories", "\":[\""] });
            self.write_label(out, &self.label, style.labels, "\"");
            for other in &self.others {
                push(out, if style.blanks { ", \"" } else { ",\"" });
                self.write_label(out, other, style.labels, "\"");
            }
            return push(out, "]}");
        }
        push_all(out, if style.blanks { &["category", "\":", " \""] } else { &["category", "\":\""] });
        self.write_label(out, &self.label, style.labels, OBJECT_END);
    }

    /// Writes the label and what ends it. At each token the alternatives are the next tokens of all labels that begin
    /// with what stands there already.
    fn write_label(&self, out: &mut Vec<Token>, label: &str, labels: &[String], end: &str) {
        if !labels.iter().any(|known| known == label) || self.shares.len() != labels.len() {
            push_text(out, label);
            push(out, end);
            return;
        }
        let mut open: Vec<usize> = (0..labels.len()).collect();
        for (step, written) in label_tokens(label, end).enumerate() {
            let next = |label: usize| label_tokens(&labels[label], end).nth(step).unwrap_or(end);
            let total: f64 = open.iter().map(|&label| self.shares[label]).sum();
            let mut mass: Vec<(String, f64)> = Vec::new();
            for &label in &open {
                let share = self.shares[label] / total.max(f64::MIN_POSITIVE);
                match mass.iter_mut().find(|(token, _)| token == next(label)) {
                    Some((_, known)) => *known += share,
                    None => mass.push((next(label).to_owned(), share)),
                }
            }
            if step == 0 {
                for (_, share) in &mut mass {
                    *share *= 1.0 - STRAY_SHARE;
                }
                mass.push((STRAY.to_owned(), STRAY_SHARE));
            }
            mass.sort_by(|a, b| b.1.total_cmp(&a.1));
            let alternatives: Vec<_> = mass.into_iter().map(|(token, share)| (token, logprob(share))).collect();
            let chosen = alternatives.iter().find(|(token, _)| token == written).map_or(SURE, |(_, logprob)| *logprob);
            out.push(Token { text: written.to_owned(), logprob: chosen, alternatives });
            open.retain(|&label| next(label) == written);
        }
    }
}

/// The tokens of a label: one for each of its words, the hyphen with the word after it, and then its end.
fn label_tokens<'a>(label: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = label;
    let words = std::iter::from_fn(move || {
        let at = rest.get(1..).and_then(|tail| tail.find('-')).map_or(rest.len(), |at| at + 1);
        let (word, after) = rest.split_at(at);
        rest = after;
        (!word.is_empty()).then_some(word)
    });
    words.chain(std::iter::once(end))
}

/// A token without alternatives.
pub(super) fn plain(text: &str) -> Token {
    Token { text: text.to_owned(), logprob: SURE, alternatives: vec![(text.to_owned(), SURE)] }
}

/// The tokens of a text without alternatives.
pub(super) fn plain_text(text: &str) -> Vec<Token> {
    tokens::tokens(text).map(plain).collect()
}

fn push(out: &mut Vec<Token>, text: &str) {
    out.push(plain(text));
}

fn push_all(out: &mut Vec<Token>, texts: &[&str]) {
    out.extend(texts.iter().copied().map(plain));
}

fn push_text(out: &mut Vec<Token>, text: &str) {
    out.extend(tokens::tokens(text).map(plain));
}

fn logprob(share: f64) -> f64 {
    // JSON has no infinity; vLLM writes -9999 for it.
    if share > 0.0 { share.ln().min(SURE) } else { -9_999.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Vec<String> {
        ["sci", "sci-tech", "sport", "arts-film", "arts-music"].map(str::to_owned).to_vec()
    }

    fn draft(shares: [f64; 5], form: Form) -> Draft {
        let objects = (1..=2).map(|id| DraftObject::new(id, &labels(), shares.to_vec(), 1)).collect();
        Draft { objects, form, element: Element::Numbered, before: String::new(), after: String::new() }
    }

    fn text(tokens: &[Token]) -> String {
        tokens.iter().map(|token| token.text.as_str()).collect()
    }

    #[test]
    fn the_tokens_spell_the_answer() {
        let draft_of = |form| draft([0.1, 0.5, 0.2, 0.1, 0.1], form);
        let labels = labels();
        for (form, blanks, expected) in [
            (Form::Array, false, r#"[{"id":1,"category":"sci-tech"},{"id":2,"category":"sci-tech"}]"#),
            (Form::Array, true, r#"[{"id": 1, "category": "sci-tech"}, {"id": 2, "category": "sci-tech"}]"#),
            (
                Form::Wrapped,
                true,
                r#"{"items": [{"id": 1, "category": "sci-tech"}, {"id": 2, "category": "sci-tech"}]}"#,
            ),
            (Form::Wrapped, false, r#"{"items":[{"id":1,"category":"sci-tech"},{"id":2,"category":"sci-tech"}]}"#),
            (Form::Single, true, r#"{"category": "sci-tech"}"#),
            (Form::Single, false, r#"{"category":"sci-tech"}"#),
        ] {
            assert_eq!(text(&draft_of(form).write(Style { labels: &labels, blanks })), expected);
        }
    }

    #[test]
    fn labels_can_stand_without_an_id() {
        let mut draft = draft([0.1, 0.5, 0.2, 0.1, 0.1], Form::Array);
        let labels = labels();
        for (element, expected) in [
            (Element::Bare, r#"["sci-tech", "sci-tech"]"#),
            (Element::Category, r#"[{"category": "sci-tech"}, {"category": "sci-tech"}]"#),
        ] {
            draft.element = element;
            assert_eq!(text(&draft.write(Style { labels: &labels, blanks: true })), expected);
        }
    }

    #[test]
    fn an_object_with_blanks_takes_about_thirteen_tokens() {
        let labels = labels();
        let tokens = draft([0.0, 0.0, 1.0, 0.0, 0.0], Form::Array).write(Style { labels: &labels, blanks: true });
        assert_eq!(tokens.len(), 2 * 13 + 1);
    }

    #[test]
    fn the_probabilities_of_a_label_multiply_to_its_share() {
        let labels = labels();
        let shares = [0.1, 0.45, 0.15, 0.2, 0.1];
        let tokens = draft(shares, Form::Array).write(Style { labels: &labels, blanks: false });
        let at = tokens.iter().position(|token| token.text == "sci").unwrap();
        let first = &tokens[at];
        let tops: Vec<_> = first.alternatives.iter().map(|(token, _)| token.as_str()).collect();
        assert_eq!(tops, ["sci", "arts", "sport", STRAY]);
        let total: f64 = first.alternatives.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((total - 1.0).abs() < 1e-3);
        assert_eq!(tokens[at + 1].text, "-tech");
        let second: Vec<_> = tokens[at + 1].alternatives.iter().map(|(token, _)| token.as_str()).collect();
        assert_eq!(second, ["-tech", OBJECT_END]);
        let joint = (first.logprob + tokens[at + 1].logprob + tokens[at + 2].logprob).exp();
        assert!((joint - 0.45 * (1.0 - STRAY_SHARE)).abs() < 1e-3, "{joint}");
    }

    #[test]
    fn a_label_that_is_none_is_written_plainly() {
        let labels = labels();
        let mut draft = draft([1.0, 0.0, 0.0, 0.0, 0.0], Form::Array);
        draft.objects.truncate(1);
        draft.objects[0].label = "Nonsense!".into();
        draft.before = "Sure: ".into();
        assert_eq!(
            text(&draft.write(Style { labels: &labels, blanks: false })),
            r#"Sure: [{"id":1,"category":"Nonsense!"}]"#
        );
    }
}
