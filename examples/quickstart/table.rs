//! The table of items. Titles of many scripts stand last, so that the columns hold even where a terminal's idea of their
//! width differs from ours.

use std::fmt::Write;

use slugline::Outcome;

use super::Labelled;

/// The columns that a title may take.
const TITLE_COLUMNS: usize = 64;

/// One line of the table.
pub(super) struct Row {
    id: String,
    language: String,
    /// The category, or the kind of the error in brackets.
    category: String,
    confidence: String,
    /// A tick, or a cross with the label that the author meant.
    verdict: String,
    title: String,
    /// Whether the category is the one that the author meant.
    pub(super) is_right: bool,
}

impl Row {
    pub(super) fn new(outcome: &Outcome, labelled: &Labelled) -> Self {
        let Labelled { item, label } = labelled;
        let (category, confidence) = match &outcome.result {
            Ok(assignment) => (assignment.category.to_string(), assignment.confidence),
            Err(error) => (format!("[{}]", error.kind), None),
        };
        let is_right = category == *label;
        Self {
            id: outcome.id.clone(),
            language: item.language.clone().unwrap_or_else(|| "-".to_owned()),
            confidence: confidence.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}")),
            verdict: if is_right { "✓".to_owned() } else { format!("✗ {label}") },
            title: cut(&item.title, TITLE_COLUMNS),
            category,
            is_right,
        }
    }
}

/// The table with its head.
pub(super) fn render(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut line = |id: &str, language: &str, category: &str, confidence: &str, verdict: &str, title: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{id:<4} {language:<4} {category:<13} {confidence:>4}  {verdict:<14} {title}");
    };
    line("id", "lang", "category", "conf", "label", "title");
    for row in rows {
        line(&row.id, &row.language, &row.category, &row.confidence, &row.verdict, &row.title);
    }
    out
}

/// Cuts a text to so many columns, and leaves out what a terminal might take for a command.
fn cut(text: &str, columns: usize) -> String {
    let shown: String =
        text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !c.is_control()).collect();
    if shown.chars().map(width).sum::<usize>() <= columns {
        return shown;
    }
    let mut used = 0;
    let fits = |c: &char| {
        used += width(*c);
        // One column is for the mark of the cut.
        used < columns
    };
    let mut out: String = shown.chars().take_while(fits).collect();
    out.push('…');
    out
}

/// The columns of a character on a terminal, near enough for a table: wide East Asian signs and emoji take two,
/// combining marks none.
fn width(c: char) -> usize {
    match c {
        '\u{ad}'
        | '\u{300}'..='\u{36f}'
        | '\u{591}'..='\u{5bd}'
        | '\u{64b}'..='\u{65f}'
        | '\u{93c}'
        | '\u{941}'..='\u{948}'
        | '\u{94d}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{26bd}'..='\u{26be}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}
