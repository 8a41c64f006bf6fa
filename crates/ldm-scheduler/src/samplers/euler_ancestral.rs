use burn::tensor::Tensor;

use super::Fall;
use crate::{
    Error, Prediction, Scheduler,
    sampler::{Draw, Path, Solver},
    sigmas::Ramp,
};

/// An Euler step to below the next noise level, then fresh noise up to it (k-diffusion,
/// `sample_euler_ancestral`).
pub(super) struct EulerAncestral {
    sigmas: Vec<f32>,
    prediction: Prediction,
}

impl EulerAncestral {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let prediction = Prediction::epsilon_or_v(scheduler.config())?;
        // diffusers' class knows no Karras sigmas.
        let path = Fall::new(scheduler, steps, Ramp::Schedule)?.path(0.0, 1);
        Ok((Self { sigmas: path.sigmas.clone(), prediction }, path))
    }
}

impl<const D: usize> Solver<D> for EulerAncestral {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let (sigma, sigma_next) = (self.sigmas[i], self.sigmas[i + 1]);
        let (v, v_next) = (sigma * sigma, sigma_next * sigma_next);
        let sigma_up = (v_next * (v - v_next) / v).sqrt();
        // After a very long step all of it is fresh noise, and rounding could leave less than none.
        let sigma_down = (v_next - sigma_up * sigma_up).max(0.0).sqrt();

        let denoised = self.prediction.denoised(&x, output, sigma);
        let d = (x.clone() - denoised) / sigma;
        Ok(x + d * (sigma_down - sigma) + z.normal()? * sigma_up)
    }
}
