//! The figures of a page as a file.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Reads JSON that has its version in `format`. The version first, since another one may have other fields.
pub(crate) fn read<T, E>(json: &str, format: u32, other: impl FnOnce(u32) -> E) -> Result<T, E>
where
    T: DeserializeOwned,
    E: From<serde_json::Error>,
{
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let Versioned { format: found } = serde_json::from_str(json)?;
    if found == format { Ok(serde_json::from_str(json)?) } else { Err(other(found)) }
}
