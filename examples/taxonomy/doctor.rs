//! What to mend in a taxonomy, by an evaluation: who steals from whom, and with which items.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use slugline::evaluate::{Evaluation, GradedItem, SettingReport};
use slugline::{Category, CategoryId, Taxonomy};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// What `evaluate` wrote with --json
    evaluation: PathBuf,
    /// The categories, for their descriptions
    #[arg(long, value_name = "FILE.toml")]
    taxonomy: PathBuf,
    /// The setting to look at, by its name [default: the most accurate of those on the same items as the first]
    #[arg(long, value_name = "NAME")]
    setting: Option<String>,
    /// The most pairs that are shown
    #[arg(long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// The fewest items that make a pair worth showing; of the others there is one line
    #[arg(long, value_name = "N", default_value_t = 2)]
    fewest: usize,
    /// The most items that are named for each pair
    #[arg(long, value_name = "N", default_value_t = 5)]
    items: usize,
}

/// Items of one category that were given another.
struct Theft<'a> {
    from: &'a CategoryId,
    to: &'a CategoryId,
    items: Vec<&'a GradedItem>,
    /// How many go the other way.
    back: usize,
}

pub(crate) fn doctor(args: &DoctorArgs) -> Result<String, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", args.evaluation.display());
    let json = std::fs::read_to_string(&args.evaluation).map_err(|error| about(&error))?;
    let evaluation = Evaluation::from_json(&json).map_err(|error| about(&error))?;
    let taxonomy = Taxonomy::load(&args.taxonomy).map_err(|error| error.to_string())?;
    let report = match &args.setting {
        Some(name) => evaluation.settings.iter().find(|report| report.setting.name == *name),
        None => best(&evaluation),
    };
    let Some(report) = report else {
        let names: Vec<_> = evaluation.settings.iter().map(|report| report.setting.name.as_str()).collect();
        return Err(about(&format!("has no such setting; there are {}", names.join("; "))));
    };
    Ok(diagnosis(report, &taxonomy, evaluation.about.taxonomy_hash == taxonomy.hash(), args))
}

/// The most accurate setting; a part of the items, such as a skewed one, may be easier than the whole.
fn best(evaluation: &Evaluation) -> Option<&SettingReport> {
    let sample = |report: &SettingReport| report.setting.sample.clone();
    let first = sample(evaluation.settings.first()?);
    let of_first = evaluation.settings.iter().filter(|report| sample(report) == first);
    of_first.max_by(|a, b| a.metrics.accuracy.total_cmp(&b.metrics.accuracy))
}

fn diagnosis(report: &SettingReport, taxonomy: &Taxonomy, is_same: bool, args: &DoctorArgs) -> String {
    let thefts = thefts(&report.items);
    let wrong: usize = thefts.iter().map(|theft| theft.items.len()).sum();
    let metrics = &report.metrics;
    let mut text = format!(
        "{}: {} of {} items right, {wrong} given another category, {} without one\n",
        report.setting.name, metrics.correct, metrics.items, metrics.failed
    );
    if !is_same {
        text.push_str(
            "this is not the taxonomy that was asked with: it has changed since, or the labels were mapped to another scheme; \
             the descriptions are those of the file\n",
        );
    }
    let (shown, rare): (Vec<_>, Vec<_>) = thefts.iter().partition(|theft| theft.items.len() >= args.fewest);
    for theft in shown.iter().take(args.most) {
        let support = metrics.categories.iter().find(|of| of.category == *theft.from).map_or(0, |of| of.support);
        let ids: Vec<_> = theft.items.iter().take(args.items).map(|item| item.id.as_str()).collect();
        let more = theft.items.len().saturating_sub(ids.len());
        let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text.push_str(&format!(
            "\n{} takes {} of {support} items of {}; {} go the other way\n  items: {}{and_more}\n  {}\n",
            theft.to,
            theft.items.len(),
            theft.from,
            theft.back,
            ids.join(", "),
            advice(theft, taxonomy)
        ));
    }
    let hidden: usize = shown.iter().skip(args.most).chain(&rare).map(|theft| theft.items.len()).sum();
    if hidden > 0 {
        let pairs = shown.len().saturating_sub(args.most) + rare.len();
        text.push_str(&format!("\n{pairs} more pairs with {hidden} items in all; --most and --fewest show them\n"));
    }
    text.push_str(&sharpen(&thefts, taxonomy));
    text
}

/// The wrong pairs, those with the most items first.
fn thefts(items: &[GradedItem]) -> Vec<Theft<'_>> {
    let mut pairs: BTreeMap<(&CategoryId, &CategoryId), Vec<&GradedItem>> = BTreeMap::new();
    for item in items {
        if let Ok(prediction) = &item.result
            && prediction.category != item.truth
        {
            pairs.entry((&item.truth, &prediction.category)).or_default().push(item);
        }
    }
    let back = |from, to| pairs.get(&(to, from)).map_or(0, Vec::len);
    let mut thefts: Vec<_> = pairs
        .iter()
        .map(|(&(from, to), items)| Theft { from, to, items: items.clone(), back: back(from, to) })
        .collect();
    thefts.sort_by_key(|theft| std::cmp::Reverse(theft.items.len()));
    thefts
}

