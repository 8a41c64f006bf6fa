//! Checkpoints that are whole or absent.
//!
//! A checkpoint is a folder, written under a temporary name, flushed to the disk and then renamed; one that is
//! dropped is renamed before it is deleted. So whatever kills the process, each folder under its final name
//! is whole.

mod read;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use ldm_nn::weights::Entry;

pub use read::Checkpoint;
pub use write::CheckpointWriter;

use crate::RunError;

/// The format of `state.json`; a checkpoint of another one is refused.
const VERSION: u64 = 1;
/// Ends the name of a folder that is not, or no more, a checkpoint.
const PART: &str = ".part";
const PREFIX: &str = "step_";

/// The checkpoints of one run: folders `step_0000001000`, the last few of which are kept.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    root: PathBuf,
    keep: usize,
}

impl Checkpoints {
    /// The checkpoints in `root`, which is made if need be; what a killed process left unfinished is removed.
    ///
    /// # Errors
    ///
    /// A folder that can't be made, read or cleaned.
    pub fn open(root: impl Into<PathBuf>, keep: usize) -> Result<Self, RunError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(RunError::io(&root))?;
        let checkpoints = Self { root, keep: keep.max(1) };
        for entry in fs::read_dir(&checkpoints.root).map_err(RunError::io(&checkpoints.root))? {
            let path = entry.map_err(RunError::io(&checkpoints.root))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(PREFIX) && name.ends_with(PART) {
                fs::remove_dir_all(&path).map_err(RunError::io(&path))?;
            }
        }
        Ok(checkpoints)
    }

    /// Steps and folders of the checkpoints that are there, the first step first.
    ///
    /// # Errors
    ///
    /// A folder that can't be read.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>, RunError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(RunError::io(&self.root))? {
            let path = entry.map_err(RunError::io(&self.root))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(step) = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok()) {
                found.push((step, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The last checkpoint, if there is one.
    ///
    /// # Errors
    ///
    /// A checkpoint that can't be read or is of another format.
    pub fn latest(&self) -> Result<Option<Checkpoint>, RunError> {
        self.list()?.pop().map(|(_, path)| Checkpoint::open(path)).transpose()
    }

    /// Writes the checkpoint of `step` (the number of steps that are done) and drops the oldest ones.
    ///
    /// # Errors
    ///
    /// [`RunError::Save`]; what was written of it is removed, and all others are as they were.
    pub fn save(
        &self,
        step: u64,
        write: impl FnOnce(&mut CheckpointWriter) -> Result<(), RunError>,
    ) -> Result<PathBuf, RunError> {
        let path = self.root.join(format!("{PREFIX}{step:010}"));
        let part = part_of(&path);
        let written = self.write(step, &path, &part, write);
        if let Err(error) = written {
            // The error that brought us here is the one to report.
            let _ = fs::remove_dir_all(&part);
            let source = match error {
                RunError::Io { source, .. } => source.into(),
                other => other.into(),
            };
            return Err(RunError::Save { path, step, source });
        }
        let list = self.list()?;
        for (_, old) in &list[..list.len().saturating_sub(self.keep)] {
            remove(old)?;
        }
        Ok(path)
    }

    fn write(
        &self,
        step: u64,
        path: &Path,
        part: &Path,
        write: impl FnOnce(&mut CheckpointWriter) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        fs::create_dir_all(part).map_err(RunError::io(part))?;
        let mut writer = CheckpointWriter::new(part.into(), step);
        write(&mut writer)?;
        writer.finish()?;
        sync_folder(part).map_err(RunError::io(part))?;
        if path.exists() {
            // The same step once more, after a resume from an earlier one.
            remove(path)?;
        }
        fs::rename(part, path).map_err(RunError::io(path))?;
        sync_folder(&self.root).map_err(RunError::io(&self.root))
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(PART);
    path.with_file_name(name)
}

/// Removes a checkpoint such that no half of it is ever found under its name.
fn remove(path: &Path) -> Result<(), RunError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".old{PART}"));
    let gone = path.with_file_name(name);
    fs::rename(path, &gone).map_err(RunError::io(path))?;
    fs::remove_dir_all(&gone).map_err(RunError::io(&gone))
}

/// Brings a folder's entries to the disk, where the system has that.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(unix) { fs::File::open(path)?.sync_all() } else { Ok(()) }
}

/// In a checkpoint, parameters have their own paths as names.
fn own_paths(path: &str) -> Option<Entry> {
    Some(Entry::same(path))
}
