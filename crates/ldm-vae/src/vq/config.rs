use burn::tensor::Device;
use ldm_nn::Conv2dConfig;
use serde::{Deserialize, Serialize};

use super::{Remap, UnknownIndex, VectorQuantizer, VqModel};
use crate::{DdConfig, Decoder, Encoder, LatentScaling, VaeError};

/// Configures a [`VqModel`]: `params` of an `ldm.models.autoencoder.VQModel` or `VQModelInterface` in CompVis'
/// YAML files (and of taming's `VQModel`), whose training keys (`lossconfig`, `monitor`, ...) are skipped.
///
/// The fields after `sane_index_shape` are not in those files; their defaults are what CompVis builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VqModelConfig {
    /// Channels of the latent, and of each code.
    pub embed_dim: usize,
    /// The number of codes.
    pub n_embed: usize,
    /// Encoder and decoder; `double_z` is false.
    pub ddconfig: DdConfig,
    /// The codes that are in use, where indices are counted among those alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remap: Option<UsedCodes>,
    /// Whether indices come as `[b, h, w]`, else flat (see [`CodeIndices`](crate::CodeIndices)).
    #[serde(default)]
    pub sane_index_shape: bool,
    /// The index of a code that `remap` leaves out (`random` in the reference).
    #[serde(default)]
    pub unknown_index: UnknownIndex,
    /// The weight of one of the codebook loss's two terms; `legacy` says of which.
    #[serde(default = "quarter")]
    pub beta: f64,
    /// Whether `beta` weighs the codebook's term (the reference's default, and all that its first
    /// `VectorQuantizer` does), not the encoder's (`legacy=False` of `VectorQuantizer2`).
    #[serde(default = "yes")]
    pub legacy: bool,
    /// Whether diffusers' `decode(..., force_not_quantize=True)` is given indices, which here is
    /// [`VqModel::decode_code`] with any model. Kept for the config that is written back.
    #[serde(default)]
    pub lookup_from_codebook: bool,
    /// What a pipeline does to the latents. In CompVis' files it belongs to the diffusion model
    /// (`scale_factor`), so whoever reads one sets it here.
    #[serde(default)]
    pub scaling: LatentScaling,
    /// Whether the weights overflow f16 (`force_upcast` of diffusers' config).
    #[serde(default)]
    pub force_upcast: bool,
}

/// The codes that a remapped model uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a list of indices or the name of a file")]
pub enum UsedCodes {
    /// Their indices in the whole codebook.
    Indices(Vec<i64>),
    /// The `.npy` file of these indices, as a YAML names it; whoever loads the model reads it, or takes the
    /// buffer `quantize.used` of the checkpoint.
    File(String),
}

fn yes() -> bool {
    true
}
fn quarter() -> f64 {
    0.25
}

/// Beyond this a codebook is a mistake.
const MAX_CODES: usize = 1 << 24;

impl VqModelConfig {
    /// The downsampling factor f.
    pub fn factor(&self) -> usize {
        self.ddconfig.factor()
    }

    /// Says what keeps this config from being built.
    pub fn validate(&self) -> Result<(), VaeError> {
        self.ddconfig.validate()?;
        if self.ddconfig.double_z {
            return Err(VaeError::config("double_z", true, "a VQ first stage has no log-variance"));
        }
        for (key, value, most) in
            [("embed_dim", self.embed_dim, 1 << 16), ("n_embed", self.n_embed, MAX_CODES)]
        {
            if !(1..=most).contains(&value) {
                return Err(VaeError::config(key, value, format!("must lie in 1..={most}")));
            }
        }
        if !self.beta.is_finite() {
            return Err(VaeError::config("beta", self.beta, "must be finite"));
        }
        self.scaling.validate(self.embed_dim)?;
        self.remap().map(|_| ())
    }

    fn remap(&self) -> Result<Option<Remap>, VaeError> {
        match &self.remap {
            None => Ok(None),
            Some(UsedCodes::Indices(used)) => {
                Remap::new(used.clone(), self.n_embed, self.unknown_index).map(Some)
            }
            Some(UsedCodes::File(file)) => {
                Err(VaeError::config("remap", file, "the file must be read before the model is built"))
            }
        }
    }

    /// Builds the model; parameters are made lazily.
    ///
    /// Errors: [`VaeError::Config`], naming the key that can't be built.
    pub fn init(&self, device: &Device) -> Result<VqModel, VaeError> {
        self.validate()?;
        let (z, embed) = (self.ddconfig.z_channels, self.embed_dim);
        let quantize = VectorQuantizer::new(self.n_embed, embed, self.beta, device)
            .with_legacy(self.legacy)
            .with_sane_index_shape(self.sane_index_shape)
            .with_remap(self.remap()?);
        Ok(VqModel {
            encoder: Encoder::new(&self.ddconfig, device),
            decoder: Decoder::new(&self.ddconfig, device),
            quantize,
            quant_conv: Conv2dConfig::new([z, embed], 1).init(device),
            post_quant_conv: Conv2dConfig::new([embed, z], 1).init(device),
            config: self.clone(),
            tiling: None,
            slicing: false,
        })
    }
}
