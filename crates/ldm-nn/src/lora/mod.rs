//! LoRA (Hu et al. 2021): a weight `W` becomes `W + alpha / r * B A`, with `A` `[r, in]` and `B` `[out, r]`.
//!
//! To train one, [`attach`] factors to a model's weights: burn reparameterises the parameters, so layers need not know,
//! everything else is frozen, and `materialize()` merges the product in the end. [`LoraKeys`] names the factors as
//! diffusers' `pytorch_lora_weights.safetensors` does. To use one, [`LoraFile`] reads such a file (and its older and
//! kohya's namings) and adds the products to the weights.

mod adapt;
mod error;
mod file;
mod fuse;
mod keys;
mod names;

use serde::{Deserialize, Serialize};

pub use adapt::attach;
pub use error::LoraError;
pub use file::LoraFile;
pub use fuse::LoraUpdate;
pub use keys::{LoraKeys, is_adapter};
pub use names::LoraPart;

/// How strong the factors are, in peft's words.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the factors.
    pub r: usize,
    /// The product is scaled by `lora_alpha / r`.
    pub lora_alpha: f64,
}

impl LoraConfig {
    /// Rank `r`, with `lora_alpha = r`: the product as it is, which is what a file without alphas means.
    pub fn new(r: usize) -> Self {
        Self { r, lora_alpha: r as f64 }
    }

    /// Sets `lora_alpha`.
    pub fn with_alpha(mut self, lora_alpha: f64) -> Self {
        self.lora_alpha = lora_alpha;
        self
    }

    /// Whether another config makes the same product of the same factors, but for rounding.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.r == other.r && (self.lora_alpha - other.lora_alpha).abs() <= 1e-6 * other.lora_alpha.abs()
    }

    /// The file's note from which diffusers makes its `LoraConfig`, under the key [`METADATA`]; `part` is `unet`,
    /// `targets` the layers' names there.
    pub fn metadata(&self, part: &str, targets: &[&str]) -> String {
        let entries = [
            ("bias", "none".into()),
            ("lora_alpha", self.lora_alpha.into()),
            ("r", self.r.into()),
            ("target_modules", targets.into()),
        ];
        let entries =
            entries.into_iter().map(|(key, value): (_, serde_json::Value)| (format!("{part}.{key}"), value));
        serde_json::Value::Object(entries.collect()).to_string()
    }
}

/// The note of a safetensors file that holds the adapter's config.
pub const METADATA: &str = "lora_adapter_metadata";
