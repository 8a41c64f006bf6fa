use serde::{Deserialize, Serialize};

use crate::diffusers::{Blocks, Networks, default_blocks, in_their_words, inexpressible, side};
use crate::{AutoencoderKlConfig, LatentScaling, VaeError};

/// `vae/config.json` of a diffusers directory, class `AutoencoderKL`.
///
/// An absent key has the class's own default; unknown keys are skipped. It becomes an
/// [`AutoencoderKlConfig`] by `try_from`, and back by [`AutoencoderKlConfig::to_diffusers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The keys are diffusers', documented there.
pub struct DiffusersAutoencoderKl {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: String,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    #[serde(deserialize_with = "side")]
    pub sample_size: usize,
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    pub latents_mean: Option<Vec<f64>>,
    pub latents_std: Option<Vec<f64>>,
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

const CLASS: &str = "AutoencoderKL";

impl Default for DiffusersAutoencoderKl {
    fn default() -> Self {
        let [down_block_types, up_block_types] = default_blocks();
        Self {
            class_name: CLASS.into(),
            in_channels: 3,
            out_channels: 3,
            down_block_types,
            up_block_types,
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl TryFrom<&DiffusersAutoencoderKl> for AutoencoderKlConfig {
    type Error = VaeError;

    /// Errors: [`VaeError::Config`], naming a key whose value no first stage here has.
    fn try_from(theirs: &DiffusersAutoencoderKl) -> Result<Self, VaeError> {
        if theirs.class_name != CLASS {
            return Err(VaeError::config("_class_name", &theirs.class_name, format!("expected {CLASS}")));
        }
        let networks = Networks {
            in_channels: theirs.in_channels,
            out_channels: theirs.out_channels,
            down_block_types: &theirs.down_block_types,
            up_block_types: &theirs.up_block_types,
            block_out_channels: &theirs.block_out_channels,
            layers_per_block: theirs.layers_per_block,
            act_fn: &theirs.act_fn,
            latent_channels: theirs.latent_channels,
            norm_num_groups: theirs.norm_num_groups,
            sample_size: theirs.sample_size,
            mid_block_add_attention: theirs.mid_block_add_attention,
        };
        let config = Self {
            embed_dim: theirs.latent_channels,
            ddconfig: networks.ddconfig(true)?,
            use_quant_conv: theirs.use_quant_conv,
            use_post_quant_conv: theirs.use_post_quant_conv,
            scaling: LatentScaling {
                scaling_factor: theirs.scaling_factor,
                shift_factor: theirs.shift_factor,
                latents_mean: theirs.latents_mean.clone(),
                latents_std: theirs.latents_std.clone(),
            },
            force_upcast: theirs.force_upcast,
        };
        config.validate().map_err(in_their_words)?;
        Ok(config)
    }
}

impl AutoencoderKlConfig {
    /// The same model as diffusers' `config.json`.
    ///
    /// Errors: [`VaeError::Config`], naming what diffusers' `AutoencoderKL` can't express.
    pub fn to_diffusers(&self) -> Result<DiffusersAutoencoderKl, VaeError> {
        self.validate()?;
        let dd = &self.ddconfig;
        if self.embed_dim != dd.z_channels {
            let value = format!("{} with z_channels {}", self.embed_dim, dd.z_channels);
            return Err(inexpressible("embed_dim", value, CLASS));
        }
        let blocks = Blocks::of(dd, CLASS)?;
        Ok(DiffusersAutoencoderKl {
            class_name: CLASS.into(),
            in_channels: dd.in_channels,
            out_channels: dd.out_ch,
            down_block_types: blocks.down_block_types,
            up_block_types: blocks.up_block_types,
            block_out_channels: blocks.block_out_channels,
            layers_per_block: dd.num_res_blocks,
            act_fn: "silu".into(),
            latent_channels: self.embed_dim,
            norm_num_groups: dd.norm_num_groups,
            sample_size: dd.resolution,
            scaling_factor: self.scaling.scaling_factor,
            shift_factor: self.scaling.shift_factor,
            latents_mean: self.scaling.latents_mean.clone(),
            latents_std: self.scaling.latents_std.clone(),
            force_upcast: self.force_upcast,
            use_quant_conv: self.use_quant_conv,
            use_post_quant_conv: self.use_post_quant_conv,
            mid_block_add_attention: dd.attention_in_middle(),
        })
    }
}
