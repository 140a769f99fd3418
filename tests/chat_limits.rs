//! What templates cannot do to their host: end its stack, take its memory or its time, reach it.
//!
//! Everything runs on a thread with little stack, as hosts have them.
#![allow(clippy::unwrap_used)] // tests

use std::thread;
use std::time::{Duration, Instant};

use lightgpt::chat::{Chat, SOURCE_BYTES_MAX, SpecialTexts, Template};
use lightgpt::error::{Code, Error, Result};

const STACK_BYTES: usize = 256 << 10;
/// Far more than the largest case takes in a debug build on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(60);

fn render(source: impl Into<String>) -> Result<String> {
    render_chat(source, Ok)
}

/// What a template makes of the chat that `fill` fills.
fn render_chat(
    source: impl Into<String>,
    fill: impl FnOnce(Chat) -> Result<Chat> + Send + 'static,
) -> Result<String> {
    let source = source.into();
    let work = move || {
        let mut chat = fill(Chat::new())?;
        chat.now = Some(0);
        Template::compile(&source, "template")?.render(&chat, &SpecialTexts::default())
    };
    let begin = Instant::now();
    let thread = thread::Builder::new().stack_size(STACK_BYTES);
    let result = thread.spawn(work).unwrap().join().expect("no panic");
    assert!(begin.elapsed() < TIME_MAX);
    result
}

#[track_caller]
fn refused(source: impl Into<String>, code: Code, place: &str) -> Error {
    let error = render(source).unwrap_err();
    assert_eq!((error.code(), error.place()), (code, place), "{error}");
    error
}

/// `text` that many times.
fn many(text: &str, count: usize) -> String {
    text.repeat(count)
}

#[test]
fn nesting_ends_in_an_error() {
    for (open, inner, close, count) in [
        ("(", "1", ")", 300),
        ("(", "1", ")", 100_000),
        ("[", "1", "]", 300),
        ("{'a':", "1", "}", 300),
        ("not ", "1", "", 300),
        ("not ", "1", "", 50_000),
        ("f(", "", ")", 300),
        ("a[", "1", "]", 300),
        ("1 if (", "1", ") else 2", 300),
        ("a or (b and ", "1", ")", 300),
    ] {
        let source = format!(
            "\n{{{{ {}{inner}{} }}}}",
            many(open, count),
            many(close, count)
        );
        let error = refused(source, Code::Format, "template line 2");
        assert!(error.message().contains("nest"), "{open}: {error}");
    }
    for (open, close) in [
        ("{% if 1 %}", "{% endif %}"),
        ("{% for x in y %}", "{% endfor %}"),
        ("{% set x %}", "{% endset %}"),
        ("{% macro m() %}", "{% endmacro %}"),
        ("{% call m() %}", "{% endcall %}"),
        ("{% filter upper %}", "{% endfilter %}"),
        ("{% generation %}", "{% endgeneration %}"),
    ] {
        let source = many(open, 10_000) + &many(close, 4);
        let error = refused(source, Code::Format, "template line 1");
        assert!(error.message().contains("nest"), "{open}: {error}");
    }
}

#[test]
fn long_is_not_deep() {
    let sum = format!("{{{{ 1{} }}}}", many(" + 1", 20_000));
    assert_eq!(render(sum).unwrap(), "20001");
    let text = format!("{{{{ 'a'{} }}}}", many(" ~ 'b'", 20_000));
    assert_eq!(render(text).unwrap().len(), 20_001);
    let filters = format!("{{{{ ' a '{} }}}}", many("|trim", 20_000));
    assert_eq!(render(filters).unwrap(), "a");
    let members = format!("{{{{ x{} }}}}", many("[0:]", 10_000));
    assert_eq!(
        render(format!("{{% set x = 'abc' %}}{members}")).unwrap(),
        "abc"
    );
    let choices = format!("{{{{ {} 0 }}}}", many("1 if x else ", 20_000));
    assert_eq!(render(choices).unwrap(), "0");
    let branches = format!(
        "{{% if x %}}{}{{% else %}}e{{% endif %}}",
        many("{% elif x %}", 15_000)
    );
    assert_eq!(render(branches).unwrap(), "e");
    let signs = format!("{{{{ {}1 }}}}", many("-", 100_000));
    assert_eq!(render(signs).unwrap(), "1");
    let strings = format!("{{{{ {} }}}}", many("'a'", 60_000));
    assert_eq!(render(strings).unwrap().len(), 60_000);
}

