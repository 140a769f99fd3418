//! The sampler in C: every option does what it does in Rust, stages of the host's own, diversity
//! and the chi-square check.
#![allow(unsafe_code, clippy::unwrap_used)] // it calls the C interface

#[path = "support/interface.rs"]
mod interface;
#[path = "support/programs.rs"]
mod programs;

use std::ffi::{CString, c_void};
use std::ptr;

use lightgpt::capi::*;
use lightgpt::gguf::Source;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::sampler::{Infill, Mirostat, Sampler, SamplerOptions, StageKind, diversity};

use interface::{last_error, new, ok};

fn make(options: &lightgpt_sampler_options) -> (i32, *mut lightgpt_sampler) {
    let mut sampler = ptr::null_mut();
    // SAFETY: every pointer is that of a local that fits.
    let status = unsafe { lightgpt_sampler_new(options, &raw mut sampler) };
    (status, sampler)
}

fn plain() -> *mut lightgpt_sampler {
    let mut options: lightgpt_sampler_options = new();
    options.flags = LIGHTGPT_SAMPLER_SEED;
    let (status, sampler) = make(&options);
    ok(status);
    sampler
}

fn sample(
    sampler: *mut lightgpt_sampler,
    logits: &[f32],
    history: &[u32],
    step: u64,
) -> Result<u32, i32> {
    let mut token = 0;
    // SAFETY: every pointer is that of a slice with its length, or of a local that fits.
    let status = unsafe {
        let (data, len) = (logits.as_ptr(), logits.len());
        let (tokens, count) = (history.as_ptr(), history.len());
        lightgpt_sampler_sample_after(sampler, data, len, tokens, count, step, &raw mut token)
    };
    if status == LIGHTGPT_OK {
        Ok(token)
    } else {
        Err(status)
    }
}

fn open() -> *mut lightgpt_model {
    let path = CString::new(programs::model().to_str().unwrap()).unwrap();
    let mut model = ptr::null_mut();
    // SAFETY: every pointer is NULL or that of a local that fits.
    ok(unsafe { lightgpt_model_open(path.as_ptr(), ptr::null(), &raw mut model) });
    model
}

/// Logits without ties, of a size where stages have something to do.
fn logits(vocab: usize, turn: u64) -> Vec<f32> {
    let number = |i: usize| (i as u64 * 7919 + turn * 104_729) % 10_007;
    (0..vocab).map(|i| number(i) as f32 / 900.0).collect()
}

type Set = fn(&mut lightgpt_sampler_options, &mut SamplerOptions);

