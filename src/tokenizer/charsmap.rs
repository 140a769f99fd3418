//! The rules by which a text is normalized, as SentencePiece compiles them into a model: a
//! double-array trie from what stands in a text to what takes its place.
//!
//! Aoe, "An efficient digital search algorithm by using a double-array structure" (1989), in the
//! layout of the Darts-clone library. Every number is checked when the file is loaded.

use crate::error::{Code, Error, Result};
use crate::tokenizer::vocabulary::{refused, reserve};

/// Bytes of a text that a rule may take; real ones take at most 20.
const KEY_BYTES_MAX: usize = 256;

/// Bytes that a rule may put in their place; real ones put at most 33.
const VALUE_BYTES_MAX: usize = 256;

/// Bits of a unit that has a value in place of children.
const IS_VALUE: u32 = 1 << 31;

/// A compiled set of rules.
#[derive(Debug)]
pub(super) struct CharsMap {
    units: Vec<u32>,
    /// What takes the place of texts, each ending in a zero byte.
    values: String,
}

impl CharsMap {
    /// Parses the bytes that the file holds under `key`: the size of the trie in bytes, the trie,
    /// the values.
    ///
    /// # Errors
    /// `FORMAT` at the first byte that is not as it should be; `OUT_OF_MEMORY`.
    pub(super) fn parse(bytes: &[u8], key: &str) -> Result<Self> {
        let Some((size, rest)) = bytes.split_first_chunk() else {
            return Err(wrong(key, 0, "expected 4 bytes of size, found the end"));
        };
        let size = u32::from_le_bytes(*size) as usize;
        let fits = size.is_multiple_of(4) && (4..=rest.len()).contains(&size);
        if !fits {
            let (most, found) = (rest.len(), size);
            let message = format!("expected a multiple of 4 from 4 to {most}, found {found}");
            return Err(wrong(key, 0, message));
        }
        let (trie, values) = rest.split_at(size);
        let values_at = 4 + size;
        let text = std::str::from_utf8(values).map_err(|e| {
            wrong(
                key,
                values_at + e.valid_up_to(),
                "expected UTF-8, found a wrong byte",
            )
        })?;
        check_values(text, values_at, key)?;
        let mut units = Vec::new();
        reserve(&mut units, size / 4)?;
        units.extend(
            trie.as_chunks()
                .0
                .iter()
                .map(|unit| u32::from_le_bytes(*unit)),
        );
        check_units(&units, text, key)?;
        let mut values = Vec::new();
        reserve(&mut values, text.len())?;
        values.extend_from_slice(text.as_bytes());
        let values = String::from_utf8(values).expect("copied from text");
        Ok(Self { units, values })
    }

    /// The longest start of `text` that a rule takes, in bytes, and what takes its place.
    #[inline]
    pub(super) fn replacement(&self, text: &[u8]) -> Option<(usize, &str)> {
        let mut node = offset(*self.units.first()?);
        let mut found = None;
        for (at, byte) in text.iter().take(KEY_BYTES_MAX).enumerate() {
            node ^= *byte as usize;
            let Some(unit) = self
                .units
                .get(node)
                .filter(|unit| label(**unit) == *byte as u32)
            else {
                break;
            };
            node ^= offset(*unit);
            if has_value(*unit)
                && let Some(value) = self.units.get(node).filter(|unit| **unit & IS_VALUE != 0)
            {
                found = Some((at + 1, (*value & !IS_VALUE) as usize));
            }
        }
        let (taken, start) = found?;
        let end = self.values[start..].find('\0').map(|len| start + len)?;
        Some((taken, &self.values[start..end]))
    }
}

/// Each value ends, and is short.
fn check_values(values: &str, at: usize, key: &str) -> Result<()> {
    if !values.is_empty() && !values.ends_with('\0') {
        let end = at + values.len();
        return Err(wrong(key, end, "expected a zero byte, found the end"));
    }
    let mut start = 0;
    for value in values.split('\0') {
        if value.len() > VALUE_BYTES_MAX {
            let found = value.len();
            let message = format!("expected at most {VALUE_BYTES_MAX} bytes, found {found}");
            return Err(wrong(key, at + start, message));
        }
        start += value.len() + 1;
    }
    Ok(())
}

