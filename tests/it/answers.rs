//! Reading answers: what a model may do to the form costs nothing, what it does to the content costs the item another
//! question, and no item ever gets the label of another.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use slugline::Taxonomy;
use slugline::testing::entry::read_answer;

use crate::categories::shipped;
use crate::props::cases;

/// Many labels, so that a label of a neighbour is seldom right by chance.
static TAXONOMY: LazyLock<Taxonomy> = LazyLock::new(|| shipped()["newsroom"].clone());

/// One object of an answer. The id is signed, since a model may write any number.
#[derive(Clone, Debug)]
struct Object {
    id: i64,
    label: String,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Compact,
    Spaced,
    Lines,
    StringId,
    LabelFirst,
    MoreFields,
    /// The label by the category's name instead of its id.
    Name,
    /// The label with another case and punctuation.
    Shouted,
    /// The label with escapes.
    Escaped,
}

const FORMS: &[Form] = &[
    Form::Compact,
    Form::Spaced,
    Form::Lines,
    Form::StringId,
    Form::LabelFirst,
    Form::MoreFields,
    Form::Name,
    Form::Shouted,
    Form::Escaped,
];

impl Object {
    fn json(&self) -> String {
        let id = self.id;
        let name = || TAXONOMY.find(&self.label).map_or(self.label.clone(), |category| category.name.clone());
        let label = match self.form {
            Form::Name => name(),
            Form::Shouted => format!(" {}. ", self.label.to_uppercase()),
            _ => self.label.clone(),
        };
        let label = serde_json::to_string(&label).unwrap();
        match self.form {
            Form::Compact | Form::Name | Form::Shouted => format!(r#"{{"id":{id},"category":{label}}}"#),
            Form::Spaced => format!(r#"{{"id": {id}, "category": {label}}}"#),
            Form::Lines => format!("{{\n  \"id\": {id},\n  \"category\": {label}\n}}"),
            Form::StringId => format!(r#"{{"id":"{id}","category":{label}}}"#),
            Form::LabelFirst => format!(r#"{{"category":{label},"id":{id}}}"#),
            Form::MoreFields => {
                format!(
                    r#"{{"id":{id},"title":"a {{\"id\":9}} ] b","category":{label},"score":{{"id":2}},"n":[0.5,null]}}"#
                )
            }
            Form::Escaped => format!(r#"{{"id":{id},"category":{}}}"#, label.replace('o', "\\u006f")),
        }
    }
}

/// How the objects are put together.
#[derive(Clone, Copy, Debug)]
enum Frame {
    Array,
    Items,
    OtherObject,
    LineByLine,
}

impl Frame {
    fn text(self, objects: &[Object]) -> String {
        let objects: Vec<_> = objects.iter().map(Object::json).collect();
        match self {
            Self::Array => format!("[{}]", objects.join(",")),
            Self::Items => format!("{{\"items\": [{}]}}", objects.join(", ")),
            Self::OtherObject => format!("{{\"result\": {{\"labels\": [{}], \"n\": 1}}}}", objects.join(",")),
            Self::LineByLine => objects.join("\n"),
        }
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    select(&[Frame::Array, Frame::Items, Frame::OtherObject, Frame::LineByLine][..])
}

/// The right objects for a pack of up to 16 items, in the order of their ids.
fn right_objects() -> impl Strategy<Value = Vec<Object>> {
    let labels: Vec<_> = TAXONOMY.categories().map(|category| category.id.to_string()).collect();
    proptest::collection::vec((select(labels), select(FORMS)), 1..=16)
        .prop_map(|labels| (1..).zip(labels).map(|(id, (label, form))| Object { id, label, form }).collect())
}

fn truth(objects: &[Object]) -> Vec<Option<String>> {
    objects.iter().map(|object| Some(object.label.clone())).collect()
}

/// What models write around their answers, with the brackets, braces and quotes that could mislead a reader.
const PROSE: &[&str] = &[
    "Sure! Here is the answer you asked for:",
    "I hope this {helps}.",
    "{",
    "}",
    "\"",
    "\\",
    "[1] [2, 3]",
    "{}",
    "{\"note\": ",
    "{\"id\": 1}",
    "{\"id\":1,\"category\":sport}",
    "{\"category\":\"sport\"}",
    "```",
    "```json\n",
    "\n\n",
    "<b>",
    "1. sport",
    "市場 é \u{202e}",
    "\u{0}",
    "null",
];

fn prose() -> impl Strategy<Value = String> {
    proptest::collection::vec(select(PROSE), 0..10).prop_map(|parts| parts.concat())
}

fn thoughts() -> impl Strategy<Value = String> {
    let draft = "Maybe [{\"id\":1,\"category\":\"war\"},{\"id\":2,\"category\":\"sport\"}]? ";
    let part = prop_oneof![1 => Just(draft), 3 => select(PROSE)];
    let block = proptest::collection::vec(part, 0..10).prop_map(|parts| parts.concat());
    prop_oneof![
        Just(String::new()),
        block.clone().prop_map(|block| format!("<think>{block}</think>")),
        // The template wrote the opening tag.
        block.prop_map(|block| format!("{block}</think>\n")),
    ]
}

/// Any text, and text that looks much like an answer.
fn anything() -> impl Strategy<Value = String> {
    let pieces = [
        "[",
        "]",
        "{",
        "}",
        "\"",
        ":",
        ",",
        "\"id\"",
        "\"category\"",
        "\"items\"",
        "1",
        "2",
        "16",
        "17",
        "-1",
        "0.5",
        "1e2",
        "\"1\"",
        "\"sport\"",
        "\"politics\"",
        "\"gossip\"",
        "null",
        "NaN",
        "\\",
        "\\u0031",
        " ",
        "\n",
        "<think>",
        "</think>",
        "{\"id\":1,\"category\":\"sport\"}",
        "{\"id\":2,\"category\":\"politics\"},",
        "{\"items\":[",
        "```",
    ];
    prop_oneof![
        1 => any::<String>(),
        3 => proptest::collection::vec(
            prop_oneof![6 => select(pieces.to_vec()).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)],
            0..40,
        )
        .prop_map(|pieces| pieces.concat()),
    ]
}

/// What may happen to the objects of an answer without any of them changing its owner.
#[derive(Clone, Debug)]
enum Mutation {
    Drop(Index),
    Duplicate(Index, Index),
    /// The same id with another label beside it.
    Contradict(Index, Index),
    Unknown(Index, String),
    /// An object for an item that does not exist.
    Extra(i64, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let word = prop_oneof![Just("gossip".to_owned()), Just(String::new()), any::<String>()];
    prop_oneof![
        any::<Index>().prop_map(Mutation::Drop),
        any::<(Index, Index)>().prop_map(|(which, at)| Mutation::Duplicate(which, at)),
        any::<(Index, Index)>().prop_map(|(which, at)| Mutation::Contradict(which, at)),
        (any::<Index>(), word).prop_map(|(which, word)| Mutation::Unknown(which, word)),
        (select(vec![-1, 0, 17, 18, 100, i64::MAX]), any::<Index>()).prop_map(|(id, at)| Mutation::Extra(id, at)),
    ]
}

fn mutate(objects: &mut Vec<Object>, mutation: &Mutation) {
    if objects.is_empty() {
        return;
    }
    let label_of = |number: usize| TAXONOMY.categories().nth(number % TAXONOMY.len()).unwrap().id.to_string();
    match mutation {
        Mutation::Drop(which) => {
            objects.remove(which.index(objects.len()));
        }
        Mutation::Duplicate(which, at) => {
            let copy = objects[which.index(objects.len())].clone();
            objects.insert(at.index(objects.len() + 1), copy);
        }
        Mutation::Contradict(which, at) => {
            let mut copy = objects[which.index(objects.len())].clone();
            copy.label = label_of(at.index(97));
            objects.insert(at.index(objects.len() + 1), copy);
        }
        Mutation::Unknown(which, word) => {
            let which = which.index(objects.len());
            word.clone_into(&mut objects[which].label);
            objects[which].form = Form::Compact;
            if TAXONOMY.find(word).is_some() {
                objects.remove(which);
            }
        }
        Mutation::Extra(id, at) => {
            let extra = Object { id: *id, label: label_of(at.index(97)), form: Form::Compact };
            objects.insert(at.index(objects.len() + 1), extra);
        }
    }
}

/// A text up to a byte, or to the character that the byte is in.
fn cut(text: &str, at: Index) -> &str {
    &text[..text.floor_char_boundary(at.index(text.len() + 1))]
}

/// Fails when an item has a label that is not its own.
fn check_own(found: &[Option<String>], truth: &[Option<String>], text: &str) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), truth.len());
    for (number, (found, truth)) in (1..).zip(found.iter().zip(truth)) {
        prop_assert!(found.is_none() || found == truth, "item {number} is {truth:?}, not {found:?}, in {text}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn no_text_panics_and_every_item_has_one_result(text in anything(), pack_len in 0_usize..=16, was_cut: bool) {
        let found = read_answer(&text, pack_len, was_cut, &TAXONOMY);
        prop_assert_eq!(found.len(), pack_len);
        for (id, label) in (1..).zip(found) {
            let Some(label) = label else { continue };
            prop_assert!(TAXONOMY.categories().any(|category| category.id.as_str() == label));
            prop_assert!(text.contains(&format!("{id}")), "nobody wrote {id}");
        }
    }

    #[test]
    fn the_form_of_a_right_answer_does_not_matter(
        (objects, shuffled) in right_objects().prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle())),
        frame in frame(),
        thoughts in thoughts(),
        before in prose(),
        after in prose(),
        was_cut: bool,
    ) {
        let text = format!("{thoughts}{before}{}{after}", frame.text(&shuffled));
        prop_assert_eq!(read_answer(&text, objects.len(), was_cut, &TAXONOMY), truth(&objects), "{}", text);
    }

    #[test]
    fn a_damaged_answer_gives_no_item_the_label_of_another(
        (objects, mut damaged) in right_objects().prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle())),
        mutations in proptest::collection::vec(mutation(), 0..4),
        frame in frame(),
        thoughts in thoughts(),
        before in prose(),
        end in proptest::option::of(any::<Index>()),
        was_cut: bool,
    ) {
        let mut doubtful = Vec::new();
        for mutation in &mutations {
            if let Mutation::Contradict(which, _) = mutation {
                doubtful.extend((!damaged.is_empty()).then(|| damaged[which.index(damaged.len())].id));
            }
            mutate(&mut damaged, mutation);
        }
        let text = format!("{thoughts}{before}{}", frame.text(&damaged));
        let text = end.map_or(text.as_str(), |end| cut(&text, end));
        let mut found = read_answer(text, objects.len(), was_cut, &TAXONOMY);
        // Of two labels for one item either may survive a cut or a loss, and no reader can know which was meant.
        let survivors = |id: i64| damaged.iter().filter(|object| object.id == id).count();
        for id in doubtful.into_iter().filter(|id| (1..=objects.len() as i64).contains(id)) {
            let label = &mut found[id as usize - 1];
            if end.is_none() && survivors(id) > 1 {
                prop_assert_eq!(&*label, &None, "item {} was answered twice in {}", id, text);
            }
            *label = None;
        }
        // A cut inside a think block leaves the drafts of the model, where the template wrote the opening tag.
        if thoughts.is_empty() || thoughts.starts_with("<think>") || text.contains("</think>") {
            check_own(&found, &truth(&objects), text)?;
        }
    }

