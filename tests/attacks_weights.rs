//! Known attacks by weights, row 38 of the table: scales that are infinite, not a number, huge or
//! denormal under all kinds of codes, in every format and every place of a model.
//!
//! Feeding and generating must give finite logits, or NONFINITE with the layer named.
#![allow(clippy::unwrap_used)] // a test

#[path = "support/tiny.rs"]
mod tiny;

use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::{Code, Error, Result};
use lightgpt::kv::KvFormat;
use lightgpt::model::Model;
use lightgpt::quant::{Format, is_computable};
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions};
use lightgpt::team::Team;

use tiny::{Sizes, Tiny, blocks, matrices, norms, set_scales, team};

/// Rows are whole blocks of every format.
const WIDE: Sizes = Sizes {
    dim: 256,
    heads: 2,
    kv_heads: 1,
    k_dim: 16,
    v_dim: 128,
    hidden: 256,
    layers: 2,
    vocab: 24,
    context: 64,
};

/// f16 scales: not a number, infinite, largest, smallest, zero.
const NAN: u16 = 0x7e00;
const SCALES: [u16; 7] = [NAN, 0x7c00, 0xfc00, 0x7bff, 0xfbff, 0x0001, 0x0000];

fn sampler(temperature: f32) -> Sampler {
    Sampler::new(&SamplerOptions {
        temperature,
        seed: Some(3),
        ..Default::default()
    })
    .unwrap()
}

/// Feeds three tokens and generates two; the last logits.
fn run(model: &Arc<Model>, team: &Arc<Team>, kv: KvFormat) -> Result<Vec<f32>> {
    let options = SessionOptions {
        kv: Some(kv),
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), team.clone(), &options)?;
    session.feed(&[1, 2, 3])?;
    let options = GenerateOptions {
        tokens_max: 2,
        ignore_end: true,
        ..GenerateOptions::new(sampler(0.8))
    };
    session.generate(&options, &mut Control::none(), &mut |_| Action::Continue)?;
    Ok(session.logits(&mut Control::none())?.to_vec())
}

fn check(what: &str, outcome: &Result<Vec<f32>>, name: &str) {
    match outcome {
        Ok(logits) => {
            assert!(
                logits.iter().all(|logit| logit.is_finite()),
                "{what}: {logits:?}"
            );
            for temperature in [0.0, 0.8, 1e-30, 1e30] {
                sampler(temperature).sample(logits, &[], 0).unwrap();
            }
        }
        Err(e) => {
            assert_eq!(e.code(), Code::NonFinite, "{what}: {e}");
            assert_eq!(e.place(), place(name), "{what}: {e}");
        }
    }
}

/// Where an error in the tensor `name` must be found.
fn place(name: &str) -> &'static str {
    match name {
        "output.weight" | "output_norm.weight" => "logits",
        _ if name.starts_with("blk.1.") => "layer 1",
        _ => "layer 0",
    }
}

/// Tensors of the second layer and of none, and the last one of the first layer.
fn of_interest(name: &str) -> bool {
    !name.starts_with("blk.0.") || name.contains("ffn_down")
}

/// Whether scales can be no numbers.
fn has_nan(format: Format) -> bool {
    !matches!(format, Format::MXFP4 | Format::NVFP4)
}

/// Bytes of `values` in `format`, with the scale `half` over the codes `code`: all of them, or only
/// in the first block of the last row.
fn poison(format: Format, bytes: &[u8], half: u16, code: Option<u8>, all: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let row = format.bytes(256).unwrap() as usize;
    let last = if all { 0 } else { bytes.len() - row };
    let count = if all { usize::MAX } else { 1 };
    for block in bytes[last..]
        .chunks_exact_mut(format.block_bytes())
        .take(count)
    {
        if let Some(code) = code {
            block.fill(code);
        }
        set_scales(format, block, half);
    }
    bytes
}

#[test]
fn every_scale_and_code_in_every_matrix() {
    let team = team(1);
    let base = Tiny::with(WIDE, &|_| Format::Q4_0);
    run(&base.open(), &team, KvFormat::F16).unwrap();
    let mut refusals = 0;
    for format in Format::all().filter(|format| is_computable(*format)) {
        for (name, rows, columns) in matrices(WIDE) {
            if !of_interest(&name) {
                continue;
            }
            let good = blocks(&name, format, rows * columns);
            for (half, code) in SCALES.iter().flat_map(|half| {
                [None, Some(0xff), Some(0x00), Some(0x80)].map(|code| (*half, code))
            }) {
                for all in [true, false] {
                    let mut tiny = base.clone();
                    let tensor = tiny.tensor(&name);
                    tensor.format = format;
                    tensor.bytes = poison(format, &good, half, code, all).into();
                    let what = format!("{name} {} {half:04x} {code:02x?} all {all}", format.name());
                    let outcome = run(&tiny.open(), &team, KvFormat::F16);
                    check(&what, &outcome, &name);
                    refusals += u32::from(outcome.is_err());
                    // Zeros hide no weight that counts; a NaN everywhere must not be missed.
                    if half == 0 {
                        outcome.unwrap();
                    } else if half == NAN && all && has_nan(format) {
                        outcome.unwrap_err();
                    }
                }
            }
        }
    }
    assert!(refusals > 1000, "{refusals}");
}

