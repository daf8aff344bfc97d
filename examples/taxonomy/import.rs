//! Taxonomies of other forms as a TOML file of slugline's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use slugline::Taxonomy;

use super::rdf;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file to read
    file: PathBuf,
    /// Its form
    #[arg(long, value_enum)]
    format: Format,
    /// The name of the taxonomy
    #[arg(long)]
    name: String,
    /// Its version
    #[arg(long)]
    version: String,
    /// The language of the names that the model reads, where there are several
    #[arg(long, value_name = "TAG", default_value = "en")]
    language: String,
}

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// SKOS as RDF/XML
    Skos,
    /// IPTC's NewsCodes JSON, with `conceptSet`
    IptcJson,
    /// IAB's Content Taxonomy: unique id, parent, name, tiers
    IabTsv,
    /// A header with name and any of id, code, parent (id or code), description, aliases (separated by `;`), then a row each
    Csv,
}

/// A category of whatever form.
#[derive(Debug, Default)]
struct Row {
    key: String,
    id: Option<String>,
    code: Option<String>,
    name: String,
    names: BTreeMap<String, String>,
    parent: Option<String>,
    description: String,
    aliases: Vec<String>,
}

/// The text of the taxonomy file, which is loaded once to see that it is one.
pub(crate) fn import(args: &ImportArgs) -> Result<String, String> {
    let about = |error: &dyn std::fmt::Display| format!("{}: {error}", args.file.display());
    let text = std::fs::read_to_string(&args.file).map_err(|error| about(&error))?;
    let rows = match args.format {
        Format::Skos => {
            rdf::concepts(&text).into_iter().filter_map(|concept| of_concept(concept, &args.language)).collect()
        }
        Format::IptcJson => of_iptc(&text, &args.language).map_err(|error| about(&error))?,
        Format::IabTsv => of_iab(&text),
        Format::Csv => of_csv(&text).map_err(|error| about(&error))?,
    };
    if rows.is_empty() {
        return Err(about(&"has no categories in this form"));
    }
    let toml = toml(args, &rows)?;
    Taxonomy::from_toml(&toml)
        .map_err(|error| about(&format!("{error}; mend the source, or the ids by a column `id`")))?;
    Ok(toml)
}

/// The name in the wanted language, a regional form included, else the first; the others are the names in other languages.
fn named(mut labels: BTreeMap<String, String>, language: &str) -> Option<(String, BTreeMap<String, String>)> {
    let is_wanted = |tag: &&String| **tag == language || tag.starts_with(&format!("{language}-"));
    let tag = labels.keys().find(is_wanted).or_else(|| labels.keys().next())?.clone();
    let name = labels.remove(&tag)?;
    labels.retain(|tag, label| !tag.is_empty() && *label != name);
    Some((name, labels))
}

fn of_concept(concept: rdf::Concept, language: &str) -> Option<Row> {
    let (name, names) = named(concept.labels.into_iter().collect(), language)?;
    let code = concept.notation.or_else(|| concept.uri.rsplit(['/', '#']).next().map(str::to_owned));
    (!concept.is_retired).then(|| Row {
        key: concept.uri,
        code,
        name,
        names,
        parent: concept.broader,
        ..Row::default()
    })
}

fn of_iptc(text: &str, language: &str) -> Result<Vec<Row>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct File {
        concept_set: Vec<Concept>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Concept {
        uri: String,
        qcode: Option<String>,
        pref_label: BTreeMap<String, String>,
        #[serde(default)]
        broader: Vec<String>,
        retired: Option<String>,
    }
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let row = |concept: Concept| {
        let (name, names) = named(concept.pref_label, language)?;
        let parent = concept.broader.into_iter().next();
        let row = Row { key: concept.uri, code: concept.qcode, name, names, parent, ..Row::default() };
        concept.retired.is_none().then_some(row)
    };
    Ok(file.concept_set.into_iter().filter_map(row).collect())
}

