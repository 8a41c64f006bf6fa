use std::path::{Path, PathBuf};

/// What keeps a data set from being read. A single broken picture is no error: it is skipped and reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The data set isn't there.
    #[error("{path}: no such file or folder")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The data set holds no picture, or none of the split.
    #[error("{path}: no pictures{what}")]
    Empty {
        /// The folder or shard.
        path: PathBuf,
        /// Of what: a split, a part.
        what: String,
    },
    /// A line of a `metadata.jsonl` is not as it should be.
    #[error("{path}, line {line}: {what}")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A caption without its picture.
    #[error("{path}: a caption without a picture: {key}")]
    CaptionWithoutPicture {
        /// The folder, the `metadata.jsonl` or the shard.
        path: PathBuf,
        /// The picture's name, or the sample's key.
        key: String,
    },
    /// A picture without a caption, among others that have one.
    #[error("{path}: no caption beside this picture (expected {expected})")]
    PictureWithoutCaption {
        /// The picture.
        path: PathBuf,
        /// The file that should be there.
        expected: PathBuf,
    },
    /// A picture without its second one.
    #[error("{path}: no second picture beside this one (expected {expected} or another kind of picture)")]
    PictureWithoutMap {
        /// The picture.
        path: PathBuf,
        /// The file that should be there.
        expected: PathBuf,
    },
    /// A shard ends too early.
    #[error("{path}: truncated: {what}")]
    Truncated {
        /// The shard.
        path: PathBuf,
        /// What is cut off.
        what: String,
    },
    /// A shard is no tar archive, or a sample in it is not as it should be.
    #[error("{path}: {key}: {what}")]
    Shard {
        /// The shard.
        path: PathBuf,
        /// The entry or sample.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A config that can't be met.
    #[error("`{key}` = {value}: {what}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        what: String,
    },
    /// Only broken pictures for as long as the loader looks ahead (64 and more).
    #[error("batch {batch}: none of {count} pictures in a row can be read, the first is {first}")]
    NothingReadable {
        /// The batch's number.
        batch: u64,
        /// How many were tried.
        count: usize,
        /// The first one, and why.
        first: String,
    },
    /// The data set has changed under a run.
    #[error("the data set changed: it had {expected} pictures, now {found}")]
    Changed {
        /// When it was opened.
        expected: u64,
        /// In this epoch.
        found: u64,
    },
    /// A cache of latents belongs to something else.
    #[error("{path}: the cache of latents is stale: {what} was {found}, is now {expected}; remove the file")]
    Stale {
        /// The cache.
        path: PathBuf,
        /// What differs.
        what: String,
        /// As it is now.
        expected: String,
        /// As the cache has it.
        found: String,
    },
    /// A file of latents that can't be read.
    #[error("{path}: not a cache of latents: {what}")]
    Cache {
        /// The cache.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A view that is not in the cache of latents: its picture is broken, or of other data.
    #[error("view {view} is not in the cache of latents")]
    NotCached {
        /// The view's number.
        view: u64,
    },
    /// The first stage can't encode, or the device can't give its result.
    #[error("encoding latents: {0}")]
    Encode(String),
    /// A decoding thread ended before its time.
    #[error("a decoding thread stopped")]
    Stopped,
}

impl DataError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    pub(crate) fn config(key: &'static str, value: impl std::fmt::Debug, what: impl Into<String>) -> Self {
        Self::Config { key, value: format!("{value:?}"), what: what.into() }
    }

    pub(crate) fn shard(path: &Path, key: impl Into<String>, what: impl ToString) -> Self {
        Self::Shard { path: path.into(), key: key.into(), what: what.to_string() }
    }

    pub(crate) fn truncated(path: &Path, what: impl Into<String>) -> Self {
        Self::Truncated { path: path.into(), what: what.into() }
    }
}
