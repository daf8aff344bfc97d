//! Finds the answer objects in what a model wrote: strict JSON first, then whole objects out of a dirty or cut text.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// One object of an answer, nothing in it checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object<'a> {
    pub(crate) id: u64,
    pub(crate) label: Cow<'a, str>,
    /// The byte in the text where the label begins; none when the label has escapes.
    pub(crate) label_at: Option<usize>,
    /// Further labels, each with the byte where it begins; none where one label is asked for.
    pub(crate) others: Vec<(Cow<'a, str>, Option<usize>)>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading<'a> {
    pub(crate) objects: Vec<Object<'a>>,
    /// Whether one more object begins after the last and does not end.
    pub(crate) is_torn: bool,
    /// Whether the text was exactly the JSON that was asked for.
    pub(crate) strict: bool,
}

/// The longest text that is looked at, per item of the pack.
const MAX_BYTES_PER_ITEM: usize = 16 * 1024;
/// The longest object that is salvaged.
const MAX_OBJECT_BYTES: usize = 4 * 1024;
/// How many values are tried while salvaging, per item of the pack.
const MAX_STEPS_PER_ITEM: usize = 64;

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    category: Cow<'a, str>,
}

/// An object of an answer to a single item, whose number goes without saying.
#[derive(Deserialize)]
struct CategoryField<'a> {
    #[serde(borrow)]
    category: Cow<'a, str>,
}

/// An object of an answer in the form of several labels.
#[derive(Deserialize)]
struct ListFields<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    categories: Vec<Label<'a>>,
}

#[derive(Deserialize)]
struct Label<'a>(#[serde(borrow)] Cow<'a, str>);

/// An object that is meant for an item, but states it or its label as nobody asked for: `null`, a negative number.
#[derive(Deserialize)]
struct OddFields<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, rename = "category", alias = "categories")]
    _label: &'a RawValue,
}

/// What stands for an id that is no number. No item has it.
const NO_ID: u64 = 0;

/// What an object of an answer is read from.
trait ObjectFields<'a>: Deserialize<'a> {
    fn object(self, whole: &str) -> Option<Object<'a>>;
}

/// Reads the objects of an answer to `pack_len` items, in the order of the text. Never fails: what cannot be read is not
/// there, but an object that names an item and a label in any form is, without the label: it is one of those to be counted.
pub(crate) fn read(text: &str, pack_len: usize) -> Reading<'_> {
    read_objects::<Fields<'_>>(text, pack_len)
}

/// The same for an answer to one item: its objects need no number and get the id 1, so two of them are repeated.
pub(crate) fn read_category(text: &str) -> Reading<'_> {
    read_objects::<CategoryField<'_>>(text, 1)
}

/// The same where each object has a list of labels.
pub(crate) fn read_lists(text: &str, pack_len: usize) -> Reading<'_> {
    read_objects::<ListFields<'_>>(text, pack_len)
}

