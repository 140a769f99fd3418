//! What the C interface answers, function by function, beyond what the C programs show.
#![allow(unsafe_code, clippy::unwrap_used)] // it calls the C interface

#[path = "support/programs.rs"]
mod programs;

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use lightgpt::capi::*;

/// A struct of the interface with its size set and everything else zero, as `_INIT` makes it.
trait Zeroed: Sized {
    fn new() -> Self {
        // SAFETY: all structs of the interface are valid with all bits zero.
        let mut value: Self = unsafe { std::mem::zeroed() };
        // SAFETY: all of them begin with their size.
        unsafe {
            (&raw mut value)
                .cast::<u32>()
                .write(size_of::<Self>() as u32)
        };
        value
    }
}
impl Zeroed for lightgpt_open_options {}
impl Zeroed for lightgpt_model_info {}
impl Zeroed for lightgpt_tensor_info {}
impl Zeroed for lightgpt_sampler_options {}
impl Zeroed for lightgpt_session_options {}
impl Zeroed for lightgpt_generate_options {}
impl Zeroed for lightgpt_memory {}
impl Zeroed for lightgpt_metrics {}
impl Zeroed for lightgpt_build {}

fn last_error() -> String {
    // SAFETY: never NULL, ends in zero, and this thread makes no call meanwhile.
    unsafe { CStr::from_ptr(lightgpt_last_error()) }
        .to_string_lossy()
        .into_owned()
}

fn name(status: i32) -> String {
    // SAFETY: constants that end in zero.
    unsafe { CStr::from_ptr(lightgpt_status_name(status)) }
        .to_string_lossy()
        .into_owned()
}

#[track_caller]
fn ok(status: i32) {
    assert_eq!(status, LIGHTGPT_OK, "{}: {}", name(status), last_error());
}

fn open_with(options: &lightgpt_open_options) -> (i32, *mut lightgpt_model) {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let mut model = ptr::null_mut();
    // SAFETY: every pointer is that of a local that fits.
    let status = unsafe { lightgpt_model_open(path.as_ptr(), options, &raw mut model) };
    (status, model)
}

fn open() -> *mut lightgpt_model {
    let (status, model) = open_with(&Zeroed::new());
    ok(status);
    model
}

fn text_of(get: impl Fn(*mut c_char, usize, *mut usize) -> i32) -> String {
    let mut needed = 0;
    ok(get(ptr::null_mut(), 0, &raw mut needed));
    let mut text = vec![0u8; needed];
    ok(get(text.as_mut_ptr().cast(), needed, &raw mut needed));
    String::from_utf8(text).unwrap()
}

