//! From the JSON schema of an answer to its text, with gaps where the model may choose.

use serde_json::Value;

/// The most parts of an answer: more than any request of slugline has, and little enough to hold.
const MOST_PARTS: usize = 1_000;

/// An answer of a known form: a fixed text, then for each gap the alternatives and the fixed text that follows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Form {
    pub(crate) opening: String,
    pub(crate) gaps: Vec<Gap>,
    parts: usize,
}

/// A place where the model chooses.
#[derive(Debug, PartialEq)]
pub(crate) struct Gap {
    /// As they stand between the quotes of a JSON string.
    pub(crate) alternatives: Vec<String>,
    pub(crate) then: String,
}

/// A schema that does not fix the form of the answer.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("response_format: this server fills in the gaps of a JSON schema, which {0}")]
pub(crate) struct Refused(&'static str);

impl Form {
    /// Reads the `response_format` of a request.
    ///
    /// # Errors
    ///
    /// When it is no JSON schema, or one that leaves more open than one of several strings at each place: lists of varying
    /// length, free text, numbers.
    pub(crate) fn of(response_format: &Value) -> Result<Self, Refused> {
        let schema = &response_format["json_schema"]["schema"];
        if !schema.is_object() {
            return Err(Refused("is missing"));
        }
        let mut form = Self::default();
        form.add(schema, 1)?;
        Ok(form)
    }

    /// Adds a value, the `number`th of its array.
    fn add(&mut self, schema: &Value, number: u64) -> Result<(), Refused> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(Refused("has too many parts"));
        }
        match schema["type"].as_str() {
            Some("array") => self.add_array(schema),
            Some("object") => self.add_object(schema, number),
            Some("integer") => self.add_integer(schema, number),
            Some("string") => self.add_string(schema),
            _ => Err(Refused("has a type other than array, object, integer and string")),
        }
    }

    fn add_array(&mut self, schema: &Value) -> Result<(), Refused> {
        let length = schema["minItems"].as_u64().filter(|length| schema["maxItems"].as_u64() == Some(*length));
        let length = length.ok_or(Refused("has an array without one length, minItems = maxItems"))?;
        self.push("[");
        for number in 1..=length {
            if number > 1 {
                self.push(",");
            }
            self.add(&schema["items"], number)?;
        }
        self.push("]");
        Ok(())
    }

    fn add_object(&mut self, schema: &Value, number: u64) -> Result<(), Refused> {
        let properties = schema["properties"].as_object().ok_or(Refused("has an object without properties"))?;
        self.push("{");
        for (at, (name, value)) in properties.iter().enumerate() {
            if at > 0 {
                self.push(",");
            }
            self.push(&format!("{}:", Value::from(name.as_str())));
            self.add(value, number)?;
        }
        self.push("}");
        Ok(())
    }

    /// The ids of an array count up; they are not the model's to choose.
    fn add_integer(&mut self, schema: &Value, number: u64) -> Result<(), Refused> {
        let bound = |name: &str| schema[name].as_u64().ok_or(Refused("has an integer without minimum and maximum"));
        if !(bound("minimum")?..=bound("maximum")?).contains(&number) {
            return Err(Refused("has an integer that does not count the items"));
        }
        self.push(&number.to_string());
        Ok(())
    }

    fn add_string(&mut self, schema: &Value) -> Result<(), Refused> {
        let strings = schema["enum"].as_array().filter(|strings| !strings.is_empty());
        let strings = strings.ok_or(Refused("has a string without alternatives"))?;
        let inner = |string: &Value| {
            let quoted = string.as_str().map(|string| Value::from(string).to_string());
            quoted
                .map(|quoted| quoted[1..quoted.len() - 1].to_owned())
                .ok_or(Refused("has an alternative that is no string"))
        };
        let mut alternatives = strings.iter().map(inner).collect::<Result<Vec<_>, _>>()?;
        alternatives.sort_unstable();
        alternatives.dedup();
        self.push("\"");
        self.gaps.push(Gap { alternatives, then: "\"".to_owned() });
        Ok(())
    }

    fn push(&mut self, text: &str) {
        self.gaps.last_mut().map_or(&mut self.opening, |gap| &mut gap.then).push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: &Value) -> Result<Form, Refused> {
        Form::of(&json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}))
    }

    fn gap(alternatives: &[&str], then: &str) -> Gap {
        Gap { alternatives: alternatives.iter().map(|&text| text.to_owned()).collect(), then: then.to_owned() }
    }

    #[test]
    fn the_schema_of_slugline_is_filled_in() {
        let id = json!({"type": "integer", "minimum": 1, "maximum": 2});
        let label = json!({"type": "string", "enum": ["sport", "art"]});
        let object = json!({"type": "object", "properties": {"id": id, "category": label}});
        let array = json!({"type": "array", "items": object, "minItems": 2, "maxItems": 2});
        let labels: &[&str] = &["art", "sport"];
        let form = of(&array).unwrap();
        assert_eq!(form.opening, r#"[{"id":1,"category":""#);
        assert_eq!(form.gaps, [gap(labels, r#""},{"id":2,"category":""#), gap(labels, r#""}]"#)]);
        let wrapped = of(&json!({"type": "object", "properties": {"items": array}})).unwrap();
        assert_eq!(
            (wrapped.opening.as_str(), wrapped.gaps[1].then.as_str()),
            (r#"{"items":[{"id":1,"category":""#, r#""}]}"#)
        );
    }

    #[test]
    fn bare_labels_are_quoted_and_escaped() {
        let array =
            json!({"type": "array", "items": {"type": "string", "enum": ["a\"b"]}, "minItems": 1, "maxItems": 1});
        let form = of(&array).unwrap();
        assert_eq!((form.opening.as_str(), form.gaps), ("[\"", vec![gap(&["a\\\"b"], "\"]")]));
    }

    #[test]
    fn what_leaves_more_open_is_refused() {
        let label = json!({"type": "string", "enum": ["a"]});
        for schema in [
            json!({"type": "array", "items": label, "minItems": 1, "maxItems": 3}),
            json!({"type": "array", "items": label, "minItems": 1001, "maxItems": 1001}),
            json!({"type": "integer", "minimum": 2, "maximum": 3}),
            json!({"type": "integer"}),
            json!({"type": "string"}),
            json!({"type": "string", "enum": [1]}),
            json!({"type": "object"}),
            json!({"type": "number"}),
        ] {
            assert!(of(&schema).is_err(), "{schema}");
        }
        assert!(Form::of(&json!({"type": "json_object"})).is_err());
        assert!(Form::of(&Value::Null).is_err());
    }
}
