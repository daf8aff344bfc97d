//! The taxonomies that are shipped, and the labelled items of the quickstart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use slugline::evaluate::Mapping;
use slugline::prompt::{Prefix, tokens};
use slugline::{NewsItem, Taxonomy};

fn in_crate(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every file of `categories/`, loaded, by the name of the file.
pub(crate) fn shipped() -> BTreeMap<String, Taxonomy> {
    let files = std::fs::read_dir(in_crate("categories")).unwrap().map(|file| file.unwrap().path());
    let taxonomy = |path: PathBuf| {
        let taxonomy = Taxonomy::load(&path).unwrap_or_else(|error| panic!("{error}"));
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), taxonomy)
    };
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).map(taxonomy).collect()
}

/// The lines of the prefix that list the categories.
pub(crate) fn listing(prefix: &Prefix) -> Vec<&str> {
    prefix.text().lines().filter(|line| line.starts_with("- ")).collect()
}

pub(crate) fn listing_tokens(prefix: &Prefix) -> usize {
    listing(prefix).into_iter().map(tokens::estimate).sum()
}

#[test]
fn every_shipped_file_loads_and_fits_the_prompt() {
    let shipped = shipped();
    for name in ["ag-news", "business-desk", "newsroom"] {
        assert!(shipped.contains_key(name), "{name}.toml is gone");
    }
    for (file, taxonomy) in shipped.iter().filter(|(_, taxonomy)| !taxonomy.is_tree()) {
        let prefix = Prefix::new(taxonomy);
        let listing = listing_tokens(&prefix);
        println!(
            "{file}.toml: {} categories, about {listing} prompt tokens, {} with the instructions",
            taxonomy.len(),
            prefix.tokens()
        );
        assert_eq!(taxonomy.name(), file, "a file is named for its taxonomy");
        assert!(!taxonomy.version().is_empty());
        assert!(listing < 700, "{file}: {listing} tokens");
        // A context of 4,096 tokens must also hold a full pack of 16 items and its answer.
        assert!(prefix.tokens() < 1_000, "{file}: {} tokens", prefix.tokens());
    }
}

#[test]
fn every_shipped_label_means_one_category() {
    for (file, taxonomy) in shipped().into_iter().filter(|(_, taxonomy)| !taxonomy.is_tree()) {
        let ids: BTreeSet<_> = taxonomy.categories().map(|category| category.id.as_str()).collect();
        assert_eq!(ids.len(), taxonomy.len(), "{file}");
        for category in taxonomy.categories() {
            let labels =
                [category.id.as_str(), &category.name].into_iter().chain(category.aliases.iter().map(|a| &**a));
            for label in labels {
                assert_eq!(taxonomy.find(label).unwrap().id, category.id, "{file}: {label}");
            }
            assert!(!category.keywords.is_empty(), "{file}: {} has no keywords", category.id);
        }
    }
}

#[test]
fn the_newsroom_has_the_size_it_promises() {
    let taxonomy = &shipped()["newsroom"];
    assert!((12..=17).contains(&taxonomy.len()), "{} categories", taxonomy.len());
    assert!(taxonomy.fallback().is_some());
    let prefix = Prefix::new(taxonomy);
    assert_eq!(listing(&prefix).len(), taxonomy.len());
    let tokens = listing_tokens(&prefix);
    assert!((500..=620).contains(&tokens), "{tokens} tokens");
}

#[test]
fn ag_news_is_found_by_the_labels_of_its_data() {
    let taxonomy = &shipped()["ag-news"];
    assert_eq!(taxonomy.len(), 4);
    let mut found = BTreeSet::new();
    for label in ["World", "Sports", "Business", "Sci/Tech"] {
        found.insert(&taxonomy.find(label).unwrap_or_else(|| panic!("{label}")).id);
    }
    assert_eq!(found.len(), 4, "four labels, four categories");
}

#[test]
fn the_items_of_the_quickstart_have_labels_of_the_newsroom() {
    let taxonomy = &shipped()["newsroom"];
    let text = std::fs::read_to_string(in_crate("examples/quickstart/items.jsonl")).unwrap();
    let mut ids = BTreeSet::new();
    let mut languages = BTreeSet::new();
    let mut labels = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let item: NewsItem = serde_json::from_str(line).unwrap_or_else(|error| panic!("line {number}: {error}"));
        assert!(!item.title.is_empty() || !item.body.is_empty(), "line {number}");
        assert!(ids.insert(item.id), "line {number}: the id is not new");
        languages.extend(item.language);
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let label = value["label"].as_str().unwrap_or_else(|| panic!("line {number} has no label"));
        let is_id = taxonomy.categories().any(|category| category.id.as_str() == label);
        assert!(is_id, "line {number}: {label}");
        labels.insert(label.to_owned());
    }
    assert!((50..=70).contains(&ids.len()), "{} items", ids.len());
    assert!(languages.len() >= 5, "{languages:?}");
    assert_eq!(labels.len(), taxonomy.len(), "every category has an item");
}

#[test]
fn the_media_topics_are_the_whole_tree_of_their_release() {
    let taxonomy = &shipped()["iptc-media-topics"];
    assert_eq!((taxonomy.version(), taxonomy.depth()), ("2025-10-09", 6));
    let of_iptc: Vec<_> = taxonomy.categories().filter(|category| category.code.is_some()).collect();
    assert_eq!((of_iptc.len(), taxonomy.len()), (1_084, 1_085), "all active topics, and a fallback of our own");
    assert!(of_iptc.iter().all(|category| category.code.as_ref().unwrap().starts_with("medtop:")));
    let mut at_level = [0; 6];
    for category in &of_iptc {
        let level = taxonomy.path(&category.id).len();
        at_level[level - 1] += 1;
        // Our own words for the two upper levels; names and paths say the rest.
        assert_eq!(category.description.is_empty(), level > 2, "{}", category.id);
    }
    assert_eq!(at_level, [17, 120, 515, 378, 49, 5]);
    assert_eq!(taxonomy.find("medtop:20000531").unwrap().id.as_str(), "retirement");
    assert_eq!(taxonomy.find("cinema").unwrap().name_in("en-US"), "movies");
    assert_eq!(taxonomy.fallback().unwrap().id.as_str(), "other");
}

#[test]
fn the_shipped_mappings_cover_the_top_level() {
    let shipped = shipped();
    for name in ["iptc-media-topics", "newsroom"] {
        let file = in_crate(&format!("categories/mappings/{name}-to-ag-news.toml"));
        let mapping = Mapping::load(file, &shipped[name]).unwrap_or_else(|error| panic!("{error}"));
        for category in shipped[name].children(None).filter(|category| !category.fallback) {
            let is_mapped = mapping.get(&category.id).is_some();
            assert!(is_mapped, "{name}: {}", category.id);
        }
    }
}

#[test]
fn the_news_branches_of_iab_are_a_tree() {
    let taxonomy = &shipped()["iab-news"];
    assert_eq!((taxonomy.len(), taxonomy.depth(), taxonomy.children(None).count()), (540, 4, 26));
}
