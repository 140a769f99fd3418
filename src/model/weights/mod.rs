//! The weights by their names in the file, each checked against the [`Spec`] when it is taken.

mod file;
mod recurrent;

use crate::budget::{Budget, Buffer};
use crate::error::{Code, Error, Result};
use crate::float;
use crate::gguf::Gguf;
use crate::model::spec::Spec;
use crate::ops::matmul::Linear;
use crate::ops::norm::{HeadNorm, Norm};
use crate::ops::rope::Frequencies;
use crate::tensor::Matrix;

pub use recurrent::{RecurrentWeights, StateWeights};

use file::{File, missing, no_memory};

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// (vocab, dim)
    pub embedding: Matrix,
    /// (dim)
    pub embedding_norm: Option<Norm>,
    /// What is added for each position: (context, dim)
    pub positions: Option<Matrix>,
    /// What is added for each text of an input: (segments, dim)
    pub segments: Option<Matrix>,
    /// One entry a layer.
    pub layers: Vec<Layer>,
    /// (dim)
    pub output_norm: Option<Norm>,
    /// (vocab, dim); the embedding again where the file ties them.
    pub output: Option<Linear>,
    /// What an embedding of a text goes through, one after the other.
    pub projections: Vec<Linear>,
    /// What makes scores of it.
    pub head: Option<HeadWeights>,
    /// Angles of each position embedding.
    pub frequencies: Vec<Frequencies>,
    /// What distance adds to the scores of each head: (heads), or none.
    pub slopes: Vec<f32>,
}

/// The weights of a layer. What a model does not have is `None`.
#[derive(Debug)]
pub struct Layer {
    /// (dim)
    pub attention_norm: Option<Norm>,
    /// Queries, keys, values and gates, side by side or as one: (qkv_width, dim); of latent attention
    /// what they are made of. Empty where a layer does not attend.
    pub qkv: Vec<Linear>,
    /// What latent attention makes of it.
    pub latent: Option<LatentWeights>,
    /// Of all queries, or of each head.
    pub q_norm: Option<HeadNorm>,
    /// Of all keys, or of each head.
    pub k_norm: Option<HeadNorm>,
    /// Scores without values: (heads)
    pub sinks: Option<Buffer<f32>>,
    /// (dim, out_width)
    pub attention_out: Option<Linear>,
    /// What the layer does with its state.
    pub recurrent: Option<RecurrentWeights>,
    /// Of what attention adds: (dim)
    pub attention_post_norm: Option<Norm>,
    /// Of the stream with it: (dim)
    pub attention_sum_norm: Option<Norm>,
    /// Of that and the stream without it: (dim)
    pub attention_second_norm: Option<Norm>,
    /// (dim); `None` too where the network takes what attention took.
    pub ffn_norm: Option<Norm>,
    /// Feed-forward network that all tokens take.
    pub ffn: Option<Ffn>,
    /// Networks of which a token takes a few.
    pub experts: Option<ExpertWeights>,
    /// Of what the network adds: (dim)
    pub ffn_post_norm: Option<Norm>,
    /// Of the stream with it: (dim)
    pub ffn_sum_norm: Option<Norm>,
}

/// What makes scores of a row.
#[derive(Debug)]
pub struct HeadWeights {
    /// (inner, dim)
    pub inner: Option<Linear>,
    /// (inner)
    pub norm: Option<Norm>,
    /// (outputs, inner or dim)
    pub outputs: Option<Linear>,
}

/// Latent attention.
#[derive(Debug)]
pub struct LatentWeights {
    /// Of the vector that queries are made of: (q_rank)
    pub q_norm: Option<Norm>,
    /// Queries of it: (heads * head_dim, q_rank)
    pub q_b: Option<Linear>,
    /// Of the vector that keys and values are made of: (kv_rank)
    pub kv_norm: Norm,
    /// What makes keys, as queries take it: (heads, kv_rank, plain_dim)
    pub k_b: Linear,
    /// What makes values: (heads, value_dim, kv_rank)
    pub v_b: Linear,
}

