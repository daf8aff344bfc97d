//! Answers a chat: reads the shared prefix once, then the rest, and chooses at each gap of the answer.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Result, Tensor};

use crate::chat::{Chat, Message};
use crate::grammar::Form;
use crate::model::{Cache, Model};

/// The prefixes that are kept. Each takes as many bytes as its keys and values: for Qwen2.5 1.5B 56 KiB for a token.
const KEPT_PREFIXES: usize = 4;

/// A model with its tokens and the prefixes that it has read.
pub(crate) struct Engine {
    model: Model,
    chat: Chat,
    /// The latest at the end.
    prefixes: VecDeque<(Vec<u32>, Cache)>,
}

/// What was answered, and what it took.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
}

/// One token of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) text: String,
    /// Of all the model's tokens, those that the form forbids among them; 0 where the form leaves no choice.
    pub(crate) logprob: f32,
    pub(crate) alternatives: Vec<(String, f32)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the context length is {most} tokens, and the prompt with its answer may have {tokens}")]
    TooLong { tokens: usize, most: usize },
    #[error("the model failed: {0}")]
    Model(#[from] candle_core::Error),
}

impl Engine {
    /// Reads a model from its file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds another model than a Qwen2 with its tokenizer.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = std::io::BufReader::new(std::fs::File::open(path)?);
        let content = Content::read(&mut file)?;
        Ok(Self::new(Model::read(&mut file, &content)?, Chat::read(&content)?))
    }

    pub(crate) fn new(model: Model, chat: Chat) -> Self {
        Self { model, chat, prefixes: VecDeque::new() }
    }

    /// Answers in the given form; at each choice `top` alternatives are told.
    ///
    /// # Errors
    ///
    /// When the chat is too long, or the model fails.
    pub(crate) fn answer(
        &mut self,
        messages: &[Message<'_>],
        form: &Form,
        top: usize,
    ) -> std::result::Result<Answer, Failure> {
        let prompt = self.chat.prompt(messages)?;
        let opening = self.chat.encode(&form.opening)?;
        let mut choices = Vec::new();
        for gap in &form.gaps {
            let encode = |label: &String| self.chat.encode(&format!("{label}{}", gap.then));
            choices.push(gap.alternatives.iter().map(encode).collect::<Result<Vec<_>>>()?);
        }
        let prompt_tokens = prompt.prefix.len() + prompt.rest.len();
        let longest = |choice: &Vec<Vec<u32>>| choice.iter().map(Vec::len).max().unwrap_or(0);
        let tokens = prompt_tokens + opening.len() + choices.iter().map(longest).sum::<usize>();
        if tokens > self.model.most_tokens() {
            return Err(Failure::TooLong { tokens, most: self.model.most_tokens() });
        }

        let (cache, cached_tokens) = self.read_prefix(&prompt.prefix)?;
        let mut path = Written { cache, unread: prompt.rest, steps: Vec::new() };
        for token in opening {
            path.take_forced(token, &self.chat)?;
        }
        for choice in &choices {
            path = self.choose(path, choice, top)?;
        }
        let text = path.steps.iter().map(|step| step.text.as_str()).collect();
        Ok(Answer { text, steps: path.steps, prompt_tokens, cached_tokens })
    }

    /// The cache after a prefix, and how many of its tokens were there already.
    fn read_prefix(&mut self, prefix: &[u32]) -> Result<(Cache, usize)> {
        if prefix.is_empty() {
            return Ok((Cache::default(), 0));
        }
        let known = self.prefixes.iter().position(|(tokens, _)| tokens == prefix);
        let (kept, cached_tokens) = match known.and_then(|at| self.prefixes.remove(at)) {
            Some(kept) => (kept, prefix.len()),
            None => ((prefix.to_vec(), self.model.read_on(&Cache::default(), prefix)?.0), 0),
        };
        let cache = kept.1.clone();
        if self.prefixes.len() == KEPT_PREFIXES {
            self.prefixes.pop_front();
        }
        self.prefixes.push_back(kept);
        Ok((cache, cached_tokens))
    }

    /// Follows the most probable of some alternatives.
    ///
    /// The alternatives are a tree of tokens. The probability of one is the product of its branches, each divided by the
    /// sum of the branches at its place. A branch is never more probable than what it branches from, so the first end
    /// that is reached by always following the most probable place is the most probable alternative. Where the first
    /// tokens differ, that takes a single pass of the model.
    fn choose(&self, from: Written, alternatives: &[Vec<u32>], top: usize) -> Result<Written> {
        let mut places = vec![Place { share: 0.0, depth: 0, open: alternatives.iter().collect(), path: from }];
        loop {
            let best = (0..places.len()).max_by(|&a, &b| places[a].share.total_cmp(&places[b].share));
            let Some(mut place) = best.map(|at| places.swap_remove(at)) else {
                candle_core::bail!("there is nothing to choose from");
            };
            while let Some(token) = place.only_token() {
                place.path.take_forced(token, &self.chat)?;
                place.depth += 1;
            }
            let branches = place.branches();
            if branches.is_empty() {
                return Ok(place.path);
            }
            let logits = place.path.read(&self.model)?;
            let logprobs = candle_nn::ops::log_softmax(&logits, 0)?.to_vec1::<f32>()?;
            let told = self.most_probable(&logprobs, top)?;
            let sum: f32 = branches.keys().map(|&token| logprobs[token as usize].exp()).sum();
            for (token, open) in branches {
                let logprob = logprobs[token as usize];
                let step = Step { text: self.chat.decode(&[token])?, logprob, alternatives: told.clone() };
                let mut path = place.path.clone();
                path.take(token, step);
                // All branches may be too improbable for a number: they are then even.
                let share = place.share + if sum > 0.0 { logprob - sum.ln() } else { 0.0 };
                places.push(Place { share, depth: place.depth + 1, open, path });
            }
        }
    }

    fn most_probable(&self, logprobs: &[f32], top: usize) -> Result<Vec<(String, f32)>> {
        let mut tokens: Vec<u32> = (0..logprobs.len() as u32).collect();
        let by_logprob = |a: &u32, b: &u32| logprobs[*b as usize].total_cmp(&logprobs[*a as usize]);
        if top < tokens.len() {
            tokens.select_nth_unstable_by(top, by_logprob);
            tokens.truncate(top);
        }
        tokens.sort_by(by_logprob);
        tokens.into_iter().map(|token| Ok((self.chat.decode(&[token])?, logprobs[token as usize]))).collect()
    }
}

