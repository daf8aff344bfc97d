//! What the HTML pages share: one file each, which needs no script and nothing from elsewhere, in light and dark.

pub(crate) mod file;
pub(crate) mod lines;
pub(crate) mod scale;
pub(crate) mod text;

use self::text::escape;

const STYLE: &str = include_str!("style.css");

/// A whole page. The title is markup, safe already.
pub(crate) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

pub(crate) fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}\n</section>\n")
}

/// A table that scrolls by itself where it is wider than the page.
pub(crate) fn table(label: &str, class: &str, rows: &str) -> String {
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{label}\" tabindex=\"0\"><table class=\"{class}\">{rows}</table></div>"
    )
}

/// What is known of what was measured, by name. What is not known is left out.
pub(crate) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut list = String::from("<dl class=\"facts\">");
    for (name, fact) in facts.into_iter().filter_map(|(name, fact)| Some((name, fact?))) {
        list += &format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(fact));
    }
    list + "</dl>\n"
}

/// What a reader should know first.
pub(crate) fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    let mut list = String::from("<ul class=\"notes\">");
    for note in notes {
        list += &format!("<li>{}</li>", escape(note));
    }
    list + "</ul>\n"
}
