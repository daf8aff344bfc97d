//! The flags of the command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use slugline::{Categorizer, CategorizerBuilder, Ledger, Taxonomy};

use super::columns::Columns;
use super::compression::Compression;
use super::files::{is_same_file, is_standard};
use super::format::Format;
use super::server::{ServerArgs, read_args, with};

/// Categorizes news items in any of the usual formats.
///
/// Input is JSONL, CSV, TSV, Parquet, or feeds (RSS, Atom, JSON Feed), plain or as gzip or zstd, from files, directories or
/// standard input. Each row of it becomes a row of the output, with a category or with an error, or a line of --rejects,
/// with its place and the reason why it is no item. The counts are checked and reported.
///
/// With --ledger answers are kept in a file: after any end the same command asks only for what is not there yet, and writes
/// the output whole.
///
/// Exit code 0: all items are categorized, none rejected. 2: finished, but some have errors or were rejected. 1: it could not
/// start or had to stop; what was settled by then is written, beside an earlier output under its name with .partial.
#[derive(Debug, Parser)]
#[command(name = "etl", version)]
pub(crate) struct Args {
    /// A file, a directory, which is read whole in the order of its paths, or - for standard input; may be given several times
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) input: Vec<PathBuf>,

    /// The format of all inputs [default: by their names; JSONL for standard input]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) input_format: Option<Format>,

    /// Where the outcomes go, replacing what is there at the end of the run; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,

    /// The format of the output [default: by its name; JSONL for standard output]
    #[arg(long, value_enum, value_name = "FORMAT")]
    output_format: Option<Format>,

    /// The compression of the output [default: by its name]
    #[arg(long, value_enum, value_name = "KIND")]
    compression: Option<Compression>,

    /// Where rows that are no items go, a JSON object per line: {"file", "line", "id", "reason"}
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) rejects: PathBuf,

    #[command(flatten)]
    pub(crate) columns: Columns,

    /// The categories
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) taxonomy: PathBuf,

    #[command(flatten)]
    pub(crate) server: ServerArgs,

    /// The most items that share a request, 1 to 16 [default: 3]
    #[arg(long, value_name = "N")]
    pack_size: Option<usize>,

    /// Where answers are kept, so that nothing is asked twice
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,

    /// Asks items again that the ledger knows to fail for good, as after a mistake in the settings of a server
    #[arg(long, requires = "ledger")]
    retry_permanent: bool,

    /// Where the report of the run goes, as JSON
    #[arg(long, value_name = "FILE.json")]
    pub(crate) report: Option<PathBuf>,

    /// Where the report of the run goes, as a page
    #[arg(long, value_name = "FILE.html")]
    pub(crate) page: Option<PathBuf>,
}

impl Args {
    /// Reads the command line. An error is the exit code after help or a complaint was printed.
    pub(crate) fn read() -> Result<Self, ExitCode> {
        read_args(super::complain)
    }

    /// The categorizer that the flags describe. Opens the ledger, which keeps a second process with the same one away.
    pub(crate) fn categorizer(&self) -> Result<Categorizer, String> {
        let taxonomy = Taxonomy::load(&self.taxonomy).map_err(|error| error.to_string())?;
        let builder = with(self.server.builder(taxonomy)?, self.pack_size, CategorizerBuilder::pack_size);
        let options = Ledger::options().retry_permanent(self.retry_permanent);
        let ledger = self.ledger.as_ref().map(|path| options.open(path)).transpose();
        let ledger = ledger.map_err(|error| error.to_string())?;
        let builder = with(builder, ledger, CategorizerBuilder::ledger);
        builder.build().map_err(|error| error.to_string())
    }

    /// The form of the output.
    pub(crate) fn output_form(&self) -> Result<(Format, Compression), String> {
        let (by_name, compressed_by_name) = Format::of_name(&self.output);
        let default = if is_standard(&self.output) { Some(Format::Jsonl) } else { None };
        let path = self.output.display();
        let format = self
            .output_format
            .or(by_name)
            .or(default)
            .ok_or_else(|| format!("the name of --output {path} does not say its format; --output-format can"))?;
        let compression = self.compression.unwrap_or(compressed_by_name);
        match (format, compression) {
            (Format::Feed, _) => Err("a feed can be read, not written; name another output".to_owned()),
            (Format::Parquet, Compression::Gzip | Compression::Zstd) => {
                Err("Parquet is compressed within; name the output without .gz or .zst".to_owned())
            }
            form => Ok(form),
        }
    }

    /// The files that are written, each with the name of its flag.
    pub(crate) fn written(&self) -> Vec<(&'static str, &Path)> {
        let optional = [("ledger", &self.ledger), ("report", &self.report), ("page", &self.page)];
        let optional = optional.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?)));
        [("output", &*self.output), ("rejects", &*self.rejects)].into_iter().chain(optional).collect()
    }

    /// Refuses to write over what is read, or two things into one file.
    pub(crate) fn refuse_overwriting(&self) -> Result<(), String> {
        let mut needed: Vec<_> = self.input.iter().map(|path| ("input", &**path)).collect();
        needed.push(("taxonomy", &self.taxonomy));
        for (flag, path) in self.written() {
            if let Some((other, _)) = needed.iter().find(|(_, other)| is_same_file(path, other)) {
                return Err(format!(
                    "--{flag} {} is the same file as --{other} and would overwrite it",
                    path.display()
                ));
            }
            needed.push((flag, path));
        }
        Ok(())
    }
}
