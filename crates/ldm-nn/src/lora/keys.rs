use crate::weights::{Entry, KeyMap};

/// Where a reparameterised parameter's factors lie below it.
const LORA: &str = ".lora.";

/// Whether the parameter at `path` is a factor of a LoRA: no name for it in the format of whole models.
pub fn is_adapter(path: &str) -> bool {
    path.contains(LORA)
}

/// Names the factors that [`attach`](super::attach) has made, and nothing else, as diffusers does:
/// `unet.` + the layer's name + `.lora_A.weight` `[r, in]`, `.lora_B.weight` `[out, r]`.
pub struct LoraKeys<'a> {
    base: &'a dyn KeyMap,
    prefix: String,
}

impl<'a> LoraKeys<'a> {
    /// `base` names the model's weights in diffusers' format; `part` is the model's name there, `unet`.
    pub fn new(base: &'a dyn KeyMap, part: &str) -> Self {
        Self { base, prefix: format!("{part}.") }
    }
}

impl KeyMap for LoraKeys<'_> {
    fn entry(&self, path: &str) -> Option<Entry> {
        let (weight, factor) = path.split_once(LORA)?;
        let key = self.base.entry(weight)?.key;
        let layer = key.strip_suffix(".weight")?;
        let factor = match factor {
            "a" => "lora_B",
            "b" => "lora_A",
            _ => return None,
        };
        Some(Entry::same(format!("{}{layer}.{factor}.weight", self.prefix)))
    }
}
