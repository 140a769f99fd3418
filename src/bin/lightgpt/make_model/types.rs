//! The types that a model can be made in, and which format each gives to which matrix.
//!
//! A type is one format for most matrices, and more bits for those where they help most: the
//! output, and in some types the values and the last matrix of the feed-forward network, in the
//! outer layers and every third of the others. The mixtures are those that the quantizers of common
//! GGUF files use, so that files made here cost what files of that type cost.

use lightgpt::quant::Format::{self, *};

/// A type by the name that file names give it.
#[derive(Debug, Clone, Copy)]
pub struct Type {
    pub name: &'static str,
    /// The format of most matrices.
    pub format: Format,
    /// `general.file_type`
    pub id: u32,
}

const fn row(name: &'static str, format: Format, id: u32) -> Type {
    Type { name, format, id }
}

pub const TYPES: [Type; 30] = [
    row("F32", F32, 0),
    row("F16", F16, 1),
    row("BF16", BF16, 32),
    row("Q8_0", Q8_0, 7),
    row("Q4_0", Q4_0, 2),
    row("Q4_1", Q4_1, 3),
    row("Q5_0", Q5_0, 8),
    row("Q5_1", Q5_1, 9),
    row("Q2_K", Q2_K, 10),
    row("Q3_K_S", Q3_K, 11),
    row("Q3_K_M", Q3_K, 12),
    row("Q4_K_S", Q4_K, 14),
    row("Q4_K_M", Q4_K, 15),
    row("Q5_K_M", Q5_K, 17),
    row("Q6_K", Q6_K, 18),
    row("IQ4_NL", IQ4_NL, 25),
    row("IQ4_XS", IQ4_XS, 30),
    row("IQ1_S", IQ1_S, 24),
    row("IQ1_M", IQ1_M, 31),
    row("IQ2_XXS", IQ2_XXS, 19),
    row("IQ2_XS", IQ2_XS, 20),
    row("IQ2_S", IQ2_S, 28),
    row("IQ3_XXS", IQ3_XXS, 23),
    row("IQ3_S", IQ3_S, 26),
    row("TQ1_0", TQ1_0, 36),
    row("TQ2_0", TQ2_0, 37),
    row("MXFP4", MXFP4, 38),
    row("NVFP4", NVFP4, 39),
    row("Q1_0", Q1_0, 40),
    row("Q2_0", Q2_0, 41),
];

/// What a matrix is for, as far as types tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The output matrix, also where it is the embedding too.
    Output,
    Values,
    AttentionOut,
    Down,
    Other,
}

/// Where a matrix stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub role: Role,
    /// 0 for what belongs to no layer.
    pub layer: usize,
    pub layers: usize,
    /// Query heads for each key head.
    pub group: u64,
    pub columns: u64,
}

impl Type {
    /// The format of the matrix at `place`.
    pub fn format_at(self, place: Place) -> Format {
        let wanted = match self.format {
            F32 | F16 | BF16 => self.format,
            _ => self.mixed(place),
        };
        match wanted.block_len() as u64 {
            block if place.columns.is_multiple_of(block) => wanted,
            _ => without_large_blocks(wanted, place.role),
        }
    }

    fn mixed(self, place: Place) -> Format {
        let eighth = place.layers / 8;
        let first_eighth = place.layer < eighth;
        let grouped = place.group >= 4;
        match (self.name, place.role) {
            ("Q8_0", _) => Q8_0,
            ("IQ3_S", Role::Output) => Q6_K,
            (name, Role::Output) if has_few_bits(name) => Q5_K,
            (_, Role::Output) => Q6_K,
            (name, Role::Values) if grouped && has_few_bits(name) => Q4_K,
            ("IQ2_S", Role::Values | Role::AttentionOut) => IQ3_S,
            ("IQ2_S", Role::Down) if first_eighth => IQ3_S,
            ("IQ1_S" | "IQ1_M" | "IQ2_XXS" | "IQ2_XS", Role::Values) => Q2_K,
            ("IQ1_S" | "IQ1_M" | "IQ2_XXS" | "IQ2_XS", Role::Down) if first_eighth => Q2_K,
            ("IQ1_S" | "IQ1_M", Role::AttentionOut) => IQ2_XXS,
            ("IQ3_XXS", Role::AttentionOut) => IQ3_S,
            ("Q2_K", Role::Values) if grouped => Q4_K,
            ("Q2_K", Role::Values | Role::AttentionOut | Role::Down) => Q3_K,
            ("Q3_K_M", Role::Values) if place.layer < 2 => Q5_K,
            ("Q3_K_M", Role::Down) if place.layer < place.layers / 16 => Q5_K,
            ("Q3_K_M", Role::Values | Role::AttentionOut | Role::Down) => Q4_K,
            ("Q4_K_S", Role::Values) if place.layer < 4 => Q5_K,
            ("Q4_K_S", Role::Down) if first_eighth => Q5_K,
            ("Q4_K_M" | "Q5_K_M", Role::Values | Role::Down) if has_more_bits(place) => Q6_K,
            ("IQ4_NL" | "IQ4_XS", Role::Values) if grouped => Q5_K,
            ("IQ4_NL" | "IQ4_XS", Role::Down) if first_eighth => Q5_K,
            _ => self.format,
        }
    }
}

