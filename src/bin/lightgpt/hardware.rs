//! `lightgpt hardware`: what this machine is and what it can do, to hold speeds against.

use std::io::Write;

use clap::Args;
use serde_json::{Value as Json, json};

use lightgpt::error::Error;
use lightgpt::kernel::{self, Peak};
use lightgpt::pressure::Watch;
use lightgpt::team::{Team, physical_cores};

use crate::arguments::ThreadArguments;
use crate::limits;
use crate::output::{self, Failure, bytes, standard};
use crate::system::{self, Cache};

const EXAMPLES: &str = "\
Measuring takes about a second; other programs that run meanwhile make the numbers smaller. Memory is
read from a buffer of twice the largest cache, if a quarter of the available memory is as much.
Multiply-adds count one for each product. What the system does not tell is shown as unknown.

Examples:
  lightgpt hardware
  lightgpt hardware --json --threads 1
  lightgpt hardware --no-measure";

/// Read at least so much, and at most so much, in bytes.
const READ_BYTES: [u64; 2] = [64 << 20, 2 << 30];

/// Shows the machine: CPU, caches, cores, memory, measured peaks
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Print JSON; rates are units a second
    #[arg(long)]
    json: bool,
    /// Only show what the system tells, measure nothing
    #[arg(long)]
    no_measure: bool,
    #[command(flatten)]
    threads: ThreadArguments,
}

/// Units a second.
#[derive(Clone, Copy)]
struct Rate {
    one_thread: f64,
    all_threads: f64,
}

/// What was measured.
struct Measured {
    threads: usize,
    read_bytes: u64,
    read: Rate,
    integer: (Peak, Rate),
    float: (Peak, Rate),
}

/// Writes the description to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let measured = match arguments.no_measure {
        true => None,
        false => Some(measure(&*arguments.threads.team()?)?),
    };
    match arguments.json {
        true => output::json(&to_json(measured.as_ref())),
        false => print(measured.as_ref()),
    }
}

fn measure(team: &Team) -> Result<Measured, Error> {
    let kernels = kernel::detect();
    let one = Team::new(lightgpt::team::TeamOptions {
        threads: 1,
        ..Default::default()
    })?;
    let largest = system::caches().iter().map(|cache| cache.bytes).max();
    let [least, most] = READ_BYTES;
    let wanted = (2 * largest.unwrap_or(64 << 20)).clamp(least, most);
    let memory = limits::memory(team, wanted, 4)?;
    let rate = |run: &dyn Fn(&Team) -> Result<f64, Error>| -> Result<Rate, Error> {
        Ok(Rate {
            one_thread: run(&one)?,
            all_threads: run(team)?,
        })
    };
    let (integer, float) = (kernels.integer_peak(), kernels.float_peak());
    Ok(Measured {
        threads: team.threads(),
        read_bytes: size_of_val(&memory[..]) as u64,
        read: rate(&|team| limits::read_rate(team, kernels, &memory))?,
        integer: (integer, rate(&|team| limits::peak_rate(team, integer))?),
        float: (float, rate(&|team| limits::peak_rate(team, float))?),
    })
}

fn print(measured: Option<&Measured>) -> Result<(), Failure> {
    let unknown = || "unknown".to_string();
    let size = |size: Option<u64>| size.map_or_else(unknown, bytes);
    let memory = Watch::machine().memory();
    let mut out = standard();
    let mut line = |name: &str, text: String| writeln!(out, "{name:<16} {text}");
    line("CPU", system::cpu_name().unwrap_or_else(unknown))?;
    let caches: Vec<String> = system::caches().iter().map(cache_text).collect();
    line(
        "caches",
        if caches.is_empty() {
            unknown()
        } else {
            caches.join(", ")
        },
    )?;
    let (chosen, available) = isas();
    line(
        "instruction set",
        format!("{chosen} (available: {})", available.join(", ")),
    )?;
    let logical =
        std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string());
    line(
        "cores",
        format!(
            "{} physical, {logical} logical, for this process",
            physical_cores()
        ),
    )?;
    let quota =
        system::quota().map_or_else(|| "none known".into(), |cpus| format!("{cpus:.2} CPUs"));
    line("quota", quota)?;
    let limit = memory.limit.map_or_else(|| "none known".into(), bytes);
    let (total, available) = (size(memory.total), size(memory.available));
    line(
        "memory",
        format!("{total}, {available} available, limit {limit}"),
    )?;
    if let Some(measured) = measured {
        let threads = measured.threads;
        let text = |rate: Rate, unit: &str| {
            let (one, all) = (rate.one_thread / 1e9, rate.all_threads / 1e9);
            format!("{one:.1} {unit} with one thread, {all:.1} with {threads}")
        };
        let of = bytes(measured.read_bytes);
        line(
            "reading",
            format!("{} (of {of})", text(measured.read, "GB/s")),
        )?;
        let peaks = [("integers", measured.integer), ("floats", measured.float)];
        for (name, (peak, rate)) in peaks {
            let unit = "G multiply-adds/s";
            line(name, format!("{} ({})", text(rate, unit), peak.name()))?;
        }
    }
    Ok(out.flush()?)
}

fn cache_text(cache: &Cache) -> String {
    let Cache {
        level, kind, cpus, ..
    } = cache;
    let kind = match kind.as_str() {
        "Unified" => String::new(),
        kind => format!(" {}", kind.to_lowercase()),
    };
    format!("L{level}{kind} {} (CPUs {cpus})", bytes(cache.bytes))
}

/// The instruction set in use, and all that this CPU can run.
fn isas() -> (&'static str, Vec<&'static str>) {
    let available = kernel::available().map(|kernels| kernels.isa().name());
    (kernel::detect().isa().name(), available.collect())
}

fn to_json(measured: Option<&Measured>) -> Json {
    let memory = Watch::machine().memory();
    let (chosen, available) = isas();
    let caches: Vec<Json> = system::caches().iter().map(cache_json).collect();
    json!({
        "cpu": system::cpu_name(),
        "caches": caches,
        "isa": chosen,
        "isas": available,
        "cores_physical": physical_cores(),
        "cores_logical": std::thread::available_parallelism().ok().map(usize::from),
        "quota_cpus": system::quota(),
        "memory": {
            "total": memory.total,
            "available": memory.available,
            "limit": memory.limit,
        },
        "measured": measured.map(measured_json),
    })
}

fn cache_json(cache: &Cache) -> Json {
    json!({
        "level": cache.level,
        "kind": cache.kind.to_lowercase(),
        "bytes": cache.bytes,
        "cpus": cache.cpus,
    })
}

fn measured_json(measured: &Measured) -> Json {
    let rate = |rate: Rate| json!({"one_thread": rate.one_thread, "all_threads": rate.all_threads});
    let peak = |(peak, value): (Peak, Rate)| json!({"instruction": peak.name(), "multiply_adds": rate(value)});
    json!({
        "threads": measured.threads,
        "read_bytes": measured.read_bytes,
        "read": rate(measured.read),
        "integer": peak(measured.integer),
        "float": peak(measured.float),
    })
}
