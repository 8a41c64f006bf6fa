use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};

use crate::{
    AutoencoderKl, AutoencoderKlConfig, DiagonalGaussian, LatentScaling, Naming, Tiling, VaeError, VqModel,
    VqModelConfig, WeightNames,
};

/// The first stage of a latent diffusion model, of whichever kind.
///
/// What the diffusion model sees of it: a latent of a picture, and a picture of a latent, neither scaled
/// (see [`scaling`](Self::scaling)).
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant, reason = "a program holds one of them, seldom two")]
pub enum FirstStage {
    /// KL-regularised.
    Kl(AutoencoderKl),
    /// Vector-quantised; the latent is taken before quantisation, which belongs to the decoder.
    Vq(VqModel),
    /// None: diffusion in the space of pictures.
    Identity(IdentityFirstStage),
}

/// A picture is its own latent: the paper's f = 1 (`IdentityFirstStage` in the reference's `autoencoder.py`).
#[derive(Module, Debug)]
pub struct IdentityFirstStage {
    #[module(skip)]
    channels: usize,
    #[module(skip)]
    scaling: LatentScaling,
}

impl IdentityFirstStage {
    /// For pictures of this many channels.
    pub fn new(channels: usize) -> Self {
        Self { channels, scaling: LatentScaling::default() }
    }

    /// Scales the latent all the same.
    pub fn with_scaling(mut self, scaling: LatentScaling) -> Self {
        self.scaling = scaling;
        self
    }
}

/// The config of a [`FirstStage`].
#[derive(Debug, Clone, PartialEq)]
pub enum FirstStageConfig {
    /// Of [`FirstStage::Kl`].
    Kl(AutoencoderKlConfig),
    /// Of [`FirstStage::Vq`].
    Vq(VqModelConfig),
    /// Of [`FirstStage::Identity`]: the channels of a picture and how they are scaled.
    Identity(usize, LatentScaling),
}

/// What a first stage encodes a picture to.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "two handles or one")]
pub enum Encoded {
    /// A distribution (KL).
    Posterior(DiagonalGaussian),
    /// A latent `[b, c, h/f, w/f]` (VQ before quantisation, identity).
    Latent(Tensor<4>),
}

impl Encoded {
    /// The most likely latent.
    pub fn mode(&self) -> Tensor<4> {
        match self {
            Self::Posterior(posterior) => posterior.mode(),
            Self::Latent(z) => z.clone(),
        }
    }

    /// A latent drawn with `noise`, N(0, 1) of the latent's shape; where there is no distribution, the latent.
    ///
    /// Errors: [`VaeError::Shape`] where the noise has another shape.
    pub fn sample(&self, noise: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        match self {
            Self::Posterior(posterior) => posterior.sample(noise),
            Self::Latent(z) => Ok(z.clone()),
        }
    }

    /// The latent's shape, `[b, c, h/f, w/f]`.
    pub fn dims(&self) -> [usize; 4] {
        match self {
            Self::Posterior(posterior) => posterior.mean().dims(),
            Self::Latent(z) => z.dims(),
        }
    }
}

impl FirstStageConfig {
    /// Builds the first stage; parameters are made lazily.
    ///
    /// Errors: [`VaeError::Config`], naming the key that can't be built.
    pub fn init(&self, device: &Device) -> Result<FirstStage, VaeError> {
        Ok(match self {
            Self::Kl(config) => FirstStage::Kl(config.init(device)?),
            Self::Vq(config) => FirstStage::Vq(config.init(device)?),
            Self::Identity(channels, scaling) => {
                scaling.validate(*channels)?;
                let identity = IdentityFirstStage::new(*channels);
                FirstStage::Identity(identity.with_scaling(scaling.clone()))
            }
        })
    }

    /// The same with another scaling: CompVis keeps it with the diffusion model.
    pub fn with_scaling(mut self, scaling: LatentScaling) -> Self {
        match &mut self {
            Self::Kl(config) => config.scaling = scaling,
            Self::Vq(config) => config.scaling = scaling,
            Self::Identity(_, own) => *own = scaling,
        }
        self
    }

    /// The same for a diffusion model whose latent has this many channels, which an identity's YAML doesn't say.
    pub fn for_channels(mut self, latent: usize) -> Self {
        if let Self::Identity(channels, _) = &mut self {
            *channels = latent;
        }
        self
    }

    /// The downsampling factor f.
    pub fn factor(&self) -> usize {
        match self {
            Self::Kl(config) => config.factor(),
            Self::Vq(config) => config.factor(),
            Self::Identity(..) => 1,
        }
    }

    /// Whether the weights overflow f16.
    pub fn force_upcast(&self) -> bool {
        match self {
            Self::Kl(config) => config.force_upcast,
            Self::Vq(config) => config.force_upcast,
            Self::Identity(..) => false,
        }
    }
}

