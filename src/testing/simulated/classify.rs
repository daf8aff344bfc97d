//! The stand-in for a model: words that an item shares with the line of a category, weighted by how few categories have
//! them. A simulation: it understands nothing, and its probabilities are no more than a softmax over word counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::hash::{stable_hash, unit};
use super::prompt::Listed;

/// The id of the category that takes what fits nowhere, where the prompt names none.
const FALLBACK_ID: &str = "other";
/// What a shared word of the id or the name counts, against one of the description.
const NAME_WEIGHT: f64 = 2.0;
/// How much of a lead the category gets that is chosen without any evidence.
const DEFAULT_LEAD: f64 = 0.5;
/// How much flatter the probabilities are of an item that is labelled wrong on purpose.
const NOISE_FLATNESS: f64 = 0.5;

/// The categories of a prompt, prepared for looking words up.
#[derive(Debug)]
pub(super) struct Classifier {
    labels: Vec<String>,
    weights: HashMap<String, Vec<(usize, f64)>>,
    fallback: Option<usize>,
}

impl Classifier {
    pub(super) fn new(categories: &[Listed], fallback: Option<&str>) -> Self {
        // Ordered maps, since the order of a sum of floats must not change from run to run.
        let mut weights: BTreeMap<String, BTreeMap<usize, f64>> = BTreeMap::new();
        for (position, category) in categories.iter().enumerate() {
            let in_name = words(&category.id).chain(words(&category.name)).map(|word| (word, NAME_WEIGHT));
            let in_description = words(&category.description).map(|word| (word, 1.0));
            for (word, weight) in in_description.chain(in_name) {
                let known = weights.entry(word).or_default().entry(position).or_default();
                *known = known.max(weight);
            }
        }
        let rarity = |in_categories: usize| ((categories.len() + 1) as f64 / in_categories as f64).ln();
        let weighted = |of: BTreeMap<usize, f64>| {
            let rarity = rarity(of.len());
            of.into_iter().map(|(position, weight)| (position, weight * rarity)).collect()
        };
        Self {
            labels: categories.iter().map(|category| category.id.clone()).collect(),
            weights: weights.into_iter().map(|(word, of)| (word, weighted(of))).collect(),
            fallback: categories.iter().position(|category| category.id == fallback.unwrap_or(FALLBACK_ID)),
        }
    }

    /// The labels, in the order of the prompt.
    pub(super) fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The probability of each label for a text, in the order of the prompt. A share `noise` of all texts, chosen by
    /// their hash and the seed, gets another label than the best one.
    ///
    /// Where no word is shared, or the best categories share the lead, the one wins that the prompt says to use when no other
    /// fits, or `other`, if there is one, else one chosen by the hash of the text, whatever the seed: servers that differ in their faults agree on labels.
    pub(super) fn probabilities(&self, text: &str, noise: f64, seed: u64) -> Vec<f64> {
        let mut scores = vec![0.0_f64; self.labels.len()];
        for word in words(text).collect::<BTreeSet<_>>() {
            for (position, weight) in self.weights.get(&word).into_iter().flatten() {
                scores[*position] += weight;
            }
        }
        let best = scores.iter().copied().fold(0.0, f64::max);
        let leaders: Vec<_> = (0..scores.len()).filter(|&position| scores[position] >= best).collect();
        if leaders.len() > 1 {
            let by_hash = leaders[stable_hash(0, text.as_bytes()) as usize % leaders.len()];
            scores[self.fallback.unwrap_or(by_hash)] = best + DEFAULT_LEAD;
        }
        if noise > 0.0 && self.labels.len() > 1 {
            let hash = stable_hash(seed, text.as_bytes());
            if unit(hash) < noise {
                make_wrong(&mut scores, hash);
            }
        }
        softmax(&scores)
    }
}

/// Gives the lead to another category and makes the scores flatter, as a model that errs is usually less sure.
fn make_wrong(scores: &mut [f64], hash: u64) {
    let best = best_of(scores);
    let other = (best + 1 + (hash >> 32) as usize % (scores.len() - 1)) % scores.len();
    scores.swap(best, other);
    for score in scores.iter_mut() {
        *score *= NOISE_FLATNESS;
    }
    // An exact tie with the next one must not bring the right label back.
    scores[other] += DEFAULT_LEAD * NOISE_FLATNESS;
}

