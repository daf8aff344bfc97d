//! How much is sent: rates, requests in flight, retries. All of it counts in tokio's time, so tests can pause it.

pub(crate) mod budget;
pub(crate) mod concurrency;
pub(crate) mod rate;
