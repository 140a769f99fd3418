//! Large memory: tagged, counted, capped, fallible, 64-byte aligned, from the host's allocator if
//! it gave one.
//!
//! KV pages, scratch, logits and copied weights come from here. Running out is an error
//! (`OUT_OF_MEMORY`, `MEMORY_CAP`), never an abort, and leaves everything as it was.
#![allow(unsafe_code)]

mod shared;

use std::alloc::Layout;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Code, Error, Result};

pub use shared::Shared;

/// Every buffer starts at a multiple of this many bytes: a cache line, and a full vector.
pub const ALIGN: usize = 64;

/// What a buffer is for; memory is counted for each tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Weights that were read instead of mapped.
    Weights,
    /// Pages of keys and values.
    Kv,
    /// Activations of a pass.
    Scratch,
    /// Logits, tables and the like.
    Misc,
}

const TAGS: usize = 4;

/// Where large memory comes from when the host brings its own allocator.
pub trait HostAllocator: Send + Sync {
    /// `bytes` bytes at a multiple of `align`, or `None`. Need not be zeroed. Any thread.
    fn allocate(&self, bytes: usize, align: usize, tag: Tag) -> Option<NonNull<u8>>;

    /// Takes back what `allocate` gave for the same `bytes`, `align` and `tag`.
    ///
    /// # Safety
    /// `memory` came from `allocate` with these arguments and is not used any more.
    unsafe fn release(&self, memory: NonNull<u8>, bytes: usize, align: usize, tag: Tag);
}

/// Numbers whose zero is all zero bits.
///
/// # Safety
/// Zeroed memory is a valid value.
pub unsafe trait Zero: Copy {}

macro_rules! zero {
    ($($type:ty),*) => {$(
        // SAFETY: zero bits are the number 0.
        unsafe impl Zero for $type {}
    )*};
}

zero!(u8, u16, u32, u64, f32, [u8; 2], [f32; 2]);

/// Counts large memory against an optional cap. Clones share one account.
#[derive(Clone, Default)]
pub struct Budget(Arc<Account>);

#[derive(Default)]
struct Account {
    cap: Option<u64>,
    source: Arc<Source>,
    total: AtomicU64,
    peak: AtomicU64,
    by_tag: [AtomicU64; TAGS],
}

/// Where the memory of an account and its siblings comes from.
#[derive(Default)]
struct Source {
    host: Option<Box<dyn HostAllocator>>,
    by_tag: [AtomicU64; TAGS],
}

impl Budget {
    /// An account that refuses to go above `cap` bytes and takes memory from `host`, if given.
    pub fn new(cap: Option<u64>, host: Option<Box<dyn HostAllocator>>) -> Self {
        Self::with_source(
            cap,
            Arc::new(Source {
                host,
                ..Source::default()
            }),
        )
    }

    /// Another account, with a cap of its own, whose memory comes from the same place.
    pub fn sibling(&self, cap: Option<u64>) -> Self {
        Self::with_source(cap, self.0.source.clone())
    }

    fn with_source(cap: Option<u64>, source: Arc<Source>) -> Self {
        Self(Arc::new(Account {
            cap,
            source,
            ..Account::default()
        }))
    }

