//! Where a model comes from, and how its bytes are read, copied or mapped.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use super::LoadOptions;
#[cfg(unix)]
use super::map::duplicate;
use super::map::{Borrowed, Memory, Region};
use crate::budget::Tag;
use crate::control::Control;
use crate::error::{Code, Error, Result};

/// Bytes read or touched between two looks at the cancel flag.
const STEP: usize = 1 << 20;

/// How far prefaulting asks ahead of what it touches.
const AHEAD: usize = 8 * STEP;

/// Where a model comes from.
///
/// A file is mapped unless [`LoadOptions::copy`] is set: then it must not be changed or truncated
/// while the model or a view of its tensors lives. Replacing it by renaming another file over it
/// is fine.
#[derive(Debug)]
pub enum Source<'a> {
    /// A regular file; of a split model any of its parts.
    Path(&'a Path),
    /// Memory that becomes the model's.
    Owned(Vec<u8>),
    /// Memory of the caller.
    Borrowed(Borrowed),
    /// `len` bytes from `offset` of an open regular file (Unix only). The descriptor is
    /// duplicated: the caller's own may be closed after the call, and its position does not move.
    Fd {
        /// An open file descriptor.
        fd: i32,
        /// Where the model starts in the file, at any alignment.
        offset: u64,
        /// Bytes of the model.
        len: u64,
    },
    /// `len` bytes that someone else reads. They are copied, whatever the options say.
    Reader {
        /// Who reads; during the call only.
        file: &'a dyn ReadAt,
        /// Bytes of the model.
        len: u64,
    },
}

/// Bytes that can be read at any offset: a part of an archive, or what is compressed or encrypted.
pub trait ReadAt: fmt::Debug {
    /// Reads some bytes, at least one, from `offset` to the begin of `out`, which is not empty; how
    /// many. 0: the bytes end there.
    ///
    /// # Errors
    /// Any; the offset is added to the place.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize>;
}

/// Bytes that can be read at any offset, before it is known what they hold.
#[derive(Debug)]
pub(super) enum Input<'a> {
    File(FileInput),
    Memory(Memory),
    Reader { file: &'a dyn ReadAt, len: u64 },
}

/// A window of a regular file.
#[derive(Debug)]
pub(super) struct FileInput {
    watch: Watch,
    start: u64,
    len: u64,
}

/// A file and what it was like when it was opened.
#[derive(Debug)]
pub(super) struct Watch {
    file: File,
    stamp: Stamp,
}

/// What changes when someone writes to a file.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// Progress of loading: bytes done of all parts' tensor bytes.
#[derive(Debug)]
pub(super) struct Progress<'p, 'c> {
    pub(super) control: &'p mut Control<'c>,
    pub(super) done: u64,
    pub(super) total: u64,
}

impl Progress<'_, '_> {
    fn advance(&mut self, bytes: usize) -> Result<()> {
        self.done += bytes as u64;
        self.control.report(self.done, self.total)
    }
}

