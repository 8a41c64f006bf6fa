use std::path::Path;

use serde_json::{Map, Value};

use super::names::Names;
use super::{LoraError, METADATA};
use crate::weights::WeightFile;

/// A file of LoRA factors: diffusers' `pytorch_lora_weights.safetensors`, its older namings, or kohya's.
#[derive(Debug)]
pub struct LoraFile {
    pub(super) file: WeightFile,
    metadata: Option<Map<String, Value>>,
}

impl LoraFile {
    /// Opens the file; no factor is read yet.
    ///
    /// # Errors
    /// Where it is no weight file, or its note is no JSON object.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        let file = WeightFile::open(path)?;
        let metadata = match file.metadata().get(METADATA) {
            None => None,
            Some(text) => Some(serde_json::from_str(text).map_err(|e| LoraError::Metadata {
                path: file.path().into(),
                what: format!("it is no JSON object: {e}"),
            })?),
        };
        Ok(Self { file, metadata })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// By what the product of rank `r` for `layer` (diffusers' name) of `part` is multiplied: `alpha / r` with the
    /// layer's own alpha, else as the note says, else 1.
    pub(super) fn scale(&self, part: &str, layer: &str, names: &Names, r: usize) -> Result<f64, LoraError> {
        if self.file.contains(&names.alpha) {
            let (_, values) = self.file.read_f32(&names.alpha)?;
            return Ok(f64::from(*values.first().unwrap_or(&1.0)) / r as f64);
        }
        let Some(metadata) = &self.metadata else { return Ok(1.0) };
        let refuse = |what: String| LoraError::Metadata { path: self.path().into(), what };
        let get = |key: &str| metadata.get(&format!("{part}.{key}"));
        if get("use_dora").is_some_and(|v| v == &Value::Bool(true)) {
            return Err(refuse("`use_dora`: DoRA is not supported, only LoRA".into()));
        }
        // peft's default; a note that says nothing of this part leaves the product as it is.
        let mut alpha = match get("lora_alpha") {
            None if get("r").is_none() => return Ok(1.0),
            None => 8.0,
            Some(value) => number(value).ok_or_else(|| refuse(format!("`{part}.lora_alpha` is {value}")))?,
        };
        if let Some(pattern) = get("alpha_pattern").filter(|v| !v.is_null()) {
            let pattern = pattern.as_object().ok_or_else(|| refuse("`alpha_pattern` is no object".into()))?;
            for (key, value) in pattern {
                if matches(key, layer)
                    .ok_or_else(|| refuse(format!("`alpha_pattern`: {key} is no plain name")))?
                {
                    alpha =
                        number(value).ok_or_else(|| refuse(format!("`alpha_pattern.{key}` is {value}")))?;
                    break;
                }
            }
        }
        let rank_stabilised = get("use_rslora").is_some_and(|v| v == &Value::Bool(true));
        Ok(if rank_stabilised { alpha / (r as f64).sqrt() } else { alpha / r as f64 })
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|v| v.is_finite())
}

/// Whether peft's pattern `key` is for `layer`: the layer's name, its end after a dot, or with `^` the whole name.
/// `None` for a real regular expression.
fn matches(key: &str, layer: &str) -> Option<bool> {
    let (whole, key) = key.strip_prefix('^').map_or((false, key), |key| (true, key));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !key.chars().all(plain) {
        return None;
    }
    let end = layer.strip_suffix(key);
    Some(end.is_some_and(|before| before.is_empty() || (!whole && before.ends_with('.'))))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_whole_names_and_their_ends() {
        for (key, layer, expected) in [
            ("to_q", "down_blocks.0.attn1.to_q", Some(true)),
            ("o_q", "down_blocks.0.attn1.to_q", Some(false)),
            ("^down_blocks.0.attn1.to_q", "down_blocks.0.attn1.to_q", Some(true)),
            ("^attn1.to_q", "down_blocks.0.attn1.to_q", Some(false)),
            ("attn1.to_k", "down_blocks.0.attn1.to_q", Some(false)),
            (".*to_q", "down_blocks.0.attn1.to_q", None),
        ] {
            assert_eq!(matches(key, layer), expected, "{key} {layer}");
        }
    }
}
