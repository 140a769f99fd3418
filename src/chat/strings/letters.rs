//! Methods of strings that are about letters: in which case they are, and what they are.

use crate::chat::lexer::is_space;

/// The text in other letters, if the method is about that.
pub(super) fn changed(text: &str, name: &str) -> Option<String> {
    Some(match name {
        "upper" => text.to_uppercase(),
        "lower" | "casefold" => text.to_lowercase(),
        "capitalize" => capitalize(text),
        "title" => {
            let mut behind = false;
            let mut result = String::new();
            for c in text.chars() {
                match behind {
                    true => result.extend(c.to_lowercase()),
                    false => result.extend(c.to_uppercase()),
                }
                behind = c.is_alphabetic();
            }
            result
        }
        "swapcase" => {
            let swap = |c: char| -> String {
                match c.is_uppercase() {
                    true => c.to_lowercase().collect(),
                    false => c.to_uppercase().collect(),
                }
            };
            text.chars().map(swap).collect()
        }
        _ => return None,
    })
}

pub(in crate::chat) fn capitalize(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first
        .chain(letters.as_str().to_lowercase().chars())
        .collect()
}

/// Whether the text is what the method asks.
pub(super) fn is(text: &str, name: &str) -> bool {
    let all = |what: fn(char) -> bool| !text.is_empty() && text.chars().all(what);
    let cased = |c: char| c.is_lowercase() || c.is_uppercase();
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" | "isdigit" => all(|c| c.is_ascii_digit() || is_other_digit(c)),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isprintable" => text.chars().all(|c| !c.is_control()),
        "islower" => text.chars().any(cased) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(cased) && !text.chars().any(char::is_lowercase),
        "isidentifier" => {
            let begins = |c: char| c == '_' || c.is_alphabetic();
            let goes_on = |c: char| c == '_' || c.is_alphanumeric();
            text.chars().next().is_some_and(begins) && text.chars().all(goes_on)
        }
        _ => is_title(text),
    }
}

/// Decimal digits of other scripts stand in rows of ten.
fn is_other_digit(c: char) -> bool {
    const ZEROS: [u32; 12] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xe50, 0xff10,
    ];
    ZEROS
        .iter()
        .any(|zero| (*zero..zero + 10).contains(&(c as u32)))
}

fn is_title(text: &str) -> bool {
    let mut behind = false;
    let mut any = false;
    for c in text.chars() {
        let wrong = (c.is_uppercase() && behind) || (c.is_lowercase() && !behind);
        if wrong {
            return false;
        }
        behind = c.is_uppercase() || c.is_lowercase();
        any |= behind;
    }
    any
}
