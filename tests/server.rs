//! The example of a server, as its clients see it: `curl`, and the client library of the interface.
#![cfg(target_os = "linux")] // its tools, and the Makefile
#![allow(clippy::unwrap_used)] // tests

#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lightgpt::control::Control;
use lightgpt::gguf::Source;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};
use lightgpt::tokenizer::EncodeOptions;
use serde_json::{Value, json};

use programs::{Link, ROOT, compile, has, library, model, run, skipped};

const PROMPT: &str = "Once upon a time";

const RUNNING: &str = "lightgpt_requests{state=\"running\"} ";
const GENERATED: &str = "lightgpt_tokens_total{kind=\"generated\"} ";
const CANCELLED: &str = "lightgpt_requests_ended_total{outcome=\"cancelled\"} ";

/// The server, compiled once; `None` where its libraries are not installed.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        for tool in ["c++", "curl", "pkg-config"] {
            if !has(tool) {
                skipped("server", &format!("no {tool} is installed"));
                return None;
            }
        }
        let mut asks = Command::new("pkg-config");
        let found = run(asks.args(["--cflags", "--libs", "cpp-httplib"]));
        let flags = String::from_utf8(found.stdout).unwrap();
        let flags: Vec<&str> = flags.split_whitespace().collect();
        let probe = library().join("probe.cpp");
        let includes = "#include <httplib.h>\n#include <nlohmann/json.hpp>\n";
        fs::write(&probe, includes).unwrap();
        let mut cc = Command::new("c++");
        cc.args(["-std=c++17", "-fsyntax-only"])
            .args(&flags)
            .arg(&probe);
        if !found.status.success() || !run(&mut cc).status.success() {
            skipped("server", "cpp-httplib or nlohmann-json is not installed");
            return None;
        }
        Some(compile("examples-c/server.cpp", Link::Shared, &flags))
    });
    program.as_deref()
}

/// A chat template for a model that has none, in a file.
fn template() -> String {
    let path = library().join("plain.jinja");
    let text = "\
{%- for message in messages %}
    {%- if message.role not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('no such role') }}
    {%- endif %}
    {{- message.role + ': ' + message.content + '\n' }}
{%- endfor %}
{%- if tools %}{{ 'tools: ' + tools | tojson + '\n' }}{% endif %}
{%- if add_generation_prompt %}{{ 'assistant:' + (mood or '') }}{% endif %}";
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

/// A server at work; it is told to end, and has to, when it goes.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Option<Self> {
        let mut command = Command::new(program()?);
        command
            .arg(model())
            .args(["--name", "tales", "--port", "0"]);
        command.args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let output = child.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        let url = line.split_whitespace().last().unwrap().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        Some(Self { child, url })
    }

    /// `curl` of a path; a body is sent as JSON.
    fn curl(&self, path: &str, body: Option<&Value>, more: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "120"]).args(more);
        if let Some(body) = body {
            let body = body.to_string();
            curl.args(["-H", "Content-Type: application/json", "-d", &body]);
        }
        curl.arg(format!("{}{path}", self.url));
        curl
    }

    /// Status and body of an answer.
    fn ask_with(&self, path: &str, body: Option<&Value>, more: &[&str]) -> (u32, String) {
        let output = run(&mut self.curl(path, body, &[&["-w", "\n%{http_code}"], more].concat()));
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u32, String) {
        self.ask_with(path, None, &[])
    }

    fn post(&self, path: &str, body: &Value) -> (u32, Value) {
        let (status, text) = self.ask_with(path, Some(body), &[]);
        let parsed = serde_json::from_str(&text);
        (
            status,
            parsed.unwrap_or_else(|e| panic!("{status} {e}: {text}")),
        )
    }

    fn complete(&self, body: &Value) -> Value {
        let (status, answer) = self.post("/v1/completions", body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The events of a stream, without the last.
    fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.ask_with(path, Some(body), &["-N"]);
        assert_eq!(status, 200, "{text}");
        events(&text)
    }

    /// Code and message of an error.
    fn refused(&self, path: &str, body: &Value) -> (u32, String) {
        let (status, answer) = self.post(path, body);
        let message = answer["error"]["message"].as_str();
        (
            status,
            message.unwrap_or_else(|| panic!("{answer}")).to_owned(),
        )
    }

    fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }

    fn signal(&self) {
        let pid = self.child.id().to_string();
        assert!(
            run(Command::new("kill").args(["-INT", &pid]))
                .status
                .success()
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal();
        }
        let status = self.child.wait().unwrap();
        assert!(std::thread::panicking() || status.success(), "{status}");
    }
}