/// A feed-forward network.
#[derive(Debug)]
pub struct Ffn {
    /// Gate and up projection, side by side or as one, or only the latter: (gated width, dim)
    pub inputs: Vec<Linear>,
    /// (dim, hidden)
    pub down: Linear,
}

/// Networks of which a token takes a few.
#[derive(Debug)]
pub struct ExpertWeights {
    /// What a token chooses by, (experts, dim), and the gate of the network that all take, (1, dim).
    pub router: Vec<Linear>,
    /// What the choice adds to scores: (experts)
    pub bias: Option<Buffer<f32>>,
    /// Gate and up projections: (experts, hidden, dim), or as one: (experts, 2 * hidden, dim)
    pub inputs: Vec<Linear>,
    /// (experts, dim, hidden)
    pub down: Linear,
}

/// The name of the embedding, whose rows are the vocabulary.
const EMBEDDING: &str = "token_embd.weight";

/// Rows of the embedding.
pub fn vocab(gguf: &Gguf) -> Result<usize> {
    let rows = gguf
        .tensor(EMBEDDING)
        .ok_or_else(|| missing(EMBEDDING))?
        .dims[1];
    usize::try_from(rows).map_err(|_| {
        let message = format!("expected a vocabulary, found {rows} rows");
        Error::new(Code::Format, format!("tensor '{EMBEDDING}'"), message)
    })
}

impl Weights {
    /// Takes all tensors of the file; norms and biases are decoded into memory of `budget`. One
    /// that is missing, has another shape, or is not part of the model is an error.
    pub fn load(gguf: &Gguf, spec: &Spec, budget: &Budget) -> Result<Self> {
        let mut file = File::new(gguf, spec, budget)?;
        let embedding = file.matrix(EMBEDDING, spec.vocab, spec.dim)?;
        let embedding_norm = match spec.embedding.norm {
            true => Some(file.norm("token_embd_norm", spec.dim)?),
            false => None,
        };
        let positions = match spec.embedding.positions {
            true => Some(file.matrix("position_embd.weight", spec.context, spec.dim)?),
            false => None,
        };
        let segments = match spec.embedding.segments {
            0 => None,
            segments => Some(file.matrix("token_types.weight", segments, spec.dim)?),
        };
        let mut layers = Vec::new();
        let room = layers.try_reserve_exact(spec.layers);
        room.map_err(|_| no_memory(spec.layers))?;
        for i in 0..spec.layers {
            layers.push(Layer::load(&mut file, i)?);
        }
        let output_norm = match spec.norms.last {
            true => Some(Self::output_norm(&mut file)?),
            false => None,
        };
        let output = Self::output(&mut file, &embedding)?;
        let projections = Self::projections(&mut file)?;
        let head = HeadWeights::load(&mut file)?;
        let frequencies = file.frequencies()?;
        file.check_all_taken()?;
        Ok(Self {
            embedding,
            embedding_norm,
            positions,
            segments,
            layers,
            output_norm,
            output,
            projections,
            head,
            frequencies,
            slopes: slopes(spec),
        })
    }

    /// Some files name it as the norm of the embedding, which they do not have.
    fn output_norm(file: &mut File<'_>) -> Result<Norm> {
        let spec = file.spec;
        let is_there = file.has("output_norm.weight") || !file.has("token_embd_norm.weight");
        match is_there || spec.embedding.norm {
            true => file.norm("output_norm", spec.dim),
            false => file.norm("token_embd_norm", spec.dim),
        }
    }

    /// What predicts tokens; files of models that do not may hold it too.
    fn output(file: &mut File<'_>, embedding: &Matrix) -> Result<Option<Linear>> {
        let output = match file.find("output.weight") {
            Some(_) => file.linear("output", file.spec.vocab, file.spec.dim)?,
            None => Linear::new(embedding.clone()),
        };
        Ok(Some(output).filter(|_| file.spec.predicts))
    }

