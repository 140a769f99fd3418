//! Model files: GGUF bytes become checked metadata and a tensor directory at this border; below it
//! nothing is read again.
//!
//! [`Gguf::open`] reads a file's head through a private window, holds every count, length and
//! offset against the bytes that are there ([`limits`]), and only then maps (or copies) the tensor
//! data. [`Writer`] makes such files. Source of the format: the GGUF specification, versions 2
//! and 3.

mod cursor;
mod directory;
mod identity;
mod inspect;
pub mod limits;
mod map;
mod metadata;
mod names;
mod parse;
mod source;
mod split;
mod value;
mod write;

use std::fmt;
use std::sync::Arc;

pub use inspect::Inspection;
pub use map::{Borrowed, Bytes};
pub use metadata::Metadata;
pub use source::{ReadAt, Source};
pub use value::{Array, Kind, Strings, Value};
pub use write::Writer;

use crate::budget::Budget;
use crate::control::Control;
use crate::error::{Code, Error, Result};
use crate::pressure;
use crate::quant::Format;

use cursor::reserved;
use map::Region;
use names::Names;
use source::{Progress, Watch};
use split::Part;

/// How the tensor data of a model is made available.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Read it into counted memory instead of mapping it: the file may change afterwards. Owned
    /// memory is used as it is; borrowed memory is handed back before `open` returns; what a
    /// [`ReadAt`] gives is always read.
    pub copy: bool,
    /// Bring every page of a map into memory now rather than at its first use; memory and copies
    /// are there anyway.
    pub prefault: bool,
    /// Keep the pages in physical memory (`mlock`, Unix only); fails when the limit of the process
    /// does not allow it.
    pub mlock: bool,
    /// The account that copies are charged to. By default, one that stays below 80 % of what the
    /// machine and the control group allow.
    pub budget: Budget,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            copy: false,
            prefault: false,
            mlock: false,
            budget: Budget::new(pressure::Watch::machine().cap(), None),
        }
    }
}

/// An open model: its metadata and where its tensors lie. Immutable; any thread.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    names: Names,
    parts: Vec<OpenPart>,
    file_bytes: u64,
}

/// A tensor of an open model.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Its name, unique in the model.
    pub name: Box<str>,
    /// How its values are stored.
    pub format: Format,
    /// Innermost first; those beyond `dimensions` are 1. None is 0, and `dims[0]` is a whole
    /// number of blocks.
    pub dims: [u64; 4],
    /// Number of dimensions in the file, 1 to 4.
    pub dimensions: u32,
    /// The values, rows one behind the other, at any alignment.
    pub bytes: Bytes,
    /// Offset of the bytes in their file.
    pub offset: u64,
    /// The part that holds it, from 0.
    pub part: usize,
}

/// What stays of a part: its region lives in the tensors' bytes, and here for those without any.
#[derive(Debug)]
struct OpenPart {
    place: String,
    _region: Arc<Region>,
    watch: Option<Watch>,
}

impl Gguf {
    /// Opens the model at `source`: of a split model all parts.
    ///
    /// Progress counts bytes copied, prefaulted or else locked; while heads are parsed it is called with
    /// `(0, 0)`. A cancelled call fails with `CANCELLED`; the deadline is not used. Borrowed memory
    /// is released when the call fails.
    ///
    /// # Errors
    /// `FORMAT` for bytes that break a rule, naming key or tensor, offset, expected and found;
    /// `UNSUPPORTED` for versions and sizes this build does not take; `INVALID_ARGUMENT` for what
    /// is not a regular file; `IO`, `OUT_OF_MEMORY`, `MEMORY_CAP`, `CANCELLED`, and
    /// `FILE_CHANGED` for a file that changes during the call.
    pub fn open(
        source: Source<'_>,
        options: &LoadOptions,
        control: &mut Control<'_>,
    ) -> Result<Self> {
        let mut parts = split::open(source, control)?;
        let metadata = std::mem::take(&mut parts[0].head.metadata);
        let version = parts[0].head.version;
        let file_bytes = parts.iter().map(|part| part.input.len()).sum();
        let total = parts
            .iter()
            .map(|part| part.head.data_end() - part.head.data_start)
            .sum();
        let mut progress = Progress {
            control,
            done: 0,
            total,
        };

        let mut tensors = reserved(parts.iter().map(|part| part.head.tensors.len()).sum())?;
        let mut open_parts = reserved(parts.len())?;
        for (number, part) in parts.into_iter().enumerate() {
            open_parts.push(load(part, number, options, &mut progress, &mut tensors)?);
        }
        progress.control.report(total, total)?;
        let names =
            Names::new(&tensors, |tensor: &TensorInfo| &tensor.name)?.map_err(|second| {
                let twin = &tensors[second];
                let place = &open_parts[twin.part].place;
                let tensor = format!("tensor {}", value::quoted(twin.name.as_bytes()));
                let message = format!(
                    "the name is there twice, the second with data at {}",
                    twin.offset
                );
                Error::new(Code::Format, tensor, message).within(place)
            })?;
        Ok(Self {
            version,
            metadata,
            tensors,
            names,
            parts: open_parts,
            file_bytes,
        })
    }

    /// The metadata; of a split model that of its first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in file order, part by part.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let i = self
            .names
            .find(&self.tensors, name, |tensor| &tensor.name)?;
        Some(&self.tensors[i])
    }

    /// The version of the format, 2 or 3; of a split model that of its first part.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes of all files of the model.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Number of files of the model.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Fails with `FILE_CHANGED` if a mapped file was written or truncated since it was opened
    /// (device, inode, size, time of modification): one cheap question to the system per part.
    /// Copies and memory cannot change.
    pub fn check_unchanged(&self) -> Result<()> {
        for part in &self.parts {
            if let Some(watch) = &part.watch {
                watch.check().map_err(|e| e.within(&part.place))?;
            }
        }
        Ok(())
    }

    /// What the file holds, as text: metadata, tensors, and bytes by format.
    pub fn inspect(&self) -> Inspection<'_> {
        Inspection(self)
    }
}

/// Loads part `number` and appends its tensors.
fn load(
    part: Part<'_>,
    number: usize,
    options: &LoadOptions,
    progress: &mut Progress<'_, '_>,
    tensors: &mut Vec<TensorInfo>,
) -> Result<OpenPart> {
    let Part { place, input, head } = part;
    let range = head.data_start..head.data_end();
    // Of the experts of a layer, which stand in one tensor, a token takes a few only.
    let is_all_used = head.tensors.iter().all(|tensor| tensor.dimensions < 3);
    let loaded = input.load((range, is_all_used), options, progress);
    let (region, watch) = loaded.map_err(|e| e.within(&place))?;
    let region = Arc::new(region);
    for tensor in head.tensors {
        let offset = head.data_start + tensor.offset;
        let bytes = Bytes::new(&region, offset, tensor.bytes)
            .expect("the head was checked against the input's length");
        tensors.push(TensorInfo {
            name: tensor.name,
            format: tensor.format,
            dims: tensor.dims,
            dimensions: tensor.dimensions,
            bytes,
            offset,
            part: number,
        });
    }
    Ok(OpenPart {
        place,
        _region: region,
        watch,
    })
}

impl TensorInfo {
    /// Number of values.
    pub fn values(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// `name Q4_0 [4096, 32000]`.
impl fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = &self.dims[..self.dimensions as usize];
        write!(
            f,
            "{} {} {dims:?}",
            self.name.escape_debug(),
            self.format.name()
        )
    }
}
