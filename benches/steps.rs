//! Steps with a budget: how far they go beyond it, what they cost beside running freely, how soon a
//! cancel is answered, what waking the helpers costs, and what a queue does beside evaluating.
//!
//! `cargo bench --bench steps -- MODEL.gguf [--budget 2000] [--steps 2000] [--cancels 40]
//! [--threads 1,2] [--only steps,cancel,waking,queue]`; without a model, the one that comes with the
//! project. What is compared takes turns, A B A B. Time in which the system let a thread wait for a
//! CPU, or the machine belonged to others, is told beside.

#![allow(clippy::print_stdout, missing_docs)]

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lightgpt::control::{Control, Signals};
use lightgpt::engine::{Happened, Listener, Metrics, Progress, Queue, QueueOptions, Request};
use lightgpt::error::{Code, Error, Result};
use lightgpt::gguf::Source;
use lightgpt::model::{Model, OpenOptions};
use lightgpt::random::Random;
use lightgpt::sampler::{Sampler, SamplerOptions};
use lightgpt::session::{Action, GenerateOptions, Session, SessionOptions, Step};
use lightgpt::team::{Team, TeamOptions};

const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
/// A frame of a game.
const FRAME: Duration = Duration::from_micros(16_667);
/// Requests that run together.
const SEQUENCES: usize = 16;
/// Requests that wait behind them.
const WAITING: usize = 1000;
/// A frame with more waiting than this is a disturbed one.
const DISTURBED: Duration = Duration::from_micros(20);

struct Arguments {
    model: PathBuf,
    budget: Duration,
    steps: usize,
    cancels: usize,
    threads: Vec<usize>,
    only: Option<String>,
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let source = Source::Path(&arguments.model);
    let model = Model::open(source, &OpenOptions::default(), &mut Control::none())?;
    println!("{}", arguments.model.display());
    for &threads in &arguments.threads {
        let team = Team::new(TeamOptions {
            threads,
            ..TeamOptions::default()
        })?;
        let setting = Setting {
            arguments: &arguments,
            model: &model,
            team: &team,
        };
        println!("\n{threads} threads, budget {:?}", arguments.budget);
        type Measure = fn(&Setting<'_>) -> Result<()>;
        let all: [(&str, Measure); 4] = [
            ("steps", steps),
            ("cancel", cancel),
            ("waking", waking),
            ("queue", queue),
        ];
        for (name, measure) in all {
            let only = arguments.only.as_deref();
            if only.is_none_or(|only| only.split(',').any(|wanted| wanted == name)) {
                measure(&setting)?;
            }
        }
    }
    Ok(())
}

fn arguments() -> Result<Arguments> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/models/tales-4m-q8_0.gguf");
    let mut arguments = Arguments {
        model: own.into(),
        budget: Duration::from_millis(2),
        steps: 2000,
        cancels: 40,
        threads: vec![1, 2],
        only: None,
    };
    let wrong = |what: String| Error::new(Code::InvalidArgument, "arguments", what);
    // Cargo says itself that this is a bench.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        if !word.starts_with("--") {
            arguments.model = word.into();
            continue;
        }
        let value = words
            .next()
            .ok_or_else(|| wrong(format!("{word}: no value")))?;
        let number = |text: &str| {
            let parsed = text.parse::<usize>();
            parsed.map_err(|_| wrong(format!("{word}: expected a number, found {text}")))
        };
        match &word[..] {
            "--budget" => arguments.budget = Duration::from_micros(number(&value)? as u64),
            "--steps" => arguments.steps = number(&value)?.max(1),
            "--cancels" => arguments.cancels = number(&value)?.max(1),
            "--threads" => {
                arguments.threads = value.split(',').map(number).collect::<Result<_>>()?;
            }
            "--only" => arguments.only = Some(value),
            _ => return Err(wrong(format!("{word} is not known"))),
        }
    }
    Ok(arguments)
}

struct Setting<'a> {
    arguments: &'a Arguments,
    model: &'a Arc<Model>,
    team: &'a Arc<Team>,
}