/// The rows whose first cell is an id; the rest is headings.
fn of_iab(text: &str) -> Vec<Row> {
    let is_id = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    let row = |line: &str| {
        let mut cells = line.split('\t').map(str::trim);
        let (id, parent, name) = (cells.next()?, cells.next()?, cells.next()?);
        let parent = Some(parent).filter(|parent| !parent.is_empty()).map(str::to_owned);
        let row = Row { key: id.into(), code: Some(id.into()), name: name.into(), parent, ..Row::default() };
        (is_id(id) && !name.is_empty()).then_some(row)
    };
    text.lines().filter_map(row).collect()
}

fn of_csv(text: &str) -> Result<Vec<Row>, String> {
    let mut rows = csv(text).into_iter();
    let header: Vec<String> = rows.next().unwrap_or_default().iter().map(|name| name.trim().to_lowercase()).collect();
    let column = |name: &str| header.iter().position(|known| known == name);
    let Some(name) = column("name") else { return Err("the header has no column `name`".to_owned()) };
    let (id, code, parent) = (column("id"), column("code"), column("parent"));
    let (description, aliases) = (column("description"), column("aliases"));
    let row = |cells: Vec<String>| {
        let cell = |at: Option<usize>| at.and_then(|at| cells.get(at)).map(|cell| cell.trim().to_owned());
        let filled = |at: Option<usize>| cell(at).filter(|cell| !cell.is_empty());
        let name = filled(Some(name))?;
        let list = cell(aliases).unwrap_or_default();
        let list = list.split(';').map(str::trim).filter(|alias| !alias.is_empty()).map(str::to_owned).collect();
        Some(Row {
            key: filled(code).or_else(|| filled(id)).unwrap_or_else(|| name.clone()),
            id: filled(id),
            code: filled(code),
            name,
            parent: filled(parent),
            description: cell(description).unwrap_or_default(),
            aliases: list,
            ..Row::default()
        })
    };
    Ok(rows.filter_map(row).collect())
}

/// The rows of comma-separated values; cells in double quotes may have commas, line breaks and doubled quotes (RFC 4180).
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell, mut is_quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !is_quoted => {}
            '\n' if !is_quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            c => cell.push(c),
        }
    }
    if !cell.is_empty() || !row.is_empty() {
        row.push(cell);
        rows.push(row);
    }
    rows.retain(|row| row.iter().any(|cell| !cell.trim().is_empty()));
    rows
}

fn toml(args: &ImportArgs, rows: &[Row]) -> Result<String, String> {
    let mut taken = BTreeSet::new();
    let mut ids: BTreeMap<&str, String> = BTreeMap::new();
    for row in rows {
        let id = row.id.clone().unwrap_or_else(|| slug(&row.name));
        if !taken.insert(id.clone()) {
            return Err(format!("two categories have the id {id:?}; give one another by a column `id` of a CSV"));
        }
        ids.insert(&row.key, id.clone());
        row.id.as_deref().into_iter().chain(row.code.as_deref()).for_each(|key| drop(ids.insert(key, id.clone())));
    }
    let mut text = format!("name = {}\nversion = {}\n", quoted(&args.name), quoted(&args.version));
    for row in rows {
        text.push_str(&format!(
            "\n[[category]]\nid = {}\nname = {}\n",
            quoted(&ids[row.key.as_str()]),
            quoted(&row.name)
        ));
        if !row.names.is_empty() {
            let names: Vec<_> =
                row.names.iter().map(|(tag, name)| format!("{} = {}", quoted(tag), quoted(name))).collect();
            text.push_str(&format!("names = {{ {} }}\n", names.join(", ")));
        }
        if let Some(code) = &row.code {
            text.push_str(&format!("code = {}\n", quoted(code)));
        }
        match &row.parent {
            Some(parent) => {
                let Some(parent) = ids.get(parent.as_str()) else {
                    return Err(format!("{:?} is below {parent:?}, which is not in the file", row.name));
                };
                text.push_str(&format!("parent = {}\n", quoted(parent)));
                if !row.description.is_empty() {
                    text.push_str(&format!("description = {}\n", quoted(&row.description)));
                }
            }
            // At the top level a description is needed; the name is better than none, and lint will say so.
            None if row.description.is_empty() => text.push_str(&format!("description = {}\n", quoted(&row.name))),
            None => text.push_str(&format!("description = {}\n", quoted(&row.description))),
        }
        if !row.aliases.is_empty() {
            let aliases: Vec<_> = row.aliases.iter().map(|alias| quoted(alias)).collect();
            text.push_str(&format!("aliases = [{}]\n", aliases.join(", ")));
        }
    }
    Ok(text)
}

