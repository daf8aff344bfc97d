//! Runs one setting over all items.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::{Categorizer, ItemErrorKind, NewsItem, Outcome, Stats};

use super::progress::{Counts, Progress};
use super::stop::Stop;

/// What came of a setting.
pub(crate) struct Measured {
    /// One for each item, in their order.
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) stats: Stats,
    /// Why it ended before its end, if it did.
    pub(crate) stopped_by: Option<String>,
}

/// Asks about every item, after one that is not measured: it brings the prefix into the server's cache, which a service
/// does once in its life.
pub(crate) async fn measure(categorizer: &Categorizer, items: &[NewsItem], stop: &Stop) -> Measured {
    tokio::select! {
        _ = categorizer.categorize(items.first().cloned()) => {}
        () = stop.clone().stopped() => {}
    }
    let mut running = categorizer.stream(stream::iter(items.to_vec()));
    let run = running.stop_handle();
    let mut progress = Progress::start(true);
    let mut counts = Counts { total: Some(items.len() as u64), ..Counts::default() };
    let mut outcomes = Vec::with_capacity(items.len());
    let mut every_second = tokio::time::interval(Duration::from_secs(1));
    let mut is_stopped = false;
    loop {
        tokio::select! {
            outcome = running.next() => match outcome {
                Some(outcome) => {
                    let error = outcome.result.as_ref().err();
                    if error.is_none_or(|error| error.kind != ItemErrorKind::NotAttempted) {
                        counts.done += 1;
                        counts.failed +=
                            u64::from(error.is_some_and(|error| error.kind != ItemErrorKind::BelowThreshold));
                    }
                    outcomes.push(outcome);
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
    let stats = running.stats();
    progress.finish();
    outcomes.sort_unstable_by_key(|outcome| outcome.index);
    let was_stopped = || stop.is_stopped().then(|| slugline::Error::Stopped.to_string());
    Measured { outcomes, stats, stopped_by: running.error().map(ToString::to_string).or_else(was_stopped) }
}
