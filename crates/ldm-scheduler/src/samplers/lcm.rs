use burn::tensor::Tensor;
use serde_json::Value;

use super::final_alpha_bar;
use crate::{
    Error, NoiseSchedule, Prediction, Scheduler,
    config::wrong,
    limit::Limit,
    sampler::{Draw, Path, Solver},
    timesteps::numpy_linspace,
};

/// sigma_data of the consistency function's boundary condition.
const SIGMA_DATA: f64 = 0.5;

/// Latent consistency models (Luo et al. 2023, algorithm 3): jump to x0, add noise, jump again.
pub(super) struct Lcm {
    timesteps: Vec<i64>,
    schedule: NoiseSchedule,
    prediction: Prediction,
    limit: Limit,
    timestep_scaling: f64,
}

impl Lcm {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let (config, schedule) = (scheduler.config(), scheduler.schedule().clone());
        let train = schedule.len();
        let original = config.count("original_inference_steps", 50)?;
        if original == 0 || original > train {
            let expected = format!("a number from 1 to num_train_timesteps, {train}");
            return Err(wrong("original_inference_steps", &Value::from(original), &expected));
        }
        if steps == 0 {
            return Err(Error::ZeroSteps);
        }
        if steps > original {
            return Err(Error::TooManySteps { sampler: scheduler.kind(), steps, limit: original });
        }
        // The timesteps that the model was distilled on, falling; of these, evenly spaced ones.
        let stride = (train / original) as i64;
        let distilled: Vec<_> = (1..=original as i64).rev().map(|i| i * stride - 1).collect();
        let indices = numpy_linspace(0.0, original as f64, steps + 1);
        let timesteps: Vec<_> = indices[..steps].iter().map(|i| distilled[*i as usize]).collect();
        let path = Path::preserving(&timesteps, |t| schedule.alpha_bar(t))?;
        // Read only to be checked: the last step goes to x0 itself.
        final_alpha_bar(scheduler, config, true)?;
        let solver = Self {
            timesteps,
            schedule,
            prediction: scheduler.prediction(),
            limit: Limit::from_config(config, false)?,
            timestep_scaling: config.number("timestep_scaling", 10.0)?,
        };
        Ok((solver, path))
    }
}

impl<const D: usize> Solver<D> for Lcm {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let t = self.timesteps[i];
        let a_t = self.schedule.alpha_bar(t)?;
        let x0 = self.limit.apply(self.prediction.x0(&x, output, a_t.sqrt(), (1.0 - a_t).sqrt()));

        // Eq. 9: f(x, t) = c_skip x + c_out x0.
        let scaled = t as f64 * self.timestep_scaling;
        let norm = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let (c_skip, c_out) = (SIGMA_DATA * SIGMA_DATA / norm, scaled / norm.sqrt());
        let denoised = x0 * c_out as f32 + x * c_skip as f32;
        let Some(next) = self.timesteps.get(i + 1) else { return Ok(denoised) };
        let a_next = self.schedule.alpha_bar(*next)?;
        Ok(denoised * a_next.sqrt() + z.normal()? * (1.0 - a_next).sqrt())
    }
}
