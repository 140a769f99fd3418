//! `lightgpt tune`: shows that the choices built in are good ones on this machine: what is shared
//! between threads, how products are cut, how many tokens of a prompt a pass takes.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use lightgpt::kernel;
use lightgpt::team::ALONE_NS;
use lightgpt::tune::{
    self, Chunk, Comparison, Cut, Effort, Operation, PRODUCT_SIDE, Product, Ratio, Shape, Teams,
    Verdict,
};

use crate::arguments::{LoadArguments, ThreadArguments};
use crate::output::{self, Failure, counted, standard};
use crate::progress::Progress;
use crate::system;

const EXAMPLES: &str = "\
Each operation of a forward pass is measured with one thread, shared by all threads, and as the
library chooses, in turns. A ratio is the median over 50 turns, with its interval of 95 %. The rule
is that the choice is never slower than one thread by more than 3 %: kept, if the interval lies above
that, broken, if it lies below, else open. Nothing is stored: what is measured differs too little
between machines, and results do not depend on it. Other programs that run meanwhile spoil the
numbers.

Without --only it takes some minutes, with --quick about ten seconds.

Examples:
  lightgpt tune --quick --only norm,rope
  lightgpt tune models/tales-4m-q8_0.gguf --quick --only chunks --json";

/// Measures what is better shared between threads, and how work is best cut
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A model: a GGUF file, whose prompts are evaluated in chunks of several sizes
    model: Option<PathBuf>,
    /// Fewer sizes and turns
    #[arg(long)]
    quick: bool,
    /// Only what has one of these words in its name: operations, `formats`, `tiles`, `chunks`
    #[arg(long, value_name = "WORD,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// All that was measured.
struct Report {
    threads: usize,
    operations: Vec<(Operation, Comparison)>,
    products: Vec<Product>,
    cuts: Vec<(Shape, Cut)>,
    chunks: Vec<Chunk>,
}

/// Measures, and writes tables to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let effort = match arguments.quick {
        true => Effort::QUICK,
        false => Effort::FULL,
    };
    let teams = arguments.threads.teams(|options| Teams::new(options))?;
    let report = Report::measure(arguments, &teams, effort)?;
    match arguments.json {
        true => output::json(&report.to_json()),
        false => report.print(),
    }
}

