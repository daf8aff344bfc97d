//! The file of a ledger: a line that names the format, then records one after the other, only ever appended.
//!
//! ```text
//! "slugline ledger 1\n"  record  record  …
//! record = length of the payload (4 bytes, little endian) · checksum (8 bytes) · payload
//! checksum = the first 8 bytes of BLAKE3(length · payload)
//! ```
//!
//! Whatever a crash, a power loss or a bad disk makes of the file, reading gives whole records or nothing: what does not
//! check is passed over byte by byte until a record does. What does not check at the end is torn and is cut off.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

const TITLE: &str = "slugline ledger ";
/// The format that is written. Records of kinds that a version does not know are passed over, so that only a change of the
/// records' frame, or of the meaning of a kind, needs another number.
const FORMAT: u32 = 1;
const HEADER: &str = "slugline ledger 1\n";
const CHECKSUM_BYTES: usize = 8;
const FRAME_BYTES: usize = 4 + CHECKSUM_BYTES;
/// The longest payload: far more than a record has, and a bound on what a damaged length can cost.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024;
/// How much is read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Where records are kept. A trait, so that tests can fill the disk.
pub(crate) trait Storage: Send {
    /// Writes all of it at this offset.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Waits until everything is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Reads up to so many bytes, fewer only at the end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    fn cut(&mut self, len: u64) -> io::Result<()>;
}

impl Storage for File {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // Also brings the length to the disk, without which the records could not be read.
        self.sync_data()
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.seek(SeekFrom::Start(offset))?;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// What a file is by its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Empty, or torn while its first line was written.
    New,
    Ledger,
    Newer(u32),
    Other,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) records: u64,
    /// The end of the last whole record.
    pub(super) end: u64,
    /// Bytes between whole records that are none.
    pub(super) damaged_bytes: u64,
    /// Bytes after the last whole record.
    pub(super) torn_bytes: u64,
}

pub(super) fn kind(storage: &mut dyn Storage) -> io::Result<Kind> {
    let mut start = [0; 64];
    let read = storage.read_at(0, &mut start)?;
    let start = &start[..read];
    if HEADER.as_bytes().starts_with(start) && read < HEADER.len() {
        return Ok(Kind::New);
    }
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let format = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(TITLE)?.parse().ok());
    Ok(match format {
        Some(FORMAT) if start.starts_with(HEADER.as_bytes()) => Kind::Ledger,
        Some(newer) if newer > FORMAT => Kind::Newer(newer),
        _ => Kind::Other,
    })
}

/// Writes the first line of a new file; gives where records begin.
pub(super) fn begin(storage: &mut dyn Storage) -> io::Result<u64> {
    storage.cut(0)?;
    storage.write_at(0, HEADER.as_bytes())?;
    storage.sync()?;
    Ok(HEADER.len() as u64)
}

/// Appends a record with this payload to a buffer. One that is too long is left out, which no payload of ours is.
pub(super) fn frame(payload: &[u8], buffer: &mut Vec<u8>) {
    debug_assert!(!payload.is_empty() && payload.len() <= MAX_PAYLOAD_BYTES);
    let length = (payload.len() as u32).to_le_bytes();
    buffer.extend_from_slice(&length);
    buffer.extend_from_slice(&checksum(length, payload));
    buffer.extend_from_slice(payload);
}

/// Goes through all whole records: each with its offset and payload.
pub(super) fn scan(storage: &mut dyn Storage, mut each: impl FnMut(u64, &[u8])) -> io::Result<Contents> {
    let start = HEADER.len() as u64;
    let mut contents = Contents { end: start, ..Contents::default() };
    // The buffer holds the file from `base` on; what is before `at` was looked at.
    let (mut buffer, mut base, mut at, mut is_whole) = (Vec::new(), start, 0, false);
    loop {
        if !is_whole && buffer.len() - at < FRAME_BYTES + MAX_PAYLOAD_BYTES {
            buffer.drain(..at);
            base += at as u64;
            at = 0;
            let filled = buffer.len();
            buffer.resize(filled + CHUNK_BYTES, 0);
            let read = storage.read_at(base + filled as u64, &mut buffer[filled..])?;
            buffer.truncate(filled + read);
            is_whole = read < CHUNK_BYTES;
        }
        let rest = &buffer[at..];
        if rest.len() <= FRAME_BYTES {
            break;
        }
        let Some(payload) = payload(rest) else {
            at += 1;
            continue;
        };
        let offset = base + at as u64;
        contents.records += 1;
        contents.damaged_bytes += offset - contents.end;
        at += FRAME_BYTES + payload.len();
        contents.end = base + at as u64;
        each(offset, payload);
    }
    contents.torn_bytes = base + buffer.len() as u64 - contents.end;
    Ok(contents)
}

/// The payload of the record at an offset, if it is whole.
pub(super) fn read(storage: &mut dyn Storage, offset: u64) -> io::Result<Option<Vec<u8>>> {
    /// Enough for nearly all records.
    const FIRST_BYTES: usize = 1024;
    let mut buffer = vec![0; FIRST_BYTES];
    let read = storage.read_at(offset, &mut buffer)?;
    buffer.truncate(read);
    let Some(wanted) = length(&buffer).map(|length| FRAME_BYTES + length) else { return Ok(None) };
    if wanted > buffer.len() && read == FIRST_BYTES {
        buffer.resize(wanted, 0);
        let more = storage.read_at(offset + read as u64, &mut buffer[read..])?;
        buffer.truncate(read + more);
    }
    Ok(payload(&buffer).map(<[u8]>::to_vec))
}

