//! The TOML form of a taxonomy.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, TaxonomyError, TaxonomyProblem, TaxonomyProblemKind};
use super::{Category, CategoryId};

/// What was read, with the problems that only the file can show. The categories are checked elsewhere.
pub(super) struct Parsed {
    pub(super) name: String,
    pub(super) version: String,
    /// Each with the line where it begins.
    pub(super) categories: Vec<(Option<usize>, Category)>,
    pub(super) problems: Vec<TaxonomyProblem>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    id: String,
    name: String,
    names: BTreeMap<String, String>,
    description: String,
    code: Option<String>,
    parent: Option<String>,
    aliases: Vec<String>,
    keywords: Vec<String>,
    fallback: bool,
}

const ROOT_KEYS: &[&str] = &["name", "version", "category"];
const CATEGORY_KEYS: &[&str] =
    &["id", "name", "names", "description", "code", "parent", "aliases", "keywords", "fallback"];

/// Reads the file table by table, so that one bad category does not hide the problems of the next.
pub(super) fn parse(text: &str) -> Result<Parsed, TaxonomyError> {
    let line_ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line_of = |offset: usize| 1 + line_ends.partition_point(|&end| end < offset);
    let syntax = |offset: usize, reason: &str| TaxonomyProblem {
        place: Place::Line { line: line_of(offset) },
        kind: TaxonomyProblemKind::Syntax { reason: reason.trim().to_owned() },
    };
    let root = DeTable::parse(text)
        .map_err(|error| TaxonomyError::of(vec![syntax(error.span().map_or(0, |span| span.start), error.message())]))?
        .into_inner();

    let mut problems = Vec::new();
    unknown_keys(&root, ROOT_KEYS, "name, version, category", &line_of, &mut problems);
    let mut text_of = |field: &'static str| match root.get(field).map(Spanned::get_ref) {
        Some(DeValue::String(text)) if !text.trim().is_empty() => text.to_string(),
        _ => {
            problems.push(TaxonomyProblem { place: Place::Whole, kind: TaxonomyProblemKind::Empty { field } });
            String::new()
        }
    };
    let (name, version) = (text_of("name"), text_of("version"));

    let mut categories = Vec::new();
    let tables = match root.get("category").map(|value| (value.span(), value.get_ref())) {
        Some((_, DeValue::Array(tables))) => tables.iter().collect(),
        Some((span, _)) => {
            problems.push(syntax(span.start, "`category` must be an array of tables: write [[category]]"));
            Vec::new()
        }
        None => Vec::new(),
    };
    for table in tables {
        let line = line_of(table.span().start);
        if let DeValue::Table(entries) = table.get_ref() {
            let known = "id, name, names, description, code, parent, aliases, keywords, fallback";
            unknown_keys(entries, CATEGORY_KEYS, known, &line_of, &mut problems);
        }
        match Fields::deserialize(toml::de::ValueDeserializer::from(table.clone())) {
            Ok(fields) => categories.push((Some(line), fields.into())),
            Err(error) => {
                let offset = error.span().map_or(table.span().start, |span| span.start);
                problems.push(syntax(offset, error.message()));
            }
        }
    }
    Ok(Parsed { name, version, categories, problems })
}

fn unknown_keys(
    table: &DeTable<'_>,
    keys: &[&str],
    known: &'static str,
    line_of: &impl Fn(usize) -> usize,
    problems: &mut Vec<TaxonomyProblem>,
) {
    for key in table.keys().filter(|key| !keys.contains(&&**key.get_ref())) {
        let place = Place::Line { line: line_of(key.span().start) };
        problems.push(TaxonomyProblem {
            place,
            kind: TaxonomyProblemKind::UnknownKey { key: key.get_ref().to_string(), known },
        });
    }
}

impl From<Fields> for Category {
    fn from(fields: Fields) -> Self {
        let mut category = Category::new(fields.id, fields.name, fields.description);
        category.names = fields.names;
        category.code = fields.code;
        category.aliases = fields.aliases;
        category.keywords = fields.keywords;
        category.parent = fields.parent.map(CategoryId::from);
        category.fallback = fields.fallback;
        category
    }
}

#[cfg(test)]
mod tests {
    use crate::Taxonomy;

    #[test]
    fn a_file_reports_all_its_problems_by_line() {
        let text = "name = \"t\"\nversoin = \"1\"\n\n[[category]]\nid = \"a\"\nname = \"A\"\ndescription = \"Text.\"\nkeyword = [\"x\"]\n\n\
                    [[category]]\nid = \"b\"\nname = 3\n\n[[category]]\nid = \"c\"\nname = \"C\"\n";
        let error = Taxonomy::from_toml(text).unwrap_err();
        let found: Vec<_> = error.problems().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "line 2: unknown key `versoin`; known are name, version, category",
                "`version` is missing or empty",
                "line 8: unknown key `keyword`; known are id, name, names, description, code, parent, aliases, keywords, fallback",
                "line 12: not a taxonomy in TOML: invalid type: integer `3`, expected a string",
                "line 14: category 2 (\"c\"): `description` is missing or empty",
            ]
        );
    }

    #[test]
    fn a_syntax_error_and_a_missing_file_say_where() {
        let error = Taxonomy::from_toml("name = \"t\"\nversion = \n").unwrap_err().to_string();
        assert!(error.starts_with("taxonomy cannot be used: line 2: not a taxonomy in TOML"), "{error}");
        let error = Taxonomy::load("no/such.toml").unwrap_err().to_string();
        assert!(error.starts_with("taxonomy no/such.toml cannot be used: cannot be read"), "{error}");
    }

    #[test]
    fn an_empty_file_is_not_a_taxonomy() {
        let error = Taxonomy::from_toml("").unwrap_err();
        assert_eq!(error.problems().len(), 3);
    }
}
