/// What can be wrong with an objective's config or with what it is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectiveError {
    /// The schedule, a timestep or a tensor's shape.
    #[error(transparent)]
    Schedule(#[from] ldm_scheduler::Error),
    /// A config value is out of range or not supported.
    #[error("objective: `{key}` is {value}, expected {expected}")]
    Value {
        /// The key in the config.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// Where the last step is noise alone, predicting the noise says nothing about the picture.
    #[error(
        "objective: `parameterization` eps with `rescale_betas_zero_snr`: the noise cannot be the target of a \
         schedule that ends in noise alone; take v or x0"
    )]
    ZeroSnrEpsilon,
    /// `learn_logvar` is on and the learned log-variances were not given, or the other way round.
    #[error("objective: `learn_logvar` is {learn}, but the log-variances are {}", if *.learn { "missing" } else { "given" })]
    LogVar {
        /// The config's `learn_logvar`.
        learn: bool,
    },
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
    /// The latents of the first batch have no scale.
    #[error(
        "scale_by_std: the standard deviation of the first batch's {elements} latent values is {deviation}"
    )]
    Deviation {
        /// The standard deviation.
        deviation: f64,
        /// How many values there were.
        elements: usize,
    },
}
