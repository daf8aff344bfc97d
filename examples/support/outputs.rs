//! The files that a measurement is written to.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::files::about;

/// The reports of a `T` that are wanted.
pub(crate) struct Outputs<'a, T>(Vec<Output<'a, T>>);

struct Output<'a, T> {
    path: &'a Path,
    file: File,
    form: fn(&T) -> String,
}

impl<'a, T> Outputs<'a, T> {
    /// Opens them now, so that a wrong path is no surprise at the end, and leaves what they hold until there is something
    /// better.
    pub(crate) fn open(
        forms: impl IntoIterator<Item = (&'a Option<PathBuf>, fn(&T) -> String)>,
    ) -> Result<Self, String> {
        let open = |(path, form): (&'a Path, _)| {
            let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
            Ok(Output { path, file: file.map_err(|error| about("create", path, &error))?, form })
        };
        let wanted = forms.into_iter().filter_map(|(path, form)| Some((path.as_deref()?, form)));
        wanted.map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Replaces what they hold.
    pub(crate) fn write(&mut self, of: &T) -> Result<(), String> {
        self.0.iter_mut().try_for_each(|output| {
            replace(&mut output.file, &(output.form)(of)).map_err(|error| about("write", output.path, &error))
        })
    }
}

/// A line of JSON.
pub(crate) fn json<T: Serialize>(of: &T) -> String {
    // Cannot fail: there are no maps with keys that are no strings.
    serde_json::to_string(of).unwrap_or_default() + "\n"
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    // A device or a pipe has no length and no place.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    file.write_all(text.as_bytes())
}
