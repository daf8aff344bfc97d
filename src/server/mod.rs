//! The servers: what is sent, what comes back, and which endpoint is asked next.

mod config;
mod dialect;
mod endpoint;
mod error_words;
mod looks;
mod metrics;
mod openai;
mod pool;
mod prefix_advice;
mod prefix_cache;
mod transport;
mod verdict;
pub(crate) mod wire;

pub use self::config::EndpointConfig;
pub(crate) use self::dialect::Refused;
pub use self::dialect::{Api, Dialect, StructuredOutput};
pub use self::endpoint::EndpointSnapshot;
pub(crate) use self::endpoint::{EndpointState, Signal};
pub use self::metrics::{Engine, ServerMetrics};
#[cfg(feature = "testing")]
pub(crate) use self::openai::MAX_RESPONSE_BYTES;
pub use self::openai::http_transport;
pub(crate) use self::openai::{OpenAiTransport, checked_address};
pub use self::pool::Balance;
pub(crate) use self::pool::{Admission, Endpoint, Pool, PoolConfig};
pub use self::prefix_cache::{CacheSource, PrefixCacheSnapshot, PrefixVerdict};
#[cfg(feature = "testing")]
pub(crate) use self::transport::parse_retry_after;
pub use self::transport::{BoxFuture, Response, Transport, TransportError, TransportErrorKind};
pub(crate) use self::verdict::{Attempt, Verdict, judge};
pub(crate) use self::wire::OWN_FIELDS;
pub use self::wire::{ChatRequest, CompletionRequest, Options, Request, SystemMessage, UserMessage};
