//! Optimisation: gradients by name, clipping, AdamW, learning rates, float types.

mod adamw;
mod copied;
mod named;
mod precision;
mod rate;

pub use adamw::{AdamW, AdamWConfig};
pub(crate) use named::replace_values;
pub use named::{Named, clip_by_global_norm, gradients, names, trainable};
pub use precision::Precision;
pub use rate::{Decay, RateConfig, RateCycle};
