//! The configs of published models, for files that carry none.

use crate::{AddedEmbedding, PerLevel, UNetConfig};

/// A published model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Stable Diffusion 1.x.
    Sd1,
    /// Stable Diffusion 1.x for inpainting: latent, mask, latent of the masked picture (4 + 1 + 4 channels).
    Sd1Inpaint,
    /// Stable Diffusion 2.0 and 2.1, for 512 pixels (predicts the noise).
    Sd2Base,
    /// Stable Diffusion 2.0 and 2.1, for 768 pixels (predicts v).
    Sd2V,
    /// Stable Diffusion 2.0 for inpainting.
    Sd2Inpaint,
    /// Stable Diffusion XL base.
    Sdxl,
    /// Stable Diffusion XL base for inpainting.
    SdxlInpaint,
}

/// One row of the table.
struct Row {
    preset: Preset,
    /// Side of the latent.
    size: usize,
    in_channels: usize,
    channel_mult: &'static [f64],
    attention_resolutions: &'static [usize],
    context_dim: usize,
    depth: &'static [usize],
    /// Heads of 64 channels and linear projections (SD 2 and XL), or 8 heads and convolutions (SD 1).
    wide_heads: bool,
    upcast: bool,
    /// Width of the added embeddings of text and sizes.
    added: Option<usize>,
}

const SD1: Row = Row {
    preset: Preset::Sd1,
    size: 64,
    in_channels: 4,
    channel_mult: &[1.0, 2.0, 4.0, 4.0],
    attention_resolutions: &[4, 2, 1],
    context_dim: 768,
    depth: &[1; 4],
    wide_heads: false,
    upcast: false,
    added: None,
};

const SD2: Row = Row { preset: Preset::Sd2Base, context_dim: 1024, wide_heads: true, ..SD1 };

const SDXL: Row = Row {
    preset: Preset::Sdxl,
    size: 128,
    channel_mult: &[1.0, 2.0, 4.0],
    attention_resolutions: &[4, 2],
    context_dim: 2048,
    depth: &[1, 2, 10],
    added: Some(2816),
    ..SD2
};

const TABLE: [Row; 7] = [
    SD1,
    Row { preset: Preset::Sd1Inpaint, in_channels: 9, ..SD1 },
    SD2,
    Row { preset: Preset::Sd2V, size: 96, upcast: true, ..SD2 },
    Row { preset: Preset::Sd2Inpaint, in_channels: 9, ..SD2 },
    SDXL,
    Row { preset: Preset::SdxlInpaint, in_channels: 9, ..SDXL },
];

impl Preset {
    /// Every preset.
    pub fn all() -> impl Iterator<Item = Preset> {
        TABLE.iter().map(|row| row.preset)
    }

    /// Its config.
    pub fn config(self) -> UNetConfig {
        let row = TABLE.iter().find(|row| row.preset == self).unwrap_or(&SD1);
        let mut config = UNetConfig::new(row.in_channels, 320, 4);
        config.sample_size = Some([row.size; 2]);
        config.channel_mult = row.channel_mult.to_vec();
        config.attention_resolutions = row.attention_resolutions.to_vec();
        config.use_spatial_transformer = true;
        config.context_dim = Some(row.context_dim);
        config.transformer_depth = PerLevel::from_each(row.depth.to_vec());
        config.upcast_attention = row.upcast;
        if row.wide_heads {
            config.num_head_channels = Some(PerLevel::All(64));
            config.use_linear_in_transformer = true;
            config.legacy = false;
        } else {
            config.num_heads = Some(PerLevel::All(8));
        }
        if let Some(width) = row.added {
            config.addition_embed_type = Some(AddedEmbedding::TextTime);
            config.addition_time_embed_dim = Some(256);
            config.adm_in_channels = Some(width);
        }
        config
    }
}
