//! The figures as a table for a terminal.

use slugline::evaluate::{Comparison, Evaluation, SettingReport};

use super::aligned::aligned;

/// The table of the settings, below it that of several labels, where there are any, and the comparisons with the first setting and with the one before; the reports have all.
pub(crate) fn table(evaluation: &Evaluation) -> String {
    let head = [
        "setting",
        "accuracy",
        "95 % interval",
        "macro-F1",
        "failed",
        "outside",
        "ECE",
        "items/s",
        "correct/s",
        "prompt",
        "cached",
        "output",
        "requests",
        "seconds",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(evaluation.settings.iter().map(row));
    let mut out = aligned(&rows);
    out += &several(&evaluation.settings);
    if !evaluation.comparisons.is_empty() {
        let head = ["setting", "against", "difference", "95 % interval", "p (McNemar)"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(evaluation.comparisons.iter().filter(|of| is_shown(of, evaluation)).map(comparison_row));
        out += "\n";
        out += &aligned(&rows);
    }
    out
}

fn row(SettingReport { setting, metrics, throughput, .. }: &SettingReport) -> Vec<String> {
    let error = metrics.reliability.as_ref().map(|reliability| reliability.expected_calibration_error);
    let tokens = |tokens: Option<f64>| tokens.map_or_else(|| "unknown".to_owned(), |tokens| format!("{tokens:.1}"));
    vec![
        setting.name.clone(),
        format!("{:.3}", metrics.accuracy),
        format!("{:.3} to {:.3}", metrics.accuracy_interval.low, metrics.accuracy_interval.high),
        format!("{:.3}", metrics.macro_f1),
        metrics.failed.to_string(),
        metrics.outside_taxonomy.to_string(),
        error.map_or_else(|| "-".to_owned(), |error| format!("{error:.3}")),
        format!("{:.2}", throughput.items_per_second),
        format!("{:.2}", throughput.correct_items_per_second),
        tokens(throughput.prompt_tokens_per_item),
        tokens(throughput.cached_tokens_per_item),
        tokens(throughput.output_tokens_per_item),
        throughput.requests.to_string(),
        format!("{:.1}", throughput.seconds),
    ]
}

/// The figures of whole lists of labels.
fn several(settings: &[SettingReport]) -> String {
    let head = [
        "setting",
        "micro-F1",
        "precision",
        "recall",
        "macro-F1",
        "Jaccard",
        "exact",
        "given",
        "true",
        "failed",
        "below",
    ];
    let share = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"));
    let row = |report: &SettingReport| {
        let of = report.several.as_ref()?;
        Some(vec![
            report.setting.name.clone(),
            share(of.micro_f1),
            share(of.micro_precision),
            share(of.micro_recall),
            share(Some(of.macro_f1)),
            share(Some(of.jaccard)),
            share(Some(of.exact_match)),
            format!("{:.2}", of.given_labels_per_item),
            format!("{:.2}", of.true_labels_per_item),
            of.failed.to_string(),
            of.below_threshold.to_string(),
        ])
    };
    let rows: Vec<_> = settings.iter().filter_map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("\nall labels\n{}", aligned(&[vec![head.map(str::to_owned).to_vec()], rows].concat()))
}

fn is_shown(comparison: &Comparison, evaluation: &Evaluation) -> bool {
    let of = |name: &str| evaluation.settings.iter().position(|report| report.setting.name == name);
    let (Some(first), Some(second)) = (of(&comparison.first), of(&comparison.second)) else { return false };
    let sample = |place: usize| &evaluation.settings[place].setting.sample;
    first + 1 == second || first == 0 || sample(first - 1) != sample(first)
}

fn comparison_row(Comparison { first, second, paired, .. }: &Comparison) -> Vec<String> {
    vec![
        second.clone(),
        first.clone(),
        format!("{:+.3}", paired.difference),
        format!("{:+.3} to {:+.3}", paired.interval.low, paired.interval.high),
        format!("{:.4}", paired.p_value),
    ]
}
