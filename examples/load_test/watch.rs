//! Lines that say how far a step is.

use std::pin::pin;
use std::time::{Duration, Instant};

use slugline::load::{Probe, Progress};

use super::say;

/// The time between two lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Waits for a step, and says every ten seconds how far it is.
pub(crate) async fn watched<T>(step: impl Future<Output = T>, probe: &Probe) -> T {
    let mut step = pin!(step);
    let mut ticks = tokio::time::interval(BETWEEN_LINES);
    ticks.tick().await;
    let start = Instant::now();
    loop {
        tokio::select! {
            result = &mut step => return result,
            _ = ticks.tick() => say(&line(probe.progress(), start.elapsed())),
        }
    }
}

fn line(progress: Progress, elapsed: Duration) -> String {
    let part = if progress.is_measured { "measured" } else { "warm-up" };
    let failed = if progress.failed > 0 { format!(", {} failed", progress.failed) } else { String::new() };
    let seconds = elapsed.as_secs();
    format!("  {seconds} s, {part}: {} answered{failed}, {} in flight", progress.answered, progress.in_flight)
}