    fn projections(file: &mut File<'_>) -> Result<Vec<Linear>> {
        let mut columns = file.spec.dim;
        let widths = ["dense_2", "dense_3"].iter().zip(&file.spec.projections);
        let linears = widths.map(|(name, &rows)| {
            let linear = file.linear(name, rows, columns);
            columns = rows;
            linear
        });
        linears.collect()
    }
}

impl HeadWeights {
    fn load(file: &mut File<'_>) -> Result<Option<Self>> {
        let Some(head) = &file.spec.head else {
            return Ok(None);
        };
        let linear = |file: &mut File<'_>, name, rows, columns| match rows {
            0 => Ok(None),
            rows => file.linear(name, rows, columns).map(Some),
        };
        let inner = linear(file, "cls", head.inner, file.spec.dim)?;
        let width = if head.inner > 0 {
            head.inner
        } else {
            file.spec.dim
        };
        let norm = match head.norm {
            true => Some(file.norm("cls.norm", width)?),
            false => None,
        };
        Ok(Some(Self {
            inner,
            norm,
            outputs: linear(file, "cls.output", head.outputs, width)?,
        }))
    }
}

impl Layer {
    fn load(file: &mut File<'_>, layer: usize) -> Result<Self> {
        let spec = file.spec;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (attention_norm, ffn_norm) = Self::norms_before(file, layer)?;
        let norm_behind = |file: &mut File<'_>, part: &str| match spec.norms.behind {
            true => file.norm(&name(part), spec.dim).map(Some),
            false => Ok(None),
        };
        let norm_of_sum = |file: &mut File<'_>, part: &str| match spec.norms.of_sum {
            true => file.norm(&name(part), spec.dim).map(Some),
            false => Ok(None),
        };
        let second = name("attn_norm_2");
        let attention_second_norm = match spec.norms.of_sum && file.has(&format!("{second}.weight"))
        {
            true => Some(file.norm(&second, spec.dim)?),
            false => None,
        };
        let sinks = match spec.sinks {
            true => Some(file.vector(&name("attn_sinks.weight"), spec.heads)?),
            false => None,
        };
        let attends = spec.each[layer].mixer.attends();
        let head_norm = |file: &mut File<'_>, part: &str, heads: usize| match attends {
            true => file.head_norm(&name(part), heads),
            false => Ok(None),
        };
        let qkv = Self::qkv(file, layer)?;
        let attention_out = match attends {
            true => Some(file.linear(&name("attn_output"), spec.dim, spec.out_width())?),
            false => None,
        };
        Ok(Self {
            attention_norm,
            qkv,
            latent: LatentWeights::load(file, layer)?,
            q_norm: head_norm(file, "attn_q_norm", spec.heads)?,
            k_norm: head_norm(file, "attn_k_norm", spec.kv_heads)?,
            sinks,
            attention_out,
            recurrent: RecurrentWeights::load(file, layer)?,
            attention_post_norm: norm_behind(file, "post_attention_norm")?,
            attention_sum_norm: norm_of_sum(file, "attn_output_norm")?,
            attention_second_norm,
            ffn_norm,
            ffn: Ffn::load(file, layer)?,
            experts: ExpertWeights::load(file, layer)?,
            ffn_post_norm: norm_behind(file, "post_ffw_norm")?,
            ffn_sum_norm: norm_of_sum(file, "layer_output_norm")?,
        })
    }

    /// Norms before attention and before the feed-forward network.
    fn norms_before(file: &mut File<'_>, layer: usize) -> Result<(Option<Norm>, Option<Norm>)> {
        let spec = file.spec;
        if !spec.norms.before {
            return Ok((None, None));
        }
        let name = |part: &str| format!("blk.{layer}.{part}");
        // Where both blocks read the same stream, a second norm is that of attention.
        if file.has(&name("attn_norm_2.weight")) && spec.parallel {
            let attention = file.norm(&name("attn_norm_2"), spec.dim)?;
            let ffn = file.norm(&name("attn_norm"), spec.dim)?;
            return Ok((Some(attention), Some(ffn)));
        }
        let attention = match layer > 0 || spec.norms.first {
            true => Some(file.norm(&name("attn_norm"), spec.dim)?),
            false => None,
        };
        if spec.hidden == 0 {
            return Ok((attention, None));
        }
        // Some files name the other by what it follows.
        let behind = name("post_attention_norm");
        let ffn = match file.has(&format!("{behind}.weight")) && !spec.norms.behind {
            true => behind,
            false => name("ffn_norm"),
        };
        let is_shared = spec.parallel && !file.has(&format!("{ffn}.weight"));
        let ffn = match is_shared {
            true => None,
            false => Some(file.norm(&ffn, spec.dim)?),
        };
        Ok((attention, ffn))
    }

    fn qkv(file: &mut File<'_>, layer: usize) -> Result<Vec<Linear>> {
        let spec = file.spec;
        let name = |part: &str| format!("blk.{layer}.{part}");
        if !spec.each[layer].mixer.attends() {
            return Ok(Vec::new());
        }
        if spec.gated_heads {
            return Self::gated_qkv(file, layer);
        }
        if let Some(latent) = &spec.latent {
            let part = if latent.q_rank == 0 {
                "attn_q"
            } else {
                "attn_q_a"
            };
            return Ok(vec![
                file.linear(&name(part), latent.q_low(spec), spec.dim)?,
                file.linear(&name("attn_kv_a_mqa"), spec.k_dim, spec.dim)?,
            ]);
        }
        if file.has(&name("attn_qkv.weight")) {
            return Ok(vec![file.linear(
                &name("attn_qkv"),
                spec.qkv_width(),
                spec.dim,
            )?]);
        }
        Ok(vec![
            file.linear(&name("attn_q"), spec.q_width(), spec.dim)?,
            file.linear(&name("attn_k"), spec.kv_heads * spec.k_dim, spec.dim)?,
            file.linear(&name("attn_v"), spec.kv_heads * spec.v_dim, spec.dim)?,
        ])
    }

    /// The file holds the query and the gate of each head together.
    fn gated_qkv(file: &mut File<'_>, layer: usize) -> Result<Vec<Linear>> {
        let spec = file.spec;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let width = spec.k_dim + spec.v_dim;
        let starts = || (0..spec.heads).map(|head| head * width);
        let queries = starts().map(|start| start..start + spec.k_dim);
        let gates = starts().map(|start| start + spec.k_dim..start + width);
        let shape = [spec.heads * width, spec.dim];
        let mut all = file.parts(&name("attn_q"), shape, queries.chain(gates))?;
        let gates = all.split_off(spec.heads);
        all.push(file.linear(&name("attn_k"), spec.kv_heads * spec.k_dim, spec.dim)?);
        all.push(file.linear(&name("attn_v"), spec.kv_heads * spec.v_dim, spec.dim)?);
        all.extend(gates);
        Ok(all)
    }
}

