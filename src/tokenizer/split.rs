//! Cuts text into pieces that byte-level BPE merges one by one.
//!
//! The rules are published as regular expressions with a lookahead, `\s+(?!\S)`, that automata
//! cannot run; each is a hand-written scanner here, in linear time and constant memory. The
//! expression stands above its scanner, and the tests compare both on many texts.

use crate::error::Result;
use crate::tokenizer::unicode::{
    CASELESS, LETTER, LOWER, MARK, NUMBER, PUNCTUATION, SPACE, SYMBOL, Set, UPPER, look, run,
    run_outside,
};

/// How a vocabulary wants its text cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Words, numbers and the rest, each with at most one leading space.
    Words,
    /// Every digit alone, then `Words`.
    DigitsThenWords,
    /// Punctuation alone, then `Words`, then ASCII digits in threes.
    PunctuationThenWords,
    /// Words with at most one leading non-letter, numbers of at most `digits`, newlines together.
    Lines { digits: usize },
    /// Like `Lines` with three digits, but a word also ends before a capital letter.
    CasedLines,
    /// Newlines, words, punctuation, east Asian text and digits are cut out one after another.
    Layers,
}

impl Pattern {
    /// Calls `emit` with the pieces of `text` in order; together they are `text`.
    pub(super) fn split<'t, F>(self, text: &'t str, emit: &mut F) -> Result<()>
    where
        F: FnMut(&'t str) -> Result<()>,
    {
        match self {
            Self::Words => cut(text, next_word, emit),
            Self::DigitsThenWords => isolate(text, one_number, &mut |part| {
                cut(part, next_word, &mut *emit)
            }),
            Self::PunctuationThenWords => isolate(text, punctuation, &mut |part| {
                cut(part, next_word, &mut |word| {
                    isolate(word, three_digits, &mut *emit)
                })
            }),
            Self::Lines { digits } => cut(text, |text, at| next_in_line(text, at, digits), emit),
            Self::CasedLines => cut(text, next_cased, emit),
            Self::Layers => isolate(text, newline, &mut |line| {
                isolate(line, |text, at| spaced(text, at, LETTER), &mut |part| {
                    isolate(
                        part,
                        |text, at| spaced(text, at, PUNCTUATION),
                        &mut |part| {
                            isolate(part, east_asian, &mut |part| {
                                isolate(part, one_number, &mut *emit)
                            })
                        },
                    )
                })
            }),
        }
    }
}

/// Cuts `text` wherever `next(text, start)`, which is past `start`, says a piece ends.
#[inline]
fn cut<'t>(
    text: &'t str,
    next: impl Fn(&str, usize) -> usize,
    emit: &mut impl FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    while at < text.len() {
        let end = next(text, at);
        emit(&text[at..end])?;
        at = end;
    }
    Ok(())
}

/// Emits every match alone, and what lies between matches. `end_of_match(text, at)` is `at` when
/// nothing matches there.
#[inline]
fn isolate<'t>(
    text: &'t str,
    end_of_match: impl Fn(&str, usize) -> usize,
    emit: &mut impl FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let end = end_of_match(text, at);
        if end == at {
            at += look(text, at).1;
            continue;
        }
        if start < at {
            emit(&text[start..at])?;
        }
        emit(&text[at..end])?;
        (start, at) = (end, end);
    }
    if start < at {
        emit(&text[start..at])?;
    }
    Ok(())
}

/// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
fn next_word(text: &str, at: usize) -> usize {
    let byte = text.as_bytes()[at];
    if byte == b'\'' {
        let end = at + contraction(&text.as_bytes()[at..], false);
        if end > at {
            return end;
        }
    }
    let body = at + usize::from(byte == b' ');
    let (set, bytes) = look(text, body);
    if set & LETTER != 0 {
        run(text, body + bytes, LETTER)
    } else if set & NUMBER != 0 {
        run(text, body + bytes, NUMBER)
    } else if set & SPACE != 0 || bytes == 0 {
        white_space(text, at, false)
    } else {
        run_outside(text, body + bytes, SPACE | LETTER | NUMBER)
    }
}

/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|`
/// ` ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn next_in_line(text: &str, at: usize, digits: usize) -> usize {
    let byte = text.as_bytes()[at];
    let (set, bytes) = look(text, at);
    if set & LETTER != 0 {
        return run(text, at + bytes, LETTER);
    }
    if byte == b'\'' {
        let end = at + contraction(&text.as_bytes()[at..], true);
        if end > at {
            return end;
        }
    }
    if set & NUMBER == 0 && !is_newline(byte) {
        let (second, second_bytes) = look(text, at + bytes);
        if second & LETTER != 0 {
            return run(text, at + bytes + second_bytes, LETTER);
        }
    }
    other(text, at, digits, b"\r\n")
}

/// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|...|'d)?|`
/// `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|...|'d)?|`
/// `\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn next_cased(text: &str, at: usize) -> usize {
    let (set, bytes) = look(text, at);
    let prefix = set & (LETTER | NUMBER) == 0 && !is_newline(text.as_bytes()[at]);
    let bodies = [prefix.then_some(at + bytes), Some(at)];
    for word in [word_with_lower, word_of_upper] {
        for body in bodies.into_iter().flatten() {
            let end = word(text, body);
            if end > body {
                return end + contraction(&text.as_bytes()[end..], true);
            }
        }
    }
    other(text, at, 3, b"\r\n/")
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+`; `at` when it does not match.
fn word_with_lower(text: &str, at: usize) -> usize {
    // The first class takes all it can and gives back until the second, which shares the
    // caseless letters and marks with it, matches something.
    let (mut end, mut shared_end) = (at, at);
    loop {
        let (set, bytes) = look(text, end);
        if set & (UPPER | CASELESS | MARK) == 0 {
            break;
        }
        end += bytes;
        if set & (CASELESS | MARK) != 0 {
            shared_end = end;
        }
    }
    if look(text, end).0 & LOWER != 0 {
        return run(text, end, LOWER | CASELESS | MARK);
    }
    shared_end
}

/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*`; `at` when it does not match.
fn word_of_upper(text: &str, at: usize) -> usize {
    let end = run(text, at, UPPER | CASELESS | MARK);
    if end == at {
        return at;
    }
    run(text, end, LOWER | CASELESS | MARK)
}

/// `\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[tail]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn other(text: &str, at: usize, digits: usize, tail: &[u8]) -> usize {
    let (set, bytes) = look(text, at);
    if set & NUMBER != 0 {
        return few(text, at, bytes, digits);
    }
    let body = at + usize::from(text.as_bytes()[at] == b' ');
    let end = run_outside(text, body, SPACE | LETTER | NUMBER);
    if end == body {
        return white_space(text, at, true);
    }
    let rest = text.as_bytes()[end..].iter();
    end + rest.take_while(|byte| tail.contains(byte)).count()
}

