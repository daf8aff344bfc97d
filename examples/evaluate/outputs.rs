//! The files that are written.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::path::Path;

use slugline::evaluate::Evaluation;

use super::args::Args;
use super::files::{about, is_same_file};

/// The reports that are wanted.
pub(crate) struct Outputs<'a>(Vec<Output<'a>>);

struct Output<'a> {
    path: &'a Path,
    file: File,
    form: fn(&Evaluation) -> String,
}

impl<'a> Outputs<'a> {
    /// Opens them now, so that a wrong path is no surprise at the end, and leaves what they hold until there is something
    /// better.
    pub(crate) fn open(args: &'a Args) -> Result<Self, String> {
        let html: fn(&Evaluation) -> String = Evaluation::to_html;
        let open = |(path, form): (&'a Path, _)| {
            let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
            Ok(Output { path, file: file.map_err(|error| about("create", path, &error))?, form })
        };
        let forms = [(&args.report, html), (&args.json, json)];
        let wanted = forms.into_iter().filter_map(|(path, form)| Some((path.as_deref()?, form)));
        wanted.map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Replaces what they hold.
    pub(crate) fn write(&mut self, evaluation: &Evaluation) -> Result<(), String> {
        self.0.iter_mut().try_for_each(|output| {
            replace(&mut output.file, &(output.form)(evaluation)).map_err(|error| about("write", output.path, &error))
        })
    }
}

/// Refuses to write over a file that is needed.
pub(crate) fn refuse_overwriting(args: &Args) -> Result<(), String> {
    let targets = [("report", &args.report), ("json", &args.json), ("fit", &args.fit)];
    let mut needed = vec![("input", &args.input), ("taxonomy", &args.taxonomy)];
    needed.extend(args.calibration.as_ref().map(|path| ("calibration", path)));
    needed.extend(args.mapping.as_ref().map(|path| ("mapping", path)));
    needed.extend(args.peers.as_ref().map(|path| ("peers", path)));
    for (role, target) in targets.into_iter().filter_map(|(role, target)| Some((role, target.as_ref()?))) {
        if let Some((other, _)) = needed.iter().find(|(_, path)| is_same_file(target, path)) {
            return Err(format!("--{role} {} is the same file as --{other} and would overwrite it", target.display()));
        }
        needed.push((role, target));
    }
    Ok(())
}

fn json(evaluation: &Evaluation) -> String {
    // Cannot fail: there are no maps with keys that are no strings.
    serde_json::to_string(evaluation).unwrap_or_default() + "\n"
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    // A device or a pipe has no length and no place.
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    file.write_all(text.as_bytes())
}
