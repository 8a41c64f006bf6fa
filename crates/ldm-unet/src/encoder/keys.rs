use ldm_nn::weights::{Entry, KeyMap, Layout};

use super::{EncoderUNetConfig, Pool};
use crate::ConfigError;
use crate::keys::CompVisKeys;

/// Our name below `head.`, the original's below `out.`, and how it is laid out there.
type Table = &'static [(&'static str, &'static str, Layout)];

const QKV: [Layout; 3] = [qkv(0), qkv(1), qkv(2)];
const ADAPTIVE: Table = &[
    ("norm.weight", "0.weight", Layout::Same),
    ("norm.bias", "0.bias", Layout::Same),
    ("proj.weight", "3.weight", Layout::Conv2d1x1),
    ("proj.bias", "3.bias", Layout::Same),
];
const ATTENTION: Table = &[
    ("norm.weight", "0.weight", Layout::Same),
    ("norm.bias", "0.bias", Layout::Same),
    ("positional_embedding", "2.positional_embedding", Layout::Same),
    ("to_q.weight", "2.qkv_proj.weight", QKV[0]),
    ("to_k.weight", "2.qkv_proj.weight", QKV[1]),
    ("to_v.weight", "2.qkv_proj.weight", QKV[2]),
    ("to_q.bias", "2.qkv_proj.bias", bias(0)),
    ("to_k.bias", "2.qkv_proj.bias", bias(1)),
    ("to_v.bias", "2.qkv_proj.bias", bias(2)),
    ("c_proj.weight", "2.c_proj.weight", Layout::Conv1d1x1),
    ("c_proj.bias", "2.c_proj.bias", Layout::Same),
];
const SPATIAL: Table = &[
    ("linear_1.weight", "0.weight", Layout::Same),
    ("linear_1.bias", "0.bias", Layout::Same),
    ("linear_2.weight", "2.weight", Layout::Same),
    ("linear_2.bias", "2.bias", Layout::Same),
];
const SPATIAL_V2: Table = &[
    ("linear_1.weight", "0.weight", Layout::Same),
    ("linear_1.bias", "0.bias", Layout::Same),
    ("norm.weight", "1.weight", Layout::Same),
    ("norm.bias", "1.bias", Layout::Same),
    ("linear_2.weight", "3.weight", Layout::Same),
    ("linear_2.bias", "3.bias", Layout::Same),
];

const fn qkv(part: usize) -> Layout {
    Layout::Qkv { part, per_head: None, conv: true }
}

const fn bias(part: usize) -> Layout {
    Layout::Qkv { part, per_head: None, conv: false }
}

/// Maps an [`EncoderUNet`](super::EncoderUNet)'s parameters to the original's names.
#[derive(Debug, Clone)]
pub struct EncoderKeys {
    unet: CompVisKeys,
    head: Table,
}

impl EncoderUNetConfig {
    /// The names that CompVis' code gives this model's parameters.
    ///
    /// # Errors
    ///
    /// As [`EncoderUNetConfig::init`].
    pub fn compvis_keys(&self) -> Result<EncoderKeys, ConfigError> {
        self.check()?;
        let head = match self.pool {
            Pool::Adaptive => ADAPTIVE,
            Pool::Attention => ATTENTION,
            Pool::Spatial => SPATIAL,
            Pool::SpatialV2 => SPATIAL_V2,
        };
        Ok(EncoderKeys { unet: self.unet.compvis_keys()?, head })
    }
}

impl KeyMap for EncoderKeys {
    fn entry(&self, path: &str) -> Option<Entry> {
        let Some(path) = path.strip_prefix("head.") else {
            return self.unet.entry(path);
        };
        let (_, theirs, layout) = self.head.iter().find(|(ours, ..)| *ours == path)?;
        Some(Entry::new(format!("out.{theirs}"), *layout))
    }
}
