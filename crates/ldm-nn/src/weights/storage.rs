//! Bytes of a file that hold the elements of one or several tensors.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zip::ZipArchive;

use super::WeightError;
use super::source::{Source, SourceReader};

/// Bytes of a file that hold the elements of one or several tensors.
pub(super) struct Storage {
    source: Source,
    length: u64,
    packing: Packing,
}

enum Packing {
    /// The bytes lie in the file as they are, from here on.
    Plain(u64),
    /// So, and the sum of all of them is known.
    Checked { start: u64, crc: u32, verified: AtomicBool },
    /// A compressed entry of a zip archive, by its index.
    Compressed(Arc<ZipArchive<SourceReader>>, usize),
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

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Storage({} bytes of {})", self.length, self.source.path().display())
    }
}

impl Storage {
    /// Bytes that lie in the file as they are.
    pub fn plain(source: Source, start: u64, length: u64) -> Self {
        Self { source, length, packing: Packing::Plain(start) }
    }

    /// Bytes that lie in the file as they are, with their CRC-32.
    pub fn checked(source: Source, start: u64, length: u64, crc: u32) -> Self {
        let packing = Packing::Checked { start, crc, verified: AtomicBool::new(false) };
        Self { source, length, packing }
    }

    /// The bytes of a compressed entry of a zip archive.
    pub fn compressed(
        source: Source,
        length: u64,
        archive: Arc<ZipArchive<SourceReader>>,
        index: usize,
    ) -> Self {
        Self { source, length, packing: Packing::Compressed(archive, index) }
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    pub fn len(&self) -> u64 {
        self.length
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
        match &self.packing {
            Packing::Plain(start) => self.read_plain(name, *start, ranges, buffer),
            Packing::Checked { start, crc, verified } => {
                if matches!(ranges, [all] if all.end - all.start == self.length) {
                    self.read_plain(name, *start, ranges, buffer)?;
                    return self.compare(name, crc32fast::hash(buffer), *crc);
                }
                if !verified.load(Ordering::Relaxed) {
                    self.compare(name, self.sum(name, *start)?, *crc)?;
                    verified.store(true, Ordering::Relaxed);
                }
                self.read_plain(name, *start, ranges, buffer)
            }
            Packing::Compressed(archive, index) => self.inflate(name, archive, *index, ranges, buffer),
        }
    }

    fn read_plain(
        &self,
        name: &str,
        start: u64,
        ranges: &[Range<u64>],
        buffer: &mut [u8],
    ) -> Result<(), WeightError> {
        let mut rest = buffer;
        for range in ranges {
            let (part, after) = rest.split_at_mut((range.end - range.start) as usize);
            self.source.read(name, start + range.start, part)?;
            rest = after;
        }
        Ok(())
    }

    /// The CRC-32 of all bytes, read a piece at a time.
    fn sum(&self, name: &str, start: u64) -> Result<u32, WeightError> {
        const PIECE: u64 = 1 << 20;
        let mut buffer = vec![0; PIECE.min(self.length) as usize];
        let mut hasher = crc32fast::Hasher::new();
        let mut at = 0;
        while at < self.length {
            let piece = &mut buffer[..PIECE.min(self.length - at) as usize];
            self.source.read(name, start + at, piece)?;
            hasher.update(piece);
            at += piece.len() as u64;
        }
        Ok(hasher.finalize())
    }

    fn compare(&self, name: &str, found: u32, expected: u32) -> Result<(), WeightError> {
        if found == expected {
            return Ok(());
        }
        let sums = format!("{found:08x}, not {expected:08x}");
        Err(self.source.damaged(format!("{name}: its bytes have the CRC-32 {sums}, as the file says")))
    }

    /// Reads ranges of a compressed entry, of which only a piece is in memory at a time. There is no jumping to a place
    /// in it: ranges that rise are met in one pass, and where one lies before the last another pass begins.
    fn inflate(
        &self,
        name: &str,
        archive: &ZipArchive<SourceReader>,
        index: usize,
        ranges: &[Range<u64>],
        buffer: &mut [u8],
    ) -> Result<(), WeightError> {
        let mut rest = buffer;
        for rising in ranges.chunk_by(|a, b| a.end <= b.start) {
            let length: u64 = rising.iter().map(|range| range.end - range.start).sum();
            let (part, after) = rest.split_at_mut(length as usize);
            self.inflate_rising(name, archive, index, rising, part)?;
            rest = after;
        }
        Ok(())
    }

    /// One pass over a compressed entry, to its end, where the archive's reader minds its sum.
    fn inflate_rising(
        &self,
        name: &str,
        archive: &ZipArchive<SourceReader>,
        index: usize,
        ranges: &[Range<u64>],
        buffer: &mut [u8],
    ) -> Result<(), WeightError> {
        let damaged = |what: String| self.source.damaged(format!("{name}: {what}"));
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::UnexpectedEof => damaged(OTHER_LENGTH.into()),
            _ => damaged(e.to_string()),
        };
        let mut archive = archive.clone();
        let mut entry = archive.by_index(index).map_err(|e| damaged(e.to_string()))?;
        let (mut at, mut rest) = (0, buffer);
        for range in ranges {
            let between = range.start - at;
            io::copy(&mut entry.by_ref().take(between), &mut io::sink()).map_err(failed)?;
            let (part, after) = rest.split_at_mut((range.end - range.start) as usize);
            entry.read_exact(part).map_err(failed)?;
            (at, rest) = (range.end, after);
        }
        let left = self.length.saturating_sub(at);
        let found = io::copy(&mut entry.take(left + 1), &mut io::sink()).map_err(failed)?;
        if found == left { Ok(()) } else { Err(damaged(OTHER_LENGTH.into())) }
    }
}

const OTHER_LENGTH: &str = "its compressed bytes are not as many as the file says";

#[cfg(test)]
mod tests {
    use ldm_test_support::write_torch_deflated;

    use super::*;

    #[test]
    fn a_compressed_entry_is_read_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ckpt");
        let bytes: Vec<u8> = (0..5000u32).map(|i| (i * i / 7) as u8).collect();
        write_torch_deflated(&path, b"", [bytes.clone()]);
        let source = Source::open(&path).unwrap();
        let archive = ZipArchive::new(source.reader()).unwrap();
        let index = archive.index_for_name("archive/data/0").unwrap();
        let storage = Storage::compressed(source, bytes.len() as u64, Arc::new(archive), index);
        for ranges in [
            vec![10..20, 20..21, 4000..5000],
            vec![4000..5000, 10..20, 15..40, 40..40, 0..5000],
            vec![7..7, 3..9],
            vec![],
        ] {
            let wanted = |range: &Range<u64>| bytes[range.start as usize..range.end as usize].to_vec();
            let expected: Vec<u8> = ranges.iter().flat_map(wanted).collect();
            let mut found = vec![0; expected.len()];
            storage.check("a", &ranges).unwrap();
            storage.read("a", &ranges, &mut found).unwrap();
            assert!(found == expected, "{ranges:?}");
        }
    }
}
