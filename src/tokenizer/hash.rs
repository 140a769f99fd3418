//! A fast hash for tables that a file fills.
//!
//! Each table draws its seed from the operating system, so no file can be made whose keys collide.
//! Nothing that leaves a table depends on the seed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// The secret of one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seed(u64, u64);

impl Seed {
    pub(super) fn random() -> Self {
        let state = RandomState::new();
        Self(state.hash_one(0), state.hash_one(1))
    }

    /// The hash of `bytes`.
    #[inline]
    pub(super) fn hash(self, bytes: &[u8]) -> u64 {
        let mut state = self.0 ^ bytes.len() as u64;
        let mut rest = bytes;
        while let Some((words, after)) = rest.split_first_chunk::<16>() {
            if after.is_empty() {
                break;
            }
            let (low, high) = words.split_at(8);
            state = fold(word(low) ^ self.1, word(high) ^ state);
            rest = after;
        }
        let (low, high) = ends(rest);
        fold(fold(low ^ self.1, high ^ state), self.0)
    }

    /// The hash of a pair of numbers.
    #[inline]
    pub(super) fn hash_pair(self, left: u32, right: u32) -> u64 {
        let pair = u64::from(left) << 32 | u64::from(right);
        fold(fold(pair ^ self.0, self.1), self.0)
    }
}

/// At most 16 bytes as two words that overlap in the middle; every byte is in one of them.
#[inline]
fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return (
            u32::from_le_bytes(*first).into(),
            u32::from_le_bytes(*last).into(),
        );
    }
    match bytes {
        [] => (0, 0),
        [first, .., last] => {
            let middle = bytes[bytes.len() / 2];
            (u64::from(*first) << 8 | u64::from(middle), (*last).into())
        }
        [only] => ((*only).into(), 0),
    }
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// Both halves of the product: each bit of the result hangs on all bits of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// The hasher of maps whose keys are pairs packed into a `u64`.
#[derive(Debug, Clone)]
pub(super) struct PairHasher {
    seed: Seed,
    hash: u64,
}

impl BuildHasher for Seed {
    type Hasher = PairHasher;

    fn build_hasher(&self) -> PairHasher {
        PairHasher {
            seed: *self,
            hash: 0,
        }
    }
}

impl Hasher for PairHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.hash ^= self.seed.hash(bytes);
    }

    #[inline]
    fn write_u64(&mut self, pair: u64) {
        self.hash = self.seed.hash_pair((pair >> 32) as u32, pair as u32);
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_and_the_length_count() {
        let seed = Seed::random();
        for length in 0..70 {
            let bytes = vec![7; length];
            let hash = seed.hash(&bytes);
            assert_ne!(hash, seed.hash(&vec![7; length + 1]));
            for at in 0..length {
                let mut other = bytes.clone();
                other[at] ^= 1;
                assert_ne!(hash, seed.hash(&other), "{length} {at}");
            }
        }
        assert_ne!(seed.hash_pair(1, 2), seed.hash_pair(2, 1));
    }
}
