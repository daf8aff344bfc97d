//! Which column of a row is which field of an item.

use std::fmt::Write;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};
use slugline::NewsItem;

/// A row as it was read: the values by their columns.
pub(crate) type Fields = Map<String, Value>;

/// Fields that a row may have under either of two names, where no column is given for them.
const DEFAULTS: [(&str, &[&str]); 6] = [
    ("id", &["id"]),
    ("title", &["title"]),
    ("body", &["body"]),
    ("source", &["source"]),
    ("language", &["language", "lang"]),
    ("published", &["published", "date"]),
];

/// The columns. Feeds need none: their elements are known.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Columns {
    /// The column of the id, text or a whole number [default: id]
    #[arg(long, value_name = "NAME")]
    pub(crate) id_column: Option<String>,

    /// The column of the headline [default: title]
    #[arg(long, value_name = "NAME")]
    pub(crate) title_column: Option<String>,

    /// The column of the text, plain or HTML [default: body]
    #[arg(long, value_name = "NAME")]
    pub(crate) body_column: Option<String>,

    /// The column of the source, for example the feed's name [default: source]
    #[arg(long, value_name = "NAME")]
    source_column: Option<String>,

    /// The column of the language [default: language or lang]
    #[arg(long, value_name = "NAME")]
    language_column: Option<String>,

    /// The column of the time of publication [default: published or date]
    #[arg(long, value_name = "NAME")]
    published_column: Option<String>,

    /// A column that is carried over to the output; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) keep: Vec<String>,
}

impl Columns {
    /// The item in a row, with what is carried over; or in words why it is none.
    pub(crate) fn item(&self, fields: &Fields) -> Result<(NewsItem, Vec<Value>), String> {
        let mut item = Map::new();
        for ((field, defaults), given) in DEFAULTS.into_iter().zip(self.given()) {
            // The item knows what to do with two names of one field, and with values that it cannot use.
            let names =
                given.map_or_else(|| defaults.iter().map(|name| (*name, *name)).collect(), |name| vec![(name, field)]);
            for (name, known_as) in names {
                if let Some(value) = fields.get(name) {
                    item.insert(known_as.to_owned(), value.clone());
                }
            }
        }
        let item = NewsItem::deserialize(Value::Object(item)).map_err(|error| self.explain(&error.to_string()))?;
        Ok((item, self.kept(fields)))
    }

    /// What is carried over from a row.
    pub(crate) fn kept(&self, fields: &Fields) -> Vec<Value> {
        self.keep.iter().map(|name| fields.get(name).cloned().unwrap_or_default()).collect()
    }

    /// Whether a column is looked at.
    pub(crate) fn uses(&self, column: &str) -> bool {
        let is_used = |((_, defaults), given): (&(&str, &[&str]), Option<&str>)| {
            given.map_or_else(|| defaults.contains(&column), |name| name == column)
        };
        DEFAULTS.iter().zip(self.given()).any(is_used) || self.keep.iter().any(|name| name == column)
    }

    /// Checks that a table has what its rows cannot do without: every row would be rejected for it.
    pub(crate) fn check(&self, has: impl Fn(&str) -> bool) -> Result<(), String> {
        let flags = ["--id-column", "--title-column", "--body-column"];
        let named = self.given().into_iter().flatten().chain(self.keep.iter().map(String::as_str));
        if let Some(name) = named.into_iter().find(|name| !has(name)) {
            return Err(format!("it has no column {name:?}"));
        }
        let [has_id, has_title, has_body] = [0, 1, 2].map(|at| self.given()[at].is_some() || has(DEFAULTS[at].0));
        match (has_id, has_title || has_body) {
            (false, _) => Err(format!("it has no column \"id\"; {} can name another", flags[0])),
            (_, false) => {
                Err(format!("it has no column \"title\" or \"body\"; {} and {} can name others", flags[1], flags[2]))
            }
            _ => Ok(()),
        }
    }

    /// The columns that were given, in the order of [`DEFAULTS`].
    fn given(&self) -> [Option<&str>; 6] {
        [
            self.id_column.as_deref(),
            self.title_column.as_deref(),
            self.body_column.as_deref(),
            self.source_column.as_deref(),
            self.language_column.as_deref(),
            self.published_column.as_deref(),
        ]
    }

    /// The complaint of the item, which knows its fields and not the columns.
    fn explain(&self, complaint: &str) -> String {
        let mut out = complaint.to_owned();
        for ((field, _), given) in DEFAULTS.into_iter().zip(self.given()) {
            if let Some(name) = given.filter(|_| complaint.contains(&format!("`{field}`"))) {
                // Writing to a string cannot fail.
                let _ = write!(out, " (column {name:?})");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn columns_become_fields() {
        let columns = Columns {
            id_column: Some("guid".into()),
            body_column: Some("title".into()),
            keep: vec!["url".into(), "none".into()],
            ..Columns::default()
        };
        let row = fields(json!({"guid": 7, "id": "other", "title": "T", "url": "u", "lang": "de", "date": 2026}));
        let (item, kept) = columns.item(&row).unwrap();
        assert_eq!(item, NewsItem::new("7", "T", "T").with_language("de").with_published("2026"));
        assert_eq!(kept, [json!("u"), Value::Null]);
        assert!(columns.uses("guid") && columns.uses("url") && columns.uses("lang") && !columns.uses("id"));
        let complaint = columns.item(&fields(json!({"guid": "", "title": "T"}))).unwrap_err();
        assert!(complaint.contains("`id`") && complaint.contains("\"guid\""), "{complaint}");
    }

    #[test]
    fn a_table_without_a_needed_column_is_refused_before_its_rows_are() {
        let columns = Columns::default();
        assert!(columns.check(|name| ["id", "body"].contains(&name)).is_ok());
        assert!(columns.check(|name| name == "title").unwrap_err().contains("--id-column"));
        assert!(columns.check(|name| name == "id").unwrap_err().contains("--title-column"));
        let columns = Columns { keep: vec!["url".into()], ..columns };
        assert!(columns.check(|name| name != "url").unwrap_err().contains("\"url\""));
    }
}
