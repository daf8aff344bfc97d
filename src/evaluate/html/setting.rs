//! What a setting brought, category by category.

use super::super::metrics::{CategoryMetrics, ConfusionMatrix, ConfusionRow};
use super::super::report::{ListedCategory, SettingReport};
use super::reliability;
use crate::page::table;
use crate::page::text::{escape, grouped, percent, percent_or_dash};

/// With more categories than this the confusion matrix is too wide to stand beside the reliability diagram.
const MOST_BESIDE: usize = 8;

/// The section of a setting.
pub(super) fn section(number: usize, report: &SettingReport, categories: &[ListedCategory]) -> String {
    let metrics = &report.metrics;
    let diagram = match &metrics.reliability {
        Some(reliability) => reliability::figure(reliability),
        None => "<p class=\"about\">No confidences: the server gives no log-probabilities.</p>".to_owned(),
    };
    let confusion = format!("<h3>Confusion</h3>\n{}\n", confusion(&metrics.confusion, categories));
    let (beside, below) =
        if categories.len() <= MOST_BESIDE { (confusion, String::new()) } else { (String::new(), confusion) };
    format!(
        "<section id=\"setting-{number}\">\n<h2>{}</h2>\n<p class=\"sum\">{}</p>\n<div class=\"pair\">\n<div>\n<h3>Categories</h3>\
         \n{}\n{beside}</div>\n<div>\n<h3>Reliability of the confidence</h3>\n{diagram}\n</div>\n</div>\n{below}</section>\n",
        escape(&report.setting.name),
        lead(report),
        category_table(&metrics.categories, categories),
    )
}

/// What can be said in a sentence or two.
fn lead(report: &SettingReport) -> String {
    let SettingReport { setting, metrics, not_attempted, .. } = report;
    let mut out = format!("{} of {} items right", grouped(metrics.correct as i64), grouped(metrics.items as i64));
    if metrics.failed > 0 {
        let kinds = metrics.failures.iter().map(|(kind, count)| format!("{} {}", grouped(*count as i64), escape(kind)));
        out += &format!(", {} failed ({})", grouped(metrics.failed as i64), kinds.collect::<Vec<_>>().join(", "));
    }
    if metrics.below_threshold > 0 {
        let of_given = metrics.accuracy_of_given.map(percent).unwrap_or_default();
        let below = grouped(metrics.below_threshold as i64);
        out += &format!(", {below} below the threshold; of those given a category, {of_given} are right");
    }
    if let Some(sample) = &setting.sample {
        out += &format!(", {}", escape(sample));
    }
    out += ".";
    if *not_attempted > 0 {
        out += &format!(" Stopped before its end: {} items were not asked.", grouped(*not_attempted as i64));
    }
    if metrics.reliability.is_some() && metrics.share_without_confidence > 0.0 {
        out += &format!(" {} of the labels have no confidence.", percent(metrics.share_without_confidence));
    }
    out += &format!(" Answers as {}, at most {} a request", escape(&setting.answer_form), setting.pack_size);
    if let Some(calibration) = &setting.calibration {
        out += &format!(", calibration: {}", escape(calibration));
    }
    if let Some(escalation) = &setting.escalation {
        out += &format!(", escalation: {}", escape(escalation));
    }
    match &setting.prompt_version {
        Some(version) => out + &format!(", prompt {}.", escape(version)),
        None => out + ".",
    }
}

fn name_of(categories: &[ListedCategory], position: usize) -> &str {
    categories.get(position).map_or("", |category| category.name.as_str())
}

fn category_table(metrics: &[CategoryMetrics], categories: &[ListedCategory]) -> String {
    let row = |(position, metrics): (usize, &CategoryMetrics)| {
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"bar\" style=\"--share:{:.3}\">{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            escape(name_of(categories, position)),
            metrics.f1.unwrap_or(0.0),
            percent_or_dash(metrics.f1),
            percent_or_dash(metrics.precision),
            percent_or_dash(metrics.recall),
            grouped(metrics.support as i64),
            grouped(metrics.predicted as i64),
        )
    };
    let rows: String = metrics.iter().enumerate().map(row).collect();
    let head = "<thead><tr><th scope=\"col\">Category</th><th scope=\"col\">F1</th><th scope=\"col\">Precision</th><th \
                scope=\"col\">Recall</th><th scope=\"col\">Items</th><th scope=\"col\">Given</th></tr></thead>";
    table("Categories", "categories", &format!("{head}<tbody>{rows}</tbody>"))
}

fn confusion(matrix: &ConfusionMatrix, categories: &[ListedCategory]) -> String {
    let has_outside = matrix.rows.iter().any(|row| row.outside_taxonomy > 0);
    let turned = |name: &str| format!("<th scope=\"col\" class=\"turned\"><span>{}</span></th>", escape(name));
    let mut head = format!(
        "<thead><tr><td></td><th colspan=\"{}\" scope=\"colgroup\">given</th></tr><tr><th scope=\"col\" class=\"corner\">true</th>",
        matrix.categories.len() + 1 + usize::from(has_outside)
    );
    head.extend((0..matrix.categories.len()).map(|position| turned(name_of(categories, position))));
    head += &turned("failed");
    if has_outside {
        head += &turned("outside");
    }
    head += "</tr></thead>";
    let rows: String = matrix
        .rows
        .iter()
        .enumerate()
        .map(|(position, row)| confusion_row(position, row, categories, has_outside))
        .collect();
    let table = table("Confusion matrix", "confusion", &format!("{head}<tbody>{rows}</tbody>"));
    format!(
        "{table}\n<p class=\"about\">A row for the items of each category: what they were given. The stronger the colour, the \
             larger the share of the row.</p>"
    )
}

fn confusion_row(position: usize, row: &ConfusionRow, categories: &[ListedCategory], has_outside: bool) -> String {
    let total = row.total().max(1) as f64;
    let cell = |count: u64, class: &str| match count {
        0 => "<td class=\"zero\">0</td>".to_owned(),
        // A quarter of the colour for the smallest share, so that a single item shows.
        _ => format!(
            "<td class=\"{class}\" style=\"--share:{:.3}\">{}</td>",
            0.08 + 0.57 * count as f64 / total,
            grouped(count as i64)
        ),
    };
    let mut out = format!("<tr><th scope=\"row\">{}</th>", escape(name_of(categories, position)));
    for (given, count) in row.predicted.iter().enumerate() {
        out += &cell(*count, if given == position { "right" } else { "wrong" });
    }
    out += &cell(row.failed, "wrong");
    if has_outside {
        out += &cell(row.outside_taxonomy, "wrong");
    }
    out + "</tr>"
}
