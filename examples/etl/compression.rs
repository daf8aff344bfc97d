//! gzip and zstd: recognized by their first bytes when read, by name or flag when written.

use std::io::{self, BufWriter, Cursor, Read, Write};

use clap::ValueEnum;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Splits what the name of a file says about it from the rest of the name.
    pub(crate) fn of_name(name: &str) -> (&str, Self) {
        let strip = |end, compression| name.strip_suffix(end).map(|rest| (rest, compression));
        strip(".gz", Self::Gzip).or_else(|| strip(".zst", Self::Zstd)).unwrap_or((name, Self::None))
    }
}

/// The content of what is read, whether it is compressed or not. Several compressed files behind one another are one.
pub(crate) fn decompressed(mut raw: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    (&mut raw).take(4).read_to_end(&mut head)?;
    let is_gzip = head.starts_with(b"\x1f\x8b");
    let is_zstd = head.starts_with(b"\x28\xb5\x2f\xfd");
    let whole = Cursor::new(head).chain(raw);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::new(whole)?)
    } else {
        Box::new(whole)
    })
}

/// Writes into something, compressed or not.
pub(crate) enum Encoder<W: Write> {
    Plain(BufWriter<W>),
    Gzip(GzEncoder<BufWriter<W>>),
    Zstd(zstd::Encoder<'static, BufWriter<W>>),
}

impl<W: Write> Encoder<W> {
    pub(crate) fn new(sink: W, compression: Compression) -> io::Result<Self> {
        let sink = BufWriter::with_capacity(64 * 1024, sink);
        Ok(match compression {
            Compression::None => Self::Plain(sink),
            Compression::Gzip => Self::Gzip(GzEncoder::new(sink, flate2::Compression::default())),
            Compression::Zstd => Self::Zstd(zstd::Encoder::new(sink, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        })
    }

    /// Writes the end and gives back what was written into.
    pub(crate) fn finish(self) -> io::Result<W> {
        let buffer = match self {
            Self::Plain(buffer) => buffer,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        buffer.into_inner().map_err(io::IntoInnerError::into_error)
    }

    fn inner(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(buffer) => buffer,
            Self::Gzip(encoder) => encoder,
            Self::Zstd(encoder) => encoder,
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner().flush()
    }
}
