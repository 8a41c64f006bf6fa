use serde_json::Value;

use crate::{Error, NoiseSchedule, SchedulerConfig, config::wrong, timesteps::numpy_linspace};

/// Which noise levels a run visits.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ramp {
    /// Those of its timesteps.
    Schedule,
    /// Karras et al. 2022, eq. 5, rho = 7.
    Karras(Option<f64>, Option<f64>),
    /// Evenly in log sigma.
    Exponential(Option<f64>, Option<f64>),
}

impl Ramp {
    pub fn from_config(config: &SchedulerConfig) -> Result<Self, Error> {
        config.must_be_off("use_beta_sigmas")?;
        let karras = config.flag("use_karras_sigmas", false)?;
        let exponential = config.flag("use_exponential_sigmas", false)?;
        let (min, max) = (positive(config, "sigma_min")?, positive(config, "sigma_max")?);
        match (karras, exponential) {
            (false, false) => Ok(Self::Schedule),
            (true, false) => Ok(Self::Karras(min, max)),
            (false, true) => Ok(Self::Exponential(min, max)),
            (true, true) => {
                let expected = "it to be off where `use_karras_sigmas` is on";
                Err(wrong("use_exponential_sigmas", &Value::Bool(true), expected))
            }
        }
    }

    /// `steps` levels from `max` down to `min`, or the config's own bounds; `None` for the schedule's.
    pub fn sigmas(self, max: f64, min: f64, steps: usize) -> Option<Vec<f64>> {
        match self {
            Self::Schedule => None,
            Self::Karras(own_min, own_max) => {
                let rho = 7.0;
                let (min, max) =
                    (own_min.unwrap_or(min).powf(1.0 / rho), own_max.unwrap_or(max).powf(1.0 / rho));
                let ramp = numpy_linspace(0.0, 1.0, steps);
                Some(ramp.into_iter().map(|r| (max + r * (min - max)).powf(rho)).collect())
            }
            Self::Exponential(own_min, own_max) => {
                let (min, max) = (own_min.unwrap_or(min).ln(), own_max.unwrap_or(max).ln());
                Some(numpy_linspace(max, min, steps).into_iter().map(f64::exp).collect())
            }
        }
    }
}

fn positive(config: &SchedulerConfig, key: &'static str) -> Result<Option<f64>, Error> {
    match config.optional_number(key)? {
        Some(sigma) if !(sigma > 0.0 && sigma.is_finite()) => {
            Err(wrong(key, &Value::from(sigma), "a positive number"))
        }
        sigma => Ok(sigma),
    }
}

/// Where a run ends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum FinalSigma {
    Zero,
    Min,
}

impl FinalSigma {
    pub fn from_config(config: &SchedulerConfig) -> Result<Self, Error> {
        let choices = [("zero", Self::Zero), ("sigma_min", Self::Min)];
        config.choice("final_sigmas_type", &choices, Self::Zero)
    }
}

/// The schedule's sigmas as a function of a real timestep, and its inverse.
pub(crate) struct SigmaCurve {
    sigmas: Vec<f32>,
    log_sigmas: Vec<f32>,
}

impl SigmaCurve {
    pub fn new(schedule: &NoiseSchedule) -> Self {
        let sigmas = schedule.sigmas();
        let log_sigmas = sigmas.iter().map(|s| s.ln()).collect();
        Self { sigmas, log_sigmas }
    }

    pub fn min(&self) -> f64 {
        f64::from(self.sigmas[0])
    }

    pub fn max(&self) -> f64 {
        f64::from(self.sigmas[self.sigmas.len() - 1])
    }

    /// Linear between timesteps, constant beyond the ends (numpy.interp).
    pub fn at(&self, t: f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let low = (t.max(0.0) as usize).min(last);
        let high = (low + 1).min(last);
        let (a, b) = (f64::from(self.sigmas[low]), f64::from(self.sigmas[high]));
        if t <= 0.0 { a } else { (b - a) * (t - low as f64) + a }
    }

    /// The real timestep of a sigma: linear in log sigma, clamped to the schedule.
    pub fn timestep(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.max(1e-10).ln();
        let logs = &self.log_sigmas;
        if logs.len() < 2 {
            return 0.0;
        }
        let below = logs.iter().rposition(|l| log_sigma - f64::from(*l) >= 0.0);
        let low = below.unwrap_or(0).min(logs.len() - 2);
        let (a, b) = (f64::from(logs[low]), f64::from(logs[low + 1]));
        let w = ((a - log_sigma) / (a - b)).clamp(0.0, 1.0);
        (1.0 - w) * low as f64 + w * (low + 1) as f64
    }
}
