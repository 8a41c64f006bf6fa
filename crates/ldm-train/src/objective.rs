use burn::tensor::Tensor;
use ldm_scheduler::{Error, NoiseSchedule, Prediction, Scheduler};

/// L_LDM, the objective of latent diffusion: `E_(z, noise, t) || target - prediction(z_t, t) ||^2`
/// (Rombach et al. 2022, eq. 1 and 2; with conditioning, which the denoiser's closure carries, eq. 3).
///
/// The mean over all elements, as `p_losses` in CompVis' ddpm.py with its defaults (`l_simple_weight` 1,
/// `original_elbo_weight` 0, `logvar` 0).
#[derive(Debug, Clone)]
pub struct Objective {
    schedule: NoiseSchedule,
    prediction: Prediction,
}

impl Objective {
    /// The objective of a model that predicts `prediction` on this schedule.
    pub fn new(schedule: NoiseSchedule, prediction: Prediction) -> Self {
        Self { schedule, prediction }
    }

    /// The objective under which a model of this scheduler's config was trained.
    pub fn of(scheduler: &Scheduler) -> Self {
        Self::new(scheduler.schedule().clone(), scheduler.prediction())
    }

    /// What the denoiser should say: the noise, `z` itself, or the velocity. `z` and `noise`:
    /// `[B, ...]`; `timesteps`: B numbers below T.
    ///
    /// # Errors
    /// Shapes that differ, a timestep out of range.
    pub fn target<const D: usize>(
        &self,
        z: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
    ) -> Result<Tensor<D>, Error> {
        match self.prediction {
            Prediction::Epsilon => Ok(noise),
            Prediction::Sample => Ok(z),
            Prediction::VPrediction => self.schedule.velocity(z, noise, timesteps),
        }
    }

    /// The loss, `[1]`, of a denoiser that takes `(z_t, timesteps)`; under autodiff, with its gradient.
    ///
    /// `z`: latents `[B, ...]`, already scaled by the first stage's factor; `noise`: standard normal, of the
    /// same shape; `timesteps`: one number below T for each item.
    ///
    /// # Errors
    /// Shapes that differ, a timestep out of range, and whatever the denoiser returns.
    pub fn loss<const D: usize, E: From<Error>>(
        &self,
        z: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
        denoiser: impl FnOnce(Tensor<D>, &[usize]) -> Result<Tensor<D>, E>,
    ) -> Result<Tensor<1>, E> {
        let z_t = self.schedule.add_noise(z.clone(), noise.clone(), timesteps)?;
        let target = self.target(z, noise, timesteps)?;
        let prediction = denoiser(z_t, timesteps)?;
        if prediction.dims() != target.dims() {
            let (actual, expected) = (prediction.dims().to_vec(), target.dims().to_vec());
            return Err(Error::Shape { what: "prediction", actual, expected }.into());
        }
        Ok((target - prediction).square().mean())
    }
}
