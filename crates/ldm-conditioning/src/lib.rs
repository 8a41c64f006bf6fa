#![doc = include_str!("../README.md")]

pub mod clip;

mod conditioner;
mod error;

pub use conditioner::Conditioner;
pub use error::ConditioningError;
pub use ldm_nn::{Conditioning, ConditioningMismatch};
