//! Where the small embedding model of the feature `embedded` is kept, and how it gets there.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Gets the model, and says where from.
pub(crate) const SCRIPT: &str = "examples/embedded/fetch-model.sh";
/// The time after which a fetch is given up: 104 MB at a megabyte a second.
const PATIENCE: Duration = Duration::from_secs(110);

/// The folder that the script keeps the model in unless it is told otherwise.
pub(crate) fn default_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("slugline/models/all-minilm-l6-v2-int8"))
}

pub(crate) fn is_model(folder: &Path) -> bool {
    ["model.onnx", "tokenizer.json"].iter().all(|name| folder.join(name).is_file())
}

/// Runs the script, which tells on standard error what it does. The error is why there is no model.
#[allow(dead_code, reason = "not every example fetches")]
pub(crate) async fn fetch(folder: &Path) -> Result<(), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT);
    let mut command = Command::new("bash");
    command.arg(script).arg("--into").arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, command.status()).await {
        Err(_) => Err(format!("it was not fetched within {} seconds", PATIENCE.as_secs())),
        Ok(Err(error)) => Err(format!("bash cannot be run: {error}")),
        Ok(Ok(status)) if status.success() && is_model(folder) => Ok(()),
        Ok(Ok(_)) => Err(format!("{SCRIPT} could not fetch it")),
    }
}
