//! The report as a page, in the style of the evaluation's.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use super::super::page::text::{escape, grouped, percent, percent_or_dash, rough};
use super::super::page::{document, facts, notes, section, table};
use super::super::summary::summary;
use super::Report;

/// The most files that are listed; the JSON has all.
const MOST_FILES: usize = 200;

pub(super) fn page(report: &Report) -> String {
    let title = format!("Run of {}", escape(&report.about.model));
    let mut body = format!("<header>\n<h1>{title}</h1>\n{}</header>\n", about(report));
    body += &notes(&warnings(report));
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
    document(&title, &body)
}

fn about(report: &Report) -> String {
    let about = &report.about;
    let inputs = about.inputs.join(", ");
    let taxonomy = format!("{} ({})", about.taxonomy, about.taxonomy_hash);
    let started = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(about.started_at_s));
    facts([
        ("Input", Some(inputs.as_str())),
        ("Output", Some(about.output.as_str())),
        ("Rejects", Some(about.rejects.as_str())),
        ("Taxonomy", Some(taxonomy.as_str())),
        ("Started", Some(started.as_str())),
        ("slugline", Some(about.slugline)),
    ])
}

/// What a reader should know first.
fn warnings(report: &Report) -> Vec<String> {
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
    notes
}

/// A table with the names of its columns; the first one stands over the names of the rows.
fn titled(label: &str, head: &[&str], rows: &[String]) -> String {
    let head: String = head.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let rows = rows.concat();
    table(label, "categories", &format!("<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"))
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
        titled("Rows", &["", "Rows", "Share", "Where"], &rows),
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
    titled(what, &[what, "Rows", "Share"], &rows)
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
    titled("Files", &["File", "Rows", "Failed", "Rejected"], &rows) + &more
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
    let words = summary(stats);
    let words = words.iter().filter_map(|line| line.split_once(' ')).map(|(name, words)| {
        format!("<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td></tr>", escape(name), escape(words.trim()))
    });
    let words = table("Servers", "", &format!("<tbody>{}</tbody>", words.collect::<String>()));
    format!("<dl class=\"facts\">{}</dl>\n{words}", figures.collect::<String>())
}