/// Each option, in C and in Rust.
const OPTIONS: &[(&str, Set)] = &[
    ("nothing", |_, _| {}),
    ("temperature, top_k, top_p", |c, rust| {
        c.flags |= LIGHTGPT_SAMPLER_TEMPERATURE | LIGHTGPT_SAMPLER_TOP_K | LIGHTGPT_SAMPLER_TOP_P;
        (c.temperature, c.top_k, c.top_p) = (1.7, 0, 1.0);
        (rust.temperature, rust.top_k, rust.top_p) = (1.7, 0, 1.0);
    }),
    ("min_p, min_keep", |c, rust| {
        (c.min_p, c.min_keep) = (0.9, 5);
        (rust.min_p, rust.min_keep) = (0.9, 5);
    }),
    ("typical_p", |c, rust| {
        (c.typical_p, rust.typical_p) = (0.3, 0.3);
    }),
    ("top_n_sigma", |c, rust| {
        (c.top_n_sigma, rust.top_n_sigma) = (0.1, 0.1);
    }),
    ("xtc", |c, rust| {
        c.flags |= LIGHTGPT_SAMPLER_XTC_THRESHOLD;
        (c.xtc_probability, c.xtc_threshold) = (0.7, 0.0);
        (rust.xtc_probability, rust.xtc_threshold) = (0.7, 0.0);
    }),
    ("dynamic temperature", |c, rust| {
        c.flags |= LIGHTGPT_SAMPLER_DYNAMIC_TEMPERATURE_EXPONENT;
        (c.dynamic_temperature_range, rust.dynamic_temperature_range) = (0.7, 0.7);
        c.dynamic_temperature_exponent = 2.0;
        rust.dynamic_temperature_exponent = 2.0;
    }),
    ("penalties", |c, rust| {
        (c.repetition_penalty, rust.repetition_penalty) = (1.5, 1.5);
        (c.frequency_penalty, rust.frequency_penalty) = (0.4, 0.4);
        (c.presence_penalty, rust.presence_penalty) = (0.9, 0.9);
        (c.penalty_last, rust.penalty_last) = (u32::MAX, usize::MAX);
    }),
    ("penalty_last", |c, rust| {
        (c.presence_penalty, rust.presence_penalty) = (9.0, 9.0);
        (c.penalty_last, rust.penalty_last) = (2, 2);
    }),
    ("dry", |c, rust| {
        c.flags |= LIGHTGPT_SAMPLER_DRY_ALLOWED_LENGTH;
        (c.dry_multiplier, rust.dry_multiplier) = (3.0, 3.0);
        (c.dry_base, rust.dry_base) = (2.5, 2.5);
        (c.dry_allowed_length, rust.dry_allowed_length) = (1, 1);
        (c.dry_last, rust.dry_last) = (40, 40);
        static BREAKER: [u32; 2] = [3, 4];
        let breaker = lightgpt_tokens {
            tokens: BREAKER.as_ptr(),
            tokens_len: 2,
        };
        (c.dry_breakers, c.dry_breakers_len) = (Box::leak(Box::new(breaker)), 1);
        rust.dry_breakers = vec![vec![3, 4]];
    }),
    ("logit_biases", |c, rust| {
        static BIASES: [lightgpt_logit_bias; 2] = [
            lightgpt_logit_bias {
                token: 5,
                bias: 8.0,
            },
            lightgpt_logit_bias {
                token: 6,
                bias: f32::NEG_INFINITY,
            },
        ];
        (c.logit_biases, c.logit_biases_len) = (BIASES.as_ptr(), 2);
        rust.logit_bias = vec![(5, 8.0), (6, f32::NEG_INFINITY)];
    }),
    ("order", |c, rust| {
        static ORDER: [u32; 2] = [LIGHTGPT_STAGE_TEMPERATURE, LIGHTGPT_STAGE_TOP_K];
        (c.order, c.order_len) = (ORDER.as_ptr(), 2);
        rust.order = vec![StageKind::Temperature, StageKind::TopK];
    }),
    ("no stage", |c, rust| {
        static ORDER: [u32; 1] = [0];
        c.order = ORDER.as_ptr();
        rust.order = Vec::new();
    }),
    ("mirostat 1", |c, rust| {
        c.flags |= LIGHTGPT_SAMPLER_MIROSTAT_TAU | LIGHTGPT_SAMPLER_MIROSTAT_ETA;
        (c.mirostat, rust.mirostat) = (1, Mirostat::One);
        (c.mirostat_tau, rust.mirostat_tau) = (2.0, 2.0);
        (c.mirostat_eta, rust.mirostat_eta) = (0.5, 0.5);
    }),
    ("mirostat 2", |c, rust| {
        (c.mirostat, rust.mirostat) = (2, Mirostat::Two);
    }),
    ("adaptive-p", |c, rust| {
        c.flags |= LIGHTGPT_SAMPLER_ADAPTIVE_TARGET | LIGHTGPT_SAMPLER_ADAPTIVE_DECAY;
        (c.adaptive_target, rust.adaptive_target) = (0.2, 0.2);
        (c.adaptive_decay, rust.adaptive_decay) = (0.5, 0.5);
    }),
];

#[test]
fn every_option_is_that_of_rust() {
    const HISTORY: [u32; 12] = [3, 9, 3, 4, 9, 250, 3, 9, 80, 81, 80, 81];
    let standard = picks(OPTIONS[0].1, &HISTORY);
    for (name, set) in OPTIONS {
        let found = picks(*set, &HISTORY);
        // If an option changed nothing, the test would see nothing.
        assert!(*name == "nothing" || found != standard, "{name}");
    }
}

