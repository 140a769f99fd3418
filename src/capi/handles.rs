//! Handles that can be checked: an index, a generation and a kind in the bits of a pointer, never
//! an address.
//!
//! A [`Table`] answers NULL, stale, foreign and double-freed handles without following anything.
//! It counts the calls that are inside an object, so that a removal can wait for them.
//!
//! Locks: each table has one, held for a few instructions and never while the engine or the host
//! runs. The only wait is in [`Table::remove`], which a callback may not enter, so no cycle of
//! waiting calls can form. Tables are constants at start, grow on demand to [`SLOTS_MAX`] slots,
//! and stay until the process ends.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::error::{Code, Error, Result};

/// What a handle stands for; part of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Team = 1,
    Model = 2,
    Sampler = 3,
    Session = 4,
    /// The work that a host's executor was asked to run; lives as long as that request.
    Body = 5,
    BatchQueue = 6,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Team => "team",
            Kind::Model => "model",
            Kind::Sampler => "sampler",
            Kind::Session => "session",
            Kind::Body => "body_data",
            Kind::BatchQueue => "batch_queue",
        }
    }
}

// From the lowest bit: a one (no aligned address is odd), index, generation, kind, mark. With 64
// bits the mark makes every handle an address that no user program of today's CPUs can own.
#[cfg(target_pointer_width = "64")]
mod layout {
    pub const INDEX_BITS: u32 = 16;
    pub const GENERATION_BITS: u32 = 32;
    pub const MARK: usize = 0x4c << 56;
}
#[cfg(not(target_pointer_width = "64"))]
mod layout {
    pub const INDEX_BITS: u32 = 12;
    pub const GENERATION_BITS: u32 = 16;
    pub const MARK: usize = 0;
}
use layout::{GENERATION_BITS, INDEX_BITS, MARK};

/// The most objects that a table holds at a time.
pub(super) const SLOTS_MAX: usize = 1 << INDEX_BITS;
/// How long a removal waits before it asks the calls inside the object once more to end.
const CANCEL_AGAIN: Duration = Duration::from_millis(2);
pub(super) const GENERATION_MASK: usize = ((1u64 << GENERATION_BITS) - 1) as usize;
const KIND_SHIFT: u32 = 1 + INDEX_BITS + GENERATION_BITS;

pub(super) fn pack(kind: Kind, index: usize, generation: usize) -> usize {
    MARK | (kind as usize) << KIND_SHIFT | generation << (1 + INDEX_BITS) | index << 1 | 1
}

/// Index and generation of a handle; the caller checks the rest by packing them again.
pub(super) fn unpack(handle: usize) -> (usize, usize) {
    (
        handle >> 1 & (SLOTS_MAX - 1),
        handle >> (1 + INDEX_BITS) & GENERATION_MASK,
    )
}

/// Objects by handle.
pub(super) struct Table<T> {
    slots: Mutex<Slots<T>>,
    /// Signalled when the last call leaves an object that is being removed.
    left: Condvar,
}

pub(super) struct Slots<T> {
    pub slots: Vec<Slot<T>>,
    /// Oldest first, so that a slot rests as long as possible before its next use.
    free: VecDeque<usize>,
}

pub(super) struct Slot<T> {
    kind: Kind,
    pub generation: usize,
    /// Calls that are inside the object now.
    calls: usize,
    /// `None` while the slot is free or its object is being removed.
    object: Option<T>,
}

impl<T: Clone> Table<T> {
    pub const fn new() -> Self {
        Self {
            slots: Mutex::new(Slots {
                slots: Vec::new(),
                free: VecDeque::new(),
            }),
            left: Condvar::new(),
        }
    }

