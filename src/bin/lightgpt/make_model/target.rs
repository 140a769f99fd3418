//! The file that a model is written to. It is written beside its place under another name, and takes
//! the place when it is whole; what a run leaves there that was ended before is removed by the next.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;

use crate::output::Failure;

/// Bytes that are written at once: of small pieces the system would make a file of small pages, from
/// which weights are read a quarter slower as long as it stays in its cache.
const PIECE: usize = 4 << 20;

/// A place where a file is, or where nothing is.
pub struct Target<'a> {
    /// As the user calls it.
    path: &'a Path,
    is_there: bool,
}

impl<'a> Target<'a> {
    /// Refuses what is no file: a folder, device or FIFO is never replaced.
    pub fn new(path: &'a Path) -> Result<Self, Failure> {
        let refuse = |found: &str| {
            let path = path.display();
            let message = format!("{path}: expected a file or nothing, found {found}");
            Err(Failure::Failed(message))
        };
        let is_there = match fs::metadata(path) {
            Ok(found) if found.is_file() => true,
            Ok(found) if found.is_dir() => return refuse("a folder"),
            Ok(_) => return refuse("a device, FIFO or socket"),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Failure::file(path, &error));
            }
            Err(_) if path.is_symlink() => return refuse("a link that leads nowhere"),
            Err(_) => false,
        };
        Ok(Self { path, is_there })
    }

    /// Whether there is a file.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// Writes the file anew. A link stays, and what it leads to is written.
    pub fn write(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let failure = |error: io::Error| Failure::file(self.path, &error);
        let place = match self.is_there {
            true => fs::canonicalize(self.path).map_err(failure)?,
            false => self.path.to_path_buf(),
        };
        if let (Some(folder), Some(name)) = (place.parent(), place.file_name()) {
            remove_parts(folder, Some(name));
        }
        let part = part_of(&place);
        let file = File::create_new(&part).map_err(failure)?;
        // Where there are no locks, nothing is removed either.
        let _ = file.try_lock();
        let mut out = BufWriter::with_capacity(PIECE, file);
        let written = write(&mut out)
            .and_then(|()| out.flush().map_err(failure))
            .and_then(|()| fs::rename(&part, &place).map_err(failure));
        if written.is_err() {
            // What was wrong is told; the half file is of no use.
            let _ = fs::remove_file(&part);
        }
        written
    }
}

/// The name that a file has while it is written.
fn part_of(place: &Path) -> PathBuf {
    let mut part = place.as_os_str().to_owned();
    part.push(format!(".{}.part", process::id()));
    part.into()
}

/// Removes parts of the file called `name`, or of any model, that nobody writes any more: whoever
/// writes one holds its lock.
pub fn remove_parts(folder: &Path, name: Option<&OsStr>) {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_part(&entry.file_name(), name)) {
        let path = entry.path();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether `found` is what [`part_of`] makes of `name`, or of a model's name.
fn is_part(found: &OsStr, name: Option<&OsStr>) -> bool {
    let of = |found: &str| {
        let (whole, id) = found.strip_suffix(".part")?.rsplit_once('.')?;
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = match name {
            Some(name) => name == whole,
            None => whole.ends_with(".gguf"),
        };
        Some(is_id && is_name)
    };
    found.to_str().and_then(of).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_are_parts() {
        let part = |found: &str, name: Option<&str>| is_part(found.as_ref(), name.map(OsStr::new));
        assert!(part("a.gguf.17.part", None) && part("a.gguf.17.part", Some("a.gguf")));
        assert!(part("b.17.part", Some("b")) && !part("b.17.part", None));
        for other in [
            "a.gguf.part",
            "a.gguf..part",
            "a.gguf.x.part",
            "a.gguf.17",
            "a.gguf",
        ] {
            assert!(
                !part(other, None) && !part(other, Some("a.gguf")),
                "{other}"
            );
        }
        assert!(!part("b.gguf.17.part", Some("a.gguf")));
        let made = part_of(Path::new("folder/a.gguf"));
        assert!(is_part(made.file_name().unwrap(), None));
    }
}
