//! Runs one setting over all items.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::evaluate::{GradedItem, Throughput};
use slugline::{Categorizer, CategoryId, ItemErrorKind, NewsItem};

use super::progress::{Counts, Progress};
use super::stop::Stop;

/// What came of a setting.
pub(crate) struct Measured {
    pub(crate) items: Vec<GradedItem>,
    pub(crate) throughput: Throughput,
    /// Why it ended before its end, if it did.
    pub(crate) stopped_by: Option<String>,
}

/// Asks about every item, after one that is not measured: it brings the prefix into the server's cache, which a service
/// does once in its life.
pub(crate) async fn measure(
    categorizer: &Categorizer,
    items: &[NewsItem],
    truths: &[CategoryId],
    stop: &Stop,
) -> Measured {
    tokio::select! {
        _ = categorizer.categorize(items.first().cloned()) => {}
        () = stop.clone().stopped() => {}
    }
    let mut outcomes = categorizer.stream(stream::iter(items.to_vec()));
    let run = outcomes.stop_handle();
    let mut progress = Progress::start(true);
    let mut counts = Counts { total: Some(items.len() as u64), ..Counts::default() };
    let mut graded = Vec::with_capacity(items.len());
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let mut is_stopped = false;
    loop {
        tokio::select! {
            outcome = outcomes.next() => match outcome {
                Some(outcome) => {
                    let error = outcome.result.as_ref().err();
                    if error.is_none_or(|error| error.kind != ItemErrorKind::NotAttempted) {
                        counts.done += 1;
                        counts.failed += u64::from(error.is_some());
                    }
                    // The index is the place in `items`, and so in `truths`.
                    graded.extend(truths.get(outcome.index as usize).map(|truth| GradedItem::new(&outcome, truth.clone())));
                }
                None => break,
            },
            () = stop.clone().stopped(), if !is_stopped => {
                is_stopped = true;
                run.stop();
            }
            _ = every_second.tick() => {}
        }
        progress.update(counts);
    }
    progress.finish();
    let throughput = Throughput::from_stats(&outcomes.stats(), &graded);
    Measured { items: graded, throughput, stopped_by: outcomes.error().map(ToString::to_string) }
}
