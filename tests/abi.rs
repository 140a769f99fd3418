//! The promise of the ABI: the header is what the sources say, the library exports exactly what
//! the header says, and no size, offset, constant or prototype changes unnoticed.
//!
//! LIGHTGPT_UPDATE=1 writes `include/lightgpt.h` and `abi/lightgpt.txt` anew (`make header`);
//! nothing writes `abi/lightgpt-N.txt`, what ABI number N began with.
#![cfg(target_os = "linux")] // its tools, and the Makefile
#![allow(clippy::unwrap_used)] // tests

#[path = "support/programs.rs"]
mod programs;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lightgpt::capi;
use programs::{ROOT, has, library, succeed};

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/lightgpt.h"));

#[test]
fn the_header_is_what_the_sources_say() {
    agree("include/lightgpt.h", GENERATED);
    let version = format!("#define LIGHTGPT_VERSION \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(GENERATED.contains(&version), "{version}");
}

#[test]
fn the_snapshot_agrees_with_c() {
    agree("abi/lightgpt.txt", &snapshot());
}

/// Within an ABI number the interface only grows: every line of what it began with still holds.
#[test]
fn nothing_of_this_abi_is_taken_back() {
    let path = format!("abi/lightgpt-{}.txt", capi::LIGHTGPT_ABI_VERSION);
    let first = fs::read_to_string(Path::new(ROOT).join(&path)).unwrap();
    let now = fs::read_to_string(Path::new(ROOT).join("abi/lightgpt.txt")).unwrap();
    assert!(first.lines().count() > 200);
    let gone: Vec<&str> = first.lines().filter(|line| !holds(line, &now)).collect();
    assert!(
        gone.is_empty(),
        "{path} has, and the library has not: {gone:#?}"
    );
}

#[test]
fn additions_hold_and_changes_do_not() {
    let first = "size s 16\noffset s.a 0\noffset s.reserved 4\nmember s: uint32_t a\n\
        member s: uint32_t reserved\nfunction int32_t f(void)";
    let hold = |now: &str| first.lines().all(|line| holds(line, now));
    assert!(hold(first));
    let grown = "size s 24\noffset s.a 0\noffset s.b 4\noffset s.c 16\nmember s: uint32_t a\n\
        member s: uint32_t b\nfunction int32_t f(void)\nfunction int32_t g(void)";
    assert!(hold(grown));
    for (from, to) in [
        ("size s 24", "size s 8"),
        ("s.a 0", "s.a 8"),
        ("offset s.b 4\n", ""),
        ("uint32_t a", "int32_t a"),
        ("f(void)", "f(int)"),
    ] {
        assert!(!hold(&grown.replace(from, to)), "{to}");
    }
}

#[test]
fn the_snapshot_agrees_with_rust() {
    let committed = fs::read_to_string(Path::new(ROOT).join("abi/lightgpt.txt")).unwrap();
    let expected: BTreeSet<&str> = committed
        .lines()
        .filter(|line| line.starts_with("size ") || line.starts_with("offset "))
        .collect();
    let found = rust_layout();
    assert_eq!(found.lines().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn the_library_exports_exactly_the_header() {
    let shared = library().join("liblightgpt.so");
    let exported = |arguments: &[&str], file: PathBuf| -> BTreeSet<String> {
        let text = succeed(Command::new("nm").args(arguments).arg(file));
        let names = text
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2));
        names.map(String::from).collect()
    };
    let header: BTreeSet<String> = functions().into_iter().map(|(name, _)| name).collect();
    assert!(header.len() > 30);
    assert_eq!(exported(&["-D", "--defined-only"], shared), header);
    let archive = library().join("liblightgpt.a");
    assert_eq!(exported(&["-g", "--defined-only"], archive), header);
}

#[test]
fn the_shared_library_presents_itself() {
    let dynamic = succeed(
        Command::new("readelf")
            .arg("-d")
            .arg(library().join("liblightgpt.so")),
    );
    let soname = format!("[liblightgpt.so.{}]", capi::LIGHTGPT_ABI_VERSION);
    assert!(dynamic.contains(&soname), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}

/// It installs no signal handler and never ends the process: what does is not even linked.
#[test]
fn nothing_that_would_harm_a_host_is_linked() {
    let shared = library().join("liblightgpt.so");
    let imports = succeed(
        Command::new("nm")
            .args(["-D", "--undefined-only"])
            .arg(shared),
    );
    let imports: Vec<&str> = imports
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split('@').next())
        .collect();
    assert!(imports.contains(&"malloc"));
    for harm in [
        "sigaction",
        "signal",
        "exit",
        "_exit",
        "quick_exit",
        "fork",
        "execve",
        "printf",
    ] {
        assert!(!imports.contains(&harm), "{harm}");
    }
}

#[test]
fn the_header_is_c99_and_cpp17() {
    let twice = "#include <lightgpt.h>\n#include <lightgpt.h>\n#include \"use.h\"\n";
    let folder = library();
    fs::write(folder.join("use.h"), uses()).unwrap();
    for (compiler, language, extension) in [
        ("gcc", "c99", "c"),
        ("gcc", "c11", "c"),
        ("g++", "c++17", "cpp"),
        ("clang", "c99", "c"),
        ("clang++", "c++17", "cpp"),
    ] {
        if !has(compiler) {
            programs::skipped(&format!("header with {compiler}"), "it is not installed");
            continue;
        }
        let source = folder.join(format!("header-{compiler}.{extension}"));
        fs::write(&source, twice).unwrap();
        let mut compile = Command::new(compiler);
        compile
            .current_dir(ROOT)
            .args(["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic"]);
        compile
            .args(["-Werror", "-Iinclude", &format!("-std={language}")])
            .arg(source);
        succeed(&mut compile);
    }
}

/// What the C++ header wraps is all there is.
#[test]
fn the_cpp_header_wraps_every_function() {
    let text = fs::read_to_string(Path::new(ROOT).join("include/lightgpt.hpp")).unwrap();
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = code.split(|c| !is_name(c)).collect();
    let header: Vec<String> = functions().into_iter().map(|(name, _)| name).collect();
    let missing: Vec<&String> = header
        .iter()
        .filter(|name| !words.contains(&name[..]))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Its macros are those of the C header too.
    let known = |word: &&&str| word.starts_with("LIGHTGPT_") && !GENERATED.contains(**word);
    let unknown: Vec<&&str> = words.iter().filter(known).collect();
    assert_eq!(unknown, [&"LIGHTGPT_HPP"]);
}

#[test]
fn the_pkg_config_file_is_filled_in() {
    let root = library().join("root");
    let mut make = Command::new("make");
    make.current_dir(ROOT)
        .args(["-s", "install-files", "PREFIX=/opt/lightgpt"]);
    make.arg(format!("DESTDIR={}", root.display()));
    make.arg(format!("LIBRARY={}", library().display()));
    make.arg(format!("OUT={}", library().join("install").display()));
    succeed(&mut make);
    let lib = root.join("opt/lightgpt/lib");
    let pc = fs::read_to_string(lib.join("pkgconfig/lightgpt.pc")).unwrap();
    assert!(
        pc.contains("prefix=/opt/lightgpt\n") && !pc.contains('@'),
        "{pc}"
    );
    let link = fs::read_link(lib.join("liblightgpt.so")).unwrap();
    assert_eq!(
        link,
        Path::new(&format!("liblightgpt.so.{}", capi::LIGHTGPT_ABI_VERSION))
    );
    for file in [
        "liblightgpt.so",
        "liblightgpt.a",
        "../include/lightgpt.h",
        "../include/lightgpt.hpp",
    ] {
        assert!(lib.join(file).exists(), "{file}");
    }
}

/// Zero for every argument, and then a local's address for every handle: each call must come back
/// with a status that the header knows.
#[test]
fn every_function_answers_null_and_foreign_handles() {
    let mut calls = String::new();
    for (name, prototype) in functions() {
        let arguments = prototype
            .split_once('(')
            .expect("a function has arguments")
            .1;
        let arguments: Vec<&str> = match arguments.trim_end_matches(')') {
            "void" => Vec::new(),
            list => list.split(',').map(str::trim).collect(),
        };
        for foreign in [false, true] {
            let values: Vec<&str> = arguments
                .iter()
                .map(|argument| {
                    let handle = ["team", "model", "sampler", "session", "batch_queue"]
                        .iter()
                        .any(|object| {
                            argument.contains(&format!("struct lightgpt_{object} *"))
                                && !argument.contains("**")
                        });
                    if foreign && handle {
                        "(void *)&place"
                    } else {
                        "0"
                    }
                })
                .collect();
            let call = format!("{name}({})", values.join(", "));
            match prototype.starts_with("int32_t") {
                true => writeln!(calls, "answer(\"{call}\", {call});").unwrap(),
                false => writeln!(calls, "(void){call};").unwrap(),
            }
        }
    }
    let program = format!(
        "#include <lightgpt.h>\n#include <stdio.h>\n#include <string.h>\nstatic long place[9];\n\
         static void answer(const char *call, int32_t status) {{\n\
         if (strcmp(lightgpt_status_name(status), \"LIGHTGPT_UNKNOWN_STATUS\") == 0)\n\
         printf(\"%s: %d\\n\", call, status);\n\
         if (status >= 0 && strstr(call, \"_free(0)\") == NULL\n\
         && strcmp(call, \"lightgpt_abi_check(0)\") != 0)\n\
         printf(\"%s succeeds\\n\", call);\n}}\n\
         int main(void) {{\n{calls}return 0;\n}}\n"
    );
    let source = library().join("null.c");
    fs::write(&source, program).unwrap();
    let binary = programs::compile(source.to_str().unwrap(), programs::Link::Shared, &["-w"]);
    assert_eq!(succeed(&mut Command::new(binary)), "");
}

/// Whether what `line` of an older snapshot says is still so: structs may have grown, and reserved
/// members may have been put to use.
fn holds(line: &str, now: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["size", name, bytes] => now.lines().any(|line| {
            let size = line.strip_prefix("size ").and_then(|l| l.split_once(' '));
            let grown = |size: &str| size.parse::<u64>().ok() >= bytes.parse().ok();
            size.is_some_and(|(n, size)| n == name && grown(size))
        }),
        ["offset", place, offset] if place.ends_with(".reserved") => {
            let prefix = format!("offset {}", place.trim_end_matches("reserved"));
            let suffix = format!(" {offset}");
            now.lines()
                .any(|line| line.starts_with(&prefix) && line.ends_with(&suffix))
        }
        ["member", .., "reserved"] => true,
        _ => now.lines().any(|now| now == line),
    }
}

