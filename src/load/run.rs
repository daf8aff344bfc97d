//! Measuring a step.

use std::pin::pin;
use std::time::Duration;

use futures_core::Stream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use super::order::{Length, Order};
use super::probe::{Attempt, Probe};
use super::step::{LatencySummary, Step, in_flight};
use crate::categorizer::{Categorizer, OutcomeStream};
use crate::{Error, NewsItem, Stats};

/// Why a step ended that was told to.
const STOPPED: &str = "it was stopped before its end";

/// Runs a step: items go through the categorizer as the order says, and the probe beneath it sees the requests. The probe
/// must be over the transports of the categorizer's endpoints and of no other, and the categorizer new, since its limits adapt.
///
/// A step ends early when the items do, or when no endpoint can be asked; [`Step::error`] then says why.
pub async fn measure(
    categorizer: &Categorizer,
    probe: &Probe,
    items: impl Iterator<Item = NewsItem> + Send,
    order: &Order,
) -> Step {
    measure_until(categorizer, probe, items, order, std::future::pending()).await
}

/// The same, until something says that it is enough: then what is in flight is waited for, and the step is what was done by
/// then, with [`Step::error`] saying so. It is empty when its warm-up was not over.
pub async fn measure_until(
    categorizer: &Categorizer,
    probe: &Probe,
    items: impl Iterator<Item = NewsItem> + Send,
    order: &Order,
    enough: impl Future<Output = ()> + Send,
) -> Step {
    let mut enough = pin!(enough.fuse());
    let pack_size = categorizer.shared.settings.pack_size as u64;
    // Before anything was sent, the limits are as they were configured.
    let endpoints = categorizer.endpoints();
    let mut items = items.fuse();
    let warm_up_items = usize::try_from(order.warm_up_requests.saturating_mul(pack_size)).unwrap_or(usize::MAX);
    let mut warm_up = categorizer.stream(stream::iter(items.by_ref().take(warm_up_items)));
    let mut is_stopped = false;
    loop {
        tokio::select! {
            outcome = warm_up.next() => if outcome.is_none() { break },
            () = &mut enough, if !is_stopped => {
                is_stopped = true;
                warm_up.stop_handle().stop();
            }
        }
    }
    drop(warm_up);
    probe.reset();
    if is_stopped {
        return Step { error: Some(STOPPED.to_owned()), ..Step::default() };
    }

    let start = Instant::now();
    let due_times = order.due_times();
    let ran = if let Some(due_times) = &due_times {
        let due_of = |index: u64| due_times.get((index / pack_size) as usize).copied();
        let due_items = (0..).map_while(due_of).zip(items);
        let source = stream::iter(due_items).then(|(due, item)| async move {
            tokio::time::sleep_until(start + due).await;
            item
        });
        run(categorizer.stream(source), start, None, enough, due_of).await
    } else {
        let (most, until) = match order.length {
            Length::Requests(requests) => (requests.saturating_mul(pack_size), None),
            Length::Time(time) => (u64::MAX, start.checked_add(time)),
        };
        let items = items.take(usize::try_from(most).unwrap_or(usize::MAX));
        let source = items.take_while(|_| until.is_none_or(|until| Instant::now() < until));
        run(categorizer.stream(stream::iter(source)), start, until, enough, |_| None).await
    };
    let mut step = step(&ran, &probe.take(), start);
    step.due_per_second = order.open.map(|(per_second, _)| per_second);
    step.servers = endpoints.len();
    step.concurrency = endpoints.iter().map(|endpoint| endpoint.concurrency_limit).max().unwrap_or(0);
    step
}

/// What a run gave.
struct Ran {
    stats: Stats,
    valid_items: u64,
    /// From when each item with a category was due, where it was due at a time.
    from_due_s: Vec<f64>,
    error: Option<String>,
}

