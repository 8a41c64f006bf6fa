//! The vector-quantised first stage.

mod config;
mod diffusers;
mod indices;
mod nearest;
mod presets;
mod quantizer;
mod remap;
mod usage;

pub use config::{UsedCodes, VqModelConfig};
pub use diffusers::DiffusersVqModel;
pub use indices::CodeIndices;
pub use presets::{VQ_PRESETS, VqPreset};
pub use quantizer::{Quantized, VectorQuantizer};
pub use remap::{Remap, UnknownIndex};
pub use usage::{CodebookUsage, measure_perplexity};

use burn::module::Module;
use burn::tensor::{DType, Int, Tensor};
use ldm_nn::Conv2d;

use crate::input::{check, check_picture, each};
use crate::{Decoder, Encoder, LatentScaling, Naming, Tiling, VaeError, WeightNames};

/// The VQ-regularised first stage: encoder, codebook, decoder and the 1x1 convolutions between.
///
/// [`encode`](Self::encode) gives the latent before quantisation and [`decode`](Self::decode) quantises what it
/// is given, since the diffusion model works on what lies between (the reference's `VQModelInterface`).
/// Training runs [`forward`](Self::forward), which is `VQModel`'s.
///
/// Source: paper, section 3.1 and appendix G; `autoencoder.py` of the reference, `vq_model.py` of diffusers.
#[derive(Module, Debug)]
pub struct VqModel {
    /// E.
    pub encoder: Encoder,
    /// D.
    pub decoder: Decoder,
    /// The codebook.
    pub quantize: VectorQuantizer,
    /// `z_channels -> embed_dim`.
    pub quant_conv: Conv2d,
    /// `embed_dim -> z_channels`.
    pub post_quant_conv: Conv2d,
    #[module(skip)]
    config: VqModelConfig,
    #[module(skip)]
    tiling: Option<Tiling>,
    #[module(skip)]
    slicing: bool,
}

/// What [`VqModel::forward`] gives.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    /// `[b, out_ch, h, w]`, about [-1, 1].
    pub picture: Tensor<4>,
    /// The latent, quantised, with the codebook loss.
    pub quantized: Quantized,
}

impl VqModel {
    /// The config that the model was built from.
    pub fn config(&self) -> &VqModelConfig {
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

    /// The latent of a picture, before quantisation (`encode` of `VQModelInterface`).
    ///
    /// `x` `[b, in_channels, h, w]` in [-1, 1], h and w multiples of f; gives `[b, embed_dim, h/f, w/f]`.
    /// Errors: a size that f does not divide, a wrong number of channels.
    pub fn encode(&self, x: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        check_picture(&x, &self.config.ddconfig)?;
        let network = |x| self.quant_conv.forward(self.encoder.forward(x));
        Ok(each(self.slicing, x.cast(self.dtype()), |x| match &self.tiling {
            Some(tiling) => tiling.encode(x, network),
            None => network(x),
        }))
    }

    /// The picture of a latent, which is quantised first (`decode` of `VQModelInterface`).
    ///
    /// `z` `[b, embed_dim, h/f, w/f]`, not scaled (see [`scaling`](Self::scaling)); gives `[b, out_ch, h, w]`,
    /// about [-1, 1]. Errors: a wrong number of channels, an empty latent.
    pub fn decode(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        let z = self.quantize.forward(z.cast(self.dtype()))?.z_q;
        self.decode_unquantized(z)
    }

    /// As [`decode`](Self::decode), of a latent as it is (`force_not_quantize`).
    pub fn decode_unquantized(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        check("latent", &z, self.config.embed_dim)?;
        let network = |z| self.decoder.forward(self.post_quant_conv.forward(z));
        Ok(each(self.slicing, z.cast(self.dtype()), |z| match &self.tiling {
            Some(tiling) => tiling.decode(z, network),
            None => network(z),
        }))
    }

    /// The picture of codes given by `indices` `[b, h/f, w/f]` (`decode_code`, and diffusers' decode with
    /// `lookup_from_codebook`).
    ///
    /// Errors: an index out of range.
    pub fn decode_code(&self, indices: Tensor<3, Int>) -> Result<Tensor<4>, VaeError> {
        self.decode_unquantized(self.quantize.codebook_entry(indices)?)
    }

    /// Picture to latent to quantised latent to picture, as it is trained.
    ///
    /// `x` as for [`encode`](Self::encode), and its errors.
    pub fn forward(&self, x: Tensor<4>) -> Result<Reconstruction, VaeError> {
        let quantized = self.quantize.forward(self.encode(x)?)?;
        let picture = self.decode_unquantized(quantized.z_q.clone())?;
        Ok(Reconstruction { picture, quantized })
    }
}