fn chars(text: &[c_char]) -> String {
    let bytes = text
        .iter()
        .map(|c| c.cast_unsigned())
        .take_while(|&b| b != 0)
        .collect();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn metadata_and_tensors() {
    let mut options = lightgpt_open_options::new();
    options.flags = LIGHTGPT_OPEN_INSPECT;
    let (status, model) = open_with(&options);
    ok(status);
    let mut info = lightgpt_model_info::new();
    let (mut number, mut signed, mut float) = (0, 0, 0.0);
    // SAFETY: every pointer is NULL, a text that ends in zero, or that of a local that fits.
    unsafe {
        ok(lightgpt_model_describe(model, &raw mut info));
        assert_eq!(
            (chars(&info.architecture), info.layers),
            ("llama".into(), 0)
        );
        assert!(info.tensors > 30 && info.parameters > 4_000_000 && info.vocab == 4096);

        let keys: Vec<String> = (0..info.metadata_keys)
            .map(|i| text_of(|b, c, n| lightgpt_model_metadata_key(model, i, b, c, n)))
            .collect();
        assert!(keys.contains(&"general.architecture".into()));
        let end =
            lightgpt_model_metadata_key(model, info.metadata_keys, ptr::null_mut(), 0, &mut 0);
        assert_eq!(end, LIGHTGPT_NOT_FOUND);

        let text = |key: &CStr| {
            text_of(|b, c, n| lightgpt_model_metadata_text(model, key.as_ptr(), b, c, n))
        };
        assert_eq!(text(c"general.architecture"), "llama");
        assert_eq!(text(c"llama.block_count"), "4");
        assert_eq!(text(c"tokenizer.ggml.tokens"), "[string; 4096]");

        let layers = c"llama.block_count".as_ptr();
        ok(lightgpt_model_metadata_u64(model, layers, &raw mut number));
        ok(lightgpt_model_metadata_i64(model, layers, &raw mut signed));
        let epsilon = c"llama.attention.layer_norm_rms_epsilon".as_ptr();
        ok(lightgpt_model_metadata_f64(model, epsilon, &raw mut float));
        assert_eq!((number, signed, float as f32), (4, 4, 1e-5));
        let wrong = lightgpt_model_metadata_u64(model, epsilon, &raw mut number);
        assert_eq!((wrong, number), (LIGHTGPT_INVALID_ARGUMENT, 4));
        let expected = "epsilon: expected an integer that is not negative, found f32";
        assert!(last_error().contains(expected), "{}", last_error());
        let none = lightgpt_model_metadata_f64(model, c"no.such.key".as_ptr(), &raw mut float);
        assert_eq!(none, LIGHTGPT_NOT_FOUND);

        let mut bytes = 0;
        for i in 0..info.tensors {
            let mut tensor = lightgpt_tensor_info::new();
            ok(lightgpt_model_tensor_describe(model, i, &raw mut tensor));
            assert!(!chars(&tensor.name).is_empty() && !chars(&tensor.format_name).is_empty());
            bytes += tensor.bytes;
        }
        assert_eq!(bytes, info.weight_bytes);

        let mut session = ptr::null_mut();
        let refused = lightgpt_session_new(model, ptr::null(), ptr::null(), &raw mut session);
        assert_eq!((refused, session.is_null()), (LIGHTGPT_UNSUPPORTED, true));
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn tokens_and_their_roles() {
    let model = open();
    let mut token = 0;
    let mut attributes = 0;
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_model_token_special(
            model,
            LIGHTGPT_SPECIAL_BOS,
            &raw mut token,
        ));
        assert_eq!(token, 1);
        ok(lightgpt_model_token_special(
            model,
            LIGHTGPT_SPECIAL_EOS,
            &raw mut token,
        ));
        ok(lightgpt_model_token_attributes(
            model,
            token,
            &raw mut attributes,
        ));
        assert_eq!(attributes, LIGHTGPT_TOKEN_CONTROL | LIGHTGPT_TOKEN_END);
        let spelled = text_of(|b, c, n| lightgpt_model_token_text(model, token, b, c, n));
        assert_eq!(spelled, "</s>");
        let none = lightgpt_model_token_special(model, 99, &raw mut token);
        assert_eq!(none, LIGHTGPT_INVALID_ARGUMENT);
        let none = lightgpt_model_token_attributes(model, 4096, &raw mut attributes);
        assert_eq!(none, LIGHTGPT_NOT_FOUND);

        let shown = |flags| {
            let tokens = [1, token];
            text_of(|b, c, n| lightgpt_model_detokenize(model, tokens.as_ptr(), 2, flags, b, c, n))
        };
        assert_eq!(shown(0), "");
        assert_eq!(shown(LIGHTGPT_TEXT_SHOW_SPECIAL), "<s></s>");
        let beyond = [4096];
        let refused =
            lightgpt_model_detokenize(model, beyond.as_ptr(), 1, 0, ptr::null_mut(), 0, &mut 0);
        assert_eq!(refused, LIGHTGPT_INVALID_ARGUMENT);
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn samplers() {
    let mut options = lightgpt_sampler_options::new();
    options.flags = LIGHTGPT_SAMPLER_TEMPERATURE | LIGHTGPT_SAMPLER_SEED;
    options.seed = 7;
    let logits = [0.0, 3.0, 1.0];
    let (mut sampler, mut seed, mut token) = (ptr::null_mut(), 0, 0);
    // SAFETY: every pointer is that of a local that fits.
    unsafe {
        ok(lightgpt_sampler_new(&options, &raw mut sampler));
        ok(lightgpt_sampler_seed(sampler, &raw mut seed));
        // The temperature is set, and 0: greedy.
        ok(lightgpt_sampler_sample(
            sampler,
            logits.as_ptr(),
            3,
            0,
            &raw mut token,
        ));
        assert_eq!((seed, token), (7, 1));
        let nan = [0.0, f32::NAN];
        let refused = lightgpt_sampler_sample(sampler, nan.as_ptr(), 2, 0, &raw mut token);
        assert_eq!((refused, token), (LIGHTGPT_NONFINITE, 1));
        let none = lightgpt_sampler_sample(sampler, ptr::null(), 0, 0, &raw mut token);
        assert_eq!(none, LIGHTGPT_INVALID_ARGUMENT);
        options.temperature = -1.0;
        let refused = lightgpt_sampler_new(&options, &raw mut sampler);
        assert_eq!(refused, LIGHTGPT_INVALID_ARGUMENT);
        options.flags = 1 << 30;
        assert_eq!(
            lightgpt_sampler_new(&options, &raw mut sampler),
            LIGHTGPT_UNSUPPORTED
        );
    }
    ok(lightgpt_sampler_free(sampler));
    assert_eq!(lightgpt_sampler_free(sampler), LIGHTGPT_INVALID_HANDLE);
}

unsafe extern "C" fn decline(calls: *mut c_void, _done: u64, _total: u64) -> i32 {
    // SAFETY: the tests hand a counter over.
    unsafe { *calls.cast::<u32>() += 1 };
    LIGHTGPT_CANCEL
}

unsafe extern "C" fn destroy(calls: *mut c_void) {
    // SAFETY: the tests hand a counter over.
    unsafe { *calls.cast::<u32>() += 1 };
}

unsafe extern "C" fn log(_: *mut c_void, level: i32, _: *const c_char, bytes: usize) {
    assert!(level == LIGHTGPT_LOG_INFO && bytes > 0);
}

#[test]
fn opening_can_be_cancelled_and_capped() {
    let mut calls = 0u32;
    let mut options = lightgpt_open_options::new();
    options.flags = LIGHTGPT_OPEN_COPY;
    options.progress = Some(decline);
    options.progress_data = (&raw mut calls).cast();
    let (status, model) = open_with(&options);
    assert_eq!((status, model.is_null()), (LIGHTGPT_CANCELLED, true));
    assert_eq!(calls, 1);

    let mut options = lightgpt_open_options::new();
    options.flags = LIGHTGPT_OPEN_COPY;
    options.memory_max = 1 << 20;
    assert_eq!(open_with(&options).0, LIGHTGPT_MEMORY_CAP);

    let mut options = lightgpt_open_options::new();
    options.flags = LIGHTGPT_OPEN_PREFAULT;
    let mut destroyed = 0u32;
    options.log = Some(log);
    options.log_data = (&raw mut destroyed).cast();
    options.log_destroy = Some(destroy);
    let (status, model) = open_with(&options);
    ok(status);
    assert_eq!(destroyed, 0);
    ok(lightgpt_model_free(model));
    assert_eq!(destroyed, 1);
}

#[test]
fn memory_is_estimated_and_capped() {
    let model = open();
    let mut memory = lightgpt_memory::new();
    let mut options = lightgpt_session_options::new();
    options.context = 128;
    let mut session = ptr::null_mut();
    let mut metrics = lightgpt_metrics::new();
    let tokens = [5u32; 128];
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_model_memory_estimate(
            model,
            &options,
            &raw mut memory,
        ));
        assert!(memory.weights_mapped > 4_000_000 && memory.weights_copied == 0);
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            &options,
            &raw mut session,
        ));
        ok(lightgpt_session_feed_tokens(
            session,
            tokens.as_ptr(),
            tokens.len(),
        ));
        assert_eq!(lightgpt_session_prefill(session, 0), LIGHTGPT_DONE);
        ok(lightgpt_session_metrics(session, &raw mut metrics));
        assert_eq!((metrics.tokens, metrics.context), (128, 128));
        assert_eq!(metrics.kv_bytes, memory.kv);
        let full = lightgpt_session_feed_tokens(session, tokens.as_ptr(), 1);
        assert_eq!(full, LIGHTGPT_CONTEXT_FULL);
        ok(lightgpt_session_free(session));
        options.memory_max = memory.logits;
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            &options,
            &raw mut session,
        ));
        ok(lightgpt_session_feed_tokens(
            session,
            tokens.as_ptr(),
            tokens.len(),
        ));
        assert_eq!(lightgpt_session_prefill(session, 0), LIGHTGPT_MEMORY_CAP);
    }
    ok(lightgpt_session_free(session));
    ok(lightgpt_model_free(model));
}

