//! The JSON schema that the server's decoder is held to: derived from the answer's type, then bounded by the number of
//! items and the labels.

use std::sync::{Arc, Mutex, PoisonError};

use schemars::{JsonSchema, schema_for};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::AnswerForm;
use crate::server::StructuredOutput;
use crate::taxonomy::Taxonomy;

/// One object of the answer, as the schema and the worked example state it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
#[expect(dead_code, reason = "the fields are read by the derive alone; answers are read leniently in `read`")]
struct AnswerObject {
    /// The number of the item.
    id: u32,
    /// The id of its category.
    category: String,
}

/// The same for an answer to a single item, without its number.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
#[expect(dead_code, reason = "the field is read by the derive alone; answers are read leniently in `read`")]
struct CategoryObject {
    /// The id of its category.
    category: String,
}

/// The same where an item may have several categories.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
#[expect(dead_code, reason = "the fields are read by the derive alone; answers are read leniently in `read`")]
struct ListObject {
    /// The number of the item.
    id: u32,
    /// The ids of its categories, the main one first.
    categories: Vec<String>,
}

/// Makes one `response_format` per number of items and form, and keeps it, so that its bytes are the same each time and
/// the server's grammar cache hits.
#[derive(Debug)]
pub(crate) struct Schemas {
    answer_form: AnswerForm,
    labels: Vec<String>,
    made: Mutex<Vec<Made>>,
}

/// A schema with what it was made for.
type Made = ((usize, StructuredOutput), Arc<RawValue>);

impl Schemas {
    pub(crate) fn new(taxonomy: &Taxonomy, answer_form: AnswerForm) -> Self {
        let labels = taxonomy.categories().map(|category| category.id.to_string()).collect();
        Self { answer_form, labels, made: Mutex::default() }
    }

    /// The `response_format` for an answer to `pack_len` items; none when the answer is not held to any form.
    pub(crate) fn response_format(&self, pack_len: usize, form: StructuredOutput) -> Option<Arc<RawValue>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, format)) = made.iter().find(|(key, _)| *key == (pack_len, form)) {
            return Some(Arc::clone(format));
        }
        let format: Arc<RawValue> = ordered(&self.format(pack_len, form)?).into();
        made.push(((pack_len, form), Arc::clone(&format)));
        Some(format)
    }

    fn format(&self, pack_len: usize, form: StructuredOutput) -> Option<Value> {
        let element = match self.answer_form {
            AnswerForm::Objects => self.object(pack_len),
            AnswerForm::Several(most) => self.object_with_list(pack_len, most),
            AnswerForm::Category => self.object_without_number(),
            AnswerForm::Bare => json!({"type": "string", "enum": self.labels}),
        };
        let array = json!({"type": "array", "items": element, "minItems": pack_len, "maxItems": pack_len});
        let schema = match form {
            StructuredOutput::JsonSchema => array,
            StructuredOutput::JsonSchemaObject => json!({
                "type": "object",
                "properties": {"items": array},
                "required": ["items"],
                "additionalProperties": false,
            }),
            StructuredOutput::JsonObject => return Some(json!({"type": "json_object"})),
            StructuredOutput::None => return None,
        };
        Some(json!({"type": "json_schema", "json_schema": {"name": "categories", "strict": true, "schema": schema}}))
    }

    fn object(&self, pack_len: usize) -> Value {
        let mut object = schema_for!(AnswerObject).to_value();
        simplify(&mut object);
        object["properties"]["id"]["minimum"] = json!(1);
        object["properties"]["id"]["maximum"] = json!(pack_len);
        object["properties"]["category"]["enum"] = json!(self.labels);
        object
    }

    fn object_without_number(&self) -> Value {
        let mut object = schema_for!(CategoryObject).to_value();
        simplify(&mut object);
        object["properties"]["category"]["enum"] = json!(self.labels);
        object
    }

    fn object_with_list(&self, pack_len: usize, most: u8) -> Value {
        let mut object = schema_for!(ListObject).to_value();
        simplify(&mut object);
        object["properties"]["id"]["minimum"] = json!(1);
        object["properties"]["id"]["maximum"] = json!(pack_len);
        let list = &mut object["properties"]["categories"];
        list["items"]["enum"] = json!(self.labels);
        list["minItems"] = json!(1);
        list["maxItems"] = json!(most);
        object
    }
}