impl Setting<'_> {
    fn context(&self) -> Result<usize> {
        Ok(self.model.network()?.spec.context)
    }

    fn tokens(&self, seed: u64, len: usize) -> Result<Vec<u32>> {
        let vocab = self.model.network()?.spec.vocab as u64;
        let token = |step| (Random { seed, step }.bits(0) % vocab) as u32;
        Ok((0..len as u64).map(token).collect())
    }

    fn session(&self) -> Result<Session> {
        let options = SessionOptions {
            unshared: true,
            ..SessionOptions::default()
        };
        Session::new(self.model.clone(), self.team.clone(), &options)
    }

    fn queue(&self) -> Result<Queue> {
        let options = QueueOptions {
            sequences: SEQUENCES,
            requests: SEQUENCES + WAITING,
            ..QueueOptions::default()
        };
        Queue::new(self.model.clone(), self.team.clone(), &options)
    }

    fn generate(&self, tokens_max: usize) -> Result<GenerateOptions> {
        let sampler = SamplerOptions {
            seed: Some(1),
            ..SamplerOptions::default()
        };
        Ok(GenerateOptions {
            tokens_max,
            ignore_end: true,
            ..GenerateOptions::new(Sampler::new(&sampler)?)
        })
    }

    fn request(&self, seed: u64, prompt: usize, tokens_max: usize) -> Result<Request> {
        let tokens = self.tokens(seed, prompt)?;
        let mut request = Request::new(tokens, self.generate(tokens_max)?);
        request.listener = Some(Listener(Box::new(|_| Action::Continue)));
        Ok(request)
    }
}

/// Something that is done in frames.
trait Work {
    fn begin(&mut self) -> Result<()>;

    /// Works for so long; whether all is done.
    fn frame(&mut self, budget: Duration) -> Result<bool>;
}

/// A prompt and some tokens behind it.
struct Turn {
    session: Session,
    prompt: Vec<u32>,
    generate: GenerateOptions,
}

impl Turn {
    fn new(setting: &Setting<'_>, prompt: usize, tokens: usize) -> Result<Self> {
        Ok(Self {
            session: setting.session()?,
            prompt: setting.tokens(7, prompt)?,
            generate: setting.generate(tokens)?,
        })
    }
}

impl Work for Turn {
    fn begin(&mut self) -> Result<()> {
        self.session.rewind(0)?;
        self.session.feed(&self.prompt)?;
        self.session.begin(&self.generate)
    }

    fn frame(&mut self, budget: Duration) -> Result<bool> {
        let end = Instant::now() + budget;
        loop {
            let signals = Signals {
                deadline: Some(end),
                ..Signals::default()
            };
            let control = &mut Control {
                signals,
                progress: None,
            };
            match self.session.step(control)? {
                Step::Finished(_) => return Ok(true),
                Step::Pending => return Ok(false),
                _ if Instant::now() >= end => return Ok(false),
                _ => {}
            }
        }
    }
}

/// Requests of a queue.
struct Batch<'a> {
    setting: &'a Setting<'a>,
    queue: Queue,
    prompt: usize,
    tokens: usize,
}

impl Work for Batch<'_> {
    fn begin(&mut self) -> Result<()> {
        for seed in 0..SEQUENCES as u64 {
            let request = self.setting.request(seed, self.prompt, self.tokens)?;
            self.queue.submit(request)?;
        }
        Ok(())
    }

    fn frame(&mut self, budget: Duration) -> Result<bool> {
        Ok(self.queue.step(Some(budget))? == Progress::Idle)
    }
}

/// Frames beyond their budget, and their time beside that of running freely.
fn steps(setting: &Setting<'_>) -> Result<()> {
    let context = setting.context()?;
    let mut turn = Turn::new(setting, 256.min(context / 2), 32.min(context / 4))?;
    in_frames("session", setting, &mut turn)?;
    let mut batch = Batch {
        setting,
        queue: setting.queue()?,
        prompt: 32.min(context / 4),
        tokens: 32.min(context / 4),
    };
    in_frames("queue of 16", setting, &mut batch)
}

