//! Experts and latent attention with weights in blocks: what the goldens, whose matrices are floats,
//! do not show.
#![allow(clippy::unwrap_used)] // tests

#[path = "support/weights.rs"]
mod weights;

use std::sync::Arc;

use lightgpt::control::Control;
use lightgpt::error::Code;
use lightgpt::gguf::{Source, Value, Writer};
use lightgpt::kernel::{self, Isa, Kernels};
use lightgpt::kv::KvFormat;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::quant::{self, Format};
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

const VOCAB: u64 = 75;
const DIM: u64 = 64;

/// A model in the making: its keys, and its tensors with their sizes, the innermost first.
struct Plan {
    name: &'static str,
    keys: Vec<(&'static str, Value)>,
    tensors: Vec<(String, Vec<u64>)>,
}

impl Plan {
    fn new(name: &'static str, heads: u32) -> Self {
        let keys = vec![
            ("block_count", Value::U32(2)),
            ("context_length", Value::U32(64)),
            ("embedding_length", Value::U32(DIM as u32)),
            ("feed_forward_length", Value::U32(96)),
            ("attention.head_count", Value::U32(heads)),
            ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("expert_count", Value::U32(8)),
            ("expert_used_count", Value::U32(3)),
            ("expert_feed_forward_length", Value::U32(32)),
        ];
        let tensors = vec![
            ("token_embd.weight".into(), vec![DIM, VOCAB]),
            ("output_norm.weight".into(), vec![DIM]),
            ("output.weight".into(), vec![DIM, VOCAB]),
        ];
        let mut plan = Self {
            name,
            keys,
            tensors,
        };
        plan.layers(&[
            ("attn_norm", &[DIM]),
            ("ffn_norm", &[DIM]),
            ("ffn_gate_inp", &[DIM, 8]),
            ("ffn_gate_exps", &[DIM, 32, 8]),
            ("ffn_up_exps", &[DIM, 32, 8]),
            ("ffn_down_exps", &[32, DIM, 8]),
        ]);
        plan
    }

    fn layers(&mut self, tensors: &[(&str, &[u64])]) {
        for layer in 0..2 {
            for (name, dims) in tensors {
                let name = format!("blk.{layer}.{name}.weight");
                self.tensors.push((name, dims.to_vec()));
            }
        }
    }

    /// Three of eight experts, and a shared network with a gate.
    fn shared() -> Self {
        let mut plan = Self::new("qwen2moe", 4);
        let width = Value::U32(64);
        plan.keys.push(("expert_shared_feed_forward_length", width));
        plan.layers(&[
            ("attn_q", &[DIM, DIM]),
            ("attn_k", &[DIM, DIM]),
            ("attn_v", &[DIM, DIM]),
            ("attn_output", &[DIM, DIM]),
            ("ffn_gate_inp_shexp", &[DIM]),
            ("ffn_gate_shexp", &[DIM, 64]),
            ("ffn_up_shexp", &[DIM, 64]),
            ("ffn_down_shexp", &[64, DIM]),
        ]);
        plan
    }

    /// The same experts behind latent attention of three heads.
    fn latent() -> Self {
        let mut plan = Self::new("deepseek2", 3);
        for (key, value) in [
            ("attention.q_lora_rank", 96),
            ("attention.kv_lora_rank", 64),
            ("attention.key_length_mla", 48),
            ("attention.value_length_mla", 32),
            ("rope.dimension_count", 16),
            ("attention.head_count_kv", 1),
            ("attention.key_length", 80),
            ("attention.value_length", 64),
        ] {
            plan.keys.push((key, Value::U32(value)));
        }
        plan.layers(&[
            ("attn_q_a", &[DIM, 96]),
            ("attn_q_a_norm", &[96]),
            ("attn_q_b", &[96, 3 * 48]),
            ("attn_kv_a_mqa", &[DIM, 80]),
            ("attn_kv_a_norm", &[64]),
            ("attn_k_b", &[32, 64, 3]),
            ("attn_v_b", &[64, 32, 3]),
            ("attn_output", &[96, DIM]),
        ]);
        plan
    }