fn events(text: &str) -> Vec<Value> {
    let text = text.strip_suffix("data: [DONE]\n\n");
    let events = text.expect("a stream has an end").split_terminator("\n\n");
    let data = |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
    events.map(data).collect()
}

/// The most likely text behind the prompt, in a session.
fn greedy(tokens_max: usize) -> String {
    let options = OpenOptions::default();
    let path = model();
    let model = Model::open(Source::Path(&path), &options, &mut Control::none()).unwrap();
    let team = Team::new(TeamOptions::default()).unwrap();
    let options = SessionOptions::default();
    let mut session = Session::new(Arc::clone(&model), team, &options).unwrap();
    let mut tokens = Vec::new();
    let special = EncodeOptions {
        add_special: true,
        ..EncodeOptions::default()
    };
    let tokenizer = model.tokenizer().unwrap();
    tokenizer.encode(PROMPT, special, &mut tokens).unwrap();
    session.feed(&tokens).unwrap();
    let sampler = SamplerOptions {
        temperature: 0.0,
        ..SamplerOptions::default()
    };
    let generate = GenerateOptions {
        tokens_max,
        ..GenerateOptions::new(Sampler::new(&sampler).unwrap())
    };
    let mut text = String::new();
    let listen = &mut |event: &lightgpt::session::Event<'_>| {
        text.push_str(event.text);
        Action::Continue
    };
    session
        .generate(&generate, &mut Control::none(), listen)
        .unwrap();
    text
}

#[test]
fn completions_are_those_of_sessions() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let mut body = json!({"model": "tales", "prompt": PROMPT, "max_tokens": 12, "temperature": 0});
    let answer = server.complete(&body);
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert_eq!(text, greedy(12));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 12);
    let prompt_tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(answer["usage"]["total_tokens"], prompt_tokens + 12);

    // A stream has the same text, and its last parts say why and how much.
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let parts = server.stream("/v1/completions", &body);
    let piece = |part: &Value| part["choices"][0]["text"].as_str().map(str::to_owned);
    assert_eq!(parts.iter().filter_map(piece).collect::<String>(), text);
    let [.., end, usage] = &parts[..] else {
        panic!("{parts:?}")
    };
    assert!(parts.len() > 6);
    assert_eq!(end["choices"][0]["finish_reason"], "length");
    assert_eq!(
        (&usage["usage"], &usage["choices"]),
        (&answer["usage"], &json!([]))
    );

    // A stop string ends it and is not shown.
    let body = json!({"prompt": PROMPT, "max_tokens": 200, "temperature": 0, "stop": ["."]});
    let stopped = &server.complete(&body)["choices"][0];
    assert_eq!(stopped["finish_reason"], "stop");
    let whole = greedy(200);
    assert_eq!(stopped["text"].as_str(), whole.split('.').next());
}

#[test]
fn several_prompts_choices_and_scores() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let body = json!({"prompt": [PROMPT, "The little dog"], "n": 3, "seed": 5, "max_tokens": 10});
    let answer = server.complete(&body);
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap().iter();
        let text = |choice: &Value| choice["text"].as_str().unwrap().to_owned();
        choices.map(text).collect()
    };
    let first = texts(&answer);
    assert_eq!(first.len(), 6);
    assert!(first[0] != first[1] && first[1] != first[2]);
    assert_eq!(
        first,
        texts(&server.complete(&body)),
        "seeds repeat themselves"
    );
    let body = json!({"prompt": [[1, 300], [1, 400]], "max_tokens": 3, "logprobs": 2});
    let answer = server.complete(&body);
    assert_eq!(answer["usage"]["prompt_tokens"], 4);
    for choice in answer["choices"].as_array().unwrap() {
        let scores = &choice["logprobs"];
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(scores[list].as_array().unwrap().len(), 3, "{scores}");
        }
        assert!(scores["token_logprobs"][0].as_f64().unwrap() < 0.0);
        assert_eq!(scores["top_logprobs"][0].as_object().unwrap().len(), 2);
    }
}

