//! When to worry: thresholds, for how long, and when it is over.

use std::sync::Arc;
use std::time::Duration;

use super::file::{self, RulesError};
use super::signal::Signal;

/// Thresholds on one signal, with how long a value must be beyond them and how far it must come back.
///
/// A level fires when the value has been beyond its threshold for [`hold`](Self::hold) without a break. It clears when the
/// value has been back, by [`margin`](Self::margin) or more, for [`clear_after`](Self::clear_after). So a value that swings
/// around its threshold changes nothing.
///
/// Defaults: fires after 30 seconds, clears after 60, a margin of a twentieth of the threshold for latencies and queues and
/// of 0.01 for shares (of half the way to 0 or 1 where that is less), at least 20 samples for all but the queue and the GPU.
///
/// ```
/// use std::time::Duration;
/// use slugline::alerts::{Rule, Signal};
///
/// let rule = Rule::new(Signal::LatencyP95).warning(4.0).critical(6.0).hold(Duration::from_secs(60));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub(super) signal: Signal,
    pub(super) subject: Option<Arc<str>>,
    pub(super) warning: Option<f64>,
    pub(super) critical: Option<f64>,
    pub(super) margin: Option<f64>,
    pub(super) hold: Duration,
    pub(super) clear_after: Duration,
    pub(super) least_samples: u64,
}

impl Rule {
    /// A rule without thresholds, which never fires.
    pub fn new(signal: Signal) -> Self {
        let least_samples = if matches!(signal, Signal::QueueDepth | Signal::GpuMemoryShare) { 1 } else { 20 };
        Self {
            signal,
            subject: None,
            warning: None,
            critical: None,
            margin: None,
            hold: Duration::from_secs(30),
            clear_after: Duration::from_secs(60),
            least_samples,
        }
    }

    /// Worry beyond this: below it for signals where more is better, else above it.
    #[must_use]
    pub fn warning(mut self, threshold: f64) -> Self {
        self.warning = Some(threshold);
        self
    }

    /// Wake somebody beyond this.
    #[must_use]
    pub fn critical(mut self, threshold: f64) -> Self {
        self.critical = Some(threshold);
        self
    }

    /// How far behind the threshold the value must be for the alert to clear.
    #[must_use]
    pub fn margin(mut self, margin: f64) -> Self {
        self.margin = Some(margin);
        self
    }

    /// How long the value must be beyond the threshold. Default: 30 seconds.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }

    /// How long the value must be back. Default: 60 seconds.
    #[must_use]
    pub fn clear_after(mut self, clear_after: Duration) -> Self {
        self.clear_after = clear_after;
        self
    }

    /// Values that rest on fewer samples count as not measured. Default: 20; 1 for the queue and the GPU.
    #[must_use]
    pub fn least_samples(mut self, samples: u64) -> Self {
        self.least_samples = samples;
        self
    }

    /// Only for this GPU, endpoint or source; it then takes the place of a rule for all. Default: for each by itself.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Whether a value is beyond a threshold that is to fire, or not yet back from one that has fired.
    pub(super) fn is_beyond(&self, value: f64, threshold: f64, has_fired: bool) -> bool {
        let default = if self.signal.is_share() { self.way_back(threshold).min(0.02) / 2.0 } else { threshold / 20.0 };
        let margin = if has_fired { self.margin.unwrap_or(default) } else { 0.0 };
        if self.signal.is_better_high() { value < threshold + margin } else { value > threshold - margin }
    }

    /// How far a share can come back from a threshold.
    fn way_back(&self, threshold: f64) -> f64 {
        if self.signal.is_better_high() { 1.0 - threshold } else { threshold }
    }

    /// What is wrong with it.
    pub(super) fn problems(&self) -> Vec<&'static str> {
        let mut problems = Vec::new();
        let thresholds = [self.warning, self.critical];
        let is_right = |value: f64| value.is_finite() && value >= 0.0 && (!self.signal.is_share() || value <= 1.0);
        if thresholds.iter().flatten().any(|threshold| !is_right(*threshold)) {
            problems.push(if self.signal.is_share() {
                "a threshold on a share must be 0 to 1"
            } else {
                "a threshold must not be negative"
            });
        }
        if let [Some(warning), Some(critical)] = thresholds
            && (if self.signal.is_better_high() { critical > warning } else { critical < warning })
        {
            problems.push("critical must be worse than warning");
        }
        if thresholds == [None, None] {
            problems.push("has neither warning nor critical");
        }
        if self.margin.is_some_and(|margin| !margin.is_finite() || margin < 0.0) {
            problems.push("margin must not be negative");
        }
        let is_too_far = |threshold: &f64| self.margin.is_some_and(|margin| margin > self.way_back(*threshold));
        if self.signal.is_share() && thresholds.iter().flatten().any(is_too_far) {
            problems.push("margin is further than a share can come back, so it would never clear");
        }
        problems
    }
}

