//! The second stage's objective.

mod config;
mod error;
mod logs;
mod logvar;
mod noise;
mod weights;

pub use config::{LossType, ObjectiveConfig, Parameterization};
pub use error::ObjectiveError;
pub use logs::Logs;
pub use logvar::LogVar;
pub use noise::offset_noise;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use ldm_scheduler::{NoiseSchedule, Prediction, Scheduler};

/// L_LDM, the objective of latent diffusion: `E_(z, noise, t) || target - prediction(z_t, t) ||`
/// (Rombach et al. 2022, eq. 1 and 2; with conditioning, which the denoiser's closure carries, eq. 3). L_DM is the
/// same with pictures for `z`.
///
/// Source: `p_losses` in CompVis' ddpm.py; what is weighted how, [`ObjectiveConfig`] says. Nothing is drawn here:
/// the loss is a function of latents, noise and timesteps.
#[derive(Debug, Clone)]
pub struct Objective {
    config: ObjectiveConfig,
    schedule: NoiseSchedule,
    /// `[T]` each.
    elbo: Vec<f32>,
    min_snr: Option<Vec<f32>>,
}

/// One step's loss.
#[derive(Debug, Clone)]
pub struct Losses {
    /// What to call `backward` on, `[1]`, f32.
    pub loss: Tensor<1>,
    /// `loss_simple`, with `learn_logvar` `loss_gamma` and `logvar`, then `loss_vlb`, `loss`.
    pub logs: Logs,
}

impl Objective {
    /// The objective that the config describes, on its own schedule.
    ///
    /// # Errors
    /// [`ObjectiveError`] names the key that can't be used; noise prediction on a schedule that ends in noise
    /// alone is refused.
    pub fn from_config(config: &ObjectiveConfig) -> Result<Self, ObjectiveError> {
        Self::new(config, config.schedule()?)
    }

    /// The objective that the config describes, on this schedule: the config's own keys of the schedule don't
    /// count.
    ///
    /// # Errors
    /// As [`from_config`](Self::from_config).
    pub fn new(config: &ObjectiveConfig, schedule: NoiseSchedule) -> Result<Self, ObjectiveError> {
        config.validate()?;
        if schedule.len() < 2 {
            let (key, value) = ("timesteps", schedule.len().to_string());
            return Err(ObjectiveError::Value { key, value, expected: "at least 2" });
        }
        if schedule.alphas_bar().last() == Some(&0.0) && config.parameterization == Parameterization::Eps {
            return Err(ObjectiveError::ZeroSnrEpsilon);
        }
        let elbo = weights::elbo(config, &schedule);
        let min_snr =
            config.snr_gamma.map(|gamma| weights::min_snr(gamma, config.parameterization, &schedule));
        Ok(Self { config: config.clone(), schedule, elbo, min_snr })
    }

    /// The objective under which a model of this scheduler's config was trained, weighted as `config` says.
    ///
    /// # Errors
    /// As [`from_config`](Self::from_config).
    pub fn of(scheduler: &Scheduler, config: &ObjectiveConfig) -> Result<Self, ObjectiveError> {
        let parameterization = scheduler.prediction().into();
        let config = ObjectiveConfig { parameterization, ..config.clone() };
        Self::new(&config, scheduler.schedule().clone())
    }

    /// The config.
    pub fn config(&self) -> &ObjectiveConfig {
        &self.config
    }

    /// The forward process.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// The log-variances to learn, where the config says so: to be given to an optimiser and to
    /// [`loss`](Self::loss).
    pub fn logvar(&self, device: &Device) -> Option<LogVar> {
        self.config.learn_logvar.then(|| LogVar::new(self.schedule.len(), self.config.logvar_init, device))
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
    ) -> Result<Tensor<D>, ObjectiveError> {
        match self.config.parameterization.into() {
            Prediction::Epsilon => Ok(noise),
            Prediction::Sample => Ok(z),
            Prediction::VPrediction => Ok(self.schedule.velocity(z, noise, timesteps)?),
        }
    }

