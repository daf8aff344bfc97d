//! What the runs of a categorizer share of their engine: its labels, what it may settle, and what was learned.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::labels::Labels;
use super::learner::{self, Learner};
use super::opinion::{FirstOpinion, Rule};
use super::stats::{Counts, FirstOpinionStats, HeadStats};
use super::threshold::{self, Pair};
use super::{EmbedError, LearnedHead, normalized, ranked, script, vectors};
use crate::outcome::Engine;
use crate::prompt::clean::CleanText;
use crate::taxonomy::Taxonomy;

/// The agreement that is wanted where nothing else is set.
const DEFAULT_AGREEMENT: f64 = 0.95;
/// Pairs that must be there before a threshold is looked for; until then every item is audited.
const LEAST_PAIRS: usize = 200;
/// The pairs that count, the latest, and after how many new ones a threshold is looked for again.
const MOST_PAIRS: usize = 2_000;
const PAIRS_BETWEEN: usize = 50;
/// The confidences that a share is taken of, the latest, and the fewest.
const MOST_SEEN: usize = 1_000;
const LEAST_SEEN: usize = 100;
/// After how many new ones that is done again.
const SEEN_BETWEEN: usize = 50;

/// An engine at work for one taxonomy.
pub(crate) struct Desk {
    config: FirstOpinion,
    rule: Option<Rule>,
    taxonomy: Taxonomy,
    name: Arc<str>,
    seed: u64,
    /// Made at the first item, off the runtime.
    labels: Mutex<Option<Arc<Labels>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    threshold: Option<f32>,
    pairs: VecDeque<Pair>,
    seen: VecDeque<f32>,
    /// Since the threshold was looked for last.
    since: usize,
    learner: Option<Learner>,
}

/// What the engine says about an item.
#[derive(Clone, Debug)]
pub(crate) struct Opinion {
    vector: Arc<[f32]>,
    /// The probability of each category by the nearest label, highest first.
    pub(crate) shares: Vec<(usize, f32)>,
    is_other_script: bool,
}

/// What becomes of an item.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is settled by the nearest label.
    Settle(Engine),
    /// It is settled by the learned head, with these probabilities.
    SettleByHead(Vec<(usize, f32)>),
    /// It is asked at the LLM, whose answer is of use to the engine where it was chosen at random.
    Ask(Option<Box<Sampled>>),
}

/// An item of the random share that is asked at both.
#[derive(Clone, Debug)]
pub(crate) struct Sampled {
    vector: Arc<[f32]>,
    best: (usize, f32),
    /// Whether the nearest label would have settled it, and what the head would have said where it was sure.
    was_sure: bool,
    head_said: Option<usize>,
}