/// An answer so far.
#[derive(Clone)]
struct Written {
    cache: Cache,
    /// Tokens that the model is yet to read.
    unread: Vec<u32>,
    steps: Vec<Step>,
}

impl Written {
    fn take(&mut self, token: u32, step: Step) {
        self.unread.push(token);
        self.steps.push(step);
    }

    fn take_forced(&mut self, token: u32, chat: &Chat) -> Result<()> {
        let text = chat.decode(&[token])?;
        self.take(token, Step { alternatives: vec![(text.clone(), 0.0)], text, logprob: 0.0 });
        Ok(())
    }

    fn read(&mut self, model: &Model) -> Result<Tensor> {
        let (cache, logits) = model.read_on(&self.cache, &self.unread)?;
        self.cache = cache;
        self.unread.clear();
        Ok(logits)
    }
}

/// A place in the tree of the alternatives, with those that are still open.
struct Place<'a> {
    /// The logarithm of the probability of having come here.
    share: f32,
    depth: usize,
    open: Vec<&'a Vec<u32>>,
    path: Written,
}

impl<'a> Place<'a> {
    fn branches(&self) -> BTreeMap<u32, Vec<&'a Vec<u32>>> {
        let mut branches: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for &alternative in &self.open {
            if let Some(&token) = alternative.get(self.depth) {
                branches.entry(token).or_default().push(alternative);
            }
        }
        branches
    }

    fn only_token(&self) -> Option<u32> {
        let token = *self.open.first()?.get(self.depth)?;
        self.open.iter().all(|alternative| alternative.get(self.depth) == Some(&token)).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny;
    use serde_json::json;

    fn form(labels: &[&str], items: usize) -> Form {
        let items =
            json!({"type": "array", "items": {"type": "string", "enum": labels}, "minItems": items, "maxItems": items});
        Form::of(&json!({"type": "json_schema", "json_schema": {"schema": items}})).unwrap()
    }

    fn chat(content: &str) -> [Message<'_>; 2] {
        [Message { role: "system", content: "Sort the news." }, Message { role: "user", content }]
    }

    /// The log-probability of a label by reading each of its answers whole, without any cache.
    fn label_by_itself(engine: &Engine, messages: &[Message<'_>], labels: &[&str]) -> String {
        let prompt = engine.chat.prompt(messages).unwrap();
        let begun: Vec<u32> = [prompt.prefix, prompt.rest, engine.chat.encode("[\"").unwrap()].concat();
        let all: Vec<_> = labels.iter().map(|label| engine.chat.encode(&format!("{label}\"]")).unwrap()).collect();
        let share = |tokens: &Vec<u32>| -> f32 {
            let at = |depth: usize| {
                let logits = engine.model.read_on(&Cache::default(), &[&begun, &tokens[..depth]].concat()).unwrap().1;
                let logits = logits.to_vec1::<f32>().unwrap();
                let mut next: Vec<u32> =
                    all.iter().filter(|other| other.starts_with(&tokens[..depth])).map(|other| other[depth]).collect();
                next.sort_unstable();
                next.dedup();
                let sum: f32 = next.iter().map(|&token| logits[token as usize].exp()).sum();
                logits[tokens[depth] as usize] - sum.ln()
            };
            (0..tokens.len()).map(at).sum()
        };
        let best = (0..labels.len()).max_by(|&a, &b| share(&all[a]).total_cmp(&share(&all[b]))).unwrap();
        format!("[\"{}\"]", labels[best])
    }

    #[test]
    fn labels_that_share_their_beginning_are_told_apart_as_whole_labels() {
        let mut engine = tiny::engine();
        let lists: [&[&str]; 4] = [
            &["sport", "spore", "spa", "art", "arts", "x"],
            &["a", "ab", "abc", "abd", "b"],
            &["on", "one", "only", "off", "of"],
            &["zebra", "zeal", "zoo", "sp"],
        ];
        for (labels, number) in
            lists.into_iter().zip(0..).flat_map(|(labels, at)| (0..4).map(move |n| (labels, at + n)))
        {
            let text = format!("Item {number}: {}", "goal ".repeat(number % 5));
            let answer = engine.answer(&chat(&text), &form(labels, 1), 5).unwrap();
            assert_eq!(answer.text, label_by_itself(&engine, &chat(&text), labels), "{text}");
        }
    }

    #[test]
    fn the_prefix_is_read_once() {
        let mut engine = tiny::engine();
        let form = form(&["sport", "art"], 2);
        let first = engine.answer(&chat("One"), &form, 3).unwrap();
        let again = engine.answer(&chat("One"), &form, 3).unwrap();
        let prefix = engine.chat.prompt(&chat("")).unwrap().prefix.len();
        assert_eq!((first.cached_tokens, again.cached_tokens), (0, prefix));
        assert_eq!((first.prompt_tokens, &first.steps), (again.prompt_tokens, &again.steps));
        // Other prefixes push it out.
        for number in 0..KEPT_PREFIXES {
            let system = format!("Other {number}");
            let messages = [Message { role: "system", content: &system }, Message { role: "user", content: "One" }];
            assert_eq!(engine.answer(&messages, &form, 3).unwrap().cached_tokens, 0);
        }
        assert_eq!(engine.answer(&chat("One"), &form, 3).unwrap().cached_tokens, 0);
    }

    #[test]
    fn steps_spell_the_answer_and_tell_alternatives() {
        let mut engine = tiny::engine();
        let answer = engine.answer(&chat("One"), &form(&["sport", "art"], 1), 4).unwrap();
        assert!([r#"["sport"]"#, r#"["art"]"#].contains(&answer.text.as_str()), "{}", answer.text);
        let choices: Vec<_> = answer.steps.iter().filter(|step| step.logprob < 0.0).collect();
        assert_eq!((choices.len(), choices[0].alternatives.len()), (1, 4));
        assert!(choices[0].alternatives.is_sorted_by(|a, b| a.1 >= b.1));
    }

    #[test]
    fn a_chat_that_is_too_long_is_refused() {
        let mut engine = tiny::engine();
        let failure = engine.answer(&chat(&"long ".repeat(4_000)), &form(&["a"], 1), 0).err().unwrap();
        assert!(matches!(failure, Failure::TooLong { most: tiny::MOST_TOKENS, .. }), "{failure}");
    }
}