fn read_objects<'a, F: ObjectFields<'a>>(text: &'a str, pack_len: usize) -> Reading<'a> {
    let bound = MAX_BYTES_PER_ITEM.saturating_mul(pack_len.max(1));
    if text.len() <= bound {
        if let Ok(fields) = serde_json::from_str::<Vec<F>>(text) {
            let objects: Option<Vec<_>> = fields.into_iter().map(|fields| fields.object(text)).collect();
            if let Some(objects) = objects {
                return Reading { objects, is_torn: false, strict: true };
            }
        }
        let array = serde_json::from_str::<Vec<&RawValue>>(text)
            .or_else(|_| serde_json::from_str::<Wrapped<'_>>(text).map(|wrapped| wrapped.items));
        if let Ok(values) = array {
            let objects: Vec<_> = values.iter().filter_map(|value| object::<F>(value.get(), text)).collect();
            let strict = objects.len() == values.len();
            // With no object at all it is another form, such as an array in an array.
            if strict || !objects.is_empty() {
                return Reading { objects, is_torn: false, strict };
            }
        }
    }
    let mut end = text.len().min(bound);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (objects, is_torn) = salvage::<F>(&text[..end], text, pack_len);
    Reading { objects, is_torn, strict: false }
}

/// Reads the label of an answer that is an array of one bare label, as an object with the id 1: strict JSON, bare or
/// wrapped, or the arrays of labels in a dirty text. Two labels give two objects with one id, which the check refuses.
pub(crate) fn read_bare(text: &str) -> Reading<'_> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        items: Vec<Label<'a>>,
    }
    let within_bound = text.get(..MAX_BYTES_PER_ITEM).unwrap_or(text);
    let array = serde_json::from_str::<Vec<Label<'_>>>(within_bound)
        .or_else(|_| serde_json::from_str::<Wrapped<'_>>(within_bound).map(|wrapped| wrapped.items));
    let strict = array.is_ok();
    let labels = array.unwrap_or_else(|_| {
        let rest = after_thinking(within_bound);
        let arrays = rest.match_indices('[').take(MAX_STEPS_PER_ITEM).map(|(at, _)| &rest[at..]);
        let arrays = arrays.filter_map(|rest| {
            let window = rest.get(..MAX_OBJECT_BYTES).unwrap_or(rest);
            serde_json::Deserializer::from_str(window).into_iter::<Vec<Label<'_>>>().next()?.ok()
        });
        arrays.flatten().collect()
    });
    let objects = labels.into_iter().map(|Label(label)| Object {
        id: 1,
        label_at: place_of(&label, text),
        label,
        others: Vec::new(),
    });
    Reading { objects: objects.collect(), is_torn: false, strict }
}

/// The part of a text that is not the model's thinking.
fn after_thinking(text: &str) -> &str {
    let answer = text.rfind("</think>").map_or(text, |at| &text[at + "</think>".len()..]);
    // A think block that never ends holds drafts, not an answer.
    answer.find("<think>").map_or(answer, |at| &answer[..at])
}

/// Takes whole answer objects out of a text that is not JSON: fenced, with prose around it, after a think block, or cut.
///
/// Objects are taken wherever they stand; if a model wrote a draft before its answer, the ids are repeated and the check
/// refuses them. Also tells whether one more begins after the last and does not end.
fn salvage<'a, F: ObjectFields<'a>>(text: &'a str, whole: &'a str, pack_len: usize) -> (Vec<Object<'a>>, bool) {
    let mut rest = after_thinking(text);
    let mut objects = Vec::new();
    let mut is_torn = false;
    for _ in 0..MAX_STEPS_PER_ITEM.saturating_mul(pack_len.max(1)) {
        let Some(start) = rest.find('{') else { break };
        rest = &rest[start..];
        // Within a window, so that nested beginnings cost no more than their number.
        let mut end = rest.len().min(MAX_OBJECT_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let mut values = serde_json::Deserializer::from_str(&rest[..end]).into_iter::<&RawValue>();
        let Some(Ok(value)) = values.next() else {
            rest = &rest[1..];
            is_torn |= rest.trim_start().starts_with("\"id\"") && !rest.contains('}');
            continue;
        };
        if let Some(found) = object::<F>(value.get(), whole) {
            objects.push(found);
            is_torn = false;
            rest = &rest[value.get().len()..];
        } else {
            // Some other object: perhaps the wrapper, so look inside it.
            rest = &rest[1..];
        }
    }
    (objects, is_torn)
}

fn object<'a, F: ObjectFields<'a>>(json: &'a str, whole: &str) -> Option<Object<'a>> {
    let asked_for = serde_json::from_str::<F>(json).ok().and_then(|fields| fields.object(whole));
    asked_for.or_else(|| {
        // An array would be read as the fields in their order.
        let odd: OddFields<'a> = json.starts_with('{').then(|| serde_json::from_str(json).ok()).flatten()?;
        let id = number(odd.id).unwrap_or(NO_ID);
        Some(Object { id, label: "".into(), label_at: None, others: Vec::new() })
    })
}

impl<'a> ObjectFields<'a> for Fields<'a> {
    fn object(self, whole: &str) -> Option<Object<'a>> {
        let id = number(self.id)?;
        Some(Object { id, label_at: place_of(&self.category, whole), label: self.category, others: Vec::new() })
    }
}

impl<'a> ObjectFields<'a> for CategoryField<'a> {
    fn object(self, whole: &str) -> Option<Object<'a>> {
        Some(Object { id: 1, label_at: place_of(&self.category, whole), label: self.category, others: Vec::new() })
    }
}

