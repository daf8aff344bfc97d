//! Where the record of a key stands.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::key::Key;
use super::record::Kind;

/// The offsets of all records that count, by the first half of their keys: 8 bytes each and one of the table. A record
/// holds its whole key, so that two keys with the same half cost a question and never give a wrong answer; among ten
/// million keys that happens with a probability of 3 in a million.
#[derive(Debug, Default)]
pub(super) struct Index {
    offsets: HashMap<u64, u64, BuildHasherDefault<AsItIs>>,
    failures: u64,
    standing: u64,
}

impl Index {
    /// Remembers a record; the later of two with the same key counts.
    pub(super) fn insert(&mut self, key: Key, offset: u64, kind: Kind) {
        let is_new = self.offsets.insert(key.half(), offset).is_none();
        // Those of different kinds never share a key.
        self.failures += u64::from(is_new && kind == Kind::Failure);
        self.standing += u64::from(is_new && kind == Kind::Standing);
    }

    pub(super) fn find(&self, key: Key) -> Option<u64> {
        self.offsets.get(&key.half()).copied()
    }

    pub(super) fn answers(&self) -> u64 {
        self.offsets.len() as u64 - self.failures - self.standing
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0 << 8 | u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