/// The payload of the record that the bytes begin with.
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let payload = bytes.get(FRAME_BYTES..FRAME_BYTES + length(bytes)?)?;
    let head = bytes.first_chunk()?;
    (checksum(*head, payload) == bytes[4..FRAME_BYTES]).then_some(payload)
}

/// The length that the bytes begin with, if a record can have it.
fn length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
    (1..=MAX_PAYLOAD_BYTES).contains(&length).then_some(length)
}

fn checksum(length: [u8; 4], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::Hasher::new().update(&length).update(payload).finalize();
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash.as_bytes()[..CHECKSUM_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Storage for Vec<u8> {
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.resize(offset as usize, 0);
            self.extend_from_slice(bytes);
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = self.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }
        fn cut(&mut self, len: u64) -> io::Result<()> {
            self.truncate(len as usize);
            Ok(())
        }
    }

    fn file_of(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut file = HEADER.as_bytes().to_vec();
        payloads.iter().for_each(|payload| frame(payload, &mut file));
        file
    }

    fn scanned(file: &[u8]) -> (Vec<Vec<u8>>, Contents) {
        let mut found = Vec::new();
        let contents = scan(&mut file.to_vec(), |_, payload| found.push(payload.to_vec())).unwrap();
        (found, contents)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let byte = prop_oneof![Just(0_u8), any::<u8>()];
        proptest::collection::vec(proptest::collection::vec(byte, 1..120), 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_file_torn_at_any_byte_of_its_last_record_has_all_others(payloads in payloads()) {
            let file = file_of(&payloads);
            let (found, contents) = scanned(&file);
            prop_assert_eq!(&found, &payloads);
            prop_assert_eq!((contents.end, contents.damaged_bytes, contents.torn_bytes), (file.len() as u64, 0, 0));
            let others = &payloads[..payloads.len() - 1];
            let last = file_of(others).len();
            for len in last..file.len() {
                let (found, contents) = scanned(&file[..len]);
                prop_assert_eq!(&found, others);
                prop_assert_eq!((contents.end, contents.torn_bytes), (last as u64, (len - last) as u64));
            }
        }

        #[test]
        fn a_flipped_bit_costs_the_record_that_it_is_in_and_no_other(
            payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let mut file = file_of(&payloads);
            let at = HEADER.len() + at.index(file.len() - HEADER.len());
            file[at] ^= 1_u8 << bit;
            let hit = (0..payloads.len()).find(|&n| at < file_of(&payloads[..=n]).len()).unwrap();
            let mut others = payloads.clone();
            others.remove(hit);
            let (found, contents) = scanned(&file);
            prop_assert_eq!(found, others);
            prop_assert!(contents.damaged_bytes + contents.torn_bytes >= FRAME_BYTES as u64);
        }

        #[test]
        fn any_bytes_are_read_without_an_invented_record(bytes in proptest::collection::vec(any::<u8>(), 0..1_000)) {
            let mut file = HEADER.as_bytes().to_vec();
            file.extend_from_slice(&bytes);
            prop_assert_eq!(scanned(&file).0, Vec::<Vec<u8>>::new());
            kind(&mut bytes.clone()).unwrap();
            for offset in 0..bytes.len() as u64 {
                prop_assert_eq!(read(&mut bytes.clone(), offset).unwrap(), None);
            }
        }
    }

    #[test]
    fn records_are_found_across_the_chunks_in_which_they_are_read() {
        let payloads: Vec<Vec<u8>> = (0..400_u32).map(|n| vec![n as u8; 1 + n as usize * 30]).collect();
        let file = file_of(&payloads);
        assert!(file.len() > 2 * CHUNK_BYTES);
        assert_eq!(scanned(&file).0, payloads);
        let mut offset = HEADER.len() as u64;
        for payload in &payloads {
            assert_eq!(read(&mut file.clone(), offset).unwrap().as_ref(), Some(payload));
            offset += (FRAME_BYTES + payload.len()) as u64;
            if offset > 200_000 {
                break;
            }
        }
    }

    #[test]
    fn a_file_is_known_by_its_first_line() {
        let kind = |text: &str| kind(&mut text.as_bytes().to_vec()).unwrap();
        assert_eq!(HEADER, format!("{TITLE}{FORMAT}\n"));
        assert_eq!([kind(""), kind("slugline le"), kind(&HEADER[..HEADER.len() - 1])], [Kind::New; 3]);
        assert_eq!(kind(HEADER), Kind::Ledger);
        assert_eq!(kind("slugline ledger 12\nx"), Kind::Newer(12));
        for other in ["{\"id\": \"a\"}\n", "slugline ledger x\n", "slugline ledger 0\n", "slugline ledgerette\n"] {
            assert_eq!(kind(other), Kind::Other, "{other:?}");
        }
    }
}