/// What C and Rust both pick with an option.
fn picks(set: Set, history: &[u32]) -> Vec<u32> {
    let (mut c, mut rust) = (new::<lightgpt_sampler_options>(), SamplerOptions::default());
    set(&mut c, &mut rust);
    c.flags |= LIGHTGPT_SAMPLER_SEED;
    (c.seed, rust.seed) = (11, Some(11));
    let (status, sampler) = make(&c);
    ok(status);
    let mut other = Sampler::new(&rust).unwrap();
    let mut both = |step: u64| {
        let logits = logits(300, step);
        let expected = other.sample(&logits, history, step).unwrap();
        assert_eq!(sample(sampler, &logits, history, step), Ok(expected));
        expected
    };
    let picks: Vec<u32> = (0..100).map(&mut both).collect();
    ok(lightgpt_sampler_reset(sampler));
    other.reset();
    let logits = logits(300, 0);
    let expected = other.sample(&logits, history, 0).unwrap();
    assert_eq!(sample(sampler, &logits, history, 0), Ok(expected));
    ok(lightgpt_sampler_free(sampler));
    picks
}

#[test]
fn infill_copies_its_vocabulary() {
    let model = open();
    let mut options: lightgpt_sampler_options = new();
    (options.flags, options.infill) = (LIGHTGPT_SAMPLER_SEED, model);
    let (status, sampler) = make(&options);
    ok(status);
    ok(lightgpt_model_free(model));
    let path = programs::model();
    let loaded = Model::open(
        Source::Path(&path),
        &OpenOptions::default(),
        &mut lightgpt::control::Control::none(),
    )
    .unwrap();
    let mut rust = Sampler::new(&SamplerOptions {
        seed: Some(0),
        infill: Some(Infill::new(loaded.tokenizer().unwrap()).unwrap()),
        ..SamplerOptions::default()
    })
    .unwrap();
    for step in 0..20 {
        let logits = logits(4096, step);
        let expected = rust.sample(&logits, &[], step).unwrap();
        assert_eq!(sample(sampler, &logits, &[], step), Ok(expected));
    }
    ok(lightgpt_sampler_free(sampler));
    assert_eq!(make(&options).0, LIGHTGPT_INVALID_HANDLE);
}

/// Sets members of options.
type Change = fn(&mut lightgpt_sampler_options);

#[test]
fn what_is_out_of_range_is_refused() {
    static MANY: [u32; 65] = [1; 65];
    let cases: &[(&str, Change)] = &[
        ("top_n_sigma", |c| c.top_n_sigma = f32::NAN),
        ("min_p", |c| c.min_p = 1.5),
        ("mirostat", |c| c.mirostat = 3),
        ("order", |c| (c.order, c.order_len) = (MANY.as_ptr(), 65)),
        ("order", |c| c.order_len = 1),
        ("order", |c| {
            static PICK: [u32; 1] = [LIGHTGPT_STAGE_PICK];
            (c.order, c.order_len) = (PICK.as_ptr(), 1);
        }),
        ("logit_biases", |c| c.logit_biases_len = 4097),
        ("logit_biases", |c| c.logit_biases_len = u64::MAX),
        ("dry_breakers", |c| c.dry_breakers_len = 1025),
        ("dry_breakers", |c| {
            let none = lightgpt_tokens {
                tokens: ptr::null(),
                tokens_len: 0,
            };
            (c.dry_breakers, c.dry_breakers_len) = (Box::leak(Box::new(none)), 1);
        }),
        ("adaptive_target", |c| {
            c.flags |= LIGHTGPT_SAMPLER_ADAPTIVE_TARGET;
            c.adaptive_target = 2.0;
        }),
    ];
    for (name, set) in cases {
        let mut options = new();
        set(&mut options);
        let (status, sampler) = make(&options);
        assert_eq!(
            (status, sampler.is_null()),
            (LIGHTGPT_INVALID_ARGUMENT, true)
        );
        assert!(last_error().contains(name), "{name}: {}", last_error());
    }
}

/// What the tests' stage does, and how often it ran and was destroyed.
#[derive(Debug, Default)]
struct Plan {
    answer: i32,
    chosen: u64,
    exclude: Option<u32>,
    add: f32,
    calls: u32,
    candidates: u64,
    destroyed: u32,
    sampler: usize,
    busy: i32,
}

