//! Where more requests in flight stop to be worth it.

use serde::{Deserialize, Serialize};

use super::step::Step;

/// What a step must keep to be recommended.
///
/// Default: 95 % of the requests answered, a p95 of at most 4 seconds, which are the reference deployment's first warnings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Targets {
    /// The least share of requests that are answered, 0 to 1.
    pub least_success_share: f64,
    /// The longest p95 of the latency, in seconds.
    pub most_p95_s: f64,
}

impl Default for Targets {
    fn default() -> Self {
        Self { least_success_share: 0.95, most_p95_s: 4.0 }
    }
}

/// The knee and the recommended step of a sweep, with the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Advice {
    /// The position of the step at the knee; none without steps that were answered.
    pub knee: Option<usize>,
    /// The position of the recommended step; none when no step keeps the targets.
    pub recommended: Option<usize>,
    /// Why.
    pub reason: String,
}

/// A step that gives this share of the best one's valid items is as good, and is preferred where it has less in flight.
const AS_GOOD: f64 = 0.95;

/// Finds both.
///
/// The **knee** is the step with the greatest *power*, throughput divided by mean latency: up to it more in flight brings
/// more throughput than it costs latency, beyond it less (Kleinrock, "Power and deterministic rules of thumb for
/// probabilistic problems in computer communications", ICC 1979). The **recommended** step is the one with the most valid
/// items per second among those that keep the targets and are not beyond the knee, or the first with 95 % of that.
pub(super) fn advise(steps: &[Step], targets: &Targets) -> Advice {
    let power = |step: &Step| {
        let latency = step.caller_latency().map_or(f64::INFINITY, |latency| latency.mean_s);
        step.valid_items_per_second / latency
    };
    let by_power = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0));
    let powers = steps.iter().map(power).enumerate().filter(|(_, power)| power.is_finite() && *power > 0.0);
    let Some((knee, _)) = powers.max_by(by_power) else {
        return Advice { reason: "no request was answered".to_owned(), ..Advice::default() };
    };
    let is_kept = |step: &Step| {
        step.success_share >= targets.least_success_share
            && step.caller_latency().is_some_and(|latency| latency.p95_s <= targets.most_p95_s)
    };
    let candidates =
        || steps.iter().enumerate().filter(|(_, step)| is_kept(step) && step.level() <= steps[knee].level());
    let rate = |step: &Step| step.valid_items_per_second;
    let most = candidates().map(|(_, step)| rate(step)).fold(0.0, f64::max);
    let by_level = |a: &(usize, &Step), b: &(usize, &Step)| a.1.level().total_cmp(&b.1.level());
    let recommended = candidates().filter(|(_, step)| rate(step) >= AS_GOOD * most).min_by(by_level).map(|(at, _)| at);
    Advice { knee: Some(knee), recommended, reason: reason(steps, knee, recommended, targets) }
}

fn reason(steps: &[Step], knee: usize, recommended: Option<usize>, targets: &Targets) -> String {
    let what = |step: &Step| match step.due_per_second {
        Some(rate) => format!("{rate} requests/s"),
        None => format!("{} in flight", step.concurrency),
    };
    let kept = format!(
        "{:.0} % of requests answered and a p95 of at most {} s",
        100.0 * targets.least_success_share,
        targets.most_p95_s
    );
    let knee_words = format!("the knee is at {}, where throughput per latency is greatest", what(&steps[knee]));
    let Some(at) = recommended else {
        return format!("no step up to the knee keeps {kept}; {knee_words}");
    };
    let step = &steps[at];
    let measured = format!(
        "{:.2} requests/s and {:.2} valid items/s, {:.1} % answered, p95 {:.2} s",
        step.requests_per_second,
        step.valid_items_per_second,
        100.0 * step.success_share,
        step.caller_latency().map_or(0.0, |latency| latency.p95_s)
    );
    let next = steps.iter().filter(|other| other.level() > step.level());
    let next = next.min_by(|a, b| a.level().total_cmp(&b.level())).map(|next| {
        let gain = 100.0 * (next.valid_items_per_second / step.valid_items_per_second - 1.0);
        let p95_s = next.caller_latency().map_or(f64::NAN, |latency| latency.p95_s);
        format!(
            "; {} would change valid items/s by {gain:+.0} % with {:.1} % answered and a p95 of {p95_s:.2} s",
            what(next),
            100.0 * next.success_share
        )
    });
    format!(
        "{}: {measured}. It is the most that keeps {kept} and is not beyond the knee; {knee_words}{}",
        what(step),
        next.unwrap_or_else(|| "; it is the last step, so more was not tried".to_owned())
    )
}

#[cfg(test)]
mod tests {
    use super::super::step::LatencySummary;
    use super::*;

    /// A step of a closed loop in which all requests take this long.
    fn step(concurrency: usize, latency_s: f64, success_share: f64) -> Step {
        let requests_per_second = concurrency as f64 / latency_s;
        Step {
            concurrency,
            servers: 1,
            requests_per_second,
            valid_items_per_second: 3.0 * requests_per_second * success_share,
            success_share,
            latency: LatencySummary::of(vec![latency_s]),
            ..Step::default()
        }
    }

    fn advice(steps: &[Step]) -> Advice {
        advise(steps, &Targets::default())
    }

    #[test]
    fn the_knee_is_where_power_is_greatest_and_the_targets_choose() {
        let steps = [(1, 2.4), (10, 2.8), (25, 3.4), (50, 4.4), (100, 7.0)].map(|(requests, s)| step(requests, s, 1.0));
        let advice = advice(&steps);
        assert_eq!((advice.knee, advice.recommended), (Some(3), Some(2)), "{}", advice.reason);
        assert!(advice.reason.starts_with("25 in flight: 7.35 requests/s") && advice.reason.contains("50 in flight"));
    }

    #[test]
    fn a_server_that_takes_one_request_at_a_time_is_sent_one() {
        let steps = [(1, 1.0), (2, 2.0), (4, 4.0)].map(|(requests, s)| step(requests, s, 1.0));
        assert_eq!((advice(&steps).knee, advice(&steps).recommended), (Some(0), Some(0)));
    }

    #[test]
    fn failures_count_against_a_step() {
        let steps = [step(10, 1.0, 1.0), step(50, 1.5, 0.7)];
        let advice = advice(&steps);
        assert_eq!(advice.recommended, Some(0), "{}", advice.reason);
        let none = super::advise(&[step(1, 9.0, 1.0)], &Targets::default());
        assert_eq!((none.knee, none.recommended), (Some(0), None));
        assert!(none.reason.starts_with("no step up to the knee keeps 95 %"), "{}", none.reason);
        assert_eq!(super::advise(&[Step::default()], &Targets::default()).reason, "no request was answered");
        assert_eq!(super::advise(&[], &Targets::default()).knee, None);
    }
}
