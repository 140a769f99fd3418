//! Chats to prompts by the model's own template, or one that the caller brings.

use super::Model;
use crate::chat::{Chat, SpecialTexts, Template, source};
use crate::error::Result;
use crate::tokenizer::{EncodeOptions, Tokenizer};

/// How the text of [`Model::chat_text`] becomes tokens: control tokens are spelled out in it.
pub const CHAT_TEXT: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: true,
};

/// Which template a chat is rendered by.
#[derive(Debug, Clone, Copy, Default)]
pub enum ChatTemplate<'a> {
    /// The model's; of several the one that is for tools if the chat has some.
    #[default]
    Own,
    /// The model's of this name.
    Named(&'a str),
    /// This text.
    Text(&'a str),
}

impl Model {
    /// The source of the model's chat template: of the one that is named, or of the default one.
    ///
    /// # Errors
    /// `NOT_FOUND`, with the key that the file lacks.
    pub fn chat_template(&self, name: Option<&str>) -> Result<&str> {
        source(self.gguf().metadata(), name, None).map(|(_, source)| source)
    }

    /// What the template makes of a chat, byte for byte.
    ///
    /// # Errors
    /// `NOT_FOUND`, with the key that the file lacks; those of [`Template::compile`] and
    /// [`Template::render`].
    pub fn chat_prompt(&self, chat: &Chat, template: ChatTemplate<'_>) -> Result<String> {
        let metadata = self.gguf().metadata();
        let (place, source) = match template {
            ChatTemplate::Own => source(metadata, None, Some(chat))?,
            ChatTemplate::Named(name) => source(metadata, Some(name), None)?,
            ChatTemplate::Text(text) => ("chat template".into(), text),
        };
        let special = self.tokenizer().map(SpecialTexts::of).unwrap_or_default();
        Template::compile(source, &place)?.render(chat, &special)
    }

    /// As [`Model::chat_prompt`], to be tokenized as [`CHAT_TEXT`] says: a model that wants a text to
    /// begin with its token for that gets it, once, also if the template does not write it.
    ///
    /// # Errors
    /// Also `UNSUPPORTED` without a tokenizer.
    pub fn chat_text(&self, chat: &Chat, template: ChatTemplate<'_>) -> Result<String> {
        let tokenizer = self.tokenizer()?;
        let prompt = self.chat_prompt(chat, template)?;
        Ok(match missing_begin(tokenizer, &prompt) {
            Some(begin) => begin + &prompt,
            None => prompt,
        })
    }
}

/// The text of the token that a text should begin with, if it does not.
fn missing_begin(tokenizer: &Tokenizer, prompt: &str) -> Option<String> {
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos())?;
    let begin = String::from_utf8_lossy(tokenizer.token_text(bos)?).into_owned();
    (!prompt.starts_with(&begin)).then_some(begin)
}
