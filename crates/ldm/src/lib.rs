#![doc = include_str!("../README.md")]

pub mod degradation;
pub mod image;
pub mod latent_diffusion;
pub mod pipeline;
pub mod presets;
pub mod retrieval;

mod device;
mod error;
mod model;

pub use device::{DEVICES, device, dtype};
pub use error::Error;
pub use latent_diffusion::LatentDiffusion;
pub use model::*;

pub use ldm_conditioning as conditioning;
pub use ldm_nn as nn;
pub use ldm_nn::{GpuKernels, set_gpu_kernels};
pub use ldm_scheduler as scheduler;
#[cfg(feature = "train")]
pub use ldm_train as train;
pub use ldm_unet as unet;
pub use ldm_vae as vae;
