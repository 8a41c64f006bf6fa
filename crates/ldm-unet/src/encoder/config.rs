use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ConfigError, PerLevel, UNetConfig};

/// How an [`EncoderUNet`](super::EncoderUNet) makes one vector of its feature maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pool {
    /// The mean over the coarsest map, then one layer.
    #[default]
    Adaptive,
    /// Attention from the mean to the coarsest map, as CLIP's image encoder.
    Attention,
    /// The means over all maps, then two layers.
    Spatial,
    /// The same with a norm between them.
    SpatialV2,
}

/// The params of `EncoderUNetModel` in a CompVis YAML file.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderUNetConfig {
    /// The way down and the middle, with the `UNetModel`'s keys; `out_channels` is the width of the output.
    pub unet: UNetConfig,
    /// Side of the input; only [`Pool::Attention`] depends on it.
    pub image_size: usize,
    /// How one vector is made.
    pub pool: Pool,
}

impl EncoderUNetConfig {
    /// An encoder of this kind; keys for a context or a class have no place in it.
    pub fn new(unet: UNetConfig, image_size: usize, pool: Pool) -> Self {
        Self { unet, image_size, pool }
    }

    /// From the `params` of a CompVis YAML file, already read into a JSON value.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names an absent or unknown key, and keys that the encoder has no place for.
    pub fn from_compvis(params: &Value) -> Result<Self, ConfigError> {
        let malformed = |reason: String| ConfigError::Malformed(reason);
        let size = params.get("image_size").and_then(Value::as_u64);
        let image_size = size.ok_or_else(|| malformed("`image_size` is no size".into()))? as usize;
        let pool = match params.get("pool") {
            Some(pool) => Pool::deserialize(pool).map_err(|e| malformed(format!("`pool`: {e}")))?,
            None => Pool::default(),
        };
        let mut params = params.clone();
        if let Some(map) = params.as_object_mut() {
            map.remove("pool");
        }
        let mut unet = UNetConfig::from_compvis(&params)?;
        // Unlike `UNetModel` the original has a default here.
        unet.num_heads = unet.num_heads.or(Some(PerLevel::All(1)));
        Ok(Self { unet, image_size, pool })
    }

    /// Refuses what the original would silently leave out.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let unsupported = |key: &str, value: String| ConfigError::Unsupported {
            key: key.into(),
            value,
            hint: " in an encoder".into(),
        };
        if let Some(classes) = self.unet.num_classes {
            return Err(unsupported("num_classes", format!("{classes:?}")));
        }
        if self.unet.use_spatial_transformer || self.unet.context_dim.is_some() {
            return Err(unsupported(
                "use_spatial_transformer",
                self.unet.use_spatial_transformer.to_string(),
            ));
        }
        if self.unet.addition_embed_type.is_some() {
            return Err(unsupported("addition_embed_type", "\"text_time\"".into()));
        }
        if self.unet.middle != crate::Middle::Attention {
            return Err(unsupported("middle", format!("{:?}", self.unet.middle)));
        }
        if self.pool == Pool::Attention && self.unet.num_head_channels.is_none() {
            let because = "`pool` is \"attention\"".into();
            return Err(ConfigError::Missing { key: "num_head_channels", because });
        }
        Ok(())
    }
}