unsafe extern "C" fn stage(plan: *mut c_void, candidates: *mut lightgpt_candidates) -> i32 {
    // SAFETY: the tests hand a `Plan` over; the candidates are as the header says.
    unsafe {
        let (plan, given) = (&mut *plan.cast::<Plan>(), &mut *candidates);
        let len = given.len as usize;
        let tokens = std::slice::from_raw_parts(given.tokens, len);
        let logits = std::slice::from_raw_parts_mut(given.logits, len);
        assert!(tokens.is_sorted() && len > 0 && given.struct_size == 64);
        for (token, logit) in tokens.iter().zip(&mut *logits) {
            *logit += plan.add;
            if plan.exclude == Some(*token) {
                *logit = f32::NEG_INFINITY;
            }
        }
        plan.calls += 1;
        plan.candidates = given.len;
        given.chosen = plan.chosen;
        if plan.sampler != 0 {
            let own = ptr::without_provenance_mut(plan.sampler);
            plan.busy = lightgpt_sampler_reset(own);
        }
        plan.answer
    }
}

unsafe extern "C" fn destroy(plan: *mut c_void) {
    // SAFETY: the tests hand a `Plan` over.
    unsafe { (*plan.cast::<Plan>()).destroyed += 1 };
}

fn add(sampler: *mut lightgpt_sampler, before: u32, plan: *mut Plan) -> i32 {
    // SAFETY: the plan outlives the sampler, in every test.
    unsafe { lightgpt_sampler_add_stage(sampler, before, Some(stage), plan.cast(), Some(destroy)) }
}

#[test]
fn a_stage_looks_changes_chooses_and_cancels() {
    let mut plan = Plan::default();
    let place = &raw mut plan;
    let sampler = plain();
    let logits = logits(300, 0);
    let top = (0..300)
        .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
        .unwrap();
    // SAFETY: nothing else uses the plan while it is looked at or changed.
    let plan = || unsafe { &mut *place };
    assert_eq!(add(sampler, 12, place), LIGHTGPT_INVALID_ARGUMENT);
    // SAFETY: without a function nothing is used.
    let none = unsafe { lightgpt_sampler_add_stage(sampler, 0, None, place.cast(), Some(destroy)) };
    assert_eq!((none, plan().destroyed), (LIGHTGPT_INVALID_ARGUMENT, 0));
    let before = sample(sampler, &logits, &[], 3);
    ok(add(sampler, LIGHTGPT_STAGE_PICK, place));
    // It changes nothing: the same pick, among the 40 tokens or fewer of top-k and top-p.
    assert_eq!(sample(sampler, &logits, &[], 3), before);
    assert!(plan().calls == 1 && (1..=40).contains(&plan().candidates));
    let candidates = plan().candidates;
    (plan().answer, plan().chosen) = (LIGHTGPT_CHOOSE, candidates - 1);
    let last = sample(sampler, &logits, &[], 3).unwrap();
    plan().chosen = 0;
    assert!(sample(sampler, &logits, &[], 3).unwrap() < last);
    plan().chosen = candidates;
    assert_eq!(
        sample(sampler, &logits, &[], 3),
        Err(LIGHTGPT_INVALID_ARGUMENT)
    );
    for answer in [LIGHTGPT_CANCEL, LIGHTGPT_STOP, -1, 77] {
        plan().answer = answer;
        assert_eq!(sample(sampler, &logits, &[], 3), Err(LIGHTGPT_CANCELLED));
    }
    plan().answer = LIGHTGPT_CONTINUE;
    plan().add = f32::NAN;
    assert_eq!(sample(sampler, &logits, &[], 3), Err(LIGHTGPT_NONFINITE));
    plan().add = f32::NEG_INFINITY;
    assert_eq!(sample(sampler, &logits, &[], 3), Err(LIGHTGPT_NONFINITE));
    (plan().add, plan().exclude) = (0.0, Some(top as u32));
    assert!((0..50).all(|step| sample(sampler, &logits, &[], step) != Ok(top as u32)));
    // The object in use is busy, and survives that.
    plan().sampler = sampler.addr();
    sample(sampler, &logits, &[], 3).unwrap();
    assert_eq!(plan().busy, LIGHTGPT_BUSY);
    assert_eq!(plan().destroyed, 0);
    ok(lightgpt_sampler_free(sampler));
    assert_eq!(plan().destroyed, 1);
}

