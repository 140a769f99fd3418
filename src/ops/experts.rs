//! Mixtures of experts: how a token chooses, and products with the weights of those it chose.
//!
//! Source: Shazeer et al., "Outrageously Large Neural Networks", 2017; bounded groups and biases of
//! the choice: arXiv 2405.04434, section 2.2, and arXiv 2412.19437, section 2.1.2.

use std::ops::Range;

use crate::float;
use crate::kernel::{Input, Kernels};
use crate::ops::matmul::{self, Linear};
use crate::team::Tile;

/// How a token chooses among experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    /// Experts that it takes.
    pub used: usize,
    /// What turns logits into scores.
    pub gate: Gate,
    /// Groups that the experts form, in order.
    pub groups: usize,
    /// Groups that the choice is bounded to: those of the best scores.
    pub groups_used: usize,
    /// How many of a group's best scores add up to its own.
    pub group_best: usize,
    /// Whether weights are divided by their sum.
    pub normalise: bool,
    /// Factor of the weights.
    pub scale: f32,
}

/// What turns the logits of a router into scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// A softmax over all.
    Softmax,
    /// Each by itself.
    Sigmoid,
    /// A softmax over those that are chosen.
    SoftmaxOfChosen,
}

/// An expert that a token has chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pick {
    /// Its number.
    pub expert: u32,
    /// Its place among all picks of a batch, which are in the order of their experts.
    pub slot: u32,
    /// Factor of what it gives.
    pub weight: f32,
}

impl Routing {
    /// Chooses by `logits`, (experts), which become scores; `bias` is added for the choice alone,
    /// (experts) or nothing. Ties go to the lower number. `picks` is (used), the best first; `room` is
    /// (experts).
    pub fn choose(&self, logits: &mut [f32], bias: &[f32], room: &mut [f32], picks: &mut [Pick]) {
        match self.gate {
            Gate::Softmax => softmax(logits),
            Gate::Sigmoid => logits.iter_mut().for_each(|x| *x = float::sigmoid(*x)),
            Gate::SoftmaxOfChosen => {}
        }
        room.copy_from_slice(logits);
        for (choice, bias) in room.iter_mut().zip(bias) {
            *choice += bias;
        }
        self.bound_to_groups(room);
        for pick in picks.iter_mut() {
            let best = best(room);
            room[best] = f32::NEG_INFINITY;
            (pick.expert, pick.weight) = (best as u32, logits[best]);
        }
        if self.gate == Gate::SoftmaxOfChosen {
            // The first is the largest.
            let max = picks[0].weight;
            picks
                .iter_mut()
                .for_each(|p| p.weight = float::exp(p.weight - max));
        }
        if self.normalise || self.gate == Gate::SoftmaxOfChosen {
            let sum = picks.iter().fold(0.0, |sum, pick| sum + pick.weight);
            picks.iter_mut().for_each(|pick| pick.weight /= sum + 1e-20);
        }
        picks.iter_mut().for_each(|pick| pick.weight *= self.scale);
    }

