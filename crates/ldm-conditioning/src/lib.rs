#![doc = include_str!("../README.md")]

pub mod clip;

mod conditioner;
mod error;

pub use conditioner::{Conditioner, Conditioning};
pub use error::ConditioningError;