#[test]
fn stages_stand_where_they_were_put() {
    let sampler = plain();
    let (mut first, mut second, mut last) = (Plan::default(), Plan::default(), Plan::default());
    second.exclude = Some(7);
    ok(add(sampler, LIGHTGPT_STAGE_DRY, &raw mut first));
    ok(add(sampler, LIGHTGPT_STAGE_DRY, &raw mut second));
    ok(add(sampler, LIGHTGPT_STAGE_TOP_K, &raw mut last));
    sample(sampler, &logits(300, 0), &[], 0).unwrap();
    assert_eq!(
        (first.candidates, second.candidates, last.candidates),
        (300, 300, 299)
    );
    for _ in 3..64 {
        ok(add(sampler, LIGHTGPT_STAGE_PICK, &raw mut last));
    }
    let full = add(sampler, LIGHTGPT_STAGE_PICK, &raw mut last);
    assert_eq!(full, LIGHTGPT_INVALID_ARGUMENT);
    assert_eq!(last.destroyed, 0);
    ok(lightgpt_sampler_free(sampler));
    assert_eq!(
        (first.destroyed, second.destroyed, last.destroyed),
        (1, 1, 62)
    );

    // A place that is not in the order, and a greedy sampler whose top-k is seen by a stage.
    static ORDER: [u32; 2] = [LIGHTGPT_STAGE_TOP_K, LIGHTGPT_STAGE_TEMPERATURE];
    let mut options: lightgpt_sampler_options = new();
    (options.flags, options.top_k) = (LIGHTGPT_SAMPLER_TEMPERATURE | LIGHTGPT_SAMPLER_TOP_K, 5);
    (options.order, options.order_len) = (ORDER.as_ptr(), 2);
    let (status, sampler) = make(&options);
    ok(status);
    let refused = add(sampler, LIGHTGPT_STAGE_DRY, &raw mut first);
    assert_eq!(refused, LIGHTGPT_INVALID_ARGUMENT);
    ok(add(sampler, LIGHTGPT_STAGE_TEMPERATURE, &raw mut first));
    sample(sampler, &logits(300, 0), &[], 0).unwrap();
    assert_eq!((first.candidates, first.destroyed), (5, 1));
    ok(lightgpt_sampler_free(sampler));
}

#[test]
fn a_turn_works_with_a_copy_and_can_be_cancelled_by_a_stage() {
    let (model, sampler) = (open(), plain());
    let (mut session, mut event) = (ptr::null_mut(), new::<lightgpt_event>());
    let mut plan = Plan {
        answer: LIGHTGPT_CANCEL,
        ..Plan::default()
    };
    let place = &raw mut plan;
    ok(add(sampler, LIGHTGPT_STAGE_TOP_P, place));
    let mut options: lightgpt_generate_options = new();
    (options.sampler, options.tokens_max) = (sampler, 4);
    let feed = |session| {
        let text = b"Once upon a time";
        let (bytes, flags) = (text.as_ptr().cast(), LIGHTGPT_TEXT_ADD_SPECIAL);
        // SAFETY: the bytes are as many as said.
        ok(unsafe {
            lightgpt_session_feed_text(session, bytes, text.len(), flags, ptr::null_mut())
        });
    };
    let tokens = |session| {
        let mut needed = 0;
        // SAFETY: only the number is asked for.
        ok(unsafe { lightgpt_session_tokens(session, ptr::null_mut(), 0, &raw mut needed) });
        needed
    };
    // SAFETY: every pointer is NULL or that of a local that fits; nothing else uses the plan while
    // it is looked at.
    unsafe {
        let (none, made) = (ptr::null(), &raw mut session);
        ok(lightgpt_session_new(model, none, ptr::null(), made));
        feed(session);
        let status = lightgpt_session_generate(session, &options, None, ptr::null_mut());
        assert_eq!((status, tokens(session)), (LIGHTGPT_CANCELLED, 0));

        (*place).answer = LIGHTGPT_CONTINUE;
        feed(session);
        ok(lightgpt_session_begin(session, &options));
        ok(lightgpt_sampler_free(sampler));
        assert_eq!((*place).destroyed, 0);
        let mut status = LIGHTGPT_OK;
        while status == LIGHTGPT_OK {
            status = lightgpt_session_step(session, 0, &raw mut event);
        }
        assert_eq!((status, (*place).calls), (LIGHTGPT_DONE, 5));
        ok(lightgpt_session_free(session));
        assert_eq!((*place).destroyed, 1);
    }
    ok(lightgpt_model_free(model));
}

