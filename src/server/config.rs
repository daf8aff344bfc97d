//! How an endpoint is configured.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use secrecy::SecretString;

use super::transport::Transport;

/// How to reach one server.
///
/// What is not set here is taken from the [`CategorizerBuilder`](crate::CategorizerBuilder).
///
/// Defaults: the builder's model and rates, no key, weight 1.
///
/// ```
/// use slugline::EndpointConfig;
///
/// let endpoint = EndpointConfig::new("http://gpu-2:8000/v1").model("Qwen/Qwen2.5-7B-Instruct-AWQ").weight(2);
/// ```
#[derive(Clone)]
pub struct EndpointConfig {
    pub(crate) base_url: String,
    pub(crate) model: Option<String>,
    pub(crate) key: Option<SecretString>,
    pub(crate) weight: u32,
    pub(crate) requests_per_minute: Option<NonZeroU32>,
    pub(crate) tokens_per_minute: Option<NonZeroU32>,
    pub(crate) transport: Option<Arc<dyn Transport>>,
}

impl EndpointConfig {
    /// An endpoint at a base address such as `http://localhost:8000/v1`, the part before `/chat/completions`.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            model: None,
            key: None,
            weight: 1,
            requests_per_minute: None,
            tokens_per_minute: None,
            transport: None,
        }
    }

    /// The model's name on this server.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// The key, sent as a bearer token to this endpoint alone. White space around it is dropped. Nothing is ever taken
    /// from the environment.
    #[must_use]
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        let key: String = key.into();
        self.key = Some(SecretString::from(key.trim().to_owned()));
        self
    }

    /// How much of the load this endpoint takes beside the others, at least 1. Default: 1.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// The most requests per minute to this endpoint. Default: no limit.
    #[must_use]
    pub fn requests_per_minute(mut self, rate: NonZeroU32) -> Self {
        self.requests_per_minute = Some(rate);
        self
    }

    /// The most tokens per minute to this endpoint, prompt and allowed output together. Default: no limit.
    #[must_use]
    pub fn tokens_per_minute(mut self, rate: NonZeroU32) -> Self {
        self.tokens_per_minute = Some(rate);
        self
    }

    /// Sends through this transport instead of HTTP; the address is then only a name.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EndpointConfig")
            .field("base_url", &self.base_url)
            .field("model", &self.model)
            .field("key", &self.key.as_ref().map(|_| "[key]"))
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}

impl From<&str> for EndpointConfig {
    fn from(base_url: &str) -> Self {
        Self::new(base_url)
    }
}

impl From<String> for EndpointConfig {
    fn from(base_url: String) -> Self {
        Self::new(base_url)
    }
}
