//! Character sets of the pre-tokenizers: `\p{L}`, `\p{N}`, `\p{P}`, `\p{S}`, `\p{M}` and `\s`.
//!
//! Every code point belongs to at most one set, so a set is one bit and a union is an `|`.
//! ASCII and the two-byte scripts are read from a table, the rest by binary search.

use crate::tokenizer::unicode_table::CHANGES;

/// Some of the sets below, joined by `|`.
pub(super) type Set = u8;

/// Lu and Lt.
pub(super) const UPPER: Set = 1;
/// Ll.
pub(super) const LOWER: Set = 2;
/// Lm and Lo: letters without case.
pub(super) const CASELESS: Set = 4;
/// M.
pub(super) const MARK: Set = 8;
/// N.
pub(super) const NUMBER: Set = 16;
/// P.
pub(super) const PUNCTUATION: Set = 32;
/// S.
pub(super) const SYMBOL: Set = 64;
/// White_Space, the `\s` of regular expressions.
pub(super) const SPACE: Set = 128;
/// L.
pub(super) const LETTER: Set = UPPER | LOWER | CASELESS;

/// Code points below this one are encoded in at most two bytes and read from `LOW`.
const LOW_END: usize = 0x800;
static LOW: [Set; LOW_END] = low();

const fn low() -> [Set; LOW_END] {
    let mut sets = [0; LOW_END];
    let mut change = 0;
    let mut code = 0;
    while code < LOW_END {
        if (CHANGES[change + 1] >> 8) as usize == code {
            change += 1;
        }
        sets[code] = (CHANGES[change] & 0xff) as Set;
        code += 1;
    }
    sets
}

/// The set that `c` belongs to, or 0.
pub(super) fn set_of(c: char) -> Set {
    let code = c as u32;
    if let Some(&set) = LOW.get(code as usize) {
        return set;
    }
    let after = CHANGES.partition_point(|&change| change >> 8 <= code);
    (CHANGES[after - 1] & 0xff) as Set
}

/// The set of the character at byte `at` of `text` and that character's length in bytes;
/// `(0, 0)` at the end. `at` must be a character boundary.
#[inline]
pub(super) fn look(text: &str, at: usize) -> (Set, usize) {
    match text.as_bytes().get(at) {
        None => (0, 0),
        Some(&byte) if byte < 0x80 => (LOW[byte as usize], 1),
        Some(_) => look_wide(text, at),
    }
}

#[inline(never)]
fn look_wide(text: &str, at: usize) -> (Set, usize) {
    match text[at..].chars().next() {
        Some(c) => (set_of(c), c.len_utf8()),
        None => (0, 0),
    }
}

/// The end of the longest run from `at` of characters inside `sets`.
#[inline]
pub(super) fn run(text: &str, mut at: usize, sets: Set) -> usize {
    loop {
        let (set, bytes) = look(text, at);
        if set & sets == 0 {
            return at;
        }
        at += bytes;
    }
}

/// The end of the longest run from `at` of characters outside `sets`.
#[inline]
pub(super) fn run_outside(text: &str, mut at: usize, sets: Set) -> usize {
    loop {
        let (set, bytes) = look(text, at);
        if set & sets != 0 || bytes == 0 {
            return at;
        }
        at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_point_agrees_with_the_regex_engine() {
        let sets = [
            (r"[\p{Lu}\p{Lt}]", UPPER),
            (r"\p{Ll}", LOWER),
            (r"[\p{Lm}\p{Lo}]", CASELESS),
            (r"\p{M}", MARK),
            (r"\p{N}", NUMBER),
            (r"\p{P}", PUNCTUATION),
            (r"\p{S}", SYMBOL),
            (r"\s", SPACE),
        ];
        let all: String = (0..=0x10_ffff).filter_map(char::from_u32).collect();
        for (pattern, set) in sets {
            let found: String = all.chars().filter(|&c| set_of(c) == set).collect();
            let regex = fancy_regex::Regex::new(pattern).unwrap();
            let expected: String = regex.find_iter(&all).map(|m| m.unwrap().as_str()).collect();
            assert!(found == expected, "{pattern}");
        }
    }

    #[test]
    fn runs_end_where_the_set_does() {
        let text = "ab\u{e9}\u{4e2d} 12";
        assert_eq!(run(text, 0, LETTER), 7);
        assert_eq!(run(text, 7, LETTER), 7);
        assert_eq!(run_outside(text, 0, SPACE), 7);
        assert_eq!(run_outside(text, 8, SPACE), text.len());
        assert_eq!(look(text, text.len()), (0, 0));
    }
}