impl Input<'_> {
    /// A regular file. A FIFO, directory or device is refused without waiting for it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            // Opening a FIFO would wait for a writer; std adds O_CLOEXEC itself.
            options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        }
        let file = options
            .open(path)
            .map_err(|e| io_error("opening the file", &e))?;
        let watch = Watch::new(file)?;
        let len = watch.stamp.bytes;
        Ok(Self::File(FileInput {
            watch,
            start: 0,
            len,
        }))
    }

    /// A window of the open file `fd`.
    #[cfg(unix)]
    pub(super) fn from_fd(fd: i32, offset: u64, len: u64) -> Result<Self> {
        let file = duplicate(fd).map_err(|e| io_error("duplicating the descriptor", &e))?;
        let watch = Watch::new(file)?;
        let bytes = watch.stamp.bytes;
        if offset.checked_add(len).is_none_or(|end| end > bytes) {
            return Err(Error::new(
                Code::InvalidArgument,
                "",
                format!("{len} bytes at offset {offset} are wanted, the file has {bytes}"),
            ));
        }
        Ok(Self::File(FileInput {
            watch,
            start: offset,
            len,
        }))
    }

    /// Descriptors exist on Unix only.
    #[cfg(not(unix))]
    pub(super) fn from_fd(_: i32, _: u64, _: u64) -> Result<Self> {
        Err(Error::new(
            Code::Unsupported,
            "",
            "this system has no file descriptors",
        ))
    }

    /// Memory that is the model's.
    pub(super) fn owned(bytes: Vec<u8>) -> Self {
        Self::Memory(Memory::Owned(bytes))
    }

    /// Memory of the caller.
    pub(super) fn borrowed(borrowed: Borrowed) -> Self {
        Self::Memory(Memory::Borrowed(borrowed))
    }

    /// Number of bytes.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(input) => input.len,
            Self::Memory(memory) => memory.len() as u64,
            Self::Reader { len, .. } => *len,
        }
    }

    /// Fills `out` from `offset`; the caller has checked that the bytes are there.
    pub(super) fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match self {
            Self::File(input) => input.read_at(offset, out),
            Self::Memory(memory) => {
                let start = usize::try_from(offset).ok();
                let from = start.and_then(|start| memory.get(start..)?.get(..out.len()));
                out.copy_from_slice(from.ok_or_else(shrunk)?);
                Ok(())
            }
            Self::Reader { file, .. } => read_all(*file, offset, out),
        }
    }

    /// Makes the bytes `range`, which lie inside the input, available for as long as the region
    /// lives, as `options` say; whether all are used in the end decides how a map is brought in. The
    /// watch tells whether the file behind a map has changed.
    pub(super) fn load(
        self,
        (range, is_all_used): (Range<u64>, bool),
        options: &LoadOptions,
        progress: &mut Progress<'_, '_>,
    ) -> Result<(Region, Option<Watch>)> {
        let len = usize::try_from(range.end - range.start).map_err(|_| {
            Error::new(
                Code::Unsupported,
                "",
                "the tensors exceed this machine's address space",
            )
        })?;
        let before = progress.done;
        let is_owned = matches!(self, Self::Memory(Memory::Owned(_)));
        let is_read = matches!(self, Self::Reader { .. });
        let (mut region, watch) = if options.copy && !is_owned || is_read {
            (self.copy(range.start, len, options, progress)?, None)
        } else {
            match self {
                Self::Reader { .. } => unreachable!("it was copied"),
                Self::Memory(memory) => (Region::new(memory, 0), None),
                Self::File(_) if len == 0 => (Region::new(Memory::Owned(Vec::new()), 0), None),
                Self::File(input) => {
                    let memory = Memory::map(&input.watch.file, input.start + range.start, len)?;
                    // Extents were checked against the size at opening: it must still hold.
                    input.watch.check()?;
                    if is_all_used {
                        memory.want_large_pages();
                    }
                    if options.prefault {
                        prefault(&memory, progress)?;
                    }
                    (Region::new(memory, range.start), Some(input.watch))
                }
            }
        };
        if options.mlock && len > 0 {
            // What was read or touched on the way is counted already.
            let is_counted = progress.done > before;
            region.lock(|bytes| progress.advance(if is_counted { 0 } else { bytes }))?;
        }
        Ok((region, watch))
    }

    /// Reads `len` bytes from `start` into counted memory; a file that changes meanwhile fails.
    fn copy(
        &self,
        start: u64,
        len: usize,
        options: &LoadOptions,
        progress: &mut Progress<'_, '_>,
    ) -> Result<Region> {
        let mut buffer = options.budget.allocate::<u8>(Tag::Weights, len)?;
        let mut offset = start;
        for piece in buffer.chunks_mut(STEP) {
            self.read_at(offset, piece)?;
            offset += piece.len() as u64;
            progress.advance(piece.len())?;
        }
        if let Self::File(input) = self {
            input.watch.check()?;
        }
        Ok(Region::new(Memory::Copy(buffer), start))
    }
}

