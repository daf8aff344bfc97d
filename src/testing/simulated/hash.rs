//! One stable hash for all decisions of the simulation, so that a run can be repeated on any machine.

/// FNV-1a with a final mix, so that the low bits are as good as the high ones. Not for secrets.
pub(super) fn stable_hash(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let hash = bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    mix(hash)
}

/// Joins two hashes; the order matters.
pub(super) fn chain(before: u64, next: u64) -> u64 {
    mix(before.rotate_left(5) ^ next)
}

/// A number in 0..1 from a hash.
pub(super) fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_spread_evenly_and_depend_on_seed_and_order() {
        let mean = (0..1_000_u32).map(|n| unit(stable_hash(7, &n.to_le_bytes()))).sum::<f64>() / 1_000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert_ne!(stable_hash(1, b"a"), stable_hash(2, b"a"));
        assert_ne!(chain(1, 2), chain(2, 1));
    }
}
