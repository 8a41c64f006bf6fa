use burn::tensor::Tensor;

use super::Fall;
use crate::{
    Error, Prediction, Scheduler,
    limit::Limit,
    sampler::{Draw, Path, Solver},
    sigmas::Ramp,
};

/// Heun's method (Karras et al. 2022, algorithm 1): an Euler step, then the same step again with the mean
/// of the slopes at both ends. Two calls of the denoiser a step, one for the last.
pub(super) struct Heun<const D: usize> {
    sigmas: Vec<f32>,
    prediction: Prediction,
    limit: Limit,
    /// After the first call of a step: where it started, and the slope there.
    first: Option<(Tensor<D>, Tensor<D>)>,
}

impl<const D: usize> Heun<D> {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let config = scheduler.config();
        let path = Fall::new(scheduler, steps, Ramp::from_config(config)?)?.path(0.0, 2);
        let solver = Self {
            sigmas: path.sigmas.clone(),
            prediction: scheduler.prediction(),
            limit: Limit::clipping(config, false)?,
            first: None,
        };
        Ok((solver, path))
    }
}

impl<const D: usize> Solver<D> for Heun<D> {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        _: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let sigma = self.sigmas[i];
        let denoised = self.limit.apply(self.prediction.denoised(&x, output, sigma));
        let d = (x.clone() - denoised) / sigma;
        match self.first.take() {
            None => {
                self.first = Some((x.clone(), d.clone()));
                Ok(x + d * (self.sigmas[i + 1] - sigma))
            }
            Some((x, d_first)) => Ok(x + (d_first + d) / 2.0 * (sigma - self.sigmas[i - 1])),
        }
    }
}
