//! As much of RDF/XML as SKOS vocabularies are written in: concepts with labels, notations and broader concepts.
//!
//! A description is an element with `rdf:about`; its properties are the elements in it. Namespace prefixes are taken as they
//! are usually written (`skos:`, `rdf:`).

use std::collections::HashMap;

/// A concept as it stands in the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Concept {
    pub(crate) uri: String,
    pub(crate) notation: Option<String>,
    /// The preferred labels with their languages.
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) broader: Option<String>,
    pub(crate) is_retired: bool,
}

/// The concepts of a file, in its order.
pub(crate) fn concepts(xml: &str) -> Vec<Concept> {
    let mut concepts: Vec<Concept> = Vec::new();
    // A concept may be described in several places.
    let mut places: HashMap<String, usize> = HashMap::new();
    // The elements that are open, the innermost last, each with the place of its concept: a description may stand inside of
    // another's property instead of being named there.
    let mut open: Vec<(&str, usize)> = Vec::new();
    let mut property = "";
    // Child and parent, where the parent names the child.
    let mut narrower: Vec<(String, usize)> = Vec::new();
    for (tag, text) in tags(xml) {
        let name = tag.split_whitespace().next().unwrap_or_default().trim_end_matches('/');
        if let Some(uri) = attribute(tag, "rdf:about") {
            match open.last() {
                Some(&(_, outer)) if property == "skos:broader" => concepts[outer].broader = Some(uri.clone()),
                Some(&(_, outer)) if property == "skos:narrower" => narrower.push((uri.clone(), outer)),
                _ => {}
            }
            let place = *places.entry(uri.clone()).or_insert(concepts.len());
            if place == concepts.len() {
                concepts.push(Concept { uri, ..Concept::default() });
            }
            if !tag.ends_with('/') {
                open.push((name, place));
            }
            property = "";
            continue;
        }
        if let Some(closed) = name.strip_prefix('/') {
            open.pop_if(|(element, _)| *element == closed);
            property = "";
            continue;
        }
        let Some(&(_, place)) = open.last() else { continue };
        property = name;
        let concept = &mut concepts[place];
        let text = || unescaped(text.trim());
        match name {
            "skos:prefLabel" => concept.labels.push((attribute(tag, "xml:lang").unwrap_or_default(), text())),
            "skos:notation" => concept.notation = Some(text()),
            "skos:broader" => concept.broader = attribute(tag, "rdf:resource").or(concept.broader.take()),
            "skos:narrower" => narrower.extend(attribute(tag, "rdf:resource").map(|child| (child, place))),
            // IPTC marks a retired concept by the date, others by OWL's flag.
            name if name.ends_with(":retired") || (name == "owl:deprecated" && text() == "true") => {
                concept.is_retired = true;
            }
            _ => {}
        }
    }
    for (child, parent) in narrower {
        let parent = concepts[parent].uri.clone();
        if let Some(child) = places.get(&child).and_then(|&at| concepts.get_mut(at)) {
            child.broader.get_or_insert(parent);
        }
    }
    concepts.retain(|concept| !concept.labels.is_empty());
    concepts
}

/// The tags, without their brackets, each with the text that follows it. Comments and declarations are left out.
fn tags(xml: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find('<')?..];
            if let Some(comment) = rest.strip_prefix("<!--") {
                rest = &comment[comment.find("-->")?..];
                continue;
            }
            let end = rest.find('>')?;
            let (tag, after) = (&rest[1..end], &rest[end + 1..]);
            rest = after;
            if !tag.starts_with(['?', '!']) {
                return Some((tag, &after[..after.find('<').unwrap_or(after.len())]));
            }
        }
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let (_, after) = tag.split_once(&format!("{name}="))?;
    let quote = after.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    Some(unescaped(after[1..].split(quote).next()?))
}

fn unescaped(text: &str) -> String {
    let named = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    named.iter().fold(text.to_owned(), |text, (entity, letter)| text.replace(entity, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concepts_are_read_with_their_labels_and_parents() {
        let xml = r#"<?xml version="1.0"?><!-- <skos:Concept rdf:about="no"/> -->
            <rdf:RDF xmlns:skos="http://www.w3.org/2004/02/skos/core#">
            <skos:ConceptScheme rdf:about="scheme"/>
            <skos:Concept rdf:about="http://x/1"><skos:prefLabel xml:lang="en-GB">crime &amp; law</skos:prefLabel>
              <skos:prefLabel xml:lang='fr'>justice</skos:prefLabel><skos:notation>m:1</skos:notation></skos:Concept>
            <rdf:Description rdf:about="http://x/2"><skos:broader rdf:resource="http://x/1"/>
              <skos:prefLabel>court</skos:prefLabel><x:retired>2020</x:retired></rdf:Description>
            </rdf:RDF>"#;
        let label = |language: &str, text: &str| (language.to_owned(), text.to_owned());
        assert_eq!(
            concepts(xml),
            [
                Concept {
                    uri: "http://x/1".into(),
                    notation: Some("m:1".into()),
                    labels: vec![label("en-GB", "crime & law"), label("fr", "justice")],
                    ..Concept::default()
                },
                Concept {
                    uri: "http://x/2".into(),
                    labels: vec![label("", "court")],
                    broader: Some("http://x/1".into()),
                    is_retired: true,
                    ..Concept::default()
                },
            ]
        );
    }

    #[test]
    fn a_concept_may_stand_inside_of_another_or_be_named_by_its_parent() {
        let xml = r#"<skos:Concept rdf:about="2"><skos:broader><skos:Concept rdf:about="1">
              <skos:prefLabel>law</skos:prefLabel><skos:narrower rdf:resource="3"/></skos:Concept></skos:broader>
              <skos:prefLabel>court</skos:prefLabel></skos:Concept>
            <skos:Concept rdf:about="3"><skos:prefLabel>police</skos:prefLabel></skos:Concept>
            <rdf:Description rdf:about="2"><skos:notation>m:2</skos:notation></rdf:Description>"#;
        let concept = |uri: &str, label: &str, broader: Option<&str>| Concept {
            uri: uri.into(),
            labels: vec![(String::new(), label.into())],
            broader: broader.map(Into::into),
            ..Concept::default()
        };
        let court = Concept { notation: Some("m:2".into()), ..concept("2", "court", Some("1")) };
        assert_eq!(concepts(xml), [court, concept("1", "law", None), concept("3", "police", Some("1"))]);
    }

    #[test]
    fn what_is_no_xml_has_no_concepts() {
        for text in ["", "<", "<<<>", "<!--", "<skos:Concept rdf:about=", "a > b < c"] {
            assert_eq!(concepts(text), []);
        }
    }
}
