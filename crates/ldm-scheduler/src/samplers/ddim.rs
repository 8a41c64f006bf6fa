use burn::tensor::Tensor;

use super::{final_alpha_bar, is_compvis, timesteps};
use crate::{
    Error, NoiseSchedule, Prediction, Scheduler,
    limit::Limit,
    sampler::{Draw, Path, Solver},
    timesteps::Spacing,
};

/// Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).
pub(super) struct Ddim {
    timesteps: Vec<i64>,
    /// Training timesteps from one step to the next.
    stride: i64,
    schedule: NoiseSchedule,
    final_alpha_bar: f32,
    prediction: Prediction,
    limit: Limit,
    eta: f32,
    /// CompVis draws noise at eta 0 too: what is drawn after it goes by that.
    always_draws: bool,
}

impl Ddim {
    pub fn new(scheduler: &Scheduler, steps: usize, eta: f64) -> Result<(Self, Path), Error> {
        let (config, schedule) = (scheduler.config(), scheduler.schedule().clone());
        let timesteps = timesteps(scheduler, Spacing::Leading, steps)?.whole()?;
        let path = Path::preserving(&timesteps, |t| schedule.alpha_bar(t))?;
        let solver = Self {
            timesteps,
            stride: (schedule.len() / steps) as i64,
            final_alpha_bar: final_alpha_bar(scheduler, config, true)?,
            schedule,
            prediction: scheduler.prediction(),
            limit: Limit::from_config(config, true)?,
            eta: eta as f32,
            always_draws: is_compvis(config),
        };
        Ok((solver, path))
    }
}

impl<const D: usize> Solver<D> for Ddim {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let t = self.timesteps[i];
        let a_t = self.schedule.alpha_bar(t)?;
        let a_prev = match t - self.stride {
            prev if prev >= 0 => self.schedule.alpha_bar(prev)?,
            _ => self.final_alpha_bar,
        };
        let (alpha, sigma) = (a_t.sqrt(), (1.0 - a_t).sqrt());
        let epsilon = self.prediction.epsilon(&x, output.clone(), alpha, sigma);
        let x0 = z.denoised(self.limit.apply(self.prediction.x0(&x, output, alpha, sigma)));

        let variance = (1.0 - a_prev) / (1.0 - a_t) * (1.0 - a_t / a_prev);
        let sigma_t = self.eta * variance.sqrt();
        // Never below zero: with eta 1 and alpha-bar 0 the difference is rounding.
        let direction = epsilon * (1.0 - a_prev - sigma_t * sigma_t).max(0.0).sqrt();
        let mean = x0 * a_prev.sqrt() + direction;
        if self.eta == 0.0 && !self.always_draws {
            return Ok(mean);
        }
        let noise = z.normal()?;
        Ok(if self.eta == 0.0 { mean } else { mean + noise * sigma_t })
    }
}
