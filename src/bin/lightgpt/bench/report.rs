//! What was measured, for people and for programs.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use lightgpt::model::Model;

use crate::output::{Failure, bytes, counted, standard};
use crate::system;

use super::statistics::Summary;
use super::work::Work;
use super::{Arguments, Kind, Limits, Measurement};

/// A model's measurements and what they are held against.
pub struct Report<'a> {
    pub arguments: &'a Arguments,
    pub model: Arc<Model>,
    pub work: Work,
    pub limits: Limits,
    pub threads: usize,
    pub open_us: u64,
    pub private_bytes: Option<u64>,
    /// Each with the seconds of its repetitions.
    pub results: Vec<(Measurement, Vec<f64>)>,
}

/// The numbers of a measurement.
struct Speeds {
    /// Tokens a second.
    tokens: Summary,
    multiply_adds: f64,
    /// Of the time that the multiply-adds take at their peaks.
    percent_of_peak: f64,
    /// Bytes of weights a second, and percent of a plain read; of single tokens only, for others
    /// share what they read.
    weights: Option<(f64, f64)>,
    /// Bytes of keys and values that a token reads; of single tokens only.
    kv_bytes: Option<u64>,
}

impl Report<'_> {
    fn speeds(&self, one: &Measurement, seconds: &[f64]) -> Speeds {
        let tokens: Vec<f64> = seconds.iter().map(|s| one.tokens as f64 / s).collect();
        let tokens = Summary::of(&tokens);
        let (sequences, depth) = (one.sequences as u64, one.depth as u64);
        let count = one.tokens as u64 / sequences;
        let outputs = match one.kind {
            Kind::Prefill => 1,
            Kind::Decode | Kind::Batch => count,
        };
        let work = self
            .work
            .multiply_adds(count, depth, outputs)
            .times(sequences);
        let seconds = one.tokens as f64 / tokens.median;
        let limits = &self.limits;
        let at_peak = work.integer as f64 / limits.integer.1 + work.float as f64 / limits.float.1;
        let read = self.work.token_bytes as f64 * tokens.median;
        Speeds {
            tokens,
            multiply_adds: work.all() as f64 / seconds,
            percent_of_peak: 100.0 * at_peak / seconds,
            weights: (one.kind == Kind::Decode).then_some((read, 100.0 * read / limits.read)),
            kv_bytes: (one.kind == Kind::Decode).then(|| self.work.kv_bytes(count, depth)),
        }
    }

    fn isa(&self) -> &'static str {
        let network = self.model.network();
        network.map_or("none", |network| network.kernels.isa().name())
    }

    /// A table.
    pub fn print(&self) -> Result<(), Failure> {
        let mut out = standard();
        let limits = &self.limits;
        let (size, parameters) = (self.model.weight_bytes(), self.model.parameters());
        let name = self.arguments.model.display();
        writeln!(out, "{name}: {}, {parameters} parameters", bytes(size))?;
        let opened = self.open_us as f64 / 1e3;
        let private = self.private_bytes.map_or("unknown".into(), bytes);
        writeln!(out, "opened in {opened:.1} ms, private memory {private}")?;
        let (isa, threads) = (self.isa(), counted(self.threads, "thread"));
        let (integer, float) = (limits.integer.1 / 1e9, limits.float.1 / 1e9);
        writeln!(
            out,
            "{isa}, {threads}; at best: reading {:.1} GB/s (of {}), multiply-adds \
            {integer:.0} G/s of integers, {float:.0} G/s of floats",
            limits.read / 1e9,
            bytes(limits.read_bytes)
        )?;
        writeln!(
            out,
            "\n{:<8} {:>7} {:>7} {:>11} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>7} {:>9} {:>9}",
            "",
            "tokens",
            "behind",
            "tokens/s",
            "min",
            "max",
            "quartiles",
            "G mul/s",
            "of peak",
            "GB/s",
            "of read",
            "ms each",
            "MB of KV"
        )?;
        for (one, seconds) in &self.results {
            let speeds = self.speeds(one, seconds);
            let Summary {
                median,
                min,
                max,
                interquartile,
            } = speeds.tokens;
            write!(
                out,
                "{:<8} {:>7} {:>7} {median:>11.2} {min:>9.2} {max:>9.2} {interquartile:>9.2} \
                 {:>9.1} {:>6.1}%",
                one.kind.name(),
                one.tokens,
                one.depth,
                speeds.multiply_adds / 1e9,
                speeds.percent_of_peak
            )?;
            if let (Some((read, percent)), Some(kv_bytes)) = (speeds.weights, speeds.kv_bytes) {
                let (each, kv) = (1e3 / median, kv_bytes as f64 / 1e6);
                write!(
                    out,
                    " {:>9.2} {percent:>6.1}% {each:>9.3} {kv:>9.1}",
                    read / 1e9
                )?;
            }
            writeln!(out)?;
        }
        Ok(out.flush()?)
    }

    /// An object with `results`.
    pub fn to_json(&self) -> Json {
        let limits = &self.limits;
        let arguments = self.arguments;
        let peak = |(peak, rate): (lightgpt::kernel::Peak, f64)| json!({"instruction": peak.name(), "multiply_adds_per_second": rate});
        let results: Vec<Json> = self
            .results
            .iter()
            .map(|(one, s)| self.result(one, s))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "model": {
                "path": arguments.model.to_string_lossy(),
                "name": self.model.name(),
                "architecture": self.model.architecture(),
                "bytes": self.model.weight_bytes(),
                "bytes_per_token": self.work.token_bytes,
                "parameters": self.model.parameters(),
            },
            "cpu": system::cpu_name(),
            "isa": self.isa(),
            "threads": self.threads,
            "kv": format!("{:?}", arguments.kv).to_lowercase(),
            "repetitions": self.results[0].1.len(),
            "warmup": arguments.warmup,
            "open_us": self.open_us,
            "private_bytes": self.private_bytes,
            "limits": {
                "read_bytes": limits.read_bytes,
                "read_bytes_per_second": limits.read,
                "integer": peak(limits.integer),
                "float": peak(limits.float),
            },
            "results": results,
        })
    }

    fn result(&self, one: &Measurement, seconds: &[f64]) -> Json {
        let speeds = self.speeds(one, seconds);
        let Summary {
            median,
            min,
            max,
            interquartile,
        } = speeds.tokens;
        json!({
            "kind": one.kind.name(),
            "tokens": one.tokens,
            "context_depth": one.depth,
            "sequences": one.sequences,
            "threads": self.threads,
            "isa": self.isa(),
            "model_bytes": self.model.weight_bytes(),
            "parameters": self.model.parameters(),
            "tokens_per_second": median,
            "spread": {"min": min, "max": max, "interquartile": interquartile},
            "seconds": seconds,
            "multiply_adds_per_second": speeds.multiply_adds,
            "percent_of_peak": speeds.percent_of_peak,
            "weight_bytes_per_second": speeds.weights.map(|weights| weights.0),
            "percent_of_read": speeds.weights.map(|weights| weights.1),
            "kv_bytes_per_token": speeds.kv_bytes,
        })
    }
}
