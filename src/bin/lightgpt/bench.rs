//! `lightgpt bench`: how fast a model reads a prompt and writes tokens, beside what the machine
//! can do at best.

mod batch;
mod lengths;
mod report;
mod statistics;
mod work;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, value_parser};
use serde_json::{Value as Json, json};

use lightgpt::control::{Control, Flow};
use lightgpt::error::Error;
use lightgpt::kernel::Peak;
use lightgpt::model::Model;
use lightgpt::session::{Session, SessionOptions};
use lightgpt::team::Team;

use crate::arguments::{Kv, LoadArguments, ThreadArguments};
use crate::limits;
use crate::output::{Failure, standard};
use crate::progress::Progress;
use crate::system;

use batch::Batch;
use lengths::Lengths;
use report::Report;
use work::Work;

const EXAMPLES: &str = "\
A repetition evaluates each prompt at once, with the logits of its last token, and then tokens one
by one behind it, with the logits of each; nothing is sampled. Speeds are medians over the
repetitions. They are held against two limits, measured in the same run with the same threads, the
best of before and after: a plain read of a buffer of the model's size, and the multiply-adds of
the best instruction on registers, for integers (weights in blocks) and floats (other weights, and
attention). What is behind the tokens is evaluated once. With --sequences, so many sequences also decode together in a batch queue, behind
prompts of 16 tokens each; the greedy choice of each token is part of the time, and the speed is
that of all together. Other programs that run meanwhile make all numbers worse.

With --paced, each repetition waits for a line on standard input and is answered by a line of JSON,
so that programs can take turns; the end of the input ends the measurement.

Examples:
  lightgpt bench models/tales-4m-q8_0.gguf --prefill 64 --decode 16
  lightgpt bench models/tales-4m-q8_0.gguf --prefill 16,64 --decode 8 --repetitions 2 --threads 1 --json
  lightgpt bench models/tales-4m-q8_0.gguf --prefill 0 --decode 8 --depth 100,200 --kv f32 --warmup 0
  lightgpt bench models/tales-4m-q8_0.gguf --prefill 0 --decode 8 --sequences 16 --steps 8";

/// Measures the speed of prompts and of single tokens, beside the machine's limits
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The model: a GGUF file
    model: PathBuf,
    /// Prompt tokens; several numbers are measured one after the other; 0: none [default: 512, or
    /// what the model's context has room for]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = parse_tokens)]
    prefill: Option<Vec<u32>>,
    /// Tokens evaluated one by one after each of the prompts; 0: none [default: 128, or what the
    /// model's context has room for]
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = parse_tokens)]
    decode: Option<Vec<u32>>,
    /// Tokens that are there before each prompt; several numbers are measured one after the other
    #[arg(long, value_name = "N,...", default_value = "0", value_delimiter = ',')]
    #[arg(value_parser = parse_tokens)]
    depth: Vec<u32>,
    /// Sequences that decode together; 0: none
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = value_parser!(u32).range(..=1024))]
    sequences: u32,
    /// Tokens of each of them
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = value_parser!(u32).range(1..))]
    steps: u32,
    /// Measurements of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Repetitions before them that do not count
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: u32,
    /// How keys and values are kept
    #[arg(long, value_enum, default_value_t = Kv::F16)]
    kv: Kv,
    /// Prompt tokens that are evaluated at once; 0: a good number
    #[arg(long, value_name = "N", default_value_t = 0)]
    chunk: usize,
    /// Print JSON: an object with `results`, one entry for each measurement
    #[arg(long)]
    json: bool,
    /// Wait for a line on standard input before each repetition
    #[arg(long)]
    paced: bool,
    #[command(flatten)]
    threads: ThreadArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// All tokens at once.
    Prefill,
    /// One by one.
    Decode,
    /// One by one, of several sequences at once.
    Batch,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
struct Measurement {
    kind: Kind,
    /// Of all sequences.
    tokens: usize,
    /// Tokens before, in each sequence.
    depth: usize,
    sequences: usize,
}

