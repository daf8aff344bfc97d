//! What is expected of the reference deployment, and how a step compares.

use super::step::{LatencySummary, Step};

/// What is expected of one server of the reference deployment, vLLM with a 7B model on an RTX 4080, with so many requests in
/// flight: requests of 1,100 prompt tokens and 200 output tokens, a timeout of 10 seconds. Ranges are from and to, in
/// requests per second and in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Expectation {
    /// The requests in flight.
    pub concurrency: usize,
    /// Answered requests per second.
    pub requests_per_second: [f64; 2],
    /// The share of answered requests, 0 to 1, that is passed at least.
    pub success_share: Option<f64>,
    /// The latency by its name.
    latencies: &'static [(&'static str, [f64; 2])],
}

const EXPECTATIONS: [Expectation; 6] = [
    expectation(1, [0.4, 0.5], Some(0.95), &[]),
    expectation(5, [1.8, 2.2], Some(0.95), &[]),
    expectation(10, [3.5, 4.0], Some(0.90), &[("p50", [2.5, 3.0]), ("p95", [3.0, 3.5])]),
    expectation(25, [6.0, 8.0], Some(0.80), &[]),
    expectation(50, [8.0, 12.0], Some(0.70), &[("p99", [4.0, 5.0])]),
    expectation(100, [10.0, 15.0], Some(0.60), &[("max", [5.0, 8.0])]),
];

const fn expectation(
    concurrency: usize,
    requests_per_second: [f64; 2],
    success_share: Option<f64>,
    latencies: &'static [(&'static str, [f64; 2])],
) -> Expectation {
    Expectation { concurrency, requests_per_second, success_share, latencies }
}

/// All expectations, in the order of the requests in flight.
pub fn expectations() -> &'static [Expectation] {
    &EXPECTATIONS
}

/// Where a figure stands beside an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Within the range.
    Within,
    /// Outside of it, on the good side.
    Better,
    /// Outside of it, on the bad side.
    Worse,
}

impl Standing {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Within => "within",
            Self::Better => "better",
            Self::Worse => "worse",
        }
    }
}

/// A figure of a step beside what is expected.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Check {
    /// The requests in flight.
    pub concurrency: usize,
    /// What is compared, such as `requests/s`.
    pub what: &'static str,
    /// What is expected, in words.
    pub expected: String,
    /// What was measured, in words.
    pub measured: String,
    /// How the two stand to each other.
    pub standing: Standing,
}

/// A step beside the expectation for its requests in flight, for each server; nothing where there is none, or for an open loop.
pub fn compare(step: &Step) -> Vec<Check> {
    let is_like = |expectation: &&Expectation| expectation.concurrency == step.concurrency;
    let Some(expectation) = EXPECTATIONS.iter().find(is_like).filter(|_| step.due_per_second.is_none()) else {
        return Vec::new();
    };
    let concurrency = step.concurrency;
    let rate = step.requests_per_second / step.servers.max(1) as f64;
    let [low, high] = expectation.requests_per_second;
    let mut checks = vec![Check {
        concurrency,
        what: "requests/s",
        expected: format!("{low} to {high}"),
        measured: format!("{rate:.2}"),
        standing: standing(rate, [low, high], true),
    }];
    checks.extend(expectation.success_share.map(|least| Check {
        concurrency,
        what: "success",
        expected: format!("above {:.0} %", 100.0 * least),
        measured: format!("{:.1} %", 100.0 * step.success_share),
        standing: if step.success_share > least { Standing::Within } else { Standing::Worse },
    }));
    for (what, [low, high]) in expectation.latencies {
        let Some(latency) = &step.latency else { continue };
        let measured = named(latency, what);
        checks.push(Check {
            concurrency,
            what,
            expected: format!("{low} to {high} s"),
            measured: format!("{measured:.2} s"),
            standing: standing(measured, [*low, *high], false),
        });
    }
    checks
}

fn named(latency: &LatencySummary, name: &str) -> f64 {
    match name {
        "p50" => latency.p50_s,
        "p95" => latency.p95_s,
        "p99" => latency.p99_s,
        _ => latency.max_s,
    }
}

fn standing(figure: f64, [low, high]: [f64; 2], is_more_better: bool) -> Standing {
    match figure {
        figure if (low..=high).contains(&figure) => Standing::Within,
        figure if (figure > high) == is_more_better => Standing::Better,
        _ => Standing::Worse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_within_or_on_either_side() {
        let latency = LatencySummary { p50_s: 2.6, p95_s: 3.6, ..LatencySummary::default() };
        let step = Step {
            concurrency: 10,
            servers: 2,
            requests_per_second: 9.0,
            success_share: 0.89,
            latency: Some(latency),
            ..Step::default()
        };
        let standings: Vec<_> = compare(&step).iter().map(|check| (check.what, check.standing.as_str())).collect();
        assert_eq!(
            standings,
            [("requests/s", "better"), ("success", "worse"), ("p50", "within"), ("p95", "worse")],
            "4.5 requests per second and server"
        );
        assert_eq!(compare(&Step { concurrency: 7, ..step.clone() }), []);
        assert_eq!(compare(&Step { due_per_second: Some(3.0), ..step }), []);
    }
}
