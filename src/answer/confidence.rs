//! Probabilities of the labels, from the log-probabilities of the tokens that the label begins with.
//!
//! At the token where the label starts, the server tells the most likely alternatives. Each of them is the beginning of
//! some labels (or of none), so the probability of a label is the mass of the tokens that lead to it, divided by the mass
//! of all tokens that lead to any label. Where several labels share their first token, the next tokens of the written
//! label divide its share further.

use crate::taxonomy::Taxonomy;

/// One generated token with its alternatives, the token itself among them or not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) logprob: f64,
    pub(crate) alternatives: Vec<(String, f64)>,
}

/// The label ends with the quote of its JSON string.
const END: char = '"';

/// What a model may write for each category: its id, and its name and aliases, which an unconstrained model would have
/// written as well. A decoder that is held to ids still tells how likely it found the others: a model that means `technology`
/// gives `sci-tech` next to nothing, and all of it counts for the category.
#[derive(Debug)]
pub(crate) struct Forms {
    labels: usize,
    /// The texts in lower case, each with its end and its category; the ids come first, in the order of the taxonomy.
    texts: Vec<(String, usize)>,
}

impl Forms {
    pub(crate) fn of(taxonomy: &Taxonomy) -> Self {
        let form = |text: &str, category: usize| (format!("{}{END}", text.to_lowercase()), category);
        let mut texts: Vec<_> = (0..).zip(taxonomy.categories()).map(|(at, of)| form(of.id.as_str(), at)).collect();
        for (at, category) in (0..).zip(taxonomy.categories()) {
            for text in std::iter::once(&category.name).chain(&category.aliases) {
                let form = form(text, at);
                if !texts.contains(&form) {
                    texts.push(form);
                }
            }
        }
        Self { labels: taxonomy.len(), texts }
    }

    /// The categories of some forms, each once.
    fn categories(&self, forms: &[usize]) -> Vec<usize> {
        let mut categories: Vec<usize> = forms.iter().map(|&form| self.texts[form].1).collect();
        categories.sort_unstable();
        categories.dedup();
        categories
    }
}

/// The probabilities of all categories that the alternatives lead to, highest first, for the label that begins at byte
/// `label_at` of the generated text. None when the tokens do not spell the text, or carry no usable number.
pub(crate) fn probabilities(
    tokens: &[Token],
    label_at: usize,
    written: &str,
    forms: &Forms,
) -> Option<Vec<(usize, f32)>> {
    // The written label decides which branch is followed, so it must be an id as it stands.
    let is_written = |(text, _): &(String, usize)| text.strip_suffix(END) == Some(written);
    let chosen = forms.texts[..forms.labels].iter().position(is_written)?;

    let mut start = 0;
    let mut first = None;
    for (number, token) in tokens.iter().enumerate() {
        if (start..start + token.text.len()).contains(&label_at) {
            first = Some((number, label_at - start));
            break;
        }
        start += token.text.len();
    }
    let (first, offset) = first?;

    let mut shares = vec![0.0_f64; forms.labels];
    // The forms that the text written so far still allows, and the probability of having come here.
    let mut open: Vec<usize> = (0..forms.texts.len()).collect();
    let mut reached = 1.0;
    let mut spelled = 0;
    for (number, token) in tokens[first..].iter().enumerate() {
        let skip = if number == 0 { offset } else { 0 };
        let lead = token.text.get(..skip)?;
        let text = token.text.get(skip..)?;
        let branches = branches(token, lead, forms, &open, spelled);
        let total: f64 = branches.iter().map(|branch| branch.mass).sum();
        if total <= 0.0 || !total.is_finite() {
            return None;
        }
        let mut next_open = Vec::new();
        let here = reached;
        for branch in branches {
            let probability = here * branch.mass / total;
            if branch.text == text {
                next_open = branch.forms;
                reached = probability;
            } else {
                // Not followed, so nothing tells its categories apart: they share its probability.
                let categories = forms.categories(&branch.forms);
                let each = probability / categories.len() as f64;
                categories.into_iter().for_each(|category| shares[category] += each);
            }
        }
        if !next_open.contains(&chosen) {
            return None;
        }
        if forms.categories(&next_open).len() == 1 {
            shares[chosen] += reached;
            return Some(ranked(&shares));
        }
        open = next_open;
        spelled += text.len();
    }
    None
}

struct Branch<'a> {
    text: &'a str,
    forms: Vec<usize>,
    mass: f64,
}

