use ldm_nn::ConditioningMismatch;

use crate::bert::BertError;
use crate::clip::{ClipTextError, ClipVisionError, NoProjection, TokenizerError};
use crate::{ClassOutOfRange, LayoutError, SpatialRescalerError};

/// Why a condition could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConditioningError {
    /// The prompt could not be turned into ids.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// CLIP's text encoder refused the ids.
    #[error(transparent)]
    ClipText(#[from] ClipTextError),
    /// CLIP's image encoder refused the pictures.
    #[error(transparent)]
    ClipVision(#[from] ClipVisionError),
    /// CLIP's text encoder gives no projected embedding.
    #[error(transparent)]
    NoProjection(#[from] NoProjection),
    /// The text transformer refused the tokens.
    #[error(transparent)]
    Bert(#[from] BertError),
    /// A class outside the table.
    #[error(transparent)]
    Class(#[from] ClassOutOfRange),
    /// A map that can't be rescaled.
    #[error(transparent)]
    Map(#[from] SpatialRescalerError),
    /// A layout that can't become tokens.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Conditions that don't go together.
    #[error(transparent)]
    Mismatch(#[from] ConditioningMismatch),
    /// A condition of another kind than the encoder's.
    #[error("{stage} does not take {condition}")]
    Kind {
        /// The encoder.
        stage: &'static str,
        /// The kind that was given.
        condition: &'static str,
    },
    /// An item that isn't there.
    #[error("item {item} of {items} conditions")]
    Item {
        /// The item asked for.
        item: usize,
        /// How many there are.
        items: usize,
    },
    /// There is nothing to encode.
    #[error("an empty batch of conditions")]
    EmptyBatch,
    /// Whatever else an encoder of another crate has to say.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}
