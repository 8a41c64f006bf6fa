//! The sampling loop: the lower half of the paper's figure 3, between prompt and decoder.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use ldm_scheduler::{Noise, Sampler};

use super::{Observer, Progress};
use crate::Error;

/// Keeps the known part of a picture while the rest is drawn (inpainting with any model).
///
/// Source: Lugmayr et al. 2022, equation 8, without its resampling; diffusers' inpainting pipeline.
#[derive(Debug, Clone)]
pub struct Blend {
    /// 1 where the picture is painted anew, 0 where it is kept: `[b, 1, h, w]`.
    pub mask: Tensor<4>,
    /// The clean latent of the picture, `[b, z, h, w]`.
    pub original: Tensor<4>,
    /// The noise that the original is shown with, `[b, z, h, w]`.
    pub noise: Tensor<4>,
}

/// Drives `sampler` from `latents` to the end with any function of `(z_t, t)` as the denoiser.
///
/// # Errors
/// Those of the denoiser and of the sampler; [`Error::Cancelled`] where the observer breaks off.
pub fn denoise(
    mut sampler: Sampler<4>,
    mut latents: Tensor<4>,
    noise: &mut dyn Noise,
    blend: Option<&Blend>,
    observer: &mut dyn Observer,
    mut denoiser: impl FnMut(Tensor<4>, f32) -> Result<Tensor<4>, Error>,
) -> Result<Tensor<4>, Error> {
    let of = sampler.timesteps().len();
    while let Some(t) = sampler.timestep() {
        let output = denoiser(sampler.scale_model_input(latents.clone()), t)?;
        latents = sampler.step(output, latents, noise)?;
        if let Some(Blend { mask, original, noise }) = blend {
            // The step has moved on: what is put back has the noise of where the latent is now.
            let known = sampler.add_noise(original.clone(), noise.clone())?;
            latents = (mask.clone() * -1.0 + 1.0) * known + mask.clone() * latents;
        }
        let step = sampler.done();
        if observer.step(Progress { step, of, latents: &latents }) == ControlFlow::Break(()) {
            return Err(Error::Cancelled { step, of });
        }
    }
    Ok(latents)
}
