//! Where the small embedding model of the feature `embedded` is kept.

use std::path::{Path, PathBuf};

/// The script that gets it, and says where from.
pub(crate) const SCRIPT: &str = "examples/embedded/fetch-model.sh";

/// The folder that the script keeps the model in unless it is told otherwise.
pub(crate) fn default_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("slugline/models/all-minilm-l6-v2-int8"))
}

/// Whether a folder has a model.
pub(crate) fn is_model(folder: &Path) -> bool {
    ["model.onnx", "tokenizer.json"].iter().all(|name| folder.join(name).is_file())
}
