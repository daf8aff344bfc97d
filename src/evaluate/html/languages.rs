//! The table of figures by language.

use super::super::report::SettingReport;
use super::accuracy;
use crate::page::table;
use crate::page::text::{escape, grouped, percent};

pub(super) fn figures(settings: &[SettingReport]) -> String {
    let head = "<thead><tr><th scope=\"col\">Language</th><th scope=\"col\" class=\"text\">Setting</th><th \
                scope=\"col\">Items</th><th scope=\"col\">Accuracy</th><th scope=\"col\">Macro-F1</th><th \
                scope=\"col\">Failed</th><th scope=\"col\">Below</th></tr></thead>";
    let mut rows: Vec<_> =
        settings.iter().filter_map(|report| Some((report.setting.language.as_ref()?, report))).collect();
    // Languages together, each in the order of the settings.
    rows.sort_by_key(|(language, _)| *language);
    let rows: String = rows.into_iter().map(|(language, report)| row(language, report)).collect();
    let table = table("Languages", "languages", &format!("{head}<tbody>{rows}</tbody>"));
    format!(
        "{table}\n<p class=\"about\">The same runs, by the language that the items say they are in; items that say none are in \
         no row. Few items make a wide interval.</p>"
    )
}

fn row(language: &str, report: &SettingReport) -> String {
    let metrics = &report.metrics;
    let cells = [
        grouped(metrics.items as i64),
        accuracy(metrics),
        percent(metrics.macro_f1),
        grouped(metrics.failed as i64),
        grouped(metrics.below_threshold as i64),
    ];
    let (name, cells) = (escape(&report.setting.name), cells.join("</td><td>"));
    format!("<tr><th scope=\"row\">{}</th><td class=\"text\">{name}</td><td>{cells}</td></tr>", escape(language))
}
