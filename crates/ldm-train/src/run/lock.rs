//! One process at a time in a run's folder.

use std::fs::{File, TryLockError, create_dir_all};
use std::path::Path;

use super::RunError;

/// Held as long as the run goes on; the system lets go of it however the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Of this folder, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`RunError::Busy`] where another process has it; a file that can't be made.
    pub fn take(folder: &Path) -> Result<Self, RunError> {
        create_dir_all(folder).map_err(RunError::io(folder))?;
        let path = folder.join("lock");
        let file = File::create(&path).map_err(RunError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RunError::Busy { folder: folder.into() }),
            // Some network file systems have none.
            Err(TryLockError::Error(error)) => tracing::warn!("{}: not locked: {error}", path.display()),
        }
        Ok(Self { _file: file })
    }
}
