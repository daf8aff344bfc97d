//! What the tests share.

use std::collections::BTreeMap;

use slugline::testing::{Asked, Reply, ScriptedTransport};
use slugline::{Categorizer, CategorizerBuilder, Category, EndpointConfig, NewsItem, Report, Taxonomy};

/// Three categories; the title of an item says which is right.
pub(crate) fn taxonomy() -> Taxonomy {
    Taxonomy::new(
        "test",
        "1",
        [
            Category::new("sport", "Sport", "Matches and athletes."),
            Category::new("business", "Business", "Companies and markets."),
            Category::new("other", "Other", "None of these.").as_fallback(),
        ],
    )
    .expect("a valid taxonomy")
}

/// `count` items with ids `item-0`, `item-1`, … whose titles name their label.
pub(crate) fn items(count: usize) -> Vec<NewsItem> {
    (0..count).map(item).collect()
}

pub(crate) fn item(number: usize) -> NewsItem {
    NewsItem::new(format!("item-{number}"), format!("{} story {number}", label_of(number)), "")
}

/// The label that is right for an item of [`items`].
pub(crate) fn label_of(number: usize) -> &'static str {
    ["sport", "business", "other"][number % 3]
}

/// The right label for a framed item: the first word of its title.
pub(crate) fn right_label(item: &str) -> &str {
    item.split(' ').next().unwrap_or_default()
}

/// A reply with the right label for every item.
pub(crate) fn right(asked: &Asked) -> Reply {
    Reply::labels(asked.items.iter().map(|item| right_label(item)))
}

/// A categorizer over scripted endpoints named `http://0`, `http://1`, …
pub(crate) fn builder(servers: &[&ScriptedTransport]) -> CategorizerBuilder {
    servers.iter().enumerate().fold(Categorizer::builder(taxonomy()).model("m").seed(1), |builder, (number, server)| {
        builder.endpoint(EndpointConfig::new(format!("http://{number}")).transport((*server).clone()))
    })
}

/// Checks what must hold for every run: one outcome per item, each its own, each right or failed.
pub(crate) fn check_all_there(report: &Report, count: usize) {
    assert_eq!(report.outcomes.len(), count, "one outcome per item");
    for (number, outcome) in report.outcomes.iter().enumerate() {
        assert_eq!((outcome.id.as_str(), outcome.index), (format!("item-{number}").as_str(), number as u64));
        if let Ok(assignment) = &outcome.result {
            assert_eq!(assignment.category.as_str(), label_of(number), "{}", outcome.id);
        }
    }
    let stats = &report.stats;
    assert_eq!(stats.items, count as u64);
    assert_eq!(stats.categorized + stats.failed.values().sum::<u64>(), count as u64);
}

/// The failed items of a report with the kind of their error.
pub(crate) fn failed(report: &Report) -> BTreeMap<&str, &'static str> {
    report.failures().map(|(outcome, error)| (outcome.id.as_str(), error.kind.as_str())).collect()
}

/// Virtual seconds since then, rounded.
pub(crate) fn rounded_seconds(start: tokio::time::Instant) -> u64 {
    (start.elapsed().as_secs_f64()).round() as u64
}

/// Two listeners at once could take each other's messages.
static LOG: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Lets a subscriber listen to what this thread logs, one at a time, as long as the value is held.
pub(crate) async fn listen(to: impl tracing::Subscriber + Clone + Send + Sync + 'static) -> impl Sized {
    let turn = LOG.lock().await;
    // While tracing knows just one subscriber, a call site that another test's thread meets first asks that thread's, which
    // is none, and stays silent for all. A second one, which nobody uses, makes it ask both.
    let spare = tracing::Dispatch::new(to.clone());
    (tracing::subscriber::set_default(to), spare, turn)
}