/// The alternatives at a token that lead to categories, each with the forms it leads to.
fn branches<'a>(token: &'a Token, lead: &str, forms: &Forms, open: &[usize], spelled: usize) -> Vec<Branch<'a>> {
    let written = std::iter::once((token.text.as_str(), token.logprob));
    let others = token.alternatives.iter().map(|(text, logprob)| (text.as_str(), *logprob));
    let mut branches: Vec<Branch<'a>> = Vec::new();
    for (text, logprob) in written.chain(others.filter(|(text, _)| *text != token.text)) {
        let Some(text) = text.strip_prefix(lead).filter(|text| !text.is_empty()) else { continue };
        if !logprob.is_finite() || branches.iter().any(|branch| branch.text == text) {
            continue;
        }
        let lower = text.to_lowercase();
        // A model without a grammar may put a blank before its label.
        let said = if spelled == 0 { lower.trim_start() } else { &lower };
        let leads_to = |&form: &usize| {
            let rest = forms.texts[form].0.get(spelled..).unwrap_or_default();
            !rest.is_empty() && !said.is_empty() && (rest.starts_with(said) || said.starts_with(rest))
        };
        let reachable: Vec<_> = open.iter().copied().filter(leads_to).collect();
        if !reachable.is_empty() {
            branches.push(Branch { text, forms: reachable, mass: logprob.min(0.0).exp() });
        }
    }
    branches
}

fn ranked(shares: &[f64]) -> Vec<(usize, f32)> {
    let mut ranked: Vec<_> = shares
        .iter()
        .enumerate()
        .filter(|(_, share)| **share > 0.0)
        .map(|(label, share)| (label, *share as f32))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn forms(ids: &[&str]) -> Forms {
        Forms::of(&Taxonomy::new("t", "1", ids.iter().map(|id| Category::new(*id, *id, "Text."))).unwrap())
    }

    fn token(text: &str, probability: f64, alternatives: &[(&str, f64)]) -> Token {
        Token {
            text: text.into(),
            logprob: probability.ln(),
            alternatives: alternatives.iter().map(|(text, p)| ((*text).into(), p.ln())).collect(),
        }
    }

    fn close(found: &[(usize, f32)], expected: &[(usize, f32)]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-4)
    }

    #[test]
    fn the_mass_of_other_tokens_is_left_out() {
        let tokens = [
            token("[{\"id\":1,\"category\":\"", 1.0, &[]),
            token("sport", 0.6, &[("sport", 0.6), ("business", 0.2), ("The", 0.1), (" sport", 0.1)]),
        ];
        let found = probabilities(&tokens, 21, "sport", &forms(&["sport", "business", "other"])).unwrap();
        // The blank before the label does not make it another.
        assert!(close(&found, &[(0, 7.0 / 9.0), (1, 2.0 / 9.0)]), "{found:?}");
    }

    #[test]
    fn the_label_may_begin_inside_a_token_and_end_inside_another() {
        let tokens = [token("[{\"", 1.0, &[]), token(":\"sp", 0.5, &[(":\"bus", 0.5)]), token("ort\"}", 1.0, &[])];
        let found = probabilities(&tokens, 5, "sport", &forms(&["sport", "business"])).unwrap();
        assert!(close(&found, &[(0, 0.5), (1, 0.5)]), "{found:?}");
    }

    #[test]
    fn names_and_aliases_count_for_their_category() {
        let mut tech = Category::new("sci-tech", "Sci/Tech", "Text.");
        tech.aliases = vec!["technology".into(), "science".into()];
        let taxonomy = Taxonomy::new("t", "1", [tech, Category::new("sport", "Sports", "Text.")]).unwrap();
        let others = [("sci", 0.05), ("techn", 0.3), (" Sport", 0.2), ("science", 0.15), ("news", 0.3)];
        let tokens = [token("sci", 0.05, &others), token("-tech", 1.0, &[])];
        let found = probabilities(&tokens, 0, "sci-tech", &Forms::of(&taxonomy)).unwrap();
        // .5 of .7 lead to the one, .2 to the other.
        assert!(close(&found, &[(0, 5.0 / 7.0), (1, 2.0 / 7.0)]), "{found:?}");
    }

    #[test]
    fn labels_with_a_common_beginning_are_told_apart_by_the_next_token() {
        let tokens = [token("sci", 0.8, &[("art", 0.2)]), token("-", 0.9, &[("ence", 0.1)]), token("tech", 1.0, &[])];
        let found = probabilities(&tokens, 0, "sci-tech", &forms(&["sci-tech", "science", "art"])).unwrap();
        assert!(close(&found, &[(0, 0.72), (2, 0.2), (1, 0.08)]), "{found:?}");
    }

    #[test]
    fn a_label_that_begins_another_needs_its_quote() {
        let tokens = [token("art", 1.0, &[]), token("\"}", 0.7, &[("s", 0.3)])];
        let found = probabilities(&tokens, 0, "art", &forms(&["art", "arts"])).unwrap();
        assert!(close(&found, &[(0, 0.7), (1, 0.3)]), "{found:?}");
    }

    #[test]
    fn without_usable_numbers_there_is_no_confidence() {
        let taxonomy = forms(&["sport", "business"]);
        assert_eq!(probabilities(&[], 0, "sport", &taxonomy), None);
        assert_eq!(probabilities(&[token("sp", f64::NAN, &[])], 0, "sport", &taxonomy), None);
        assert_eq!(probabilities(&[token("é", 1.0, &[])], 1, "sport", &taxonomy), None);
        assert_eq!(probabilities(&[token("sport", 1.0, &[])], 0, "Sport", &taxonomy), None);
        assert_eq!(probabilities(&[token("s", 1.0, &[])], 0, "sport", &taxonomy).map(|p| p.len()), Some(1));
    }
}
