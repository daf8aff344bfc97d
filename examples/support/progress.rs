//! Progress of a run on standard error: a bar on a terminal, else a plain line every ten seconds, so that a log file
//! stays readable. Standard output is never touched: it may carry results.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use slugline::Stats;

/// The time between two plain lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Items that are settled, failed ones included.
    pub(crate) done: u64,
    /// Those of them that an earlier run had settled, which cost no time.
    pub(crate) before: u64,
    /// Items that are settled without a category.
    pub(crate) failed: u64,
    /// All items, as far as that can be known or estimated.
    pub(crate) total: Option<u64>,
    /// What the servers had to do for it, where that is shown.
    pub(crate) measured: Option<Measured>,
}

/// What the servers had to do so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// Packs that were sent again and items that were asked again.
    retried: u64,
    /// The share of prompt tokens that were cached; none while no server says.
    cached_share: Option<f64>,
    /// Prompt and output together, as the servers count them.
    tokens: u64,
}

impl From<&Stats> for Measured {
    fn from(stats: &Stats) -> Self {
        Self {
            retried: stats.retries + stats.reasked,
            cached_share: stats.cached_share(),
            tokens: stats.prompt_tokens + stats.output_tokens,
        }
    }
}

/// Shows progress until it is finished or dropped.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
    counts: Counts,
}

impl Progress {
    /// Begins to measure time. A bar is drawn only where it is wanted and standard error is a terminal.
    pub(crate) fn start(is_bar_wanted: bool) -> Self {
        let has_bar = is_bar_wanted && stderr().is_terminal();
        let bar = has_bar.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        let now = Instant::now();
        Self { bar, started: now, last_line: now, counts: Counts::default() }
    }

    /// Shows new figures. May be called as often as something changes, and should be called every second.
    pub(crate) fn update(&mut self, counts: Counts) {
        self.counts = counts;
        if let Some(bar) = &self.bar {
            // Without a total there is nothing to draw a bar of.
            if bar.length() != counts.total {
                let template = if counts.total.is_some() { "{bar:24} {msg}" } else { "{msg}" };
                bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
                counts.total.map_or_else(|| bar.unset_length(), |total| bar.set_length(total));
            }
            bar.set_position(counts.done);
            bar.set_message(self.line());
        } else if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            say(&self.line());
        }
    }

    /// Removes the bar and prints a last line.
    pub(crate) fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let Counts { done, before, failed, .. } = self.counts;
        let earlier = if before > 0 { format!(" ({before} of them before)") } else { String::new() };
        let seconds = self.started.elapsed().as_secs_f64();
        say(&format!(
            "{done} done{earlier}, {failed} failed, in {seconds:.1} s, {:.1} items/s",
            self.items_per_second()
        ));
    }

    fn items_per_second(&self) -> f64 {
        self.counts.done.saturating_sub(self.counts.before) as f64 / self.started.elapsed().as_secs_f64().max(0.001)
    }

    fn line(&self) -> String {
        let Counts { done, before, failed, total, measured } = self.counts;
        let rate = self.items_per_second();
        let of_total = total.map(|total| format!(" of {total}")).unwrap_or_default();
        let mut line = format!("{done}{of_total} done, {failed} failed, ");
        // Writing to a string cannot fail.
        if let Some(Measured { retried, .. }) = measured {
            let _ = write!(line, "{retried} retried, ");
        }
        let _ = write!(line, "{rate:.1} items/s");
        if let Some(Measured { cached_share, tokens, .. }) = measured.filter(|measured| measured.tokens > 0) {
            let cached = cached_share.map_or_else(|| "unknown".to_owned(), |share| format!("{:.0} %", 100.0 * share));
            let _ = write!(line, ", {} tokens, cached {cached}", rough(tokens));
        }
        if let Some(left) = total.map(|total| total.saturating_sub(done)).filter(|_| done > before) {
            let seconds = (left as f64 / rate).ceil() as u64;
            let _ = write!(line, ", ETA {}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
        }
        line
    }
}

/// A number with at most four digits.
fn rough(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{:.0} k", number as f64 / 1e3),
        _ => format!("{:.1} M", number as f64 / 1e6),
    }
}

/// A line on standard error. A closed one is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