impl<'a> ObjectFields<'a> for ListFields<'a> {
    fn object(self, whole: &str) -> Option<Object<'a>> {
        let id = number(self.id)?;
        let mut labels = self.categories.into_iter().map(|Label(label)| (place_of(&label, whole), label));
        let (label_at, label) = labels.next()?;
        Some(Object { id, label, label_at, others: labels.map(|(at, label)| (label, at)).collect() })
    }
}

/// Reads an id. It may be written as a string of digits: that is another way to write it, not another value.
fn number(id: &RawValue) -> Option<u64> {
    let id = id.get();
    let digits = id.strip_prefix('"').and_then(|id| id.strip_suffix('"')).unwrap_or(id);
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The byte in the text where a label begins that is a part of it; none for a label that had escapes.
fn place_of(label: &str, text: &str) -> Option<usize> {
    let at = (label.as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    (at.checked_add(label.len())? <= text.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(u64, String)> {
        read(text, 3).objects.into_iter().map(|object| (object.id, object.label.into_owned())).collect()
    }

    fn expected() -> Vec<(u64, String)> {
        vec![(1, "sport".into()), (2, "a".into())]
    }

    const ANSWER: &str = r#"[{"id":1,"category":"sport"},{"id":2,"category":"a"}]"#;

    #[test]
    fn strict_json_bare_or_wrapped_is_read_as_such() {
        for text in [ANSWER.to_owned(), format!("{{\"items\": {ANSWER}}}"), format!(" \n{ANSWER}\n ")] {
            let reading = read(&text, 2);
            assert!(reading.strict, "{text}");
            assert_eq!(pairs(&text), expected());
        }
    }

    #[test]
    fn the_place_of_the_label_is_known() {
        let reading = read(ANSWER, 2);
        for object in &reading.objects {
            let at = object.label_at.unwrap();
            assert_eq!(&ANSWER[at..at + object.label.len()], object.label);
        }
        let escaped = r#"[{"id":1,"category":"sp\u006frt"}]"#;
        assert_eq!(
            read(escaped, 1).objects[0],
            Object { id: 1, label: "sport".into(), label_at: None, others: vec![] }
        );
    }

    #[test]
    fn whole_objects_are_salvaged_from_dirty_text() {
        for text in [
            format!("```json\n{ANSWER}\n```"),
            format!("Here is the answer you want: {ANSWER} Hope {{this}} helps [1]."),
            format!("<think>Maybe [{{\"id\":1,\"category\":\"b\"}}]?</think>\n{ANSWER}"),
            format!("{}{}", &ANSWER[..ANSWER.len() - 1], r#",{"id":3,"catego"#),
            ANSWER.replace("},{", "}\n{"),
            format!("{{\"result\": {{\"labels\": {ANSWER}}}"),
            ANSWER.replace(":1", ":\"1\""),
            format!("[{ANSWER}]"),
            format!("{{\"items\": [{ANSWER}]}}"),
            format!("[{{\"answer\": {ANSWER}}}]"),
            ANSWER.replace('}', ",\"why\":NaN}").replace(",\"why\":NaN", ""),
        ] {
            assert_eq!(pairs(&text), expected(), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_not_there() {
        for text in [
            "",
            "null",
            "[]",
            "sport",
            "[\"sport\"]",
            "{\"id\":1}",
            "[{\"id\":1,\"id\":2,\"category\":\"a\"}]",
            "[[\"sport\"], [\"a\", 1]]",
            "[\"{\\\"id\\\":1,\\\"category\\\":\\\"a\\\"}\"]",
            "<think>[{\"id\":1,\"category\":\"a\"}]",
            "Let me see. <think>[{\"id\":1,\"category\":\"a\"}]",
            "<think></think><think>[{\"id\":1,\"category\":\"a\"}]",
        ] {
            assert_eq!(pairs(text), [], "{text}");
        }
    }

    #[test]
    fn an_object_in_an_odd_form_is_there_without_its_label() {
        for id in ["-1", "1.5", "\"\"", "null", "99999999999999999999"] {
            for text in
                [format!("[{{\"id\":{id},\"category\":\"a\"}}]"), format!("So: {{\"id\":{id},\"category\":\"a\"}}")]
            {
                assert_eq!(pairs(&text), [(NO_ID, String::new())], "{text}");
            }
        }
        for label in ["null", "7", "[\"a\"]", "{}"] {
            assert_eq!(pairs(&format!("[{{\"id\":1,\"category\":{label}}}]")), [(1, String::new())], "{label}");
        }
        assert_eq!(read_lists(r#"[{"id":3,"categories":[]}]"#, 3).objects[0].id, 3);
        // The id of an envelope is of no item.
        assert_eq!(pairs(&format!("{{\"id\":\"x\",\"answer\":{ANSWER}}}")), expected());
    }

    #[test]
    fn an_object_that_begins_and_does_not_end_is_noticed() {
        for (rest, is_torn) in [(r#",{"id":3"#, true), (r#", { "id""#, true), (",\n\n\n", false), (",{", false)] {
            let text = ANSWER.trim_end_matches(']').to_owned() + rest;
            assert_eq!((read(&text, 3).is_torn, pairs(&text)), (is_torn, expected()), "{text}");
        }
        assert!(!read(&format!("{ANSWER}{{\"id\":3,\"category\":a}}"), 3).is_torn, "it ends");
    }

    #[test]
    fn a_bare_label_is_read_with_its_place() {
        let labels = |text| {
            let reading = read_bare(text);
            reading.objects.iter().for_each(|object| {
                let at = object.label_at.unwrap();
                assert_eq!(text[at..at + object.label.len()], object.label);
            });
            (reading.strict, reading.objects.into_iter().map(|object| object.label.into_owned()).collect::<Vec<_>>())
        };
        assert_eq!(labels(r#"["sport"]"#), (true, vec!["sport".to_owned()]));
        assert_eq!(labels(r#"{"items": ["sport"]}"#), (true, vec!["sport".to_owned()]));
        assert_eq!(labels(r#"["sport", "business"]"#).1.len(), 2);
        assert_eq!(labels(r#"Perhaps ["sport"], but rather ["business"]."#).1.len(), 2);
        assert_eq!(labels("<think>[\"a\"]</think>It is [1]: ```[\"sport\"]```"), (false, vec!["sport".to_owned()]));
        for text in ["", "sport", "\"sport\"", "[]", "[1]", "[\"sport\"", "[{\"id\":1,\"category\":\"a\"}]", "[null]"] {
            assert_eq!(labels(text).1, [""; 0], "{text}");
        }
        assert!(read_bare(&"[".repeat(400_000)).objects.is_empty());
    }

    #[test]
    fn lists_of_labels_are_read_with_their_places() {
        let answer = r#"[{"id":1,"categories":["sport","a"]},{"id":2,"categories":["a"]},{"id":3,"categories":[]}]"#;
        for text in [answer.to_owned(), format!("{{\"items\": {answer}}}"), format!("Sure: {answer} Done.")] {
            let objects = read_lists(&text, 3).objects;
            assert_eq!(
                objects.iter().map(|object| (object.id, object.others.len())).collect::<Vec<_>>(),
                [(1, 1), (2, 0), (3, 0)]
            );
            let (label, at) = &objects[0].others[0];
            assert_eq!((&**label, &text[at.unwrap()..=at.unwrap()]), ("a", "a"));
        }
        assert!(read_lists(ANSWER, 2).objects.iter().all(|object| object.label.is_empty()), "another form");
    }

    #[test]
    fn deep_or_endless_text_is_bounded() {
        for part in ["[", "{", "{\"a\":", "\n", "{\"id\":1,", "[{\"id\":1,\"category\":\"a\"},"] {
            let text = part.repeat(400_000 / part.len());
            assert!(read(&text, 3).objects.len() <= 3 * MAX_STEPS_PER_ITEM);
        }
    }
}
