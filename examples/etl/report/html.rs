//! The report as a page, in the style of the evaluation's.

#[path = "../../../src/page/text.rs"]
#[expect(dead_code, reason = "a part of it is for the evaluation")]
mod text;

use std::collections::BTreeMap;

use self::text::{escape, grouped, percent, percent_or_dash, rough};
use super::super::summary::summary;
use super::Report;

const STYLE: &str = include_str!("../../../src/page/style.css");
/// The most files that are listed; the JSON has all.
const MOST_FILES: usize = 200;

pub(super) fn page(report: &Report) -> String {
    let title = format!("Run of {}", escape(&report.about.model));
    let mut body = format!("<header>\n<h1>{title}</h1>\n{}</header>\n", facts(report));
    body += &notes(report);
    body += &section("Where every row went", &rows(report));
    if !report.rows.categories.is_empty() {
        body += &section("Categories", &shares("Category", &report.rows.categories, report.rows.categorized));
    }
    if report.rows.failed > 0 {
        let kinds = report.stats.failed.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
        body += &section("Errors", &shares("Kind", &kinds, report.rows.failed));
    }
    if report.rows.rejected > 0 {
        body += &section("Rejects", &shares("Reason", &report.rows.reasons, report.rows.rejected));
    }
    body += &section("Files", &files(report));
    body += &section("Servers", &servers(report));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}\n</section>\n")
}

/// A table that scrolls by itself where it is wider than the page.
fn table(label: &str, head: &[&str], rows: &[String]) -> String {
    let head: String = head.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table class=\"categories\"><thead><tr>{head}\
         </tr></thead><tbody>{}</tbody></table></div>",
        rows.concat()
    )
}

fn facts(report: &Report) -> String {
    let about = &report.about;
    let taxonomy = format!("{} ({})", about.taxonomy, about.taxonomy_hash);
    let started = httpdate(about.started_at_s);
    let facts = [
        ("Input", about.inputs.join(", ")),
        ("Output", about.output.clone()),
        ("Rejects", about.rejects.clone()),
        ("Taxonomy", taxonomy),
        ("Started", started),
        ("slugline", about.slugline.to_owned()),
    ];
    let facts = facts.iter().map(|(name, fact)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(fact)));
    format!("<dl class=\"facts\">{}</dl>\n", facts.collect::<String>())
}

/// A moment in the form in which HTTP has it, which everybody can read.
fn httpdate(seconds: u64) -> String {
    ::httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn notes(report: &Report) -> String {
    let mut notes = Vec::new();
    if report.exit.code == 1 {
        notes.push(format!("Not finished: {}.", report.exit.reason));
    }
    if !report.adds_up {
        notes.push("The rows do not add up.".to_owned());
    }
    if !report.about.skipped.is_empty() {
        let some: Vec<_> = report.about.skipped.iter().take(5).map(String::as_str).collect();
        let more = if report.about.skipped.len() > some.len() { ", …" } else { "" };
        let count = grouped(report.about.skipped.len() as i64);
        notes.push(format!("{count} files of the directories were passed over: {}{more}", some.join(", ")));
    }
    if notes.is_empty() {
        return String::new();
    }
    let notes: String = notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect();
    format!("<ul class=\"notes\">{notes}</ul>\n")
}

fn rows(report: &Report) -> String {
    let tally = &report.rows;
    let total = tally.rows.max(1) as f64;
    let row = |name: &str, count: u64, place: &str| {
        let share = count as f64 / total;
        format!(
            "<tr><th scope=\"row\">{name}</th><td class=\"bar\" style=\"--share:{share:.3}\">{}</td><td>{}</td><td \
             class=\"text\">{place}</td></tr>",
            grouped(count as i64),
            percent(share),
        )
    };
    let rows = [
        row("Categorized", tally.categorized, "output"),
        row("Failed", tally.failed, "output, with the error"),
        row("Rejected", tally.rejected, "rejects, with the reason"),
        row("All", tally.rows, if report.adds_up { "adds up" } else { "does not add up" }),
    ];
    let blank = match report.blank_lines {
        0 => String::new(),
        blank => format!(" {} blank lines are no rows.", grouped(blank as i64)),
    };
    format!(
        "{}\n<p class=\"about\">Each row that was read is in the output or in the rejects, once. The output has {} rows.{blank}</p>",
        table("Rows", &["", "Rows", "Share", "Where"], &rows),
        grouped(tally.written as i64),
    )
}

/// Counts with their shares, the largest first.
fn shares(what: &str, counts: &BTreeMap<String, u64>, total: u64) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let rows: Vec<_> = counts
        .into_iter()
        .map(|(name, count)| {
            let share = *count as f64 / total.max(1) as f64;
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"bar\" style=\"--share:{share:.3}\">{}</td><td>{}</td></tr>",
                escape(name),
                grouped(*count as i64),
                percent(share)
            )
        })
        .collect();
    table(what, &[what, "Rows", "Share"], &rows)
}

fn files(report: &Report) -> String {
    let files = &report.rows.files;
    let rows: Vec<_> = files
        .iter()
        .take(MOST_FILES)
        .map(|(name, file)| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(name),
                grouped(file.rows as i64),
                grouped(file.failed as i64),
                grouped(file.rejected as i64)
            )
        })
        .collect();
    let more = match files.len().saturating_sub(MOST_FILES) {
        0 => String::new(),
        more => format!("<p class=\"about\">And {} more, which the report in JSON has.</p>", grouped(more as i64)),
    };
    table("Files", &["File", "Rows", "Failed", "Rejected"], &rows) + &more
}

fn servers(report: &Report) -> String {
    let stats = &report.stats;
    let figures = [
        ("Items per second", rough(report.items_per_second)),
        ("Seconds", rough(stats.elapsed_s)),
        ("Requests", grouped(stats.requests as i64)),
        ("Prompt cached", percent_or_dash(report.cached_share)),
        ("Answered from the ledger", grouped(stats.from_ledger as i64)),
        ("Answered as copies", grouped(stats.duplicates as i64)),
        ("Sent again", grouped(stats.retries as i64)),
        ("Asked again", grouped(stats.reasked as i64)),
    ];
    let figures = figures.iter().map(|(name, figure)| format!("<div><dt>{name}</dt><dd>{figure}</dd></div>"));
    let words: String = summary(stats)
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, words)| {
            format!("<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td></tr>", escape(name), escape(words.trim()))
        })
        .collect();
    format!(
        "<dl class=\"facts\">{}</dl>\n<div class=\"scroll\" role=\"region\" aria-label=\"Servers\" tabindex=\"0\"><table><tbody>{words}\
         </tbody></table></div>",
        figures.collect::<String>()
    )
}
