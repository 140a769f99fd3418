//! The memory of recurrent layers: a state of fixed size in place of pages that grow.
//!
//! A state cannot give a token back. So a sequence has [`SLOTS`] slots, and each knows after how many
//! tokens its state is. A pass reads one and writes another, which counts when the pass is done: a
//! pass that is dropped loses nothing, and nothing is ever copied. Forks share what is done, and write
//! to places of their own. The slots left over are where a
//! rewind can go to: the state that a turn began with is kept, and the one before the last pass until
//! the next. A sequence goes back to the nearest of them, or to its begin, and evaluates again what
//! lies between, to the same bits.

use std::ops::Range;
use std::sync::Arc;

use crate::budget::{Budget, Shared, Tag};
use crate::error::Result;

/// States of a sequence: one to read, one to write, and the one that its turn began with.
pub const SLOTS: usize = 3;

/// Values that begin at a multiple of it are aligned.
const ALIGN: usize = 16;

/// What a recurrent layer keeps, in values; other layers keep nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateShape {
    /// Inputs of its convolution that further tokens will see.
    pub window: usize,
    /// What its recurrence goes on from.
    pub matrix: usize,
}

/// Where the layers lie in a state.
#[derive(Debug, PartialEq, Eq)]
pub struct StateLayout {
    /// The window and the matrix of each layer.
    layers: Vec<(Range<usize>, Range<usize>)>,
    len: usize,
}

impl StateLayout {
    /// The layout for all layers, recurrent or not. Sizes that no memory could hold saturate.
    pub fn new(shapes: impl Iterator<Item = StateShape>) -> Self {
        let mut len = 0usize;
        let mut place = |values: usize| {
            let start = len;
            len = len.saturating_add(values.saturating_add(ALIGN - 1) / ALIGN * ALIGN);
            start..start.saturating_add(values)
        };
        let layers = shapes
            .map(|shape| (place(shape.window), place(shape.matrix)))
            .collect();
        Self { layers, len }
    }

    /// Values of a state; 0 if no layer is recurrent.
    pub fn size(&self) -> usize {
        self.len
    }

    /// What a state is charged, in bytes.
    pub fn state_charge(&self) -> u64 {
        match self.len {
            0 => 0,
            len => Budget::charge_of_shared::<f32>(len),
        }
    }

    /// What all slots of a sequence are charged, in bytes.
    pub fn charge(&self) -> u64 {
        self.state_charge().saturating_mul(SLOTS as u64)
    }
}

/// The states of a sequence.
#[derive(Debug)]
pub struct State {
    layout: Arc<StateLayout>,
    budget: Budget,
    slots: [Slot; SLOTS],
    /// Tokens after which a state is kept.
    kept: usize,
    /// The slot that the pass in progress reads, if its sequence has begun, and the one it writes.
    pass: (Option<usize>, usize),
}

/// A place for a state.
#[derive(Debug, Clone, Default)]
struct Slot {
    /// `None` in a fork that has not written to it.
    values: Option<Shared<f32>>,
    /// Tokens that the state has seen; `None` if it is none.
    tokens: Option<usize>,
}

/// What a pass reads and writes of a layer's part of a state: its old value, all zeros if there is
/// none, and the place of the new one.
type OldAndNew<'a> = (Option<&'a [f32]>, &'a mut [f32]);

impl State {
    /// The state before the first token; or `MEMORY_CAP`, `OUT_OF_MEMORY`.
    pub fn new(layout: Arc<StateLayout>, budget: &Budget) -> Result<Self> {
        let mut state = Self {
            layout,
            budget: budget.clone(),
            slots: Default::default(),
            kept: 0,
            pass: (None, 0),
        };
        (0..SLOTS).try_for_each(|slot| state.own(slot))?;
        Ok(state)
    }