#[test]
fn macros_that_call_themselves_end_in_an_error() {
    let unsupported = Code::Unsupported;
    let error = refused(
        "{% macro m() %}{{ m() }}{% endmacro %}\n{{ m() }}",
        unsupported,
        "template line 1",
    );
    assert!(error.message().contains("deeper"), "{error}");
    let two =
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}";
    refused(two, unsupported, "template line 1");
    let caller = "{% macro m() %}{{ caller() }}{% call m() %}x{% endcall %}{% endmacro %}{% call m() %}y{% endcall %}";
    refused(caller, unsupported, "template line 1");
    let default = "{% macro m(a=m()) %}{% endmacro %}{{ m() }}";
    refused(default, unsupported, "template line 1");
    refused(
        "{% set x = [1] %}{% for i in x recursive %}{{ loop(x) }}{% endfor %}",
        unsupported,
        "template line 1",
    );
}

#[test]
fn work_and_memory_are_bounded() {
    let four_loops =
        "{% for a in range(99999) %}\n{% for b in range(99999) %}{% endfor %}{% endfor %}";
    for source in [
        four_loops,
        "{{ range(1000000000) }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 1000000000000000000000000000000 * 'x' }}",
        "{{ [0] * 1000000000 }}",
        "{{ ([0] * 1000000)|map('string')|list * 100 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:.1000000000f}'.format(1.5) }}",
        "{{ 'a'|indent(10000000000, true) }}",
        "{{ [1]|tojson(indent=10000000000) }}",
        "{{ 100000000000000000000000000000000000000 * 10 }}",
        // Doubled until it is too much.
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x.replace('a', 'aba') %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x|replace('', 'ab') %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x.join([n.x, n.x]) %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(24) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x|tojson|length }}",
        "{% set n = namespace(x={}) %}{% for i in range(99) %}{% set n.x = {1: n.x, 2: n.x} %}{% endfor %}",
        "{% set n = namespace(x='ab') %}{% for i in range(40) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x = y %}{% endfor %}",
        "{{ ('a' * 10000)|replace('a', 'b' * 10000)|replace('b', 'c' * 10000)|length }}",
        "{{ ('a\\n' * 1000000)|indent(1000000)|length }}",
        "{{ range(100000)|list|join('a' * 10000000) }}",
        "{{ range(100000)|map('string')|list|tojson(indent=100000000) }}",
        "{% set a = 'a' * 90000000 %}{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = n.x + [a ~ i] %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(40) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
        "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(22) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}{% for i in range(9999) %}{{ n.x == n.y }}{% endfor %}",
        "{% set x = range(99999)|list %}{% set x = x * 1000 %}{{ x|sum }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(24) %}{% set n.x = n.x + n.x %}{% endfor %}{% for i in range(1000) %}{% set z = n.x|sum %}{% endfor %}",
        "{% set n = namespace(x=[1]) %}{% for i in range(90000) %}{% set n.x = n.x + [1] %}{% endfor %}",
        // Deeper and deeper.
        "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = {'a': n.x} %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = (n.x,) %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(90000) %}{% set n.x = dict(x=n.x) %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}",
        "{% set n = namespace(x=()) %}{% for i in range(9999) %}{% set n.x = (n.x, i) %}{% endfor %}{{ {n.x: 1} }}",
        // Much, but not at once.
        "{% for i in range(99999) %}{% set x = 'x' * 99999 %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
        "{% for i in range(99999) %}{% set x = range(99999) %}{% endfor %}",
        "{% set x = 'x' * 1000000 %}{% for i in range(99999) %}{% set y = x|length + x.count('y') + (x[5] == 'x')|int %}{% endfor %}{% for i in range(99999) %}{% set y = x|length + x.count('y') %}{% endfor %}",
        "{% set x = range(99999)|list %}{% set y = range(99999)|list %}{% for i in x %}{% set z = x == y %}{% endfor %}",
        "{% set x = range(99999)|list %}{% for i in x %}{% set z = -1 in x %}{% endfor %}",
        "{% set x = range(99999)|list %}{% for i in x %}{% set z = x|sort(reverse=true)|first %}{% endfor %}",
        // Long arguments.
        "{{ '%.70000f' % 1.5 }}",
        "{% set x = 'ab' * 1000000 %}{% for i in range(99999) %}{% set z = 'b'.find(x) %}{% endfor %}",
        "{% set x = 'a' * 1000000 %}{% set y = 'b' * 1000000 ~ 'a' %}{% for i in range(99999) %}{% set z = x.strip(y) %}{% endfor %}",
        "{% set x = 'a.' * 1000000 %}{% set n = namespace() %}{% set n.a = n %}{% for i in range(99999) %}{% set z = [n]|map(attribute=x)|list %}{% endfor %}",
        "{% set x = '%%' * 1000000 %}{% for i in range(99999) %}{% set z = x % () %}{% endfor %}",
        "{% set x = 'a' * 10000000 %}{% set y = x ~ 'b' %}{% for i in range(99999) %}{% set z = x < y %}{% endfor %}",
        "{% set x = ('a' * 10000000,) * 9 %}{% for i in range(99999) %}{% set z = 'b'.startswith(x) %}{% endfor %}",
        "{{ ('\\n' * 100000000).splitlines() }}",
    ] {
        let error = render(source).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{source}: {error}");
        assert!(error.place().starts_with("template line "), "{error}");
    }
}