#[test]
fn a_rewound_session_says_the_same_again() {
    let model = open();
    let text = b"The little dog";
    let mut session = ptr::null_mut();
    let mut options = lightgpt_generate_options::new();
    options.tokens_max = 20;
    let mut fed = 0;
    // SAFETY: every pointer is NULL or that of a local that fits.
    unsafe {
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            ptr::null(),
            &raw mut session,
        ));
        let mut generate = || {
            let bytes = text.as_ptr().cast();
            ok(lightgpt_session_feed_text(
                session,
                bytes,
                text.len(),
                1,
                &raw mut fed,
            ));
            let done = lightgpt_session_generate(session, &options, None, ptr::null_mut());
            assert_eq!(done, LIGHTGPT_DONE);
            let mut tokens = vec![0; 64];
            let mut needed = 0;
            let (buf, cap) = (tokens.as_mut_ptr(), tokens.len());
            ok(lightgpt_session_tokens(session, buf, cap, &raw mut needed));
            assert_eq!(needed as u64, fed + 20);
            ok(lightgpt_session_rewind(session, 0));
            tokens.truncate(needed);
            tokens
        };
        assert_eq!(generate(), generate());
        assert_eq!(
            lightgpt_session_rewind(session, 1),
            LIGHTGPT_INVALID_ARGUMENT
        );
    }
    ok(lightgpt_session_free(session));
    ok(lightgpt_model_free(model));
}