/// What the machine can do at best.
#[derive(Debug, Clone, Copy)]
struct Limits {
    read_bytes: u64,
    /// Bytes a second.
    read: f64,
    /// Multiply-adds a second.
    integer: (Peak, f64),
    float: (Peak, f64),
}

/// A model that is measured.
struct Bench {
    /// By the tokens behind which they measure; all begin with the same tokens.
    sessions: BTreeMap<usize, Session>,
    batch: Option<Batch>,
    measurements: Vec<Measurement>,
    /// Tokens of the vocabulary, to feed some of.
    vocab: usize,
    /// What is being measured.
    doing: String,
    progress: Progress,
}

/// Measures, and writes the numbers to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let team = arguments.threads.team()?;
    let began = Instant::now();
    let model = arguments.load.open(&arguments.model)?;
    let open_us = began.elapsed().as_micros() as u64;
    let lengths = Lengths::new(arguments, model.network()?.spec.context)?;
    let mut bench = Bench::new(arguments, &model, &team, lengths.measurements()?)?;
    for i in 0..arguments.warmup {
        bench.repetition(&format!("warm-up {}", i + 1))?;
    }
    let private_bytes = system::private_bytes();
    let before = Limits::measure(&model, &team)?;
    let mut seconds = vec![Vec::new(); bench.measurements.len()];
    if arguments.paced {
        say(&json!({"ready": true}))?;
    }
    for i in 0..arguments.repetitions {
        if arguments.paced && !reads_line() {
            break;
        }
        let times = bench.repetition(&format!("{} of {}", i + 1, arguments.repetitions))?;
        seconds
            .iter_mut()
            .zip(&times)
            .for_each(|(all, &one)| all.push(one));
        if arguments.paced {
            say(&turn_json(&bench.measurements, &times))?;
        }
    }
    if seconds[0].is_empty() {
        return Ok(());
    }
    let measurements = bench.measurements.clone();
    drop(bench);
    let report = Report {
        arguments,
        work: Work::of(&model, arguments.kv.into())?,
        limits: before.or_better(Limits::measure(&model, &team)?),
        model,
        threads: team.threads(),
        open_us,
        private_bytes,
        results: measurements.into_iter().zip(seconds).collect(),
    };
    match (arguments.paced, arguments.json) {
        (true, _) => say(&report.to_json()),
        (false, true) => crate::output::json(&report.to_json()),
        (false, false) => report.print(),
    }
}

/// A line of JSON.
fn say(json: &Json) -> Result<(), Failure> {
    let mut out = standard();
    writeln!(out, "{json}")?;
    Ok(out.flush()?)
}

/// Waits for a line of standard input; false at its end.
fn reads_line() -> bool {
    io::stdin()
        .read_line(&mut String::new())
        .is_ok_and(|bytes| bytes > 0)
}

/// What one repetition took.
fn turn_json(measurements: &[Measurement], seconds: &[f64]) -> Json {
    let results = measurements.iter().zip(seconds).map(|(one, seconds)| {
        json!({
            "kind": one.kind.name(),
            "tokens": one.tokens,
            "context_depth": one.depth,
            "sequences": one.sequences,
            "seconds": seconds,
        })
    });
    json!({"results": results.collect::<Vec<_>>()})
}

fn parse_tokens(text: &str) -> Result<u32, String> {
    let parsed = text.trim().parse();
    parsed.map_err(|_| "expected numbers of tokens, separated by commas".into())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Batch => "batch",
        }
    }
}

impl Limits {
    fn measure(model: &Model, team: &Team) -> Result<Self, Failure> {
        let kernels = model.network()?.kernels;
        let memory = limits::memory(team, model.weight_bytes(), 2)?;
        let (integer, float) = (kernels.integer_peak(), kernels.float_peak());
        Ok(Self {
            read_bytes: size_of_val(&memory[..]) as u64,
            read: limits::read_rate(team, kernels, &memory)?,
            integer: (integer, limits::peak_rate(team, integer)?),
            float: (float, limits::peak_rate(team, float)?),
        })
    }

    /// The better of each: what disturbs a measurement makes it worse.
    fn or_better(self, other: Self) -> Self {
        Self {
            read_bytes: self.read_bytes.min(other.read_bytes),
            read: self.read.max(other.read),
            integer: (self.integer.0, self.integer.1.max(other.integer.1)),
            float: (self.float.0, self.float.1.max(other.float.1)),
        }
    }
}

