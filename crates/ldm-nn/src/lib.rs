#![doc = include_str!("../README.md")]

pub mod device;
pub mod lora;
pub mod weights;

mod activation;
mod attention;
mod conditioning;
mod conv;
mod diffusers;
mod embedding;
mod interpolate;
mod linear;
mod norm;
mod resnet;

pub use activation::{Activation, quick_gelu, silu};
pub use attention::{AttentionOptions, attention, merge_heads, split_heads};
pub use conditioning::{Conditioning, ConditioningKey, ConditioningMismatch};
pub use conv::{Conv2d, Conv2dConfig, Padding, upsample_nearest};
pub use diffusers::DIFFUSERS_VERSION;
pub use embedding::{Embedding, EmbeddingConfig};
pub use interpolate::{InterpolateMethod, Interpolation};
pub use ldm_kernels::conv2d::laid_out;
pub use ldm_kernels::{Conv2dOptions, conv2d, geglu};
pub use ldm_kernels::{GpuKernels, gpu_kernels, optimizer, set_gpu_kernels};
pub use ldm_kernels::{join_channels, to_map, to_tokens, upsample_twice};
pub use linear::{Linear, LinearConfig};
pub use norm::{GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig};
pub use resnet::{ResnetBlock, ResnetBlockConfig, TimeShift};