/// Each unit leads to one that is there, or to the start of a character of the values.
fn check_units(units: &[u32], values: &str, key: &str) -> Result<()> {
    for (i, unit) in units.iter().enumerate() {
        let place = 4 + 4 * i;
        if unit & IS_VALUE != 0 {
            let start = (unit & !IS_VALUE) as usize;
            if start >= values.len() || !values.is_char_boundary(start) {
                let most = values.len();
                let message = format!("expected a value among {most} bytes, found {start}");
                return Err(wrong(key, place, message));
            }
        } else if i ^ offset(*unit) >= units.len() {
            let (most, found) = (units.len(), i ^ offset(*unit));
            let message = format!("expected a unit below {most}, found {found}");
            return Err(wrong(key, place, message));
        }
    }
    Ok(())
}

/// Where the children of a unit begin, as what its index is combined with.
fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

/// The byte that leads to a unit; none leads to a value.
fn label(unit: u32) -> u32 {
    unit & (IS_VALUE | 0xff)
}

/// Whether the first child of a unit is a value.
fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn wrong(key: &str, byte: usize, message: impl Into<String>) -> Error {
    let message = format!("byte {byte}: {}", message.into());
    refused(Code::Format, key, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules as a file holds them: each node's children have a block of 256 units of their own.
    fn compiled(rules: &[(&str, &str)]) -> Vec<u8> {
        let (mut units, mut values) = (vec![0u32; 256], Vec::new());
        for (key, value) in rules {
            let mut node = 0;
            for byte in key.bytes() {
                let child = children(&mut units, node) ^ byte as usize;
                units[child] |= u32::from(byte);
                node = child;
            }
            let leaf = children(&mut units, node);
            units[node] |= 1 << 8;
            units[leaf] = IS_VALUE | values.len() as u32;
            values.extend(value.bytes().chain([0]));
        }
        let size = (units.len() as u32 * 4).to_le_bytes();
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        size.into_iter().chain(trie).chain(values).collect()
    }

    /// Where the children of a node begin; a block is made for them if there is none.
    fn children(units: &mut Vec<u32>, node: usize) -> usize {
        if units[node] >> 10 == 0 {
            let block = units.len();
            units.resize(block + 256, 0);
            units[node] |= ((node ^ block) as u32) << 10;
        }
        node ^ offset(units[node])
    }

    #[test]
    fn the_longest_rule_is_found() {
        let rules = [("a", "1"), ("abc", "2"), ("é", ""), ("abé", "three")];
        let map = CharsMap::parse(&compiled(&rules), "k").unwrap();
        for (text, expected) in [
            ("a", Some((1, "1"))),
            ("abx", Some((1, "1"))),
            ("abcd", Some((3, "2"))),
            ("abé", Some((4, "three"))),
            ("éa", Some((2, ""))),
            ("b", None),
            ("", None),
        ] {
            assert_eq!(map.replacement(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_damaged_is_refused_with_its_place() {
        let good = compiled(&[("a", "1"), ("b", "é")]);
        let values = good.len() - 5;
        let changed = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        let long = [&good[..], &[b'x'; 300], &[0]].concat();
        for (bad, place) in [
            (good[..3].to_vec(), 0),
            (changed(0, &[1, 0, 0, 0]), 0),
            (changed(0, &[0, 0, 0, 0]), 0),
            (changed(0, &[0xfc, 0xff, 0xff, 0xff]), 0),
            (changed(4, &[0, 0xfc, 0xff, 0x7f]), 4),
            (changed(8, &[0xff, 0xff, 0, 0x80]), 8),
            (changed(8, &[3, 0, 0, 0x80]), 8),
            (changed(values, &[0xff]), values),
            (good[..good.len() - 1].to_vec(), good.len() - 1),
            (long, good.len()),
        ] {
            let error = CharsMap::parse(&bad, "k").unwrap_err();
            assert_eq!((error.code(), error.place()), (Code::Format, "key 'k'"));
            let begins = format!("byte {place}: ");
            assert!(error.message().starts_with(&begins), "{place}: {error}");
        }
    }

    #[test]
    fn rules_that_go_round_in_circles_end() {
        // Each byte `a` leads back to the unit that it came from.
        let mut units = [0u32; 256];
        units[0] = 1 << 8;
        units[b'a' as usize] = u32::from(b'a') | u32::from(b'a') << 10;
        let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
        let bytes: Vec<u8> = 1024u32.to_le_bytes().into_iter().chain(trie).collect();
        let map = CharsMap::parse(&bytes, "k").unwrap();
        assert_eq!(map.replacement(&[b'a'; 100_000]), None);
    }
}
