//! The memory behind tensors: a read-only map, a counted copy, or memory that the caller brought.
//!
//! [`Bytes`] are views that keep their region alive. The one contract that code here cannot
//! enforce: a *mapped* file and *borrowed* memory must not change while a view lives. A copy has
//! no such contract.
#![allow(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::budget::Buffer;
use crate::error::{Code, Error, Result};

/// Tensor bytes inside a model's region: cheap to clone, valid on any thread for as long as any
/// clone lives, also after the model itself is gone. Dereferences to `&[u8]`; those of a map are
/// as stable as the file, which must not be written or truncated meanwhile (see `Source`).
#[derive(Clone)]
pub struct Bytes {
    region: Arc<Region>,
    offset: usize,
    len: usize,
}

impl Bytes {
    /// `len` bytes from `offset` of the *input* the region was made from, if it holds them.
    pub(super) fn new(region: &Arc<Region>, offset: u64, len: u64) -> Option<Self> {
        let offset = usize::try_from(offset.checked_sub(region.base)?).ok()?;
        let len = usize::try_from(len).ok()?;
        let end = offset.checked_add(len)?;
        (end <= region.memory.len()).then(|| Self {
            region: region.clone(),
            offset,
            len,
        })
    }

    /// The view of `len` bytes from `offset` of this one, if it holds them.
    pub fn view(&self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Self {
            offset: self.offset + offset,
            len,
            ..self.clone()
        })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.region.memory[self.offset..self.offset + self.len]
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let len = bytes.len();
        let region = Arc::new(Region::new(Memory::Owned(bytes), 0));
        Self {
            region,
            offset: 0,
            len,
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len)
    }
}

/// Bytes locked between two reports.
#[cfg(unix)]
const LOCK_STEP: usize = 16 << 20;

/// One piece of memory that holds tensors of one part of a model.
#[derive(Debug)]
pub(super) struct Region {
    /// Declared first: memory is unlocked before it goes.
    lock: Option<Lock>,
    memory: Memory,
    /// Offset in the input of the region's first byte.
    base: u64,
}

impl Region {
    /// `memory` starts at offset `base` of the input.
    pub(super) fn new(memory: Memory, base: u64) -> Self {
        Self {
            lock: None,
            memory,
            base,
        }
    }

    /// Keeps the region in physical memory until it is dropped. `advance` is told of the bytes of
    /// each step, and may end it.
    pub(super) fn lock(&mut self, advance: impl FnMut(usize) -> Result<()>) -> Result<()> {
        self.lock = Some(Lock::new(&self.memory, advance)?);
        Ok(())
    }
}

/// Who owns the bytes.
#[derive(Debug)]
pub(super) enum Memory {
    Map(Mmap),
    Copy(Buffer<u8>),
    Owned(Vec<u8>),
    Borrowed(Borrowed),
}

impl Memory {
    /// Maps `len` bytes of `file` from `offset` (of any alignment), which the caller has found to
    /// lie inside the file.
    pub(super) fn map(file: &File, offset: u64, len: usize) -> Result<Self> {
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        // SAFETY: the map is read-only; that the file does not change meanwhile is the contract
        // that `Source` states, and COPY is there for callers who cannot keep it.
        let map = unsafe { options.map(file) }.map_err(|e| {
            let message = format!("mapping {len} bytes from offset {offset}: {e}");
            Error::new(Code::Io, "", message)
        })?;
        Ok(Self::Map(map))
    }

    /// Asks that what is not in the system's cache yet is read in large pieces, and into huge pages,
    /// which are faster to use. Only a hint: not every file system has them.
    pub(super) fn want_large_pages(&self) {
        #[cfg(target_os = "linux")]
        if let Self::Map(map) = self {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Copy(buffer) => buffer,
            Self::Owned(bytes) => bytes,
            Self::Borrowed(borrowed) => borrowed,
        }
    }
}

/// Memory of the caller, handed back by a function of the caller.
pub struct Borrowed {
    memory: *const u8,
    len: usize,
    /// `Some` until dropped.
    release: Option<Box<dyn FnOnce() + Send>>,
}

impl Borrowed {
    /// `len` bytes at `memory` (which may be NULL when `len` is 0). `release` is called exactly
    /// once, on whatever thread drops the last user: the model, a view, or a failed open.
    ///
    /// # Safety
    /// Until `release` is called the bytes stay readable and unchanged, from any thread.
    pub unsafe fn new(memory: *const u8, len: usize, release: Box<dyn FnOnce() + Send>) -> Self {
        Self {
            memory,
            len,
            release: Some(release),
        }
    }
}

// SAFETY: the bytes may be read from any thread (contract of `new`), and `release` is `Send`.
unsafe impl Send for Borrowed {}
// SAFETY: shared access only reads the bytes; `release` is touched by `drop` alone.
unsafe impl Sync for Borrowed {}

impl Deref for Borrowed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `new` demands `len` readable, unchanging bytes until `release` runs in `drop`.
        unsafe { std::slice::from_raw_parts(self.memory, self.len) }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release();
        }
    }
}

impl fmt::Debug for Borrowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Borrowed({})", self.len)
    }
}