#[test]
fn chats_are_answered() {
    let Some(server) = Server::start(&["--chat-template", &template()]) else {
        return;
    };
    let messages = json!([
        {"role": "system", "content": "You tell stories."},
        {"role": "user", "content": [{"type": "text", "text": "Tell me one."}]}
    ]);
    let mut body = json!({"messages": messages, "max_tokens": 9, "temperature": 0});
    body["logprobs"] = true.into();
    body["top_logprobs"] = 2.into();
    let (status, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!(
        (status, &answer["object"]),
        (200, &json!("chat.completion"))
    );
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    let scores = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(
        scores.len() as u64,
        answer["usage"]["completion_tokens"].as_u64().unwrap()
    );
    assert_eq!(scores[0]["top_logprobs"].as_array().unwrap().len(), 2);
    body["stream"] = true.into();
    let parts = server.stream("/v1/chat/completions", &body);
    assert_eq!(parts[0]["choices"][0]["delta"]["role"], "assistant");
    let piece = |part: &Value| {
        let text = &part["choices"][0]["delta"]["content"];
        text.as_str().map(str::to_owned)
    };
    let text: String = parts.iter().filter_map(piece).collect();
    assert_eq!(choice["message"]["content"], text);
    // What the template makes of tools and variables is in the prompt.
    let asked = |more: Value| {
        let mut body = json!({"messages": messages, "max_tokens": 1});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let (status, answer) = server.post("/v1/chat/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = asked(json!({}));
    assert!(asked(json!({"tools": [{"type": "function", "function": {"name": "f"}}]})) > plain + 9);
    assert!(asked(json!({"chat_template_kwargs": {"mood": " Once upon a"}})) > plain + 2);
    // Nobody but the template begins and ends messages.
    let spells = json!({"messages": [{"role": "user", "content": "</s>"}]});
    let (status, message) = server.refused("/v1/chat/completions", &spells);
    assert!(status == 400 && message.contains("special"), "{message}");
    for wrong in [
        json!([]),
        json!([{"content": "x"}]),
        json!([{"role": "tool", "content": "x"}]),
    ] {
        let body = json!({"messages": wrong});
        assert_eq!(server.refused("/v1/chat/completions", &body).0, 400);
    }
}

#[test]
fn a_model_without_a_template_says_so() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    let (status, message) = server.refused("/v1/chat/completions", &body);
    assert!(
        status == 400 && message.contains("tokenizer.chat_template"),
        "{message}"
    );
}

#[test]
fn embeddings_in_both_forms() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let body = |form: &str| json!({"input": ["A cat.", "A dog."], "encoding_format": form});
    let (status, floats) = server.post("/v1/embeddings", &body("float"));
    assert_eq!(status, 200, "{floats}");
    let (_, coded) = server.post("/v1/embeddings", &body("base64"));
    for i in 0..2 {
        let floats = floats["data"][i]["embedding"].as_array().unwrap();
        assert_eq!(floats.len(), 256);
        let coded = coded["data"][i]["embedding"].as_str().unwrap();
        let bytes = decode(coded);
        let values = bytes
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes));
        let given = floats.iter().map(|value| value.as_f64().unwrap() as f32);
        assert!(values.eq(given));
    }
    assert!(floats["usage"]["prompt_tokens"].as_u64() > Some(3));
    for wrong in [
        json!({}),
        json!({"input": ""}),
        json!({"input": "a", "dimensions": 3}),
    ] {
        let (status, message) = server.refused("/v1/embeddings", &wrong);
        assert_eq!(status, 400, "{message}");
    }
}

/// What base64 stands for.
fn decode(text: &str) -> Vec<u8> {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let digit = |byte: &u8| digits.bytes().position(|digit| digit == *byte);
        let known: Vec<usize> = four.iter().filter_map(digit).collect();
        let number =
            known.iter().fold(0, |number, digit| number << 6 | digit) << (6 * (4 - known.len()));
        bytes.extend(&(number as u32).to_be_bytes()[1..known.len()]);
    }
    bytes
}

