use serde::{Deserialize, Serialize};

use super::{UnknownIndex, VqModelConfig};
use crate::diffusers::{Blocks, Networks, default_blocks, in_their_words, inexpressible, side};
use crate::{LatentScaling, VaeError};

/// `vqvae/config.json` of a diffusers directory, class `VQModel`.
///
/// An absent key has the class's own default; unknown keys are skipped. Mind `scaling_factor`: its default is
/// Stable Diffusion's, and diffusers' `LDMPipeline` divides by it, so what is written here always says it.
/// It becomes a [`VqModelConfig`] by `try_from`, and back by [`VqModelConfig::to_diffusers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The keys are diffusers', documented there.
pub struct DiffusersVqModel {
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
    #[serde(deserialize_with = "side")]
    pub sample_size: usize,
    pub num_vq_embeddings: usize,
    pub norm_num_groups: usize,
    pub vq_embed_dim: Option<usize>,
    pub scaling_factor: f64,
    pub norm_type: String,
    pub mid_block_add_attention: bool,
    pub lookup_from_codebook: bool,
    pub force_upcast: bool,
}

const CLASS: &str = "VQModel";

impl Default for DiffusersVqModel {
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
            latent_channels: 3,
            sample_size: 32,
            num_vq_embeddings: 256,
            norm_num_groups: 32,
            vq_embed_dim: None,
            scaling_factor: 0.18215,
            norm_type: "group".into(),
            mid_block_add_attention: true,
            lookup_from_codebook: false,
            force_upcast: false,
        }
    }
}

impl TryFrom<&DiffusersVqModel> for VqModelConfig {
    type Error = VaeError;

    /// Errors: [`VaeError::Config`], naming a key whose value no first stage here has.
    fn try_from(theirs: &DiffusersVqModel) -> Result<Self, VaeError> {
        if theirs.class_name != CLASS {
            return Err(VaeError::config("_class_name", &theirs.class_name, format!("expected {CLASS}")));
        }
        if theirs.norm_type != "group" {
            return Err(VaeError::config("norm_type", &theirs.norm_type, "expected group"));
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
            embed_dim: theirs.vq_embed_dim.unwrap_or(theirs.latent_channels),
            n_embed: theirs.num_vq_embeddings,
            ddconfig: networks.ddconfig(false)?,
            remap: None,
            sane_index_shape: false,
            unknown_index: UnknownIndex::Random,
            beta: 0.25,
            legacy: true,
            lookup_from_codebook: theirs.lookup_from_codebook,
            scaling: LatentScaling::factor(theirs.scaling_factor),
            force_upcast: theirs.force_upcast,
        };
        config.validate().map_err(in_their_words)?;
        Ok(config)
    }
}

impl VqModelConfig {
    /// The same model as diffusers' `config.json`. What only its loss and its indices' form are made of
    /// (`beta`, `legacy`, `sane_index_shape`) has no key there and is left out.
    ///
    /// Errors: [`VaeError::Config`], naming what diffusers' `VQModel` can't express.
    pub fn to_diffusers(&self) -> Result<DiffusersVqModel, VaeError> {
        self.validate()?;
        if let Some(used) = &self.remap {
            return Err(inexpressible("remap", used, CLASS));
        }
        let plain = LatentScaling::factor(self.scaling.scaling_factor);
        if self.scaling != plain {
            return Err(inexpressible("scaling", &self.scaling, CLASS));
        }
        let dd = &self.ddconfig;
        let blocks = Blocks::of(dd, CLASS)?;
        Ok(DiffusersVqModel {
            class_name: CLASS.into(),
            in_channels: dd.in_channels,
            out_channels: dd.out_ch,
            down_block_types: blocks.down_block_types,
            up_block_types: blocks.up_block_types,
            block_out_channels: blocks.block_out_channels,
            layers_per_block: dd.num_res_blocks,
            act_fn: "silu".into(),
            latent_channels: dd.z_channels,
            sample_size: dd.resolution,
            num_vq_embeddings: self.n_embed,
            norm_num_groups: dd.norm_num_groups,
            vq_embed_dim: Some(self.embed_dim),
            scaling_factor: self.scaling.scaling_factor,
            norm_type: "group".into(),
            mid_block_add_attention: dd.attention_in_middle(),
            lookup_from_codebook: self.lookup_from_codebook,
            force_upcast: self.force_upcast,
        })
    }
}
