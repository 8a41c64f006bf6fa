//! Pictures with captions or classes: folders and WebDataset shards, decoded ahead of the device.
//!
//! [`DataConfig::open`] finds a [`Source`], a [`Loader`] makes [`Batch`]es of it. Order, crops and flips are
//! functions of (seed, epoch, item), so that a run can go on from any batch and threads can't change what it sees. A
//! picture that can't be read is skipped, named in a warning and counted in the [`Report`].
//! [`LatentCache`] keeps what the first stage makes of every view.

mod area;
mod batch;
mod decode;
mod error;
mod fields;
mod folder;
mod jpeg;
mod latent_file;
mod latents;
mod loader;
mod map;
mod metadata;
mod pipeline;
pub(crate) mod random;
mod report;
mod shards;
mod shuffle;
mod source;
mod tar;
mod transform;

pub use batch::{Batch, Maps};
pub use error::DataError;
pub use folder::Folder;
pub(crate) use latents::weights_fingerprint;
pub use latents::{CacheKey, LatentCache};
pub use loader::{Loader, LoaderConfig};
pub use map::{MapConfig, MapKind};
pub use pipeline::Batches;
pub use report::{Broken, Report};
pub use shards::Shards;
pub use source::{DataConfig, Item, Items, Layout, Location, Order, Part, Source};
pub use transform::{Crop, Filter, Transform, View};
