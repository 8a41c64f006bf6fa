use burn::tensor::Tensor;

use super::timesteps;
use crate::{
    Error, NoiseSchedule, Prediction, Scheduler,
    limit::Limit,
    sampler::{Draw, Path, Solver},
    schedule::same_shape,
    timesteps::Spacing,
};

/// Ancestral sampling (Ho et al. 2020, algorithm 2, with the mean as in eq. 7).
pub(super) struct Ddpm {
    timesteps: Vec<i64>,
    schedule: NoiseSchedule,
    prediction: Prediction,
    limit: Limit,
    variance: Variance,
}

/// Which variance a step's noise has (`variance_type`).
#[derive(Clone, Copy, PartialEq)]
enum Variance {
    /// beta-tilde, the posterior's (eq. 7).
    FixedSmall,
    FixedSmallLog,
    /// beta.
    FixedLarge,
    /// The model's own, in the second half of its channels.
    Learned,
    /// Between the two, in the log domain (Nichol & Dhariwal 2021, eq. 15).
    LearnedRange,
}

const VARIANCES: [(&str, Variance); 5] = [
    ("fixed_small", Variance::FixedSmall),
    ("fixed_small_log", Variance::FixedSmallLog),
    ("fixed_large", Variance::FixedLarge),
    ("learned", Variance::Learned),
    ("learned_range", Variance::LearnedRange),
];

impl Ddpm {
    pub fn new(scheduler: &Scheduler, steps: usize) -> Result<(Self, Path), Error> {
        let (config, schedule) = (scheduler.config(), scheduler.schedule().clone());
        let timesteps = timesteps(scheduler, Spacing::Leading, steps)?.whole()?;
        let path = Path::preserving(&timesteps, |t| schedule.alpha_bar(t))?;
        let solver = Self {
            timesteps,
            schedule,
            prediction: scheduler.prediction(),
            limit: Limit::from_config(config, true)?,
            variance: config.choice("variance_type", &VARIANCES, Variance::FixedSmall)?,
        };
        Ok((solver, path))
    }
}

impl<const D: usize> Solver<D> for Ddpm {
    fn step(
        &mut self,
        i: usize,
        x: Tensor<D>,
        output: Tensor<D>,
        z: &mut Draw<'_, D>,
    ) -> Result<Tensor<D>, Error> {
        let t = self.timesteps[i];
        let a_t = self.schedule.alpha_bar(t)?;
        let a_prev = self.timesteps.get(i + 1).map_or(Ok(1.0), |t| self.schedule.alpha_bar(*t))?;
        let (b_t, b_prev) = (1.0 - a_t, 1.0 - a_prev);
        let alpha = a_t / a_prev;
        let beta = 1.0 - alpha;

        let (output, learned) = self.split(output, &x)?;
        let x0 = self.prediction.x0(&x, output, a_t.sqrt(), b_t.sqrt());
        let x0 = self.limit.apply(x0);
        let mean = x0 * (a_prev.sqrt() * beta / b_t) + x * (alpha.sqrt() * b_prev / b_t);
        if t == 0 {
            return Ok(mean);
        }
        let small = (b_prev / b_t * beta).max(1e-20);
        let z = z.normal()?;
        Ok(mean
            + match (self.variance, learned) {
                (Variance::Learned, Some(variance)) => variance.sqrt() * z,
                (Variance::LearnedRange, Some(v)) => {
                    let v = (v + 1.0) / 2.0;
                    let log = v.clone() * beta.ln() + (-v + 1.0) * small.ln();
                    (log * 0.5).exp() * z
                }
                (Variance::FixedLarge, _) => z * beta.sqrt(),
                (Variance::FixedSmallLog, _) => z * (0.5 * small.ln()).exp(),
                _ => z * small.sqrt(),
            })
    }
}

impl Ddpm {
    /// The prediction, and the learned variance where the model has one.
    fn split<const D: usize>(
        &self,
        output: Tensor<D>,
        x: &Tensor<D>,
    ) -> Result<(Tensor<D>, Option<Tensor<D>>), Error> {
        let learned = matches!(self.variance, Variance::Learned | Variance::LearnedRange);
        if !learned {
            same_shape("model output", &output, x)?;
            return Ok((output, None));
        }
        let mut expected = x.dims();
        expected[1] *= 2;
        if output.dims() != expected {
            let (actual, expected) = (output.dims().to_vec(), expected.to_vec());
            return Err(Error::Shape { what: "model output", actual, expected });
        }
        let channels = x.dims()[1];
        let variance = output.clone().narrow(1, channels, channels);
        Ok((output.narrow(1, 0, channels), Some(variance)))
    }
}
