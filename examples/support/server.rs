//! The flags that name the servers and say how to use them, for the examples that have no defaults of their own.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser};
use slugline::{Categorizer, CategorizerBuilder, EndpointConfig, Taxonomy};

/// The servers, as most examples take them.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) endpoints: EndpointArgs,

    /// The model, by the name that the servers have for it
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// The most requests in flight at each server, from the start on, 1 to 128 [default: starts at 10, at most 25]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
}

/// The servers and how long they may take.
#[derive(Debug, Args)]
pub(crate) struct EndpointArgs {
    /// A server; given more than once, the servers share the load [example: `http://localhost:8000/v1`]
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Vec<String>,

    /// The time for one attempt, fractions allowed [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Option<Duration>,

    /// How often a request is sent again after a timeout, a lost connection or a server error, 0 to 100 [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) max_retries: Option<u32>,

    /// The most requests per minute to each server [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) requests_per_minute: Option<NonZeroU32>,

    /// The most tokens per minute to each server, prompt and output together [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) tokens_per_minute: Option<NonZeroU32>,

    /// How long to wait while no server answers, before it stops [default: 600, and 30 for servers that never answered]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) patience: Option<Duration>,

    /// The environment variable that holds the key of the servers [default: no key]
    #[arg(long, value_name = "NAME")]
    pub(crate) api_key_env: Option<String>,

    /// A field that all requests have, as for a model that would think before it answers; may be given several times
    /// [example: chat_template_kwargs={"enable_thinking":false}]
    #[arg(long, value_name = "NAME=JSON", value_parser = field)]
    pub(crate) request_field: Vec<(String, serde_json::Value)>,
}

impl ServerArgs {
    /// A builder as the flags describe it.
    pub(crate) fn builder(&self, taxonomy: Taxonomy) -> Result<CategorizerBuilder, String> {
        let model = self.model.as_ref().ok_or("the model of the servers is needed: --model names it (try --help)")?;
        let endpoint = |base_url: &str, _: Option<&str>| Ok(EndpointConfig::new(base_url));
        let builder = self.endpoints.builder(taxonomy, endpoint)?.model(model);
        Ok(with(builder, self.concurrency, |builder, n| builder.concurrency(n).max_concurrency(n)))
    }
}

impl EndpointArgs {
    /// A builder as the flags describe it, without a model. `endpoint` makes each endpoint of its address and the key.
    pub(crate) fn builder(
        &self,
        taxonomy: Taxonomy,
        mut endpoint: impl FnMut(&str, Option<&str>) -> Result<EndpointConfig, String>,
    ) -> Result<CategorizerBuilder, String> {
        if self.base_url.is_empty() {
            return Err("a server is needed: --base-url names it (try --help)".to_owned());
        }
        let mut builder = Categorizer::builder(taxonomy);
        let key = self.api_key()?;
        for base_url in &self.base_url {
            builder = builder.endpoint(endpoint(base_url, key.as_deref())?);
        }
        let fields = self.request_field.iter();
        let builder = fields.fold(builder, |builder, (name, value)| builder.request_field(name, value));
        let builder = with(builder, key, CategorizerBuilder::api_key);
        let builder = with(builder, self.timeout, CategorizerBuilder::timeout);
        let builder = with(builder, self.max_retries, CategorizerBuilder::transport_retries);
        let builder = with(builder, self.requests_per_minute, CategorizerBuilder::requests_per_minute);
        let builder = with(builder, self.tokens_per_minute, CategorizerBuilder::tokens_per_minute);
        Ok(with(builder, self.patience, CategorizerBuilder::patience))
    }

    /// The key, if one is wanted. A key that is wanted and not there must not become a run without one.
    fn api_key(&self) -> Result<Option<String>, String> {
        let Some(name) = &self.api_key_env else { return Ok(None) };
        let problem = match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => return Ok(Some(key)),
            Ok(_) => "is empty",
            Err(std::env::VarError::NotPresent) => "is not set",
            Err(std::env::VarError::NotUnicode(_)) => "is not text",
        };
        Err(format!("the environment variable {name}, named by --api-key-env, {problem}"))
    }
}

/// Sets an option that was given, and leaves the others to the library's defaults.
pub(crate) fn with<T>(
    builder: CategorizerBuilder,
    value: Option<T>,
    set: impl FnOnce(CategorizerBuilder, T) -> CategorizerBuilder,
) -> CategorizerBuilder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// Reads a command line. The error is the exit code after help, or one line of complaint, was printed.
pub(crate) fn read_args<A: Parser>(complain: impl FnOnce(&str)) -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Help or the version, as asked for. Nobody is left to tell if they cannot be printed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        complain(&one_line(&error.to_string()));
        ExitCode::FAILURE
    })
}

/// clap's complaint without its usage text, which --help shows.
fn one_line(complaint: &str) -> String {
    let mut out = String::new();
    for paragraph in complaint.split("\n\n").map(str::trim) {
        if paragraph.is_empty() || paragraph.starts_with("Usage:") || paragraph.starts_with("For more information") {
            continue;
        }
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let separator = if out.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(out, "{separator}{}", words.trim_start_matches("error: "));
    }
    out + " (try --help)"
}

/// The longest time that a flag takes, in seconds: 30 days.
const MOST_SECONDS: f64 = 30.0 * 86_400.0;

fn field(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("must be a name, an equals sign and JSON")?;
    let value = serde_json::from_str(value).map_err(|error| format!("behind the equals sign is no JSON: {error}"))?;
    Ok((name.to_owned(), value))
}

pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.0..=MOST_SECONDS).contains(&seconds) {
        return Err(format!("must be 0 to {MOST_SECONDS} seconds"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
