//! Templates that nobody wrote: those of models with parts deleted, doubled, swapped, spliced and
//! attacks put in, by a generator with a seed. Whatever they are, they answer, soon, on a small stack.
#![allow(clippy::unwrap_used)] // tests

mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lightgpt::chat::{Chat, PROMPT_BYTES_MAX, SpecialTexts, Template};
use lightgpt::error::{Code, Result};
use lightgpt::random::Random;

use support::shared;

const MUTANTS: u64 = 2_000;
const SEED: u64 = 7;
const STACK_BYTES: usize = 256 << 10;
/// Far more than one takes without optimisation on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Where the templates of models are not at hand.
const OWN: [&str; 2] = [
    "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}\
    {%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}{%- set ns = namespace(last=0) %}\
    {%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}\
    {%- if message.role == 'user' and not ns.last %}{%- set ns.last = index %}{%- endif %}\
    {%- endfor %}{%- for message in messages %}{%- if message.content is string %}\
    {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}{%- else %}\
    {%- set content = '' %}{%- endif %}{{- '<|im_start|>' + message.role + '\\n' + content }}\
    {%- if message.tool_calls %}{%- for call in message.tool_calls %}{{- call.function.name }}\
    {%- for name, value in call.function.arguments|items %}{{ name }}={{ value|string }}\
    {%- endfor %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}\
    {%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "{{ bos_token }}{% macro part(text, role='user', end=none) -%}\n[{{ role|upper }}]{{ text|trim }}\
    {%- if caller %}{{ caller(role) }}{% endif %}{{ end or eos_token }}{% endmacro %}\
    {% for message in messages if message.role not in ['tool'] %}{% if loop.first %}\
    {{ part(message['content'], role=message['role']) }}{% elif message.content is iterable %}\
    {% call(role) part('x', end='%s-%d' % (message.role, loop.index)) %}{{ role|title }}{% endcall %}\
    {% else %}{{ raise_exception('no content at ' ~ loop.index) }}{% endif %}\
    {% if loop.last and date is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}{% endfor %}\
    {% set found = messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list %}\
    {% for key, value in (tools or [{}])[0]|dictsort recursive %}{{ key }}{% if value is mapping %}\
    {{ loop(value|dictsort) }}{% endif %}{% else %}-{% endfor %}\
    {% set text %}{{ found|join(', ')|replace('a', 'b')|indent(2) }}{% endset %}{{ text|capitalize }}",
];

/// What templates might be made worse with.
const NASTY: &[&str] = &[
    "{% set x = 'ab' %}{% set n = namespace(x='ab') %}",
    "{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
    "{% for i in range(40) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
    "{% for i in range(999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "{% for i in range(999) %}{% set n.x = namespace(x=n.x) %}{% endfor %}",
    "{% set n = namespace() %}{% set n.x = n %}{{ n }}{{ n == n.x }}",
    "{% set messages = messages * 30 %}",
    "{% set messages = [messages, messages] %}",
    "{% for a in range(300) %}{% for b in range(300) %}{% endfor %}{% endfor %}",
    "{% for x in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "{% macro m(x) %}{{ m(x) }}{{ caller() }}{% endmacro %}{{ m(1) }}",
    "{% call m(messages) %}{{ m(2) }}{% endcall %}",
    "{% call() (0 and m(1)) %}{% endcall %}",
    "{% for x in messages %}{% set y %}{% break %}{% endset %}{% endfor %}",
    "{{ ('a' * 9999)|replace('a', 'b' * 99999)|length }}",
    "{{ 'a\\nb'|indent(2000000000, true) }}",
    "{{ '%2000000000d' % 1 }}{{ '{:9999}'.format(1) }}",
    "{{ range(99999)|list|join('a' * 9999999) }}",
    "{{ messages|tojson(indent=99999999) }}",
    "{{ messages|sort(attribute='role')|unique(attribute='role')|list }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ messages|map('tojson')|map('length')|sum }}",
    "{% if ",
    "{% endif %}",
    "{% else %}",
    "{% endfor %}",
    "{% break %}{% continue %}",
    "{% generation %}",
    "{{ (((((((((((((((",
    "{{ loop }}{{ loop.changed(loop) }}{{ loop.cycle(messages, 1) }}",
    " ~ messages",
    "|tojson|safe",
    "|list",
    "|map(attribute='content.0.x')",
    "[::-1]",
    "[-9999999999999999999:99999999999999999999:-7]",
    ".split('')",
    ".strip(messages)",
    " * 170141183460469231731687303715884105727",
    " - 170141183460469231731687303715884105727 - 2",
    " % 0",
    " // -1",
    " not ",
    "*messages",
    "'\u{1f600}\u{301}'",
    "\r\n{#-",
    "+%}",
];

/// Draws numbers for one mutant.
struct Draw {
    random: Random,
    at: u32,
}

