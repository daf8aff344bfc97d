//! Alerts that a service exports.

use super::prometheus::Page;

/// The level of each alert: 0 is none, 1 a warning, 2 critical.
const LEVEL: &str = "slugline_alert_level";

/// The alerts that are not at rest, the critical ones first. Empty for a server that exports none.
pub(crate) fn alerts(page: &Page) -> Vec<String> {
    let mut active: Vec<_> = page.all(LEVEL).filter(|sample| sample.value >= 1.0).collect();
    active.sort_by(|a, b| b.value.total_cmp(&a.value));
    let text = |sample: &super::prometheus::Sample| {
        let level = if sample.value >= 2.0 { "CRITICAL" } else { "warning" };
        let subject = sample.label("subject").filter(|subject| !subject.is_empty());
        let of = subject.map(|subject| format!(" of {subject}")).unwrap_or_default();
        format!("{level} {}{of}", sample.label("signal").unwrap_or("without a name"))
    };
    active.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_that_are_on_are_shown_critical_ones_first() {
        let page = Page::read(
            "slugline_alert_level{signal=\"latency\",subject=\"\"} 1\nslugline_alert_level{signal=\"queue\"} 0\n\
             slugline_alert_level{signal=\"success\"} 2\n",
        );
        assert_eq!(alerts(&page), ["CRITICAL success", "warning latency"]);
        assert!(alerts(&Page::read("up 1\n")).is_empty());
    }
}