    #[test]
    fn an_answer_that_counts_from_another_number_is_not_believed(
        (objects, mut damaged) in right_objects().prop_flat_map(|objects| (Just(objects.clone()), Just(objects).prop_shuffle())),
        mutations in proptest::collection::vec(mutation(), 0..3),
        offset in -17_i64..=17,
        frame in frame(),
        before in prose(),
        after in prose(),
    ) {
        damaged.iter_mut().for_each(|object| object.id += offset);
        mutations.iter().for_each(|mutation| mutate(&mut damaged, mutation));
        let text = format!("{before}{}{after}", frame.text(&damaged));
        let found = read_answer(&text, objects.len(), false, &TAXONOMY);
        // When every number that shows the shift is lost, what is left reads like an answer that left items out.
        let shows = |object: &Object| object.id == 0 || object.id > objects.len() as i64;
        if offset != 0 && damaged.iter().any(shows) {
            prop_assert!(found.iter().all(Option::is_none), "{found:?} from {text}");
        }
    }
}

#[test]
fn every_cut_of_an_answer_keeps_the_whole_objects_and_nothing_else() {
    let labels: Vec<_> = TAXONOMY.categories().take(12).map(|category| category.id.to_string()).collect();
    for form in FORMS {
        let objects: Vec<_> =
            (1..).zip(&labels).map(|(id, label)| Object { id, label: label.clone(), form: *form }).collect();
        let text = Frame::Array.text(&objects);
        let mut whole_before = 0;
        for end in (0..=text.len()).filter(|&end| text.is_char_boundary(end)) {
            let found = read_answer(&text[..end], objects.len(), true, &TAXONOMY);
            let whole = found.iter().take_while(|label| label.is_some()).count();
            assert_eq!(found[..whole], truth(&objects)[..whole]);
            assert!(found[whole..].iter().all(Option::is_none), "{form:?} cut at {end}");
            assert!(whole == whole_before || whole == whole_before + 1, "{form:?} cut at {end}");
            whole_before = whole;
        }
        assert_eq!(whole_before, objects.len());
    }
}