#[test]
fn what_is_wrong_is_answered_with_its_code() {
    let Some(server) = Server::start(&["--body-bytes", "20000", "--requests", "2"]) else {
        return;
    };
    let path = "/v1/completions";
    let cases = [
        (400, json!({})),
        (400, json!([1])),
        (400, json!({"prompt": 7})),
        (400, json!({"prompt": ""})),
        (400, json!({"prompt": [1, -1]})),
        (400, json!({"prompt": [4_000_000_000u32]})),
        (400, json!({"prompt": "a", "max_tokens": 0})),
        (400, json!({"prompt": "a", "max_tokens": "3"})),
        (400, json!({"prompt": "a", "temperature": -1})),
        (400, json!({"prompt": "a", "top_p": 2})),
        (400, json!({"prompt": "a", "stop": [1]})),
        (400, json!({"prompt": "a", "stream": "yes"})),
        (400, json!({"prompt": "a", "echo": true})),
        (400, json!({"prompt": "a", "n": 1000})),
        (400, json!({"prompt": vec!["a"; 65], "n": 2})),
        (400, json!({"prompt": "a b ".repeat(3000)})),
        (404, json!({"prompt": "a", "model": "other"})),
        (429, json!({"prompt": ["a", "b", "c"], "max_tokens": 100})),
        (413, json!({"prompt": "a".repeat(30_000)})),
    ];
    for (code, body) in &cases {
        let (status, message) = server.refused(path, body);
        assert_eq!(status, *code, "{message}: {body}");
    }
    assert_eq!(server.refused("/v1/other", &json!({})).0, 404);
    assert_eq!(server.get("/v1/models/other").0, 404);
    assert_eq!(server.ask_with(path, None, &["-d", "{}"]).0, 415);
    let raw = |text: &str| {
        let more = ["-H", "Content-Type: application/json", "-d", text];
        server.ask_with(path, None, &more).0
    };
    assert_eq!(raw("{\"prompt\": "), 400);
    assert_eq!(raw(&"[".repeat(5000)), 400);
    // It still serves, and nothing of those is left.
    assert_eq!(server.get("/health"), (200, r#"{"status":"ok"}"#.into()));
    server.complete(&json!({"prompt": PROMPT, "max_tokens": 2}));
    assert_eq!(server.metric(RUNNING), 0.0);
    let (status, models) = server.get("/v1/models");
    assert!(status == 200 && models.contains("\"tales\""), "{models}");
}

#[test]
fn bodies_without_a_length_are_not_read() {
    let Some(server) = Server::start(&["--body-bytes", "20000"]) else {
        return;
    };
    let refused = |path: &str, more: &[&str]| {
        let (status, text) = server.ask_with(path, None, more);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["error"]["message"].is_string(), "{answer}");
        status
    };
    let folder = library();
    let large = folder.join("large-body.json");
    fs::write(&large, vec![b' '; 1 << 20]).unwrap();
    let gzip = folder.join("body.json.gz");
    fs::write(&gzip, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]).unwrap();
    let large = format!("@{}", large.display());
    let gzip = format!("@{}", gzip.display());
    let is_json = ["-H", "Content-Type: application/json"];
    for path in ["/v1/completions", "/v1/embeddings", "/v1/other"] {
        for body in ["{\"prompt\": \"a\"}", &large] {
            let chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", body];
            assert_eq!(refused(path, &[&is_json[..], &chunked].concat()), 411);
        }
        let packed = ["-H", "Content-Encoding: gzip", "--data-binary", &gzip];
        assert_eq!(refused(path, &[&is_json[..], &packed].concat()), 415);
        assert_eq!(refused(path, &["-X", "POST"]), 411);
        let long = ["--data-binary", &large];
        assert_eq!(refused(path, &[&is_json[..], &long].concat()), 413);
    }
    server.complete(&json!({"prompt": PROMPT, "max_tokens": 2}));
}

#[test]
fn names_of_others_are_refused() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let status_of = |host: &str| {
        let host = format!("Host: {host}");
        server.ask_with("/health", None, &["-H", &host]).0
    };
    for own in [
        "localhost",
        "LocalHost:80",
        "127.0.0.1:1",
        "[::1]",
        "[::1]:9",
    ] {
        assert_eq!(status_of(own), 200, "{own}");
    }
    for other in [
        "",
        "example.org",
        "example.org:8080",
        "localhost.example.org",
        "[::1",
        ":80",
    ] {
        assert_eq!(status_of(other), 403, "{other}");
    }
    let body = json!({"prompt": "a"});
    let more = ["-H", "Host: example.org"];
    assert_eq!(
        server.ask_with("/v1/completions", Some(&body), &more).0,
        403
    );
}

#[test]
fn a_port_has_one_server() {
    let Some(server) = Server::start(&[]) else {
        return;
    };
    let port = server.url.rsplit(':').next().unwrap();
    let mut second = Command::new(program().unwrap());
    let output = run(second.arg(model()).args(["--port", port]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("cannot listen"),
        "{said}"
    );
}

/// Work for seconds.
fn long() -> Value {
    json!({"prompt": PROMPT, "n": 64, "max_tokens": 500, "stream": true})
}

/// A client of the server that has got something.
fn begun(server: &Server, body: &Value) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut curl = server.curl("/v1/completions", Some(body), &["-N"]);
    let mut child = curl.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.starts_with("data: {"), "{line}");
    (child, output)
}