/// Compares a committed file, or writes it.
fn agree(path: &str, text: &str) {
    let file = Path::new(ROOT).join(path);
    if std::env::var_os("LIGHTGPT_UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == text,
        "{path} is not up to date: `make header`, and look at the change"
    );
}

/// The header without comments and preprocessor lines, one declaration a line.
fn declarations() -> Vec<String> {
    let header = GENERATED.replace("\\\n", " ");
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some(start) = rest.find("/*") {
        code.push_str(&rest[..start]);
        rest = &rest[start + rest[start..].find("*/").expect("comments end") + 2..];
    }
    code.push_str(rest);
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.contains("extern \"C\""))
        .map(|line| format!("{line} "))
        .collect();
    let mut all = Vec::new();
    let (mut depth, mut from) = (0, 0);
    for (i, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => {
                let words: Vec<&str> = code[from..i].split_whitespace().collect();
                all.push(words.join(" "));
                from = i + 1;
            }
            _ => {}
        }
    }
    all
}

/// Name and prototype of every function.
fn functions() -> Vec<(String, String)> {
    let prototypes = declarations();
    let prototypes = prototypes
        .iter()
        .filter_map(|d| d.strip_prefix("LIGHTGPT_API "));
    prototypes
        .map(|prototype| {
            let before = prototype
                .split('(')
                .next()
                .expect("split gives a first part");
            let name = before
                .rsplit([' ', '*'])
                .next()
                .expect("rsplit gives a last part");
            (name.to_string(), prototype.to_string())
        })
        .collect()
}

