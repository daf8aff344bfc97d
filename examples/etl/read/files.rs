//! The files that are read, and in which order.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::args::Args;
use super::super::files::{about, is_same_file, is_standard};
use super::super::format::Format;

/// A file, or standard input.
pub(super) struct Input {
    pub(super) path: Option<PathBuf>,
    pub(super) name: Arc<str>,
    pub(super) format: Format,
}

/// All that is read.
pub(crate) struct Inputs {
    pub(super) files: Vec<Input>,
    /// The size of all together, where each has one.
    pub(super) size_bytes: Option<u64>,
    /// Files of the directories that have no known format, or are written by this run.
    pub(crate) skipped: Vec<PathBuf>,
}

impl Inputs {
    /// The names of the files, in the order in which they are read.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.files.iter().map(|input| &*input.name)
    }
}

/// Lists the inputs, directories in the order of their paths, and opens each once: what cannot be read is to be known before
/// anything is asked.
pub(crate) fn list(args: &Args) -> Result<Inputs, String> {
    let mut inputs = Inputs { files: Vec::new(), size_bytes: Some(0), skipped: Vec::new() };
    for path in &args.input {
        if is_standard(path) {
            let format = args.input_format.unwrap_or(Format::Jsonl);
            inputs.files.push(Input { path: None, name: "-".into(), format });
            inputs.size_bytes = None;
        } else if path.is_dir() {
            let before = inputs.files.len();
            for path in files_in(path)? {
                let is_written = args.written().iter().any(|(_, written)| is_ours(&path, written));
                match args.input_format.or(Format::of_name(&path).0).filter(|_| !is_written) {
                    Some(format) => inputs.add(path, format)?,
                    None => inputs.skipped.push(path),
                }
            }
            if inputs.files.len() == before {
                return Err(format!("{} has no file of a known format; --input-format can name one", path.display()));
            }
        } else {
            let by_name = Format::of_name(path).0;
            let format = args.input_format.or(by_name).ok_or_else(|| {
                format!("the name of --input {} does not say its format; --input-format can", path.display())
            })?;
            inputs.add(path.clone(), format)?;
        }
    }
    Ok(inputs)
}

impl Inputs {
    fn add(&mut self, path: PathBuf, format: Format) -> Result<(), String> {
        let opened = File::open(&path).and_then(|file| file.metadata());
        let metadata = opened.map_err(|error| about("open input", &path, &error))?;
        let size = metadata.is_file().then_some(metadata.len());
        self.size_bytes = self.size_bytes.zip(size).map(|(sum, size)| sum + size);
        self.files.push(Input { name: path.to_string_lossy().into(), path: Some(path), format });
        Ok(())
    }
}

/// Whether a file is what this run writes, or what it writes before it has its name.
fn is_ours(path: &Path, written: &Path) -> bool {
    is_same_file(written, path) || is_same_file(&super::super::write::partial(written), path)
}

/// The files of a directory and of those in it, hidden ones left out. Links to directories are not followed: they may lead
/// back.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: io::Error| about("read directory", directory, &error);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            files.extend(files_in(&path)?);
        } else if !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}