fn soon(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn clients_are_limited_and_who_leaves_is_cancelled() {
    let Some(server) = Server::start(&["--clients", "1"]) else {
        return;
    };
    let (mut client, _output) = begun(&server, &long());
    let (status, message) = server.refused("/v1/completions", &json!({"prompt": "a"}));
    assert!(status == 429 && message.contains("too many"), "{message}");
    assert_eq!(server.get("/health").0, 200);
    client.kill().unwrap();
    client.wait().unwrap();
    soon("a client that left", || {
        server.metric(RUNNING) == 0.0 && server.metric("lightgpt_server_clients ") == 0.0
    });
    assert!(server.metric(CANCELLED) > 0.0);
    server.complete(&json!({"prompt": PROMPT, "max_tokens": 2}));
}

#[test]
fn who_leaves_before_the_first_token_keeps_no_place() {
    let Some(server) = Server::start(&["--sequences", "1"]) else {
        return;
    };
    let clients = || server.metric("lightgpt_server_clients ");
    let (mut client, _output) = begun(&server, &long());
    let body = json!({"prompt": PROMPT, "n": 64, "max_tokens": 500});
    let mut curl = server.curl("/v1/completions", Some(&body), &[]);
    let mut waiting = curl.stdout(Stdio::null()).spawn().unwrap();
    soon("a client that waits", || clients() == 2.0);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    soon("its place", || clients() == 1.0);
    assert!(server.metric(CANCELLED) > 0.0);
    assert!(client.try_wait().unwrap().is_none());
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_server_that_ends_lets_its_clients_finish() {
    let Some(mut server) = Server::start(&[]) else {
        return;
    };
    let (mut client, mut output) = begun(&server, &long());
    server.signal();
    soon("no new ones", || {
        let (status, _) = server.post("/v1/completions", &json!({"prompt": "a"}));
        status == 503
    });
    assert_eq!(server.get("/health").0, 503);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(client.wait().unwrap().success());
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn those_who_take_too_long_are_told() {
    let Some(mut server) = Server::start(&["--drain-seconds", "0"]) else {
        return;
    };
    let (mut client, mut output) = begun(&server, &long());
    server.signal();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    client.wait().unwrap();
    assert!(rest.contains("was cancelled"), "{rest}");
    assert!(server.child.wait().unwrap().success());
}

/// A server that has no time left tells a client so, and ends well.
fn ends_and_tells(mut server: Server, client: Child) {
    server.signal();
    let output = client.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["error"]["code"], "unavailable", "{answer}");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn who_gets_no_stream_is_told_in_the_body() {
    let Some(server) = Server::start(&["--drain-seconds", "0"]) else {
        return;
    };
    let mut body = long();
    body["stream"] = false.into();
    let mut curl = server.curl("/v1/completions", Some(&body), &[]);
    let client = curl.stdout(Stdio::piped()).spawn().unwrap();
    soon("its first token", || server.metric(GENERATED) > 0.0);
    ends_and_tells(server, client);
}

#[test]
fn embeddings_do_not_outlast_the_end() {
    let Some(server) = Server::start(&["--drain-seconds", "0"]) else {
        return;
    };
    let body = json!({"input": vec!["A cat sat on a mat, a dog on a log."; 2000]});
    let mut curl = server.curl("/v1/embeddings", Some(&body), &[]);
    let client = curl.stdout(Stdio::piped()).spawn().unwrap();
    soon("a client", || {
        server.metric("lightgpt_server_clients ") > 0.0
    });
    ends_and_tells(server, client);
}

/// The client library that programs use, if a Python here has it; LIGHTGPT_PYTHON names one.
#[test]
fn the_python_client_is_served() {
    let Some(server) = Server::start(&["--chat-template", &template()]) else {
        return;
    };
    let python = std::env::var("LIGHTGPT_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut has_client = Command::new(&python);
    has_client.args(["-c", "import openai"]);
    if !has(&python) || !run(&mut has_client).status.success() {
        skipped(
            "client of the server",
            "no Python with the package openai; see LIGHTGPT_PYTHON",
        );
        return;
    }
    let mut client = Command::new(&python);
    client
        .current_dir(ROOT)
        .args(["tests/server_client.py", &server.url]);
    assert_eq!(programs::succeed(&mut client), "all well\n");
}
