//! What cannot be planned with.

/// A figure that makes no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A figure is outside of its range.
    #[error("{name} must be {range}, not {value}")]
    OutOfRange {
        /// What it is.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is said to be.
        value: f64,
    },
    /// A model's `config.json` does not say what its cache looks like.
    #[error("the model's configuration has no usable {field}")]
    Config {
        /// What is missing.
        field: &'static str,
    },
    /// The text has no line about the cache.
    #[error("the log has no line about the size of the KV cache; vLLM writes it at its start, at level INFO")]
    NoCacheInLog,
}

/// A number within a range, both ends included.
pub(super) fn within(
    name: &'static str,
    value: f64,
    [low, high]: [f64; 2],
    range: &'static str,
) -> Result<f64, PlanError> {
    if (low..=high).contains(&value) { Ok(value) } else { Err(PlanError::OutOfRange { name, range, value }) }
}