impl LatentWeights {
    fn load(file: &mut File<'_>, layer: usize) -> Result<Option<Self>> {
        let spec = file.spec;
        let Some(latent) = &spec.latent else {
            return Ok(None);
        };
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (mut q_norm, mut q_b) = (None, None);
        if latent.q_rank > 0 {
            q_norm = Some(file.norm(&name("attn_q_a_norm"), latent.q_rank)?);
            let rows = latent.q_width(spec);
            q_b = Some(file.linear(&name("attn_q_b"), rows, latent.q_rank)?);
        }
        let (rank, plain) = (latent.kv_rank, latent.plain_dim(spec));
        Ok(Some(Self {
            q_norm,
            q_b,
            kv_norm: file.norm(&name("attn_kv_a_norm"), rank)?,
            k_b: file.stack(&name("attn_k_b"), spec.heads, [rank, plain])?,
            v_b: file.stack(&name("attn_v_b"), spec.heads, [latent.value_dim, rank])?,
        }))
    }
}

impl Ffn {
    /// The network of a dense layer, or the one that all tokens take besides the experts.
    fn load(file: &mut File<'_>, layer: usize) -> Result<Option<Self>> {
        let spec = file.spec;
        let (suffix, hidden) = match spec.experts.filter(|_| spec.each[layer].experts) {
            Some(experts) if experts.shared_hidden == 0 => return Ok(None),
            Some(experts) => ("_shexp", experts.shared_hidden),
            None if spec.hidden == 0 => return Ok(None),
            None => ("", spec.hidden),
        };
        let name = |part: &str| format!("blk.{layer}.{part}{suffix}");
        let width = spec.gated_width(hidden);
        let up = file.gguf.tensor(&format!("{}.weight", name("ffn_up")));
        let is_gated = width > hidden;
        let is_fused = is_gated && up.is_some_and(|up| up.dims[1] == width as u64);
        let mut inputs = Vec::new();
        if is_gated && !is_fused {
            inputs.push(file.linear(&name("ffn_gate"), hidden, spec.dim)?);
        }
        let rows = if is_fused { width } else { hidden };
        inputs.push(file.linear(&name("ffn_up"), rows, spec.dim)?);
        let down = file.linear(&name("ffn_down"), spec.dim, hidden)?;
        Ok(Some(Self { inputs, down }))
    }
}