fn advice(theft: &Theft<'_>, taxonomy: &Taxonomy) -> String {
    let category = |id: &CategoryId| taxonomy.find(id.as_str());
    let (Some(from), Some(to)) = (category(theft.from), category(theft.to)) else {
        return "one of them is not in this taxonomy".to_owned();
    };
    let names = |one: &Category, other: &Category| one.description.contains(other.id.as_str());
    let sure = theft.items.iter().filter_map(|item| item.confidence()).filter(|confidence| *confidence >= 0.8).count();
    let is_mutual = 2 * theft.back >= theft.items.len();
    let mut advice = if taxonomy.path(&from.id).iter().any(|above| above.id == to.id) {
        format!(
            "the model goes no deeper than {}: say in the description of {} what makes an item one of it",
            to.id, from.id
        )
    } else if is_mutual {
        format!(
            "they take from each other: say in both descriptions where the border is, \"… goes to {}.\" in that of {} and \"… \
             goes to {}.\" in that of {}",
            to.id, from.id, from.id, to.id
        )
    } else if names(to, from) {
        format!(
            "{} already sends items to {}: add the words of these items to the description of {}",
            to.id, from.id, from.id
        )
    } else {
        format!("say in the description of {} what goes to {}", to.id, from.id)
    };
    if 2 * sure > theft.items.len() {
        advice.push_str("; the model is sure of most, so look at the labels, too");
    }
    advice
}

/// The categories that lose or take the most, with their descriptions.
fn sharpen(thefts: &[Theft<'_>], taxonomy: &Taxonomy) -> String {
    let mut counts: BTreeMap<&CategoryId, (usize, usize)> = BTreeMap::new();
    for theft in thefts {
        counts.entry(theft.from).or_default().0 += theft.items.len();
        counts.entry(theft.to).or_default().1 += theft.items.len();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, (lost, taken))| std::cmp::Reverse(lost + taken));
    let mut text = String::from("\ndescriptions to sharpen first:\n");
    for (id, (lost, taken)) in counts.iter().take(5) {
        let description = taxonomy.find(id.as_str()).map_or("not in the taxonomy", |category| &*category.description);
        text.push_str(&format!("  {id}: loses {lost}, takes {taken}. Now: {description}\n"));
    }
    if counts.is_empty() { "\nno item was given a wrong category\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slugline::evaluate::{About, Prediction, Setting, Throughput};

    #[test]
    fn the_pairs_are_named_with_their_items_and_a_remedy() {
        let taxonomy = Taxonomy::new(
            "t",
            "1",
            [
                Category::new("sport", "Sport", "Matches."),
                Category::new("health", "Health", "Illness. Injured players go to sport."),
                Category::new("arts", "Arts", "Works."),
            ],
        )
        .unwrap();
        let item = |index: u64, truth: &str, given: &str| GradedItem {
            index,
            id: format!("item-{index}"),
            truth: truth.into(),
            result: Ok(Prediction::new(given)),
        };
        let items = vec![
            item(0, "sport", "health"),
            item(1, "sport", "health"),
            item(2, "sport", "health"),
            item(3, "arts", "sport"),
            item(4, "sport", "arts"),
            item(5, "arts", "arts"),
        ];
        let mut evaluation = Evaluation::new(About::new("m", &taxonomy), &taxonomy);
        let speed = Throughput::new(std::time::Duration::from_secs(1), 1, &items);
        evaluation.add(Setting::new("objects ×1", 1, "objects"), items, speed).unwrap();
        let (evaluation_path, taxonomy_path) = (PathBuf::new(), PathBuf::new());
        let mut args = DoctorArgs {
            evaluation: evaluation_path,
            taxonomy: taxonomy_path,
            setting: None,
            most: 10,
            fewest: 1,
            items: 2,
        };
        let text = diagnosis(&evaluation.settings[0], &taxonomy, true, &args);
        assert!(
            text.starts_with("objects ×1: 1 of 6 items right, 5 given another category, 0 without one\n"),
            "{text}"
        );
        let expected = "\nhealth takes 3 of 4 items of sport; 0 go the other way\n  items: item-0, item-1 and 1 more\n  \
                        health already sends items to sport: add the words of these items to the description of sport\n";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("they take from each other"), "{text}");
        assert!(text.contains("  sport: loses 4, takes 1. Now: Matches.\n"), "{text}");
        args.fewest = 2;
        let text = diagnosis(&evaluation.settings[0], &taxonomy, true, &args);
        assert!(!text.contains("from each other") && text.contains("2 more pairs with 2 items in all"), "{text}");
        // A part that is easier than the whole is not looked at in its place.
        let mut part = evaluation.settings[0].clone();
        (part.setting.sample, part.metrics.accuracy) = (Some("of a skewed part".into()), 1.0);
        evaluation.settings.push(part);
        assert_eq!(best(&evaluation).unwrap().setting.sample, None);
    }
}