#[test]
fn what_holds_itself_or_much_is_dropped() {
    let often = |begin: &str, step: &str, end: &str| {
        let each = format!("{{% for i in range(90000) %}}{step}{{% endfor %}}");
        format!("{{% set n = namespace(x={begin}) %}}{each}{end}")
    };
    for (source, expected) in [
        (often("[]", "{% set n.x = namespace(x=n.x) %}", "a"), "a"),
        (
            often(
                "1",
                "{% macro m(a) %}{{ n.x }}{% endmacro %}{% set n.x = m %}",
                "a",
            ),
            "a",
        ),
        (
            often("[1, 2]", "{% set n.x = n.x[0:] %}", "{{ n.x }}"),
            "[1, 2]",
        ),
        (
            often("[1, 2]", "{% set n.x = n.x|reverse %}", "{{ n.x|list }}"),
            "[1, 2]",
        ),
        (
            often("[1, 2]", "{% set n.x = n.x|map('int') %}", "{{ n.x|list }}"),
            "[1, 2]",
        ),
        (often("1", "{% set n.x = n %}", "{{ n == n.x }}"), "True"),
    ] {
        assert_eq!(render(source.clone()).unwrap(), expected, "{source}");
    }
    for source in [
        "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n.x|tojson }}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n.x }}",
        "{{ [1]|map('int') }}",
    ] {
        refused(source, Code::InvalidArgument, "template line 1");
    }
}

#[test]
fn what_is_made_has_an_end_for_long_chats_too() {
    // Each time makes 16 MiB, and 256 bytes for each one given were 2 GiB.
    for (times, is_enough) in [(50, false), (100, true)] {
        let source = format!(
            "{{% for i in range({times}) %}}{{% set x = messages[0].content ~ 'x' %}}{{% endfor %}}"
        );
        let found = render_chat(source, |mut chat: Chat| {
            chat.push("user", Some(&many("a", 8 << 20)), None)?;
            Ok(chat)
        });
        let code = found.err().map(|error| error.code());
        assert_eq!(code, is_enough.then_some(Code::Unsupported), "{times}");
    }
}

#[test]
fn ends_of_numbers_are_no_panics() {
    assert_eq!(
        render("{{ (-(85070591730234615865843651857942052864) * 2) % 3 }}").unwrap(),
        "1"
    );
    let split = "{{ 'a b'.split(' ', 18446744073709551616 - 1) }}";
    assert_eq!(render(split).unwrap(), "['a', 'b']");
    assert_eq!(render("{{ 'a b '.split(none, 9) }}").unwrap(), "['a', 'b']");
}

#[test]
fn no_loop_is_left_out_of_a_recursive_one() {
    let source = "{% for a in [1] %}{% for b in [] recursive %}{% else %}{% break %}{% endfor %}{% endfor %}";
    refused(source, Code::Format, "template line 1");
}

#[test]
fn deep_values_can_be_used_and_dropped() {
    let deep =
        "{% set n = namespace(x=[]) %}{% for i in range(150) %}{% set n.x = [n.x] %}{% endfor %}";
    let brackets = many("[", 151) + &many("]", 151);
    assert_eq!(render(format!("{deep}{{{{ n.x }}}}")).unwrap(), brackets);
    assert_eq!(
        render(format!("{deep}{{{{ n.x|tojson }}}}")).unwrap(),
        brackets
    );
    let twice = format!("{deep}{{% set y = n.x %}}{}{{{{ y == n.x }}}}", deep);
    assert_eq!(render(twice).unwrap(), "True");
    let json = many("[", 120) + &many("]", 120);
    let given = json.clone();
    let written = render_chat("{{ x|tojson }}", move |mut chat| {
        chat.set_variables_json(&format!("{{\"x\": {given}}}"))?;
        Ok(chat)
    });
    assert_eq!(written.unwrap(), json);
    let given = many("[", 100_000);
    let refused = render_chat("", move |mut chat| {
        chat.push_json(&given)?;
        Ok(chat)
    });
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn nothing_leads_to_the_host() {
    let known = "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}";
    let error = refused(known, Code::InvalidArgument, "template line 1");
    assert!(error.message().contains("'__class__'"), "{error}");
    for source in [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'].x }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ namespace(__x=1) }}",
        "{{ range.__self__.x }}",
        "{{ [].append(1) }}",
        "{{ {}.update({}) }}",
        "{{ [1].sort() }}",
        "{{ self.x }}",
        "{{ config.x }}",
        "{{ open('/etc/passwd') }}",
        "{{ messages.__len__() }}",
    ] {
        refused(source, Code::InvalidArgument, "template line 1");
    }
    for source in [
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'x' %}",
    ] {
        refused(source, Code::Format, "template line 1");
    }
}

