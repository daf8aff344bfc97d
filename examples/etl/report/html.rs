//! The report as a page, in the style of the evaluation's.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use slugline::Stats;

use super::super::page::text::{escape, grouped, percent};
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
    body += &section("Servers", &servers(&report.stats));
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
    notes.extend(report.damage().map(|words| words + "."));
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
    let head = format!("<th scope=\"col\">{}</th>", head.join("</th><th scope=\"col\">"));
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
        blank => format!(" Blank lines, which are no rows: {}.", grouped(blank as i64)),
    };
    format!(
        "{}\n<p class=\"about\">Each row that was read is in the output or in the rejects, once. The output has {} rows.{blank}</p>",
        titled("Rows", &["", "Rows", "Share", ""], &rows),
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
                path(name),
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

/// A path that may be broken where a directory ends.
fn path(name: &str) -> String {
    name.split_inclusive('/').map(|part| escape(part) + "<wbr>").collect()
}

/// The lines that are also printed at the end of a run.
fn servers(stats: &Stats) -> String {
    let words = summary(stats);
    let words = words.iter().filter_map(|line| line.split_once(' ')).map(|(name, words)| {
        format!("<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td></tr>", escape(name), escape(words.trim()))
    });
    table("Servers", "", &format!("<tbody>{}</tbody>", words.collect::<String>()))
}
