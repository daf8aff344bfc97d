//! The table of settings in which items have several categories.

use super::super::report::SettingReport;
use crate::page::table;
use crate::page::text::{escape, grouped, percent, percent_or_dash};

pub(super) fn figures(settings: &[SettingReport]) -> String {
    let head = "<thead><tr><th scope=\"col\">Setting</th><th scope=\"col\">Micro-F1</th><th scope=\"col\">Precision</th><th \
                scope=\"col\">Recall</th><th scope=\"col\">Macro-F1</th><th scope=\"col\">Jaccard</th><th \
                scope=\"col\">Exact</th><th scope=\"col\">Given</th><th scope=\"col\">True</th><th scope=\"col\">Failed</th><th \
                scope=\"col\">Below</th></tr></thead>";
    let rows: String = settings.iter().filter_map(row).collect();
    let table = table("Several categories", "several", &format!("{head}<tbody>{rows}</tbody>"));
    format!(
        "{table}\n<p class=\"about\">All categories of an item count, in the other tables its first alone. Micro figures are over \
         all pairs of item and category; Jaccard is the mean share of common categories; exact: items with exactly their \
         categories. Given and true: categories for each item. Below: items for which no category was probable enough.</p>"
    )
}

fn row(report: &SettingReport) -> Option<String> {
    let of = report.several.as_ref()?;
    let cells = [
        format!("<b>{}</b>", percent_or_dash(of.micro_f1)),
        percent_or_dash(of.micro_precision),
        percent_or_dash(of.micro_recall),
        percent(of.macro_f1),
        percent(of.jaccard),
        percent(of.exact_match),
        format!("{:.2}", of.given_labels_per_item),
        format!("{:.2}", of.true_labels_per_item),
        grouped(of.failed as i64),
        grouped(of.below_threshold as i64),
    ];
    let (name, cells) = (escape(&report.setting.name), cells.join("</td><td>"));
    Some(format!("<tr><th scope=\"row\">{name}</th><td>{cells}</td></tr>"))
}
