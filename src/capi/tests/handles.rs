//! Handles that are stale, foreign, freed twice or in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::capi::handles::{GENERATION_MASK, Kind, SLOTS_MAX, Table, pack, unpack};
use crate::error::{Code, Result};

fn code<T>(result: Result<T>) -> Code {
    result.err().map(|e| e.code()).expect("an error")
}

#[test]
fn only_the_handle_that_was_given_works() {
    let table = Table::new();
    let handle = table.insert(Kind::Model, Arc::new(7)).unwrap();
    assert_eq!(**table.enter(Kind::Model, handle).unwrap().object(), 7);
    let place = std::ptr::from_ref(&table).addr();
    for wrong in [0, 1, place, place | 1, handle ^ 1, handle + 2, usize::MAX] {
        assert_eq!(code(table.enter(Kind::Model, wrong)), Code::InvalidHandle);
    }
    for bit in 0..usize::BITS {
        let wrong = handle ^ 1 << bit;
        assert_eq!(code(table.enter(Kind::Model, wrong)), Code::InvalidHandle);
    }
    assert_eq!(code(table.enter(Kind::Team, handle)), Code::InvalidHandle);
}

#[test]
fn freed_handles_stay_dead_when_their_slot_is_used_again() {
    let table = Table::new();
    let mut old = Vec::new();
    for i in 0..1000 {
        let handle = table.insert(Kind::Session, i).unwrap();
        assert!(!old.contains(&handle));
        assert_eq!(table.remove(Kind::Session, handle, true, |_| {}), Ok(i));
        old.push(handle);
    }
    assert_eq!(table.lock().slots.len(), 1);
    for handle in old {
        assert_eq!(
            code(table.enter(Kind::Session, handle)),
            Code::InvalidHandle
        );
        let again = table.remove(Kind::Session, handle, true, |_| {});
        assert_eq!(code(again), Code::InvalidHandle);
    }
}

#[test]
fn a_slot_is_retired_when_its_generations_are_used_up() {
    for (kind, expected) in [(Kind::Team, 1), (Kind::Body, 0)] {
        let table = Table::new();
        let handle = table.insert(kind, ()).unwrap();
        table.lock().slots[0].generation =
            table.first_generation().wrapping_sub(1) & GENERATION_MASK;
        let last = pack(kind, 0, table.lock().slots[0].generation);
        table.remove(kind, last, true, |()| {}).unwrap();
        assert_eq!(code(table.enter(kind, handle)), Code::InvalidHandle);
        let next = table.insert(kind, ()).unwrap();
        assert_eq!(unpack(next).0, expected);
    }
}

#[test]
fn the_table_is_bounded() {
    let table = Table::new();
    let first = table.insert(Kind::Team, ()).unwrap();
    for _ in 1..SLOTS_MAX {
        table.insert(Kind::Team, ()).unwrap();
    }
    assert_eq!(code(table.insert(Kind::Team, ())), Code::OutOfMemory);
    table.remove(Kind::Team, first, true, |()| {}).unwrap();
    assert!(table.insert(Kind::Team, ()).is_ok());
}

#[test]
fn removal_cancels_and_waits_or_answers_busy() {
    let table = Table::new();
    let flag = Arc::new(AtomicBool::new(false));
    let handle = table.insert(Kind::Session, flag.clone()).unwrap();
    let entered = table.enter(Kind::Session, handle).unwrap();
    let busy = table.remove(Kind::Session, handle, false, |_| {});
    assert_eq!(code(busy), Code::Busy);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while !entered.object().load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let cancel = |flag: &Arc<AtomicBool>| flag.store(true, Ordering::Relaxed);
        let removed = table.remove(Kind::Session, handle, true, cancel).unwrap();
        drop(removed);
        assert_eq!(Arc::strong_count(&flag), 1);
    });
    assert_eq!(
        code(table.enter(Kind::Session, handle)),
        Code::InvalidHandle
    );
}
