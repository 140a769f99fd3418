//! Makes the C header from src/capi (into OUT_DIR; `make header` copies it to include/), and tells
//! the linker how the shared library presents itself.

use std::env;
use std::path::PathBuf;

/// The files that declare the C interface, in the order of the header.
const FILES: [&str; 24] = [
    "status",
    "options",
    "guard",
    "library",
    "team",
    "allocator",
    "model",
    "reader",
    "prefix",
    "metadata",
    "tokenizer",
    "chat",
    "sampler",
    "sampler_options",
    "stage",
    "diversity",
    "session",
    "branch",
    "saved",
    "generate",
    "embed",
    "batch_queue",
    "batch_metrics",
    "batch_request",
];

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");

    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    println!("cargo:rerun-if-changed=src/capi");

    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml"))
        .expect("cbindgen.toml is a valid configuration");
    config.after_includes = config
        .after_includes
        .map(|text| text.replace("@VERSION@", &version));
    let builder = FILES.iter().fold(
        cbindgen::Builder::new().with_config(config),
        |builder, file| builder.with_src(root.join(format!("src/capi/{file}.rs"))),
    );
    let header = builder
        .generate()
        .expect("src/capi is what cbindgen understands");
    header.write_to_file(out.join("lightgpt.h"));

    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // The number is LIGHTGPT_ABI_VERSION.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,liblightgpt.so.0");
        // Thread-local destructors may outlive a dlclose.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // Only lightgpt_* is exported, whatever the dependencies mark as no_mangle.
        println!("cargo:rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
}