impl Bench {
    fn new(
        arguments: &Arguments,
        model: &Arc<Model>,
        team: &Arc<Team>,
        measurements: Vec<Measurement>,
    ) -> Result<Self, Failure> {
        let ends = measurements.iter().filter(|one| one.kind != Kind::Batch);
        let ends = ends.map(|one| one.depth + one.tokens);
        let options = SessionOptions {
            context: ends.max().unwrap_or(1),
            kv: Some(arguments.kv.into()),
            chunk: arguments.chunk,
            unshared: true,
            ..SessionOptions::default()
        };
        let batch = measurements.iter().find(|one| one.kind == Kind::Batch);
        Ok(Self {
            batch: batch
                .map(|one| Batch::new(one, arguments, model, team))
                .transpose()
                .map_err(Failure::option)?,
            sessions: BTreeMap::from([(
                0,
                Session::new(model.clone(), team.clone(), &options).map_err(Failure::option)?,
            )]),
            measurements,
            vocab: model.network()?.spec.vocab,
            doing: String::new(),
            progress: Progress::new(),
        })
    }

    /// Seconds of each measurement, made once.
    fn repetition(&mut self, name: &str) -> Result<Vec<f64>, Failure> {
        let mut seconds = Vec::new();
        for i in 0..self.measurements.len() {
            let one = self.measurements[i];
            let Measurement { tokens, depth, .. } = one;
            self.doing = format!("{name}: {} {tokens} behind {depth}", one.kind.name());
            self.progress.show(|| self.doing.clone());
            seconds.push(self.measure(one)?);
        }
        Ok(seconds)
    }

    fn measure(&mut self, one: Measurement) -> Result<f64, Error> {
        match (one.kind, &self.batch) {
            (Kind::Batch, Some(batch)) => batch.measure(),
            _ => self.measure_session(one),
        }
    }

    fn measure_session(&mut self, one: Measurement) -> Result<f64, Error> {
        self.go_to(one.depth)?;
        let tokens = one.depth..one.depth + one.tokens;
        let began = Instant::now();
        let at_once = match one.kind {
            Kind::Prefill => tokens.len(),
            Kind::Decode | Kind::Batch => 1,
        };
        for first in tokens.clone().step_by(at_once) {
            self.feed(one.depth, first..first + at_once)?;
        }
        Ok(began.elapsed().as_secs_f64())
    }

    /// Brings the session that measures behind `depth` tokens there; a new one goes on from that which
    /// has most of them.
    fn go_to(&mut self, depth: usize) -> Result<(), Error> {
        let there = |session: &Session| session.tokens().len().min(depth);
        if !self.sessions.contains_key(&depth) {
            let nearest = self.sessions.values().max_by_key(|session| there(session));
            let fork = nearest.expect("the first one is always there").fork()?;
            self.sessions.insert(depth, fork);
        }
        let session = self.sessions.get_mut(&depth).expect("made above");
        let there = there(session);
        session.rewind(there)?;
        self.feed(depth, there..depth)
    }

    /// Evaluates tokens for these positions in the session that measures behind `depth` tokens, with
    /// the logits of the last.
    fn feed(&mut self, depth: usize, positions: Range<usize>) -> Result<(), Error> {
        // A large prime: tokens that follow each other are far apart in the vocabulary.
        let token = |position| (position * 7919 % self.vocab) as u32;
        let start = positions.start as u64;
        let tokens: Vec<u32> = positions.map(token).collect();
        let session = self
            .sessions
            .get_mut(&depth)
            .expect("who measures is there");
        session.feed(&tokens)?;
        let (doing, progress) = (&self.doing, &mut self.progress);
        let mut report = |done: u64, _: u64| {
            progress.show(|| format!("{doing}, {} evaluated", start + done));
            true
        };
        let mut control = Control {
            progress: Some(&mut report),
            ..Control::none()
        };
        while session.prefill(&mut control)? == Flow::Paused {}
        Ok(())
    }
}
