//! Bytes of a file that hold the elements of one or several tensors.

use std::ops::Range;
use std::sync::Arc;

use super::WeightError;
use super::source::Source;

/// Bytes of a file that hold the elements of one or several tensors.
#[derive(Debug)]
pub(super) struct Storage {
    source: Source,
    start: u64,
    length: u64,
}

/// Where a tensor's elements lie in a [`Storage`].
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub storage: Arc<Storage>,
    /// In elements, from the storage's start.
    pub offset: usize,
    /// In elements, an axis each; `None` for a contiguous tensor.
    pub strides: Option<Vec<usize>>,
}

impl Storage {
    /// Bytes that lie in the file as they are.
    pub fn plain(source: Source, start: u64, length: u64) -> Self {
        Self { source, start, length }
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// That the byte ranges lie in the storage.
    pub fn check(&self, name: &str, ranges: &[Range<u64>]) -> Result<(), WeightError> {
        match ranges.iter().all(|range| range.start <= range.end && range.end <= self.length) {
            true => Ok(()),
            false => Err(self.source.damaged(format!("{name} reaches beyond its storage"))),
        }
    }

    /// Reads the byte ranges, which have been checked, one after another into `buffer`, which they fill.
    pub fn read(&self, name: &str, ranges: &[Range<u64>], buffer: &mut [u8]) -> Result<(), WeightError> {
        let mut rest = buffer;
        for range in ranges {
            let (part, after) = rest.split_at_mut((range.end - range.start) as usize);
            self.source.read(name, self.start + range.start, part)?;
            rest = after;
        }
        Ok(())
    }
}