    /// The file with matrices in `format`, or with the floats that these are worth; `change` sees the
    /// blocks of each tensor.
    fn file(&self, format: Format, decoded: bool, change: &dyn Fn(&str, &mut [u8])) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.set("general.architecture", self.name).unwrap();
        for (key, value) in &self.keys {
            let key = format!("{}.{key}", self.name);
            writer.set(&key, value.clone()).unwrap();
        }
        for (seed, (name, dims)) in (1..).zip(&self.tensors) {
            let len = dims.iter().product::<u64>() as usize;
            let is_float = dims.len() == 1 || name.contains("gate_inp");
            let own = if is_float { Format::F32 } else { format };
            let mut bytes = match name.contains("norm") {
                true => 1f32.to_le_bytes().repeat(len),
                false => weights::random_weights(own, len, dims[0] as usize, seed),
            };
            change(name, &mut bytes);
            if decoded && !is_float {
                let mut floats = vec![0.0; len];
                quant::decode(own, &bytes, &mut floats).unwrap();
                let bytes: Vec<u8> = floats.iter().flat_map(|x| x.to_le_bytes()).collect();
                writer.tensor(name, Format::F32, dims, bytes).unwrap();
            } else {
                writer.tensor(name, own, dims, bytes).unwrap();
            }
        }
        writer.to_bytes()
    }
}

/// What the products of a matrix of a tensor are multiplied with: a power of two, which rounds nothing.
fn factor(tensor: &str, matrix: usize) -> f32 {
    let number = tensor.bytes().map(usize::from).sum::<usize>() + matrix;
    [0.5, 1.0, 2.0][number % 3]
}

/// The logits after each of some tokens.
fn logits(file: Vec<u8>, kernels: &'static Kernels, threads: usize, chunk: usize) -> Vec<f32> {
    let options = OpenOptions::default();
    let source = Source::Owned(file);
    let model = Model::open_with(source, &options, &mut Control::none(), kernels).unwrap();
    let team = TeamOptions {
        threads,
        alone_ns: Some(0),
        ..TeamOptions::default()
    };
    let options = SessionOptions {
        kv: Some(KvFormat::F32),
        chunk,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, Team::new(team).unwrap(), &options).unwrap();
    let tokens: Vec<u32> = (0..30).map(|i| i * 2_654_435 % VOCAB as u32).collect();
    session.feed(&tokens).unwrap();
    let mut all = Vec::new();
    let each = &mut |_, row: &[f32]| all.extend_from_slice(row);
    session.logits_of_each(&mut Control::none(), each).unwrap();
    all
}

fn unchanged(_: &str, _: &mut [u8]) {}

#[test]
fn blocks_give_about_what_their_values_give() {
    for plan in [Plan::shared(), Plan::latent()] {
        for format in [Format::Q8_0, Format::Q4_0, Format::F16] {
            let run = |decoded| {
                logits(
                    plan.file(format, decoded, &unchanged),
                    kernel::detect(),
                    2,
                    0,
                )
            };
            let (made, truth) = (run(false), run(true));
            let square = |x: f32| f64::from(x * x);
            let error: f64 = made.iter().zip(&truth).map(|(a, b)| square(a - b)).sum();
            let size: f64 = truth.iter().map(|x| square(*x)).sum();
            let relative = (error / size).sqrt();
            // Rounded activations may choose another expert here and there.
            assert!(
                size > 1.0 && relative < 0.15,
                "{} {format:?} {relative}",
                plan.name
            );
        }
    }
}

#[test]
fn neither_chunks_nor_threads_nor_the_isa_show() {
    for plan in [Plan::shared(), Plan::latent()] {
        for format in [Format::Q4_0, Format::Q8_0] {
            let file = plan.file(format, false, &unchanged);
            let bits = |kernels, threads, chunk| -> Vec<u32> {
                let logits = logits(file.clone(), kernels, threads, chunk);
                logits.iter().map(|x| x.to_bits()).collect()
            };
            let truth = bits(kernel::force(Isa::Scalar), 1, 1);
            for kernels in kernel::available() {
                for (threads, chunk) in [(1, 1), (2, 7), (3, 30)] {
                    let made = bits(kernels, threads, chunk);
                    assert!(
                        made == truth,
                        "{} {format:?} {kernels:?} {chunk}",
                        plan.name
                    );
                }
            }
        }
    }
}

