//! The names under which files keep the two factors of one weight.

use crate::weights::{KeyMap, Layout};

/// One model that a LoRA file may hold factors for.
pub struct LoraPart<'a> {
    /// The model's name in diffusers' files: `unet`, `text_encoder`, `text_encoder_2`.
    pub name: &'a str,
    /// Its names in kohya's files: `lora_unet`; `lora_te`, `lora_te1`; `lora_te2`.
    pub kohya: &'a [&'a str],
    /// How formats name the model's own weights, diffusers' (or transformers') first; kohya's files of SDXL follow
    /// CompVis' names.
    pub keys: Vec<&'a dyn KeyMap>,
}

/// Names of the factors of one weight, and of their alpha.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// `A`.
    pub down: String,
    /// `B`.
    pub up: String,
    pub alpha: String,
}

impl Names {
    fn new(stem: &str, down: &str, up: &str, layer: &str) -> Self {
        let factor = |name| format!("{stem}.{name}.weight");
        Self { down: factor(down), up: factor(up), alpha: format!("{layer}.alpha") }
    }
}

/// Suffixes of `A` and `B`: peft, then diffusers' own from before it (U-Nets, text encoders).
const SUFFIXES: [(&str, &str); 3] =
    [("lora_A", "lora_B"), ("lora.down", "lora.up"), ("lora_linear_layer.down", "lora_linear_layer.up")];

impl LoraPart<'_> {
    /// The weight's name in diffusers' format, without `.weight`, and all names that its factors may have.
    pub(super) fn names(&self, path: &str) -> Option<(String, Vec<Names>)> {
        let layers = self.keys.iter().filter_map(|keys| {
            let entry = keys.entry(path)?;
            // Factors of a part of a larger tensor have no name of their own.
            let whole = matches!(entry.layout, Layout::Same | Layout::Conv2d1x1);
            whole.then(|| entry.key.strip_suffix(".weight").map(String::from)).flatten()
        });
        let layers: Vec<String> = layers.collect();
        let first = layers.first()?;
        let mut names = Vec::new();
        // A U-Net's own file, without the pipeline's prefix.
        for prefix in [format!("{}.", self.name), String::new()] {
            let layer = format!("{prefix}{first}");
            names.extend(SUFFIXES.iter().map(|(down, up)| Names::new(&layer, down, up, &layer)));
            // Attention processors: `attn1.processor.to_q_lora.down`.
            if let Some((block, projection)) = split_projection(first) {
                for processor in ["processor.", ""] {
                    let stem = format!("{prefix}{block}.{processor}{projection}_lora");
                    names.push(Names::new(&stem, "down", "up", &layer));
                }
            }
        }
        for kohya in self.kohya {
            for layer in &layers {
                let stem = format!("{kohya}_{}", layer.replace('.', "_"));
                names.push(Names::new(&stem, "lora_down", "lora_up", &stem));
            }
        }
        Some((first.clone(), names))
    }
}

/// `"x.attn1.to_out.0"` as `("x.attn1", "to_out")`.
fn split_projection(layer: &str) -> Option<(&str, &str)> {
    let layer = layer.strip_suffix(".0").unwrap_or(layer);
    let (block, projection) = layer.rsplit_once('.')?;
    matches!(projection, "to_q" | "to_k" | "to_v" | "to_out").then_some((block, projection))
}
