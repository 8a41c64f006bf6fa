//! Names as in a diffusers directory (`unet/diffusion_pytorch_model.safetensors`).

use ldm_nn::weights::{Entry, KeyMap, Layout};

use super::{indexed, renamed, transformer};
use crate::plan::Plan;
use crate::{ConfigError, UNetConfig};

const TOP: [(&str, &str); 8] = [
    ("conv_in", "conv_in"),
    ("time_embedding", "time_embedding"),
    ("class_embedding", "class_embedding"),
    ("class_projection", "class_embedding"),
    ("class_linear", "class_embedding"),
    ("add_embedding", "add_embedding"),
    ("conv_norm_out", "conv_norm_out"),
    ("conv_out", "conv_out"),
];

const ATTENTION_BLOCK: [(&str, &str); 5] = [
    ("norm", "group_norm"),
    ("to_q", "to_q"),
    ("to_k", "to_k"),
    ("to_v", "to_v"),
    ("to_out", "to_out.0"),
];

/// The same before diffusers 0.12.
const OLD_ATTENTION_BLOCK: [(&str, &str); 5] = [
    ("norm", "group_norm"),
    ("to_q", "query"),
    ("to_k", "key"),
    ("to_v", "value"),
    ("to_out", "proj_attn"),
];

const RESAMPLERS: [(&str, &str); 4] = [
    ("downsample.conv", "downsamplers.0.conv"),
    ("downsample.resnet", "downsamplers.0"),
    ("upsample.conv", "upsamplers.0.conv"),
    ("upsample.resnet", "upsamplers.0"),
];

/// Maps a [`UNet`](crate::UNet)'s parameters to diffusers' names.
#[derive(Debug, Clone)]
pub struct DiffusersKeys {
    linear: bool,
    old_attention: bool,
}

impl UNetConfig {
    /// The names that diffusers gives this model's parameters.
    ///
    /// # Errors
    ///
    /// As [`UNetConfig::init`].
    pub fn diffusers_keys(&self) -> Result<DiffusersKeys, ConfigError> {
        Plan::new(self)?;
        Ok(DiffusersKeys { linear: self.use_linear_in_transformer, old_attention: false })
    }
}

impl DiffusersKeys {
    /// With `query`, `key`, `value` and `proj_attn`, as attention blocks were called before diffusers 0.12.
    pub fn with_old_attention(mut self, old: bool) -> Self {
        self.old_attention = old;
        self
    }

    /// Whether one of a file's names is of the old kind.
    pub fn is_old_attention<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
        names.into_iter().any(|name| name.ends_with(".proj_attn.weight"))
    }

    fn block(&self, path: &str) -> Option<(String, Layout)> {
        if path.starts_with("resnets.") {
            return Some((path.to_owned(), Layout::Same));
        }
        if let Some((i, rest)) = path.strip_prefix("attentions.").and_then(indexed) {
            return self.attention(rest).map(|(name, layout)| (format!("attentions.{i}.{name}"), layout));
        }
        if let Some(rest) = path.strip_prefix("attention.") {
            return self.attention(rest).map(|(name, layout)| (format!("attentions.0.{name}"), layout));
        }
        renamed(path, &RESAMPLERS).map(|name| (name, Layout::Same))
    }

    fn attention(&self, path: &str) -> Option<(String, Layout)> {
        if let Some(rest) = path.strip_prefix("Transformer.") {
            return transformer(rest, self.linear);
        }
        let table = if self.old_attention { &OLD_ATTENTION_BLOCK } else { &ATTENTION_BLOCK };
        path.strip_prefix("Block.").and_then(|rest| renamed(rest, table)).map(|name| (name, Layout::Same))
    }
}

impl KeyMap for DiffusersKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        if let Some(rest) = path.strip_prefix("mid_block.") {
            return self.block(rest).map(|(name, layout)| Entry::new(format!("mid_block.{name}"), layout));
        }
        for side in ["down_blocks", "up_blocks"] {
            if let Some((i, rest)) = path.strip_prefix(side).and_then(|p| indexed(p.strip_prefix('.')?)) {
                let entry = |(name, layout)| Entry::new(format!("{side}.{i}.{name}"), layout);
                return self.block(rest).map(entry);
            }
        }
        renamed(path, &TOP).map(Entry::same)
    }
}
