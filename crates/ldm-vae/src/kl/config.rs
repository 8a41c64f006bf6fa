use burn::tensor::Device;
use ldm_nn::Conv2dConfig;
use serde::{Deserialize, Serialize};

use crate::{AutoencoderKl, DdConfig, Decoder, Encoder, LatentScaling, VaeError};

/// Configures an [`AutoencoderKl`]: `params` of an `ldm.models.autoencoder.AutoencoderKL` in CompVis' YAML
/// files, whose training keys (`lossconfig`, `monitor`, ...) are skipped.
///
/// The fields after `ddconfig` are not in CompVis' files; their defaults are what CompVis builds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderKlConfig {
    /// Channels of the latent.
    pub embed_dim: usize,
    /// Encoder and decoder.
    pub ddconfig: DdConfig,
    /// Whether a 1x1 convolution follows the encoder.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// What a pipeline does to the latents. In CompVis' files it belongs to the diffusion model
    /// (`scale_factor`), so whoever reads one sets it here.
    #[serde(default)]
    pub scaling: LatentScaling,
    /// Whether the weights overflow f16, so that a pipeline in half precision should run this model in f32
    /// (`force_upcast` of diffusers' config).
    #[serde(default)]
    pub force_upcast: bool,
}

fn yes() -> bool {
    true
}

impl AutoencoderKlConfig {
    /// The downsampling factor f.
    pub fn factor(&self) -> usize {
        self.ddconfig.factor()
    }

    /// Says what keeps this config from being built.
    pub fn validate(&self) -> Result<(), VaeError> {
        self.ddconfig.validate()?;
        if !self.ddconfig.double_z {
            return Err(VaeError::config("double_z", false, "a KL first stage needs mean and log-variance"));
        }
        if !(1..=1 << 16).contains(&self.embed_dim) {
            return Err(VaeError::config("embed_dim", self.embed_dim, "must lie in 1..=65536"));
        }
        for (key, has_conv) in
            [("use_quant_conv", self.use_quant_conv), ("use_post_quant_conv", self.use_post_quant_conv)]
        {
            if !has_conv && self.embed_dim != self.ddconfig.z_channels {
                let (embed, z) = (self.embed_dim, self.ddconfig.z_channels);
                return Err(VaeError::config(key, false, format!("embed_dim {embed} is not z_channels {z}")));
            }
        }
        self.scaling.validate(self.embed_dim)
    }

    /// Builds the model; parameters are made lazily.
    ///
    /// Errors: [`VaeError::Config`], naming the key that can't be built.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKl, VaeError> {
        self.validate()?;
        let (z, embed) = (self.ddconfig.z_channels, self.embed_dim);
        let conv = |channels| Conv2dConfig::new(channels, 1).init(device);
        Ok(AutoencoderKl {
            encoder: Encoder::new(&self.ddconfig, device),
            decoder: Decoder::new(&self.ddconfig, device),
            quant_conv: self.use_quant_conv.then(|| conv([2 * z, 2 * embed])),
            post_quant_conv: self.use_post_quant_conv.then(|| conv([embed, z])),
            config: self.clone(),
            tiling: None,
            slicing: false,
        })
    }
}
