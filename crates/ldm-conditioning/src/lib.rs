#![doc = include_str!("../README.md")]

pub mod bert;
pub mod clip;

mod class;
mod condition;
mod conditioner;
mod depth;
mod error;
mod layout;
mod rescaler;
mod stage;

pub use class::{ClassEmbedder, ClassEmbedderConfig, ClassOutOfRange};
pub use condition::Condition;
pub use conditioner::Conditioner;
pub use error::ConditioningError;
pub use layout::{BoundingBox, Layout, LayoutError, LayoutObject, LayoutTokenizer};
pub use ldm_nn::{Conditioning, ConditioningMismatch};
pub use rescaler::{SpatialRescaler, SpatialRescalerConfig, SpatialRescalerError};
pub use stage::{CondStage, CondStageConfig, CondStageConfigError, CondStageKeys, Hybrid, Identity};
