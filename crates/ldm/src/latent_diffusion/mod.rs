//! The paper's own models, whole: from a YAML file and a checkpoint, or one of the registry's, to pictures.
//!
//! [`LatentDiffusion`] is U-Net, first stage and tau_theta; [`Sampling`] is a run of the reference's samplers over
//! it, which the tasks ([`LatentDiffusion::classes`], [`LatentDiffusion::texts`], [`LatentDiffusion::inpaint`], ...)
//! start. [`Patches`] runs a model over pictures larger than it was trained for.

#[cfg(feature = "autodiff")]
mod classifier;
mod diffusers;
mod inpainting;
mod load;
pub(crate) mod parts;
mod patches;
mod sampling;
mod save;
mod score;
mod tasks;

use burn::tensor::{DType, Device, Tensor};
use ldm_conditioning::{CondStage, Condition, ConditioningError};
use ldm_nn::Conditioning;
use ldm_scheduler::{Noise, Prediction, SchedulerConfig, randn};
use ldm_unet::{Prepared, UNet};
use ldm_vae::{Encoded, FirstStage, LatentScaling};

use crate::model::ConditioningKey;
use crate::pipeline::Evaluator;
use crate::{Error, LatentDiffusionConfig};
use patches::Resize;

#[cfg(feature = "autodiff")]
pub use classifier::ClassifierGuidance;
pub use inpainting::Inpainting;
pub use patches::Patches;
pub use sampling::{Sampled, Sampling};
pub use score::{Score, ScoreCorrector};

/// A latent diffusion model: U-Net, first stage, tau_theta and schedule.
///
/// Source: paper, figure 3; `LatentDiffusion` in the reference's `ddpm.py`.
#[derive(Debug, Clone)]
pub struct LatentDiffusion {
    /// epsilon_theta.
    pub unet: UNet,
    /// E and D.
    pub first_stage: FirstStage,
    /// How the U-Net's latents relate to the first stage's (`scale_factor`).
    pub scaling: LatentScaling,
    /// tau_theta; `None` for an unconditional model, and for one whose condition is encoded by E.
    pub cond_stage: Option<CondStage>,
    /// How a condition reaches the U-Net; `None` for an unconditional model.
    pub conditioning_key: Option<ConditioningKey>,
    /// The schedule and the sampler that goes with it.
    pub scheduler: SchedulerConfig,
    /// How U-Net and first stage are run over pictures larger than the model was trained for: in patches, or
    /// convolutionally (`None`, the default).
    pub patches: Option<Patches>,
    /// The config that the model was made from; diffusers' directories have none.
    config: Option<LatentDiffusionConfig>,
    /// Whether E encodes the condition (`__is_first_stage__`).
    first_stage_conditions: bool,
    /// Height and width of the latent that it was trained for.
    size: [usize; 2],
    /// Whether 8-bit pixels are rounded down, as the reference's scripts do.
    truncate: bool,
    device: Device,
}

impl LatentDiffusion {
    /// The config that the model was made from; `None` for a model of diffusers'.
    pub fn config(&self) -> Option<&LatentDiffusionConfig> {
        self.config.as_ref()
    }

    /// The device that the model is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Height and width of the latent that the model was trained for.
    pub fn latent_size(&self) -> [usize; 2] {
        self.size
    }

    /// Channels of the latent.
    pub fn channels(&self) -> usize {
        self.unet.config().out_channels
    }

    /// What the U-Net predicts.
    ///
    /// # Errors
    /// [`Error::Scheduler`] where the scheduler config names no prediction that is known.
    pub fn prediction(&self) -> Result<Prediction, Error> {
        Ok(Prediction::from_config(&self.scheduler)?)
    }

    /// The scaled latents `[b, z, h / f, w / f]` of pictures `[b, c, h, w]` in [-1, 1]; `noise` draws from the
    /// posterior of a KL first stage.
    ///
    /// # Errors
    /// [`Error::Vae`] for a size that f does not divide or a wrong number of channels; [`Error::Argument`] where
    /// patches don't cover the picture.
    pub fn encode(&self, pictures: Tensor<4>, noise: &mut dyn Noise) -> Result<Tensor<4>, Error> {
        let z = match self.encoded(pictures)? {
            encoded @ Encoded::Posterior(_) => {
                let z = randn(noise, encoded.dims(), &self.device, DType::F32)?;
                encoded.sample(z.cast(self.first_stage.dtype()))?
            }
            Encoded::Latent(z) => z,
        };
        Ok(self.scaling.scale(z.cast(DType::F32)))
    }

    /// The pictures `[b, c, h, w]`, about [-1, 1], of scaled latents; a VQ first stage quantises them first.
    ///
    /// # Errors
    /// [`Error::Vae`] for a wrong number of channels; [`Error::Argument`] where patches don't cover the latents.
    pub fn decode(&self, latents: Tensor<4>) -> Result<Tensor<4>, Error> {
        let z = self.scaling.unscale(latents);
        let decode = |z: Tensor<4>| -> Result<Tensor<4>, Error> {
            Ok(self.first_stage.decode(z.cast(self.first_stage.dtype()))?.cast(DType::F32))
        };
        match self.checked_patches()? {
            Some(patches) if patches.patch_distributed_vq => {
                patches.map(&z, Resize::Up(self.first_stage.factor()), |_, _, z| decode(z))
            }
            _ => decode(z),
        }
    }

