//! The limits that SECURITY.md promises are those of the sources.
#![allow(clippy::unwrap_used)] // a test

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What is limited, and the limit, with the constants that it names: `{file NAME}` as a number,
/// `{file NAME MiB}` as one of MiB.
const TABLE: &[(&str, &str)] = &[
    (
        "metadata and tensor directory of one file",
        "{gguf/limits HEAD_BYTES_MAX MiB} MiB",
    ),
    (
        "metadata keys",
        "{gguf/limits KEYS_MAX}, each at most {gguf/limits KEY_BYTES_MAX} bytes long",
    ),
    (
        "arrays inside arrays",
        "{gguf/limits ARRAY_DEPTH_MAX} levels",
    ),
    ("tensors of a model", "{gguf/limits TENSORS_MAX}"),
    ("a tensor's name", "{gguf/limits NAME_BYTES_MAX} bytes"),
    (
        "dimensions of a tensor",
        "1 to {gguf/limits DIMENSIONS_MAX}, none of them 0",
    ),
    (
        "`general.alignment`",
        "a power of two up to {gguf/limits ALIGNMENT_MAX MiB} MiB",
    ),
    (
        "files of a split model",
        "{gguf/limits PARTS_MAX}, named as the first one says, in the same folder",
    ),
    ("layers", "{model/spec LAYERS_MAX}"),
    ("widths, heads, vocabulary", "{model/spec WIDTH_MAX}"),
    ("context", "{model/spec CONTEXT_MAX} tokens"),
    (
        "text of a token",
        "{tokenizer/load TOKEN_BYTES_MAX} bytes; {tokenizer/load SPECIAL_BYTES_MAX} if it is \
         looked for in texts (control, user-defined, unknown)",
    ),
    ("tokens of one text", "{tokenizer/mod COUNT_MAX}"),
    (
        "stop strings of a turn",
        "{session/stop STOPS_MAX}, each 1 to {session/stop STOP_BYTES_MAX} bytes long",
    ),
    ("threads of a team", "{team/mod THREADS_MAX}"),
    (
        "handles at a time",
        "{capi/handles SLOTS_MAX} (4,096 on 32-bit machines)",
    ),
    (
        "size of a struct at the C border",
        "{capi/options STRUCT_BYTES_MAX} bytes",
    ),
    (
        "logit biases of a sampler",
        "{capi/sampler_options BIASES_MAX}",
    ),
    (
        "DRY breakers of a sampler",
        "{capi/sampler_options BREAKERS_MAX}, each 1 to {capi/sampler_options BREAKER_TOKENS_MAX} tokens long",
    ),
    (
        "stages in a sampler's order, and of the host's own",
        "{capi/sampler_options STAGES_MAX} each",
    ),
    (
        "sequences whose diversity is measured at once",
        "{capi/diversity SEQUENCES_MAX}",
    ),
    (
        "source of a chat template",
        "{chat/mod SOURCE_BYTES_MAX} bytes",
    ),
    (
        "nesting of a chat template's expressions and blocks",
        "{chat/parser NESTING_MAX}",
    ),
    ("steps of a rendering", "{chat/mod STEPS_MAX}"),
    (
        "text and data that a rendering makes",
        "{chat/mod MADE_BYTES_LEAST MiB} MiB, or {chat/mod MADE_BYTES_EACH} bytes for each byte of the chat, at most {chat/mod MADE_BYTES_MAX MiB} MiB",
    ),
    (
        "a prompt that a template makes",
        "{chat/mod PROMPT_BYTES_MAX MiB} MiB",
    ),
    (
        "nesting of its lists and dictionaries, of its macros' calls",
        "{chat/value DEPTH_MAX} and {chat/machine FRAMES_MAX}",
    ),
];

#[test]
fn the_table_of_limits_is_true() {
    let text = fs::read_to_string(Path::new(ROOT).join("SECURITY.md")).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    let expected: Vec<String> = TABLE
        .iter()
        .map(|(what, limit)| format!("| {what} | {} |", filled(limit)))
        .collect();
    assert_eq!(rows, expected);
}

/// `limit` with numbers for its constants.
fn filled(limit: &str) -> String {
    let mut parts = limit.split(['{', '}']);
    let mut text = parts.next().unwrap().to_string();
    while let (Some(constant), Some(after)) = (parts.next(), parts.next()) {
        let words: Vec<&str> = constant.split(' ').collect();
        let value = value_of(words[0], words[1]);
        let unit = if words.contains(&"MiB") { 20 } else { 0 };
        text.push_str(&with_commas(value >> unit));
        text.push_str(after);
    }
    text
}

/// The constant `name` in `src/{file}.rs`.
fn value_of(file: &str, name: &str) -> u64 {
    let source = fs::read_to_string(Path::new(ROOT).join(format!("src/{file}.rs"))).unwrap();
    let start = format!("const {name}: ");
    let line = source
        .lines()
        .find_map(|line| Some(line.split_once(&start)?.1));
    let line = line.unwrap_or_else(|| panic!("no {name} in {file}"));
    let (_, expression) = line.trim_end_matches(';').split_once(" = ").unwrap();
    evaluate(&source, expression)
}

/// Numbers, `a << b`, `(a) - b`, names of constants in the same file, and `i32::MAX as usize`.
fn evaluate(source: &str, expression: &str) -> u64 {
    if let Some((left, right)) = expression.split_once(" - ") {
        let left = left.trim_matches(['(', ')']);
        return evaluate(source, left) - evaluate(source, right);
    }
    if let Some((left, right)) = expression.split_once(" << ") {
        return evaluate(source, left) << evaluate(source, right);
    }
    if expression == "i32::MAX as usize" {
        return i32::MAX as u64;
    }
    expression.replace('_', "").parse().unwrap_or_else(|_| {
        let start = format!("const {expression}: u32 = ");
        let line = source
            .lines()
            .find_map(|line| Some(line.split_once(&start)?.1));
        evaluate(source, line.unwrap().trim_end_matches(';'))
    })
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