/// A TOML string; JSON's escapes are TOML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An id: lower-case words joined by hyphens.
fn slug(name: &str) -> String {
    let lower = name.to_lowercase().replace(['\'', '’'], "");
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(format: Format, text: &str) -> Result<Taxonomy, String> {
        // Tests run at once in threads of one process.
        let name = format!("slugline-import-{format:?}-{}-{:?}", std::process::id(), std::thread::current().id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, text).unwrap();
        let args =
            ImportArgs { file: file.clone(), format, name: "t".into(), version: "1".into(), language: "en".into() };
        let toml = import(&args);
        std::fs::remove_file(file).unwrap();
        Ok(Taxonomy::from_toml(&toml?).unwrap())
    }

    fn lines(taxonomy: &Taxonomy) -> Vec<String> {
        let code = |code: &Option<String>| code.clone().unwrap_or_default();
        let of = |category: &slugline::Category| {
            let path: Vec<_> = taxonomy.path(&category.id).into_iter().map(|category| category.id.as_str()).collect();
            format!("{} {:?} {}", path.join("/"), category.name, code(&category.code))
        };
        taxonomy.categories().map(of).collect()
    }

    #[test]
    fn every_form_gives_the_same_tree() {
        let expected = [r#"law "Law" 1"#, r#"law/court "Court" 2"#, r#"sport "Sport" 3"#];
        let skos = r#"<skos:Concept rdf:about="u/1"><skos:prefLabel xml:lang="en-GB">Law</skos:prefLabel>
            <skos:prefLabel xml:lang="fr">Droit</skos:prefLabel></skos:Concept>
            <skos:Concept rdf:about="u/2"><skos:prefLabel xml:lang="en-GB">Court</skos:prefLabel><skos:broader rdf:resource="u/1"/></skos:Concept>
            <skos:Concept rdf:about="u/3"><skos:prefLabel xml:lang="en-GB">Sport</skos:prefLabel></skos:Concept>"#;
        let json = r#"{"uri": "u", "conceptSet": [
            {"uri": "u/1", "qcode": "1", "prefLabel": {"en-GB": "Law", "fr": "Droit"}},
            {"uri": "u/2", "qcode": "2", "prefLabel": {"en-GB": "Court"}, "broader": ["u/1"]},
            {"uri": "u/9", "qcode": "9", "prefLabel": {"en-GB": "Old"}, "retired": "2019-01-01"},
            {"uri": "u/3", "qcode": "3", "prefLabel": {"en-GB": "Sport"}}]}"#;
        let tsv = "Unique ID\tParent\tName\tTier 1\n1\t\tLaw\tLaw\n2\t1\tCourt\tLaw\n3\t\tSport\tSport\n";
        let csv = "\u{feff}code,name,parent,description\r\n1,Law,,\"Courts, \"\"trials\"\"\"\r\n2,Court,1,\r\n3,Sport,,Games.\r\n";
        for (format, text) in
            [(Format::Skos, skos), (Format::IptcJson, json), (Format::IabTsv, tsv), (Format::Csv, csv)]
        {
            let taxonomy = imported(format, text).unwrap();
            assert_eq!(lines(&taxonomy), expected, "{format:?}");
        }
        assert_eq!(imported(Format::Skos, skos).unwrap().find("law").unwrap().name_in("fr"), "Droit");
        assert_eq!(imported(Format::Csv, csv).unwrap().find("law").unwrap().description, "Courts, \"trials\"");
    }

    #[test]
    fn what_cannot_be_imported_says_why() {
        let error = |format, text| imported(format, text).unwrap_err();
        assert!(error(Format::IabTsv, "nothing").contains("has no categories in this form"));
        assert!(error(Format::Csv, "title\nLaw\n").contains("no column `name`"));
        assert!(error(Format::Csv, "name,parent\nLaw,Sport\nArts,\n").contains("which is not in the file"));
        assert!(error(Format::Csv, "name\nLaw\nlaw\n").contains("two categories have the id"));
        assert!(error(Format::IptcJson, "{}").contains("conceptSet"));
    }
}
