//! The prefixes that requests share, read once each.

use std::sync::{Arc, Mutex, PoisonError};

use super::classify::Classifier;
use super::prompt;
use super::request::Endpoint;
use super::tokens::token_ids;

/// How many prefixes are kept; a test or a run has a few at most.
const KEPT: usize = 8;
/// What a chat template puts around the texts.
const BEFORE_SYSTEM: &str = "<|im_start|>system\n";
const BEFORE_USER: &str = "<|im_end|>\n<|im_start|>user\n";
const BEFORE_ANSWER: &str = "<|im_end|>\n<|im_start|>assistant\n";

/// A prefix, read.
#[derive(Debug)]
pub(super) struct Prefix {
    text: String,
    endpoint: Endpoint,
    pub(super) classifier: Classifier,
    token_ids: Vec<u64>,
}

impl Prefix {
    fn read(endpoint: Endpoint, text: &str) -> Self {
        let token_ids = match endpoint {
            Endpoint::Chat => [BEFORE_SYSTEM, text, BEFORE_USER].iter().flat_map(|part| token_ids(part)).collect(),
            Endpoint::Completions => token_ids(text).collect(),
        };
        let classifier = Classifier::new(&prompt::categories(text), prompt::fallback(text));
        Self { text: text.to_owned(), endpoint, classifier, token_ids }
    }

    /// The tokens of the whole prompt with this message, after a stamp that the template writes, if it does.
    pub(super) fn prompt_tokens(&self, stamp: Option<u64>, message: &str) -> Vec<u64> {
        let end = if self.endpoint == Endpoint::Chat { BEFORE_ANSWER } else { "" };
        let stamped = stamp.into_iter().chain(self.token_ids.iter().copied());
        stamped.chain(token_ids(message)).chain(token_ids(end)).collect()
    }
}

/// The latest prefixes.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Mutex<Vec<Arc<Prefix>>>);

impl Prefixes {
    /// The prefix of a request, read now or before.
    pub(super) fn of(&self, endpoint: Endpoint, text: &str) -> Arc<Prefix> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prefix) = kept.iter().find(|prefix| prefix.endpoint == endpoint && prefix.text == text) {
            return Arc::clone(prefix);
        }
        let prefix = Arc::new(Prefix::read(endpoint, text));
        kept.truncate(KEPT - 1);
        kept.insert(0, Arc::clone(&prefix));
        prefix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_once() {
        let prefixes = Prefixes::default();
        let first = prefixes.of(Endpoint::Chat, "- sport: Sport. Games.");
        assert_eq!(first.classifier.labels(), ["sport"]);
        assert!(Arc::ptr_eq(&first, &prefixes.of(Endpoint::Chat, "- sport: Sport. Games.")));
        assert!(!Arc::ptr_eq(&first, &prefixes.of(Endpoint::Completions, "- sport: Sport. Games.")));
        (0..20).for_each(|n| drop(prefixes.of(Endpoint::Chat, &n.to_string())));
        assert!(prefixes.0.lock().unwrap().len() <= KEPT);
    }

    #[test]
    fn prompts_share_the_tokens_of_the_prefix() {
        let prefix = Prefix::read(Endpoint::Chat, "Some words.");
        let (one, two) = (prefix.prompt_tokens(None, "one"), prefix.prompt_tokens(None, "two"));
        assert_eq!(one[..prefix.token_ids.len()], two[..prefix.token_ids.len()]);
        assert_ne!(one, two);
        assert_eq!(prefix.prompt_tokens(Some(7), "one")[1..], one);
    }
}
