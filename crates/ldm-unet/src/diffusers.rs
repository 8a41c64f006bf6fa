//! diffusers' config.json, read into a [`UNetConfig`] and written from one.

mod read;
mod write;

/// A class of diffusers whose config.json describes a U-Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffusersClass {
    /// With a context.
    UNet2DConditionModel,
    /// Without.
    UNet2DModel,
}

impl DiffusersClass {
    /// The class's name, as `_class_name` gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UNet2DConditionModel => "UNet2DConditionModel",
            Self::UNet2DModel => "UNet2DModel",
        }
    }
}

/// What a block type has beside its residual blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockAttention {
    None,
    /// An [`AttentionBlock`](crate::AttentionBlock).
    Block,
    /// A [`SpatialTransformer`](crate::SpatialTransformer).
    Transformer,
}

/// A block type on the way down, its twin on the way up, its attention, and whether the resolution changes
/// inside residual blocks (`AttnDownBlock2D` leaves that to `downsample_type`).
const BLOCK_TYPES: [(&str, &str, BlockAttention, bool); 4] = [
    ("DownBlock2D", "UpBlock2D", BlockAttention::None, false),
    ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D", BlockAttention::None, true),
    ("AttnDownBlock2D", "AttnUpBlock2D", BlockAttention::Block, false),
    ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D", BlockAttention::Transformer, false),
];