/// Pages held in physical memory.
#[cfg(unix)]
#[derive(Debug)]
struct Lock {
    address: usize,
    len: usize,
}

#[cfg(unix)]
impl Lock {
    /// The memory must outlive the lock. Locking reads what is not in memory yet, which takes long:
    /// hence in steps.
    fn new(memory: &[u8], mut advance: impl FnMut(usize) -> Result<()>) -> Result<Self> {
        // SAFETY: asks for a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(page)
            .ok()
            .filter(|p| p.is_power_of_two())
            .unwrap_or(4096);
        // Dropped on the way out of a failure, it unlocks what was locked before.
        let mut lock = Self {
            address: memory.as_ptr().addr() & !(page - 1),
            len: 0,
        };
        for piece in memory.chunks(LOCK_STEP) {
            let end = piece.as_ptr().addr() + piece.len();
            let from = piece.as_ptr().addr() & !(page - 1);
            // SAFETY: the pages of `memory` are mapped, and locking does not change what they hold.
            if unsafe { libc::mlock(from as *const libc::c_void, end - from) } != 0 {
                let reason = std::io::Error::last_os_error();
                let (len, limit) = (memory.len(), limit());
                let message = format!(
                    "locking {len} bytes: {reason}; the limit RLIMIT_MEMLOCK (ulimit -l) is {limit}"
                );
                return Err(Error::new(Code::OutOfMemory, "mlock", message));
            }
            lock.len = end - lock.address;
            advance(piece.len())?;
        }
        Ok(lock)
    }
}

/// The soft limit of locked memory, for a message.
#[cfg(unix)]
fn limit() -> String {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer.
    match unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } {
        0 if limit.rlim_cur == libc::RLIM_INFINITY => "unlimited".into(),
        0 => format!("{} bytes", limit.rlim_cur),
        _ => "unknown".into(),
    }
}

#[cfg(unix)]
impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: `new` locked these pages, if any, and they are still mapped.
        unsafe { libc::munlock(self.address as *const libc::c_void, self.len) };
    }
}

/// No memory is ever locked here.
#[cfg(not(unix))]
#[derive(Debug)]
enum Lock {}

#[cfg(not(unix))]
impl Lock {
    fn new(_: &[u8], _: impl FnMut(usize) -> Result<()>) -> Result<Self> {
        Err(Error::new(
            Code::Unsupported,
            "mlock",
            "this system has no mlock",
        ))
    }
}

/// A file of our own for the descriptor `fd`, which stays the caller's.
#[cfg(unix)]
pub(super) fn duplicate(fd: i32) -> std::io::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: a descriptor that is not open is answered with an error.
    let own = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if own < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: `own` is a new descriptor that nothing else knows.
    Ok(unsafe { File::from_raw_fd(own) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn borrowed_memory_is_released_once_by_its_last_user() {
        static DATA: [u8; 4] = [1, 2, 3, 4];
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let release = Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        // SAFETY: a static lives for ever and does not change.
        let borrowed = unsafe { Borrowed::new(DATA.as_ptr(), DATA.len(), release) };
        let region = Arc::new(Region::new(Memory::Borrowed(borrowed), 10));
        let bytes = Bytes::new(&region, 11, 3).unwrap();
        assert!(Bytes::new(&region, 9, 1).is_none());
        assert!(Bytes::new(&region, 12, 3).is_none());
        assert!(Bytes::new(&region, 11, u64::MAX).is_none());
        drop(region);
        let view = bytes.view(1, 2).unwrap();
        assert!(bytes.view(2, 2).is_none());
        drop(bytes);
        assert_eq!((&view[..], count.load(Ordering::Relaxed)), (&[3, 4][..], 0));
        drop(view);
        assert_eq!(count.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn null_with_no_bytes_is_empty() {
        // SAFETY: no byte is claimed.
        let borrowed = unsafe { Borrowed::new(std::ptr::null(), 0, Box::new(|| ())) };
        assert!(borrowed.is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn locking_works_or_names_the_limit() {
        let mut region = Region::new(Memory::Owned(vec![7; 100]), 0);
        match region.lock(|_| Ok(())) {
            Ok(()) => assert!(region.lock.is_some()),
            Err(e) => assert!(e.to_string().contains("RLIMIT_MEMLOCK"), "{e}"),
        }
        assert!(!limit().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn locking_reports_each_step_and_heeds_a_cancel() {
        const LEN: usize = 2 * LOCK_STEP + 1;
        let region = || Region::new(Memory::Owned(vec![7; LEN]), 0);
        let (mut done, mut steps) = (0, 0);
        let count = |bytes| {
            (done, steps) = (done + bytes, steps + 1);
            Ok(())
        };
        match region().lock(count) {
            Ok(()) => assert_eq!((done, steps), (LEN, 3)),
            Err(e) => assert!(e.to_string().contains("RLIMIT_MEMLOCK"), "{e}"),
        }
        let mut cancelled = region();
        let outcome = cancelled.lock(|_| Err(crate::control::cancelled()));
        let code = outcome.unwrap_err().code();
        assert!(code == Code::Cancelled || code == Code::OutOfMemory);
        assert!(cancelled.lock.is_none());
    }
}