/// Name and members (with their declarations) of every struct.
fn structs() -> Vec<(String, Vec<(String, String)>)> {
    let mut all = Vec::new();
    for declaration in declarations() {
        let Some((head, body)) = declaration.split_once('{') else {
            continue;
        };
        let name = head
            .trim()
            .rsplit(' ')
            .next()
            .expect("a struct has a name")
            .to_string();
        let body = body.rsplit_once('}').expect("braces match").0;
        let members = body
            .split(';')
            .map(str::trim)
            .filter(|member| !member.is_empty());
        let members = members.map(|member| {
            let plain = member.split('[').next().expect("split gives a first part");
            let name = plain
                .rsplit([' ', '*'])
                .next()
                .expect("rsplit gives a last part");
            (name.to_string(), member.to_string())
        });
        all.push((name, members.collect()));
    }
    all
}

/// Names of all constants that are numbers.
fn constants() -> Vec<String> {
    let lines = GENERATED
        .lines()
        .filter_map(|line| line.strip_prefix("#define "));
    lines
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, value)| {
            value.starts_with(|c: char| c == '-' || c == '(' || c.is_ascii_digit())
        })
        .map(|(name, _)| name.to_string())
        .collect()
}

/// What the ABI consists of, as a C program finds it.
fn snapshot() -> String {
    let mut program = String::from("#include <lightgpt.h>\n#include <stdio.h>\nint main(void){\n");
    for name in constants() {
        writeln!(
            program,
            "printf(\"constant {name} %lld\\n\", (long long){name});"
        )
        .unwrap();
    }
    for (name, members) in structs() {
        writeln!(program, "printf(\"size {name} %zu\\n\", sizeof({name}));").unwrap();
        for (member, declaration) in members {
            let line = format!("offset {name}.{member} %zu");
            writeln!(
                program,
                "printf(\"{line}\\n\", offsetof({name}, {member}));"
            )
            .unwrap();
            writeln!(program, "puts(\"member {name}: {declaration}\");").unwrap();
        }
    }
    for declaration in declarations()
        .iter()
        .filter(|d| d.starts_with("typedef") && !d.contains('{'))
    {
        writeln!(program, "puts(\"{declaration}\");").unwrap();
    }
    for (_, prototype) in functions() {
        writeln!(program, "puts(\"function {prototype}\");").unwrap();
    }
    program.push_str("return 0;}\n");
    let source = library().join("snapshot.c");
    fs::write(&source, program).unwrap();
    let binary = library().join("snapshot");
    let mut compile = Command::new("cc");
    compile
        .current_dir(ROOT)
        .arg("-Iinclude")
        .arg(source)
        .arg("-o")
        .arg(&binary);
    succeed(&mut compile);
    succeed(&mut Command::new(binary))
}

