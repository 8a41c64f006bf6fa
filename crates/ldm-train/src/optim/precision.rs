use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

/// The float types of a training step: the one place that decides them.
///
/// Master weights, moments, averages, the loss and everything random are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Everything in f32.
    #[default]
    F32,
    /// Networks run in bf16 on a copy of the weights made for each step; norms take their statistics in f32, as
    /// they always do. bf16 has f32's exponents, so no loss scaling is needed.
    Bf16,
}

impl Precision {
    /// The type in which a step holds the parameter at `path`.
    ///
    /// The U-Net, encoder and decoder (`model.`) run in the small type. tau_theta is small and feeds every
    /// cross-attention, codes are found by small differences, log-variances enter the loss, and a discriminator's
    /// batch norms keep statistics: they stay exact.
    pub fn of(self, path: &str) -> DType {
        match self {
            Self::Bf16 if path.starts_with("model.") && !path.starts_with("model.quantize.") => DType::BF16,
            _ => DType::F32,
        }
    }

    /// The float type that the device must have.
    pub fn needs(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Whether the device can train so.
    pub fn is_supported(self, device: &Device) -> bool {
        device.supports_dtype(self.needs())
    }
}
