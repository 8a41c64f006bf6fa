use super::{UnknownIndex, VqModelConfig};
use crate::{AttnType, DdConfig, LatentScaling};

/// A first stage that was published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VqPreset {
    /// The paper's name (`vq-f8`), which is the folder of CompVis' YAML file.
    pub name: &'static str,
    /// Channels of the latent (`embed_dim` and `z_channels`).
    pub embed_dim: usize,
    /// The number of codes.
    pub n_embed: usize,
    /// Width of each level, in multiples of 128.
    pub ch_mult: &'static [usize],
    /// Sizes that have attention, besides the smallest.
    pub attn_resolutions: &'static [usize],
    /// Whether there is attention at all.
    pub attn_type: AttnType,
}

/// All of them: `models/first_stage_models/vq-*` of CompVis/latent-diffusion.
pub const VQ_PRESETS: &[VqPreset] = &[
    preset("vq-f4", 3, 8192, &[1, 2, 4], &[]),
    VqPreset { attn_type: AttnType::None, ..preset("vq-f4-noattn", 3, 8192, &[1, 2, 4], &[]) },
    preset("vq-f8", 4, 16384, &[1, 2, 2, 4], &[32]),
    preset("vq-f8-n256", 4, 256, &[1, 2, 2, 4], &[32]),
    preset("vq-f16", 8, 16384, &[1, 1, 2, 2, 4], &[16]),
];

const fn preset(
    name: &'static str,
    embed_dim: usize,
    n_embed: usize,
    ch_mult: &'static [usize],
    attn_resolutions: &'static [usize],
) -> VqPreset {
    VqPreset { name, embed_dim, n_embed, ch_mult, attn_resolutions, attn_type: AttnType::Vanilla }
}

impl VqPreset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        VQ_PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset as a config.
    pub fn config(&self) -> VqModelConfig {
        VqModelConfig {
            embed_dim: self.embed_dim,
            n_embed: self.n_embed,
            ddconfig: DdConfig {
                double_z: false,
                z_channels: self.embed_dim,
                resolution: 256,
                in_channels: 3,
                out_ch: 3,
                ch: 128,
                ch_mult: self.ch_mult.iter().map(|m| *m as f64).collect(),
                num_res_blocks: 2,
                attn_resolutions: self.attn_resolutions.to_vec(),
                dropout: 0.0,
                resamp_with_conv: true,
                tanh_out: false,
                attn_type: self.attn_type,
                mid_block_add_attention: true,
                norm_num_groups: 32,
            },
            remap: None,
            sane_index_shape: false,
            unknown_index: UnknownIndex::Random,
            beta: 0.25,
            legacy: true,
            lookup_from_codebook: false,
            scaling: LatentScaling::factor(1.0),
            force_upcast: false,
        }
    }
}
