//! Chat templates of models, rendered byte for byte as `transformers` renders them.
//!
//! Everything runs on threads with little stack, as hosts have them.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use lightgpt::chat::{Chat, SpecialTexts, Template};
use lightgpt::error::Result;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use support::shared;

const STACK_BYTES: usize = 256 << 10;
/// 2025-01-29 12:00:00, which the expected prompts were made with.
const NOW: i64 = 1_738_152_000;

/// The members of an object as they are written: order counts in prompts.
type Raw = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct Goldens {
    bos_token: String,
    eos_token: String,
    contexts: BTreeMap<String, Raw>,
    goldens: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    template: String,
    context: String,
    output: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Known {
    name: String,
    template: String,
    bos_token: String,
    eos_token: String,
    messages: Box<RawValue>,
    add_generation_prompt: Box<RawValue>,
    /// What another implementation makes of it.
    expected_jinja: String,
    hf_jinja2: Option<String>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    template: String,
    context: Raw,
    expected: String,
}

fn read<T: DeserializeOwned>(name: &str, file: &str) -> Option<T> {
    let text = fs::read_to_string(shared(name, &format!("data/chat/{file}"))?).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// What a template makes of a context, whose members are variables.
fn render(source: &str, context: &Raw, special: SpecialTexts) -> Result<String> {
    let (source, mut context) = (source.to_owned(), context.clone());
    let work = move || {
        let mut chat = Chat::new();
        chat.now = Some(NOW);
        let answers = context.remove("add_generation_prompt");
        chat.add_generation_prompt = answers.is_some_and(|answers| answers.get() == "true");
        if let Some(messages) = context.remove("messages") {
            chat.push_json(messages.get())?;
        }
        if let Some(tools) = context.remove("tools") {
            chat.set_tools_json(tools.get())?;
        }
        chat.set_variables_json(&serde_json::to_string(&context).unwrap())?;
        Template::compile(&source, "template")?.render(&chat, &special)
    };
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    thread.spawn(work).unwrap().join().unwrap()
}

#[test]
fn templates_of_models_render_as_in_transformers() {
    let Some(all) = read::<Goldens>("chat templates", "goldens_hf_jinja2.json") else {
        return;
    };
    assert!(all.goldens.len() > 400);
    let mut wrong = Vec::new();
    for case in &all.goldens {
        let Golden {
            template,
            context,
            output,
            error,
        } = case;
        let path = shared("chat templates", &format!("data/chat/templates/{template}")).unwrap();
        let source = fs::read_to_string(path).unwrap();
        let special = SpecialTexts::new(&all.bos_token, &all.eos_token);
        let found = render(&source, &all.contexts[context], special);
        let is_right = match (&found, output, error) {
            (Ok(found), Some(expected), _) => found == expected,
            (Err(found), _, Some(expected)) => is_same_error(found.message(), expected),
            _ => false,
        };
        if !is_right {
            let expected = output.as_ref().or(error.as_ref());
            wrong.push(format!(
                "{template} {context}: {found:?}\n  expected {expected:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Whether an error says the same as Python's, which begins with the name of a class.
fn is_same_error(found: &str, expected: &str) -> bool {
    expected.split_once(": ").unwrap().1 == found
}

#[test]
fn templates_of_known_models_render_as_in_transformers() {
    let file = "llamacpp_test_chat_template.json";
    let Some(cases) = read::<Vec<Known>>("known chat templates", file) else {
        return;
    };
    assert!(cases.len() > 30);
    for case in cases {
        let mut special = SpecialTexts::new(&case.bos_token, &case.eos_token);
        let mut context = Raw::from([
            ("messages".into(), case.messages),
            ("add_generation_prompt".into(), case.add_generation_prompt),
        ]);
        // One wants more of its tokenizer than files hold.
        let expected = case.hf_jinja2.unwrap_or_else(|| {
            let texts = r#"["<|role_sep|>", "<|message_sep|>", "[", "]"]"#;
            let texts = RawValue::from_string(texts.into()).unwrap();
            context.insert("additional_special_tokens".into(), texts);
            special = SpecialTexts::new("<s>", "");
            case.expected_jinja
        });
        let found = render(&case.template, &context, special);
        let name = case.name;
        match (found, expected.strip_prefix("EXC ")) {
            (Ok(found), None) => assert_eq!(found, expected, "{name}"),
            (Err(error), Some(expected)) => assert_eq!(error.message(), expected, "{name}"),
            (found, _) => panic!("{name}: {found:?}, expected {expected}"),
        }
    }
}

/// Cases of an implementation in JavaScript that Python answers otherwise: it writes values in its
/// own spelling,
const PYTHON_SPELLS: [&str; 45] = [
    "BOOLEAN_LITERALS",
    "LOGICAL_AND",
    "LOGICAL_OR",
    "LOGICAL_NOT",
    "LOGICAL_NOT_NOT",
    "LOGICAL_AND_OR",
    "LOGICAL_AND_NOT",
    "LOGICAL_OR_NOT",
    "LOGICAL_COMBINED",
    "BINOP_EXPR",
    "BINOP_EXPR_1",
    "PROPERTIES_1",
    "MEMBERSHIP_UNDEFINED",
    "UNARY_SIGN_EXPRESSIONS",
    "SUBSTRING_INCLUSION",
    "FILTER_OPERATOR_13",
    "FILTER_OPERATOR_16",
    "SORT_BASIC_STRINGS",
    "SORT_CASE_SENSITIVE",
    "SORT_CASE_INSENSITIVE",
    "SORT_ATTRIBUTE_SIMPLE",
    "SORT_CHAINED",
    "SORT_STABLE",
    "SORT_POSITIONAL_REVERSE_CASE",
    "SORT_POSITIONAL_ALL",
    "SORT_NULL_VALUES",
    "SORT_UNDEFINED_VALUES",
    "SORT_MIXED_BOOL_NUM",
    "BOOLEAN_NUMERICAL",
    "BOOLEAN_STRINGS",
    "BOOLEAN_MIXED",
    "BOOLEAN_MIXED_2",
    "IS_OPERATOR",
    "IS_OPERATOR_2",
    "IS_OPERATOR_3",
    "IS_OPERATOR_5",
    "IS_OPERATOR_6",
    "SHORT_CIRCUIT",
    "SHORT_CIRCUIT_1",
    "NAMESPACE_1",
    "NAMESPACE_2",
    "OBJECT_OPERATORS",
    "OBJECT_OPERATORS_1",
    "SCOPE",
    "SCOPE_1",
];
/// it does not add numbers to texts, give generators a length, name the arguments of `str.replace`,
/// or write what is undefined as JSON,
const PYTHON_REFUSES: [&str; 11] = [
    "FOR_LOOP_UNPACKING",
    "FOR_LOOP_OBJECTS",
    "REPLACE",
    "FILTER_OPERATOR_4",
    "FILTER_OPERATOR_5",
    "FILTER_OPERATOR_6",
    "FILTER_OPERATOR_7",
    "FILTER_OPERATOR_11",
    "FILTER_OPERATOR_12",
    "OBJECT_OPERATORS_2",
    "MACROS_2",
];
/// and 1 is true.
const PYTHON_ANSWERS: [(&str, &str); 3] = [
    ("MEMBERSHIP", "|True|True|True|True|True|False|"),
    (
        "MEMBERSHIP_NEGATION_1",
        "|False|False|False|False|False|True|",
    ),
    (
        "MEMBERSHIP_NEGATION_2",
        "|False|False|False|False|False|True|",
    ),
];

#[test]
fn the_language_is_that_of_jinja() {
    let Some(cases) = read::<Vec<Case>>("cases of Jinja", "hfjs_jinja_unit.json") else {
        return;
    };
    assert!(cases.len() > 150);
    let mut wrong = Vec::new();
    for case in &cases {
        // Contexts here are data; these have functions.
        let mut values = case.context.values();
        if values.any(|value| value.get().contains("__function")) {
            continue;
        }
        let (name, expected) = (&*case.name, &*case.expected);
        let found = render(&case.template, &case.context, SpecialTexts::default());
        let other = PYTHON_ANSWERS.iter().find(|(own, _)| *own == name);
        let is_right = match &found {
            Ok(found) if PYTHON_SPELLS.contains(&name) => {
                found != expected && unspelled(found) == expected
            }
            Ok(found) => *found == other.map_or(expected, |(_, answer)| answer),
            Err(_) => PYTHON_REFUSES.contains(&name),
        };
        if !is_right {
            wrong.push(format!("{name}: {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// What Python writes, as JavaScript writes it.
fn unspelled(text: &str) -> String {
    let pairs = [
        ("True", "true"),
        ("False", "false"),
        ("None", "null"),
        ("Undefined", "undefined"),
        ("'", "\""),
    ];
    let spell = |text: String, (from, to): (&str, &str)| text.replace(from, to);
    pairs.into_iter().fold(text.to_owned(), spell)
}

#[test]
fn what_is_not_there_is_named() {
    for (source, text) in [
        ("{{ 1|center }}", "No filter named 'center'."),
        ("{{ 1 is nosuch }}", "No test named 'nosuch'."),
        ("{% raw %}", "Encountered unknown tag 'raw'."),
        (
            "{{ 'a'.zfill(1) }}",
            "'str object' has no attribute 'zfill'",
        ),
        ("{{ joiner() }}", "'joiner' is undefined"),
        ("{{ '%x' % 1 }}", "the format 'x' is not supported"),
        ("{{ '{:+}'.format(1) }}", "the format '+' is not supported"),
        (
            "{{ '{:*>9}'.format(1) }}",
            "the format '{:*>9}' is not supported",
        ),
        (
            "{{ '{a.b}'.format(a=1) }}",
            "no argument 'a.b' for the format",
        ),
        ("{{ '\\a' }}", "the escape \\a is not supported"),
        (
            "{{ strftime_now('%c') }}",
            "strftime_now does not know '%c'",
        ),
        (
            "{{ [1]|map('int', base=2)|list }}",
            "unexpected keyword argument 'base'",
        ),
        (
            "{{ 1 < 2 < 3 }}",
            "comparisons of comparisons need parentheses",
        ),
        ("{{ 2 ** 3 }}", "expected '}}', found '**'"),
    ] {
        let error = render(source, &Raw::new(), SpecialTexts::default()).unwrap_err();
        assert_eq!(error.message(), text, "{source}");
    }
}
