//! The prompt: a prefix whose bytes never change for a taxonomy, and a user message that holds nothing but items.
//!
//! Everything here is a pure function of its arguments.

pub(crate) mod clean;
pub(crate) mod frame;
pub(crate) mod prefix;
pub(crate) mod suspect;
pub mod tokens;

pub use self::prefix::{Prefix, PromptVersion};
