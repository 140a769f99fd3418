//! A buffer with several owners: copying one owner is adding one to a count.
//!
//! The count lies in front of the values in the same counted memory, so that a page of keys and
//! values is one allocation, shared or not.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::budget::{ALIGN, Budget, Buffer, Tag, Zero};
use crate::error::Result;

/// A counted, aligned array of fixed length. All owners read it; one that is alone may write it.
/// The last one gives its bytes back.
pub struct Shared<T> {
    head: NonNull<Head>,
    values: PhantomData<T>,
}

/// What lies in front of the values.
#[repr(C, align(64))]
struct Head {
    owners: AtomicUsize,
    /// All the memory, this head included.
    memory: Buffer<u8>,
}

const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES.is_multiple_of(ALIGN) && align_of::<Head>() <= ALIGN);

// SAFETY: like an `Arc<[T]>`, which reads from any thread and drops on any.
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl Budget {
    /// `len` zeros with one owner.
    pub fn allocate_shared<T: Zero>(&self, tag: Tag, len: usize) -> Result<Shared<T>> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let bytes = len.saturating_mul(size_of::<T>());
        let memory = self.allocate::<u8>(tag, bytes.saturating_add(HEAD_BYTES))?;
        let head = memory.memory.cast::<Head>();
        let owners = AtomicUsize::new(1);
        // SAFETY: the buffer begins at a multiple of `ALIGN` and has room for a head.
        unsafe { head.write(Head { owners, memory }) };
        Ok(Shared {
            head,
            values: PhantomData,
        })
    }

    /// What [`Budget::allocate_shared`] charges for `len` values, in bytes.
    pub fn charge_of_shared<T>(len: usize) -> u64 {
        Self::charge_of::<T>(len).saturating_add(HEAD_BYTES as u64)
    }
}

impl<T: Zero> Shared<T> {
    /// The values, if nobody else owns them.
    pub fn get_mut(&mut self) -> Option<&mut [T]> {
        // SAFETY: there is no other owner, and `&mut self` keeps this one from making one.
        self.is_alone()
            .then(|| unsafe { std::slice::from_raw_parts_mut(self.values(), self.len()) })
    }

    /// Whether nobody else owns them. If so, that stays until this owner is cloned.
    pub fn is_alone(&self) -> bool {
        self.owners() == 1
    }

    /// How many own them; others may come and go meanwhile.
    pub fn owners(&self) -> usize {
        // Acquire: what other owners have read is read before this one writes, if it is alone.
        self.head().owners.load(Ordering::Acquire)
    }

    /// Whether `other` owns the same values.
    pub fn is(&self, other: &Self) -> bool {
        self.head == other.head
    }

    /// The account that it is charged to.
    pub fn budget(&self) -> &Budget {
        let budget = self.head().memory.budget.as_ref();
        budget.expect("the head is in memory of an account")
    }

    fn head(&self) -> &Head {
        // SAFETY: written by `allocate_shared`, and there as long as an owner is.
        unsafe { self.head.as_ref() }
    }

    fn values(&self) -> *mut T {
        // SAFETY: the values begin behind the head, in the same memory.
        unsafe { self.head.as_ptr().add(1).cast() }
    }
}

impl<T: Zero> Deref for Shared<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let len = (self.head().memory.len - HEAD_BYTES) / size_of::<T>();
        // SAFETY: so many values are behind the head, zeroed or written since; they are aligned,
        // being at a multiple of `ALIGN`. Who writes them is their only owner.
        unsafe { std::slice::from_raw_parts(self.values(), len) }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // SAFETY: as in `head`.
        let head = unsafe { self.head.as_ref() };
        // It cannot overflow: every owner takes 8 bytes of memory.
        head.owners.fetch_add(1, Ordering::Relaxed);
        Self {
            head: self.head,
            values: PhantomData,
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let head = self.head.as_ptr();
        // SAFETY: the head is there as long as an owner is.
        if unsafe { (*head).owners.fetch_sub(1, Ordering::Release) } == 1 {
            // What the others have done with it comes before it goes.
            fence(Ordering::Acquire);
            // SAFETY: this was the last owner. The buffer is taken out of the head first, because
            // the head lies in the memory that it gives back.
            drop(unsafe { ptr::read(&raw const (*head).memory) });
        }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: as in `head`.
        let head = unsafe { self.head.as_ref() };
        f.debug_struct("Shared")
            .field("owners", &head.owners.load(Ordering::Relaxed))
            .field("memory", &head.memory)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn one_owner_writes_and_many_read() {
        let budget = Budget::default();
        let mut one = budget.allocate_shared::<f32>(Tag::Kv, 5).unwrap();
        assert_eq!(budget.bytes(), Budget::charge_of_shared::<f32>(5));
        assert!(one.as_ptr().addr().is_multiple_of(ALIGN));
        one.get_mut().unwrap()[4] = 2.0;
        let other = one.clone();
        assert!(one.get_mut().is_none() && !other.is_alone());
        assert_eq!(&other[..], [0.0, 0.0, 0.0, 0.0, 2.0]);
        drop(other);
        one.get_mut().unwrap()[0] = 1.0;
        assert_eq!(one[0], 1.0);
        drop(one);
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn the_last_of_many_threads_gives_it_back() {
        let budget = Budget::default();
        for _ in 0..200 {
            let first = budget.allocate_shared::<u8>(Tag::Kv, 100).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    let mut own = first.clone();
                    scope.spawn(move || {
                        for _ in 0..20 {
                            assert_eq!(own.iter().map(|&x| u32::from(x)).sum::<u32>(), 0);
                            own = own.clone();
                        }
                    });
                }
                drop(first);
            });
            assert_eq!(budget.bytes(), 0);
        }
    }

    #[test]
    fn what_cannot_be_given_is_refused() {
        let capped = Budget::new(Some(128), None);
        let refused = |len| {
            let outcome = capped.allocate_shared::<u8>(Tag::Kv, len);
            outcome.err().map(|e| e.code())
        };
        assert_eq!(refused(64), None);
        assert_eq!(refused(65), Some(Code::MemoryCap));
        assert_eq!(refused(usize::MAX), Some(Code::OutOfMemory));
        assert_eq!(refused(usize::MAX / 8), Some(Code::MemoryCap));
        assert_eq!(capped.bytes(), 0);
    }
}