/// Factors beside matrices are as good as factors in them.
#[test]
fn factors_of_matrices_are_heeded() {
    for mut plan in [Plan::shared(), Plan::latent()] {
        let in_matrices = |name: &str, bytes: &mut [u8]| {
            let Some(name) = name.strip_prefix("blk.").filter(|_| !name.contains("norm")) else {
                return;
            };
            let count = if name.contains("_exps") { 8 } else { 1 };
            let matrix = bytes.len() / count;
            for (i, matrix) in bytes.chunks_exact_mut(matrix).enumerate() {
                for x in matrix.as_chunks_mut::<4>().0 {
                    *x = (f32::from_le_bytes(*x) * factor(name, i)).to_le_bytes();
                }
            }
        };
        let run = |plan: &Plan, change: &dyn Fn(&str, &mut [u8])| {
            let file = plan.file(Format::F32, false, change);
            logits(file, kernel::detect(), 2, 7)
        };
        let truth = run(&plan, &in_matrices);
        assert!(truth != run(&plan, &unchanged), "{}", plan.name);
        let matrices = plan.tensors.clone();
        let matrices = matrices.iter().filter_map(|(name, dims)| {
            let name = name.strip_prefix("blk.").filter(|_| !name.contains("norm"));
            Some((name?.strip_suffix(".weight")?, dims))
        });
        for (name, dims) in matrices {
            // Those of latent heads are one matrix as far as their factor goes.
            let count = dims.get(2).map_or(1, |count| *count);
            for kind in ["scale", "input_scale"] {
                plan.tensors
                    .push((format!("blk.{name}.{kind}"), vec![count]));
            }
        }
        let beside = |name: &str, bytes: &mut [u8]| {
            let Some(name) = name.strip_suffix(".scale") else {
                return;
            };
            let name = name.strip_prefix("blk.").unwrap();
            let heads = if name.contains("_exps") {
                bytes.len() / 4
            } else {
                1
            };
            for (i, x) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *x = factor(&format!("{name}.weight"), i % heads).to_le_bytes();
            }
        };
        assert!(run(&plan, &beside) == truth, "{}", plan.name);
    }
}

#[test]
fn factors_that_mean_nothing_known_are_refused() {
    let refused = |name: &str, count: u64, value: f32| {
        let mut plan = Plan::shared();
        plan.tensors.push((name.into(), vec![count]));
        let change = |tensor: &str, bytes: &mut [u8]| {
            if tensor == name {
                bytes.copy_from_slice(&value.to_le_bytes().repeat(count as usize));
            }
        };
        let file = Source::Owned(plan.file(Format::F32, false, &change));
        let error = Model::open(file, &OpenOptions::default(), &mut Control::none()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        error.code()
    };
    for (name, count, value, code) in [
        ("token_embd.scale", 1, 2.0, Code::Unsupported),
        ("blk.0.attn_q.weight.scale", 1, 2.0, Code::Unsupported),
        ("blk.0.attn_q.scale", 2, 2.0, Code::Format),
        ("blk.0.attn_q.scale", 1, f32::NAN, Code::Format),
        ("blk.1.ffn_up_exps.scale", 1, 2.0, Code::Format),
        ("blk.1.ffn_up_exps.scale", 8, f32::INFINITY, Code::Format),
    ] {
        assert_eq!(refused(name, count, value), code, "{name}");
    }
}

/// Experts that nobody takes may be anything: their weights are not read.
#[test]
fn experts_that_nobody_takes_do_not_show() {
    let mut plan = Plan::shared();
    for layer in 0..2 {
        plan.tensors
            .push((format!("blk.{layer}.exp_probs_b.bias"), vec![8]));
    }
    let run = |filler: u8| {
        let change = move |name: &str, bytes: &mut [u8]| {
            if name.ends_with("exp_probs_b.bias") {
                let bias = |expert: usize| if expert == 5 { -9f32 } else { 0.0 };
                bytes.copy_from_slice(
                    &[0, 1, 2, 3, 4, 5, 6, 7]
                        .map(|i| bias(i).to_le_bytes())
                        .concat(),
                );
            } else if name.contains("_exps.") {
                let expert = bytes.len() / 8;
                bytes[5 * expert..6 * expert].fill(filler);
            }
        };
        logits(
            plan.file(Format::Q8_0, false, &change),
            kernel::detect(),
            2,
            0,
        )
    };
    let (zeros, nans) = (run(0), run(0xff));
    assert!(zeros == nans && zeros.iter().all(|x| x.is_finite()));
}

#[test]
fn a_budget_counts_all_that_a_pass_takes() {
    for plan in [Plan::shared(), Plan::latent()] {
        let file = plan.file(Format::Q8_0, false, &unchanged);
        let options = OpenOptions::default();
        let model = Model::open(Source::Owned(file), &options, &mut Control::none()).unwrap();
        let rows = 30;
        let estimate = model.memory_estimate(0, KvFormat::F32, rows).unwrap();
        let before = model.budget().bytes();
        let options = SessionOptions {
            kv: Some(KvFormat::F32),
            chunk: rows,
            ..SessionOptions::default()
        };
        let team = Team::new(TeamOptions::default()).unwrap();
        let mut session = Session::new(Arc::clone(&model), team, &options).unwrap();
        session.feed(&vec![1; 64]).unwrap();
        session.logits(&mut Control::none()).unwrap();
        let taken = model.budget().bytes() - before;
        let counted = estimate.kv + estimate.scratch + estimate.logits;
        assert_eq!(taken, counted, "{}", plan.name);
    }
}
