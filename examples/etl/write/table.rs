//! An outcome as a row of a table.

use serde_json::Value;
use slugline::{CategoryId, Status};

use super::Settled;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
}

/// The columns of every row. What is carried over comes behind them, as text.
pub(super) const COLUMNS: [(&str, Kind); 15] = [
    ("id", Kind::Text),
    ("file", Kind::Text),
    ("line", Kind::Integer),
    ("category", Kind::Text),
    ("name", Kind::Text),
    ("confidence", Kind::Number),
    ("runners_up", Kind::Text),
    ("error_kind", Kind::Text),
    ("error_message", Kind::Text),
    ("error_status", Kind::Text),
    ("attempts", Kind::Integer),
    ("endpoint", Kind::Text),
    ("model", Kind::Text),
    ("duplicate_of", Kind::Text),
    ("from_ledger", Kind::Boolean),
];

/// A value of a column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
}

impl Cell {
    /// As CSV has it; what is not there is empty.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text,
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Boolean(is_true) => is_true.to_string(),
        }
    }
}

/// The values of a row, in the order of the columns.
pub(super) fn cells(settled: &Settled<'_>) -> Vec<Cell> {
    let Settled { outcome, place, kept } = *settled;
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut row = vec![text(&outcome.id), text(&place.file), Cell::Integer(place.line as i64)];
    row.extend(match &outcome.result {
        Ok(assignment) => {
            let origin = &assignment.origin;
            [
                text(assignment.category.as_str()),
                text(&assignment.name),
                assignment.confidence.map_or(Cell::Null, |confidence| Cell::Number(rounded(confidence))),
                runners_up(&assignment.runners_up),
                Cell::Null,
                Cell::Null,
                Cell::Null,
                Cell::Integer(origin.attempts.into()),
                text(&origin.endpoint),
                text(&origin.model),
                origin.duplicate_of.as_deref().map_or(Cell::Null, text),
                Cell::Boolean(origin.from_ledger),
            ]
        }
        Err(error) => [
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
            text(error.kind.as_str()),
            Cell::Text(error.to_string()),
            text(status(error.status())),
            Cell::Integer(error.attempts.into()),
            Cell::Null,
            Cell::Null,
            Cell::Null,
            Cell::Null,
        ],
    });
    row.extend(kept.iter().map(|value| match value {
        Value::Null => Cell::Null,
        Value::String(text) => Cell::Text(text.clone()),
        other => Cell::Text(other.to_string()),
    }));
    row
}

/// `sport 0.2, weather 0.1`
fn runners_up(runners_up: &[(CategoryId, f32)]) -> Cell {
    if runners_up.is_empty() {
        return Cell::Null;
    }
    let shares = runners_up.iter().map(|(category, share)| format!("{} {}", category.as_str(), rounded(*share)));
    Cell::Text(shares.collect::<Vec<_>>().join(", "))
}

/// Rounded to four digits, as outcomes are written.
fn rounded(probability: f32) -> f64 {
    (f64::from(probability) * 10_000.0).round() / 10_000.0
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Permanent => "permanent",
        Status::Temporary => "temporary",
        _ => "exhausted",
    }
}
