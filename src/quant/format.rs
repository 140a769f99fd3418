//! The storage formats: every ggml type by name, with the size of its blocks.

/// A storage format of tensors, as ggml numbers them.
///
/// Source: the GGUF specification and ggml's type list. Removed numbers (4, 5, 31-33, 36-38) and
/// those above the last are not formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, non_camel_case_types)] // the names are the documentation
pub enum Format {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q8_1 = 9,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    Q8_K = 15,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    I8 = 24,
    I16 = 25,
    I32 = 26,
    I64 = 27,
    F64 = 28,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
    Q1_0 = 41,
    Q2_0 = 42,
}

/// Name, values in a block, bytes in a block.
const TABLE: [(Format, &str, usize, usize); 35] = [
    (Format::F32, "F32", 1, 4),
    (Format::F16, "F16", 1, 2),
    (Format::Q4_0, "Q4_0", 32, 18),
    (Format::Q4_1, "Q4_1", 32, 20),
    (Format::Q5_0, "Q5_0", 32, 22),
    (Format::Q5_1, "Q5_1", 32, 24),
    (Format::Q8_0, "Q8_0", 32, 34),
    (Format::Q8_1, "Q8_1", 32, 36),
    (Format::Q2_K, "Q2_K", 256, 84),
    (Format::Q3_K, "Q3_K", 256, 110),
    (Format::Q4_K, "Q4_K", 256, 144),
    (Format::Q5_K, "Q5_K", 256, 176),
    (Format::Q6_K, "Q6_K", 256, 210),
    (Format::Q8_K, "Q8_K", 256, 292),
    (Format::IQ2_XXS, "IQ2_XXS", 256, 66),
    (Format::IQ2_XS, "IQ2_XS", 256, 74),
    (Format::IQ3_XXS, "IQ3_XXS", 256, 98),
    (Format::IQ1_S, "IQ1_S", 256, 50),
    (Format::IQ4_NL, "IQ4_NL", 32, 18),
    (Format::IQ3_S, "IQ3_S", 256, 110),
    (Format::IQ2_S, "IQ2_S", 256, 82),
    (Format::IQ4_XS, "IQ4_XS", 256, 136),
    (Format::I8, "I8", 1, 1),
    (Format::I16, "I16", 1, 2),
    (Format::I32, "I32", 1, 4),
    (Format::I64, "I64", 1, 8),
    (Format::F64, "F64", 1, 8),
    (Format::IQ1_M, "IQ1_M", 256, 56),
    (Format::BF16, "BF16", 1, 2),
    (Format::TQ1_0, "TQ1_0", 256, 54),
    (Format::TQ2_0, "TQ2_0", 256, 66),
    (Format::MXFP4, "MXFP4", 32, 17),
    (Format::NVFP4, "NVFP4", 64, 36),
    (Format::Q1_0, "Q1_0", 128, 18),
    (Format::Q2_0, "Q2_0", 64, 18),
];

impl Format {
    /// The format that a model file calls `id`.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE
            .iter()
            .map(|row| row.0)
            .find(|&format| format as u32 == id)
    }

    /// All formats, by number.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Its number in a model file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name that ggml gives it.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Values in a block: rows are whole numbers of blocks.
    pub fn block_len(self) -> usize {
        self.row().2
    }

    /// Bytes in a block.
    pub fn block_bytes(self) -> usize {
        self.row().3
    }

    /// Bytes of `values` consecutive values; `None` unless they are whole blocks and fit.
    pub fn bytes(self, values: u64) -> Option<u64> {
        let block = self.block_len() as u64;
        if !values.is_multiple_of(block) {
            return None;
        }
        (values / block).checked_mul(self.block_bytes() as u64)
    }

    fn row(self) -> &'static (Self, &'static str, usize, usize) {
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .expect("the table lists every format")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_names_and_sizes_agree() {
        for format in Format::all() {
            assert_eq!(Format::from_id(format.id()), Some(format));
            assert_eq!(format.name(), format!("{format:?}"));
            let block = format.block_len() as u64;
            assert_eq!(
                format.bytes(3 * block),
                Some(3 * format.block_bytes() as u64)
            );
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(Format::from_id(removed), None);
        }
        assert_eq!(Format::Q4_0.bytes(33), None);
        assert_eq!(Format::F64.bytes(u64::MAX), None);
    }
}