unsafe extern "C" fn collect(text: *mut c_void, event: *const lightgpt_event) -> i32 {
    // SAFETY: the test hands a `Vec<u8>` over; the event and its text are valid meanwhile.
    unsafe {
        let event = &*event;
        if event.text_bytes > 0 {
            let bytes = event.text_bytes as usize;
            let piece = std::slice::from_raw_parts(event.text.cast::<u8>(), bytes);
            (*text.cast::<Vec<u8>>()).extend_from_slice(piece);
        }
    }
    LIGHTGPT_CONTINUE
}

#[test]
fn stop_strings_end_a_turn_and_are_not_shown() {
    let model = open();
    let prompt = b"Once upon a time";
    let generate = |stops: &[*const c_char]| {
        let mut session = ptr::null_mut();
        let mut options = lightgpt_generate_options::new();
        options.tokens_max = 40;
        options.stops = stops.as_ptr();
        options.stops_len = stops.len() as u64;
        let mut text = Vec::<u8>::new();
        // SAFETY: every pointer is NULL or that of a local that fits.
        let status = unsafe {
            ok(lightgpt_session_new(
                model,
                ptr::null(),
                ptr::null(),
                &raw mut session,
            ));
            let bytes = prompt.as_ptr().cast();
            ok(lightgpt_session_feed_text(
                session,
                bytes,
                prompt.len(),
                1,
                ptr::null_mut(),
            ));
            lightgpt_session_generate(session, &options, Some(collect), (&raw mut text).cast())
        };
        ok(lightgpt_session_free(session));
        (status, String::from_utf8(text).unwrap())
    };
    let (status, all) = generate(&[]);
    assert_eq!(status, LIGHTGPT_DONE);
    let stop = all.split_whitespace().nth(5).unwrap();
    let before = &all[..all.find(stop).unwrap()];
    let c_stop = CString::new(stop).unwrap();
    assert_eq!(generate(&[c_stop.as_ptr()]), (LIGHTGPT_DONE, before.into()));
    assert_eq!(generate(&[ptr::null()]).0, LIGHTGPT_INVALID_ARGUMENT);
    assert_eq!(generate(&[c"".as_ptr()]).0, LIGHTGPT_INVALID_ARGUMENT);
    ok(lightgpt_model_free(model));
}

