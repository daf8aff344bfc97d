//! The transport for real servers: async-openai builds and signs the request, our own tower service below it sends it
//! once and reads status, headers and a bounded body, whatever they are.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_openai::Client;
use async_openai::config::Config;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use bytes::BytesMut;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use serde::de::IgnoredAny;

use super::metrics::ServerMetrics;
use super::transport::{BoxFuture, Response, Transport, TransportError, TransportErrorKind, parse_retry_after};
use super::wire::Request;
use crate::error::Error;

/// The most bytes of a response that are read. An answer to sixteen items with log-probabilities takes a fortieth of it.
pub(crate) const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the metrics may take; they are only a hint.
const METRICS_TIMEOUT: Duration = Duration::from_secs(2);

/// The transport that an endpoint has when it is given no other: to put something of one's own over it, such as a
/// [`Probe`](crate::load::Probe). The address is one such as `http://localhost:8000/v1`, the key is sent as a bearer token.
///
/// # Errors
/// [`Error::Configuration`] for an address that is none, or a key that no header can carry.
pub fn http_transport(base_url: &str, api_key: Option<&str>) -> Result<impl Transport + use<>, Error> {
    let key = api_key.map(|key| SecretString::from(key.trim().to_owned()));
    let base_url = checked_address(base_url.trim().trim_end_matches('/'));
    let transport = base_url.and_then(|base_url| OpenAiTransport::new(base_url, key.as_ref()));
    transport.map_err(|problem| Error::configuration([problem]))
}

