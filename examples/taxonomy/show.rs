//! A taxonomy as a tree, and what its lists cost.

use std::path::Path;

use slugline::prompt::Prefix;
use slugline::prompt::tokens::{CountTokens, EstimatedTokens};
use slugline::{Category, CategoryId, Taxonomy};

/// A line for each category, indented by its level.
pub(crate) fn tree(taxonomy: &Taxonomy, below: Option<&str>, depth: usize, language: &str) -> Result<String, String> {
    let below = below.map(|label| taxonomy.find(label).ok_or_else(|| format!("no category {label:?}"))).transpose()?;
    let mut text = String::new();
    write_below(&mut text, taxonomy, below.map(|category| &category.id), (0, depth), language);
    Ok(text)
}

fn write_below(
    text: &mut String,
    taxonomy: &Taxonomy,
    parent: Option<&CategoryId>,
    (level, depth): (usize, usize),
    language: &str,
) {
    if level == depth {
        return;
    }
    for category in taxonomy.children(parent) {
        let code = category.code.as_ref().map(|code| format!(" [{code}]")).unwrap_or_default();
        let name = category.name_in(language);
        text.push_str(&format!("{}{}: {name}{code}\n", "  ".repeat(level), category.id));
        write_below(text, taxonomy, Some(&category.id), (level + 1, depth), language);
    }
}

/// A line for each list of children, the longest first, and the sums.
pub(crate) fn tokens(taxonomy: &Taxonomy, most: usize, tokenizer: Option<&Path>) -> Result<String, String> {
    let counter = counter(tokenizer)?;
    let count = |text: &str| counter.count_tokens(text);
    let line = |category: &Category| format!("- {}: {}. {}", category.id, category.name, category.description);
    let mut lists: Vec<(usize, usize, usize, String)> = std::iter::once(None)
        .chain(taxonomy.categories().map(|category| Some(&category.id)))
        .filter_map(|parent| {
            let children: Vec<&Category> = taxonomy.children(parent).collect();
            let tokens = children.iter().map(|category| count(&line(category))).sum();
            let longest = children.iter().map(|category| count(category.id.as_str())).max()?;
            let name = parent.map_or_else(|| "(top level)".to_owned(), ToString::to_string);
            Some((tokens, children.len(), longest, name))
        })
        .collect();
    lists.sort_unstable_by(|a, b| b.cmp(a));
    let by = if tokenizer.is_some() { "the tokenizer" } else { "the estimator" };
    let mut text = format!("tokens by {by}\n  list   children  longest id\n");
    for (tokens, children, longest, name) in lists.iter().take(most) {
        text.push_str(&format!("{tokens:>6} {children:>10} {longest:>11}  {name}\n"));
    }
    let all: usize = lists.iter().map(|list| list.0).sum();
    text.push_str(&format!(
        "{} categories, {} levels, {} lists, {all} tokens in all, {:.0} a list; {}\n",
        taxonomy.len(),
        taxonomy.depth(),
        lists.len(),
        all as f64 / lists.len() as f64,
        if taxonomy.fits_one_prompt() {
            format!("fits one prompt, {} with the instructions", count(Prefix::new(taxonomy).text()))
        } else {
            "walked level by level".to_owned()
        }
    ));
    Ok(text)
}

/// A model's tokenizer, or the estimator where none is given.
pub(crate) fn counter(tokenizer: Option<&Path>) -> Result<Box<dyn CountTokens>, String> {
    tokenizer.map_or_else(|| Ok(Box::new(EstimatedTokens) as Box<dyn CountTokens>), load)
}

#[cfg(feature = "tokenizers")]
fn load(path: &Path) -> Result<Box<dyn CountTokens>, String> {
    let tokens = slugline::prompt::tokens::ExactTokens::load(path).map_err(|error| error.to_string())?;
    Ok(Box::new(tokens))
}

#[cfg(not(feature = "tokenizers"))]
fn load(_: &Path) -> Result<Box<dyn CountTokens>, String> {
    Err("--tokenizer needs the feature: cargo run --features tokenizers --example taxonomy -- …".to_owned())
}
