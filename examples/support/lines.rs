//! Lines of any length and any bytes, read without keeping more than a limit, and what is wrong with one.

use std::io::{self, BufRead, ErrorKind};

/// The longest line that is read, in bytes.
pub(crate) const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Reads a line into `line`, without its end. Gives the bytes that were read, none at the end of the input. Of a line
/// that is too long, one byte more than allowed is kept, which shows it.
pub(crate) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<u64>> {
    line.clear();
    let mut read_bytes = 0;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            return Ok((read_bytes > 0).then_some(read_bytes));
        }
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let content = &chunk[..end.unwrap_or(chunk.len())];
        let room = (MAX_LINE_BYTES + 1).saturating_sub(line.len());
        line.extend_from_slice(&content[..content.len().min(room)]);
        let used = end.map_or(chunk.len(), |end| end + 1);
        read_bytes += used as u64;
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(read_bytes));
        }
    }
}

/// What a line has to say: without white space around it, and without the byte order mark with which some editors begin
/// a file.
pub(crate) fn content(line: &[u8], number: u64) -> &[u8] {
    let mark: &[u8] = if number == 1 { b"\xef\xbb\xbf" } else { b"" };
    line.strip_prefix(mark).unwrap_or(line).trim_ascii()
}

/// The line as the text of a JSON object, as far as that can be seen without parsing it, or in words why it is none.
pub(crate) fn object_text(content: &[u8]) -> Result<&str, String> {
    if content.len() > MAX_LINE_BYTES {
        return Err(format!("longer than {} MiB", MAX_LINE_BYTES / 1024 / 1024));
    }
    // Before anything else, since the complaint about another value would quote it.
    if content.first() != Some(&b'{') {
        return Err("not a JSON object".to_owned());
    }
    std::str::from_utf8(content).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))
}

/// The complaint about a line, without a line number that is always 1.
pub(crate) fn reason_of(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let words = error.to_string();
    match words.strip_suffix(&place) {
        Some(words) => format!("{words} at column {}", error.column()),
        None => words,
    }
}