/// The base address if requests can be sent to it.
pub(crate) fn checked_address(base_url: &str) -> Result<&str, String> {
    let url = reqwest::Url::parse(base_url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let Some(url) = url.filter(reqwest::Url::has_host) else {
        return Err(format!("{base_url:?} is no address: it should look like http://localhost:8000/v1"));
    };
    if url.path().ends_with("/completions") {
        return Err(format!("{base_url} should be the part before /chat/completions or /completions"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address must not have a user or password: set a key instead".to_owned());
    }
    Ok(base_url)
}

/// Sends requests through async-openai.
pub(crate) struct OpenAiTransport {
    client: Client<EndpointAddress>,
    http: reqwest::Client,
    /// Where vLLM, SGLang and llama.cpp have their metrics: beside the API, not below it.
    metrics_url: Option<reqwest::Url>,
}

impl fmt::Debug for OpenAiTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OpenAiTransport")
            .field("base_url", &self.client.config().base_url)
            .finish_non_exhaustive()
    }
}

impl OpenAiTransport {
    /// A transport to an address such as `http://localhost:8000/v1`.
    ///
    /// The error is a configuration problem in words.
    pub(crate) fn new(base_url: &str, key: Option<&SecretString>) -> Result<Self, String> {
        let builder = reqwest::Client::builder();
        // What the environment says of proxies is for other machines.
        let builder = if is_on_this_machine(base_url) { builder.no_proxy() } else { builder };
        let http = builder
            .connect_timeout(CONNECT_TIMEOUT)
            // Attempts must be countable, and a redirect would carry the prompt to an address that nobody configured.
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()
            .map_err(|error| format!("the HTTP client cannot be built: {error}"))?;
        let address = EndpointAddress::new(base_url, key)?;
        let client = Client::build(http.clone(), address).with_http_service(SingleAttempt { http: http.clone() });
        let metrics_url = reqwest::Url::parse(base_url).ok().and_then(|url| url.join("/metrics").ok());
        Ok(Self { client, http, metrics_url })
    }
}

fn is_on_this_machine(base_url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(base_url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Transport for OpenAiTransport {
    fn send<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<Response, TransportError>> {
        Box::pin(async move {
            let over: Result<IgnoredAny, _> = match request {
                Request::Chat(request) => self.client.chat().create_byot(request).await,
                Request::Completion(request) => self.client.completions().create_byot(request).await,
            };
            let lost = |reason| Err(TransportError::new(TransportErrorKind::Interrupted, reason));
            match over {
                Err(OpenAIError::Boxed(error)) => match error.downcast::<Over>() {
                    Ok(over) => over.0,
                    Err(error) => lost(error.to_string()),
                },
                Err(error) => lost(without_request(&error)),
                // Not from the service below.
                Ok(IgnoredAny) => lost("the client failed".to_owned()),
            }
        })
    }

    fn metrics(&self) -> BoxFuture<'_, Option<ServerMetrics>> {
        Box::pin(async move {
            let request = self.http.get(self.metrics_url.clone()?).timeout(METRICS_TIMEOUT).build().ok()?;
            let response = exchange(&self.http, request).await.ok().filter(|response| response.http_status == 200)?;
            ServerMetrics::parse(std::str::from_utf8(&response.body).ok()?)
        })
    }
}

/// async-openai's errors can quote a body; the reason must not.
fn without_request(error: &OpenAIError) -> String {
    match error {
        OpenAIError::Reqwest(error) => reason_of(error),
        OpenAIError::JSONDeserialize(error, _) => error.to_string(),
        OpenAIError::InvalidArgument(_) => "the request could not be built".to_owned(),
        _ => "the client failed".to_owned(),
    }
}

/// The address of an endpoint with its key, set explicitly: async-openai's own configuration would take a key from the
/// environment and send it to any server.
#[derive(Clone)]
struct EndpointAddress {
    base_url: Arc<str>,
    key: SecretString,
    headers: HeaderMap,
}

impl EndpointAddress {
    fn new(base_url: &str, key: Option<&SecretString>) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                .map_err(|_| format!("the key for {base_url} has characters that no HTTP header can carry"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let key = key.cloned().unwrap_or_else(|| SecretString::from(String::new()));
        Ok(Self { base_url: base_url.into(), key, headers })
    }
}

impl Config for EndpointAddress {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }
    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }
    fn api_base(&self) -> &str {
        &self.base_url
    }
    fn api_key(&self) -> &SecretString {
        &self.key
    }
}

/// What came of a request, carried around async-openai as an error: it would lose the status, log a body that is no JSON,
/// and parse and copy one that is.
#[derive(Debug, thiserror::Error)]
#[error("the request is over")]
struct Over(Result<Response, TransportError>);

/// Sends a request exactly once and reads the response whole.
#[derive(Clone, Debug)]
struct SingleAttempt {
    http: reqwest::Client,
}

impl tower::Service<HttpRequestFactory> for SingleAttempt {
    type Response = reqwest::Response;
    type Error = tower::BoxError;
    type Future = BoxFuture<'static, Result<reqwest::Response, tower::BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, factory: HttpRequestFactory) -> Self::Future {
        let http = self.http.clone();
        Box::pin(async move {
            let request = factory.build().await?;
            Err(Over(exchange(&http, request).await).into())
        })
    }
}

async fn exchange(http: &reqwest::Client, request: reqwest::Request) -> Result<Response, TransportError> {
    let lost = |error: reqwest::Error| {
        let kind = if error.is_connect() { TransportErrorKind::Connect } else { TransportErrorKind::Interrupted };
        TransportError::new(kind, reason_of(&error))
    };
    let mut reply = http.execute(request).await.map_err(lost)?;
    let header = |name: &str| reply.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(RETRY_AFTER.as_str()).and_then(|value| parse_retry_after(value, SystemTime::now()));
    let request_id = header("x-request-id").map(|id| id.chars().take(80).collect());
    let http_status = reply.status().as_u16();

    let mut body = BytesMut::new();
    while let Some(chunk) = reply.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            let reason = format!("more than {MAX_RESPONSE_BYTES} bytes");
            return Err(TransportError::new(TransportErrorKind::TooLarge, reason));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Response { http_status, retry_after, request_id, body: body.freeze() })
}

/// The innermost cause, without the address, which the failure names already.
fn reason_of(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if std::ptr::eq(cause, std::ptr::from_ref::<dyn std::error::Error>(error)) {
        return "the request failed".to_owned();
    }
    cause.to_string()
}