#[test]
fn a_source_has_an_end() {
    let long = many("x", SOURCE_BYTES_MAX);
    assert_eq!(render(long.clone()).unwrap(), long);
    refused(long + "x", Code::Format, "template");
    // Every beginning of a template that has a bit of everything.
    let source = "{%- macro m(a, b='\\u00e9') -%}{{ a|d(1) ~ [b, {'c': -1.5}][::-1] }}{% endmacro %}\
        {% for x, y in {'k': 31}|dictsort if x is not none %}{% if loop.first and not y == 2 %}\
        {{ m(x, *[y]) }}{% break %}{% else %}{% set ns = namespace(z=(1,)) %}{% set ns.z = 2 %}\
        {% endif %}{% endfor %}{# c -#} {% call(u) m(1, b=2) %}{{ u }}\
        {% endcall %}{% set t | upper %}x{% endset %}{% filter trim %} é {% endfilter %}{{ '%s' % t[0] }}";
    for end in (0..source.len()).filter(|end| source.is_char_boundary(*end)) {
        // Some are whole; none does more than answer.
        let _ = render(&source[..end]);
    }
}

#[test]
fn errors_say_where() {
    for (source, code, text) in [
        (
            "a\n{{ 1 + }}",
            Code::Format,
            "template line 2: expected an expression",
        ),
        (
            "\n\n{% if x %}",
            Code::Format,
            "template line 3: Unexpected end of template",
        ),
        (
            "{% call() (0 and f()) %}{% endcall %}",
            Code::Format,
            "template line 1: expected a name, found '('",
        ),
        (
            "{% endif %}",
            Code::Format,
            "template line 1: Encountered unknown tag 'endif'",
        ),
        (
            "\n{{ 'a }}",
            Code::Format,
            "template line 2: unexpected char",
        ),
        (
            "{# a",
            Code::Format,
            "template line 1: Missing end of comment",
        ),
        (
            "\n{{ raise_exception('no ' ~ 1) }}",
            Code::InvalidArgument,
            "template line 2: no 1",
        ),
        (
            "\n{{ a.b }}",
            Code::InvalidArgument,
            "template line 2: 'a' is undefined",
        ),
        (
            "{% macro m() %}\n{{ 'a' + 1 }}{% endmacro %}{{ m() }}",
            Code::InvalidArgument,
            "template line 2: can only concatenate str",
        ),
        (
            "{{ 1|nosuch }}",
            Code::Format,
            "template line 1: No filter named 'nosuch'.",
        ),
    ] {
        let error = render(source).unwrap_err();
        assert_eq!(error.code(), code, "{source}");
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[test]
fn chats_are_checked() {
    type Fill = fn(&mut Chat) -> Result<()>;
    let cases: [(Fill, &str); 7] = [
        (
            |chat| chat.push("user", None, Some("[]")),
            "messages[0]: expected an object of JSON, found an array",
        ),
        (
            |chat| chat.push_json("{}"),
            "messages_json: expected an array of JSON, found an object",
        ),
        (
            |chat| chat.push_json("[1]"),
            "messages_json: expected an array of objects",
        ),
        (
            |chat| chat.push_json("[{]"),
            "messages_json: not valid JSON: ",
        ),
        (
            |chat| chat.push_json("[] x"),
            "messages_json: not valid JSON: ",
        ),
        (
            |chat| chat.set_tools_json("null"),
            "tools_json: expected an array of JSON, found null",
        ),
        (
            |chat| chat.set_variables_json("3"),
            "variables_json: expected an object of JSON, found a number",
        ),
    ];
    for (fill, text) in cases {
        let error = fill(&mut Chat::new()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().starts_with(text), "{error}");
    }
    let mut chat = Chat::new();
    chat.push(
        "user",
        Some("Hi"),
        Some("{\"name\": \"Bo\", \"content\": \"Ho\"}"),
    )
    .unwrap();
    chat.push_json("[{\"role\": \"tool\"}]").unwrap();
    chat.set_variables_json("{\"bos_token\": \"<b>\", \"add_generation_prompt\": 7}")
        .unwrap();
    assert_eq!(chat.len(), 2);
    let source = "{{ bos_token }}{{ messages }}{{ tools is none }}{{ add_generation_prompt }}{{ eos_token }}";
    let template = Template::compile(source, "template").unwrap();
    let prompt = template
        .render(&chat, &SpecialTexts::new("<s>", "</s>"))
        .unwrap();
    let message = "{'role': 'user', 'content': 'Ho', 'name': 'Bo'}";
    assert_eq!(
        prompt,
        format!("<b>[{message}, {{'role': 'tool'}}]True7</s>")
    );
}
