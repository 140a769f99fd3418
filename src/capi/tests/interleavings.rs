//! Calls that enter an object against those that free it, in every order in which they can come:
//! `handles.rs` as it is, compiled with the locks of `loom`, which runs each test once for every order
//! and fails one in which all threads wait. Time never ends a wait here: who removes an object asks
//! the calls inside to end once, and not again and again.

#[path = "../handles.rs"]
#[allow(clippy::duplicate_mod)] // with other locks
#[allow(dead_code)] // not all of it is tried
mod handles;

/// What the source finds in place of the locks of std. A table is a constant at first, which loom's
/// locks are not: they are made when they are first used.
mod sync {
    use std::sync::{LockResult, OnceLock};
    use std::time::Duration;

    pub use loom::sync::MutexGuard;

    pub struct Mutex<T> {
        value: std::sync::Mutex<Option<T>>,
        lock: OnceLock<loom::sync::Mutex<T>>,
    }

    impl<T> Mutex<T> {
        pub const fn new(value: T) -> Self {
            Self {
                value: std::sync::Mutex::new(Some(value)),
                lock: OnceLock::new(),
            }
        }

        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            let value = || self.value.lock().unwrap().take().unwrap();
            let lock = self.lock.get_or_init(|| loom::sync::Mutex::new(value()));
            lock.lock()
        }
    }

    pub struct Condvar(OnceLock<loom::sync::Condvar>);

    impl Condvar {
        pub const fn new() -> Self {
            Self(OnceLock::new())
        }

        fn signal(&self) -> &loom::sync::Condvar {
            self.0.get_or_init(loom::sync::Condvar::new)
        }

        pub fn notify_all(&self) {
            self.signal().notify_all();
        }

        /// The time is that of std's.
        pub fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            time: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, loom::sync::WaitTimeoutResult)> {
            self.signal().wait_timeout(guard, time)
        }
    }
}

use std::sync::Arc;

use loom::thread;

use crate::error::{Code, Result};
use handles::{Kind, Table};

const KIND: Kind = Kind::Session;

/// What a handle stands for: whether its calls are asked to end, and what they wait for that with.
type Object = Arc<(loom::sync::Mutex<bool>, loom::sync::Condvar)>;

/// Runs `test` in all orders in which no thread is stopped more than three times.
fn in_all_orders(test: impl Fn(&Arc<Table<Object>>) + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || test(&Arc::new(Table::new())));
}

fn start<R: 'static>(
    table: &Arc<Table<Object>>,
    act: impl FnOnce(&Table<Object>) -> R + 'static,
) -> thread::JoinHandle<R> {
    let table = table.clone();
    thread::spawn(move || act(&table))
}

fn insert(table: &Table<Object>) -> usize {
    table.insert(KIND, Object::default()).unwrap()
}

/// A call that goes on until it is asked to end; whether there was an object.
fn call(table: &Table<Object>, handle: usize) -> bool {
    let entered = match table.enter(KIND, handle) {
        Ok(entered) => entered,
        Err(error) => {
            assert_eq!(error.code(), Code::InvalidHandle);
            return false;
        }
    };
    let (asked, signal) = &**entered.object();
    let mut asked = asked.lock().unwrap();
    while !*asked {
        asked = signal.wait(asked).unwrap();
    }
    true
}

fn remove(table: &Table<Object>, handle: usize, patient: bool) -> Result<Object> {
    table.remove(KIND, handle, patient, |object| {
        let (asked, signal) = &**object;
        *asked.lock().unwrap() = true;
        signal.notify_all();
    })
}

/// Who frees an object waits for the calls inside, which are asked to end, and has the last reference
/// then; a call that comes later finds nothing.
#[test]
fn a_removal_outlives_the_calls() {
    in_all_orders(|table| {
        let handle = insert(table);
        let calls = [0; 2].map(|_| start(table, move |table| call(table, handle)));
        let object = remove(table, handle, true).unwrap();
        assert_eq!(Arc::strong_count(&object), 1);
        assert!(!call(table, handle));
        for call in calls {
            call.join().unwrap();
        }
    });
}

/// Of two that free an object one does, and the other is told that it is gone.
#[test]
fn an_object_is_removed_once() {
    in_all_orders(|table| {
        let handle = insert(table);
        let calling = start(table, move |table| call(table, handle));
        let other = start(table, move |table| remove(table, handle, true).is_ok());
        let own = remove(table, handle, true);
        assert_ne!(own.is_ok(), other.join().unwrap());
        calling.join().unwrap();
    });
}

/// Where nobody may wait, an object in use stays as it is, and a free one goes.
#[test]
fn an_impatient_removal_does_not_wait() {
    in_all_orders(|table| {
        let handle = insert(table);
        let calling = start(table, move |table| call(table, handle));
        match remove(table, handle, false) {
            Ok(object) => assert_eq!(Arc::strong_count(&object), 1),
            Err(error) => {
                assert_eq!(error.code(), Code::Busy);
                assert!(remove(table, handle, true).is_ok());
            }
        }
        calling.join().unwrap();
    });
}

/// A slot that is used again does not know its old handles.
#[test]
fn a_new_object_is_not_the_old_one() {
    in_all_orders(|table| {
        let old = insert(table);
        let calling = start(table, move |table| call(table, old));
        let making = start(table, insert);
        drop(remove(table, old, true).unwrap());
        let new = making.join().unwrap();
        assert!(old != new && !call(table, old));
        calling.join().unwrap();
        assert!(table.enter(KIND, new).is_ok());
    });
}