    /// The same for another sequence, which goes on by itself. A pass in progress is not part of it.
    pub fn fork(&self) -> Self {
        let slot = |slot: &Slot| match slot.tokens {
            Some(_) => slot.clone(),
            None => Slot::default(),
        };
        Self {
            layout: Arc::clone(&self.layout),
            budget: self.budget.clone(),
            slots: self.slots.each_ref().map(slot),
            kept: self.kept,
            pass: (None, 0),
        }
    }

    /// Makes sure that nobody else holds the place of a slot, whose state is lost if someone does.
    fn own(&mut self, slot: usize) -> Result<()> {
        let values = &mut self.slots[slot].values;
        if self.layout.len > 0 && !values.as_ref().is_some_and(Shared::is_alone) {
            *values = Some(self.budget.allocate_shared(Tag::Kv, self.layout.len)?);
        }
        Ok(())
    }

    /// What its slots are charged, in bytes, shared or not.
    pub fn bytes(&self) -> u64 {
        let slots = self.slots.iter().filter(|slot| slot.values.is_some());
        slots.count() as u64 * self.layout.state_charge()
    }

    /// How many of the first `tokens` tokens a sequence need not evaluate again: all, if no layer is
    /// recurrent.
    pub fn reach(&self, tokens: usize) -> usize {
        if self.layout.len == 0 {
            return tokens;
        }
        let held = self.slots.iter().filter_map(|slot| slot.tokens);
        held.filter(|held| *held <= tokens).max().unwrap_or(0)
    }

    /// Keeps the state after `tokens` tokens, if it is there, in place of the one kept before.
    pub fn keep(&mut self, tokens: usize) {
        self.kept = tokens;
    }

    /// Forgets what lies behind the first `tokens` tokens.
    pub fn truncate(&mut self, tokens: usize) {
        for slot in &mut self.slots {
            slot.tokens = slot.tokens.filter(|held| *held <= tokens);
        }
        self.kept = self.kept.min(tokens);
    }

