//! Items for a load test without items of one's own.

use crate::NewsItem;
use crate::categorizer::Categorizer;
use crate::prompt::frame::{CLOSING_TOKENS, FRAME_TOKENS};

/// Openings and sentences as a news agency writes them, about everything that a newsroom has a desk for.
const TITLES: [&str; 8] = [
    "Striker signs new contract after cup final",
    "Central bank leaves interest rates unchanged",
    "Museum opens exhibition of early photographs",
    "Hospitals report fewer cases of influenza",
    "Storm closes harbour and railway line",
    "Telescope finds water on distant planet",
    "Court hears appeal in burglary case",
    "Parliament votes on new energy law",
];
const SENTENCES: [&str; 12] = [
    "Officials said on Tuesday that the decision had been expected for several weeks.",
    "The company did not answer questions about the costs of the plan.",
    "Residents welcomed the announcement but asked for more details before the summer.",
    "A spokesman for the ministry said that the figures would be published in March.",
    "Experts called the result surprising, since earlier studies had pointed the other way.",
    "The club confirmed the transfer and praised the work of its coach.",
    "Shares rose by two percent in early trading before they gave up most of the gains.",
    "Opposition members criticised the proposal as too late and too expensive.",
    "Doctors advised older people to be vaccinated before the end of the month.",
    "The weather service expects heavy rain and gusts along the coast until Friday.",
    "Police asked witnesses to come forward and released pictures of the vehicle.",
    "The festival will show thirty films from fourteen countries over ten days.",
];
/// What a prompt takes of an item by default.
const ITEM_TOKENS: usize = 150;
/// More than these, so that each item is cut to its full size.
const SENTENCES_EACH: usize = 14;
/// The least that it can take.
const LEAST_ITEM_TOKENS: usize = 16;

/// Items without end, no two alike, each long enough to fill the 150 tokens that a prompt takes of an item. With the default
/// packs of three and a taxonomy of about 650 tokens they make requests of the reference size, 1,100 prompt tokens.
///
/// They are made up: what labels they get says nothing about quality. The same seed gives the same items.
///
/// ```
/// let items: Vec<_> = slugline::load::generated_items(7).take(2).collect();
/// assert_ne!(items[0].body, items[1].body);
/// ```
pub fn generated_items(seed: u64) -> impl Iterator<Item = NewsItem> + Send {
    generated_items_of(seed, ITEM_TOKENS)
}

/// The same for prompts that take so many tokens of an item ([`item_tokens`](crate::CategorizerBuilder::item_tokens)).
pub fn generated_items_of(seed: u64, item_tokens: usize) -> impl Iterator<Item = NewsItem> + Send {
    let mut random = fastrand::Rng::with_seed(seed);
    let sentences_each = (SENTENCES_EACH * item_tokens).div_ceil(ITEM_TOKENS);
    (0_u64..).map(move |number| {
        let title = TITLES[random.usize(..TITLES.len())];
        let sentences: Vec<&str> = (0..sentences_each).map(|_| SENTENCES[random.usize(..SENTENCES.len())]).collect();
        // With its number, so that none is answered as a copy of another.
        NewsItem::new(format!("load-{seed}-{number}"), format!("{title} ({seed}/{number})"), sentences.join(" "))
    })
}

/// What the prompt may take of each item, by estimate, for a full pack's request to have so many prompt tokens; none where
/// the taxonomy and the instructions leave less than 16 for each.
pub fn item_tokens_for(categorizer: &Categorizer, prompt_tokens: usize) -> Option<usize> {
    let shared = &categorizer.shared;
    let of_items = prompt_tokens.checked_sub(shared.prefix.tokens() + CLOSING_TOKENS)?;
    let of_each = (of_items / shared.settings.pack_size.max(1)).checked_sub(FRAME_TOKENS)?;
    Some(of_each).filter(|tokens| *tokens >= LEAST_ITEM_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::tokens::estimate;

    #[test]
    fn items_differ_fill_their_budget_and_can_be_made_again() {
        let items: Vec<_> = generated_items(3).take(200).collect();
        let titles: std::collections::BTreeSet<_> = items.iter().map(|item| item.title.as_str()).collect();
        assert_eq!(titles.len(), 200);
        assert!(items.iter().all(|item| estimate(&item.body) > 150));
        assert!(generated_items_of(3, 900).take(20).all(|item| estimate(&item.body) > 900));
        let again: Vec<_> = generated_items(3).take(200).map(|item| item.body).collect();
        assert!(items.iter().map(|item| &item.body).eq(&again));
    }
}
