//! Work that is done in frames: how far they go beyond their budget, and what they cost.

use std::time::{Duration, Instant};

use lightgpt::control::{Control, Signals};
use lightgpt::engine::{Progress, Queue};
use lightgpt::error::Result;
use lightgpt::session::{GenerateOptions, Session, Step};

use crate::times::{micros, percent_more, spread, stolen, waited};
use crate::{Arguments, SEQUENCES, Setting};

const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);
/// A frame of a game.
const FRAME: Duration = Duration::from_micros(16_667);
/// A frame with more waiting than this is a disturbed one.
const DISTURBED: Duration = Duration::from_micros(20);

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
pub fn steps(setting: &Setting<'_>) -> Result<()> {
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

/// What frames cost when all threads have slept since the last one.
pub fn waking(setting: &Setting<'_>) -> Result<()> {
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