fn in_frames(name: &str, setting: &Setting<'_>, work: &mut dyn Work) -> Result<()> {
    let Arguments { budget, steps, .. } = *setting.arguments;
    let (mut overruns, mut undisturbed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    work.begin()?;
    while !work.frame(FOREVER)? {}
    let stolen = stolen();
    let mut rounds = 0;
    while overruns.len() < steps || rounds < 4 {
        rounds += 1;
        work.begin()?;
        let began = Instant::now();
        while !work.frame(FOREVER)? {}
        let free = began.elapsed();
        work.begin()?;
        let mut stepped = Duration::ZERO;
        loop {
            let waited = waited();
            let began = Instant::now();
            let over = work.frame(budget)?;
            let took = began.elapsed();
            stepped += took;
            if over {
                break;
            }
            let overrun = micros(took.saturating_sub(budget));
            overruns.push(overrun);
            if self::waited() - waited < DISTURBED {
                undisturbed.push(overrun);
            }
        }
        ratios.push(stepped.as_secs_f64() / free.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "  {name}: {:+.1} % time in steps ({:+.1} to {:+.1}, {rounds} rounds)",
        percent_more(ratios[rounds / 2]),
        percent_more(ratios[0]),
        percent_more(ratios[rounds - 1]),
    );
    println!("    beyond the budget, us:   {}", spread(&mut overruns));
    println!("    of these undisturbed:    {}", spread(&mut undisturbed));
    println!(
        "    time of the machine that others took: {:?}",
        self::stolen() - stolen
    );
    Ok(())
}

/// How soon cancels from another thread are answered, at any time of a prompt and of its text.
fn cancel(setting: &Setting<'_>) -> Result<()> {
    let context = setting.context()?;
    let (prompt, tokens) = (300.min(context / 4), 8);
    for behind in [0, context / 4, context / 2] {
        let mut session = setting.session()?;
        if behind > 0 {
            session.feed(&setting.tokens(1, behind)?)?;
            session.logits(&mut Control::none())?;
        }
        let mut turn = |after: Option<Duration>| -> Result<f64> {
            session.feed(&setting.tokens(2, prompt)?)?;
            let canceller = session.canceller();
            let other = after.map(|after| {
                std::thread::spawn(move || {
                    std::thread::sleep(after);
                    let asked = Instant::now();
                    canceller.cancel();
                    asked
                })
            });
            let generate = setting.generate(tokens)?;
            let began = Instant::now();
            let outcome =
                session.generate(&generate, &mut Control::none(), &mut |_| Action::Continue);
            let ended = Instant::now();
            let since = match other {
                Some(other) => other.join().expect("it only sleeps"),
                None => began,
            };
            match outcome {
                Err(error) if error.code() != Code::Cancelled => return Err(error),
                _ => session.rewind(behind)?,
            }
            Ok(micros(ended.saturating_duration_since(since)))
        };
        let whole = turn(None)?;
        let mut latencies = Vec::new();
        for step in 0..setting.arguments.cancels as u64 {
            let part = (Random { seed: 3, step }.bits(0) % 1000) as f64 / 1000.0;
            latencies.push(turn(Some(Duration::from_secs_f64(whole * part * 1e-6)))?);
        }
        println!(
            "  cancel behind {behind} tokens, us: {}",
            spread(&mut latencies)
        );
    }
    cancel_in_queue(setting, prompt)
}

/// The same for requests of a queue that works by itself.
fn cancel_in_queue(setting: &Setting<'_>, prompt: usize) -> Result<()> {
    let queue = setting.queue()?;
    let mut latencies = Vec::new();
    std::thread::scope(|scope| -> Result<()> {
        let serving = scope.spawn(|| queue.serve());
        for step in 0..setting.arguments.cancels as u64 {
            let mut others = Vec::new();
            for seed in 1..SEQUENCES as u64 {
                others.push(queue.submit(setting.request(seed, 16, 64)?)?);
            }
            let (told, tells) = mpsc::channel();
            let mut request = setting.request(0, prompt, 64)?;
            request.listener = Some(Listener(Box::new(move |event| {
                if matches!(event.happened, Happened::Ended { .. }) {
                    // Nobody listens if all is over.
                    let _ = told.send(Instant::now());
                }
                Action::Continue
            })));
            let id = queue.submit(request)?;
            let after = Random { seed: 5, step }.bits(0) % 400_000;
            std::thread::sleep(Duration::from_micros(after));
            let asked = Instant::now();
            if queue.cancel(id).is_ok() {
                let ended = tells.recv().expect("every request is told its end");
                latencies.push(micros(ended.saturating_duration_since(asked)));
            }
            for id in others {
                // It may be over.
                let _ = queue.cancel(id);
            }
        }
        queue.close();
        serving.join().expect("it answers errors")
    })?;
    println!("  cancel in a queue of 16, us: {}", spread(&mut latencies));
    Ok(())
}

/// What frames cost when all threads have slept since the last one.
fn waking(setting: &Setting<'_>) -> Result<()> {
    let context = setting.context()?;
    let budget = setting.arguments.budget;
    let mut turn = Turn::new(setting, 16.min(context / 4), 48.min(context / 4))?;
    let mut costs = Vec::new();
    for _ in 0..5 {
        let mut times = [Duration::ZERO; 2];
        let mut frames = 0;
        for (pause, time) in [false, true].into_iter().zip(&mut times) {
            turn.begin()?;
            frames = 0;
            loop {
                let began = Instant::now();
                let over = turn.frame(budget)?;
                *time += began.elapsed();
                frames += 1;
                if over {
                    break;
                }
                if pause {
                    std::thread::sleep(FRAME.saturating_sub(began.elapsed()));
                }
            }
        }
        let [close, apart] = times.map(micros);
        costs.push((apart - close) / f64::from(frames));
    }
    costs.sort_by(f64::total_cmp);
    println!(
        "  a frame behind a pause costs {:.0} us more ({:.0} to {:.0}), {:.1} % of its budget",
        costs[2],
        costs[0],
        costs[4],
        100.0 * costs[2] / micros(budget),
    );
    Ok(())
}

/// What a queue does beside evaluating.
fn queue(setting: &Setting<'_>) -> Result<()> {
    let mut shares = Vec::new();
    let mut tokens = [Vec::new(), Vec::new()];
    for _ in 0..5 {
        for (waiting, tokens) in [0, WAITING].into_iter().zip(&mut tokens) {
            let (share, us) = beside_evaluating(setting, waiting)?;
            tokens.push(us);
            if waiting == 0 {
                shares.push(share);
            }
        }
    }
    println!(
        "  queue of 16, time beside passes, %: {}",
        spread(&mut shares)
    );
    let [few, many] = &mut tokens;
    println!("    us a token, nobody waits:     {}", spread(few));
    println!("    us a token, {WAITING} wait:       {}", spread(many));
    Ok(())
}

/// Of 16 requests that decode: the percent of the time that is not spent in passes, and microseconds
/// of it for each token.
fn beside_evaluating(setting: &Setting<'_>, waiting: usize) -> Result<(f64, f64)> {
    let context = setting.context()?;
    let queue = setting.queue()?;
    let tokens = 32.min(context / 4);
    for seed in 0..SEQUENCES as u64 {
        queue.submit(setting.request(seed, 4, tokens)?)?;
    }
    let step = |until: fn(&Metrics) -> u64, least: u64| -> Result<Metrics> {
        while until(&queue.metrics()) < least {
            queue.step(Some(Duration::from_millis(2)))?;
        }
        Ok(queue.metrics())
    };
    step(|metrics| metrics.first_tokens, SEQUENCES as u64)?;
    for seed in 0..waiting as u64 {
        queue.submit(setting.request(seed, 4, tokens)?)?;
    }
    // They are taken up in the next step.
    let taken = queue.metrics().generated_tokens + 1;
    let before = step(|metrics| metrics.generated_tokens, taken)?;
    let began = Instant::now();
    let after = step(|metrics| metrics.finished, 1)?;
    let all = micros(began.elapsed());
    let outside = all - (after.pass_us - before.pass_us) as f64;
    let made = (after.generated_tokens - before.generated_tokens) as f64;
    Ok((100.0 * outside / all, outside / made))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn percent_more(ratio: f64) -> f64 {
    100.0 * (ratio - 1.0)
}

fn spread(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    let Some(max) = values.last() else {
        return "none".into();
    };
    let at = |percent: usize| values[values.len() * percent / 100];
    format!(
        "p50 {:.1}, p90 {:.1}, p99 {:.1}, max {max:.1} of {}",
        at(50),
        at(90),
        at(99),
        values.len()
    )
}

/// For how long threads of this process could have run, but others did.
fn waited() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let ns = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').nth(1)?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
}

/// Time of all CPUs that the machine under this one gave to others.
fn stolen() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text
        .split_whitespace()
        .nth(8)
        .and_then(|ticks| ticks.parse::<u64>().ok());
    // Ticks of user programs are hundredths of a second.
    Duration::from_millis(10 * ticks.unwrap_or(0))
}
