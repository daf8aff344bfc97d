//! The page: one HTML file that needs no script and nothing from elsewhere.

mod frontier;
mod languages;
mod placing;
mod reliability;
mod setting;
mod several;

use super::compare::Paired;
use super::metrics::Metrics;
use super::report::{About, Comparison, Evaluation, SettingReport};
use crate::page::text::{self, escape, grouped, p_value, percent, points, rough, rough_or_unknown};
use crate::page::{document, facts, notes, section, table};

/// The whole page.
pub(super) fn page(evaluation: &Evaluation) -> String {
    let title = format!("Evaluation of {}", escape(&evaluation.about.model));
    let mut body = header(&evaluation.about, &title);
    body += &notes(&evaluation.notes);
    if !evaluation.settings.is_empty() {
        body += &section("Accuracy against speed", &frontier::figure(evaluation));
        body += &section("Settings", &settings(evaluation));
    }
    if evaluation.settings.iter().any(|report| report.several.is_some()) {
        body += &section("Several categories", &several::figures(&evaluation.settings));
    }
    if evaluation.settings.iter().any(is_of_language) {
        body += &section("Languages", &languages::figures(&evaluation.settings));
    }
    if !evaluation.comparisons.is_empty() {
        body += &section("The same items in two settings", &comparisons(&evaluation.comparisons));
    }
    // Of languages the table is enough: a matrix for each of twenty would bury the others.
    for (number, report) in evaluation.settings.iter().enumerate().filter(|(_, report)| !is_of_language(report)) {
        body += &setting::section(number, report, &evaluation.categories);
    }
    document(&title, &body)
}

fn is_of_language(report: &SettingReport) -> bool {
    report.setting.language.is_some()
}

fn header(about: &About, title: &str) -> String {
    let taxonomy = format!("{} ({})", about.taxonomy, about.taxonomy_hash);
    let known = [
        ("Items", about.data.as_deref()),
        ("Taxonomy", Some(taxonomy.as_str())),
        ("Server", about.server.as_deref()),
        ("Run", about.date.as_deref()),
        ("slugline", Some(about.slugline.as_str())),
    ];
    format!("<header>\n<h1>{title}</h1>\n{}</header>\n", facts(known))
}

fn settings(evaluation: &Evaluation) -> String {
    let head = "<thead><tr><td></td><th colspan=\"5\" scope=\"colgroup\">Quality</th><th colspan=\"2\" \
                scope=\"colgroup\">Per second</th><th colspan=\"3\" scope=\"colgroup\">Tokens for each item</th><th \
                colspan=\"2\" scope=\"colgroup\">Run</th></tr><tr><th scope=\"col\">Setting</th><th \
                scope=\"col\">Accuracy</th><th scope=\"col\">Macro-F1</th><th scope=\"col\">Failed</th><th \
                scope=\"col\">Outside</th><th scope=\"col\"><abbr title=\"expected calibration error\">ECE</abbr></th><th \
                scope=\"col\">Items</th><th scope=\"col\">Correct</th><th scope=\"col\">Prompt</th><th \
                scope=\"col\">Cached</th><th scope=\"col\">Output</th><th scope=\"col\">Requests</th><th \
                scope=\"col\">Seconds</th></tr></thead>";
    let all = evaluation.settings.iter().enumerate().filter(|(_, report)| !is_of_language(report));
    let rows: String = all.map(|(number, report)| row(number, report)).collect();
    let table = table("Settings", "settings", &format!("{head}<tbody>{rows}</tbody>"));
    format!(
        "{table}\n<p class=\"about\">Accuracy with its 95 % interval (Wilson); failed items count as wrong. Macro-F1 is the \
         mean of the categories' F1. Outside: labels that are no category. Items per second include failed ones, correct \
         ones are right. Tokens as the server counts them.</p>"
    )
}

fn row(number: usize, report: &SettingReport) -> String {
    let SettingReport { setting, metrics, throughput, .. } = report;
    let error = metrics.reliability.as_ref().map(|reliability| reliability.expected_calibration_error);
    let cells = [
        accuracy(metrics),
        percent(metrics.macro_f1),
        grouped(metrics.failed as i64),
        grouped(metrics.outside_taxonomy as i64),
        error.map_or_else(text::dash, |error| format!("{error:.3}")),
        rough(throughput.items_per_second),
        rough(throughput.correct_items_per_second),
        rough_or_unknown(throughput.prompt_tokens_per_item),
        rough_or_unknown(throughput.cached_tokens_per_item),
        rough_or_unknown(throughput.output_tokens_per_item),
        grouped(throughput.requests as i64),
        rough(throughput.seconds),
    ];
    let name = escape(&setting.name);
    let cells = cells.join("</td><td>");
    format!("<tr><th scope=\"row\"><a href=\"#setting-{number}\">{name}</a></th><td>{cells}</td></tr>")
}

/// The share of right items with its interval.
fn accuracy(metrics: &Metrics) -> String {
    let interval = metrics.accuracy_interval;
    format!(
        "<b>{}</b> <small>{:.0} – {:.0}</small>",
        percent(metrics.accuracy),
        100.0 * interval.low,
        100.0 * interval.high
    )
}

