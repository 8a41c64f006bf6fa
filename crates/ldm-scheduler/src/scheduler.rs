use crate::{
    Error, NoiseSchedule, Prediction, Sampler, SamplerKind, SamplerOptions, SchedulerConfig,
    samplers::ScheduleOf,
};

/// A sampler's kind with the config it reads: checked, and ready for any number of runs.
#[derive(Debug, Clone)]
pub struct Scheduler {
    kind: SamplerKind,
    config: SchedulerConfig,
    schedule: NoiseSchedule,
    prediction: Prediction,
}

impl Scheduler {
    /// The sampler `kind` from a model's config, whatever class wrote it: diffusers'
    /// `X.from_config(model.scheduler.config)`.
    ///
    /// # Errors
    /// A value in the config that this sampler can't follow; the error names its key.
    pub fn from_config(kind: SamplerKind, config: &SchedulerConfig) -> Result<Self, Error> {
        let config = config.for_kind(kind);
        let schedule = NoiseSchedule::with_defaults(&config, kind.schedule_defaults())?;
        let scheduler = Self { kind, prediction: Prediction::from_config(&config)?, config, schedule };
        // Reads every option once, so that a wrong one shows now and not at the first run.
        match scheduler.sampler::<4>(SamplerOptions::steps(4)) {
            Err(error @ Error::Value { .. }) => Err(error),
            _ => Ok(scheduler),
        }
    }

    /// The sampler that the config itself names.
    pub fn from_model(config: &SchedulerConfig) -> Result<Self, Error> {
        Self::from_config(config.kind()?, config)
    }

    /// Which sampler this is.
    pub fn kind(&self) -> SamplerKind {
        self.kind
    }

    /// The config, as it can be saved with a model.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// What the denoiser predicts.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The training schedule: alpha-bar, `add_noise`, `velocity`.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// Starts a run on latents of rank `D`.
    ///
    /// # Errors
    /// No steps, more than the schedule has timesteps for, a strength or eta out of range.
    pub fn sampler<const D: usize>(&self, options: SamplerOptions) -> Result<Sampler<D>, Error> {
        Sampler::new(self, options)
    }
}