/// Drops what the derive adds and grammar compilers refuse or waste time on: formats, titles, descriptions, the dialect.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(entries) => {
            for key in ["$schema", "title", "description", "format"] {
                if entries.get(key).is_some_and(Value::is_string) {
                    entries.remove(key);
                }
            }
            entries.values_mut().for_each(simplify);
        }
        Value::Array(values) => values.iter_mut().for_each(simplify),
        _ => {}
    }
}

/// The order of keys in the text. Some grammar compilers generate object members in the order of `properties`, and `id`
/// must come before `category`; the order of a `serde_json` map depends on a feature that any other crate may turn on.
const ORDER: &[&str] = &[
    "type",
    "json_schema",
    "name",
    "strict",
    "schema",
    "properties",
    "id",
    "category",
    "categories",
    "items",
    "minimum",
    "maximum",
    "enum",
    "minItems",
    "maxItems",
    "required",
    "additionalProperties",
];

fn ordered(value: &Value) -> Box<RawValue> {
    let mut text = String::with_capacity(1_024);
    write_ordered(&mut text, value);
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn write_ordered(out: &mut String, value: &Value) {
    match value {
        Value::Object(entries) => write_object(out, entries),
        Value::Array(values) => {
            out.push('[');
            for (number, value) in values.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write_ordered(out, value);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

fn write_object(out: &mut String, entries: &Map<String, Value>) {
    let rank = |key: &str| ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len());
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
    out.push('{');
    for (number, (key, value)) in sorted.into_iter().enumerate() {
        if number > 0 {
            out.push(',');
        }
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push(':');
        write_ordered(out, value);
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn schemas(answer_form: AnswerForm) -> Schemas {
        let categories = [Category::new("sport", "S", "Games."), Category::new("other", "O", "None.")];
        Schemas::new(&Taxonomy::new("t", "1", categories).unwrap(), answer_form)
    }

    #[test]
    fn the_array_is_bounded_by_items_and_labels() {
        assert_eq!(
            schemas(AnswerForm::Objects).response_format(3, StructuredOutput::JsonSchema).unwrap().get(),
            r#"{"type":"json_schema","json_schema":{"name":"categories","strict":true,"schema":{"type":"array","items":{"type":"object","properties":{"id":{"type":"integer","minimum":1,"maximum":3},"category":{"type":"string","enum":["sport","other"]}},"required":["id","category"],"additionalProperties":false},"minItems":3,"maxItems":3}}}"#
        );
    }

    #[test]
    fn an_object_root_wraps_the_array() {
        let format = schemas(AnswerForm::Objects).response_format(1, StructuredOutput::JsonSchemaObject).unwrap();
        assert!(format.get().contains(r#""schema":{"type":"object","properties":{"items":{"type":"array""#));
    }

    #[test]
    fn bare_labels_are_strings() {
        let format = schemas(AnswerForm::Bare).response_format(1, StructuredOutput::JsonSchema).unwrap();
        assert!(format.get().contains(
            r#""schema":{"type":"array","items":{"type":"string","enum":["sport","other"]},"minItems":1,"maxItems":1}"#
        ));
    }

    #[test]
    fn lists_of_labels_are_bounded() {
        let format = schemas(AnswerForm::Several(3)).response_format(2, StructuredOutput::JsonSchema).unwrap();
        let expected = r#""properties":{"id":{"type":"integer","minimum":1,"maximum":2},"categories":{"type":"array","items":{"type":"string","enum":["sport","other"]},"minItems":1,"maxItems":3}},"required":["id","categories"]"#;
        assert!(format.get().contains(expected), "{}", format.get());
    }

    #[test]
    fn one_schema_per_length_is_made_once() {
        let schemas = schemas(AnswerForm::Objects);
        let format = |length| schemas.response_format(length, StructuredOutput::JsonSchema).unwrap();
        let first = format(2);
        assert!(Arc::ptr_eq(&first, &format(2)));
        assert!(!Arc::ptr_eq(&first, &format(3)));
    }
}
