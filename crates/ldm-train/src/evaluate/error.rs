use crate::data::DataError;
use crate::metrics::MetricError;

/// What a model that is being evaluated may say.
pub type ModelError = Box<dyn std::error::Error + Send + Sync>;

/// What keeps a model from being evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The pictures can't be read.
    #[error("data: {0}")]
    Data(#[from] DataError),
    /// The model fails.
    #[error("model: {0}")]
    Model(#[source] ModelError),
    /// Two pictures can't be compared.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// More is asked than the data has.
    #[error("{0}")]
    Questions(String),
    /// The model gives something of another size.
    #[error("{what} {found:?}, expected {expected:?}")]
    Shape {
        /// What: `pictures`, `latents`.
        what: &'static str,
        /// The shape it has.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// The device can't give a result.
    #[error("device: {0}")]
    Device(String),
}
