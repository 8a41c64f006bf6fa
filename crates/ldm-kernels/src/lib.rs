#![doc = include_str!("../README.md")]
//!
//! Every operation is one function that takes and gives burn tensors. It looks at its inputs: f32 on the flex
//! backend runs a CPU kernel (feature `flex`); f32, f16 and bf16 on a GPU run one in CubeCL where there is one (feature
//! `gpu-kernels` beside `cuda`, `rocm`, `vulkan`, `metal` or `wgpu`); under autodiff both have a backward by hand where
//! there is one (feature `autodiff`). Everything else runs `plain` of the same module, which is also what the kernels
//! and their gradients are tested against. Models need not know.

#[cfg(feature = "flex")]
mod cpu;
#[cfg(all(feature = "gpu-kernels", feature = "gpu"))]
mod gpu;

pub mod attention;
pub mod conv2d;
pub mod geglu;
pub mod gpu_kernels;
pub mod group_norm;
pub mod layer_norm;
pub mod layout;
pub mod linear;
pub mod optimizer;
pub mod upsample;

pub use attention::attention;
pub use conv2d::{Conv2dOptions, conv2d, conv2d_add, conv2d_shift};
pub use geglu::geglu;
pub use gpu_kernels::{GpuKernels, set_gpu_kernels};
pub use group_norm::{GroupNormOptions, group_norm};
pub use layer_norm::layer_norm;
pub use layout::{join_channels, to_map, to_tokens};
pub use linear::{
    laid_together, linear, linear_add, linear_geglu, linear_layers, linear_to_map, linear_together,
};
pub use optimizer::{AdamWFactors, AdamWTensors, adamw, ema};
pub use upsample::{MergedTaps, upsample_conv2d, upsample_twice};