/// The types of at most three bits a weight that are made with grids.
fn has_few_bits(name: &str) -> bool {
    ["IQ1", "IQ2", "IQ3"]
        .iter()
        .any(|grid| name.starts_with(grid))
}

/// The first and the last eighth of the layers, and every third between them.
fn has_more_bits(place: Place) -> bool {
    let Place { layer, layers, .. } = place;
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// What rows that are no multiple of 256 have instead.
fn without_large_blocks(format: Format, role: Role) -> Format {
    match format {
        _ if role == Role::Output => Q8_0,
        Q2_K | Q3_K | IQ4_XS => IQ4_NL,
        IQ1_S | IQ1_M | IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S => IQ4_NL,
        TQ1_0 | TQ2_0 => Q4_0,
        Q4_K => Q5_0,
        Q5_K => Q5_1,
        Q6_K => Q8_0,
        _ => F16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn formats(name: &str, role: Role, columns: u64) -> Vec<Format> {
        let made = TYPES.iter().find(|row| row.name == name).unwrap();
        let place = |layer| Place {
            role,
            layer,
            layers: 22,
            group: 8,
            columns,
        };
        (0..22).map(|layer| made.format_at(place(layer))).collect()
    }

    /// Layers of the larger format in published files of 22 layers.
    #[test]
    fn mixtures_are_those_of_published_files() {
        let layers_of = |name, role, format| -> Vec<usize> {
            let formats = formats(name, role, 2048);
            (0..22).filter(|&i| formats[i] == format).collect()
        };
        let more = [0, 1, 4, 7, 10, 13, 16, 19, 20, 21];
        assert_eq!(layers_of("Q4_K_M", Role::Down, Q6_K), more);
        assert_eq!(layers_of("Q5_K_M", Role::Values, Q6_K), more);
        assert_eq!(layers_of("Q4_K_S", Role::Values, Q5_K), [0, 1, 2, 3]);
        assert_eq!(layers_of("Q4_K_S", Role::Down, Q5_K), [0, 1]);
        assert_eq!(layers_of("Q3_K_M", Role::Down, Q5_K), [0]);
        assert_eq!(layers_of("Q3_K_M", Role::AttentionOut, Q4_K).len(), 22);
        assert_eq!(layers_of("Q2_K", Role::Values, Q4_K).len(), 22);
        assert_eq!(layers_of("IQ4_XS", Role::Other, IQ4_XS).len(), 22);
        assert_eq!(layers_of("IQ2_XXS", Role::Values, Q4_K).len(), 22);
        assert_eq!(layers_of("IQ2_XS", Role::Down, Q2_K), [0, 1]);
        assert_eq!(layers_of("IQ2_S", Role::Down, IQ3_S), [0, 1]);
        assert_eq!(layers_of("IQ3_S", Role::Values, Q4_K).len(), 22);
        assert_eq!(layers_of("IQ1_S", Role::Output, Q5_K).len(), 22);
        assert_eq!(layers_of("TQ2_0", Role::Output, Q6_K).len(), 22);
        assert_eq!(layers_of("Q4_0", Role::Output, Q6_K).len(), 22);
        assert_eq!(layers_of("Q8_0", Role::Output, Q8_0).len(), 22);
        assert_eq!(layers_of("F16", Role::Output, F16).len(), 22);
    }

    #[test]
    fn rows_of_no_whole_blocks_have_smaller_ones() {
        assert_eq!(formats("Q4_K_M", Role::Other, 576)[0], Q5_0);
        assert_eq!(formats("Q4_K_M", Role::Values, 576)[0], Q8_0);
        assert_eq!(formats("Q4_0", Role::Output, 576)[0], Q8_0);
        assert_eq!(formats("Q4_0", Role::Other, 576)[0], Q4_0);
        assert_eq!(formats("Q2_K", Role::Other, 576)[0], IQ4_NL);
    }
}
