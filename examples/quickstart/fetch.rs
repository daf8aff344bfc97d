//! Fetches the small embedding model.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::model::{SCRIPT, is_model};

/// The time after which a fetch is given up: 104 MB at a megabyte a second.
const PATIENCE: Duration = Duration::from_secs(110);

/// Runs the script, which tells on standard error what it does. The error is why there is no model.
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