    /// Takes the experts of all but the best groups out of the choice.
    fn bound_to_groups(&self, choice: &mut [f32]) {
        if self.groups_used == self.groups {
            return;
        }
        let size = choice.len() / self.groups;
        let better = |a: f32, b: f32, first: bool| a > b || (a == b && first);
        let score = |group: &[f32]| match self.group_best {
            1 => group[best(group)],
            _ => {
                let first = best(group);
                let others = (0..size).filter(|i| *i != first).map(|i| group[i]);
                others.fold(f32::NEG_INFINITY, float::max) + group[first]
            }
        };
        // Groups that are out have no score any more, and are worse than those that are not.
        for _ in self.groups_used..self.groups {
            let mut worst: Option<(usize, f32)> = None;
            for (i, group) in choice.chunks_exact(size).enumerate() {
                if group[0] == f32::NEG_INFINITY {
                    continue;
                }
                let score = score(group);
                if worst.is_none_or(|(_, least)| !better(score, least, false)) {
                    worst = Some((i, score));
                }
            }
            if let Some((i, _)) = worst {
                choice[i * size..(i + 1) * size].fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// Puts the picks of all rows in the order of their experts: `order` becomes the number of the pick
/// in each slot. `counts` is (experts + 1).
pub fn sort(picks: &mut [Pick], counts: &mut [u32], order: &mut [u32]) {
    counts.fill(0);
    for pick in picks.iter() {
        counts[pick.expert as usize + 1] += 1;
    }
    for i in 1..counts.len() {
        counts[i] += counts[i - 1];
    }
    for (number, pick) in (0..).zip(picks.iter_mut()) {
        let next = &mut counts[pick.expert as usize];
        pick.slot = *next;
        order[*next as usize] = number;
        *next += 1;
    }
}

/// Matrices of experts, and who takes which.
#[derive(Debug, Clone, Copy)]
pub struct Stacks<'a, E> {
    /// Each (experts, rows, columns); those of an expert stand side by side.
    pub linears: &'a [Linear],
    /// How many experts there are.
    pub experts: usize,
    /// Rows that are multiplied.
    pub slots: usize,
    /// The expert of each.
    pub expert_of: E,
}

impl<E: Fn(usize) -> usize> Stacks<'_, E> {
    /// Outputs of a slot.
    pub fn outputs(&self) -> usize {
        let rows = self.linears.iter().map(|linear| linear.weight.rows());
        rows.sum::<usize>() / self.experts
    }

    /// Computes a tile whose rows are slots: each is multiplied with its own expert's matrices.
    /// `threads` work on such tiles.
    pub fn multiply(
        &self,
        kernels: &Kernels,
        (x, threads): (&Input<'_>, usize),
        tile: &mut Tile<'_, f32>,
    ) {
        let (rows, wanted) = (tile.row_range(), tile.column_range());
        let mut start = rows.start;
        while start < rows.end {
            let expert = (self.expert_of)(start);
            let same = (start..rows.end).take_while(|slot| (self.expert_of)(*slot) == expert);
            let end = start + same.count();
            let mut first = 0;
            for stack in self.linears {
                let height = stack.weight.rows() / self.experts;
                let (from, to) = (wanted.start.max(first), wanted.end.min(first + height));
                if from < to {
                    let columns = from - wanted.start..to - wanted.start;
                    let mut part = tile.part_mut(start - rows.start..end - rows.start, columns);
                    let outputs = expert * height + from - first..expert * height + to - first;
                    let next = match (to < wanted.end, end < rows.end) {
                        (true, _) => self.weights_from(start, to),
                        (false, true) => self.weights_from(end, wanted.start),
                        (false, false) => self.behind(&rows, &wanted, threads - 1),
                    };
                    matmul::some(kernels, stack, outputs, (x, next), &mut part);
                }
                first += height;
            }
            start = end;
        }
    }

    /// The weights behind a tile and those that `others` have, if tiles are as large as this one.
    fn behind(&self, rows: &Range<usize>, columns: &Range<usize>, others: usize) -> &[u8] {
        let (across, outputs) = (columns.end + others * columns.len(), self.outputs());
        self.weights_from(rows.start + across / outputs * rows.len(), across % outputs)
    }

    /// The weights of a slot's outputs from `output` on, as far as they are those of one matrix.
    fn weights_from(&self, slot: usize, output: usize) -> &[u8] {
        let mut first = 0;
        for Linear { weight, .. } in self.linears.iter().filter(|_| slot < self.slots) {
            let height = weight.rows() / self.experts;
            if output < first + height {
                let start = (self.expert_of)(slot) * height;
                return weight.row_bytes(start + output - first..start + height);
            }
            first += height;
        }
        &[]
    }
}

/// The first of the largest.
fn best(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

fn softmax(values: &mut [f32]) {
    let max = values
        .iter()
        .fold(f32::NEG_INFINITY, |max, x| float::max(max, *x));
    let mut sum = 0.0;
    for x in values.iter_mut() {
        *x = float::exp(*x - max);
        sum += *x;
    }
    values.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::TensorInfo;
    use crate::quant::Format;
    use crate::tensor::Matrix;

    const PLAIN: Routing = Routing {
        used: 2,
        gate: Gate::Softmax,
        groups: 1,
        groups_used: 1,
        group_best: 1,
        normalise: true,
        scale: 1.0,
    };

    fn picks(routing: Routing, logits: &[f32], bias: &[f32]) -> Vec<(u32, f32)> {
        let mut picks = vec![Pick::default(); routing.used];
        let mut room = vec![0.0; logits.len()];
        routing.choose(&mut logits.to_vec(), bias, &mut room, &mut picks);
        picks
            .iter()
            .map(|pick| (pick.expert, pick.weight))
            .collect()
    }

    #[test]
    fn ties_go_to_the_lower_number_and_weights_add_up() {
        let found = picks(PLAIN, &[1.0, 2.0, 2.0, 2.0], &[]);
        assert_eq!(found, [(1, 0.5), (2, 0.5)]);
        let scaled = Routing {
            scale: 3.0,
            ..PLAIN
        };
        assert_eq!(picks(scaled, &[5.0, 1.0, 5.0], &[]), [(0, 1.5), (2, 1.5)]);
        let chosen = Routing {
            gate: Gate::SoftmaxOfChosen,
            ..PLAIN
        };
        let found = picks(chosen, &[0.0, 3.0, 2.0], &[]);
        let e = 1f32.exp();
        assert_eq!((found[0].0, found[1].0), (1, 2));
        assert!((found[0].1 - e / (e + 1.0)).abs() < 1e-6);
    }

    #[test]
    fn a_bias_chooses_but_does_not_weigh() {
        let routing = Routing {
            gate: Gate::Sigmoid,
            normalise: false,
            ..PLAIN
        };
        let found = picks(routing, &[0.0, 0.0, 0.0, 0.0], &[0.0, 0.0, 0.2, 0.1]);
        assert_eq!(found, [(2, 0.5), (3, 0.5)]);
    }

    #[test]
    fn the_choice_is_bounded_to_groups() {
        let routing = Routing {
            groups: 3,
            groups_used: 1,
            gate: Gate::SoftmaxOfChosen,
            ..PLAIN
        };
        let logits = [1.0, 1.0, 4.0, -9.0, 3.0, 3.0];
        let experts = |routing| -> Vec<u32> {
            picks(routing, &logits, &[])
                .iter()
                .map(|pick| pick.0)
                .collect()
        };
        assert_eq!(experts(routing), [2, 3]);
        let best_two = Routing {
            group_best: 2,
            ..routing
        };
        assert_eq!(experts(best_two), [4, 5]);
        // Of equal groups the first.
        assert_eq!(picks(routing, &[1.0, 0.0, 1.0, 0.5, 1.0, 0.0], &[])[1].0, 1);
    }

    /// Matrices of one column, whose rows hold their numbers from `first` on.
    fn linear(rows: usize, first: usize) -> Linear {
        let bytes = (first..first + rows).flat_map(|row| (row as f32).to_le_bytes());
        let tensor = TensorInfo {
            name: "numbers".into(),
            format: Format::F32,
            dims: [1, rows as u64, 1, 1],
            dimensions: 2,
            bytes: bytes.collect::<Vec<u8>>().into(),
            offset: 0,
            part: 0,
        };
        Linear::new(Matrix::new(&tensor, rows, 1).unwrap())
    }

    #[test]
    fn what_is_fetched_ahead_is_what_the_thread_takes_next() {
        // Of five experts, two matrices of 32 and 16 outputs.
        let linears = [linear(5 * 32, 0), linear(5 * 16, 1000)];
        let taken = [3, 0, 4];
        let stacks = Stacks {
            linears: &linears,
            experts: 5,
            slots: 3,
            expert_of: |slot: usize| taken[slot],
        };
        assert_eq!(stacks.outputs(), 48);
        let first = |weights: &[u8]| {
            let bytes = weights.first_chunk();
            bytes.map(|bytes| f32::from_le_bytes(*bytes) as usize)
        };
        let of = |slot, output| match output {
            0..32 => Some(taken[slot] * 32 + output),
            _ => Some(1000 + taken[slot] * 16 + output - 32),
        };
        let tiles = || (0..3).flat_map(|slot| [0, 16, 32].map(|output| (slot, output)));
        for (i, (slot, output)) in tiles().enumerate() {
            assert_eq!(first(stacks.weights_from(slot, output)), of(slot, output));
            for others in 0..4 {
                let next = tiles().nth(i + 1 + others);
                let expected = next.and_then(|(slot, output)| of(slot, output));
                let found = stacks.behind(&(slot..slot + 1), &(output..output + 16), others);
                assert_eq!(first(found), expected, "{i} {others}");
            }
        }
    }

    #[test]
    fn slots_are_in_the_order_of_experts() {
        let of = |expert| Pick {
            expert,
            ..Pick::default()
        };
        let mut picks = [of(2), of(0), of(2), of(1), of(0), of(2)];
        let (mut counts, mut order) = ([0; 5], [0; 6]);
        sort(&mut picks, &mut counts, &mut order);
        assert_eq!(order, [1, 4, 3, 0, 2, 5]);
        for (slot, pick) in order.iter().enumerate() {
            assert_eq!(picks[*pick as usize].slot as usize, slot);
        }
    }
}
