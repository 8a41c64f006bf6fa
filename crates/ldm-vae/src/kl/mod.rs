mod config;
mod diffusers;
mod gaussian;
mod presets;

pub use config::AutoencoderKlConfig;
pub use diffusers::DiffusersAutoencoderKl;
pub use gaussian::DiagonalGaussian;
pub use presets::{KL_PRESETS, KlPreset};

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use ldm_nn::Conv2d;

use crate::input::{check, check_picture, each};
use crate::{Decoder, Encoder, LatentScaling, Naming, Tiling, VaeError, WeightNames};

/// The KL-regularised first stage: encoder, decoder and the 1x1 convolutions between them and the latent.
///
/// Source: paper, section 3.1 and appendix G; `AutoencoderKL` in the reference's `autoencoder.py` and in
/// diffusers' `autoencoder_kl.py`.
#[derive(Module, Debug)]
pub struct AutoencoderKl {
    /// E.
    pub encoder: Encoder,
    /// D.
    pub decoder: Decoder,
    /// `2 z_channels -> 2 embed_dim`.
    pub quant_conv: Option<Conv2d>,
    /// `embed_dim -> z_channels`.
    pub post_quant_conv: Option<Conv2d>,
    #[module(skip)]
    config: AutoencoderKlConfig,
    #[module(skip)]
    tiling: Option<Tiling>,
    #[module(skip)]
    slicing: bool,
}

impl AutoencoderKl {
    /// The config that the model was built from.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// The downsampling factor f.
    pub fn factor(&self) -> usize {
        self.config.ddconfig.factor()
    }

    /// How the diffusion model's latents relate to this model's.
    pub fn scaling(&self) -> &LatentScaling {
        &self.config.scaling
    }

    /// The type of the weights, in which the networks run: inputs are cast to it.
    pub fn dtype(&self) -> DType {
        self.encoder.conv_in.weight.val().dtype()
    }

    /// The names of this model's parameters in a weight file.
    pub fn weight_names(&self, naming: Naming) -> WeightNames {
        WeightNames::new(naming, self.config.ddconfig.levels())
    }

    /// Encodes and decodes in tiles what is larger than one tile; `None` turns it off (the default).
    ///
    /// Errors: [`VaeError::Tiling`] where the tiles don't join at this model's f.
    pub fn with_tiling(mut self, tiling: Option<Tiling>) -> Result<Self, VaeError> {
        if let Some(tiling) = &tiling {
            tiling.validate(self.factor())?;
        }
        self.tiling = tiling;
        Ok(self)
    }

    /// Whether a batch runs one item at a time, to save memory (default: false).
    pub fn with_slicing(mut self, slicing: bool) -> Self {
        self.slicing = slicing;
        self
    }

    /// The distribution of the latent of a picture.
    ///
    /// `x` `[b, in_channels, h, w]` in [-1, 1], h and w multiples of f; gives a Gaussian over
    /// `[b, embed_dim, h/f, w/f]`. Errors: a size that f does not divide, a wrong number of channels.
    pub fn encode(&self, x: Tensor<4>) -> Result<DiagonalGaussian, VaeError> {
        check_picture(&x, &self.config.ddconfig)?;
        let moments = each(self.slicing, x.cast(self.dtype()), |x| match &self.tiling {
            Some(tiling) => tiling.encode(x, |x| self.moments(x)),
            None => self.moments(x),
        });
        DiagonalGaussian::from_moments(moments)
    }

    /// The picture of a latent.
    ///
    /// `z` `[b, embed_dim, h/f, w/f]`, not scaled (see [`scaling`](Self::scaling)); gives
    /// `[b, out_ch, h, w]`, about [-1, 1]. Errors: a wrong number of channels, an empty latent.
    pub fn decode(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        check("latent", &z, self.config.embed_dim)?;
        Ok(each(self.slicing, z.cast(self.dtype()), |z| match &self.tiling {
            Some(tiling) => tiling.decode(z, |z| self.picture(z)),
            None => self.picture(z),
        }))
    }

    fn moments(&self, x: Tensor<4>) -> Tensor<4> {
        let h = self.encoder.forward(x);
        match &self.quant_conv {
            Some(conv) => conv.forward(h),
            None => h,
        }
    }

    fn picture(&self, z: Tensor<4>) -> Tensor<4> {
        let z = match &self.post_quant_conv {
            Some(conv) => conv.forward(z),
            None => z,
        };
        self.decoder.forward(z)
    }
}
