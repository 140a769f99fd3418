//! Telling models apart without reading their weights.

use xxhash_rust::xxh3::Xxh3;

use super::Gguf;
use super::write::{push_string, push_value};

impl Gguf {
    /// A number made of the metadata and the tensor directory: names, formats, sizes and offsets.
    /// Files in which all these are equal have the same; of the weights themselves it knows nothing.
    pub fn identity(&self) -> u128 {
        let (mut hash, mut piece) = (Xxh3::new(), Vec::new());
        let mut add = |piece: &mut Vec<u8>| {
            hash.update(piece);
            piece.clear();
        };
        for (key, value) in self.metadata().iter() {
            push_string(key.as_bytes(), &mut piece);
            piece.extend(value.kind().id().to_le_bytes());
            push_value(value, &mut piece);
            add(&mut piece);
        }
        for tensor in self.tensors() {
            push_string(tensor.name.as_bytes(), &mut piece);
            push_string(tensor.format.name().as_bytes(), &mut piece);
            for number in tensor.dims.into_iter().chain([tensor.offset]) {
                piece.extend(number.to_le_bytes());
            }
            add(&mut piece);
        }
        hash.digest128()
    }
}
