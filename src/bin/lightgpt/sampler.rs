//! The options of sampling: one for each parameter of the library's chain, with its defaults.

use clap::{Args, ValueEnum};

use lightgpt::error::{Code, Error};
use lightgpt::model::Model;
use lightgpt::sampler::{Infill, Mirostat, Sampler, SamplerOptions, StageKind};
use lightgpt::tokenizer::EncodeOptions;

use crate::output::Failure;

/// How tokens are picked.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling", allow_negative_numbers = true)]
pub struct SamplerArguments {
    /// Seed of the picks; without it a random one, which `run --verbose` and check-sampling tell
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[arg(long, value_name = "LIST", value_parser = parse_stages, help = stages_help())]
    samplers: Option<Stages>,
    /// Divides the logits: below 1 more likely tokens are preferred; 0: always the most likely one
    #[arg(long, value_name = "X", default_value_t = standard().temperature)]
    temperature: f32,
    /// How far the temperature moves with the entropy, up and down; 0: off
    #[arg(long, value_name = "X", default_value_t = standard().dynamic_temperature_range)]
    dynamic_temperature_range: f32,
    /// Power of the entropy's share of the largest, for the dynamic temperature
    #[arg(long, value_name = "X", default_value_t = standard().dynamic_temperature_exponent)]
    dynamic_temperature_exponent: f32,
    #[command(flatten)]
    filters: FilterArguments,
    #[command(flatten)]
    penalties: PenaltyArguments,
    #[command(flatten)]
    pick: PickArguments,
}

#[derive(Debug, Args)]
struct FilterArguments {
    /// Considers only so many of the most likely tokens; 0: all
    #[arg(long, value_name = "N", default_value_t = standard().top_k)]
    top_k: usize,
    /// Considers only the most likely tokens whose probabilities sum up to this; 1: all
    #[arg(long, value_name = "P", default_value_t = standard().top_p)]
    top_p: f32,
    /// Considers only tokens at least so likely, compared with the most likely one; 0: all
    #[arg(long, value_name = "P", default_value_t = standard().min_p)]
    min_p: f32,
    /// Considers only the tokens of the most expected surprise, up to this sum of probabilities; 1:
    /// all
    #[arg(long, value_name = "P", default_value_t = standard().typical_p)]
    typical_p: f32,
    /// Considers only logits within so many standard deviations of the largest; 0: all
    #[arg(long, value_name = "X", default_value_t = standard().top_n_sigma)]
    top_n_sigma: f32,
    /// How often XTC excludes the top choices but the last; 0: never
    #[arg(long, value_name = "P", default_value_t = standard().xtc_probability)]
    xtc_probability: f32,
    /// How likely a top choice is at least, for XTC
    #[arg(long, value_name = "P", default_value_t = standard().xtc_threshold)]
    xtc_threshold: f32,
    /// Top-p, min-p, typical and XTC leave at least so many tokens
    #[arg(long, value_name = "N", default_value_t = standard().min_keep)]
    min_keep: usize,
}

#[derive(Debug, Args)]
struct PenaltyArguments {
    /// Tokens that the penalties look back on: a number, or `all`
    #[arg(long, value_name = "N", default_value_t = Count(standard().penalty_last),
        value_parser = parse_count)]
    penalty_last: Count,
    /// Divides the logits of tokens that have come; 1: off
    #[arg(long, value_name = "X", default_value_t = standard().repetition_penalty)]
    repetition_penalty: f32,
    /// Subtracted from a token's logit for each time it has come; 0: off
    #[arg(long, value_name = "X", default_value_t = standard().frequency_penalty)]
    frequency_penalty: f32,
    /// Subtracted from the logits of tokens that have come; 0: off
    #[arg(long, value_name = "X", default_value_t = standard().presence_penalty)]
    presence_penalty: f32,
    /// Strength of DRY, which penalizes going on with a repetition; 0: off, 0.8 is customary
    #[arg(long, value_name = "X", default_value_t = standard().dry_multiplier)]
    dry_multiplier: f32,
    /// Growth of DRY with each token repeated
    #[arg(long, value_name = "X", default_value_t = standard().dry_base)]
    dry_base: f32,
    /// The shortest repetition that DRY penalizes, in tokens
    #[arg(long, value_name = "N", default_value_t = standard().dry_allowed_length)]
    dry_allowed_length: usize,
    /// Tokens that DRY looks back on: a number, or `all`
    #[arg(long, value_name = "N", default_value_t = Count(standard().dry_last),
        value_parser = parse_count)]
    dry_last: Count,
    /// A text that no repetition reaches across; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    dry_breaker: Vec<String>,
    /// Added to the logit of a token, as ID=X; -inf excludes it; may be given several times
    #[arg(long, value_name = "ID=X", value_parser = parse_bias)]
    logit_bias: Vec<(u32, f32)>,
}

#[derive(Debug, Args)]
struct PickArguments {
    /// Prefers to end early, for filling a gap in a text
    #[arg(long)]
    infill: bool,
    /// Lets this version of mirostat pick; it takes the place of the stages from top-n-sigma to XTC,
    /// and excludes --adaptive-target
    #[arg(long, value_enum, value_name = "VERSION", default_value_t = Version::Off)]
    mirostat: Version,
    /// Mirostat's target, in bits a token
    #[arg(long, value_name = "X", default_value_t = standard().mirostat_tau)]
    mirostat_tau: f32,
    /// Mirostat's rate of learning
    #[arg(long, value_name = "X", default_value_t = standard().mirostat_eta)]
    mirostat_eta: f32,
    /// Lets adaptive-p pick tokens of about this probability; below 0: off. Excludes --mirostat
    #[arg(long, value_name = "P", default_value_t = standard().adaptive_target)]
    adaptive_target: f32,
    /// Adaptive-p's weight of the past, at most 0.99
    #[arg(long, value_name = "P", default_value_t = standard().adaptive_decay)]
    adaptive_decay: f32,
}