#[test]
fn frequencies_follow_the_distribution() {
    let sampler = plain();
    let check = |sampler, logits: &[f32], draws| {
        let mut result: lightgpt_chi_square = new();
        // SAFETY: every pointer is NULL, of a slice with its length, or of a local that fits.
        let status = unsafe {
            let (data, len) = (logits.as_ptr(), logits.len());
            let none = ptr::null();
            lightgpt_sampler_check(sampler, data, len, none, 0, draws, &raw mut result)
        };
        (status, result)
    };
    let logits = logits(50, 1);
    let (status, found) = check(sampler, &logits, 50_000);
    ok(status);
    assert!(found.degrees > 5 && found.p_value > 0.001, "{found:?}");
    // A stage that chooses anew at each step is seen through, too.
    let mut plan = Plan::default();
    ok(add(sampler, LIGHTGPT_STAGE_PICK, &raw mut plan));
    let (status, found) = check(sampler, &logits, 5_000);
    ok(status);
    assert!(plan.calls >= 5_000 && found.p_value > 0.001, "{found:?}");
    for (logits, draws) in [(&logits[..], 0), (&logits, 100_000_001), (&[], 10)] {
        assert_eq!(check(sampler, logits, draws).0, LIGHTGPT_INVALID_ARGUMENT);
    }
    ok(lightgpt_sampler_free(sampler));
}

#[test]
fn diversity_is_that_of_rust() {
    let texts = ["the cat the cat sat", "the dog sat", ""];
    let words: Vec<Vec<&str>> = texts.iter().map(|text| diversity::words(text)).collect();
    let words: Vec<&[&str]> = words.iter().map(Vec::as_slice).collect();
    let given = texts.map(|text| lightgpt_text {
        text: text.as_ptr().cast(),
        text_bytes: text.len() as u64,
    });
    let mut found: lightgpt_diversity = new();
    for n in 1..=4 {
        // SAFETY: every pointer is of a slice with its length, or of a local that fits.
        ok(unsafe { lightgpt_diversity_measure_texts(given.as_ptr(), 3, n, &raw mut found) });
        let n = n as usize;
        let repetition = words.iter().map(|text| diversity::repetition(text, n));
        let expected = [
            diversity::distinct(&words, n),
            repetition.sum::<f64>() / 3.0,
            diversity::entropy(&words, n),
            diversity::self_bleu(&words, n),
        ];
        let measured = [
            found.distinct,
            found.repetition,
            found.entropy,
            found.self_bleu,
        ];
        assert_eq!(measured.map(f64::to_bits), expected.map(f64::to_bits));
    }
    let tokens = [1u32, 2, 3, 4, 1, 2, 3, 4];
    let sequence = lightgpt_tokens {
        tokens: tokens.as_ptr(),
        tokens_len: 8,
    };
    let mut measure = |sequence: *const lightgpt_tokens, len, n| {
        // SAFETY: every pointer is NULL, of a slice with its length, or of a local that fits.
        unsafe { lightgpt_diversity_measure(sequence, len, n, &raw mut found) }
    };
    ok(measure(&raw const sequence, 1, 1));
    for (len, n) in [(0, 1), (2049, 1), (1, 0), (1, 17)] {
        let status = measure(&raw const sequence, len, n);
        assert_eq!(status, LIGHTGPT_INVALID_ARGUMENT);
    }
    assert_eq!(measure(ptr::null(), 1, 1), LIGHTGPT_INVALID_ARGUMENT);
    let rate: f64 = 3.0 / 4.0 * 0.5 * 0.25;
    assert!((found.repetition_rate - rate.powf(0.25)).abs() < 1e-12);
    assert_eq!((found.distinct, found.entropy), (0.5, 2.0));
}