/// C that makes every struct from its macro, so that a member without a beginning is a warning.
fn uses() -> String {
    let mut text = String::from("int use(void);\nint use(void) {\nuint32_t sizes = 0;\n");
    // Elements of arrays have no size of their own.
    let is_sized = |text: &str| text == "struct_size";
    for (name, members) in structs() {
        if !members.iter().any(|(a, b)| is_sized(a) || is_sized(b)) {
            continue;
        }
        let upper = name.to_uppercase();
        writeln!(
            text,
            "{{ {name} s = {upper}_INIT; sizes += s.struct_size; }}"
        )
        .unwrap();
    }
    text.push_str("return (int)sizes;\n}\n");
    text
}

macro_rules! layout {
    ($($name:ident { $($member:ident),* $(,)? })*) => {{
        let mut text = String::new();
        $(
            let size = size_of::<capi::$name>();
            writeln!(text, "size {} {size}", stringify!($name)).unwrap();
            $(
                let offset = std::mem::offset_of!(capi::$name, $member);
                let (name, member) = (stringify!($name), stringify!($member));
                writeln!(text, "offset {name}.{member} {offset}").unwrap();
            )*
        )*
        text
    }};
}

fn rust_layout() -> String {
    layout! {
        lightgpt_build { struct_size, abi_version, numerics_version, reserved, version, isa, features }
        lightgpt_team_options {
            struct_size, threads, cpus, cpus_len, stack_bytes, parallel_for, parallel_for_data,
            parallel_for_destroy, flags, node, niceness, reserved,
        }
        lightgpt_open_options {
            struct_size, flags, memory_max, progress, progress_data, log, log_data, log_destroy,
            prefix_bytes_max, page_tokens, reserved, allocator,
        }
        lightgpt_allocator { struct_size, reserved, allocate, release, user_data, destroy }
        lightgpt_prefix_statistics {
            struct_size, reserved, lookups, hits, tokens, pages, bytes, bytes_max, evictions,
        }
        lightgpt_model_info {
            struct_size, gguf_version, file_bytes, files, metadata_keys, tensors, vocab, parameters,
            weight_bytes, layers, dim, heads, kv_heads, head_dim, hidden, context, architecture,
            name, abilities, pooling, embedding, scores,
        }
        lightgpt_tensor_info {
            struct_size, format, dims, dimensions, file, offset, bytes, format_name, name,
        }
        lightgpt_sampler_options {
            struct_size, flags, temperature, top_k, top_p, min_keep, seed, min_p, typical_p,
            top_n_sigma, xtc_probability, xtc_threshold, dynamic_temperature_range,
            dynamic_temperature_exponent, repetition_penalty, frequency_penalty, presence_penalty,
            penalty_last, dry_multiplier, dry_base, dry_allowed_length, dry_last, mirostat,
            mirostat_tau, mirostat_eta, adaptive_target, adaptive_decay, dry_breakers,
            dry_breakers_len, logit_biases, logit_biases_len, order, order_len, infill,
        }
        lightgpt_logit_bias { token, bias }
        lightgpt_tokens { tokens, tokens_len }
        lightgpt_candidates {
            struct_size, reserved, tokens, logits, len, history, history_len, step, chosen,
        }
        lightgpt_chi_square { struct_size, reserved, statistic, degrees, p_value }
        lightgpt_diversity {
            struct_size, reserved, distinct, repetition, repetition_rate, entropy, self_bleu,
        }
        lightgpt_text { text, text_bytes }
        lightgpt_session_options {
            struct_size, kv_format, context, chunk, memory_max, flags, reserved, salt,
        }
        lightgpt_memory {
            struct_size, reserved, weights_mapped, weights_copied, kv, scratch, logits,
        }
        lightgpt_metrics {
            struct_size, reserved, tokens, context, prompt_tokens, prompt_us, generated_tokens,
            generate_us, kv_bytes, reused_tokens,
        }
        lightgpt_event {
            struct_size, kind, token, finish, position, done, total, text, text_bytes,
            log_probability, top, top_len,
        }
        lightgpt_token_score { token, log_probability }
        lightgpt_generate_options {
            struct_size, flags, tokens_max, sampler, stops, stops_len, top_len, reserved
        }
        lightgpt_batch_queue_options {
            struct_size, flags, kv_format, sequences_max, context, chunk, memory_max, requests_max,
            window_us,
        }
        lightgpt_batch_metrics {
            struct_size, reserved, waiting, running, submitted, refused, finished, cancelled,
            expired, failed, prompt_tokens, generated_tokens, repeated_tokens, preemptions, passes,
            rows, rows_max, busy_us, queue_us, first_token_us, first_tokens, token_us, token_max_us,
            kv_bytes, reuses, reused_tokens, sequences, sequences_max, sequences_allowed, weights_mapped, memory_weights,
            memory_kv, memory_scratch, memory_misc, prefix_lookups, prefix_hits, prefix_bytes,
            prefix_bytes_allowed, pressure, pressure_events, tokens_per_second, occupancy,
            prefix_hit_rate, compression, queue_times, first_token_times, token_times,
        }
        lightgpt_batch_timings {
            struct_size, reserved, prompt_tokens, generated_tokens, repeated_tokens, preemptions,
            queue_us, first_token_us, token_max_us, total_us, reused_tokens,
        }
        lightgpt_batch_event {
            struct_size, kind, request, token, finish, status, reserved, position, done, total,
            text, text_bytes, log_probability, top, top_len, timings, message,
        }
        lightgpt_batch_request {
            struct_size, flags, text, text_bytes, tokens, tokens_len, generate, priority, sharing,
            submitter, deadline_us, event, user_data, destroy, salt, chat,
        }
        lightgpt_chat_message { role, content, content_bytes, fields_json, fields_json_bytes }
        lightgpt_chat {
            struct_size, flags, messages, messages_len, messages_json, messages_json_bytes,
            tools_json, tools_json_bytes, variables_json, variables_json_bytes, template_text,
            template_text_bytes, template_name, now,
        }
        lightgpt_embed_options { struct_size, flags, pooling, reserved }
    }
}