/// The position of the greatest number, the first of equals; 0 for none.
pub(super) fn best_of(numbers: &[f64]) -> usize {
    let mut best = 0;
    for (position, number) in numbers.iter().enumerate() {
        if *number > numbers[best] {
            best = position;
        }
    }
    best
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raised: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
    let total: f64 = raised.iter().sum();
    raised.into_iter().map(|share| share / total).collect()
}

/// The words of a text: runs of letters and digits, lower case, crudely stemmed, without the most common ones.
fn words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_alphanumeric()).filter(|run| run.chars().nth(1).is_some());
    runs.map(str::to_lowercase).filter(|word| !is_common(word)).map(stem)
}

/// Whether it is an English word too common or too short to tell anything.
fn is_common(word: &str) -> bool {
    let is_stop_word = matches!(
        word,
        "about"
            | "after"
            | "all"
            | "and"
            | "any"
            | "are"
            | "been"
            | "but"
            | "for"
            | "from"
            | "has"
            | "have"
            | "his"
            | "her"
            | "including"
            | "into"
            | "its"
            | "more"
            | "new"
            | "news"
            | "not"
            | "off"
            | "other"
            | "out"
            | "over"
            | "said"
            | "says"
            | "such"
            | "than"
            | "that"
            | "the"
            | "their"
            | "they"
            | "this"
            | "was"
            | "were"
            | "what"
            | "when"
            | "which"
            | "who"
            | "will"
            | "with"
    );
    is_stop_word || (word.is_ascii() && word.len() < 3)
}

/// Cuts the commonest English endings, as long as four letters stay.
fn stem(mut word: String) -> String {
    for ending in ["ies", "es", "s", "ing", "ed", "al", "y", "e"] {
        if word.len() >= ending.len() + 4 && word.ends_with(ending) {
            word.truncate(word.len() - ending.len());
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(id: &str, description: &str) -> Listed {
        Listed { id: id.into(), name: id.into(), description: description.into() }
    }

    fn classifier() -> Classifier {
        Classifier::new(
            &[
                listed("sport", "Matches, athletes, leagues and championships."),
                listed("business", "Companies, markets, banks and trade."),
                listed("sci-tech", "Science, software, space and computers."),
                listed("other", "None of these."),
            ],
            None,
        )
    }

    fn label(text: &str) -> String {
        let classifier = classifier();
        classifier.labels()[best_of(&classifier.probabilities(text, 0.0, 0))].clone()
    }

    #[test]
    fn shared_words_decide() {
        assert_eq!(label("The league championship ended with a late match winner"), "sport");
        assert_eq!(label("Bank shares lead the market"), "business");
        assert_eq!(label("New SOFTWARE for computer scientists"), "sci-tech");
    }

    #[test]
    fn without_evidence_the_fallback_wins_and_else_a_stable_choice() {
        assert_eq!(label("Здравствуйте"), "other");
        assert_eq!(label(""), "other");
        assert_eq!(label("match bank"), "other", "a tie");
        let two = Classifier::new(&[listed("a", "Red."), listed("b", "Blue.")], None);
        let chosen: BTreeSet<_> =
            (0..50).map(|n| best_of(&two.probabilities(&format!("nothing {n}"), 0.0, 0))).collect();
        assert_eq!(chosen.len(), 2);
        assert_eq!(two.probabilities("nothing 1", 0.0, 0), two.probabilities("nothing 1", 0.0, 9));
    }

    #[test]
    fn probabilities_are_a_distribution() {
        let shares = classifier().probabilities("markets and matches, a league", 0.0, 0);
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(shares.iter().all(|share| *share > 0.0));
        assert!(Classifier::new(&[], None).probabilities("x", 0.5, 0).is_empty());
        assert_eq!(Classifier::new(&[listed("only", "One.")], None).probabilities("x", 1.0, 0), [1.0]);
    }

    #[test]
    fn noise_makes_its_share_wrong_and_less_sure() {
        let classifier = classifier();
        let (mut wrong, mut sure_when_wrong, mut sure_when_right) = (0, 0.0, 0.0);
        for n in 0..1_000 {
            let shares = classifier.probabilities(&format!("a league match of athletes, day {n}"), 0.2, 3);
            let best = best_of(&shares);
            let sure = if best == 0 { &mut sure_when_right } else { &mut sure_when_wrong };
            *sure += shares[best];
            wrong += usize::from(best != 0);
        }
        assert!((150..250).contains(&wrong), "{wrong}");
        assert!(sure_when_wrong / (wrong as f64) < sure_when_right / (1_000 - wrong) as f64);
        assert_ne!(best_of(&classifier.probabilities("", 1.0, 0)), 3);
    }
}
