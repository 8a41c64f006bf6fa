use ldm_nn::ConditioningMismatch;

use crate::clip::{ClipTextError, TokenizerError};

/// Why a condition could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConditioningError {
    /// The prompt could not be turned into ids.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The text encoder refused the ids.
    #[error(transparent)]
    ClipText(#[from] ClipTextError),
    /// Conditions that don't go together.
    #[error(transparent)]
    Mismatch(#[from] ConditioningMismatch),
    /// There is nothing to encode.
    #[error("an empty batch of conditions")]
    EmptyBatch,
    /// Whatever else an encoder of another crate has to say.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
