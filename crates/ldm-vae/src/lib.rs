#![doc = include_str!("../README.md")]
//!
//! # Layout
//!
//! [`Encoder`] and [`Decoder`] are the networks E and D of the paper's section 3.1, configured by a
//! [`DdConfig`]; they, [`Tiling`] and the tables of [`WeightNames`] know nothing of how the latent is
//! regularised. `kl/` builds the KL-regularised [`AutoencoderKl`] from them, `vq/` the vector-quantised
//! [`VqModel`]; [`FirstStage`] is either of them, or none.

mod attention;
mod ddconfig;
mod decoder;
mod diffusers;
mod encoder;
mod error;
mod first_stage;
mod input;
mod kl;
mod middle;
mod names;
mod scaling;
mod tiling;
mod vq;

pub use attention::AttentionBlock;
pub use ddconfig::{AttnType, DdConfig};
pub use decoder::{Decoder, UpLevel, Upsample};
pub use encoder::{DownLevel, Downsample, Encoder};
pub use error::VaeError;
pub use first_stage::{Encoded, FirstStage, FirstStageConfig, IdentityFirstStage};
pub use kl::{
    AutoencoderKl, AutoencoderKlConfig, DiagonalGaussian, DiffusersAutoencoderKl, KL_PRESETS, KlPreset,
};
pub use middle::Middle;
pub use names::{Naming, WeightNames};
pub use scaling::LatentScaling;
pub use tiling::Tiling;
pub use vq::{
    CodeIndices, CodebookUsage, DiffusersVqModel, Quantized, Reconstruction, Remap, UnknownIndex, UsedCodes,
    VQ_PRESETS, VectorQuantizer, VqModel, VqModelConfig, VqPreset, measure_perplexity,
};
