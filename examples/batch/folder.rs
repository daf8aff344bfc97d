//! The directory of a batch. A file is written under another name and renamed, so that it is whole or not there; the round is
//! the last, so that what it does not know of can be written again.
//!
//! | file | what |
//! |---|---|
//! | `settings.json`, `taxonomy.toml` | what the batch was begun with |
//! | `round.jsonl` | what is to be asked still |
//! | `requests-ROUND-PART.jsonl` | the requests of a round |
//! | `outcomes-ROUND.jsonl` | what a round has settled |

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slugline::batch::{Batch, Limits, Round};
use slugline::server::StructuredOutput;
use slugline::{Categorizer, Outcome, Taxonomy};

use super::InvalidLine;
use super::files::about;

/// How the batch asks.
#[derive(Debug, Serialize, Deserialize, clap::Args)]
pub(crate) struct Settings {
    /// The model, by the name that whoever runs the batch has for it
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The most items that share a request, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 3)]
    pack_size: usize,
    /// Ask without log-probabilities: outcomes have no confidence, results are a tenth as large
    #[arg(long)]
    no_confidence: bool,
    /// Ask for an object around the array of answers, as OpenAI needs it
    #[arg(long)]
    object_root: bool,
    /// The most requests of a file
    #[arg(long, value_name = "N", default_value_t = 50_000)]
    max_requests: usize,
    /// The most bytes of a file
    #[arg(long, value_name = "BYTES", default_value_t = 200_000_000)]
    max_bytes: u64,
}

/// A directory that has a batch.
pub(crate) struct Folder {
    path: PathBuf,
    settings: Settings,
}

/// What an output has.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) lines: u64,
    pub(crate) errors: u64,
}

impl Folder {
    pub(crate) fn create(path: &Path, taxonomy: &Path, settings: &Settings) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| about("create", path, &error))?;
        let round = path.join("round.jsonl");
        if round.exists() {
            return Err(format!("{} has a batch already: read it, or take another directory", path.display()));
        }
        let json = serde_json::to_string_pretty(settings).map_err(|error| error.to_string())?;
        write_whole(&path.join("settings.json"), |file| file.write_all(json.as_bytes()))?;
        let text = fs::read(taxonomy).map_err(|error| about("read taxonomy", taxonomy, &error))?;
        write_whole(&path.join("taxonomy.toml"), |file| file.write_all(&text))?;
        Self::open(path)
    }

    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let file = path.join("settings.json");
        let text = fs::read_to_string(&file).map_err(|error| about("open the batch, read", &file, &error))?;
        let settings = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(Self { path: path.to_owned(), settings })
    }

    pub(crate) fn batch(&self) -> Result<Batch, String> {
        let taxonomy = Taxonomy::load(self.path.join("taxonomy.toml")).map_err(|error| error.to_string())?;
        let Settings { model, pack_size, no_confidence, object_root, .. } = &self.settings;
        let builder = Categorizer::builder(taxonomy).model(model).pack_size(*pack_size).confidence(!no_confidence);
        let batch = builder.batch().map_err(|error| error.to_string())?;
        Ok(if *object_root { batch.structured_output(StructuredOutput::JsonSchemaObject) } else { batch })
    }

    pub(crate) fn round(&self, batch: &Batch) -> Result<Round, String> {
        let path = self.path.join("round.jsonl");
        let file = File::open(&path).map_err(|error| about("open the batch, read", &path, &error))?;
        batch.load(BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The files that are there.
    pub(crate) fn own_files(&self) -> Result<Vec<PathBuf>, String> {
        let entries = fs::read_dir(&self.path).map_err(|error| about("list", &self.path, &error))?;
        Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_own(path)).collect())
    }

    pub(crate) fn write_outcomes(
        &self,
        round: u32,
        outcomes: &[Outcome],
        invalid: &[InvalidLine],
    ) -> Result<(), String> {
        write_whole(&self.outcomes(round), |file| {
            outcomes.iter().try_for_each(|outcome| write_line(file, outcome))?;
            invalid.iter().try_for_each(|line| write_line(file, line))
        })
    }

    /// Writes the requests of a round, then the round. Gives the files of requests.
    pub(crate) fn write_round(&self, batch: &Batch, round: &Round) -> Result<Vec<PathBuf>, String> {
        let name = |part: usize| self.path.join(format!("requests-{}-{}.jsonl", round.number(), part + 1));
        let limits = Limits::default().requests(self.settings.max_requests).bytes(self.settings.max_bytes);
        let parts = batch
            .write_requests(round, limits, |part| Ok(BufWriter::new(File::create(temporary(&name(part)))?)))
            .map_err(|error| about("write requests to", &self.path, &error))?;
        let mut names = Vec::new();
        for (part, number) in parts.into_iter().zip(0..) {
            finish(part.file, &name(number))?;
            names.push(name(number));
        }
        write_whole(&self.path.join("round.jsonl"), |file| batch.save(round, file))?;
        Ok(names)
    }

    /// Puts the outcomes of all rounds before this one into one file.
    pub(crate) fn write_output(&self, next: &Round, output: &Path) -> Result<Written, String> {
        let mut files = Vec::new();
        for round in 0..next.number() {
            let path = self.outcomes(round);
            files.push(File::open(&path).map_err(|error| about("collect the outcomes, read", &path, &error))?);
        }
        let mut written = Written::default();
        write_whole(output, |out| {
            for line in files.into_iter().flat_map(|file| BufReader::new(file).lines()) {
                let line = line?;
                written.lines += 1;
                written.errors += u64::from(is_error(&line));
                writeln!(out, "{line}")?;
            }
            Ok(())
        })?;
        // Lines of the input that are no items are there, too.
        let (_, settled) = next.items();
        if written.lines < settled {
            return Err(format!("{} outcomes are gone from {}", settled - written.lines, self.path.display()));
        }
        Ok(written)
    }

    fn outcomes(&self, round: u32) -> PathBuf {
        self.path.join(format!("outcomes-{round}.jsonl"))
    }
}

fn is_error(line: &str) -> bool {
    #[derive(Deserialize)]
    struct Failed {
        #[serde(rename = "error")]
        _error: serde::de::IgnoredAny,
    }
    serde_json::from_str::<Failed>(line).is_ok()
}

/// Whether a file in the directory is one that this program writes there.
fn is_own(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["settings.json", "taxonomy.toml", "round.jsonl"].contains(&&*name)
        || name.starts_with("requests-")
        || name.starts_with("outcomes-")
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

fn write_whole(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), String> {
    let failed = |error| about("write", path, &error);
    let mut file = BufWriter::new(File::create(temporary(path)).map_err(failed)?);
    write(&mut file).map_err(failed)?;
    finish(file, path)
}

/// Brings a file to the disk, and then to its name.
fn finish(file: BufWriter<File>, path: &Path) -> Result<(), String> {
    let failed = |error| about("write", path, &error);
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    fs::rename(temporary(path), path).map_err(failed)
}
