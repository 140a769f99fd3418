//! Saved sessions in files.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::kv::refused;
use crate::model::Model;
use crate::session::{Session, SessionOptions};
use crate::team::Team;

impl Session {
    /// As [`Session::save`], to the file at `path`: it is written beside its place, brought to the
    /// disk and then put there, so that whatever happens there is the old file or the new one.
    ///
    /// # Errors
    /// As [`Session::save`].
    pub fn save_file(&self, path: &Path, pages: bool) -> Result<()> {
        let place = |error: Error| error.within(&path.display().to_string());
        let (part, file) = loop {
            let part = part_of(path);
            match File::create_new(&part) {
                // A process with the same number has left it behind.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => break (part, made.map_err(|error| place(refused(&error)))?),
            }
        };
        let mut out = BufWriter::new(file);
        let written = self.save(pages, &mut out).and_then(|()| {
            let synced = out.flush().and_then(|()| out.get_ref().sync_all());
            let moved = synced.and_then(|()| fs::rename(&part, path));
            moved.map_err(|error| refused(&error))
        });
        if written.is_err() {
            // What was wrong is told; the half file is of no use.
            let _ = fs::remove_file(&part);
        }
        written.map_err(place)
    }

    /// As [`Session::restore`], from the file at `path`.
    ///
    /// # Errors
    /// As [`Session::restore`].
    pub fn restore_file(
        model: Arc<Model>,
        team: Arc<Team>,
        options: &SessionOptions,
        path: &Path,
    ) -> Result<Self> {
        let file = File::open(path).map_err(|error| refused(&error));
        file.and_then(|file| Self::restore(model, team, options, &mut BufReader::new(file)))
            .map_err(|error| error.within(&path.display().to_string()))
    }
}

/// A name beside `path` that no other call uses.
fn part_of(path: &Path) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut part = OsString::from(path);
    part.push(format!(".{}-{call}.part", process::id()));
    part.into()
}