fn comparisons(comparisons: &[Comparison]) -> String {
    let widest = |comparison: &Comparison| {
        let interval = comparison.paired.interval;
        interval.low.abs().max(interval.high.abs())
    };
    let scale = comparisons.iter().map(widest).fold(0.01, f64::max);
    let head = "<thead><tr><th scope=\"col\">Setting</th><th scope=\"col\" class=\"text\">against</th><th \
                scope=\"col\">Difference</th><th scope=\"col\">95 % interval</th><td></td><th scope=\"col\">Gained</th><th \
                scope=\"col\">Lost</th><th scope=\"col\">p</th></tr></thead>";
    let rows: String = comparisons.iter().map(|comparison| comparison_row(comparison, scale)).collect();
    let table = table("Comparisons", "comparisons", &format!("{head}<tbody>{rows}</tbody>"));
    format!(
        "{table}\n<p class=\"about\">Difference of the accuracies in percentage points over the items that both were asked, \
         with Newcombe's interval for paired proportions (1998). Gained: items right in the setting alone; lost: right in the \
         other alone. p by McNemar's exact test, not corrected for the number of comparisons.</p>"
    )
}

fn comparison_row(Comparison { first, second, paired }: &Comparison, scale: f64) -> String {
    let interval = paired.interval;
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td><td><b>{}</b></td><td>{} to {}</td><td>{}</td><td>{}</td><td>{}\
         </td><td>{}</td></tr>",
        escape(second),
        escape(first),
        points(paired.difference),
        points(interval.low),
        points(interval.high),
        whisker(paired, scale),
        grouped(paired.only_second as i64),
        grouped(paired.only_first as i64),
        p_value(paired.p_value),
    )
}

/// A difference with its interval, around zero.
fn whisker(paired: &Paired, scale: f64) -> String {
    let place = |value: f64| 70.0 + 64.0 * value / scale;
    let Paired { difference, interval, .. } = paired;
    let class = if interval.low > 0.0 || interval.high < 0.0 { "apart" } else { "near" };
    format!(
        "<svg class=\"whisker {class}\" viewBox=\"0 0 140 20\" aria-hidden=\"true\"><line class=\"zero\" x1=\"70\" x2=\"70\" \
         y1=\"1\" y2=\"19\"/><line class=\"range\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"10\" y2=\"10\"/><circle cx=\"{:.1}\" cy=\"10\" \
         r=\"3.5\"/></svg>",
        place(interval.low),
        place(interval.high),
        place(*difference),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::item::{GradedItem, Prediction};
    use super::super::report::{Point, Setting, Throughput};
    use super::super::several::GradedSet;
    use super::*;
    use crate::{Category, CategoryId, Taxonomy};

    const EVIL: &str = "<script>alert('x')</script>\"&";

    fn evaluation() -> Evaluation {
        let categories = [Category::new("a", EVIL, "First."), Category::new("b", "B", "Second.")];
        let taxonomy = Taxonomy::new(EVIL, "1", categories).unwrap();
        let mut evaluation = Evaluation::new(About::new(EVIL, &taxonomy), &taxonomy);
        evaluation.about.server = Some(EVIL.into());
        evaluation.notes.push(EVIL.into());
        evaluation.points.push(Point { name: EVIL.into(), accuracy: 0.3, interval: None, items_per_second: 2.0 });
        for name in [EVIL, "two", "of a language"] {
            let prediction = Prediction { confidence: Some(0.7), ..Prediction::new("b") };
            let items = vec![
                GradedItem { index: 0, id: EVIL.into(), truth: "a".into(), result: Ok(prediction.clone()) },
                GradedItem { index: 1, id: EVIL.into(), truth: "b".into(), result: Ok(prediction) },
                GradedItem { index: 2, id: EVIL.into(), truth: "b".into(), result: Err(EVIL.into()) },
            ];
            let throughput = Throughput::new(Duration::from_secs(1), 1, &items);
            let mut setting = Setting::new(name, 1, EVIL);
            if name == "of a language" {
                (setting.sample, setting.language) = (Some(EVIL.into()), Some(EVIL.into()));
            }
            evaluation.add(setting, items, throughput).unwrap();
        }
        let set = |ids: &[&str]| ids.iter().map(|id| CategoryId::from(*id)).collect();
        evaluation.add_sets(&[
            GradedSet { truth: set(&["a", "b"]), given: Ok(set(&["a"])) },
            GradedSet { truth: set(&["a"]), given: Err("below-threshold".into()) },
        ]);
        evaluation
    }

    #[test]
    fn nothing_of_the_input_becomes_markup() {
        let page = page(&evaluation());
        assert!(!page.contains("<script") && !page.contains("alert('x')"), "{page}");
        assert!(page.matches("&lt;script&gt;").count() > 10);
    }

    #[test]
    fn several_categories_and_languages_have_tables_of_their_own() {
        let page = page(&evaluation());
        let several = &page[page.find("<h2>Several categories</h2>").unwrap()..];
        assert!(several.contains("<b>50.0\u{a0}%</b>"), "micro-F1 is 2 · 1 / (3 + 1): {several}");
        let languages = &page[page.find("<h2>Languages</h2>").unwrap()..];
        assert!(languages.contains("<th scope=\"row\">&lt;script&gt;"), "{languages}");
        assert!(!page.contains("<h2>of a language</h2>"), "no section of its own");
    }

    #[test]
    fn every_element_is_closed() {
        let page = page(&evaluation());
        for element in
            ["section", "table", "tr", "th", "td", "svg", "g", "figure", "text", "main", "div", "dl", "p", "a", "abbr"]
        {
            let opened = page.matches(&format!("<{element} ")).count() + page.matches(&format!("<{element}>")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
            assert!(opened > 0, "{element}");
        }
    }

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        let page = page(&evaluation());
        for way in ["http://", "https://", "src=", "url(", "@import", "<link", "javascript:"] {
            assert!(!page.contains(way), "{way}");
        }
    }

    #[test]
    fn an_evaluation_without_settings_is_a_page_too() {
        let mut empty = evaluation();
        (empty.settings, empty.comparisons, empty.points) = (Vec::new(), Vec::new(), Vec::new());
        assert!(page(&empty).ends_with("</html>\n"));
    }
}
