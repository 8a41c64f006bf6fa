//! Whether the encoder puts the condition where the U-Net takes it.

use ldm_conditioning::{CondStage, Hybrid};

use super::ConditionConfig;
use crate::RunError;
use crate::config::ConditioningKey;

/// `key`: the model's `conditioning_key`, `None` for an unconditional one. `conditions`: `None` for a caller's own, which
/// only the U-Net can check.
///
/// # Errors
///
/// [`RunError::Mechanism`].
pub(crate) fn check(
    key: Option<ConditioningKey>,
    tau: Option<&CondStage>,
    conditions: Option<&ConditionConfig>,
) -> Result<(), RunError> {
    let gives = match tau {
        Some(stage) => match gives(stage, conditions) {
            Some(gives) => Some(gives),
            None => return Ok(()),
        },
        None if conditions.is_some_and(|c| *c == ConditionConfig::None) => None,
        // The conditions go to the U-Net as they are.
        None => return Ok(()),
    };
    if gives == key {
        return Ok(());
    }
    let named = |key: Option<ConditioningKey>| key.map_or_else(|| "none".to_string(), |key| key.to_string());
    let encoder = tau.map_or("no encoder", CondStage::name);
    Err(RunError::Mechanism { key: named(key), encoder, gives: named(gives) })
}

/// Where an encoder puts what it is given; `None` where that can't be told.
fn gives(stage: &CondStage, conditions: Option<&ConditionConfig>) -> Option<ConditioningKey> {
    match stage {
        CondStage::SpatialRescaler(_) => Some(ConditioningKey::Concat),
        CondStage::ClassEmbedder(_)
        | CondStage::BertEmbedder(_)
        | CondStage::ClipText(_)
        | CondStage::ClipTextEmbedder(_)
        | CondStage::ClipImageEmbedder(_) => Some(ConditioningKey::CrossAttn),
        CondStage::Hybrid(Hybrid { .. }) => Some(ConditioningKey::Hybrid),
        CondStage::Identity(_) => match conditions? {
            ConditionConfig::Classes { .. } => Some(ConditioningKey::Adm),
            ConditionConfig::Picture
            | ConditionConfig::Map { .. }
            | ConditionConfig::LowResolution { .. }
            | ConditionConfig::Degraded { .. }
            | ConditionConfig::Masked
            | ConditionConfig::FirstStage { .. } => Some(ConditioningKey::Concat),
            ConditionConfig::None
            | ConditionConfig::Captions
            | ConditionConfig::Layouts { .. }
            | ConditionConfig::Both { .. } => None,
        },
    }
}