/// Takes all outcomes. At the time `until` the source ends and the run is stopped, since it has taken items ahead of what it
/// has asked.
async fn run<S: Stream<Item = NewsItem>>(
    mut outcomes: OutcomeStream<S>,
    start: Instant,
    until: Option<Instant>,
    enough: impl Future<Output = ()> + Send,
    due_of: impl Fn(u64) -> Option<Duration>,
) -> Ran {
    let (mut valid_items, mut from_due_s) = (0, Vec::new());
    let over = async {
        match until {
            Some(time) => tokio::time::sleep_until(time).await,
            None => std::future::pending().await,
        }
    };
    let (mut enough, mut over) = (pin!(enough), pin!(over));
    let (mut is_over, mut is_stopped) = (false, false);
    loop {
        let next = tokio::select! {
            next = outcomes.next() => next,
            () = &mut over, if !is_over => {
                is_over = true;
                outcomes.stop_handle().stop();
                continue;
            }
            () = &mut enough, if !is_stopped => {
                is_stopped = true;
                outcomes.stop_handle().stop();
                continue;
            }
        };
        match next {
            Some(outcome) if outcome.result.is_ok() => {
                valid_items += 1;
                from_due_s.extend(due_of(outcome.index).map(|due| start.elapsed().saturating_sub(due).as_secs_f64()));
            }
            Some(_) => {}
            None => break,
        }
    }
    let error = outcomes.error().filter(|error| !matches!(error, Error::Stopped)).map(ToString::to_string);
    let error = error.or_else(|| is_stopped.then(|| STOPPED.to_owned()));
    Ran { stats: outcomes.stats(), valid_items, from_due_s, error }
}

fn step(ran: &Ran, attempts: &[Attempt], start: Instant) -> Step {
    let stats = &ran.stats;
    let end = attempts.iter().map(|attempt| attempt.ended).max().unwrap_or(start);
    let seconds = end.saturating_duration_since(start).as_secs_f64();
    let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    let took_s = |attempt: &Attempt| attempt.ended.saturating_duration_since(attempt.sent).as_secs_f64();
    let answered: Vec<f64> = attempts.iter().filter(|attempt| attempt.is_answered).map(took_s).collect();
    // Where an answer came without a count, the sums are of the others alone.
    let counted = stats.answers_with_usage;
    let tokens_per_request = |tokens: u64| (counted > 0).then(|| tokens as f64 / counted as f64);
    let prompt_tokens_per_request = tokens_per_request(stats.prompt_tokens);
    let output_tokens_per_request = tokens_per_request(stats.output_tokens);
    let tokens_per_second = |each: Option<f64>| each.map(|tokens| tokens * per_second(stats.answered));
    let not_attempted = stats.failed.get(crate::ItemErrorKind::NotAttempted.as_str()).copied().unwrap_or(0);
    let items = stats.categorized + stats.below_threshold + stats.failed.values().sum::<u64>() - not_attempted;
    Step {
        seconds,
        requests: stats.requests,
        answered: stats.answered,
        failures: stats.failures.clone(),
        retries: stats.retries,
        items,
        valid_items: ran.valid_items,
        requests_per_second: per_second(stats.answered),
        items_per_second: per_second(items),
        valid_items_per_second: per_second(ran.valid_items),
        prompt_tokens_per_second: tokens_per_second(prompt_tokens_per_request),
        output_tokens_per_second: tokens_per_second(output_tokens_per_request),
        prompt_tokens_per_request,
        output_tokens_per_request,
        success_share: if stats.requests > 0 { stats.answered as f64 / stats.requests as f64 } else { 0.0 },
        latency: LatencySummary::of(answered),
        latency_from_due: LatencySummary::of(ran.from_due_s.clone()),
        cached_share: stats.cached_share(),
        mean_in_flight: if seconds > 0.0 { attempts.iter().map(took_s).sum::<f64>() / seconds } else { 0.0 },
        max_in_flight: stats.max_in_flight,
        in_flight: in_flight(attempts, start, seconds),
        error: ran.error.clone(),
        ..Step::default()
    }
}
