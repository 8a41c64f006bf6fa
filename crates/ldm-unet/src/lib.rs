#![doc = include_str!("../README.md")]

pub mod keys;
pub mod presets;

mod attention_block;
mod blocks;
mod config;
mod diffusers;
mod encoder;
mod error;
mod label;
mod lora;
mod plan;
mod prepared;
mod timestep;
mod transformer;
mod unet;

pub use attention_block::{AttentionBlock, AttentionBlockConfig};
pub use blocks::{DownBlock, Downsample, MidBlock, SpatialAttention, UpBlock, Upsample};
pub use config::{AddedEmbedding, Middle, NumClasses, PerLevel, UNetConfig, VectorLabel};
pub use diffusers::DiffusersClass;
pub use encoder::{
    AdaptiveHead, AttentionHead, EncoderHead, EncoderKeys, EncoderUNet, EncoderUNetConfig, Pool, SpatialHead,
};
pub use error::{ConfigError, UNetError};
pub use label::LabelEmbedding;
pub use ldm_nn::{Conditioning, ConditioningMismatch};
pub use lora::LORA_TARGETS;
pub use prepared::{Context, Prepared, PreparedContext, PreparedTimesteps, write_in_place};
pub use timestep::{TimestepEmbedding, sinusoidal_embedding};
pub use transformer::{
    BasicTransformerBlock, CrossAttention, FeedForward, SpatialTransformer, SpatialTransformerConfig,
};
pub use unet::{Entry, Flow, UNet};
