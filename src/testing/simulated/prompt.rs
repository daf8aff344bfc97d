//! Reading the prompt as this crate writes it: the taxonomy from the prefix, the items from the user message.

/// A category as the prefix lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
}

/// An item of the user message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    pub(super) id: u64,
    pub(super) text: String,
}

/// The categories of a prefix: its lines of the form `- id: name. description`.
pub(super) fn categories(prefix: &str) -> Vec<Listed> {
    let listing = prefix.lines().take_while(|line| !line.starts_with("<item "));
    listing.filter_map(category).collect()
}

/// The category that a prefix says to use only when no other fits.
pub(super) fn fallback(prefix: &str) -> Option<&str> {
    prefix.lines().find_map(|line| line.strip_prefix("Use ")?.strip_suffix(" only when no other category fits."))
}

fn category(line: &str) -> Option<Listed> {
    let (id, rest) = line.strip_prefix("- ")?.split_once(": ")?;
    let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let (name, description) = rest.split_once(". ").unwrap_or((rest.trim_end_matches('.'), ""));
    is_id.then(|| Listed { id: id.to_owned(), name: name.to_owned(), description: description.to_owned() })
}

/// The items of a user message: everything between a line `<item id="N">` and the next line `</item>`.
pub(super) fn items(message: &str) -> Vec<Framed> {
    let mut items: Vec<Framed> = Vec::new();
    let mut open: Option<Framed> = None;
    for line in message.lines() {
        match &mut open {
            None => open = opening(line).map(|id| Framed { id, text: String::new() }),
            Some(_) if line == "</item>" => items.extend(open.take()),
            Some(item) => {
                item.text.push_str(line);
                item.text.push('\n');
            }
        }
    }
    items
}

fn opening(line: &str) -> Option<u64> {
    line.strip_prefix("<item id=\"")?.strip_suffix("\">")?.parse().ok()
}

/// The two parts of a completions prompt: up to and with the answer of the worked example, and the items after it.
pub(super) fn split_completion(prompt: &str) -> (&str, &str) {
    let is_example = |line: &str| line.starts_with("[{\"id\":1") || line.starts_with("{\"items\":[{\"id\":1");
    let mut end = 0;
    let mut split = None;
    for line in prompt.split_inclusive('\n') {
        end += line.len();
        if is_example(line) {
            split = Some(end);
        }
    }
    // Without an example the items begin at the first frame.
    prompt.split_at(split.or_else(|| prompt.find("<item id=\"")).unwrap_or(prompt.len()))
}

/// Whether the message asks for the array inside an object.
pub(super) fn asks_for_wrapped(message: &str) -> bool {
    message.lines().next_back().is_some_and(|line| line.contains("{\"items\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "You are a news editor.\n\nCategories, as id: name. what belongs there.\n- sport: Sport. Matches.\n\
        - sci-tech: Science: and Technology. Labs. And gadgets.\n- other: Other.\n\nExample:\n<item id=\"1\">\n- not: a category. \n\
        </item>\n[{\"id\":1,\"category\":\"sport\"}]\n";

    #[test]
    fn the_taxonomy_is_read_from_its_lines() {
        let listed = |id: &str, name: &str, description: &str| Listed {
            id: id.into(),
            name: name.into(),
            description: description.into(),
        };
        let expected = [
            listed("sport", "Sport", "Matches."),
            listed("sci-tech", "Science: and Technology", "Labs. And gadgets."),
            listed("other", "Other", ""),
        ];
        assert_eq!(categories(PREFIX), expected);
        assert_eq!(categories("- Not an id: x. y.\n-sport: a. b."), []);
        assert_eq!(fallback("x\nUse misc only when no other category fits.\n"), Some("misc"));
        assert_eq!(fallback(PREFIX), None);
    }

    #[test]
    fn items_are_read_from_their_frames() {
        let message = "<item id=\"1\">\nTitle\nBody <item id=\"9\">\n</item>\nnoise\n<item id=\"2\">\nTwo\n</item>\n<item id=\"3\">\nopen";
        let texts: Vec<_> = items(message).into_iter().map(|item| (item.id, item.text)).collect();
        assert_eq!(texts, [(1, "Title\nBody <item id=\"9\">\n".into()), (2, "Two\n".into())]);
        assert!(items("").is_empty());
    }

    #[test]
    fn a_completions_prompt_is_split_after_the_example() {
        let message = "<item id=\"1\">\nOne\n</item>\nCategories of item 1, as a JSON array:";
        let prompt = format!("{PREFIX}{message}");
        assert_eq!(split_completion(&prompt), (PREFIX, message));
        assert_eq!(split_completion("no items"), ("no items", ""));
        assert_eq!(split_completion(message), ("", message));
    }

    #[test]
    fn the_last_line_tells_the_form() {
        assert!(asks_for_wrapped("x\nCategories of item 1, as a JSON object {\"items\":[…]} around the array:"));
        assert!(!asks_for_wrapped("{\"items\"\nCategories of item 1, as a JSON array:"));
    }
}