/// Versions of mirostat.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    /// It does not pick
    Off,
    /// By a fit of Zipf's law
    #[value(name = "1")]
    One,
    /// By cutting at a surprise
    #[value(name = "2")]
    Two,
}

/// Stages in their order.
#[derive(Debug, Clone)]
struct Stages(Vec<StageKind>);

/// A number of tokens, or `all`.
#[derive(Debug, Clone, Copy)]
struct Count(usize);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            usize::MAX => f.write_str("all"),
            count => count.fmt(f),
        }
    }
}

impl SamplerArguments {
    /// The sampler, for the vocabulary of `model`.
    pub fn sampler(&self, model: &Model) -> Result<Sampler, Failure> {
        let options = self.options(model)?;
        Sampler::new(&options).map_err(Failure::option)
    }

    fn options(&self, model: &Model) -> Result<SamplerOptions, Failure> {
        let (filters, penalties, pick) = (&self.filters, &self.penalties, &self.pick);
        if !matches!(pick.mirostat, Version::Off) && pick.adaptive_target >= 0.0 {
            let message = "--mirostat, --adaptive-target: expected one of them, found both";
            return Err(Failure::Usage(message.into()));
        }
        let infill = match pick.infill {
            true => Some(Infill::new(model.tokenizer()?)?),
            false => None,
        };
        Ok(SamplerOptions {
            temperature: self.temperature,
            top_k: filters.top_k,
            top_p: filters.top_p,
            seed: self.seed,
            dynamic_temperature_range: self.dynamic_temperature_range,
            dynamic_temperature_exponent: self.dynamic_temperature_exponent,
            min_p: filters.min_p,
            typical_p: filters.typical_p,
            top_n_sigma: filters.top_n_sigma,
            xtc_probability: filters.xtc_probability,
            xtc_threshold: filters.xtc_threshold,
            min_keep: filters.min_keep,
            penalty_last: penalties.penalty_last.0,
            repetition_penalty: penalties.repetition_penalty,
            frequency_penalty: penalties.frequency_penalty,
            presence_penalty: penalties.presence_penalty,
            dry_multiplier: penalties.dry_multiplier,
            dry_base: penalties.dry_base,
            dry_allowed_length: penalties.dry_allowed_length,
            dry_last: penalties.dry_last.0,
            dry_breakers: breakers(&penalties.dry_breaker, model)?,
            logit_bias: biases(&penalties.logit_bias, model)?,
            infill,
            mirostat: match pick.mirostat {
                Version::Off => Mirostat::Off,
                Version::One => Mirostat::One,
                Version::Two => Mirostat::Two,
            },
            mirostat_tau: pick.mirostat_tau,
            mirostat_eta: pick.mirostat_eta,
            adaptive_target: pick.adaptive_target,
            adaptive_decay: pick.adaptive_decay,
            order: match &self.samplers {
                Some(Stages(order)) => order.clone(),
                None => standard().order,
            },
            custom: Vec::new(),
        })
    }
}

/// The tokens of each text.
fn breakers(texts: &[String], model: &Model) -> Result<Vec<Vec<u32>>, Failure> {
    let tokens = |text: &String| {
        let mut tokens = Vec::new();
        let tokenizer = model.tokenizer()?;
        tokenizer.encode(text, EncodeOptions::default(), &mut tokens)?;
        match tokens.is_empty() {
            false => Ok(tokens),
            true => Err(Failure::Usage(format!(
                "--dry-breaker: expected text that makes a token, found '{text}'"
            ))),
        }
    };
    texts.iter().map(tokens).collect()
}

/// The biases, if the model has their tokens.
fn biases(biases: &[(u32, f32)], model: &Model) -> Result<Vec<(u32, f32)>, Failure> {
    let vocab = model.network()?.spec.vocab;
    match biases.iter().find(|(id, _)| *id as usize >= vocab) {
        None => Ok(biases.to_vec()),
        Some((id, _)) => {
            let message = format!("expected tokens below {vocab}, found {id}");
            Err(Error::new(Code::InvalidArgument, "--logit-bias", message).into())
        }
    }
}

/// The library's defaults.
fn standard() -> SamplerOptions {
    SamplerOptions::default()
}

/// The stages' names as options have them, in their usual order.
fn stages() -> String {
    let names = standard().order.into_iter().map(StageKind::name);
    names.collect::<Vec<_>>().join(",").replace('_', "-")
}

fn stages_help() -> String {
    format!(
        "Stages before the pick, first to last, separated by commas, or `none`; those that are \
        absent are left out [default: {}]",
        stages()
    )
}

fn parse_stages(text: &str) -> Result<Stages, String> {
    let parse = |name: &str| {
        StageKind::from_name(&name.replace('-', "_"))
            .ok_or_else(|| format!("expected `none`, or some of {}", stages()))
    };
    match text {
        "none" => Ok(Stages(Vec::new())),
        _ => text
            .split(',')
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Stages),
    }
}

fn parse_count(text: &str) -> Result<Count, String> {
    match text {
        "all" => Ok(Count(usize::MAX)),
        _ => text
            .parse()
            .map(Count)
            .map_err(|_| "expected a number or `all`".into()),
    }
}

fn parse_bias(text: &str) -> Result<(u32, f32), String> {
    let parse = |(id, bias): (&str, &str)| Some((id.parse().ok()?, bias.parse().ok()?));
    text.split_once('=')
        .and_then(parse)
        .ok_or_else(|| "expected a token id, `=`, a number".into())
}
