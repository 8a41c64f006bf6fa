//! What a text-to-image model of one data set can do, in figures that need no classifier.
//!
//! [`nearest`]: is the picture that a prompt names nearer to what the model draws than 19 others are, in the first
//! stage's latent space? [`reconstruction`]: how well does the first stage keep pictures that it has not seen? Models
//! are functions here, so that any can be asked, on any device.

mod catalogue;
mod error;
mod nearest;
mod reconstruction;

pub use catalogue::Catalogue;
pub use error::{EvaluateError, ModelError};
pub use nearest::{Answer, Question, Questions, nearest, share};
pub use reconstruction::{mean, reconstruction};
