use crate::SamplerKind;

/// What can be wrong with a scheduler config, a run's options, or a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is no JSON object.
    #[error("scheduler config: {0}")]
    Json(#[from] serde_json::Error),
    /// `_class_name`, or the name a user gave, is no sampler known here.
    #[error("unknown sampler `{name}`; known: {}", SamplerKind::known_names())]
    UnknownSampler {
        /// The name as it was given.
        name: String,
    },
    /// The config names no class and the caller named no sampler.
    #[error("scheduler config: `_class_name` is missing, so a sampler must be named")]
    MissingClass,
    /// A config value is of the wrong type, out of range or not supported.
    #[error("scheduler config: `{key}` is {value}, expected {expected}")]
    Value {
        /// The key in the config.
        key: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A run of no steps.
    #[error("`steps` must be at least 1")]
    ZeroSteps,
    /// The schedule has too few timesteps for the run.
    #[error("{sampler}: {steps} steps, but this schedule allows at most {limit}")]
    TooManySteps {
        /// The sampler's name.
        sampler: SamplerKind,
        /// The steps asked for.
        steps: usize,
        /// The most that would do.
        limit: usize,
    },
    /// The sampler's start needs more steps than the run has.
    #[error("{sampler}: {steps} steps, but at least {limit} are needed")]
    TooFewSteps {
        /// The sampler's name.
        sampler: SamplerKind,
        /// The steps asked for.
        steps: usize,
        /// The fewest that would do.
        limit: usize,
    },
    /// A timestep that the model was not trained for.
    #[error("timestep {timestep} is outside the {train} training timesteps")]
    TimestepRange {
        /// The timestep.
        timestep: i64,
        /// The number of training timesteps.
        train: usize,
    },
    /// A strength outside [0, 1].
    #[error("strength is {0}, expected a number from 0 to 1")]
    Strength(f64),
    /// An eta below 0, or not a number.
    #[error("eta is {0}, expected a number of at least 0")]
    Eta(f64),
    /// A temperature below 0, or not a number.
    #[error("temperature is {0}, expected a number of at least 0")]
    Temperature(f64),
    /// A noise dropout outside [0, 1).
    #[error("noise_dropout is {0}, expected a number from 0 to below 1")]
    NoiseDropout(f64),
    /// A sampler that does not go by its prediction of x0 can't have it changed (quantised).
    #[error("{0} can't change the x0 that it predicts; ddim and pndm can")]
    Denoised(SamplerKind),
    /// Image to image: nothing remains of the run.
    #[error("no step is left: the run starts at {begin} of {len} timesteps (strength too low?)")]
    NoStepLeft {
        /// The index at which the run would start.
        begin: usize,
        /// The number of timesteps.
        len: usize,
    },
    /// [`crate::Sampler::step`] after the last step.
    #[error("the run is over: all its {0} steps are done")]
    Finished(usize),
    /// Two tensors that should be alike are not.
    #[error("{what}: shape {actual:?}, expected {expected:?}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A list of generators must hold one for each item of the batch.
    #[error("{generators} noise generators for a batch of {batch}")]
    Generators {
        /// How many generators there are.
        generators: usize,
        /// How many items the batch has.
        batch: usize,
    },
}
