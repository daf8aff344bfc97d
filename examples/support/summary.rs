//! What a run measured, in a few lines for people. What the server did not say is called unknown, never zero.

use std::collections::BTreeMap;
use std::fmt::Write;

use slugline::embedded::FirstOpinionStats;
use slugline::evaluate::Interval;
use slugline::server::EndpointSnapshot;
use slugline::{LevelStats, Stats, TuningReport};

/// The lines, without items that never reached the run.
pub(crate) fn summary(stats: &Stats) -> Vec<String> {
    let settled = stats.categorized + stats.below_threshold + stats.failed.values().sum::<u64>();
    let by_engine = stats.first_opinion.as_ref().map_or(0, |opinion| opinion.settled + opinion.settled_by_head);
    // A full disk makes an item not attempted that was settled before, so the parts may be more than the whole.
    let not_asked = stats.failed.get("not-attempted").unwrap_or(&0) + stats.from_ledger + by_engine;
    let asked = settled.saturating_sub(not_asked);
    let mut lines = vec![
        format!(
            "speed     {:.2} items/s: {} items in {:.1} s, {} requests, at most {} in flight",
            stats.items_per_second(),
            grouped(settled),
            stats.elapsed_s,
            grouped(stats.requests),
            stats.max_in_flight,
        ),
        format!("latency   {}", latency(stats)),
        format!("tokens    {}", tokens(stats, asked)),
        format!("failed    {}", counts(&stats.failed)),
    ];
    if stats.below_threshold + stats.fallback > 0 {
        lines.push(format!(
            "none      {} items below the threshold, {} in the category for what fits nowhere",
            grouped(stats.below_threshold),
            grouped(stats.fallback)
        ));
    }
    lines.extend(stats.levels.iter().map(level));
    lines.extend(stats.endpoints.iter().filter_map(|endpoint| prefix(endpoint, stats.endpoints.len() > 1)));
    lines.extend(stats.tuning.as_ref().map(tuning));
    if stats.duplicates > 0 {
        let near = match stats.near_duplicates {
            0 => String::new(),
            near => format!(", {} of them near-duplicates", grouped(near)),
        };
        lines.push(format!("copies    {} items answered as copies of another{near}", grouped(stats.duplicates)));
    }
    if stats.kept_across_versions + stats.changed_since_version > 0 {
        lines.push(format!(
            "versions  {} answers of an earlier version of the taxonomy kept, {} asked again since their category changed",
            grouped(stats.kept_across_versions),
            grouped(stats.changed_since_version)
        ));
    }
    lines.extend(stats.first_opinion.iter().flat_map(|opinion| tiers(opinion, stats)));
    if stats.from_ledger > 0 {
        lines.push(format!("ledger    {} items answered from the ledger", grouped(stats.from_ledger)));
    }
    if stats.retries + stats.reasked + stats.splits + stats.shortened > 0 || !stats.failures.is_empty() {
        lines.push(format!(
            "again     {} packs sent again, {} items asked again, {} packs split, {} items cut; failed attempts: {}",
            stats.retries,
            stats.reasked,
            stats.splits,
            stats.shortened,
            counts(&stats.failures),
        ));
    }
    lines
}

/// What each tier settled, and how often the LLM agreed.
fn tiers(opinion: &FirstOpinionStats, stats: &Stats) -> Vec<String> {
    let share = |items: u64| format!("{} ({:.1} %)", grouped(items), 100.0 * items as f64 / stats.items.max(1) as f64);
    let agreed = |of: Option<(f64, Interval)>, audited: u64| match of {
        Some((agreement, Interval { low, high })) => {
            format!("{agreement:.3} ({low:.3} to {high:.3}) agreed of {} asked at both", grouped(audited))
        }
        None => "agreement not measured".to_owned(),
    };
    let mut line = format!("tiers     the embedding model {} settled {}", opinion.model, share(opinion.settled));
    if !stats.endpoints.is_empty() {
        let sure = opinion.threshold.map_or_else(|| "none".to_owned(), |threshold| format!("{threshold:.3}"));
        // Writing to a string cannot fail.
        let _ = write!(line, ", threshold {sure}, {}", agreed(opinion.agreement(), opinion.audited));
    }
    if opinion.other_script > 0 {
        let _ = write!(
            line,
            "; {} items in another script than Latin, which it knows little of",
            grouped(opinion.other_script)
        );
    }
    let mut lines = vec![line];
    lines.extend(
        opinion.lost_because.as_ref().map(|reason| format!("          it is lost: {reason}; all items are asked")),
    );
    if let Some(head) = &opinion.head {
        let is_on = head.off_because.as_ref().map_or_else(|| "on".to_owned(), |reason| format!("off: {reason}"));
        lines.push(format!(
            "          its learned head settled {}, {}; {} drifts; {is_on}",
            share(opinion.settled_by_head),
            agreed(head.agreement(), head.audited),
            head.drifts,
        ));
    }
    lines
}

