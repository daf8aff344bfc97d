//! The items that are sent.

use slugline::NewsItem;
use slugline::load::generated_items_of;

use super::args::Args;
use super::items;
use super::lines::{object_text, reason_of};

/// Where items come from.
pub(crate) enum Source {
    /// Made up, of the reference size.
    Generated { seed: u64 },
    /// Those of a file.
    Own { name: String, items: Vec<NewsItem> },
}

impl Source {
    pub(crate) fn open(args: &Args) -> Result<Self, String> {
        let Some(path) = &args.input else {
            return Ok(Self::Generated { seed: args.seed });
        };
        let item = |content: &[u8], _| {
            serde_json::from_str::<NewsItem>(object_text(content)?).map_err(|error| reason_of(&error))
        };
        let items = items::read(path, "items", usize::MAX, item)?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self::Own { name, items })
    }

    /// The items of a step, without end, no two of them alike; each step has others, so that none finds what an earlier one
    /// left in the servers' caches. Of generated ones the prompt takes `item_tokens`.
    pub(crate) fn items(&self, step: u64, item_tokens: usize) -> Box<dyn Iterator<Item = NewsItem> + Send + '_> {
        match self {
            Self::Generated { seed } => {
                Box::new(generated_items_of(seed.wrapping_mul(1_000).wrapping_add(step), item_tokens))
            }
            Self::Own { items, .. } => Box::new((0_u64..).flat_map(move |round| {
                items.iter().map(move |item| {
                    let mut item = item.clone();
                    if step + round > 0 {
                        item.title = format!("[{step}.{round}] {}", item.title);
                    }
                    item
                })
            })),
        }
    }

    /// What they are, in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Generated { .. } => "generated".to_owned(),
            Self::Own { name, items } => format!("{} of {name}, sent again as needed", items.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_items_are_sent_again_and_never_as_copies() {
        let items = ["a", "b"].map(|id| NewsItem::new(id, format!("Title {id}"), "")).to_vec();
        let source = Source::Own { name: "news.jsonl".into(), items };
        let titles = |step| source.items(step, 150).take(5).map(|item| item.title).collect::<Vec<_>>();
        assert_eq!(titles(0), ["Title a", "Title b", "[0.1] Title a", "[0.1] Title b", "[0.2] Title a"]);
        let all: std::collections::BTreeSet<String> = (0..3).flat_map(titles).collect();
        assert_eq!(all.len(), 15, "no title is that of another, in other steps either");
    }
}
