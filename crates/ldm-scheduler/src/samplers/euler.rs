use burn::tensor::Tensor;

use super::{Fall, timesteps};
use crate::{
    Error, Prediction, Scheduler,
    sampler::{Draw, Path, Solver},
    schedule::linspace,
    sigmas::{FinalSigma, Ramp},
    timesteps::Spacing,
};

/// Euler's method on `dx/dsigma = (x - D(x; sigma)) / sigma` (Karras et al. 2022, eq. 3 and algorithm 1
/// without its correction).
pub(super) struct Euler {
    sigmas: Vec<f32>,
    prediction: Prediction,
}

impl Euler {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let config = scheduler.config();
        let prediction = scheduler.prediction();
        let ramp = Ramp::from_config(config)?;
        let mut fall = Fall::new(scheduler, steps, ramp)?;
        let log_linear =
            config.choice("interpolation_type", &[("linear", false), ("log_linear", true)], false)?;
        if log_linear && ramp == Ramp::Schedule {
            let schedule = scheduler.schedule().sigmas();
            let (min, max) = (schedule[0].ln(), schedule[schedule.len() - 1].ln());
            let logs = linspace(f64::from(max), f64::from(min), steps + 1);
            fall.sigmas = logs.iter().map(|log| f64::from(log.exp())).collect();
            let spacing = timesteps(scheduler, Spacing::Linspace, steps)?.spacing;
            fall.init_noise_sigma = super::init_noise_sigma(&fall.sigmas, spacing);
        }
        let end = match FinalSigma::from_config(config)? {
            FinalSigma::Zero => 0.0,
            FinalSigma::Min => scheduler.schedule().sigmas()[0],
        };
        let mut path = fall.path(end, 1);
        let continuous =
            config.choice("timestep_type", &[("discrete", false), ("continuous", true)], false)?;
        if continuous && prediction == Prediction::VPrediction {
            let sigmas = path.sigmas.iter().take(path.timesteps.len());
            path.timesteps = sigmas.map(|s| 0.25 * s.ln()).collect();
        }
        Ok((Self { sigmas: path.sigmas.clone(), prediction }, path))
    }
}

impl<const D: usize> Solver<D> for Euler {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        _: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let (sigma, sigma_next) = (self.sigmas[i], self.sigmas[i + 1]);
        let denoised = self.prediction.denoised(&x, output, sigma);
        let d = (x.clone() - denoised) / sigma;
        Ok(x + d * (sigma_next - sigma))
    }
}