/// Fills `out` from `offset` by as many reads as it takes.
fn read_all(file: &dyn ReadAt, mut offset: u64, mut out: &mut [u8]) -> Result<()> {
    while !out.is_empty() {
        let place = |error: Error| error.within(&format!("offset {offset}"));
        let read = file.read_at(offset, out).map_err(place)?;
        let wanted = out.len();
        if read == 0 {
            let message = format!("expected {wanted} more bytes, found the end");
            return Err(place(Error::new(Code::Io, "", message)));
        }
        out = out.get_mut(read..).ok_or_else(|| {
            let message = format!("{wanted} bytes were asked for, the reader says {read}");
            place(Error::new(Code::InvalidArgument, "", message))
        })?;
        offset += read as u64;
    }
    Ok(())
}

/// Brings the pages of a map into memory, with a look at the cancel flag after each step.
fn prefault(memory: &Memory, progress: &mut Progress<'_, '_>) -> Result<()> {
    const PAGE: usize = 4096;
    will_need(memory, 0, AHEAD);
    for (i, piece) in memory.chunks(STEP).enumerate() {
        will_need(memory, i * STEP + AHEAD, STEP);
        for page in piece.chunks(PAGE) {
            std::hint::black_box(page[0]);
        }
        progress.advance(piece.len())?;
    }
    Ok(())
}

/// Asks the system to read `len` bytes from `offset` soon. Not for the whole map at once: the
/// request itself may wait for the disk, and nobody could cancel it.
#[cfg(unix)]
fn will_need(memory: &Memory, offset: usize, len: usize) {
    if let Memory::Map(map) = memory
        && offset < map.len()
    {
        let len = len.min(map.len() - offset);
        // Only a hint: touching the pages is what brings them in.
        let _ = map.advise_range(memmap2::Advice::WillNeed, offset, len);
    }
}

#[cfg(not(unix))]
fn will_need(_: &Memory, _: usize, _: usize) {}

impl FileInput {
    fn read_at(&self, offset: u64, mut out: &mut [u8]) -> Result<()> {
        let mut at = self.start + offset;
        while !out.is_empty() {
            match read_some(&self.watch.file, at, out) {
                Ok(0) => return Err(shrunk()),
                Ok(read) => {
                    at += read as u64;
                    out = &mut out[read..];
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error("reading the file", &e)),
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_some(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

/// Moves the position, which is ours alone: only Unix shares it through a duplicated descriptor.
#[cfg(not(unix))]
fn read_some(mut file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read(out)
}

impl Watch {
    fn new(file: File) -> Result<Self> {
        let (stamp, is_regular) = Stamp::of(&file)?;
        if !is_regular {
            let message = "expected a regular file, found a directory, pipe or device";
            return Err(Error::new(Code::InvalidArgument, "", message));
        }
        Ok(Self { file, stamp })
    }

    /// Fails with `FILE_CHANGED` if the file was written or truncated since it was opened.
    pub(super) fn check(&self) -> Result<()> {
        let (now, _) = Stamp::of(&self.file)?;
        if now == self.stamp {
            return Ok(());
        }
        let (then, now) = (self.stamp.bytes, now.bytes);
        Err(Error::new(
            Code::FileChanged,
            "",
            format!("the file changed while it was open: {then} bytes then, {now} bytes now"),
        ))
    }
}

impl Stamp {
    /// The stamp, and whether the file is a regular one.
    fn of(file: &File) -> Result<(Self, bool)> {
        let data = file
            .metadata()
            .map_err(|e| io_error("asking for the file's size", &e))?;
        #[cfg(unix)]
        let (device, inode) = {
            use std::os::unix::fs::MetadataExt;
            (data.dev(), data.ino())
        };
        #[cfg(not(unix))]
        let (device, inode) = (0, 0);
        let modified = data.modified().ok();
        Ok((
            Self {
                device,
                inode,
                bytes: data.len(),
                modified,
            },
            data.is_file(),
        ))
    }
}

fn io_error(what: &str, error: &io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::OutOfMemory => Code::OutOfMemory,
        _ => Code::Io,
    };
    Error::new(code, "", format!("{what}: {error}"))
}

fn shrunk() -> Error {
    Error::new(
        Code::FileChanged,
        "",
        "the file became shorter while it was read",
    )
}