impl Sampled {
    /// Whether the item would have been settled, had it not been chosen.
    pub(crate) fn is_audit(&self) -> bool {
        self.was_sure || self.head_said.is_some()
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Desk").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(config: FirstOpinion, taxonomy: &Taxonomy, seed: Option<u64>) -> Self {
        let rule = config.rule.or(config.learning.is_none().then_some(Rule::Agreeing(DEFAULT_AGREEMENT)));
        let threshold = match rule {
            Some(Rule::Above(confidence)) => Some(confidence),
            _ => None,
        };
        let learner = config.learning.clone().map(Learner::new);
        Self {
            rule,
            taxonomy: taxonomy.clone(),
            name: config.name().into(),
            seed: seed.unwrap_or_else(|| fastrand::u64(..)),
            labels: Mutex::new(None),
            state: Mutex::new(State { threshold, learner, ..State::default() }),
            config,
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether there is no LLM behind it.
    pub(crate) fn is_alone(&self) -> bool {
        self.config.is_alone()
    }

    /// What was learned from all answers so far.
    pub(crate) fn head(&self) -> Option<LearnedHead> {
        // Answers that came after the last look have taught nothing yet.
        self.learn();
        self.state().learner.as_ref().and_then(Learner::head).map(|head| (**head).clone())
    }

    /// Looks at texts, and learns if it is time to. Takes long, so it must not be called on the runtime.
    pub(crate) fn look(&self, texts: &[Arc<CleanText>]) -> Result<Vec<Opinion>, EmbedError> {
        self.learn();
        let labels = self.labels()?;
        let whole: Vec<String> = texts.iter().map(|text| whole(text)).collect();
        let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
        let vectors = vectors(&*self.config.model, &whole, Some(labels.width()))?;
        let opinion = |(vector, text): (Vec<f32>, &&str)| {
            let vector = normalized(vector);
            let shares = ranked(labels.probabilities(&vector, self.config.temperature));
            Opinion { vector: vector.into(), shares, is_other_script: script::is_other(text) }
        };
        Ok(vectors.into_iter().zip(&whole).map(opinion).collect())
    }

    /// What becomes of an item, by the engine's shares as they are or as a calibration corrected them. The number is that of its
    /// text and decides by chance.
    pub(crate) fn decide(
        &self,
        number: u64,
        opinion: &Opinion,
        shares: &[(usize, f32)],
        counts: &mut Counts,
    ) -> Decision {
        counts.looked_at += 1;
        counts.other_script += u64::from(opinion.is_other_script);
        if self.is_alone() {
            counts.settled += 1;
            return Decision::Settle(Engine::EmbeddingModel { other_script: opinion.is_other_script });
        }
        let Some(&best) = shares.first().filter(|_| !opinion.is_other_script) else { return Decision::Ask(None) };
        let mut state = self.state();
        state.see(best.1, self.rule);
        let by_head =
            state.learner.as_ref().and_then(Learner::head).and_then(|head| learner::sure(head, &opinion.vector));
        let was_sure = state.threshold.is_some_and(|threshold| best.1 >= threshold);
        let share = state.sampled_share(self.rule, self.config.audit, by_head.is_some());
        drop(state);
        if chance(self.seed, number, "audit") < share {
            let head_said = by_head.as_deref().and_then(|shares| shares.first()).map(|best| best.0);
            let vector = Arc::clone(&opinion.vector);
            return Decision::Ask(Some(Box::new(Sampled { vector, best, was_sure, head_said })));
        }
        match by_head {
            Some(shares) => {
                counts.settled_by_head += 1;
                Decision::SettleByHead(shares)
            }
            None if was_sure => {
                counts.settled += 1;
                Decision::Settle(Engine::EmbeddingModel { other_script: false })
            }
            None => Decision::Ask(None),
        }
    }

    /// The LLM gave this category to an item that was chosen at random.
    pub(crate) fn answered(&self, number: u64, sampled: &Sampled, category: usize, counts: &mut Counts) {
        let agrees = sampled.best.0 == category;
        let mut state = self.state();
        // What the head settles, the nearest label does not, so its threshold is for the others.
        if sampled.head_said.is_none() {
            state.pair(Pair { confidence: sampled.best.1, agrees }, self.rule);
        }
        state.teach(self.rule, |learner| {
            learner.add(number, Arc::clone(&sampled.vector), category);
            if let Some(said) = sampled.head_said {
                learner.audit(said == category);
            }
        });
        drop(state);
        if let Some(said) = sampled.head_said {
            counts.head_audited += 1;
            counts.head_agreed += u64::from(said == category);
        } else if sampled.was_sure {
            counts.audited += 1;
            counts.agreed += u64::from(agrees);
        }
    }

    pub(crate) fn stats(&self, counts: &Counts) -> FirstOpinionStats {
        let state = self.state();
        let head = |learner: &Learner| HeadStats {
            audited: counts.head_audited,
            agreed: counts.head_agreed,
            ..learner.stats()
        };
        FirstOpinionStats {
            model: self.name.to_string(),
            looked_at: counts.looked_at,
            settled: counts.settled,
            settled_by_head: counts.settled_by_head,
            other_script: counts.other_script,
            threshold: state.threshold,
            audited: counts.audited,
            agreed: counts.agreed,
            lost_because: None,
            head: state.learner.as_ref().map(head),
        }
    }

    fn learn(&self) {
        let lesson = self.state().learner.as_mut().and_then(Learner::lesson);
        let Some(lesson) = lesson else { return };
        let trained = lesson.learn(self.seed, &self.taxonomy, &self.config.model.identity());
        self.state().teach(self.rule, |learner| learner.learned(trained, lesson.drifts));
    }

    fn labels(&self) -> Result<Arc<Labels>, EmbedError> {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(labels) = &*labels {
            return Ok(Arc::clone(labels));
        }
        let made = Arc::new(Labels::of(&self.taxonomy, &*self.config.model)?);
        *labels = Some(Arc::clone(&made));
        Ok(made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets the learner know something. Once the head comes or goes, the nearest label has other items to settle, for which its
    /// threshold must be found anew.
    fn teach(&mut self, rule: Option<Rule>, teach: impl FnOnce(&mut Learner)) {
        let Some(learner) = &mut self.learner else { return };
        let had_head = learner.head().is_some();
        teach(learner);
        if learner.head().is_some() != had_head && matches!(rule, Some(Rule::Agreeing(_))) {
            self.pairs.clear();
            (self.threshold, self.since) = (None, 0);
        }
    }

    /// The share of items that are asked at both, of those that the head is sure of or of the others.
    fn sampled_share(&self, rule: Option<Rule>, audit: f64, is_of_head: bool) -> f64 {
        let to_learn = self.learner.as_ref().map_or(0.0, Learner::wanted_share);
        let to_begin = match rule {
            Some(Rule::Agreeing(_)) if self.pairs.len() < LEAST_PAIRS && !is_of_head => 1.0,
            _ => 0.0,
        };
        audit.max(to_learn).max(to_begin)
    }

    fn see(&mut self, confidence: f32, rule: Option<Rule>) {
        let Some(Rule::Share(share)) = rule else { return };
        push(&mut self.seen, confidence, MOST_SEEN);
        self.since += 1;
        if self.seen.len() >= LEAST_SEEN && self.since >= SEEN_BETWEEN {
            self.since = 0;
            self.threshold = threshold::reached_by(self.seen.iter().copied(), share);
        }
    }

    fn pair(&mut self, pair: Pair, rule: Option<Rule>) {
        let Some(Rule::Agreeing(target)) = rule else { return };
        push(&mut self.pairs, pair, MOST_PAIRS);
        self.since += 1;
        if self.pairs.len() >= LEAST_PAIRS && self.since >= PAIRS_BETWEEN {
            self.since = 0;
            self.threshold = threshold::lowest(self.pairs.iter().copied(), target).map(|found| found.confidence);
        }
    }
}

fn push<T>(latest: &mut VecDeque<T>, value: T, most: usize) {
    if latest.len() >= most {
        latest.pop_front();
    }
    latest.push_back(value);
}

/// The text of an item as the engine sees it.
fn whole(text: &CleanText) -> String {
    match (&*text.title, &*text.body) {
        (title, "") => title.to_owned(),
        ("", body) => body.to_owned(),
        (title, body) => format!("{title}. {body}"),
    }
}

/// A number from 0 to 1 for a text, by chance, but always the same: which items are asked at both depends on nothing else.
pub(super) fn chance(seed: u64, number: u64, purpose: &str) -> f64 {
    let hash = blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .update(&number.to_le_bytes())
        .update(purpose.as_bytes())
        .finalize();
    let first = hash.as_bytes().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    f64::from(first) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::FakeModel;
    use super::super::{Embed, Learning};
    use super::*;
    use crate::{Category, NewsItem};

    fn taxonomy() -> Taxonomy {
        let categories = [
            Category::new("sport", "Sport", "Matches, athletes and clubs."),
            Category::new("business", "Business", "Companies, markets and banks."),
        ];
        Taxonomy::new("t", "1", categories).unwrap()
    }

    fn desk(opinion: FirstOpinion) -> Desk {
        assert_eq!(opinion.problems(&taxonomy()), Vec::<String>::new());
        Desk::new(opinion, &taxonomy(), Some(1))
    }

    fn look(desk: &Desk, text: &str) -> Opinion {
        let text = CleanText::of(&NewsItem::new("a", text, ""), 150).unwrap();
        desk.look(&[Arc::new(text)]).unwrap().remove(0)
    }

    fn decide(desk: &Desk, index: u64, text: &str, counts: &mut Counts) -> Decision {
        let opinion = look(desk, text);
        desk.decide(index, &opinion, &opinion.shares.clone(), counts)
    }

    const SURE: &str = "Athletes and clubs";
    /// No word, so no direction.
    const UNSURE: &str = "…";

    #[test]
    fn what_is_sure_is_settled_but_for_the_audit() {
        let desk = desk(FirstOpinion::of(FakeModel).above(0.9).audit(0.1));
        let mut counts = Counts::default();
        for index in 0..1_000 {
            match decide(&desk, index, SURE, &mut counts) {
                Decision::Settle(engine) => assert_eq!(engine, Engine::EmbeddingModel { other_script: false }),
                Decision::Ask(Some(sampled)) => desk.answered(index, &sampled, (index % 2) as usize, &mut counts),
                other => panic!("{other:?}"),
            }
            assert!(!matches!(decide(&desk, index, UNSURE, &mut Counts::default()), Decision::Settle(_)));
        }
        let stats = desk.stats(&counts);
        assert!((70..130).contains(&stats.audited), "{stats:?}");
        assert_eq!(stats.settled + stats.audited, 1_000);
        let (agreement, interval) = stats.agreement().unwrap();
        assert!(interval.low < 0.5 && interval.high > 0.5 && (agreement - 0.5).abs() < 0.15, "{agreement}");
    }

    #[test]
    fn alone_it_settles_everything_and_marks_other_scripts() {
        let desk = desk(FirstOpinion::alone(FakeModel));
        let mut counts = Counts::default();
        let Decision::Settle(engine) = decide(&desk, 0, "Выборы в парламент", &mut counts) else {
            panic!()
        };
        assert_eq!(engine, Engine::EmbeddingModel { other_script: true });
        assert!(matches!(decide(&desk, 1, UNSURE, &mut counts), Decision::Settle(_)));
        assert_eq!((counts.looked_at, counts.settled, counts.other_script), (2, 2, 1));
    }

    #[test]
    fn beside_endpoints_other_scripts_are_left_to_them() {
        let desk = desk(FirstOpinion::of(FakeModel).above(0.0).audit(0.0));
        assert!(matches!(decide(&desk, 0, "Выборы", &mut Counts::default()), Decision::Ask(None)));
        assert!(matches!(decide(&desk, 0, "Election", &mut Counts::default()), Decision::Settle(_)));
    }

    #[test]
    fn a_threshold_is_found_from_what_the_llm_says() {
        let desk = desk(FirstOpinion::of(FakeModel).agreeing(0.9).audit(0.2));
        let mut counts = Counts::default();
        // The LLM agrees with what is sure, and with half of the rest.
        let mut run = |range: std::ops::Range<u64>| {
            let mut settled = (0, 0);
            for index in range {
                let (text, category) = if index % 2 == 0 { (SURE, 0) } else { (UNSURE, (index / 2 % 2) as usize) };
                match decide(&desk, index, text, &mut counts) {
                    Decision::Ask(Some(sampled)) => desk.answered(index, &sampled, category, &mut counts),
                    Decision::Settle(_) if text == SURE => settled.0 += 1,
                    Decision::Settle(_) => settled.1 += 1,
                    _ => {}
                }
            }
            settled
        };
        assert_eq!(run(0..200), (0, 0), "all of the first are audited");
        let (sure, unsure) = run(200..1_200);
        assert!((350..450).contains(&sure) && unsure == 0, "{sure} {unsure}");
        let stats = desk.stats(&counts);
        assert_eq!(stats.agreed, stats.audited);
        assert!(stats.audited > 50 && stats.threshold.is_some());
    }

    #[test]
    fn a_share_of_the_items_is_settled_whatever_their_confidence() {
        let desk = desk(FirstOpinion::of(FakeModel).share(0.3).audit(0.0));
        let mut counts = Counts::default();
        let words = ["athletes", "clubs", "matches", "markets", "rain", "wind", "the", "a", "of", "in"];
        for index in 0..3_000_u64 {
            let text: Vec<&str> = (0..5).map(|at| words[(index / 7_u64.pow(at) % 10) as usize]).collect();
            decide(&desk, index, &text.join(" "), &mut counts);
        }
        assert!((700..1_100).contains(&counts.settled), "{}", counts.settled);
    }

    #[test]
    fn which_items_are_audited_depends_on_the_seed_alone() {
        let chosen = |seed| (0..1_000).filter(|number| chance(seed, *number, "audit") < 0.1).collect::<Vec<_>>();
        assert_eq!(chosen(1), chosen(1));
        assert_ne!(chosen(1), chosen(2));
        assert!((70..130).contains(&chosen(1).len()));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let problems = |opinion: FirstOpinion| opinion.problems(&taxonomy()).join("; ");
        let of = || FirstOpinion::of(FakeModel);
        assert!(problems(of().agreeing(1.0)).contains("above 0 and below 1"));
        assert!(problems(of().share(1.5)).contains("share for a first opinion"));
        assert!(problems(of().above(f32::NAN)).contains("confidence for a first opinion"));
        assert!(problems(of().audit(0.0)).contains("without an audit"));
        assert!(problems(of().temperature(0.0)).contains("temperature"));
        assert!(problems(of().learn(Learning::to(0.9).least_answers(10))).contains("200 answers"));
        assert!(problems(of().learn(Learning::to(1.0))).contains("the agreement to learn to"));
    }

    #[test]
    fn a_model_that_fails_is_an_error() {
        struct Fails;
        impl Embed for Fails {
            fn name(&self) -> &'static str {
                "fails"
            }
            fn embed(&self, _: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
                Err(EmbedError::failed("out of order"))
            }
        }
        /// Knows the labels, and nothing of items.
        struct NoNumber;
        impl Embed for NoNumber {
            fn name(&self) -> &'static str {
                "no-number"
            }
            fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
                Ok(texts.iter().map(|text| vec![1.0, if *text == "A" { f32::NAN } else { 0.0 }]).collect())
            }
        }
        let text = || Arc::new(CleanText::of(&NewsItem::new("a", "A", ""), 150).unwrap());
        let error = desk(FirstOpinion::alone(Fails)).look(&[text()]).unwrap_err();
        assert_eq!(error.to_string(), "the embedding model failed: out of order");
        let error = desk(FirstOpinion::alone(NoNumber)).look(&[text()]).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}