    /// Makes sure that a pass from token number `tokens` on has a place to write to, also if others
    /// hold the one that it would take; or `MEMORY_CAP`, `OUT_OF_MEMORY`.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        self.vacate(self.at(tokens)).map(|_| ())
    }

    /// What a pass from token number `tokens` on writes to, if nobody else holds it.
    pub fn written(&self, tokens: usize) -> Option<&Shared<f32>> {
        self.slots[self.least(self.at(tokens))].values.as_ref()
    }

    /// Begins a pass over tokens from number `tokens` on, which is within [`State::reach`]; or
    /// `MEMORY_CAP`, `OUT_OF_MEMORY`, if nothing was reserved. May be called again before the pass
    /// has written anything.
    pub fn begin(&mut self, tokens: usize) -> Result<()> {
        let from = self.at(tokens);
        let begun = self.layout.len == 0 || tokens == 0 || from.is_some();
        assert!(begun, "there is a state after {tokens} tokens");
        self.pass = (from, self.vacate(from)?);
        Ok(())
    }

    /// The slot of the state after `tokens` tokens.
    fn at(&self, tokens: usize) -> Option<usize> {
        let at = |slot: &Slot| slot.tokens == Some(tokens);
        self.slots.iter().position(at).filter(|_| tokens > 0)
    }

    /// The slot that is missed least of those that are neither `read` nor kept.
    fn least(&self, read: Option<usize>) -> usize {
        let free = |i: &usize| Some(*i) != read && self.slots[*i].tokens != Some(self.kept);
        let least = (0..SLOTS)
            .filter(free)
            .min_by_key(|&i| self.slots[i].tokens);
        least.expect("a slot is neither read nor kept")
    }

    /// The same, with a place that nobody else holds.
    fn vacate(&mut self, read: Option<usize>) -> Result<usize> {
        let to = self.least(read);
        self.slots[to].tokens = None;
        self.own(to)?;
        Ok(to)
    }

    /// Ends a pass, which has written the state after `tokens` tokens.
    pub fn commit(&mut self, tokens: usize) {
        // One that was evaluated again is there twice.
        for slot in &mut self.slots {
            slot.tokens = slot.tokens.filter(|held| *held != tokens);
        }
        self.slots[self.pass.1].tokens = Some(tokens);
    }

    /// The window of a layer as the pass found it; `None`: zeros.
    pub fn window(&self, layer: usize) -> Option<&[f32]> {
        let range = self.layout.layers[layer].0.clone();
        self.pass.0.map(|from| &self.slots[from].values()[range])
    }

    /// The window of a layer as the pass found it, and as it leaves it.
    pub fn windows(&mut self, layer: usize) -> OldAndNew<'_> {
        let range = self.layout.layers[layer].0.clone();
        self.old_and_new(range)
    }

    /// The same of its matrix.
    pub fn matrices(&mut self, layer: usize) -> OldAndNew<'_> {
        let range = self.layout.layers[layer].1.clone();
        self.old_and_new(range)
    }

    fn old_and_new(&mut self, range: Range<usize>) -> OldAndNew<'_> {
        let (from, to) = self.pass;
        let (before, rest) = self.slots.split_at_mut(to);
        let (new, behind) = rest.split_first_mut().expect("a slot of the state");
        let old = from.map(|from| match from < to {
            true => &before[from],
            false => &behind[from - to - 1],
        });
        (
            old.map(|slot| &slot.values()[range.clone()]),
            &mut new.values_mut()[range],
        )
    }

    /// Tokens after which there are states, up to `tokens`, rising.
    pub fn held(&self, tokens: usize) -> Vec<usize> {
        let there = self.slots.iter().filter(|_| self.layout.len > 0);
        let held = there.filter_map(|slot| slot.tokens);
        let mut held: Vec<usize> = held.filter(|held| *held <= tokens).collect();
        held.sort_unstable();
        held
    }

    /// Tokens after which a state is kept, if it is there.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// The state after `tokens` tokens, if it is there, for others to take over.
    pub fn share(&self, tokens: usize) -> Option<Shared<f32>> {
        self.at(tokens).and_then(|at| self.slots[at].values.clone())
    }

    /// Takes over the state after `tokens` tokens of a sequence that begins with the same.
    pub fn take(&mut self, tokens: usize, values: Shared<f32>) {
        assert_eq!(values.len(), self.layout.len, "a state of such a model");
        let to = self.least(self.at(tokens));
        self.slots[to] = Slot {
            values: Some(values),
            tokens: None,
        };
        self.pass.1 = to;
        self.commit(tokens);
    }

    /// A place for the state after `tokens` tokens, which the caller writes; or `MEMORY_CAP`,
    /// `OUT_OF_MEMORY`.
    pub fn receive(&mut self, tokens: usize) -> Result<&mut [f32]> {
        let to = self.vacate(None)?;
        self.slots[to].tokens = Some(tokens);
        Ok(self.slots[to].values_mut())
    }
}

impl Slot {
    fn values(&self) -> &[f32] {
        let values = self.values.as_deref();
        values.expect("a slot with a state has a place for it")
    }

    fn values_mut(&mut self) -> &mut [f32] {
        let values = self.values.as_mut().and_then(Shared::get_mut);
        values.expect("a pass has a place of its own to write to")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let recurrent = StateShape {
            window: 5,
            matrix: 32,
        };
        let shapes = [recurrent, StateShape::default(), recurrent];
        let layout = Arc::new(StateLayout::new(shapes.into_iter()));
        State::new(layout, &Budget::default()).unwrap()
    }

    /// A pass over `tokens`, which leaves the number of its last token in every state.
    fn pass(state: &mut State, tokens: Range<usize>) {
        state.begin(tokens.start).unwrap();
        for layer in [0, 2] {
            let seen = |old: Option<&[f32]>| old.map_or(0.0, |old| old[4]);
            let (old, new) = state.windows(layer);
            assert_eq!((seen(old), new.len()), (tokens.start as f32, 5));
            new.fill(tokens.end as f32);
            let (old, new) = state.matrices(layer);
            assert_eq!((seen(old), new.len()), (tokens.start as f32, 32));
            new.fill(tokens.end as f32);
        }
        state.commit(tokens.end);
    }

