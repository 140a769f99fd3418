//! [`Metrics`] as text for Prometheus: its exposition format, version 0.0.4.

use std::fmt::{self, Display, Write};

use super::histogram::{BOUNDS_US, Histogram};
use super::metrics::Metrics;

/// A family of numbers of the same name, written one after the other.
struct Family<'a, W> {
    out: &'a mut W,
    name: &'a str,
}

impl<'a, W: Write> Family<'a, W> {
    fn new(out: &'a mut W, name: &'a str, kind: &str, help: &str) -> Result<Self, fmt::Error> {
        writeln!(out, "# HELP {name} {help}")?;
        writeln!(out, "# TYPE {name} {kind}")?;
        Ok(Self { out, name })
    }

    fn only(self, value: impl Display) -> fmt::Result {
        writeln!(self.out, "{} {value}", self.name)
    }

    fn labelled(self, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        for (text, value) in values {
            writeln!(self.out, "{}{{{label}=\"{text}\"}} {value}", self.name)?;
        }
        Ok(())
    }

    fn histogram(self, times: &Histogram, sum_us: u64) -> fmt::Result {
        let (mut so_far, name) = (0, self.name);
        let bounds = BOUNDS_US.iter().map(|&bound| Some(bound)).chain([None]);
        for (bound, count) in bounds.zip(times.counts) {
            so_far += count;
            write!(self.out, "{name}_bucket{{le=\"")?;
            match bound {
                Some(bound) => write!(self.out, "{}", seconds(bound))?,
                None => self.out.write_str("+Inf")?,
            }
            writeln!(self.out, "\"}} {so_far}")?;
        }
        writeln!(self.out, "{name}_sum {}", seconds(sum_us))?;
        writeln!(self.out, "{name}_count {so_far}")
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

impl Metrics {
    /// Writes all of it as text for Prometheus; times are in seconds. All names begin with
    /// `lightgpt_`. Two queues of a process are two texts: what collects them tells them apart.
    ///
    /// # Errors
    /// What `out` answers.
    pub fn write_prometheus(&self, out: &mut impl Write) -> fmt::Result {
        self.write_requests(out)?;
        self.write_work(out)?;
        self.write_memory(out)?;
        for (name, help, times, sum_us) in [
            (
                "lightgpt_queue_seconds",
                "From the submission of a request to its first run.",
                &self.queue_times,
                self.queue_us,
            ),
            (
                "lightgpt_first_token_seconds",
                "From the submission of a request to its first token.",
                &self.first_token_times,
                self.first_token_us,
            ),
            (
                "lightgpt_token_seconds",
                "Between two tokens of a request.",
                &self.token_times,
                self.token_us,
            ),
        ] {
            Family::new(out, name, "histogram", help)?.histogram(times, sum_us)?;
        }
        Ok(())
    }

    fn write_requests(&self, out: &mut impl Write) -> fmt::Result {
        let help = "Requests that are there.";
        let here = [("waiting", self.waiting), ("running", self.running)];
        Family::new(out, "lightgpt_requests", "gauge", help)?.labelled("state", &here)?;
        let ended = [
            ("finished", self.finished),
            ("cancelled", self.cancelled),
            ("expired", self.expired),
            ("failed", self.failed),
        ];
        let name = "lightgpt_requests_ended_total";
        Family::new(out, name, "counter", "Requests that are over.")?
            .labelled("outcome", &ended)?;
        let all = [("taken", self.submitted), ("refused", self.refused)];
        let name = "lightgpt_requests_submitted_total";
        Family::new(out, name, "counter", "Requests that came.")?.labelled("answer", &all)
    }

    fn write_work(&self, out: &mut impl Write) -> fmt::Result {
        let tokens = [
            ("prompt", self.prompt_tokens),
            ("generated", self.generated_tokens),
            ("repeated", self.repeated_tokens),
        ];
        let help = "Tokens of prompts, generated, and evaluated once more after a preemption.";
        Family::new(out, "lightgpt_tokens_total", "counter", help)?.labelled("kind", &tokens)?;
        let help = "Tokens generated in a second at work.";
        let speed = self.tokens_per_second();
        Family::new(out, "lightgpt_tokens_per_second", "gauge", help)?.only(speed)?;
        let busy = seconds(self.busy_us);
        Family::new(
            out,
            "lightgpt_busy_seconds_total",
            "counter",
            "Time at work.",
        )?
        .only(busy)?;
        for (name, help, value) in [
            (
                "lightgpt_preemptions_total",
                "Times that keys and values of a request were given up.",
                self.preemptions,
            ),
            (
                "lightgpt_passes_total",
                "Passes over the weights.",
                self.passes,
            ),
            (
                "lightgpt_rows_total",
                "Tokens evaluated in all passes.",
                self.rows,
            ),
        ] {
            Family::new(out, name, "counter", help)?.only(value)?;
        }
        let help = "Mean share of the sequences that may run that were in a pass.";
        let occupancy = self.occupancy();
        Family::new(out, "lightgpt_batch_occupancy_ratio", "gauge", help)?.only(occupancy)?;
        let help = "Sequences that may run: all, and while memory is short.";
        let most = [("all", self.sequences_max), ("now", self.sequences_allowed)];
        Family::new(out, "lightgpt_sequences_max", "gauge", help)?.labelled("of", &most)
    }

    fn write_memory(&self, out: &mut impl Write) -> fmt::Result {
        let memory = [
            ("weights_mapped", self.weights_mapped),
            ("weights", self.weights_copied),
            ("kv", self.memory_kv),
            ("scratch", self.memory_scratch),
            ("misc", self.memory_misc),
        ];
        let help = "Large memory of the model, its sessions and queues.";
        Family::new(out, "lightgpt_memory_bytes", "gauge", help)?.labelled("tag", &memory)?;
        for (name, kind, help, value) in [
            (
                "lightgpt_kv_bytes",
                "gauge",
                "Keys and values of the requests; what several share counts for each.",
                self.kv_bytes,
            ),
            (
                "lightgpt_memory_pressure",
                "gauge",
                "How short memory is: 0 enough, 1 short, 2 very short.",
                self.pressure,
            ),
            (
                "lightgpt_memory_pressure_events_total",
                "counter",
                "Times that memory became shorter.",
                self.pressure_events,
            ),
            (
                "lightgpt_prefix_lookups_total",
                "counter",
                "Prompts that were looked for in the prefix cache.",
                self.prefix.lookups,
            ),
            (
                "lightgpt_prefix_hits_total",
                "counter",
                "Prompts of which a part was found there.",
                self.prefix.hits,
            ),
            (
                "lightgpt_prefix_evictions_total",
                "counter",
                "Pages that it gave up.",
                self.prefix.evictions,
            ),
        ] {
            Family::new(out, name, kind, help)?.only(value)?;
        }
        let bytes = [
            ("kept", self.prefix.bytes),
            ("allowed", self.prefix_bytes_allowed),
            ("max", self.prefix.bytes_max),
        ];
        let help = "Keys and values in the prefix cache, and how many there may be.";
        Family::new(out, "lightgpt_prefix_bytes", "gauge", help)?.labelled("of", &bytes)?;
        let help = "Share of the prompts looked for of which a part was found.";
        let rate = self.prefix_hit_rate();
        Family::new(out, "lightgpt_prefix_hit_ratio", "gauge", help)?.only(rate)?;
        let help = "Bytes that the weights would have as 16-bit floats, for each that they have.";
        let ratio = self.compression();
        Family::new(out, "lightgpt_weights_compression_ratio", "gauge", help)?.only(ratio)
    }
}
