use std::fmt::{Display, Formatter};

use serde::{Deserialize, Serialize};

/// How a condition reaches the U-Net (`conditioning_key` of the reference's YAML; paper, section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditioningKey {
    /// Joined to the latent's channels.
    Concat,
    /// As keys and values of the cross-attention.
    CrossAttn,
    /// Both at once.
    Hybrid,
    /// A class or vector, embedded by the U-Net and added to the time embedding.
    Adm,
}

impl Display for ConditioningKey {
    /// As a YAML file says it.
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Concat => "concat",
            Self::CrossAttn => "crossattn",
            Self::Hybrid => "hybrid",
            Self::Adm => "adm",
        })
    }
}