/// The end of at most `digits` numbers; the first, `bytes` long, is at `at`.
fn few(text: &str, at: usize, bytes: usize, digits: usize) -> usize {
    let mut end = at + bytes;
    for _ in 1..digits {
        let (set, bytes) = look(text, end);
        if set & NUMBER == 0 {
            break;
        }
        end += bytes;
    }
    end
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`, the first only with `lines`. There is white space at `at`.
fn white_space(text: &str, at: usize, lines: bool) -> usize {
    let (mut end, mut last, mut line_end) = (at, at, at);
    loop {
        let (set, bytes) = look(text, end);
        if set & SPACE == 0 {
            break;
        }
        last = end;
        end += bytes;
        if is_newline(text.as_bytes()[last]) {
            line_end = end;
        }
    }
    if lines && line_end > at {
        return line_end;
    }
    // The last one belongs to the word that follows, unless it is the only one.
    if end == text.len() || last == at {
        end
    } else {
        last
    }
}

/// Bytes of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d` at the start of `text`, or 0. Without
/// case the long s (U+017F) counts as an s, as it does for regular expressions.
fn contraction(text: &[u8], any_case: bool) -> usize {
    if text.first() != Some(&b'\'') {
        return 0;
    }
    let letter = |at: usize| match text.get(at) {
        Some(byte) if any_case => byte.to_ascii_lowercase(),
        Some(&byte) => byte,
        None => 0,
    };
    match (letter(1), letter(2)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        (0xc5, 0xbf) if any_case => 3,
        _ => 0,
    }
}

/// `\p{N}`
fn one_number(text: &str, at: usize) -> usize {
    let (set, bytes) = look(text, at);
    if set & NUMBER != 0 { at + bytes } else { at }
}

/// ``[\p{P}$+<=>^~|`]+``: Unicode punctuation and all of ASCII's.
fn punctuation(text: &str, at: usize) -> usize {
    const ASCII: &[u8] = b"$+<=>^~|`";
    let mut end = at;
    loop {
        let (set, bytes) = look(text, end);
        let ascii_symbol = set & SYMBOL != 0 && ASCII.contains(&text.as_bytes()[end]);
        if set & PUNCTUATION == 0 && !ascii_symbol {
            return end;
        }
        end += bytes;
    }
}

/// `[0-9][0-9][0-9]`
fn three_digits(text: &str, at: usize) -> usize {
    match text.as_bytes().get(at..at + 3) {
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => at + 3,
        _ => at,
    }
}

/// `[\r\n]`
fn newline(text: &str, at: usize) -> usize {
    at + usize::from(is_newline(text.as_bytes()[at]))
}

/// `\s?[sets]+`
fn spaced(text: &str, at: usize, sets: Set) -> usize {
    let (set, bytes) = look(text, at);
    let body = if set & SPACE != 0 { at + bytes } else { at };
    let end = run(text, body, sets);
    if end > body { end } else { at }
}

/// `[一-龥ࠀ-一가-퟿]+`: U+0800 to U+9FA5 and U+AC00 to U+D7FF.
fn east_asian(text: &str, at: usize) -> usize {
    // Three-byte characters only, so ASCII and the two-byte scripts end it at once.
    let mut end = at;
    while text.as_bytes().get(end).is_some_and(|&byte| byte >= 0xe0) {
        match text[end..].chars().next() {
            Some(c @ ('\u{800}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7ff}')) => end += c.len_utf8(),
            _ => break,
        }
    }
    end
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use fancy_regex::Regex;

    use super::*;

    const WORDS: &str =
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const ENDINGS: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    const SPACES: &str = r"\s*[\r\n]+|\s+(?!\S)|\s+";

    /// The published expressions of each pattern, applied one after another.
    fn expressions(pattern: Pattern) -> Vec<Regex> {
        let sources = match pattern {
            Pattern::Words => vec![WORDS.into()],
            Pattern::DigitsThenWords => vec![r"\p{N}".into(), WORDS.into()],
            Pattern::PunctuationThenWords => {
                vec![
                    r"[\p{P}$+<=>^~|`]+".into(),
                    WORDS.into(),
                    "[0-9][0-9][0-9]".into(),
                ]
            }
            Pattern::Lines { digits } => vec![format!(
                r"{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{digits}}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
            )],
            Pattern::CasedLines => {
                let prefix = r"[^\r\n\p{L}\p{N}]?";
                let (upper, lower) = (
                    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",
                    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",
                );
                vec![format!(
                    r"{prefix}{upper}*{lower}+{ENDINGS}?|{prefix}{upper}+{lower}*{ENDINGS}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
                )]
            }
            Pattern::Layers => [
                r"[\r\n]",
                r"\s?\p{L}+",
                r"\s?\p{P}+",
                "[一-龥ࠀ-一가-퟿]+",
                r"\p{N}",
            ]
            .map(String::from)
            .to_vec(),
        };
        sources
            .iter()
            .map(|source| Regex::new(source).unwrap())
            .collect()
    }

    /// What the expressions make of `text`: each isolates its matches in every part so far.
    fn expected<'t>(expressions: &[Regex], text: &'t str) -> Vec<&'t str> {
        let mut parts = vec![text];
        for expression in expressions {
            let mut next = Vec::new();
            for part in parts {
                let mut start = 0;
                for found in expression.find_iter(part).map(Result::unwrap) {
                    next.extend([&part[start..found.start()], found.as_str()]);
                    start = found.end();
                }
                next.push(&part[start..]);
            }
            next.retain(|part| !part.is_empty());
            parts = next;
        }
        parts
    }

    #[test]
    fn scanners_agree_with_the_published_expressions() {
        let alphabet: Vec<&str> =
            "a B s T re LL 've ' 's \u{17f} é É ß ǅ ʰ 中 か 한 ก \u{301} ا 1 2 ٣ ½ Ⅷ \
             . , ! - _ / $ + < ` ~ | € 。 😀 \u{200d} \u{0} \u{a0} \u{85} \u{2028} \u{3000}"
                .split(' ')
                .chain([" ", " ", "  ", "\n", "\r\n", "\t", "\r", "\u{b}"])
                .collect();
        let patterns = [
            Pattern::Words,
            Pattern::DigitsThenWords,
            Pattern::PunctuationThenWords,
            Pattern::Lines { digits: 1 },
            Pattern::Lines { digits: 3 },
            Pattern::CasedLines,
            Pattern::Layers,
        ];
        for pattern in patterns {
            let expressions = expressions(pattern);
            let mut state = 1u64;
            for length in (0..24).cycle().take(8000) {
                let text: String = (0..length)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                        alphabet[(state >> 33) as usize % alphabet.len()]
                    })
                    .collect();
                let mut pieces = Vec::new();
                pattern
                    .split(&text, &mut |piece| {
                        pieces.push(piece);
                        Ok(())
                    })
                    .unwrap();
                assert_eq!(
                    pieces,
                    expected(&expressions, &text),
                    "{pattern:?} {text:?}"
                );
            }
        }
    }
}
