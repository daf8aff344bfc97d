//! What a request asks for, from the JSON of either endpoint.

use serde::Deserialize;
use serde_json::Value;

use super::answer::Element;
use super::prompt;

/// A request, whichever endpoint it came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ask {
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    /// The text that holds the taxonomy.
    pub(super) prefix: String,
    /// The text that holds the items.
    pub(super) message: String,
    pub(super) max_tokens: Option<usize>,
    pub(super) format: Format,
    /// How many alternatives are asked for at each token; none when no log-probabilities are.
    pub(super) top_logprobs: Option<usize>,
    /// Whether to write on after the answer, up to `max_tokens`.
    pub(super) ignores_eos: bool,
}

/// The endpoint decides the shape of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
}

/// The `response_format`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Format {
    #[default]
    Text,
    JsonObject,
    JsonSchema(SchemaFacts),
}

/// What the simulation takes from a schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SchemaFacts {
    pub(super) root_is_object: bool,
    /// What the array is of.
    pub(super) element: Element,
    /// The root is the object of one item: it has a `category`.
    pub(super) is_single: bool,
    /// The most labels of an item, where it has a list of `categories`; else 0.
    pub(super) most_labels: usize,
    /// The labels that `category` may have; empty when the schema does not say.
    pub(super) labels: Vec<String>,
}

#[derive(Deserialize)]
struct ChatRequest {
    model: String,
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    response_format: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct CompletionRequest {
    model: String,
    prompt: String,
    max_tokens: Option<usize>,
    response_format: Option<Value>,
    logprobs: Option<usize>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    stream: bool,
}

/// The most alternatives at a token that vLLM gives by default.
const MAX_TOP_LOGPROBS: usize = 20;

impl Ask {
    /// Reads the body of a request; the error is the message of a 400.
    pub(super) fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, String> {
        let ask = match endpoint {
            Endpoint::Chat => Self::read_chat(body)?,
            Endpoint::Completions => Self::read_completion(body)?,
        };
        if let Some(top) = ask.top_logprobs.filter(|top| *top > MAX_TOP_LOGPROBS) {
            return Err(format!(
                "Requested sample logprobs of {top}, which is greater than max allowed: {MAX_TOP_LOGPROBS}"
            ));
        }
        if ask.max_tokens == Some(0) {
            return Err("max_tokens must be at least 1, got 0.".to_owned());
        }
        Ok(ask)
    }

    fn read_chat(body: &[u8]) -> Result<Self, String> {
        let request: ChatRequest = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        refuse_stream(request.stream)?;
        if request.top_logprobs.is_some() && request.logprobs != Some(true) {
            return Err("when using `top_logprobs`, `logprobs` must be set to true.".to_owned());
        }
        let text_of = |is_wanted: &dyn Fn(&str) -> bool| {
            let texts = request.messages.iter().filter(|message| is_wanted(&message.role));
            texts.map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n")
        };
        Ok(Self {
            endpoint: Endpoint::Chat,
            prefix: text_of(&|role| matches!(role, "system" | "developer")),
            message: text_of(&|role| role == "user"),
            max_tokens: request.max_completion_tokens.or(request.max_tokens),
            format: Format::read(request.response_format.as_ref())?,
            top_logprobs: request.logprobs.unwrap_or(false).then(|| request.top_logprobs.unwrap_or(0)),
            ignores_eos: request.ignore_eos,
            model: request.model,
        })
    }

    fn read_completion(body: &[u8]) -> Result<Self, String> {
        let request: CompletionRequest = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        refuse_stream(request.stream)?;
        let (prefix, message) = prompt::split_completion(&request.prompt);
        Ok(Self {
            endpoint: Endpoint::Completions,
            prefix: prefix.to_owned(),
            message: message.to_owned(),
            // The legacy endpoint's own default.
            max_tokens: request.max_tokens.or(Some(16)),
            format: Format::read(request.response_format.as_ref())?,
            top_logprobs: request.logprobs,
            ignores_eos: request.ignore_eos,
            model: request.model,
        })
    }
}

fn refuse_stream(stream: bool) -> Result<(), String> {
    if stream { Err("The simulated server does not stream.".to_owned()) } else { Ok(()) }
}

impl Format {
    fn read(format: Option<&Value>) -> Result<Self, String> {
        let Some(format) = format.filter(|format| !format.is_null()) else { return Ok(Self::Text) };
        match format["type"].as_str() {
            Some("text") => Ok(Self::Text),
            Some("json_object") => Ok(Self::JsonObject),
            Some("json_schema") => match &format["json_schema"]["schema"] {
                schema @ Value::Object(_) => Ok(Self::JsonSchema(SchemaFacts::read(schema))),
                _ => Err("`json_schema.schema` is required when response_format is json_schema".to_owned()),
            },
            _ => Err(format!("Unsupported response_format type: {}", format["type"])),
        }
    }

    /// What the array of the answer is of: as the schema says, else as the example in the prompt does.
    pub(super) fn element(&self, prefix: &str) -> Element {
        let says = |example: &str| prefix.contains(&format!("for example [{example}"));
        match self {
            Self::JsonSchema(schema) => schema.element,
            _ if says("\"") => Element::Bare,
            _ if says("{\"category\"") => Element::Category,
            _ if self.most_labels(prefix) > 1 => Element::List,
            _ => Element::Numbered,
        }
    }

