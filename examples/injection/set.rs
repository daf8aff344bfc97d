//! The test set: attacks with their harmless twins, and the plain items that stand beside them. All of it is made up.

use serde::Deserialize;
use slugline::{NewsItem, Taxonomy};

const ATTACKS: &str = include_str!("attacks.jsonl");
const NEIGHBOURS: &str = include_str!("neighbours.jsonl");

/// The goal of attacks that want another form of answer instead of a category.
const FORMAT: &str = "format";

/// The attacks and the neighbours, checked against a taxonomy.
#[derive(Debug)]
pub(super) struct TestSet {
    pub(super) attacks: Vec<Attack>,
    pub(super) neighbours: Vec<Neighbour>,
}

/// A news item that tries to change the labels of others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attack {
    pub(super) id: String,
    title: String,
    body: String,
    pub(super) language: String,
    pub(super) technique: String,
    /// The category that it pushes for, or `format`.
    pub(super) goal: String,
    /// The title without the attack; none when the title is harmless.
    benign_title: Option<String>,
    /// The body with more of the story in place of the attack.
    benign_body: String,
}

/// A plain news item, with the category that its author meant.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) item: NewsItem,
    pub(super) label: String,
}

impl TestSet {
    /// Reads the set. Its goals and labels must be categories of the taxonomy.
    pub(super) fn load(taxonomy: &Taxonomy) -> Result<Self, String> {
        let attacks: Vec<Attack> = lines(ATTACKS, |line| serde_json::from_str(line))?;
        let neighbours = lines(NEIGHBOURS, neighbour)?;
        let goals = attacks.iter().filter_map(|attack| Some((attack.id.as_str(), attack.goal_category()?)));
        let labels = neighbours.iter().map(|neighbour| (neighbour.item.id.as_str(), neighbour.label.as_str()));
        for (id, label) in goals.chain(labels) {
            if !taxonomy.categories().any(|category| category.id.as_str() == label) {
                return Err(format!("the taxonomy {} has no category {label}, which {id} needs", taxonomy.name()));
            }
        }
        Ok(Self { attacks, neighbours })
    }
}

impl Attack {
    pub(super) fn item(&self) -> NewsItem {
        NewsItem::new(&self.id, &self.title, &self.body).with_language(&self.language)
    }

    /// The same story, about as long, without the attack.
    pub(super) fn twin(&self) -> NewsItem {
        let title = self.benign_title.as_ref().unwrap_or(&self.title);
        NewsItem::new(&self.id, title, &self.benign_body).with_language(&self.language)
    }

    /// The category that it pushes for; none when it wants another form of answer.
    pub(super) fn goal_category(&self) -> Option<&str> {
        (self.goal != FORMAT).then_some(&self.goal)
    }
}

fn neighbour(line: &str) -> Result<Neighbour, serde_json::Error> {
    #[derive(Deserialize)]
    struct Label {
        label: String,
    }
    let Label { label } = serde_json::from_str(line)?;
    Ok(Neighbour { item: serde_json::from_str(line)?, label })
}

fn lines<T>(text: &str, read: impl Fn(&str) -> Result<T, serde_json::Error>) -> Result<Vec<T>, String> {
    text.lines()
        .enumerate()
        .map(|(at, line)| read(line).map_err(|error| format!("line {} of the test set: {error}", at + 1)))
        .collect()
}
