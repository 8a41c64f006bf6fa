//! Names as in a diffusers directory (`unet/diffusion_pytorch_model.safetensors`).

use ldm_nn::lora::is_adapter;
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

const ATTENTION_BLOCK: AttentionTable =
    [("norm", "group_norm"), ("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0")];

/// The same before diffusers 0.12.
const OLD_ATTENTION_BLOCK: AttentionTable =
    [("norm", "group_norm"), ("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out", "proj_attn")];

const RESAMPLERS: [(&str, &str); 4] = [
    ("downsample.conv", "downsamplers.0.conv"),
    ("downsample.resnet", "downsamplers.0"),
    ("upsample.conv", "upsamplers.0.conv"),
    ("upsample.resnet", "upsamplers.0"),
];

/// Maps a [`UNet`](crate::UNet)'s parameters to diffusers' names.
///
/// Files from before diffusers 0.12, which call an attention block's layers `query`, `key`, `value` and
/// `proj_attn`, are read too.
#[derive(Debug, Clone)]
pub struct DiffusersKeys {
    transformer: bool,
    linear: bool,
}

impl UNetConfig {
    /// The names that diffusers gives this model's parameters.
    ///
    /// # Errors
    ///
    /// As [`UNetConfig::init`].
    pub fn diffusers_keys(&self) -> Result<DiffusersKeys, ConfigError> {
        Plan::new(self)?;
        Ok(DiffusersKeys {
            transformer: self.use_spatial_transformer,
            linear: self.use_linear_in_transformer,
        })
    }
}

/// The five layers of an attention block and their names.
type AttentionTable = [(&'static str, &'static str); 5];

impl DiffusersKeys {
    fn named(&self, path: &str, table: &AttentionTable) -> Option<Entry> {
        if is_adapter(path) {
            return None;
        }
        if let Some(rest) = path.strip_prefix("mid_block.") {
            let (name, layout) = self.block(rest, table)?;
            return Some(Entry::new(format!("mid_block.{name}"), layout));
        }
        for side in ["down_blocks", "up_blocks"] {
            if let Some((i, rest)) = path.strip_prefix(side).and_then(|p| indexed(p.strip_prefix('.')?)) {
                let (name, layout) = self.block(rest, table)?;
                return Some(Entry::new(format!("{side}.{i}.{name}"), layout));
            }
        }
        renamed(path, &TOP).map(Entry::same)
    }

    fn block(&self, path: &str, table: &AttentionTable) -> Option<(String, Layout)> {
        if path.starts_with("resnets.") {
            return Some((path.to_owned(), Layout::Same));
        }
        // The middle has one attention, which diffusers counts all the same.
        let attention = match path.strip_prefix("attention.") {
            Some(rest) => Some((0, rest)),
            None => path.strip_prefix("attentions.").and_then(indexed),
        };
        if let Some((i, rest)) = attention {
            let (name, layout) = match self.transformer {
                true => transformer(rest, self.linear)?,
                false => (renamed(rest, table)?, Layout::Same),
            };
            return Some((format!("attentions.{i}.{name}"), layout));
        }
        renamed(path, &RESAMPLERS).map(|name| (name, Layout::Same))
    }
}

impl KeyMap for DiffusersKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        self.named(path, &ATTENTION_BLOCK)
    }

    fn entries(&self, path: &str) -> Vec<Entry> {
        let mut entries: Vec<_> = self.entry(path).into_iter().collect();
        entries.extend(self.named(path, &OLD_ATTENTION_BLOCK).filter(|old| !entries.contains(old)));
        entries
    }
}