/// The rules that alerts go by.
///
/// Defaults, the thresholds of the reference deployment and those of quality:
///
/// | signal | warning | critical | held for |
/// |---|---|---|---|
/// | success share | below 0.95 | below 0.90 | 30 s |
/// | p95 latency | above 4 s | above 6 s | 30 s |
/// | GPU memory | above 0.85 | above 0.92 | 30 s |
/// | queue depth | above 50 | above 100 | 30 s |
/// | share of "other" | above 0.3 | above 0.5 | 120 s |
/// | invalid answers | above 0.05 | above 0.2 | 30 s |
/// | cached share | below 0.4 | | 120 s |
/// | drift of labels | above 0.2 | above 0.35 | 120 s |
/// | canary accuracy | below 0.8 | below 0.6 | 30 s |
///
/// What is right for "other", the cached share, drift and canaries depends on the stream, the prompt and the model: set
/// these from a run that was good.
///
/// ```
/// use slugline::alerts::{Rule, Rules, Signal};
///
/// // The file holds what differs from the defaults.
/// let rules = Rules::default().with(Rules::from_toml(r#"
/// [[rule]]
/// signal = "fallback-share"
/// warning = 0.1
/// hold_s = 300
/// "#)?).set(Rule::new(Signal::QueueDepth).warning(20.0)).without(Signal::CachedShare);
/// # Ok::<(), slugline::alerts::RulesError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Rules(pub(super) Vec<Rule>);

impl Default for Rules {
    fn default() -> Self {
        let two_minutes = Duration::from_secs(120);
        Self(vec![
            Rule::new(Signal::SuccessShare).warning(0.95).critical(0.90),
            Rule::new(Signal::LatencyP95).warning(4.0).critical(6.0),
            Rule::new(Signal::GpuMemoryShare).warning(0.85).critical(0.92),
            Rule::new(Signal::QueueDepth).warning(50.0).critical(100.0),
            Rule::new(Signal::FallbackShare).warning(0.3).critical(0.5).hold(two_minutes),
            Rule::new(Signal::InvalidShare).warning(0.05).critical(0.2),
            Rule::new(Signal::CachedShare).warning(0.4).hold(two_minutes),
            Rule::new(Signal::LabelDrift).warning(0.2).critical(0.35).hold(two_minutes),
            Rule::new(Signal::CanaryAccuracy).warning(0.8).critical(0.6),
        ])
    }
}

impl Rules {
    /// No rules.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Reads rules from TOML: tables `[[rule]]` with `signal`, `warning`, `critical`, `margin`, `hold_s`, `clear_after_s`,
    /// `least_samples` and `subject`, all but the signal as in [`Rule`].
    ///
    /// # Errors
    /// Every problem, with its line.
    pub fn from_toml(text: &str) -> Result<Self, RulesError> {
        file::parse(text)
    }

    /// The same with this rule, in place of one for the same signal and subject.
    #[must_use]
    pub fn set(mut self, rule: Rule) -> Self {
        self.0.retain(|other| (other.signal, &other.subject) != (rule.signal, &rule.subject));
        self.0.push(rule);
        self
    }

    /// The same with all of these set.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        others.0.into_iter().fold(self, Self::set)
    }

    /// The same without rules for this signal.
    #[must_use]
    pub fn without(mut self, signal: Signal) -> Self {
        self.0.retain(|rule| rule.signal != signal);
        self
    }

    /// The rule for a subject: its own, else that for all.
    pub(super) fn rule_for(&self, signal: Signal, subject: Option<&str>) -> Option<&Rule> {
        let of_signal = || self.0.iter().filter(|rule| rule.signal == signal);
        let own = of_signal().find(|rule| rule.subject.is_some() && rule.subject.as_deref() == subject);
        own.or_else(|| of_signal().find(|rule| rule.subject.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound_and_cover_every_signal() {
        let rules = Rules::default();
        for signal in Signal::ALL {
            let rule = rules.rule_for(signal, Some("any")).unwrap();
            assert_eq!(rule.problems(), Vec::<&str>::new(), "{signal}");
        }
    }

    #[test]
    fn a_rule_of_a_subject_goes_before_that_for_all() {
        let rules = Rules::default().set(Rule::new(Signal::QueueDepth).warning(5.0).subject("a"));
        assert_eq!(rules.rule_for(Signal::QueueDepth, Some("a")).unwrap().warning, Some(5.0));
        assert_eq!(rules.rule_for(Signal::QueueDepth, Some("b")).unwrap().warning, Some(50.0));
        assert!(rules.without(Signal::QueueDepth).rule_for(Signal::QueueDepth, Some("a")).is_none());
    }
}
