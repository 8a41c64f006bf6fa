use std::path::PathBuf;

use super::LoraConfig;
use crate::weights::WeightError;

/// Why a LoRA can't be attached, read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// A rank of 0, or an alpha that is no number.
    #[error("LoRA: rank {r} and alpha {lora_alpha} make no adapter")]
    Config {
        /// The rank.
        r: usize,
        /// The alpha.
        lora_alpha: f64,
    },
    /// The model has no weight that should be adapted.
    #[error("LoRA: the model has none of the layers {targets}")]
    NoTarget {
        /// The layers' names.
        targets: String,
    },
    /// The model can't be named as the file's format does.
    #[error("LoRA: {what}")]
    Names {
        /// Why.
        what: String,
    },
    /// The file holds tensors that this model, as it is adapted, has no place for, or that no plain LoRA has.
    #[error("{path}: {} tensors have no place in this model: {}", keys.len(), listed(keys))]
    Unused {
        /// The file.
        path: PathBuf,
        /// The tensors' names.
        keys: Vec<String>,
    },
    /// The file holds no tensor at all.
    #[error("{path}: there are no factors of a LoRA in it")]
    NoFactors {
        /// The file.
        path: PathBuf,
    },
    /// The factors of the file's layers are of several ranks or strengths, and one config can't say that.
    #[error("{path}: the factors are not of one rank and alpha for all layers")]
    Uneven {
        /// The file.
        path: PathBuf,
    },
    /// The file's factors have another rank or alpha than those that are to go on from it.
    #[error(
        "{path}: the factors have rank {} and alpha {}, the model's rank {} and alpha {}",
        found.r, found.lora_alpha, expected.r, expected.lora_alpha
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// The file's.
        found: LoraConfig,
        /// The model's.
        expected: LoraConfig,
    },
    /// The file's note on its config says something that can't be followed here.
    #[error("{path}: lora_adapter_metadata: {what}")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// The file can't be read or written, or tensors in it don't fit.
    #[error(transparent)]
    Weights(#[from] WeightError),
}

/// The first names of a long list.
fn listed(keys: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut text = keys.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if keys.len() > SHOWN {
        text += &format!(" and {} more", keys.len() - SHOWN);
    }
    text
}
