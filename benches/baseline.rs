//! How much faster the engine is than the plain program that its mathematics describe: the same
//! model with its weights as f32, rows times columns in loops, one value after the other, one thread.
//!
//! `cargo bench --bench baseline -- MODEL.gguf` takes a model of the plain kind: pre-norm by the mean
//! square, rotary positions, a gated network, no biases. That both compute the same is shown by the
//! correlation of their logits.

#![allow(clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lightgpt::control::Control;
use lightgpt::error::{Code, Error, Result};
use lightgpt::gguf::Source;
use lightgpt::kv::KvFormat;
use lightgpt::model::spec::{Gating, QkNorm};
use lightgpt::model::{Model, OpenOptions};
use lightgpt::ops::matmul::Linear;
use lightgpt::ops::norm::Norm;
use lightgpt::ops::rope::Style;
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::{Team, TeamOptions};

/// Tokens of the prompt, and tokens one by one behind it.
const PROMPT: usize = 16;
const SINGLE: usize = 8;
/// The same where the engine runs, which needs more of them to be measured.
const PROMPT_ENGINE: usize = 512;
const SINGLE_ENGINE: usize = 64;

/// (rows, columns)
struct Matrix {
    values: Vec<f32>,
    columns: usize,
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    out: Matrix,
    ffn_norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    /// Of the tokens so far: (tokens, kv_heads, head_dim)
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// A model as a textbook has it.
struct Plain {
    model: Arc<Model>,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Matrix,
    position: usize,
}

fn main() -> Result<()> {
    let Some(path) = std::env::args().skip(1).find(|word| !word.starts_with('-')) else {
        println!("baseline: no model given: cargo bench --bench baseline -- MODEL.gguf");
        return Ok(());
    };
    let source = Source::Path(Path::new(&path));
    let model = Model::open(source, &OpenOptions::default(), &mut Control::none())?;
    let vocab = model.network()?.spec.vocab;
    let token = |i: usize| (i * 7919 % vocab) as u32;
    let tokens: Vec<u32> = (0..PROMPT_ENGINE + SINGLE_ENGINE).map(token).collect();
    let mut plain = Plain::new(&model)?;
    let (plain_prompt, plain_single) = measure(&tokens, [PROMPT, SINGLE], &mut |tokens| {
        plain.logits(tokens)
    })?;
    println!("tokens/s{:>24} {:>20}", "prompt", "one by one");
    println!("plain, 1 thread {plain_prompt:>16.2} {plain_single:>20.2}");
    for threads in [1, 0] {
        let (mut session, threads) = session(&model, threads)?;
        let lengths = [PROMPT_ENGINE, SINGLE_ENGINE];
        let (prompt, single) = measure(&tokens, lengths, &mut |tokens| {
            session.feed(tokens)?;
            Ok(session.logits(&mut Control::none())?.to_vec())
        })?;
        println!(
            "LightGPT, {threads} thread(s) {prompt:>10.2} ({:>5.1}x) {single:>11.2} ({:>5.1}x)",
            prompt / plain_prompt,
            single / plain_single
        );
    }
    let (mut session, _) = session(&model, 0)?;
    session.feed(&tokens[..PROMPT])?;
    plain.clear();
    let (ours, theirs) = (
        session.logits(&mut Control::none())?,
        plain.logits(&tokens[..PROMPT])?,
    );
    println!(
        "correlation of their logits: {:.5}",
        correlation(ours, &theirs)
    );
    Ok(())
}

/// Tokens a second of a prompt, and of tokens one by one behind it.
fn measure(
    tokens: &[u32],
    [prompt, single]: [usize; 2],
    logits: &mut dyn FnMut(&[u32]) -> Result<Vec<f32>>,
) -> Result<(f64, f64)> {
    let began = Instant::now();
    logits(&tokens[..prompt])?;
    let middle = Instant::now();
    for token in tokens[prompt..][..single].chunks(1) {
        logits(token)?;
    }
    let rate = |count: usize, seconds: f64| count as f64 / seconds;
    let prompt = rate(prompt, (middle - began).as_secs_f64());
    Ok((prompt, rate(single, middle.elapsed().as_secs_f64())))
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// A session and its threads; 0: all cores.
fn session(model: &Arc<Model>, threads: usize) -> Result<(Session, usize)> {
    let team = Team::new(TeamOptions {
        threads,
        ..TeamOptions::default()
    })?;
    let options = SessionOptions {
        kv: Some(KvFormat::F32),
        ..SessionOptions::default()
    };
    let threads = team.threads();
    Ok((Session::new(model.clone(), team, &options)?, threads))
}

impl Plain {
    fn new(model: &Arc<Model>) -> Result<Self> {
        let network = model.network()?;
        let (spec, weights) = (&network.spec, &network.weights);
        let is_plain = spec.qk_norm == QkNorm::None
            && spec.gating == Gating::Product
            && spec.each.iter().all(|layer| layer.rope.is_some())
            && weights.output.is_some()
            && weights.layers.iter().all(|layer| {
                layer.qkv.len() == 3 && layer.attention_out.is_some() && layer.ffn.is_some()
            });
        if !is_plain {
            let message = "expected a model of the plain kind, found another";
            return Err(Error::new(Code::Unsupported, "baseline", message));
        }
        let norm = |norm: &Option<Norm>| norm.as_ref().map_or(vec![], |norm| norm.weight.to_vec());
        let mut layers = Vec::new();
        for layer in &weights.layers {
            let ffn = layer.ffn.as_ref().expect("checked above");
            layers.push(Layer {
                attention_norm: norm(&layer.attention_norm),
                q: Matrix::new(&layer.qkv[0])?,
                k: Matrix::new(&layer.qkv[1])?,
                v: Matrix::new(&layer.qkv[2])?,
                out: Matrix::new(layer.attention_out.as_ref().expect("checked above"))?,
                ffn_norm: norm(&layer.ffn_norm),
                gate: Matrix::new(&ffn.inputs[0])?,
                up: Matrix::new(&ffn.inputs[1])?,
                down: Matrix::new(&ffn.down)?,
                keys: Vec::new(),
                values: Vec::new(),
            });
        }
        Ok(Self {
            model: model.clone(),
            layers,
            output_norm: norm(&weights.output_norm),
            output: Matrix::new(weights.output.as_ref().expect("checked above"))?,
            position: 0,
        })
    }

    /// Forgets all tokens.
    fn clear(&mut self) {
        self.position = 0;
        for layer in &mut self.layers {
            layer.keys.clear();
            layer.values.clear();
        }
    }

    /// Evaluates tokens; the logits behind the last.
    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let network = self.model.network()?;
        let (spec, frequencies) = (&network.spec, &network.weights.frequencies[0]);
        let (heads, kv_heads, dim) = (spec.heads, spec.kv_heads, spec.k_dim);
        let mut hidden = vec![0.0; spec.dim];
        for &token in tokens {
            network
                .weights
                .embedding
                .decode_row(token as usize, &mut hidden)?;
            let mut turns = vec![[0.0; 2]; frequencies.pairs()];
            frequencies.turns(self.position, spec.context, &mut turns);
            for layer in &mut self.layers {
                let x = normed(&hidden, &layer.attention_norm, spec.norm.epsilon);
                let (mut q, mut k) = (layer.q.times(&x), layer.k.times(&x));
                for head in q.chunks_exact_mut(dim).chain(k.chunks_exact_mut(dim)) {
                    rotate(head, &turns, spec.ropes[0].style);
                }
                layer.keys.extend(k);
                layer.values.extend(layer.v.times(&x));
                let attended = attend(&q, layer, (heads, kv_heads, dim));
                add(&mut hidden, &layer.out.times(&attended));
                let x = normed(&hidden, &layer.ffn_norm, spec.norm.epsilon);
                let (mut gate, up) = (layer.gate.times(&x), layer.up.times(&x));
                for (gate, up) in gate.iter_mut().zip(&up) {
                    *gate = *gate / (1.0 + (-*gate).exp()) * up;
                }
                add(&mut hidden, &layer.down.times(&gate));
            }
            self.position += 1;
        }
        Ok(self
            .output
            .times(&normed(&hidden, &self.output_norm, spec.norm.epsilon)))
    }
}

impl Matrix {
    fn new(linear: &Linear) -> Result<Self> {
        let weight = &linear.weight;
        let columns = weight.columns();
        let mut values = vec![0.0; weight.rows() * columns];
        for (row, out) in values.chunks_exact_mut(columns).enumerate() {
            weight.decode_row(row, out)?;
        }
        Ok(Self { values, columns })
    }

