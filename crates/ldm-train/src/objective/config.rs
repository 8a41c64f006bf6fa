use burn::tensor::{DType, Tensor};
use ldm_scheduler::{NoiseSchedule, Prediction, SchedulerConfig};
use serde::{Deserialize, Serialize};

use super::ObjectiveError;

/// What the denoiser predicts, in the words of CompVis' YAML files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameterization {
    /// The noise.
    #[default]
    Eps,
    /// The clean latent.
    X0,
    /// The velocity `alpha noise - sigma x0`.
    V,
}

/// The distance between prediction and target, element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossType {
    /// `|target - prediction|`.
    L1,
    /// `(target - prediction)^2`.
    #[default]
    L2,
}

/// How the second stage is trained: the keys of a CompVis YAML file's `model.params` that its loss reads, with
/// ddpm.py's defaults; the last four are diffusers' (train_text_to_image.py, train_instruct_pix2pix.py,
/// DDPMScheduler).
///
/// A whole `model.params` deserialises into it: keys that are not the objective's are read over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObjectiveConfig {
    /// The number of timesteps T; at least 2.
    pub timesteps: usize,
    /// `linear` (diffusers' "scaled_linear"), `sqrt_linear` (diffusers' "linear") or `cosine`.
    pub beta_schedule: String,
    /// The first beta.
    pub linear_start: f64,
    /// The last beta.
    pub linear_end: f64,
    /// The shift of the cosine schedule; only 0.008 is known.
    pub cosine_s: f64,
    /// The betas themselves, instead of a schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_betas: Option<Vec<f64>>,
    /// What the denoiser predicts.
    pub parameterization: Parameterization,
    /// L1 or L2.
    pub loss_type: LossType,
    /// Weight of the plain mean over the batch.
    pub l_simple_weight: f64,
    /// Weight of the variational bound's terms (Ho et al. 2020, eq. 12).
    pub original_elbo_weight: f64,
    /// The part of the posterior's variance that is beta; it enters the bound's weights. In [0, 1].
    pub v_posterior: f64,
    /// Whether each timestep's log-variance is learned: `loss / exp(logvar_t) + logvar_t`.
    pub learn_logvar: bool,
    /// The log-variance that each timestep starts with, or keeps.
    pub logvar_init: f64,
    /// What the latents are multiplied with.
    pub scale_factor: f64,
    /// Takes 1 / (standard deviation of the first batch's latents) as the factor.
    pub scale_by_std: bool,
    /// gamma of min-SNR weighting (Hang et al. 2023); the paper recommends 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snr_gamma: Option<f64>,
    /// How much noise that is one number for each channel is added to the noise.
    pub noise_offset: f64,
    /// Changes the schedule so that its last step is noise alone (Lin et al. 2024).
    pub rescale_betas_zero_snr: bool,
    /// How often an item loses its condition, so that guidance can be used; in [0, 1].
    pub conditioning_dropout_prob: f64,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self {
            timesteps: 1000,
            beta_schedule: "linear".into(),
            linear_start: 1e-4,
            linear_end: 2e-2,
            cosine_s: COSINE_S,
            given_betas: None,
            parameterization: Parameterization::Eps,
            loss_type: LossType::L2,
            l_simple_weight: 1.0,
            original_elbo_weight: 0.0,
            v_posterior: 0.0,
            learn_logvar: false,
            logvar_init: 0.0,
            scale_factor: 1.0,
            scale_by_std: false,
            snr_gamma: None,
            noise_offset: 0.0,
            rescale_betas_zero_snr: false,
            conditioning_dropout_prob: 0.0,
        }
    }
}

/// The only shift of the cosine that samplers know.
const COSINE_S: f64 = 8e-3;