    /// The most labels of an item, where it may have several: as the schema says, else as the prompt does.
    pub(super) fn most_labels(&self, prefix: &str) -> usize {
        let said = || prefix.split_once(", one to ")?.1.split(' ').next()?.parse().ok();
        match self {
            Self::Text | Self::JsonObject => said().unwrap_or(1),
            Self::JsonSchema(schema) => schema.most_labels.max(1),
        }
    }

    /// Whether the answer must be an object at its top.
    pub(super) fn root_is_object(&self) -> bool {
        match self {
            Self::Text => false,
            Self::JsonObject => true,
            Self::JsonSchema(schema) => schema.root_is_object,
        }
    }
}

impl SchemaFacts {
    fn read(schema: &Value) -> Self {
        let root_is_object = schema["type"] == "object";
        let array = if root_is_object { &schema["properties"]["items"] } else { schema };
        let is_single = root_is_object && schema["properties"]["category"].is_object();
        let item = if is_single { schema } else { &array["items"] };
        let properties = &item["properties"];
        let list = &properties["categories"];
        let most_labels = list["maxItems"].as_u64().map_or(0, |most| most as usize);
        let (element, label) = match item["type"] == "string" {
            true => (Element::Bare, item),
            false if list.is_object() => (Element::List, &list["items"]),
            false if properties["id"].is_object() => (Element::Numbered, &properties["category"]),
            false => (Element::Category, &properties["category"]),
        };
        let labels = label["enum"].as_array();
        let labels = labels.into_iter().flatten().filter_map(|label| label.as_str().map(str::to_owned)).collect();
        Self { root_is_object, element, is_single, most_labels, labels }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn chat(body: &Value) -> Result<Ask, String> {
        Ask::read(Endpoint::Chat, body.to_string().as_bytes())
    }

    #[test]
    fn a_chat_request_is_read() {
        let array = json!({"type": "array", "minItems": 1, "maxItems": 1, "items": {"type": "object", "properties":
            {"id": {"type": "integer"}, "category": {"type": "string", "enum": ["sport", "other"]}}}});
        let format = |schema: &Value| json!({"type": "json_schema", "json_schema": {"name": "c", "schema": schema}});
        let body = |format: &Value| {
            json!({"model": "m", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
                "max_tokens": 9, "temperature": 0, "logprobs": true, "top_logprobs": 20, "response_format": format})
        };
        let ask = chat(&body(&format(&array))).unwrap();
        assert_eq!((ask.model.as_str(), ask.prefix.as_str(), ask.message.as_str()), ("m", "S", "U"));
        assert_eq!((ask.max_tokens, ask.top_logprobs), (Some(9), Some(20)));
        let labels = vec!["sport".to_owned(), "other".to_owned()];
        let facts = SchemaFacts { labels, ..SchemaFacts::default() };
        assert_eq!(ask.format, Format::JsonSchema(facts.clone()));
        let object = json!({"type": "object", "properties": {"items": array}});
        let ask = chat(&body(&format(&object))).unwrap();
        assert_eq!(ask.format, Format::JsonSchema(SchemaFacts { root_is_object: true, ..facts.clone() }));
        assert!(ask.format.root_is_object());
        let single =
            json!({"type": "object", "properties": {"category": {"enum": ["sport", "other"], "type": "string"}}});
        let ask = chat(&body(&format(&single))).unwrap();
        let expected = SchemaFacts { root_is_object: true, is_single: true, element: Element::Category, ..facts };
        assert_eq!(ask.format, Format::JsonSchema(expected));
    }

    #[test]
    fn a_completion_request_is_read() {
        let body = json!({"model": "m", "prompt": "P\n[{\"id\":1}]\nI", "logprobs": 5}).to_string();
        let ask = Ask::read(Endpoint::Completions, body.as_bytes()).unwrap();
        assert_eq!((ask.prefix.as_str(), ask.message.as_str()), ("P\n[{\"id\":1}]\n", "I"));
        assert_eq!((ask.max_tokens, ask.top_logprobs, ask.format), (Some(16), Some(5), Format::Text));
    }

    #[test]
    fn what_vllm_refuses_is_refused() {
        let with = |key: &str, value: Value| {
            let mut body = json!({"model": "m", "messages": []});
            body[key] = value;
            chat(&body).unwrap_err()
        };
        assert!(with("top_logprobs", json!(3)).contains("`logprobs` must be set"));
        assert!(with("max_tokens", json!(0)).contains("at least 1"));
        assert!(with("response_format", json!({"type": "grammar"})).contains("Unsupported"));
        assert!(with("response_format", json!({"type": "json_schema"})).contains("required"));
        assert!(with("stream", json!(true)).contains("stream"));
        let both = json!({"model": "m", "messages": [], "logprobs": true, "top_logprobs": 21});
        assert!(chat(&both).unwrap_err().contains("greater than max allowed: 20"));
        assert!(Ask::read(Endpoint::Chat, b"{").is_err());
    }
}
