//! A file that has its name only when it is complete on the disk: who reads it never sees half of it. What was there before is
//! lost only to a run that came to its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Stdout, Write};
use std::path::{Path, PathBuf};

use super::super::files::is_standard;

/// What is written into.
pub(super) enum Raw {
    File(File),
    Standard(Stdout),
}

/// Where it belongs.
pub(super) struct Target {
    path: PathBuf,
    /// Devices and pipes, and standard output, are written at once.
    is_renamed: bool,
}

impl Target {
    pub(super) fn create(path: &Path) -> io::Result<(Self, Raw)> {
        if is_standard(path) {
            return Ok((Self { path: path.to_owned(), is_renamed: false }, Raw::Standard(io::stdout())));
        }
        // Behind a link, so that the link stays.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let is_renamed = path.metadata().map_or(true, |metadata| metadata.is_file());
        let file = if is_renamed { File::create(partial(&path))? } else { File::options().write(true).open(&path)? };
        Ok((Self { path, is_renamed }, Raw::File(file)))
    }

    /// Where it is until then.
    pub(super) fn partial(&self) -> Option<PathBuf> {
        self.is_renamed.then(|| partial(&self.path))
    }

    /// Gives the file its name, unless it is of a run that had to stop and there is an earlier one. Gives the name under which
    /// it was left then.
    pub(super) fn finish(self, mut raw: Raw, is_whole: bool) -> io::Result<Option<PathBuf>> {
        raw.flush()?;
        let Raw::File(file) = raw else { return Ok(None) };
        if !self.is_renamed {
            return Ok(None);
        }
        file.sync_all()?;
        let partial = partial(&self.path);
        if !is_whole && self.path.metadata().is_ok_and(|earlier| earlier.len() > 0) {
            return Ok(Some(partial));
        }
        std::fs::rename(partial, &self.path)?;
        Ok(None)
    }
}

/// The name of a file until it is whole.
pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".partial");
    name.into()
}

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Standard(standard) => standard.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Standard(standard) => standard.flush(),
        }
    }
}
