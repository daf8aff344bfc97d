//! Entry points to the parts of the crate, for the fuzz targets and the benches. Each checks what must hold for any input.

use std::time::Duration;

use crate::NewsItem;
use crate::answer::{AnswerForm, Reader};
use crate::prompt::clean::CleanText;
use crate::run::job::Item;
use crate::run::packer::Packer;
use crate::server::{Attempt, Response, Verdict, judge};
use crate::taxonomy::Taxonomy;

/// Reads an answer to `pack_len` items as a run does, and gives each item's category id where it got one.
///
/// # Panics
/// When the reader breaks its contract: one result for each item, each label of the taxonomy.
pub fn read_answer(text: &str, pack_len: usize, was_cut: bool, taxonomy: &Taxonomy) -> Vec<Option<String>> {
    for form in [AnswerForm::Category, AnswerForm::Bare] {
        let single = Reader::new(taxonomy, form).understand(text, was_cut, None, 1);
        assert_eq!(single.len(), 1, "one result for the item");
    }
    let labels = Reader::new(taxonomy, AnswerForm::Objects).understand(text, was_cut, None, pack_len);
    assert_eq!(labels.len(), pack_len, "one result for each item");
    let id_of = |category| taxonomy.at(category).map(|category| category.id.to_string());
    labels.into_iter().map(|label| label.ok().map(|label| id_of(label.category).expect("a known category"))).collect()
}

/// Judges a whole response as a run does, log-probabilities included, and gives the text of the answer where there is one.
///
/// # Panics
/// When the reader breaks its contract: the words of a failure are short and do not repeat the key, probabilities are
/// between 0 and 1 and add up to no more than 1.
pub fn read_response(http_status: u16, body: &[u8], pack_len: usize, taxonomy: &Taxonomy) -> Option<String> {
    const KEY: &str = "sk-0123456789";
    let response = Response::new(http_status, body.to_vec());
    match judge(Attempt::Response(response), &"http://fuzz".into(), "the text of the request", Some(KEY)) {
        Verdict::Answer(completion) => {
            let tokens = completion.tokens.as_deref();
            let reader = Reader::new(taxonomy, AnswerForm::Objects);
            let labels = reader.understand(&completion.text, false, tokens, pack_len);
            for label in labels.into_iter().flatten() {
                assert!(label.probabilities.iter().all(|(_, share)| (0.0..=1.0).contains(share)), "a probability");
                let sum: f32 = label.probabilities.iter().map(|(_, share)| share).sum();
                assert!(sum <= 1.001, "probabilities add up to {sum}");
            }
            Some(completion.text)
        }
        Verdict::Failed { failure, .. } => {
            let words = failure.words.unwrap_or_default();
            assert!(words.len() <= 400 && !words.contains(KEY), "words are bounded and redacted");
            None
        }
    }
}

/// Reads a `Retry-After` header, in seconds.
pub fn read_retry_after(value: &str) -> Option<f64> {
    crate::server::parse_retry_after(value, std::time::SystemTime::UNIX_EPOCH).map(|wait| wait.as_secs_f64())
}

/// Cleans a field of an item as the prompt gets it.
///
/// # Panics
/// When the text could leave its frame.
pub fn clean_text(text: &str) -> String {
    let clean = crate::prompt::clean::clean(text);
    assert!(!clean.contains(['<', '>', '\n', '\r']), "no frame markers");
    clean
}

/// Cleans an item and cuts it to its budget, as a run does, and gives its estimated tokens; none when nothing is left.
pub fn clean_item(item: &NewsItem, budget_tokens: usize) -> Option<usize> {
    CleanText::of(item, budget_tokens).map(|text| text.tokens)
}

/// Packs items of these lengths in tokens, as a run does, and gives the sizes of the packs.
///
/// # Panics
/// When an item is lost, or a pack is larger than it may be.
pub fn pack(item_tokens: &[usize], pack_size: usize, budget_tokens: usize) -> Vec<usize> {
    let mut packer = Packer::new(Duration::from_millis(20));
    for (index, &tokens) in (0..).zip(item_tokens) {
        let text = CleanText { title: String::new(), body: String::new(), tokens };
        packer.push(Item::new(index, String::new(), text));
    }
    let packs: Vec<usize> =
        std::iter::from_fn(|| packer.take(pack_size, budget_tokens, true)).map(|pack| pack.items.len()).collect();
    assert!(packs.iter().all(|&len| (1..=pack_size).contains(&len)), "packs are bounded");
    assert_eq!(packs.iter().sum::<usize>(), item_tokens.len(), "every item is in a pack");
    packs
}