    /// Whether both share one account.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the memory of both comes from one place.
    pub fn shares_source(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.source, &other.0.source)
    }

    /// The cap in bytes.
    pub fn cap(&self) -> Option<u64> {
        self.0.cap
    }

    /// Bytes in use now.
    pub fn bytes(&self) -> u64 {
        self.0.total.load(Ordering::Relaxed)
    }

    /// The most bytes that were ever in use.
    pub fn bytes_max(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Bytes in use now for one tag.
    pub fn tag_bytes(&self, tag: Tag) -> u64 {
        self.0.by_tag[tag as usize].load(Ordering::Relaxed)
    }

    /// Bytes in use now for one tag, those of all siblings included.
    pub fn family_bytes(&self, tag: Tag) -> u64 {
        self.0.source.by_tag[tag as usize].load(Ordering::Relaxed)
    }

    /// `len` zeros. Memory of the machine is not touched until it is used.
    pub fn allocate<T: Zero>(&self, tag: Tag, len: usize) -> Result<Buffer<T>> {
        // SAFETY: zeroed memory is what `T: Zero` needs to be initialised.
        unsafe { self.zeroed(tag, len) }
    }

    /// `len` copies of `value`.
    pub fn allocate_filled<T: Copy>(&self, tag: Tag, len: usize, value: T) -> Result<Buffer<T>> {
        // SAFETY: every value is written before the buffer is given out, and `T: Copy` drops none.
        let buffer = unsafe { self.zeroed::<T>(tag, len) }?;
        for i in 0..len {
            // SAFETY: the buffer has room for `len` values, aligned for `T`.
            unsafe { buffer.memory.add(i).write(value) };
        }
        Ok(buffer)
    }

    /// # Safety
    /// Zeros are initialised values of `T`, or the caller writes all before it lets anyone read.
    unsafe fn zeroed<T>(&self, tag: Tag, len: usize) -> Result<Buffer<T>> {
        let layout = Layout::array::<T>(len).and_then(|layout| layout.align_to(ALIGN));
        let layout = layout
            .map_err(|_| out_of_memory(usize::MAX))?
            .pad_to_align();
        let mut memory = NonNull::dangling();
        if layout.size() > 0 {
            self.charge(layout.size() as u64, tag)?;
            let taken = self.0.source.take(layout, tag);
            let taken = taken.inspect_err(|_| self.release(layout.size() as u64, tag));
            memory = taken?.cast();
        }
        Ok(Buffer {
            memory,
            len,
            layout,
            tag,
            budget: Some(self.clone()),
        })
    }

    /// What [`Budget::allocate`] charges for `len` values, in bytes.
    pub fn charge_of<T>(len: usize) -> u64 {
        let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
        bytes
            .checked_next_multiple_of(ALIGN as u64)
            .unwrap_or(u64::MAX)
    }

    fn charge(&self, bytes: u64, tag: Tag) -> Result<()> {
        let cap = self.0.cap.unwrap_or(u64::MAX);
        let before = self
            .0
            .total
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |total| {
                total.checked_add(bytes).filter(|&total| total <= cap)
            })
            .map_err(|total| {
                Error::new(
                    Code::MemoryCap,
                    "memory",
                    format!("{bytes} bytes wanted, {total} of the cap of {cap} are in use"),
                )
            })?;
        self.0.peak.fetch_max(before + bytes, Ordering::Relaxed);
        for by_tag in [&self.0.by_tag, &self.0.source.by_tag] {
            by_tag[tag as usize].fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn release(&self, bytes: u64, tag: Tag) {
        self.0.total.fetch_sub(bytes, Ordering::Relaxed);
        for by_tag in [&self.0.by_tag, &self.0.source.by_tag] {
            by_tag[tag as usize].fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

fn out_of_memory(bytes: usize) -> Error {
    let message = format!("no memory for {bytes} bytes");
    Error::new(Code::OutOfMemory, "memory", message)
}

impl Source {
    fn take(&self, layout: Layout, tag: Tag) -> Result<NonNull<u8>> {
        let (bytes, align) = (layout.size(), layout.align());
        let Some(host) = &self.host else {
            return system::take(layout).ok_or_else(|| out_of_memory(bytes));
        };
        let given = host.allocate(bytes, align, tag);
        let memory = given.ok_or_else(|| out_of_memory(bytes))?;
        if !memory.as_ptr().addr().is_multiple_of(align) {
            // SAFETY: given two lines above with the same arguments, and not used.
            unsafe { host.release(memory, bytes, align, tag) };
            let message = format!("the host's allocator gave no multiple of {align}");
            return Err(Error::new(Code::OutOfMemory, "memory", message));
        }
        // SAFETY: the host gave so many bytes.
        unsafe { memory.write_bytes(0, bytes) };
        Ok(memory)
    }

    /// # Safety
    /// `memory` came from [`Source::take`] with the same layout and tag, and is not used any more.
    unsafe fn release(&self, memory: NonNull<u8>, layout: Layout, tag: Tag) {
        match &self.host {
            // SAFETY: promised by the caller.
            Some(host) => unsafe { host.release(memory, layout.size(), layout.align(), tag) },
            // SAFETY: as above.
            None => unsafe { system::release(memory, layout) },
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("bytes", &self.bytes())
            .field("cap", &self.cap())
            .finish()
    }
}

/// A counted, aligned array of fixed length; gives its bytes back when dropped.
pub struct Buffer<T> {
    memory: NonNull<T>,
    len: usize,
    layout: Layout,
    tag: Tag,
    /// `None` in the empty one of `default`.
    budget: Option<Budget>,
}

impl<T> Default for Buffer<T> {
    /// No values, which no memory is taken for.
    fn default() -> Self {
        Self {
            memory: NonNull::dangling(),
            len: 0,
            layout: Layout::new::<()>(),
            tag: Tag::Misc,
            budget: None,
        }
    }
}

// SAFETY: a buffer owns its memory like a `Box<[T]>`; host allocators are `Send + Sync`.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: as above; shared access only reads.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `Budget` initialised `len` values, or `len * size_of::<T>()` is zero.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let (Some(budget), 1..) = (&self.budget, self.layout.size()) {
            // SAFETY: it came from there with this layout and tag, and nobody has it any more.
            unsafe {
                let memory = self.memory.cast::<u8>();
                budget.0.source.release(memory, self.layout, self.tag);
            }
            budget.release(self.layout.size() as u64, self.tag);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("tag", &self.tag)
            .finish()
    }
}

/// Memory of the machine. From [`LARGE`] on it is mapped: a page of keys and values costs no call of
/// the general allocator, does not fragment it, and goes back to the system when it is given up.
mod system {
    use std::alloc::{self, Layout};
    use std::ptr::NonNull;

    /// Bytes from which on memory is mapped, where the system can.
    const LARGE: usize = 32 << 10;
    /// Bytes from which on huge pages are asked for: copied weights, all of which are used.
    #[cfg(target_os = "linux")]
    const HUGE: usize = 32 << 20;

    /// Zeroed memory, of at least one byte.
    pub fn take(layout: Layout) -> Option<NonNull<u8>> {
        match layout.size() >= LARGE {
            true => map(layout),
            // SAFETY: the caller made sure that the size is not zero.
            false => NonNull::new(unsafe { alloc::alloc_zeroed(layout) }),
        }
    }

    /// # Safety
    /// `memory` came from [`take`] with the same layout and is not used any more.
    pub unsafe fn release(memory: NonNull<u8>, layout: Layout) {
        match layout.size() >= LARGE {
            // SAFETY: promised by the caller; `take` mapped it.
            true => unsafe { unmap(memory, layout) },
            // SAFETY: promised by the caller; `take` allocated it.
            false => unsafe { alloc::dealloc(memory.as_ptr(), layout) },
        }
    }

    #[cfg(unix)]
    fn map(layout: Layout) -> Option<NonNull<u8>> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANON;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a new anonymous mapping touches nothing that exists.
        let memory = unsafe { libc::mmap(anywhere, layout.size(), protection, kind, -1, 0) };
        #[cfg(target_os = "linux")]
        if memory != libc::MAP_FAILED && layout.size() >= HUGE {
            // SAFETY: the mapping is new, and this is only a hint.
            unsafe { libc::madvise(memory, layout.size(), libc::MADV_HUGEPAGE) };
        }
        // Mappings begin at a system page, which is a multiple of every alignment used here.
        NonNull::new(memory.cast()).filter(|_| memory != libc::MAP_FAILED)
    }

    /// # Safety
    /// `memory` came from [`map`] with the same layout and is not used any more.
    #[cfg(unix)]
    unsafe fn unmap(memory: NonNull<u8>, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { libc::munmap(memory.as_ptr().cast(), layout.size()) };
    }

    #[cfg(not(unix))]
    fn map(layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: a size of at least `LARGE` is not zero.
        NonNull::new(unsafe { alloc::alloc_zeroed(layout) })
    }

    /// # Safety
    /// `memory` came from [`map`] with the same layout and is not used any more.
    #[cfg(not(unix))]
    unsafe fn unmap(memory: NonNull<u8>, layout: Layout) {
        // SAFETY: promised by the caller.
        unsafe { alloc::dealloc(memory.as_ptr(), layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_aligns() {
        let budget = Budget::default();
        let mut a = budget.allocate::<f32>(Tag::Scratch, 3).unwrap();
        a[2] = 1.0;
        assert_eq!(&a[..], [0.0, 0.0, 1.0]);
        assert!(a.as_ptr().addr().is_multiple_of(ALIGN));
        assert_eq!((budget.bytes(), budget.tag_bytes(Tag::Scratch)), (64, 64));
        drop(a);
        assert_eq!((budget.bytes(), budget.bytes_max()), (0, 64));
    }

    #[test]
    fn refuses_what_the_cap_or_the_machine_cannot_give() {
        let budget = Budget::new(Some(128), None);
        let held = budget.allocate::<u8>(Tag::Kv, 100).unwrap();
        let e = budget.allocate::<u8>(Tag::Kv, 1).unwrap_err();
        assert_eq!(e.code(), Code::MemoryCap);
        drop(held);
        assert!(budget.allocate::<u8>(Tag::Kv, 1).is_ok());
        let e = Budget::default()
            .allocate::<u64>(Tag::Kv, usize::MAX / 4)
            .unwrap_err();
        assert_eq!(e.code(), Code::OutOfMemory);
        assert!(budget.allocate::<u8>(Tag::Kv, 0).unwrap().is_empty());
    }

    #[test]
    fn siblings_have_caps_of_their_own_and_are_counted_together() {
        let budget = Budget::new(Some(128), None);
        let (kept, other) = (Buffer::<u8>::default(), budget.sibling(Some(64)));
        let held = [&budget, &other].map(|budget| budget.allocate::<u8>(Tag::Kv, 64).unwrap());
        assert_eq!((budget.bytes(), other.bytes()), (64, 64));
        assert_eq!(budget.family_bytes(Tag::Kv), 128);
        let refused = other.allocate::<u8>(Tag::Kv, 1).unwrap_err();
        assert_eq!(refused.code(), Code::MemoryCap);
        assert!(budget.allocate::<u8>(Tag::Misc, 64).is_ok() && kept.is_empty());
        drop(held);
        assert_eq!(other.family_bytes(Tag::Kv), 0);
    }

    /// Gives nothing, or memory that does not begin where it should.
    struct Failing(Option<NonNull<u8>>);

    // SAFETY: what it has is never used.
    unsafe impl Send for Failing {}
    // SAFETY: as above.
    unsafe impl Sync for Failing {}

    impl HostAllocator for Failing {
        fn allocate(&self, _: usize, _: usize, _: Tag) -> Option<NonNull<u8>> {
            self.0
        }

        unsafe fn release(&self, memory: NonNull<u8>, bytes: usize, align: usize, tag: Tag) {
            assert_eq!(
                (Some(memory), bytes, align, tag),
                (self.0, 64, ALIGN, Tag::Misc)
            );
        }
    }

    #[test]
    fn a_failing_host_allocator_is_an_error_and_is_not_charged() {
        let crooked = NonNull::<u64>::dangling().cast();
        for (given, told) in [
            (None, "memory: no memory for 64 bytes"),
            (
                Some(crooked),
                "memory: the host's allocator gave no multiple of 64",
            ),
        ] {
            let budget = Budget::new(None, Some(Box::new(Failing(given))));
            let e = budget.allocate::<u8>(Tag::Misc, 10).unwrap_err();
            assert_eq!((e.code(), budget.bytes()), (Code::OutOfMemory, 0));
            assert_eq!(e.to_string(), told);
        }
    }
}