#[test]
fn teams() {
    let (mut team, mut threads) = (ptr::null_mut(), 0);
    let cpus = [0, 9999];
    // SAFETY: all zero is what options are made from; every pointer is that of a local that fits.
    unsafe {
        let mut options: lightgpt_team_options = std::mem::zeroed();
        options.struct_size = size_of::<lightgpt_team_options>() as u32;
        options.threads = 2;
        options.cpus = cpus.as_ptr();
        options.cpus_len = 1;
        ok(lightgpt_team_new(&options, &raw mut team));
        ok(lightgpt_team_threads(team, &raw mut threads));
        assert_eq!(threads, 2);
        ok(lightgpt_team_free(team));
        // Numbers without a CPU are ignored.
        options.cpus_len = 2;
        ok(lightgpt_team_new(&options, &raw mut team));
        ok(lightgpt_team_free(team));
        options.cpus_len = 0;
        options.threads = 257;
        assert_eq!(
            lightgpt_team_new(&options, &raw mut team),
            LIGHTGPT_INVALID_ARGUMENT
        );
        options.threads = 2;
        options.parallel_for_destroy = Some(destroy);
        assert_eq!(
            lightgpt_team_new(&options, &raw mut team),
            LIGHTGPT_INVALID_ARGUMENT
        );
    }
}

#[test]
fn what_no_header_has_is_refused() {
    let mut sampler = ptr::null_mut();
    let mut options = lightgpt_sampler_options::new();
    // SAFETY: every pointer is that of a local that fits.
    unsafe {
        for size in [0, 8, 16, 24] {
            options.struct_size = size;
            let refused = lightgpt_sampler_new(&options, &raw mut sampler);
            assert_eq!(refused, LIGHTGPT_ABI_MISMATCH, "{size}");
        }
    }
    let (status, model) = open_with(&lightgpt_open_options::new());
    ok(status);
    let mut session = ptr::null_mut();
    let mut options = lightgpt_generate_options::new();
    options.reserved = 7;
    // SAFETY: as above.
    unsafe {
        ok(lightgpt_session_new(
            model,
            ptr::null(),
            ptr::null(),
            &raw mut session,
        ));
        ok(lightgpt_session_feed_tokens(session, [1].as_ptr(), 1));
        let refused = lightgpt_session_begin(session, &options);
        assert_eq!(refused, LIGHTGPT_UNSUPPORTED);
    }
    ok(lightgpt_session_free(session));
    ok(lightgpt_model_free(model));
}

#[test]
fn the_library_describes_itself() {
    let mut build = lightgpt_build::new();
    // SAFETY: the struct is a local that says its size; its texts are constants.
    let (version, isa) = unsafe {
        ok(lightgpt_build_info(&raw mut build));
        (CStr::from_ptr(build.version), CStr::from_ptr(build.isa))
    };
    assert_eq!(version.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    assert!(!isa.is_empty());
    assert_eq!(build.numerics_version, lightgpt::NUMERICS_VERSION);
    assert_eq!(lightgpt_abi_check(LIGHTGPT_ABI_VERSION), LIGHTGPT_OK);
    assert_eq!(
        lightgpt_abi_check(LIGHTGPT_ABI_VERSION + 1),
        LIGHTGPT_ABI_MISMATCH
    );
}