impl Draw {
    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        self.at += 1;
        (self.random.bits(self.at) % end.max(1) as u64) as usize
    }

    /// Begin and end of some of `len` things.
    fn span(&mut self, len: usize) -> (usize, usize) {
        let begin = self.below(len + 1);
        let longest = (len - begin).min(8);
        (begin, begin + self.below(longest + 1))
    }
}

/// The source in pieces: tags and what is between them, or words and what is between those.
fn pieces(source: &str, by_tags: bool) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut begin = 0;
    let mut before = ' ';
    for (at, c) in source.char_indices() {
        let is_cut = match by_tags {
            true => {
                source[at..].starts_with("{%") || source[at..].starts_with("{{") || {
                    let behind = &source[..at];
                    behind.ends_with("%}") || behind.ends_with("}}")
                }
            }
            false => !(c.is_alphanumeric() && before.is_alphanumeric()),
        };
        if is_cut && at > begin {
            pieces.push(&source[begin..at]);
            begin = at;
        }
        before = c;
    }
    pieces.push(&source[begin..]);
    pieces
}

fn mutant(templates: &[String], number: u64) -> String {
    let mut draw = Draw {
        random: Random {
            seed: SEED,
            step: number,
        },
        at: 0,
    };
    let by_tags = draw.below(3) > 0;
    let mut parts = pieces(&templates[draw.below(templates.len())], by_tags);
    for _ in 0..=draw.below(3) {
        let (begin, end) = draw.span(parts.len());
        let place = draw.below(parts.len() + 1);
        match draw.below(6) {
            0 => drop(parts.drain(begin..end)),
            1 => {
                let again = parts[begin..end].to_vec();
                parts.splice(place..place, again);
            }
            2 => {
                let taken: Vec<&str> = parts.drain(begin..end).collect();
                let place = place.min(parts.len());
                parts.splice(place..place, taken);
            }
            3 => {
                let other = pieces(&templates[draw.below(templates.len())], by_tags);
                let (from, to) = draw.span(other.len());
                parts.splice(begin..end, other[from..to].to_vec());
            }
            _ => parts.insert(place, NASTY[draw.below(NASTY.len())]),
        }
    }
    parts.concat()
}

fn chat() -> Result<Chat> {
    let mut chat = Chat::new();
    chat.now = Some(0);
    chat.push_json(
        r#"[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hé\n<b>?"},
        {"role": "assistant", "content": "<think>a</think>b", "tool_calls": [{"type": "function",
        "function": {"name": "f", "arguments": {"a": 1, "b": [1.5, null, true]}}}]},
        {"role": "tool", "content": "{}"}, {"role": "user", "content": [{"type": "text", "text": "a"}]}]"#,
    )?;
    chat.set_tools_json(
        r#"[{"type": "function", "function": {"name": "f", "description": "d", "parameters":
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}]"#,
    )?;
    Ok(chat)
}

fn templates() -> Vec<String> {
    let mut all: Vec<String> = OWN.map(String::from).into();
    if let Some(folder) = shared("templates to mutate", "data/chat/templates") {
        let mut paths: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        all.extend(paths.iter().map(|path| fs::read_to_string(path).unwrap()));
    }
    all
}

#[test]
fn mutants_of_templates_answer() {
    let (chat, templates) = (chat().unwrap(), templates());
    for source in &templates {
        Template::compile(source, "template").unwrap();
    }
    let rendered = AtomicUsize::new(0);
    let check = |number: u64| {
        let source = mutant(&templates, number);
        let (text, chat) = (source.clone(), chat.clone());
        let work = move || {
            let template = Template::compile(&text, "template")?;
            template.render(&chat, &SpecialTexts::new("<s>", "</s>"))
        };
        let begin = Instant::now();
        let thread = thread::Builder::new().stack_size(STACK_BYTES);
        let result = thread.spawn(work).unwrap().join();
        let taken = begin.elapsed();
        let what = format!("mutant {number}: {source}");
        assert!(taken < TIME_MAX, "{taken:?} of {what}");
        match result.unwrap_or_else(|_| panic!("a panic of {what}")) {
            Ok(prompt) => {
                assert!(prompt.len() <= PROMPT_BYTES_MAX, "{what}");
                rendered.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let codes = [Code::Format, Code::InvalidArgument, Code::Unsupported];
                assert!(codes.contains(&error.code()), "{error} of {what}");
                assert!(error.place().starts_with("template"), "{error} of {what}");
            }
        }
    };
    thread::scope(|scope| {
        for half in 0..2 {
            let check = &check;
            scope.spawn(move || (half..MUTANTS).step_by(2).for_each(check));
        }
    });
    // They are not all nonsense.
    let rendered = rendered.into_inner() as u64;
    assert!(rendered > MUTANTS / 8, "{rendered} rendered");
}