impl ObjectiveConfig {
    /// Says what keeps this config from being used, without the schedule.
    ///
    /// # Errors
    /// [`ObjectiveError::Value`] names the key; [`ObjectiveError::ZeroSnrEpsilon`].
    pub fn validate(&self) -> Result<(), ObjectiveError> {
        let finite = |x: f64| x.is_finite();
        let part = |x: f64| (0.0..=1.0).contains(&x);
        let above = |x: f64| x.is_finite() && x > 0.0;
        let checks = [
            ("l_simple_weight", self.l_simple_weight, finite(self.l_simple_weight), "a finite number"),
            (
                "original_elbo_weight",
                self.original_elbo_weight,
                finite(self.original_elbo_weight),
                "a finite number",
            ),
            ("logvar_init", self.logvar_init, finite(self.logvar_init), "a finite number"),
            ("noise_offset", self.noise_offset, finite(self.noise_offset), "a finite number"),
            ("v_posterior", self.v_posterior, part(self.v_posterior), "a number from 0 to 1"),
            (
                "conditioning_dropout_prob",
                self.conditioning_dropout_prob,
                part(self.conditioning_dropout_prob),
                "a number from 0 to 1",
            ),
            ("scale_factor", self.scale_factor, above(self.scale_factor), "a number above 0"),
            (
                "scale_factor",
                self.scale_factor,
                !self.scale_by_std || self.scale_factor == 1.0,
                "1 with scale_by_std",
            ),
            (
                "snr_gamma",
                self.snr_gamma.unwrap_or(1.0),
                above(self.snr_gamma.unwrap_or(1.0)),
                "a number above 0",
            ),
            (
                "cosine_s",
                self.cosine_s,
                self.beta_schedule != "cosine" || self.cosine_s == COSINE_S,
                "0.008: no other is supported",
            ),
        ];
        if let Some((key, value, _, expected)) = checks.into_iter().find(|(_, _, good, _)| !good) {
            return Err(ObjectiveError::Value { key, value: value.to_string(), expected });
        }
        if self.rescale_betas_zero_snr && self.parameterization == Parameterization::Eps {
            return Err(ObjectiveError::ZeroSnrEpsilon);
        }
        Ok(())
    }

    /// The scheduler config that a sampler of the trained model takes; the schedule to train with is
    /// [`NoiseSchedule::from_config`] of it.
    ///
    /// # Errors
    /// An unknown `beta_schedule`.
    pub fn scheduler(&self) -> Result<SchedulerConfig, ObjectiveError> {
        let prediction = match self.parameterization {
            Parameterization::Eps => "epsilon",
            Parameterization::X0 => "sample",
            Parameterization::V => "v_prediction",
        };
        let Self { linear_start, linear_end, timesteps, .. } = *self;
        let config = SchedulerConfig::compvis(&self.beta_schedule, linear_start, linear_end, timesteps)?;
        let config = config.with("prediction_type", prediction);
        let config = match &self.given_betas {
            Some(betas) => config.with("trained_betas", betas.clone()),
            None => config,
        };
        Ok(if self.rescale_betas_zero_snr { config.with("rescale_betas_zero_snr", true) } else { config })
    }

    /// The forward process to train with.
    ///
    /// # Errors
    /// As [`scheduler`](Self::scheduler), and betas outside [0, 1].
    pub fn schedule(&self) -> Result<NoiseSchedule, ObjectiveError> {
        Ok(NoiseSchedule::from_config(&self.scheduler()?)?)
    }

    /// What the latents are to be multiplied with: `scale_factor`, or with `scale_by_std` 1 / (standard deviation
    /// of `z`). `z`: a sample of the posterior of the run's first batch, `[b, c, h, w]`, not scaled; a resumed
    /// run keeps the number that it has.
    ///
    /// # Errors
    /// [`ObjectiveError::Deviation`] where the latents are all alike or not finite.
    pub fn latent_scale(&self, z: Tensor<4>) -> Result<f64, ObjectiveError> {
        if !self.scale_by_std {
            return Ok(self.scale_factor);
        }
        // Over all elements, divided by n - 1, as `z.flatten().std()`.
        let n = z.shape().num_elements();
        let deviation = z.cast(DType::F32).reshape([n as i32]).var(0).sqrt().into_data();
        let deviation = deviation.iter::<f64>().next().unwrap_or(f64::NAN);
        if deviation.is_finite() && deviation > 0.0 {
            return Ok(1.0 / deviation);
        }
        Err(ObjectiveError::Deviation { deviation, elements: n })
    }
}

impl From<Parameterization> for Prediction {
    fn from(parameterization: Parameterization) -> Self {
        match parameterization {
            Parameterization::Eps => Self::Epsilon,
            Parameterization::X0 => Self::Sample,
            Parameterization::V => Self::VPrediction,
        }
    }
}

impl From<Prediction> for Parameterization {
    fn from(prediction: Prediction) -> Self {
        match prediction {
            Prediction::Epsilon => Self::Eps,
            Prediction::Sample => Self::X0,
            Prediction::VPrediction => Self::V,
        }
    }
}
