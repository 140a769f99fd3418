//! `lightgpt diversity`: how varied texts are.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value as Json};

use lightgpt::sampler::diversity::{
    distinct, entropy, repetition, repetition_rate, self_bleu, words,
};

use crate::arguments::{read_text, text_name};
use crate::output::{self, Failure, complain, standard};

const EXAMPLES: &str = "\
Texts are compared by their words: what white space separates.
distinct-n: the share of different n-grams among all. repetition-4: the share of 4-grams that were
there before, and repetition-rate: that of n-grams that come again, n from 1 to 4; both are means
over the texts. entropy-n: of the distribution of n-grams, in bits. self-bleu: how like each other
the texts are, from 0 to 1, by n-grams up to 4, of which shorter texts have too few to come near 1;
of several texts only.

Examples:
  lightgpt diversity models/tales-4m.md
  lightgpt diversity --lines models/tales-4m.md
  lightgpt run models/tales-4m-q8_0.gguf -p 'One day' -n 200 | lightgpt diversity --json -";

/// Measures how varied texts are: distinct-n, repetition, entropy, self-BLEU
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Files, each a text; -: standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Each line of the files is a text; empty lines are none
    #[arg(long)]
    lines: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Writes the measures to standard output.
pub fn perform(arguments: &Arguments) -> Result<(), Failure> {
    let files = arguments.files.iter().map(|path| read_text(Some(path)));
    let files = files.collect::<Result<Vec<String>, Failure>>()?;
    let texts: Vec<Vec<&str>> = match arguments.lines {
        true => files
            .iter()
            .flat_map(|file| file.lines())
            .map(words)
            .collect(),
        false => files.iter().map(|file| words(file)).collect(),
    };
    let texts: Vec<&[&str]> = texts.iter().map(Vec::as_slice).collect();
    let texts: Vec<&[&str]> = texts.into_iter().filter(|text| !text.is_empty()).collect();
    if texts.is_empty() {
        return Err(Failure::Failed("texts: expected words, found none".into()));
    }
    for (path, file) in arguments.files.iter().zip(&files) {
        if words(file).is_empty() {
            let name = text_name(Some(path));
            complain(&format!("{name}: left out, as it has no words"));
        }
    }
    let total: usize = texts.iter().map(|text| text.len()).sum();
    let measures = measures(&texts);
    if arguments.json {
        let counts = [("texts", texts.len().into()), ("words", total.into())];
        let measures = measures
            .into_iter()
            .map(|(name, value)| (name, value.into()));
        let all = counts.into_iter().chain(measures);
        let json: Map<String, Json> = all.map(|(name, value)| (name.into(), value)).collect();
        return output::json(&Json::Object(json));
    }
    let mut out = standard();
    writeln!(out, "{:<16} {}", "texts", texts.len())?;
    writeln!(out, "{:<16} {total}", "words")?;
    for (name, value) in measures {
        writeln!(out, "{name:<16} {value:.4}")?;
    }
    Ok(out.flush()?)
}

fn measures(texts: &[&[&str]]) -> Vec<(&'static str, f64)> {
    let mean = |measure: &dyn Fn(&[&str]) -> f64| {
        texts.iter().map(|text| measure(text)).sum::<f64>() / texts.len() as f64
    };
    let mut measures = vec![
        ("distinct-1", distinct(texts, 1)),
        ("distinct-2", distinct(texts, 2)),
        ("distinct-3", distinct(texts, 3)),
        ("repetition-4", mean(&|text| repetition(text, 4))),
        ("repetition-rate", mean(&|text| repetition_rate(text))),
        ("entropy-1", entropy(texts, 1)),
        ("entropy-2", entropy(texts, 2)),
    ];
    if texts.len() > 1 {
        measures.push(("self-bleu", self_bleu(texts, 4)));
    }
    measures
}
