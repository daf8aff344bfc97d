//! Files: which are the same, and what is said of them.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// Whether a path means standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path == OsStr::new("-")
}

/// Whether writing to `target` would destroy the file `needed`. Devices and pipes cannot be destroyed.
pub(crate) fn is_same_file(target: &Path, needed: &Path) -> bool {
    if is_standard(target) || is_standard(needed) || needed.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return false;
    }
    real_path(target) == real_path(needed)
}

/// An error of a file, with what was to be done.
pub(crate) fn about(action: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {action} {}: {}", path.display(), lower_case(error))
}

/// An error in the style of our own.
pub(crate) fn lower_case(error: &io::Error) -> String {
    let words = error.to_string();
    let mut chars = words.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or(words)
}

/// The path without links and detours, also of a file that does not exist yet.
fn real_path(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}
