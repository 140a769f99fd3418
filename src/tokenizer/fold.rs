//! Characters as vocabularies without capitals and accents have them.

use crate::tokenizer::fold_tables::{BASES, FORMATS, LONG_BASES, MARKS};

/// Syllables of Hangul, which fall apart by arithmetic (The Unicode Standard, section 3.12).
const SYLLABLES: std::ops::Range<u32> = 0xac00..0xd7a4;

/// Gives what is left of `c` without accents, in lower case, to `push`: nothing of a mark, at most
/// four characters of others.
pub(super) fn fold(c: char, mut push: impl FnMut(char)) {
    if c.is_ascii() {
        return push(c.to_ascii_lowercase());
    }
    let code = c as u32;
    if SYLLABLES.contains(&code) {
        let index = code - SYLLABLES.start;
        let last = 0x11a7 + index % 28;
        let parts = [0x1100 + index / 588, 0x1161 + index % 588 / 28, last];
        let count = if last > 0x11a7 { 3 } else { 2 };
        parts[..count]
            .iter()
            .filter_map(|&part| char::from_u32(part))
            .for_each(push);
    } else if let Ok(at) = LONG_BASES.binary_search_by_key(&c, |entry| entry.0) {
        LONG_BASES[at]
            .1
            .chars()
            .flat_map(char::to_lowercase)
            .for_each(push);
    } else if let Ok(at) = BASES.binary_search_by_key(&c, |entry| entry.0) {
        BASES[at].1.to_lowercase().for_each(push);
    } else if !is_in(&MARKS, code) {
        c.to_lowercase().for_each(push);
    }
}

/// Whether `c` is no part of a text: a control or format character, one of private use, or the one
/// that stands for what could not be decoded.
pub(super) fn is_dropped(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{fffd}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{ffffd}' => true,
        '\u{100000}'..='\u{10fffd}' => true,
        c if c.is_ascii() => c.is_ascii_control(),
        c => c.is_control() || is_in(&FORMATS, c as u32),
    }
}

/// Whether `c` is a word of its own: the ideographs of Chinese, but not the letters of Japanese and
/// Korean.
pub(super) fn is_ideograph(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}'
        | '\u{2b740}'..='\u{2b81f}'
        | '\u{2b820}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}'
        | '\u{2f800}'..='\u{2fa1f}')
}

/// Whether one of the ranges, first and last, has it.
fn is_in(ranges: &[(u32, u32)], code: u32) -> bool {
    let at = ranges.partition_point(|range| range.1 < code);
    ranges.get(at).is_some_and(|range| range.0 <= code)
}

#[cfg(test)]
mod tests {
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    #[test]
    fn every_code_point_agrees_with_other_implementations() {
        let marks = fancy_regex::Regex::new(r"^\p{Mn}$").unwrap();
        let dropped = fancy_regex::Regex::new(r"^[\p{Cc}\p{Cf}\p{Co}\u{fffd}--[\t\n\r]]$").unwrap();
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            let is_mark = |c: &char| marks.is_match(&c.to_string()).unwrap();
            let bases = text.nfd().filter(|c| !is_mark(c));
            let expected: String = bases.flat_map(char::to_lowercase).collect();
            let mut found = String::new();
            fold(c, |c| found.push(c));
            assert_eq!(found, expected, "{:x}", c as u32);
            assert_eq!(
                is_dropped(c),
                dropped.is_match(&text).unwrap(),
                "{:x}",
                c as u32
            );
        }
    }
}