impl Report {
    fn measure(arguments: &Arguments, teams: &Teams, effort: Effort) -> Result<Self, Failure> {
        let mut progress = Progress::new();
        let model = match &arguments.model {
            Some(path) => Some(arguments.load.open(path)?),
            None => None,
        };
        let words = &arguments.only;
        let asked =
            |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
        let mut report = Self {
            threads: teams.threads(),
            operations: Vec::new(),
            products: Vec::new(),
            cuts: Vec::new(),
            chunks: Vec::new(),
        };
        let operations = tune::operations(effort).into_iter();
        for operation in operations.filter(|operation| asked(&operation.name)) {
            progress.show(|| format!("{} {}", operation.name, operation.size));
            let comparison = Comparison::of(&operation, teams, effort)?;
            report.operations.push((operation, comparison));
        }
        for tokens in [1, 16, 256].into_iter().filter(|_| asked("formats")) {
            progress.show(|| format!("formats with {}", counted(tokens, "token")));
            let products = tune::products(tokens, teams, effort)?;
            report.products.extend(products);
        }
        for shape in tune::shapes(effort).into_iter().filter(|_| asked("tiles")) {
            progress.show(|| format!("tiles of {}", counted(shape.tokens, "token")));
            report.cuts.push((shape, tune::cut(shape, teams, effort)?));
        }
        if let Some(model) = model.filter(|_| asked("chunks")) {
            progress.show(|| "chunks of a prompt".into());
            report.chunks = tune::chunks(&model, teams, effort)?;
        }
        let count = report.operations.len() + report.products.len();
        match count + report.cuts.len() + report.chunks.len() {
            0 => Err(Failure::Usage(format!(
                "--only {}: expected something to measure, found nothing",
                words.join(",")
            ))),
            _ => Ok(report),
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        let verdicts = self.operations.iter().map(|(_, one)| one.verdict());
        verdicts.filter(|one| *one == verdict).count()
    }

    fn print(&self) -> Result<(), Failure> {
        let mut out = standard();
        let (isa, threads) = (
            kernel::detect().isa().name(),
            counted(self.threads, "thread"),
        );
        writeln!(
            out,
            "{isa}, {threads}; phases below {ALONE_NS} ns are not shared"
        )?;
        self.print_operations(&mut out)?;
        self.print_products(&mut out)?;
        self.print_cuts(&mut out)?;
        if let Some(chunk) = self.chunks.iter().find(|chunk| chunk.is_built_in) {
            writeln!(
                out,
                "\n{:<28} {:>12} {:>22}",
                "tokens of a pass", "tokens/s", "over built in"
            )?;
            for one in &self.chunks {
                let mark = if one.tokens == chunk.tokens {
                    " (built in)"
                } else {
                    ""
                };
                let name = format!("{}{mark}", one.tokens);
                writeln!(
                    out,
                    "{name:<28} {:>12.1} {:>22}",
                    one.rate,
                    shown(one.over_built_in)
                )?;
            }
        }
        Ok(out.flush()?)
    }

    fn print_operations(&self, out: &mut impl Write) -> Result<(), Failure> {
        if self.operations.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<12} {:<20} {:>11} {:>11} {:>22}  {:<9} {:>22}  rule",
            "", "", "serial ns", "parallel ns", "speed-up shared", "path", "speed-up of the path"
        )?;
        for (operation, one) in &self.operations {
            writeln!(
                out,
                "{:<12} {:<20} {:>11.0} {:>11.0} {:>22}  {:<9} {:>22}  {}",
                operation.name,
                operation.size,
                one.serial_ns,
                one.parallel_ns,
                shown(one.parallel),
                path(one),
                shown(one.chosen),
                verdict(one)
            )?;
        }
        let [kept, open, broken] =
            [Verdict::Kept, Verdict::Open, Verdict::Broken].map(|verdict| self.count(verdict));
        Ok(writeln!(
            out,
            "the rule is kept by {kept}, open for {open}, broken by {broken}"
        )?)
    }

    fn print_products(&self, out: &mut impl Write) -> Result<(), Failure> {
        if self.products.is_empty() {
            return Ok(());
        }
        let side = PRODUCT_SIDE;
        writeln!(
            out,
            "\n{:<28} {:>12} {:>12} {:>22}",
            format!("{side} x {side}, G mul/s"),
            "one thread",
            &counted(self.threads, "thread"),
            "over F32"
        )?;
        for one in &self.products {
            writeln!(
                out,
                "{:<28} {:>12.1} {:>12.1} {:>22}",
                format!("{}, {}", one.format.name(), counted(one.tokens, "token")),
                one.one_thread / 1e9,
                one.all_threads / 1e9,
                shown(one.over_floats)
            )?;
        }
        Ok(())
    }

    fn print_cuts(&self, out: &mut impl Write) -> Result<(), Failure> {
        if self.cuts.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<28} {:>9} {:>12} {:>12} {:>6} {:>22}",
            "tiles", "G mul/s", "built in", "best", "tried", "built in over best"
        )?;
        for (shape, cut) in &self.cuts {
            let (format, tokens) = (shape.format.name(), shape.tokens);
            let tile = |(rows, width): (usize, usize)| format!("{rows} x {width}");
            writeln!(
                out,
                "{:<28} {:>9.1} {:>12} {:>12} {:>6} {:>22}",
                format!("{format}, {tokens} x {} x {}", shape.outputs, shape.columns),
                cut.rate / 1e9,
                tile(cut.built_in),
                tile(cut.best),
                cut.tried,
                shown(cut.over_best)
            )?;
        }
        Ok(())
    }

    fn to_json(&self) -> Json {
        let operations = self.operations.iter().map(|(operation, one)| {
            json!({
                "operation": operation.name,
                "size": operation.size,
                "estimate_ns": one.estimate_ns,
                "serial_ns": one.serial_ns,
                "parallel_ns": one.parallel_ns,
                "parallel_speed_up": ratio(one.parallel),
                "path": path(one),
                "path_ns": one.chosen_ns,
                "path_speed_up": ratio(one.chosen),
                "rule": verdict(one),
            })
        });
        let products = self.products.iter().map(|one| {
            json!({
                "format": one.format.name(),
                "tokens": one.tokens,
                "one_thread": one.one_thread,
                "all_threads": one.all_threads,
                "over_f32": ratio(one.over_floats),
            })
        });
        let tile = |(rows, width): (usize, usize)| json!({"tokens": rows, "outputs": width});
        let cuts = self.cuts.iter().map(|(shape, cut)| {
            json!({
                "format": shape.format.name(),
                "tokens": shape.tokens,
                "outputs": shape.outputs,
                "columns": shape.columns,
                "built_in": tile(cut.built_in),
                "best": tile(cut.best),
                "tried": cut.tried,
                "multiply_adds_per_second": cut.rate,
                "built_in_over_best": ratio(cut.over_best),
            })
        });
        let chunks = self.chunks.iter().map(|one| {
            json!({
                "tokens": one.tokens,
                "is_built_in": one.is_built_in,
                "tokens_per_second": one.rate,
                "over_built_in": ratio(one.over_built_in),
            })
        });
        json!({
            "cpu": system::cpu_name(),
            "isa": kernel::detect().isa().name(),
            "threads": self.threads,
            "alone_ns": ALONE_NS,
            "operations": operations.collect::<Vec<_>>(),
            "products": products.collect::<Vec<_>>(),
            "tiles": cuts.collect::<Vec<_>>(),
            "chunks": chunks.collect::<Vec<_>>(),
        })
    }
}

fn path(one: &Comparison) -> &'static str {
    match one.is_shared {
        true => "shared",
        false => "alone",
    }
}

fn verdict(one: &Comparison) -> &'static str {
    match one.verdict() {
        Verdict::Kept => "kept",
        Verdict::Open => "open",
        Verdict::Broken => "broken",
    }
}

fn ratio(ratio: Ratio) -> Json {
    json!({"median": ratio.median, "low": ratio.low, "high": ratio.high})
}

fn shown(ratio: Ratio) -> String {
    let Ratio { median, low, high } = ratio;
    format!("{median:.3} ({low:.3}-{high:.3})")
}