#[test]
fn every_bad_value_in_float_models() {
    // Nothing is quantized on the way, so nothing but the norms looks at the activations.
    let team = team(1);
    let floats = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN,
        1e20,
        1e-45,
        0.0,
    ];
    let base = Tiny::new(WIDE);
    let names = matrices(WIDE)
        .into_iter()
        .map(|(name, ..)| name)
        .chain(norms(WIDE));
    for name in names.filter(|name| of_interest(name)) {
        for value in floats {
            for all in [true, false] {
                let mut tiny = base.clone();
                let len = tiny.tensor(&name).bytes.len();
                let mut bytes = tiny.tensor(&name).bytes.to_vec();
                let start = if all { 0 } else { len - 4 };
                bytes[start..].chunks_exact_mut(4).for_each(|out| {
                    out.copy_from_slice(&value.to_le_bytes());
                });
                tiny.tensor(&name).bytes = bytes.into();
                for kv in [KvFormat::F16, KvFormat::F32] {
                    let outcome = run(&tiny.open(), &team, kv);
                    check(&format!("{name} {value} all {all} {kv:?}"), &outcome, &name);
                    if value.is_nan() && all {
                        outcome.unwrap_err();
                    }
                }
            }
        }
    }
}

#[test]
fn codes_alone_in_every_byte() {
    // Whole tensors of one byte, scales included, in all matrices at once.
    let team = team(1);
    for format in Format::all().filter(|format| is_computable(*format)) {
        for byte in [0x00, 0x01, 0x7b, 0x7c, 0x7e, 0x7f, 0x80, 0xfb, 0xfc, 0xff] {
            let mut tiny = Tiny::with(WIDE, &|_| format);
            for tensor in tiny
                .tensors
                .iter_mut()
                .filter(|tensor| tensor.dims.len() == 2)
            {
                tensor.bytes = vec![byte; tensor.bytes.len()].into();
            }
            match run(&tiny.open(), &team, KvFormat::F16) {
                Ok(logits) => assert!(logits.iter().all(|logit| logit.is_finite())),
                Err(e) => assert_eq!(e.code(), Code::NonFinite, "{e}"),
            }
        }
    }
}

#[test]
fn norms_in_every_format() {
    let team = team(1);
    for format in Format::all().filter(|format| is_computable(*format)) {
        for name in norms(WIDE).into_iter().filter(|name| of_interest(name)) {
            for half in SCALES {
                let mut tiny = Tiny::with(WIDE, &|_| Format::Q8_0);
                let tensor = tiny.tensor(&name);
                tensor.format = format;
                tensor.bytes = poison(format, &blocks(&name, format, 256), half, None, true).into();
                let what = format!("{name} {} {half:04x}", format.name());
                let outcome = run(&tiny.open(), &team, KvFormat::F16);
                check(&what, &outcome, &name);
                let whole = half != NAN || !has_nan(format);
                assert!(whole || outcome.is_err(), "{what}");
            }
        }
    }
}

#[test]
fn a_session_goes_on_after_a_bad_token() {
    // Only token 5 has a bad embedding: what came before it and what comes without it is whole.
    let mut tiny = Tiny::with(WIDE, &|_| Format::Q4_0);
    let tensor = tiny.tensor("token_embd.weight");
    let row = tensor.bytes.len() / WIDE.vocab;
    let mut bytes = tensor.bytes.to_vec();
    set_scales(Format::Q4_0, &mut bytes[5 * row..], NAN);
    tensor.bytes = bytes.into();
    let (model, team) = (tiny.open(), team(2));
    let mut session = tiny::session(&model, &team);
    let logits = |session: &mut Session| -> Result<Vec<f32>, Error> {
        session.logits(&mut Control::none()).map(<[f32]>::to_vec)
    };
    session.feed(&[1, 2, 3]).unwrap();
    let before = logits(&mut session).unwrap();
    session.feed(&[4, 5, 6]).unwrap();
    for _ in 0..3 {
        assert_eq!(logits(&mut session).unwrap_err().code(), Code::NonFinite);
    }
    session.rewind(3).unwrap();
    assert_eq!(logits(&mut session).unwrap(), before);
    session.feed(&[4, 6]).unwrap();
    let after = logits(&mut session).unwrap();
    let mut other = tiny::session(&model, &team);
    other.feed(&[1, 2, 3, 4, 6]).unwrap();
    assert_eq!(logits(&mut other).unwrap(), after);
}
