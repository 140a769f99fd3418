#![allow(missing_docs)]
use crate::error::*;
use crate::gguf::Metadata;
#[derive(Debug)]
pub struct Tokenizer(usize);
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodeOptions {
    pub add_special: bool,
    pub parse_special: bool,
}
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder;
impl Tokenizer {
    pub fn load(m: &Metadata) -> Result<Option<Self>> {
        Ok(m.strings("tokenizer.ggml.tokens")?
            .map(|s| Tokenizer(s.len())))
    }
    pub fn vocab_len(&self) -> usize {
        self.0
    }
    pub fn is_end(&self, t: u32) -> bool {
        t == 2
    }
    pub fn encode(&self, _: &str, _: EncodeOptions, out: &mut Vec<u32>) -> Result<()> {
        out.push(1);
        Ok(())
    }
}
impl StreamDecoder {
    pub fn push(&mut self, _: &Tokenizer, _: u32, _: &mut String) {}
    pub fn finish(&mut self, _: &mut String) {}
}
