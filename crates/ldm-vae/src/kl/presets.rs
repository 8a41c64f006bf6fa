use crate::{AttnType, AutoencoderKlConfig, DdConfig, LatentScaling};

/// A first stage that was published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlPreset {
    /// The paper's name (`kl-f8`), the name of CompVis' YAML file, or the model family.
    pub name: &'static str,
    /// Channels of the latent (`embed_dim` and `z_channels`).
    pub embed_dim: usize,
    /// The side of the training pictures.
    pub resolution: usize,
    /// Width of each level, in multiples of 128.
    pub ch_mult: &'static [usize],
    /// Sizes that have attention, besides the smallest.
    pub attn_resolutions: &'static [usize],
    /// What the diffusion model's latents are multiplied by.
    pub scaling_factor: f64,
    /// Whether it overflows f16.
    pub force_upcast: bool,
}

/// All of them: `models/first_stage_models/kl-*` and `configs/autoencoder/autoencoder_kl_*` of
/// CompVis/latent-diffusion, and Stable Diffusion's (their sizes as in diffusers).
pub const KL_PRESETS: &[KlPreset] = &[
    preset("kl-f4", 3, 256, &[1, 2, 4], &[], 1.0),
    preset("kl-f8", 4, 256, &[1, 2, 4, 4], &[], 1.0),
    preset("kl-f16", 16, 256, &[1, 1, 2, 2, 4], &[16], 1.0),
    preset("kl-f32", 64, 256, &[1, 1, 2, 2, 4, 4], &[16, 8], 1.0),
    preset("autoencoder_kl_64x64x3", 3, 256, &[1, 2, 4], &[], 1.0),
    preset("autoencoder_kl_32x32x4", 4, 256, &[1, 2, 4, 4], &[], 1.0),
    preset("autoencoder_kl_16x16x16", 16, 256, &[1, 1, 2, 2, 4], &[16], 1.0),
    preset("autoencoder_kl_8x8x64", 64, 256, &[1, 1, 2, 2, 4, 4], &[16, 8], 1.0),
    preset("stable-diffusion-v1", 4, 512, &[1, 2, 4, 4], &[], 0.18215),
    preset("stable-diffusion-v2", 4, 768, &[1, 2, 4, 4], &[], 0.18215),
    KlPreset { force_upcast: true, ..preset("stable-diffusion-xl", 4, 1024, &[1, 2, 4, 4], &[], 0.13025) },
];

const fn preset(
    name: &'static str,
    embed_dim: usize,
    resolution: usize,
    ch_mult: &'static [usize],
    attn_resolutions: &'static [usize],
    scaling_factor: f64,
) -> KlPreset {
    KlPreset { name, embed_dim, resolution, ch_mult, attn_resolutions, scaling_factor, force_upcast: false }
}

impl KlPreset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KL_PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset as a config.
    pub fn config(&self) -> AutoencoderKlConfig {
        AutoencoderKlConfig {
            embed_dim: self.embed_dim,
            ddconfig: DdConfig {
                double_z: true,
                z_channels: self.embed_dim,
                resolution: self.resolution,
                in_channels: 3,
                out_ch: 3,
                ch: 128,
                ch_mult: self.ch_mult.iter().map(|m| *m as f64).collect(),
                num_res_blocks: 2,
                attn_resolutions: self.attn_resolutions.to_vec(),
                dropout: 0.0,
                resamp_with_conv: true,
                tanh_out: false,
                attn_type: AttnType::Vanilla,
                mid_block_add_attention: true,
                norm_num_groups: 32,
            },
            use_quant_conv: true,
            use_post_quant_conv: true,
            scaling: LatentScaling::factor(self.scaling_factor),
            force_upcast: self.force_upcast,
        }
    }
}