    /// The conditioning of conditions as they come: tau_theta's, or E's. A model of both mechanisms (`hybrid`) takes
    /// [`Condition::Both`]: first what is joined to the latent, as it is, then tau_theta's condition.
    ///
    /// # Errors
    /// [`Error::Conditioning`] for a condition that tau_theta does not take; [`Error::Argument`] where the model takes
    /// none.
    pub fn condition(&self, condition: &Condition) -> Result<Conditioning, Error> {
        if self.first_stage_conditions {
            return match condition {
                Condition::Image(picture) => Ok(Conditioning::concat(self.encode_unscaled(picture.clone())?)),
                _ => Err(Error::argument("condition", "the model's condition is a picture, which E encodes")),
            };
        }
        match (&self.cond_stage, condition) {
            // The reference's `hybrid` encodes the context alone; two encoders each take their own.
            (Some(stage), Condition::Both(channels, context))
                if self.conditioning_key == Some(ConditioningKey::Hybrid)
                    && !matches!(stage, CondStage::Hybrid(_)) =>
            {
                let channels = CondStage::identity().encode(channels)?;
                let both = channels.merge(stage.encode(context)?);
                Ok(both.map_err(ConditioningError::from)?)
            }
            (Some(stage), _) => Ok(stage.encode(condition)?),
            (None, _) => Err(Error::argument("condition", "the model is unconditional")),
        }
    }

    /// E's latent of a condition, which is not scaled, and the most likely one.
    fn encode_unscaled(&self, picture: Tensor<4>) -> Result<Tensor<4>, Error> {
        Ok(self.encoded(picture)?.mode().cast(DType::F32))
    }

    fn encoded(&self, pictures: Tensor<4>) -> Result<Encoded, Error> {
        let pictures = pictures.to_device(&self.device);
        let encode = |x: Tensor<4>| self.first_stage.encode(x.cast(self.first_stage.dtype()));
        match (self.checked_patches()?, &self.first_stage) {
            (Some(patches), FirstStage::Vq(_)) if patches.patch_distributed_vq => {
                let down = Resize::Down(self.first_stage.factor());
                let z = patches.map(&pictures, down, |_, _, x| Ok(encode(x)?.mode()))?;
                Ok(Encoded::Latent(z))
            }
            _ => Ok(encode(pictures)?),
        }
    }

    /// The patches, if the first stage is as they say.
    fn checked_patches(&self) -> Result<Option<&Patches>, Error> {
        let factor = self.first_stage.factor();
        match &self.patches {
            Some(Patches { vqf, .. }) if *vqf != factor => {
                Err(Error::argument("patches", format!("vqf is {vqf}, the first stage's factor {factor}")))
            }
            patches => Ok(patches.as_ref()),
        }
    }

    /// The conditions of a run on latents of this height and width, as every step of the U-Net reads them: one, or one for
    /// each patch, which may have a conditioning of its own.
    fn prepare(
        &self,
        size: [usize; 2],
        conditioning: &Conditioning,
        patch_conditions: Option<&[Conditioning]>,
    ) -> Result<Vec<Prepared>, Error> {
        let shared = self.unet.prepare(conditioning)?;
        let Some(patches) = self.checked_patches()? else { return Ok(vec![shared]) };
        let grid = patches.grid(size)?;
        let of_patch = |(i, place): (usize, [usize; 2])| -> Result<Prepared, Error> {
            let prepared = match patch_conditions.and_then(|all| all.get(i)) {
                Some(own) => self.unet.prepare(own)?,
                None => shared.clone(),
            };
            let concat = prepared.conditioning().concat.as_ref().map(|concat| grid.crop(concat, place));
            Ok(match concat {
                Some(concat) => prepared.with_concat(concat),
                None => prepared,
            })
        };
        grid.places().enumerate().map(of_patch).collect()
    }

    /// One evaluation of the U-Net on `[b, z, h, w]` at timestep `t`, in patches where the model says so: the
    /// evaluators are those of what [`prepare`](Self::prepare) gave.
    ///
    /// Source: `apply_model` in the reference's `ddpm.py`.
    fn apply(&self, x: Tensor<4>, t: f32, evaluators: &mut [Evaluator<'_>]) -> Result<Tensor<4>, Error> {
        let mut evaluate = |i: usize, x: Tensor<4>| {
            let evaluator = evaluators.get_mut(i);
            let evaluator = evaluator.ok_or_else(|| Error::argument("patches", "not those of the run"))?;
            evaluator.evaluate(x, t)
        };
        match self.checked_patches()? {
            Some(patches) => patches.map(&x, Resize::Same, |i, _, x| evaluate(i, x)),
            None => evaluate(0, x),
        }
    }
}