impl FirstStage {
    /// What a picture `[b, c, h, w]` in [-1, 1] is encoded to; not scaled.
    ///
    /// Errors: a size that f does not divide, a wrong number of channels.
    pub fn encode(&self, x: Tensor<4>) -> Result<Encoded, VaeError> {
        match self {
            Self::Kl(model) => model.encode(x).map(Encoded::Posterior),
            Self::Vq(model) => model.encode(x).map(Encoded::Latent),
            Self::Identity(identity) => {
                crate::input::check("picture", &x, identity.channels)?;
                Ok(Encoded::Latent(x))
            }
        }
    }

    /// The picture of a latent `[b, c, h/f, w/f]`, not scaled; VQ quantises it first.
    ///
    /// Errors: a wrong number of channels, an empty latent.
    pub fn decode(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        match self {
            Self::Vq(model) => model.decode(z),
            _ => self.decode_unquantized(z),
        }
    }

    /// As [`decode`](Self::decode), never quantising (`force_not_quantize`).
    pub fn decode_unquantized(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        match self {
            Self::Kl(model) => model.decode(z),
            Self::Vq(model) => model.decode_unquantized(z),
            Self::Identity(identity) => {
                crate::input::check("latent", &z, identity.channels)?;
                Ok(z)
            }
        }
    }

    /// The nearest codes of a latent (`quantize_denoised` of the reference's samplers, which quantises the
    /// diffusion model's latent as it is, scaled); identity gives it back, as the reference's does.
    ///
    /// Errors: [`VaeError::NoCodebook`] for a KL first stage; a wrong number of channels.
    pub fn quantize(&self, z: Tensor<4>) -> Result<Tensor<4>, VaeError> {
        match self {
            Self::Kl(_) => Err(VaeError::NoCodebook { stage: "KL" }),
            Self::Vq(model) => Ok(model.quantize.forward(z)?.z_q),
            Self::Identity(_) => Ok(z),
        }
    }

    /// The config that it was built from.
    pub fn config(&self) -> FirstStageConfig {
        match self {
            Self::Kl(model) => FirstStageConfig::Kl(model.config().clone()),
            Self::Vq(model) => FirstStageConfig::Vq(model.config().clone()),
            Self::Identity(identity) => {
                FirstStageConfig::Identity(identity.channels, identity.scaling.clone())
            }
        }
    }

    /// How the diffusion model's latents relate to this model's.
    pub fn scaling(&self) -> &LatentScaling {
        match self {
            Self::Kl(model) => model.scaling(),
            Self::Vq(model) => model.scaling(),
            Self::Identity(identity) => &identity.scaling,
        }
    }

    /// The downsampling factor f.
    pub fn factor(&self) -> usize {
        match self {
            Self::Kl(model) => model.factor(),
            Self::Vq(model) => model.factor(),
            Self::Identity(_) => 1,
        }
    }

    /// Channels of the picture.
    pub fn in_channels(&self) -> usize {
        match self {
            Self::Kl(model) => model.config().ddconfig.in_channels,
            Self::Vq(model) => model.config().ddconfig.in_channels,
            Self::Identity(identity) => identity.channels,
        }
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Kl(model) => model.config().embed_dim,
            Self::Vq(model) => model.config().embed_dim,
            Self::Identity(identity) => identity.channels,
        }
    }

    /// The type of the weights; f32 where there are none.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Kl(model) => model.dtype(),
            Self::Vq(model) => model.dtype(),
            Self::Identity(_) => DType::F32,
        }
    }

    /// The names of the parameters in a weight file.
    pub fn weight_names(&self, naming: Naming) -> WeightNames {
        match self {
            Self::Kl(model) => model.weight_names(naming),
            Self::Vq(model) => model.weight_names(naming),
            Self::Identity(_) => WeightNames::new(naming, 1),
        }
    }

    /// Encodes and decodes in tiles what is larger than one tile; identity has no need to.
    ///
    /// Errors: [`VaeError::Tiling`] where the tiles don't join at this model's f.
    pub fn with_tiling(self, tiling: Option<Tiling>) -> Result<Self, VaeError> {
        Ok(match self {
            Self::Kl(model) => Self::Kl(model.with_tiling(tiling)?),
            Self::Vq(model) => Self::Vq(model.with_tiling(tiling)?),
            Self::Identity(identity) => Self::Identity(identity),
        })
    }

    /// Whether a batch runs one item at a time, to save memory (default: false).
    pub fn with_slicing(self, slicing: bool) -> Self {
        match self {
            Self::Kl(model) => Self::Kl(model.with_slicing(slicing)),
            Self::Vq(model) => Self::Vq(model.with_slicing(slicing)),
            Self::Identity(identity) => Self::Identity(identity),
        }
    }
}