fn latency(stats: &Stats) -> String {
    if stats.answered == 0 {
        return "unknown, no request was answered".to_owned();
    }
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    format!("p50 {:.2} s, p95 {:.2} s a request", seconds(stats.latency.p50_ms), seconds(stats.latency.p95_ms))
}

fn tokens(stats: &Stats, items: u64) -> String {
    // An answer has a prompt and an output; where both sums are zero, the server did not count.
    let known = |tokens: u64| if tokens > 0 { grouped(tokens) } else { unknown() };
    let cached = match (stats.cached_tokens, stats.cached_share()) {
        (Some(tokens), Some(share)) => format!("{} = {:.0} %", grouped(tokens), 100.0 * share),
        _ => unknown(),
    };
    let mut line =
        format!("prompt {} (cached {cached}), output {}", known(stats.prompt_tokens), known(stats.output_tokens));
    if stats.prompt_tokens > 0 && items > 0 {
        let per_item = |tokens: u64| tokens as f64 / items as f64;
        // Writing to a string cannot fail.
        let _ = write!(line, "; per item {:.0} + {:.1}", per_item(stats.prompt_tokens), per_item(stats.output_tokens));
    }
    line
}

/// What came of a level of a tree.
fn level(level: &LevelStats) -> String {
    let per_pack = level.requests_per_pack.map(|requests| format!(" = {requests:.2} a pack")).unwrap_or_default();
    let per_item = |tokens: u64| tokens as f64 / level.items.max(1) as f64;
    let cached = match level.cached_tokens {
        Some(cached) if level.prompt_tokens > 0 => {
            format!("{:.0} % cached", 100.0 * cached as f64 / level.prompt_tokens as f64)
        }
        _ => "cached unknown".to_owned(),
    };
    format!(
        "level {}   {} items at {} lists, {} requests{per_pack}, {:.0} + {:.1} tokens an item, {cached}; ended: {} leaf, {} stay, {} \
         below the threshold, {} failed",
        level.level,
        grouped(level.items),
        grouped(level.nodes as u64),
        grouped(level.requests),
        per_item(level.prompt_tokens),
        per_item(level.output_tokens),
        grouped(level.leaf),
        grouped(level.stays),
        grouped(level.below_threshold),
        grouped(level.failed),
    )
}

/// The pack size that was found, with its evidence.
fn tuning(report: &TuningReport) -> String {
    let sizes: Vec<_> = report
        .sizes
        .iter()
        .filter(|size| size.packs > 0)
        .map(|size| {
            let agreement = if size.checked > 0 { format!(", {:.2} agree", size.agreement) } else { String::new() };
            format!("{}: {:.2} items/s{agreement}", size.pack_size, size.items_per_second)
        })
        .collect();
    let state = if report.is_settled { "found" } else { "so far; not every size has been tried often enough" };
    format!("packs of  {} {state} ({})", report.pack_size, sizes.join("; "))
}

/// How much of the prefix an endpoint has cached, and why not more; none when nothing is known yet.
fn prefix(endpoint: &EndpointSnapshot, is_named: bool) -> Option<String> {
    let cache = &endpoint.prefix_cache;
    let name = if is_named { format!(" at {}", endpoint.endpoint) } else { String::new() };
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let cached = match (cache.cached_share, cache.expected_share) {
        (Some(cached), Some(expected)) => Some(format!(
            "{} of about {} tokens cached after the first request{name}, {} expected",
            percent(cached),
            grouped(cache.prefix_tokens),
            percent(expected),
        )),
        _ => None,
    };
    match (cached, &cache.advice) {
        (Some(cached), Some(advice)) => Some(format!("prefix    {cached}: {advice}")),
        (Some(cached), None) => Some(format!("prefix    {cached}")),
        (None, advice) => advice.as_ref().map(|advice| format!("prefix    cached tokens unknown{name}: {advice}")),
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Counts by kind, or "none".
fn counts<K: AsRef<str>>(counts: &BTreeMap<K, u64>) -> String {
    let kinds: Vec<_> = counts.iter().map(|(kind, count)| format!("{} {}", grouped(*count), kind.as_ref())).collect();
    if kinds.is_empty() { "none".to_owned() } else { kinds.join(", ") }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
