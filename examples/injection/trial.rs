//! A trial: an attack between two neighbours, and the versions of their pack.

use serde::Serialize;
use slugline::prompt::tokens::estimate;
use slugline::{Categorizer, CategoryId, Error, NewsItem};

use super::set::{Attack, Neighbour, TestSet};

/// The attack and its two neighbours.
pub(super) const PACK_SIZE: usize = 3;
/// The items that a trial asks for.
pub(super) const ITEMS_PER_TRIAL: usize = Version::ALL.len() * PACK_SIZE;

/// What stands in the attack's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Version {
    /// Its harmless twin.
    Baseline,
    /// The twin once more.
    Again,
    /// The twin of another attack.
    OtherText,
    /// The attack.
    Attacked,
}

impl Version {
    pub(super) const ALL: [Self; 4] = [Self::Baseline, Self::Again, Self::OtherText, Self::Attacked];
}

/// An attack and what stands beside it.
#[derive(Debug)]
pub(super) struct Trial<'a> {
    pub(super) attack: &'a Attack,
    /// Another attack, whose twin is a harmless text of about the same length.
    other: &'a Attack,
    /// The attack's place in the pack, from 0.
    pub(super) position: usize,
    pub(super) neighbours: [&'a Neighbour; 2],
}

/// A trial with the answers to all versions of its pack.
#[derive(Debug)]
pub(super) struct Tried<'a> {
    pub(super) trial: &'a Trial<'a>,
    baseline: Answer,
    again: Answer,
    other_text: Answer,
    attacked: Answer,
}

/// The labels of one pack; none for an item that got no category.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// The label of what stands in the attack's place.
    pub(super) tested: Option<CategoryId>,
    pub(super) neighbours: [Option<CategoryId>; 2],
    /// The requests that it took: more than one when the server failed or an answer was not valid.
    pub(super) requests: u64,
}

/// Puts each attack between two neighbours: positions in turn, and neighbours in turn that are not of the attack's goal
/// already. The first `limit` trials are the same whatever the limit is.
pub(super) fn trials(set: &TestSet, limit: Option<usize>) -> Result<Vec<Trial<'_>>, String> {
    let mut next = 0;
    let mut trials = Vec::new();
    for (number, attack) in set.attacks.iter().enumerate().take(limit.unwrap_or(usize::MAX)) {
        let in_turn = set.neighbours.iter().enumerate().cycle().skip(next).take(set.neighbours.len());
        let mut fitting = in_turn.filter(|(_, neighbour)| neighbour.label != attack.goal);
        let (Some((_, first)), Some((last, second))) = (fitting.next(), fitting.next()) else {
            return Err(format!("{} has no two neighbours that are not of its goal", attack.id));
        };
        let position = number % PACK_SIZE;
        // One is passed over after every three trials, else each neighbour would stand by attacks of one position only.
        next = last + 1 + usize::from(position == PACK_SIZE - 1);
        let other = most_similar(attack, set).ok_or("a single attack has no other to compare with")?;
        trials.push(Trial { attack, other, position, neighbours: [first, second] });
    }
    Ok(trials)
}

/// The other attack whose twin is nearest: in the same language if there is one, then in length.
fn most_similar<'a>(attack: &Attack, set: &'a TestSet) -> Option<&'a Attack> {
    let tokens = |attack: &Attack| {
        let twin = attack.twin();
        estimate(&twin.title) + estimate(&twin.body)
    };
    let wanted = tokens(attack);
    let others = set.attacks.iter().filter(|other| other.id != attack.id);
    others.min_by_key(|other| (other.language != attack.language, tokens(other).abs_diff(wanted)))
}

impl Trial<'_> {
    /// Asks all versions, one after the other, with the attack between the two baselines: what the server has cached by
    /// then does not set it apart from them.
    pub(super) async fn run(&self, categorizer: &Categorizer) -> Result<Tried<'_>, Error> {
        let baseline = self.ask(categorizer, self.attack.twin()).await?;
        let attacked = self.ask(categorizer, self.attack.item()).await?;
        let again = self.ask(categorizer, self.attack.twin()).await?;
        let other_text = self.ask(categorizer, self.other.twin()).await?;
        Ok(Tried { trial: self, baseline, again, other_text, attacked })
    }

    /// Asks for one pack. It is a run of its own with as many items as fit a pack, so it is one request, and slugline
    /// keeps the order of the items in it.
    async fn ask(&self, categorizer: &Categorizer, tested: NewsItem) -> Result<Answer, Error> {
        let mut items: Vec<NewsItem> = self.neighbours.iter().map(|neighbour| neighbour.item.clone()).collect();
        items.insert(self.position, tested);
        let report = categorizer.categorize(items).await;
        if let Some(error) = report.error {
            return Err(error);
        }
        let label = |at: usize| Some(report.outcomes.get(at)?.result.as_ref().ok()?.category.clone());
        let beside = match self.position {
            0 => [1, 2],
            1 => [0, 2],
            _ => [0, 1],
        };
        Ok(Answer { tested: label(self.position), neighbours: beside.map(label), requests: report.stats.requests })
    }
}

impl Tried<'_> {
    pub(super) fn answer(&self, version: Version) -> &Answer {
        match version {
            Version::Baseline => &self.baseline,
            Version::Again => &self.again,
            Version::OtherText => &self.other_text,
            Version::Attacked => &self.attacked,
        }
    }

    /// The items without a category, over all versions.
    pub(super) fn lost(&self) -> usize {
        Version::ALL.map(|version| self.answer(version).lost()).iter().sum()
    }
}

impl Answer {
    /// The items without a category.
    pub(super) fn lost(&self) -> usize {
        self.neighbours.iter().chain([&self.tested]).filter(|label| label.is_none()).count()
    }
}
