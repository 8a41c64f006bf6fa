use std::path::{Path, PathBuf};
use std::sync::Arc;

use ldm_conditioning::LayoutObject;
use serde::{Deserialize, Serialize};

use super::latents::Fnv;
use super::{DataError, Folder, Shards};

/// One picture that is not decoded yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its number in the data set, the same in every epoch.
    pub index: u64,
    /// Its name: a path inside the folder, or a sample's key.
    pub key: String,
    /// Its caption; empty where the data has none.
    pub caption: String,
    /// Its class, where the data has classes.
    pub class: Option<i64>,
    /// Where its bytes are.
    pub picture: Location,
    /// Where the picture that goes with it is ([`DataConfig::map_suffix`]).
    pub map: Option<Location>,
    /// What is in it, and where, if the data says so ([`DataConfig::objects_key`]).
    pub objects: Option<Vec<LayoutObject>>,
}

/// A file, or a stretch of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: Arc<Path>,
    /// Offset and length in bytes; the whole file where there is none.
    pub range: Option<(u64, u64)>,
}

/// The order of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the data lies.
    Listed,
    /// Shuffled anew each epoch.
    Shuffled {
        /// The loader's.
        seed: u64,
        /// Counted from 0.
        epoch: u64,
    },
}

/// The items of one epoch.
pub type Items = Box<dyn Iterator<Item = Result<Item, DataError>> + Send>;

/// A data set: so many items, given in an order that depends on nothing but [`Order`].
pub trait Source: std::fmt::Debug + Send + Sync {
    /// How many items an epoch has; at least one.
    fn items(&self) -> u64;

    /// The classes' names by number; empty where the data has none, or has numbers only.
    fn classes(&self) -> &[String];

    /// Each item once.
    fn epoch(&self, order: Order) -> Items;

    /// What tells this data set from another: a hash of its items' numbers and names.
    ///
    /// # Errors
    ///
    /// What keeps the items from being listed.
    fn fingerprint(&self) -> Result<String, DataError> {
        let mut hash = Fnv::default();
        for item in self.epoch(Order::Listed) {
            let item = item?;
            hash.add_item(item.index, &item.key);
        }
        Ok(hash.hex())
    }
}

/// One worker of several that share a data set, as one process of data-parallel training is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Counted from 0.
    pub index: usize,
    /// How many workers there are.
    pub count: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

/// Where the data is, and which of it is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A folder of pictures, a `.tar` shard, or a folder of `.tar` shards.
    pub path: PathBuf,
    /// How a folder tells captions or classes; found out where it isn't given.
    pub layout: Option<Layout>,
    /// Only items whose `split` (in their JSON) is this.
    pub split: Option<String>,
    /// The JSON field with the caption; by default `text`, or `caption`.
    pub caption_key: Option<String>,
    /// The JSON field with the class: a number, or a name that is numbered in the order of the names.
    pub class_key: Option<String>,
    /// Each picture has a second one, its condition: beside `cat.png` lies `cat.SUFFIX.png` (or .jpg, .webp, .bmp),
    /// in a folder as in a shard. A label map or a worn picture, as [`MapConfig`](super::MapConfig) says.
    pub map_suffix: Option<String>,
    /// The JSON field with the objects: a list of `{"class": 3, "bbox": [x, y, width, height]}`, all in parts of the
    /// whole picture (0 to 1), and the flags `is_group_of`, `is_occluded`, `is_depiction`, `is_inside` where they hold.
    pub objects_key: Option<String>,
    /// How many items of a shard's stream are mixed (default: 10,000; they are places, not pictures).
    pub shuffle_buffer: usize,
    /// Which part of the data this process takes.
    pub part: Part,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            layout: None,
            split: None,
            caption_key: None,
            class_key: None,
            map_suffix: None,
            objects_key: None,
            shuffle_buffer: 10_000,
            part: Part::default(),
        }
    }
}

/// How a folder tells captions or classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// `metadata.jsonl` with `file_name` and a caption, as Hugging Face's image folders have it.
    Metadata,
    /// `picture.txt` beside `picture.png`, in folders of any depth.
    Captions,
    /// A folder for each class.
    Classes,
    /// Pictures alone, in folders of any depth.
    Plain,
}

impl DataConfig {
    /// All of a data set.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// The same data, of one split.
    pub fn split(self, split: impl Into<String>) -> Self {
        Self { split: Some(split.into()), ..self }
    }

    /// Opens the data set: lists a folder, or reads the headers of all shards.
    ///
    /// # Errors
    ///
    /// Each variant of [`DataError`] that is about files: nothing there, a bad line, a caption without picture, a
    /// truncated shard.
    pub fn open(&self) -> Result<Arc<dyn Source>, DataError> {
        if self.part.index >= self.part.count {
            return Err(DataError::config("part", self.part, "index must be below count"));
        }
        let shards = shards(&self.path)?;
        Ok(if shards.is_empty() {
            Arc::new(Folder::open(self)?)
        } else {
            Arc::new(Shards::open(shards, self)?)
        })
    }
}

/// The `.tar` files that a path means.
fn shards(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let is_tar = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar"));
    let data = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(DataError::Missing { path: path.into() });
        }
        other => other.map_err(DataError::io(path))?,
    };
    if data.is_file() {
        return match is_tar(path) {
            true => Ok(vec![path.into()]),
            false => Err(DataError::config("path", path, "neither a folder nor a .tar file")),
        };
    }
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(path).map_err(DataError::io(path))? {
        let entry = entry.map_err(DataError::io(path))?.path();
        if is_tar(&entry) {
            shards.push(entry);
        }
    }
    shards.sort();
    Ok(shards)
}
