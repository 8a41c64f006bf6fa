//! Weight files: reading, naming, loading into modules, writing.
//!
//! A module's own parameter paths (`down.0.resnets.1.conv1.weight`) are mapped *forward* to the names
//! that a file uses, by a [`KeyMap`]. Loading and saving share the one map, so a name is never parsed.
//!
//! ```no_run
//! # use burn::module::Module;
//! # use burn::tensor::DType;
//! use ldm_nn::weights::{Entry, Loader, WeightError, WeightFile, save_safetensors};
//!
//! # fn load<M: Module>(decoder: M) -> Result<(), WeightError> {
//! let map = |path: &str| Some(Entry::same(format!("decoder.{path}")));
//! let file = WeightFile::open("sd-v1-4.ckpt")?;
//! let (decoder, report) = Loader::new(&map).prefix("first_stage_model.").load(decoder, &file)?;
//! println!("not used: {:?}", report.unknown);
//! save_safetensors(&decoder, &map, "decoder.safetensors", DType::F16)?;
//! # Ok(())
//! # }
//! ```

mod element;
mod error;
mod extras;
mod file;
mod header;
mod key;
mod layout;
mod load;
mod path;
mod pickle;
mod save;
mod shards;
mod source;
mod storage;
mod together;
mod torch;

pub use element::ElementType;
pub use error::{TensorProblem, WeightError};
pub use extras::is_known_extra;
pub use file::{TensorInfo, WeightFile};
pub use key::{Entry, KeyMap};
pub use layout::Layout;
pub use load::{LoadReport, Loader};
pub use path::Path as ParameterPath;
pub use save::{Saver, save_safetensors};
pub use together::attentions_together;