    #[test]
    fn a_pass_reads_what_the_one_before_it_wrote() {
        let mut state = state();
        assert_eq!(state.reach(7), 0);
        for end in 1..6 {
            pass(&mut state, 10 * (end - 1)..10 * end);
        }
        assert_eq!(
            [55, 50, 49, 39].map(|tokens| state.reach(tokens)),
            [50, 50, 40, 30]
        );
    }

    #[test]
    fn a_dropped_pass_loses_nothing() {
        let mut state = state();
        pass(&mut state, 0..8);
        state.begin(8).unwrap();
        state.matrices(0).1.fill(-1.0);
        assert_eq!(state.reach(100), 8);
        pass(&mut state, 8..9);
        assert_eq!((state.reach(8), state.reach(9)), (8, 9));
    }

    #[test]
    fn the_begin_of_a_turn_is_kept() {
        let mut state = state();
        pass(&mut state, 0..20);
        state.keep(20);
        for token in 20..40 {
            pass(&mut state, token..token + 1);
        }
        assert_eq!((state.reach(39), state.reach(38)), (39, 20));
        state.truncate(30);
        assert_eq!(state.reach(30), 20);
        pass(&mut state, 20..21);
        state.truncate(7);
        assert_eq!(state.reach(7), 0);
        pass(&mut state, 0..7);
    }

    #[test]
    fn the_last_token_is_evaluated_again_any_number_of_times() {
        let mut state = state();
        pass(&mut state, 0..19);
        pass(&mut state, 19..20);
        for _ in 0..4 {
            state.keep(20);
            assert_eq!(state.reach(19), 19);
            pass(&mut state, 19..20);
        }
        assert_eq!(state.reach(20), 20);
    }

    #[test]
    fn a_state_goes_over_to_another_sequence() {
        let (mut one, mut other) = (state(), state());
        assert!(one.share(0).is_none() && one.held(9).is_empty());
        pass(&mut one, 0..3);
        pass(&mut one, 3..4);
        assert_eq!((one.held(9), one.held(3)), (vec![3, 4], vec![3]));
        pass(&mut other, 0..2);
        other.keep(2);
        other.take(4, one.share(4).unwrap());
        assert_eq!((other.reach(3), other.reach(9)), (2, 4));
        // Each goes on by itself.
        pass(&mut other, 4..5);
        pass(&mut other, 5..6);
        pass(&mut other, 6..7);
        pass(&mut one, 4..9);
        assert_eq!((other.reach(2), other.reach(9), one.reach(9)), (2, 7, 9));
    }

    #[test]
    fn forks_share_states_until_they_write() {
        let mut one = state();
        pass(&mut one, 0..3);
        pass(&mut one, 3..4);
        one.begin(4).unwrap();
        let (all, mut other) = (one.bytes(), one.fork());
        // What the pass writes is not shared.
        assert_eq!(other.bytes(), all / 3 * 2);
        one.matrices(0).1.fill(9.0);
        pass(&mut other, 4..5);
        pass(&mut other, 5..6);
        pass(&mut one, 4..5);
        pass(&mut one, 5..9);
        assert_eq!((one.reach(8), other.reach(8)), (5, 6));
        pass(&mut other, 6..7);
    }

    #[test]
    fn layers_that_are_not_recurrent_cost_nothing() {
        let layout = StateLayout::new([StateShape::default(); 3].into_iter());
        assert_eq!(layout.charge(), 0);
        let mut state = State::new(Arc::new(layout), &Budget::default()).unwrap();
        assert_eq!(state.reach(17), 17);
        state.begin(17).unwrap();
        state.commit(18);
    }
}