    /// Gives `object` a handle.
    pub fn insert(&self, kind: Kind, object: T) -> Result<usize> {
        let first = self.first_generation();
        let mut table = self.lock();
        let index = match table.free.pop_front() {
            Some(index) => index,
            None if table.slots.len() < SLOTS_MAX => {
                table.slots.push(Slot {
                    kind,
                    generation: first,
                    calls: 0,
                    object: None,
                });
                table.slots.len() - 1
            }
            None => {
                return Err(Error::new(
                    Code::OutOfMemory,
                    kind.name(),
                    format!("{SLOTS_MAX} handles are in use, the most there can be"),
                ));
            }
        };
        let slot = &mut table.slots[index];
        slot.kind = kind;
        slot.object = Some(object);
        Ok(pack(kind, index, slot.generation))
    }

    /// Begins a call on the object of `handle`; the call ends when the result is dropped.
    pub fn enter(&self, kind: Kind, handle: usize) -> Result<Entered<'_, T>> {
        let mut table = self.lock();
        let index = table.find(kind, handle)?;
        let slot = &mut table.slots[index];
        slot.calls += 1;
        Ok(Entered {
            table: self,
            index,
            object: slot.object.clone(),
        })
    }

    /// Takes the object of `handle` out: the handle is stale at once. If calls are inside the
    /// object, they are told by `cancel` and waited for; with `patient` false that is `BUSY`
    /// instead, and nothing changes.
    pub fn remove(
        &self,
        kind: Kind,
        handle: usize,
        patient: bool,
        cancel: impl Fn(&T),
    ) -> Result<T> {
        let mut table = self.lock();
        let index = table.find(kind, handle)?;
        let slot = &mut table.slots[index];
        if slot.calls > 0 && !patient {
            return Err(Error::new(
                Code::Busy,
                kind.name(),
                "it is in use by a call, and a callback cannot wait for that call's end",
            ));
        }
        let generation = slot.generation;
        slot.generation = (generation + 1) & GENERATION_MASK;
        let object = slot.object.take().expect("find gives only slots in use");
        while table.slots[index].calls > 0 {
            // Again and again: a call may have begun, but not yet what can be cancelled.
            cancel(&object);
            let (held, _) = self
                .left
                .wait_timeout(table, CANCEL_AGAIN)
                .unwrap_or_else(PoisonError::into_inner);
            table = held;
        }
        // A slot whose generations have all been used would make old handles good again. Only that
        // of a body goes on: a call that comes so late helps another phase, which does no harm.
        let used_up = table.slots[index].generation == self.first_generation();
        if !used_up || kind == Kind::Body {
            table.free.push_back(index);
        }
        Ok(object)
    }

    /// Differs from process to process and between two copies of the library in one process, so
    /// that the handles of one mean nothing to the other.
    pub fn first_generation(&self) -> usize {
        let address = std::ptr::from_ref(self).addr() as u64;
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24) as usize & GENERATION_MASK
    }

    pub fn lock(&self) -> MutexGuard<'_, Slots<T>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slots<T> {
    fn find(&self, kind: Kind, handle: usize) -> Result<usize> {
        let (index, generation) = unpack(handle);
        let found = self.slots.get(index).filter(|slot| {
            slot.object.is_some()
                && slot.kind == kind
                && slot.generation == generation
                && handle == pack(kind, index, generation)
        });
        if found.is_some() {
            return Ok(index);
        }
        let message = if handle == 0 {
            "expected a handle, found NULL"
        } else {
            "the handle was freed, is of another kind, or was never made by this library"
        };
        Err(Error::new(Code::InvalidHandle, kind.name(), message))
    }
}

/// A call inside an object.
pub(super) struct Entered<'a, T: Clone> {
    table: &'a Table<T>,
    index: usize,
    object: Option<T>,
}

impl<T: Clone> Entered<'_, T> {
    pub fn object(&self) -> &T {
        self.object.as_ref().expect("taken only by drop")
    }
}

impl<T: Clone> Drop for Entered<'_, T> {
    fn drop(&mut self) {
        // First this reference, then the count: who waits in `remove` gets the last reference.
        drop(self.object.take());
        let mut table = self.table.lock();
        let slot = &mut table.slots[self.index];
        slot.calls -= 1;
        if slot.calls == 0 && slot.object.is_none() {
            self.table.left.notify_all();
        }
    }
}