    fn times(&self, x: &[f32]) -> Vec<f32> {
        self.values
            .chunks_exact(self.columns)
            .map(|row| dot(row, x))
            .collect()
    }
}

/// In order, one product after the other: what a compiler must not change.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

fn normed(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt();
    x.iter()
        .zip(weight)
        .map(|(x, weight)| x * scale * weight)
        .collect()
}

fn rotate(head: &mut [f32], turns: &[[f32; 2]], style: Style) {
    for (i, [cos, sin]) in turns.iter().enumerate() {
        let (a, b) = match style {
            Style::Interleaved => (2 * i, 2 * i + 1),
            Style::Halves => (i, i + turns.len()),
        };
        let (x, y) = (head[a], head[b]);
        (head[a], head[b]) = (x * cos - y * sin, x * sin + y * cos);
    }
}

fn attend(q: &[f32], layer: &Layer, (heads, kv_heads, dim): (usize, usize, usize)) -> Vec<f32> {
    let mut out = vec![0.0; heads * dim];
    let pairs = q.chunks_exact(dim).zip(out.chunks_exact_mut(dim));
    for (head, (query, out)) in pairs.enumerate() {
        let start = head / (heads / kv_heads) * dim;
        let keys = layer
            .keys
            .chunks_exact(kv_heads * dim)
            .map(|row| &row[start..][..dim]);
        let scale = 1.0 / (dim as f32).sqrt();
        let mut scores: Vec<f32> = keys.map(|key| dot(query, key) * scale).collect();
        let most = scores.iter().copied().fold(f32::MIN, f32::max);
        scores
            .iter_mut()
            .for_each(|score| *score = (*score - most).exp());
        let sum: f32 = scores.iter().sum();
        let values = layer
            .values
            .chunks_exact(kv_heads * dim)
            .map(|row| &row[start..][..dim]);
        for (score, value) in scores.iter().zip(values) {
            for (out, value) in out.iter_mut().zip(value) {
                *out += score / sum * value;
            }
        }
    }
    out
}
