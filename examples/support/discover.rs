//! Finds a server to try things with: the one that the environment names, else the first at the usual local ports.
//!
//! | variable | meaning |
//! |---|---|
//! | `SLUGLINE_BASE_URL` | the address, for example `http://gpu-2:8000/v1` |
//! | `SLUGLINE_MODEL` | the model; else the first that the server lists |
//! | `SLUGLINE_API_KEY` | the key; with an address it is sent to that address alone, without one to the local ports |

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

/// Where programs that serve models listen if nobody tells them otherwise.
const LOCAL_SERVERS: [(&str, &str); 4] = [
    ("http://127.0.0.1:8000/v1", "vLLM"),
    ("http://127.0.0.1:8080/v1", "llama.cpp"),
    ("http://127.0.0.1:11434/v1", "Ollama"),
    ("http://127.0.0.1:1234/v1", "LM Studio"),
];
/// Long enough for a server that is busy computing, short enough for four ports of which none answers.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most bytes of a list of models that are read: whatever listens at these ports may answer with anything.
const MOST_BYTES: usize = 1024 * 1024;

/// A server that answered, and what to ask it for.
pub(crate) struct Found {
    /// Its base address.
    pub(crate) base_url: String,
    /// The program that it probably is.
    pub(crate) program: String,
    /// The model to use.
    pub(crate) model: String,
    /// The key to send, if any.
    pub(crate) api_key: Option<String>,
}

/// Looks for a server, and says in a line each where it looked and what was there.
pub(crate) async fn discover(mut say: impl FnMut(&str)) -> Option<Found> {
    let named = variable("SLUGLINE_BASE_URL").map(|url| url.trim_end_matches('/').to_owned());
    let model = variable("SLUGLINE_MODEL");
    let api_key = variable("SLUGLINE_API_KEY");
    let candidates = named
        .iter()
        .map(|url| (url.as_str(), "the server of SLUGLINE_BASE_URL", api_key.as_deref()))
        // A key that goes with an address is none of the business of whatever listens at a local port.
        .chain(LOCAL_SERVERS.map(|(url, program)| (url, program, api_key.as_deref().filter(|_| named.is_none()))));
    // A redirect would carry the key to another address.
    let client =
        reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build().ok()?;
    for (base_url, usual_program, api_key) in candidates {
        match list_models(&client, base_url, api_key).await {
            Ok(models) => {
                let Some(model) = model.clone().or_else(|| first_chat_model(&models)) else {
                    say(&format!(
                        "{base_url} ({usual_program}): answers, but lists no model; SLUGLINE_MODEL can name one"
                    ));
                    continue;
                };
                let program = models.first().and_then(Model::program).unwrap_or(usual_program).to_owned();
                say(&format!("{base_url} ({program}): found, model {model}{}", among(&model, &models)));
                return Some(Found {
                    base_url: base_url.to_owned(),
                    program,
                    model,
                    api_key: api_key.map(str::to_owned),
                });
            }
            Err(reason) => say(&format!("{base_url} ({usual_program}): {reason}")),
        }
    }
    None
}

/// A variable of the environment; empty is the same as not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    owned_by: Option<String>,
}

impl Model {
    /// The program that lists its models in this way.
    fn program(&self) -> Option<&'static str> {
        match self.owned_by.as_deref()? {
            "vllm" => Some("vLLM"),
            "llamacpp" => Some("llama.cpp"),
            "sglang" => Some("SGLang"),
            "library" => Some("Ollama"),
            _ => None,
        }
    }
}

/// The first model that is not made for embeddings alone, which some servers list beside the others.
fn first_chat_model(models: &[Model]) -> Option<String> {
    models.iter().find(|model| !model.id.to_lowercase().contains("embed")).map(|model| model.id.clone())
}

fn among(model: &str, models: &[Model]) -> String {
    match models.len() {
        _ if models.iter().all(|known| known.id != model) => {
            " (of SLUGLINE_MODEL, not among those it lists)".to_owned()
        }
        1 => String::new(),
        many => format!(" (of {many}; SLUGLINE_MODEL can name another)"),
    }
}

/// The models of a server, or in words why it cannot be used.
async fn list_models(client: &reqwest::Client, base_url: &str, key: Option<&str>) -> Result<Vec<Model>, String> {
    let mut request = client.get(format!("{base_url}/models"));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let mut response = request.send().await.map_err(|error| reason(&error).to_owned())?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err("refuses the key; SLUGLINE_API_KEY can hold the right one".to_owned());
        }
        status => return Err(format!("no model server, HTTP {} for /models", status.as_u16())),
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error).to_owned())? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            return Err("no model server, its list of models has no end".to_owned());
        }
    }
    let models: Models =
        serde_json::from_slice(&body).map_err(|_| "no model server, /models is no list of models".to_owned())?;
    Ok(models.data)
}

fn reason(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "nobody there"
    } else if error.is_builder() {
        "not an address"
    } else {
        "no HTTP server"
    }
}
