//! Positioned reads from a file, without mapping it: mapped pages would count as the process's memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::WeightError;

/// A file open for positioned reads; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Source {
    file: Arc<File>,
    path: Arc<PathBuf>,
    length: u64,
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let io = |source| WeightError::Io { path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if meta.is_dir() {
            let what = "it is a directory".into();
            return Err(WeightError::WrongFormat { path: path.into(), what });
        }
        Ok(Self { file: Arc::new(file), path: Arc::new(path.into()), length: meta.len() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from byte `offset` on; `what` names it where the file is too short.
    pub fn read(&self, what: &str, offset: u64, buffer: &mut [u8]) -> Result<(), WeightError> {
        let needed = offset.saturating_add(buffer.len() as u64);
        if needed > self.length {
            return Err(self.truncated(what, needed));
        }
        read_exact_at(&self.file, buffer, offset).map_err(|source| self.io(source))
    }

    /// The `length` bytes from `offset` on, or as many as there are.
    pub fn up_to(&self, offset: u64, length: usize) -> Result<Vec<u8>, WeightError> {
        let length = (length as u64).min(self.length.saturating_sub(offset));
        let mut buffer = vec![0; length as usize];
        self.read("the beginning", offset, &mut buffer)?;
        Ok(buffer)
    }

    /// A reader over the whole file.
    pub fn reader(&self) -> SourceReader {
        SourceReader { source: self.clone(), position: 0 }
    }

    pub fn io(&self, source: io::Error) -> WeightError {
        WeightError::Io { path: self.path().into(), source }
    }

    pub fn truncated(&self, what: &str, needed: u64) -> WeightError {
        WeightError::Truncated { path: self.path().into(), what: what.into(), needed, length: self.length }
    }

    pub fn damaged(&self, what: impl Into<String>) -> WeightError {
        WeightError::Damaged { path: self.path().into(), what: what.into() }
    }

    pub fn wrong_format(&self, what: impl Into<String>) -> WeightError {
        WeightError::WrongFormat { path: self.path().into(), what: what.into() }
    }
}

/// `Read + Seek` over a [`Source`], with a position of its own.
#[derive(Debug, Clone)]
pub(super) struct SourceReader {
    source: Source,
    position: u64,
}

impl Read for SourceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.source.length.saturating_sub(self.position);
        let n = (buffer.len() as u64).min(left) as usize;
        read_exact_at(&self.source.file, &mut buffer[..n], self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for SourceReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.source.length.checked_add_signed(n),
            SeekFrom::Current(n) => self.position.checked_add_signed(n),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}
