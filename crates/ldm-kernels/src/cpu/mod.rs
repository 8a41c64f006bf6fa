//! Kernels for the flex backend: f32, SIMD, on rayon's threads.

#[macro_use]
mod simd;

mod attention;
#[cfg(feature = "autodiff")]
mod attention_gradient;
#[cfg(feature = "autodiff")]
pub mod autodiff;
mod bridge;
mod buffer;
mod conv2d;
mod convolution;
mod exp;
mod geglu;
mod group_norm;
mod heads;
mod im2col;
mod lanes;
mod layer_norm;
mod linear;
mod moments;
mod optimizer;
mod pages;
mod panels;
mod product;
mod scratch;
mod tile;
mod turn;
mod upsample;
#[cfg(feature = "autodiff")]
mod weight_gradient;
mod winograd;

pub use attention::attention;
pub use conv2d::conv2d;
pub use geglu::geglu;
pub use group_norm::group_norm;
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use optimizer::{adamw, ema, sum_of_squares, takes_adamw, takes_ema};
pub use upsample::upsample_twice;