impl ExpertWeights {
    fn load(file: &mut File<'_>, layer: usize) -> Result<Option<Self>> {
        let spec = file.spec;
        let Some(experts) = spec.experts.filter(|_| spec.each[layer].experts) else {
            return Ok(None);
        };
        let name = |part: &str| format!("blk.{layer}.{part}");
        let mut router = vec![file.linear(&name("ffn_gate_inp"), experts.count, spec.dim)?];
        if file.has(&name("ffn_gate_inp_shexp.weight")) && experts.shared_hidden > 0 {
            router.push(file.linear(&name("ffn_gate_inp_shexp"), 1, spec.dim)?);
        }
        let (hidden, width) = (experts.hidden, spec.gated_width(experts.hidden));
        let mut inputs = Vec::new();
        if file.has(&name("ffn_gate_up_exps.weight")) && width > hidden {
            inputs.push(file.stack(&name("ffn_gate_up_exps"), experts.count, [width, spec.dim])?);
        } else {
            if width > hidden {
                inputs.push(file.stack(
                    &name("ffn_gate_exps"),
                    experts.count,
                    [hidden, spec.dim],
                )?);
            }
            inputs.push(file.stack(&name("ffn_up_exps"), experts.count, [hidden, spec.dim])?);
        }
        Ok(Some(Self {
            router,
            bias: file.bias(&name("exp_probs_b"), experts.count)?,
            inputs,
            down: file.stack(&name("ffn_down_exps"), experts.count, [spec.dim, hidden])?,
        }))
    }
}

/// Slopes of the heads. Press et al., "Train Short, Test Long", 2021: a geometric series for a power
/// of two; further heads have those between.
fn slopes(spec: &Spec) -> Vec<f32> {
    if spec.alibi == 0.0 {
        return Vec::new();
    }
    let power = 1usize << spec.heads.ilog2();
    let step = f64::from(spec.alibi) / power as f64;
    let slope = |head: usize| {
        let exponent = match head < power {
            true => step * (head + 1) as f64,
            false => step / 2.0 * (2 * (head - power) + 1) as f64,
        };
        float::pow64(2.0, -exponent) as f32
    };
    (0..spec.heads).map(slope).collect()
}
