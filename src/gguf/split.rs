//! Split models: `NAME-00001-of-000NN.gguf` and its siblings in the same directory.
//!
//! A file says in `split.count` that it is one of several. Where the others lie follows from its
//! own name alone, never from anything a file holds: nothing outside its directory is opened.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::cursor::reserved;
use super::limits::{PARTS_MAX, TENSORS_MAX};
use super::metadata::Metadata;
use super::parse::Head;
use super::source::{Input, Source};
use crate::control::Control;
use crate::error::{Code, Error, Result};

const COUNT_KEY: &str = "split.count";
const NUMBER_KEY: &str = "split.no";
const TENSORS_KEY: &str = "split.tensors.count";

/// One file of a model, parsed but not loaded.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// The path, or what else the source was; the outer place of errors.
    pub(super) place: String,
    pub(super) input: Input<'a>,
    pub(super) head: Head,
}

/// Opens and parses all parts of the model at `source`, in order.
pub(super) fn open<'a>(source: Source<'a>, control: &mut Control<'_>) -> Result<Vec<Part<'a>>> {
    let (place, input) = match source {
        Source::Path(path) => return open_path(path, control),
        Source::Owned(bytes) => ("memory", Input::owned(bytes)),
        Source::Borrowed(borrowed) => ("memory", Input::borrowed(borrowed)),
        Source::Reader { file, len } => ("reader", Input::Reader { file, len }),
        Source::Fd { fd, offset, len } => {
            let input = Input::from_fd(fd, offset, len);
            (
                "file descriptor",
                input.map_err(|e| e.within("file descriptor"))?,
            )
        }
    };
    let part = Part::parse(place.into(), input, control)?;
    if count(&part.head.metadata).map_err(|e| e.within(place))? > 1 {
        let message = "a split model can only be opened by the path of one of its parts";
        let key = part.head.metadata.place(COUNT_KEY);
        let error = Error::new(Code::Unsupported, key, message);
        return Err(error.within(place));
    }
    Ok(vec![part])
}

fn open_path(path: &Path, control: &mut Control<'_>) -> Result<Vec<Part<'static>>> {
    let opened = Part::open(path, control)?;
    let place = opened.place.clone();
    let count = count(&opened.head.metadata).map_err(|e| e.within(&place))?;
    if count <= 1 {
        return Ok(vec![opened]);
    }
    let name = PartName::of(path, count).map_err(|e| e.within(&place))?;
    let mut parts = reserved(count as usize)?;
    let mut opened = Some(opened);
    for number in 1..=count {
        // The part that was opened by name is not opened twice.
        let part = match opened.take_if(|_| number == name.number) {
            Some(part) => part,
            None => Part::open(&name.sibling(number), control)?,
        };
        check_part(&part.head.metadata, number, count).map_err(|e| e.within(&part.place))?;
        parts.push(part);
    }
    check_total(&parts)?;
    Ok(parts)
}

impl<'a> Part<'a> {
    fn open(path: &Path, control: &mut Control<'_>) -> Result<Self> {
        let place = path.display().to_string();
        let input = Input::open(path).map_err(|e| e.within(&place))?;
        Self::parse(place, input, control)
    }

    fn parse(place: String, input: Input<'a>, control: &mut Control<'_>) -> Result<Self> {
        let head = Head::parse(&input, control).map_err(|e| e.within(&place))?;
        Ok(Self { place, input, head })
    }
}

/// The parts that a file says its model has: 1 unless it is split.
fn count(metadata: &Metadata) -> Result<u32> {
    let count = metadata.u64(COUNT_KEY)?.unwrap_or(1).max(1);
    let number = metadata.u64(NUMBER_KEY)?.unwrap_or(0);
    if number >= count {
        let message = format!("expected below {count}, found {number}");
        return Err(metadata.error(NUMBER_KEY, message));
    }
    u32::try_from(count)
        .ok()
        .filter(|&count| count <= PARTS_MAX)
        .ok_or_else(|| {
            let message = format!("expected {PARTS_MAX} parts at most, found {count}");
            Error::new(Code::Unsupported, metadata.place(COUNT_KEY), message)
        })
}

/// A part must know that it is number `number` (from 1) of `count`.
fn check_part(metadata: &Metadata, number: u32, count: u32) -> Result<()> {
    for (key, expected) in [(COUNT_KEY, count), (NUMBER_KEY, number - 1)] {
        let found = metadata.required(key, Metadata::u64)?;
        if found != u64::from(expected) {
            let message = format!("expected {expected}, found {found}");
            return Err(metadata.error(key, message));
        }
    }
    Ok(())
}

/// The parts together must hold as many tensors as the first one says.
fn check_total(parts: &[Part<'_>]) -> Result<()> {
    let first = &parts[0];
    let found: u64 = parts
        .iter()
        .map(|part| part.head.tensors.len() as u64)
        .sum();
    let expected = first.head.metadata.u64(TENSORS_KEY);
    let expected = expected
        .map_err(|e| e.within(&first.place))?
        .unwrap_or(found);
    if found != expected {
        let message = format!("expected {expected} tensors in all parts, found {found}");
        let error = first.head.metadata.error(TENSORS_KEY, message);
        return Err(error.within(&first.place));
    }
    if found > TENSORS_MAX {
        let message = format!("expected {TENSORS_MAX} tensors at most, found {found}");
        return Err(Error::new(Code::Unsupported, "tensor count", message).within(&first.place));
    }
    Ok(())
}

/// The name of a part taken to pieces: `STEM-00002-of-00003.gguf`.
#[derive(Debug)]
struct PartName<'p> {
    directory: &'p Path,
    stem: OsString,
    number: u32,
    count: u32,
}

impl<'p> PartName<'p> {
    /// The name of the part at `path`, which says that there are `count`.
    fn of(path: &'p Path, count: u32) -> Result<Self> {
        let parsed = (|| {
            let rest = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
            let (rest, total) = rest.rsplit_once("-of-")?;
            let (stem, number) = rest.rsplit_once('-')?;
            let (number, total) = (digits(number)?, digits(total)?);
            (total == count && (1..=count).contains(&number)).then_some((stem, number))
        })();
        let Some((stem, number)) = parsed else {
            let message = format!("a part of {count} must be called NAME-00001-of-{count:05}.gguf");
            return Err(Error::new(Code::Format, "file name", message));
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        Ok(Self {
            directory,
            stem: stem.into(),
            number,
            count,
        })
    }

    fn sibling(&self, number: u32) -> PathBuf {
        let mut name = self.stem.clone();
        name.push(format!("-{number:05}-of-{:05}.gguf", self.count));
        self.directory.join(name)
    }
}

/// A number of exactly five digits.
fn digits(text: &str) -> Option<u32> {
    let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_follow_from_the_name() {
        let name = PartName::of(Path::new("d/a-b-00002-of-00003.gguf"), 3).unwrap();
        assert_eq!(name.number, 2);
        assert_eq!(name.sibling(1), Path::new("d/a-b-00001-of-00003.gguf"));
        for wrong in [
            "a-00002-of-00004.gguf",
            "a-00004-of-00003.gguf",
            "a-00000-of-00003.gguf",
            "a-2-of-00003.gguf",
            "a-+0002-of-00003.gguf",
            "a.gguf",
            "..",
        ] {
            assert_eq!(
                PartName::of(Path::new(wrong), 3).unwrap_err().code(),
                Code::Format
            );
        }
    }
}