    /// The loss of a denoiser that takes `(z_t, timesteps)`; under autodiff, with its gradient.
    ///
    /// `z`: latents `[B, ...]`, already scaled by the first stage's factor; `noise`: standard normal, of the
    /// same shape (see [`offset_noise`]); `timesteps`: one number below T for each item; `logvar`: what
    /// [`logvar`](Self::logvar) gave. The distance is taken in f32 whatever the denoiser's type.
    ///
    /// # Errors
    /// Shapes that differ, a timestep out of range, `logvar` against the config, and whatever the denoiser
    /// returns.
    pub fn loss<const D: usize, E: From<ObjectiveError>>(
        &self,
        z: Tensor<D>,
        noise: Tensor<D>,
        timesteps: &[usize],
        logvar: Option<&LogVar>,
        denoiser: impl FnOnce(Tensor<D>, &[usize]) -> Result<Tensor<D>, E>,
    ) -> Result<Losses, E> {
        let learn = self.config.learn_logvar;
        if logvar.is_some() != learn {
            return Err(ObjectiveError::LogVar { learn }.into());
        }
        let noisy = self.schedule.add_noise(z.clone(), noise.clone(), timesteps);
        let z_t = noisy.map_err(ObjectiveError::from)?;
        let target = self.target(z, noise, timesteps)?;
        let prediction = denoiser(z_t, timesteps)?;
        if prediction.dims() != target.dims() {
            let (actual, expected) = (prediction.dims().to_vec(), target.dims().to_vec());
            return Err(ObjectiveError::Shape { what: "prediction", actual, expected }.into());
        }
        let each = self.distance(target.cast(DType::F32), prediction.cast(DType::F32));
        Ok(self.weighted(each, timesteps, logvar))
    }

    /// The mean over each item: `[B]`.
    fn distance<const D: usize>(&self, target: Tensor<D>, prediction: Tensor<D>) -> Tensor<1> {
        let b = target.dims()[0];
        let difference = target - prediction;
        let distance = match self.config.loss_type {
            LossType::L1 => difference.abs(),
            LossType::L2 => difference.square(),
        };
        distance.reshape([b as i32, -1]).mean_dim(1).reshape([b])
    }

    /// `each` `[B]`: the loss of each item.
    fn weighted(&self, each: Tensor<1>, timesteps: &[usize], logvar: Option<&LogVar>) -> Losses {
        let config = &self.config;
        let device = each.device();
        let at = |weights: &[f32]| {
            let values: Vec<f32> = timesteps.iter().map(|t| weights[*t]).collect();
            Tensor::<1>::from_data(TensorData::new(values, [timesteps.len()]), (&device, DType::F32))
        };
        let mut logs = Logs::default();
        logs.push("loss_simple", each.clone().mean());

        let simple = match &self.min_snr {
            Some(weights) => each.clone() * at(weights),
            None => each.clone(),
        };
        let simple = match logvar {
            Some(LogVar { logvar }) => {
                let ids: Vec<i64> = timesteps.iter().map(|t| *t as i64).collect();
                let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [timesteps.len()]), &device);
                let logvar_t = logvar.val().select(0, ids);
                let gamma = simple / logvar_t.clone().exp() + logvar_t;
                logs.push("loss_gamma", gamma.clone().mean());
                logs.push("logvar", logvar.val().mean());
                gamma
            }
            // What 0 means: the loss as it is.
            None if config.logvar_init == 0.0 => simple,
            None => simple / config.logvar_init.exp() + config.logvar_init,
        };
        let vlb = (at(&self.elbo) * each).mean();
        logs.push("loss_vlb", vlb.clone());
        let mut loss = simple.mean() * config.l_simple_weight;
        if config.original_elbo_weight != 0.0 {
            loss = loss + vlb * config.original_elbo_weight;
        }
        logs.push("loss", loss.clone());
        Losses { loss, logs }
    }
}
