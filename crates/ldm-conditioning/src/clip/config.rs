use std::path::{Path, PathBuf};

use ldm_nn::Activation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::depth::MOST_LAYERS;

/// A text encoder's `config.json`: the fields of transformers' `CLIPTextConfig`, with its defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// `CLIPTextModel`, or `CLIPTextModelWithProjection` for an encoder with `text_embeds`.
    pub architectures: Vec<String>,
    /// Always `clip_text_model`.
    pub model_type: String,
    /// Rows of the token embedding.
    pub vocab_size: usize,
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Width inside each feed-forward block.
    pub intermediate_size: usize,
    /// Width of `text_embeds`, where there is a projection.
    pub projection_dim: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads; they divide `hidden_size`.
    pub num_attention_heads: usize,
    /// The longest sequence, special tokens included.
    pub max_position_embeddings: usize,
    /// `quick_gelu` (OpenAI's models), `gelu` (OpenCLIP's) or `silu`.
    pub hidden_act: Activation,
    /// Added to the variance by every layer norm.
    pub layer_norm_eps: f64,
    /// The id that pads (not read by the encoder).
    pub pad_token_id: Option<u32>,
    /// The id that starts a sequence (not read by the encoder).
    pub bos_token_id: Option<u32>,
    /// The id at whose first position the output is pooled. With 2, an old mistake of the published
    /// configs, the position of the largest id is taken.
    pub eos_token_id: u32,
}

/// Why the config of one of CLIP's encoders can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The text isn't a JSON object.
    #[error("a CLIP encoder's config is no JSON object: {0}")]
    Json(#[source] serde_json::Error),
    /// A field holds what it can't hold.
    #[error("a CLIP encoder's config: {field}: {reason}")]
    Field {
        /// The field's name in config.json.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            architectures: vec!["CLIPTextModel".into()],
            model_type: "clip_text_model".into(),
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
            pad_token_id: Some(1),
            bos_token_id: Some(49406),
            eos_token_id: 49407,
        }
    }
}

impl ClipTextConfig {
    /// CLIP ViT-L/14: Stable Diffusion 1's text encoder and SDXL's first.
    pub fn vit_l_14() -> Self {
        Self::published("CLIPTextModel", [768, 3072, 768, 12, 12], Activation::QuickGelu)
    }

    /// OpenCLIP ViT-H/14 without its last layer: Stable Diffusion 2's text encoder, which reads the
    /// penultimate layer through the final norm.
    pub fn open_clip_h_14() -> Self {
        Self::published("CLIPTextModel", [1024, 4096, 512, 23, 16], Activation::Gelu)
    }

    /// OpenCLIP ViT-bigG/14 with its projection: SDXL's second text encoder.
    pub fn open_clip_big_g_14() -> Self {
        Self::published("CLIPTextModelWithProjection", [1280, 5120, 1280, 32, 20], Activation::Gelu)
    }

    fn published(architecture: &str, sizes: [usize; 5], hidden_act: Activation) -> Self {
        let [hidden_size, intermediate_size, projection_dim, num_hidden_layers, num_attention_heads] = sizes;
        Self {
            architectures: vec![architecture.into()],
            hidden_size,
            intermediate_size,
            projection_dim,
            num_hidden_layers,
            num_attention_heads,
            hidden_act,
            bos_token_id: Some(0),
            eos_token_id: 2,
            ..Self::default()
        }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// The file can't be read, is no JSON object, or [`validate`](Self::validate) finds a wrong field.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Io { path: path.to_path_buf(), source })?;
        Self::from_json(&text)
    }

    /// Reads the text of a `config.json`; unknown fields are left alone.
    ///
    /// # Errors
    /// The text is no JSON object, or [`validate`](Self::validate) finds a wrong field.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let config: Self = read(text)?;
        config.validate()?;
        Ok(config)
    }

    /// Whether the encoder projects its pooled output (`text_embeds`).
    pub fn has_projection(&self) -> bool {
        self.architectures.iter().any(|a| a == "CLIPTextModelWithProjection")
    }

    /// Checks what the types can't say: sizes above zero, heads that divide the width.
    ///
    /// # Errors
    /// The first wrong field, by name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("projection_dim", if self.has_projection() { self.projection_dim } else { 1 }),
        ];
        for (field, size) in sizes {
            // The bound keeps products of sizes far from overflow.
            if size == 0 || size > 1 << 24 {
                return Err(wrong(field, format!("{size} is not between 1 and {}", 1 << 24)));
            }
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let reason = format!("{} is not between 1 and {MOST_LAYERS}", self.num_hidden_layers);
            return Err(wrong("num_hidden_layers", reason));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let reason =
                format!("{} does not divide hidden_size {}", self.num_attention_heads, self.hidden_size);
            return Err(wrong("num_attention_heads", reason));
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps.is_finite()) {
            return Err(wrong("layer_norm_eps", format!("{} is no small number", self.layer_norm_eps)));
        }
        Ok(())
    }
}

/// A `config.json`; an error names its field.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    let fields: Map<String, Value> = serde_json::from_str(text).map_err(ConfigError::Json)?;
    serde_path_to_error::deserialize(Value::Object(fields))
        .map_err(|e| wrong(&e.path().to_string(), e.inner().to_string()))
}

fn wrong(field: &str, reason: String) -> ConfigError {
    ConfigError::Field { field: field.into(), reason }
}
