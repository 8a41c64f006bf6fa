/// What can be wrong with the first stage's loss or with what it is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirstStageError {
    /// The config can't be read.
    #[error("first stage's loss: {problem}")]
    Config {
        /// What is wrong.
        problem: String,
    },
    /// A config value is out of range or not supported.
    #[error("first stage's loss: `{key}` is {value}, expected {expected}")]
    Value {
        /// The key in the config.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A tensor of another shape than it should have.
    #[error("{what}: shape {actual:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape that it should have.
        expected: String,
    },
    /// What the step needs and was not given.
    #[error("first stage's loss: {what} is missing, which `{key}` asks for")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The key that asks for it.
        key: &'static str,
    },
    /// Nothing to take gradients of.
    #[error(
        "first stage's loss: the reconstruction records no gradient; the model must be on an autodiff device"
    )]
    NoGradient,
}
