//! What files say by name only: pre-tokenizers, ends of generation, tokens that swallow space.

use crate::tokenizer::split::Pattern;

/// What the name of a pre-tokenizer stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreTokenizer {
    pub(super) pattern: Pattern,
    /// A piece that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with BOS when the file does not say.
    pub(super) adds_bos: bool,
}

/// The pre-tokenizer when the file does not say.
pub(super) const PRE_TOKENIZER_DEFAULT: &str = "gpt-2";

const fn plain(pattern: Pattern) -> PreTokenizer {
    PreTokenizer {
        pattern,
        ignore_merges: false,
        adds_bos: false,
    }
}

const LLAMA_3: PreTokenizer = PreTokenizer {
    pattern: Pattern::Lines { digits: 3 },
    ignore_merges: true,
    adds_bos: true,
};

/// Values of `tokenizer.ggml.pre`.
pub(super) static PRE_TOKENIZERS: &[(&str, PreTokenizer)] = &[
    ("gpt-2", plain(Pattern::Words)),
    ("mpt", plain(Pattern::Words)),
    ("olmo", plain(Pattern::Words)),
    ("phi-2", plain(Pattern::Words)),
    ("starcoder", plain(Pattern::DigitsThenWords)),
    ("jina-v1-en", plain(Pattern::Words)),
    ("jina-v2-code", plain(Pattern::Words)),
    ("jina-v2-de", plain(Pattern::Words)),
    ("jina-v2-es", plain(Pattern::Words)),
    ("modern-bert", plain(Pattern::Words)),
    ("roberta-bpe", plain(Pattern::Words)),
    ("codeshell", plain(Pattern::DigitsThenWords)),
    ("command-r", plain(Pattern::DigitsThenWords)),
    ("exaone", plain(Pattern::DigitsThenWords)),
    ("minerva-7b", plain(Pattern::DigitsThenWords)),
    ("refact", plain(Pattern::DigitsThenWords)),
    ("smollm", plain(Pattern::DigitsThenWords)),
    ("falcon", plain(Pattern::PunctuationThenWords)),
    ("qwen2", plain(Pattern::Lines { digits: 1 })),
    ("deepseek-r1-qwen", plain(Pattern::Lines { digits: 1 })),
    ("megrez", plain(Pattern::Lines { digits: 1 })),
    ("stablelm2", plain(Pattern::Lines { digits: 1 })),
    ("llama-bpe", LLAMA_3),
    ("llama3", LLAMA_3),
    ("llama-v3", LLAMA_3),
    ("falcon3", LLAMA_3),
    ("chatglm-bpe", plain(Pattern::Lines { digits: 3 })),
    ("dbrx", plain(Pattern::Lines { digits: 3 })),
    ("smaug-bpe", plain(Pattern::Lines { digits: 3 })),
    ("gpt-4o", plain(Pattern::CasedLines)),
    ("llama4", plain(Pattern::CasedLines)),
    ("deepseek-coder", plain(Pattern::Layers)),
];

/// Tokens that end a turn, most specific first; the first that a vocabulary has is its end of
/// turn unless the file names one.
pub(super) static END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|return|>",
    "<|end|>",
    "<end_of_turn>",
    "<|END_OF_TURN_TOKEN|>",
    "<|EOT|>",
    "<EOT>",
    "_<EOT>",
    "< EOT >",
    "[EOT]",
    "<end_of_utterance>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
];

/// Tokens that end a message which calls a tool.
pub(super) static END_OF_MESSAGE: &[&str] = &["<|eom_id|>", "<|call|>"];

/// Where this token ends a turn, `<|end|>` only ends one of several messages in it.
pub(super) const MESSAGE_END: (&str, &str) = ("<|return|>", "<|end|>");

/// Tokens after which white space in the text belongs to the token.
pub(super) struct Trim {
    /// Scored vocabularies of this `general.architecture`,
    pub(super) architecture: &'static str,
    /// all their control tokens but these,
    pub(super) except: &'static [&'static str],
    /// and these, whatever they are.
    pub(super) also: &'static [&'static str],
}

/// From the `rstrip` flags that the vendors publish; model files do not hold them.
pub(super) static TRIMS: &[Trim] = &[Trim {
    architecture: "phi3",
    except: &["<unk>", "<s>", "<|endoftext|>"],
    also: &["</s>"],
}];
