use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::BertTokenizer;
use crate::depth::MOST_LAYERS;

/// The params of `BERTEmbedder` and `TransformerEmbedder` in a CompVis YAML file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertEmbedderConfig {
    /// Width of the transformer, and of the context it gives.
    pub n_embed: usize,
    /// Transformer layers.
    pub n_layer: usize,
    /// Rows of the token embedding.
    #[serde(default = "vocab_size")]
    pub vocab_size: usize,
    /// Rows of the position embedding; texts are padded to it.
    #[serde(default = "max_seq_len")]
    pub max_seq_len: usize,
    /// Takes texts; otherwise ids (layouts).
    #[serde(default = "yes")]
    pub use_tokenizer: bool,
    /// Share of the embedding that is zeroed while training.
    #[serde(default)]
    pub embedding_dropout: f64,
    /// Attention heads: 8 at any width in the reference.
    #[serde(default = "heads")]
    pub heads: usize,
    /// Width of a head: 64 in the reference.
    #[serde(default = "dim_head")]
    pub dim_head: usize,
    /// Where the reference puts its ids; not read here.
    #[serde(default, skip_serializing)]
    pub device: Option<String>,
}

/// Why a config describes no encoder.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BertConfigError {
    /// A key is absent, unknown or of the wrong type.
    #[error("text transformer's config: {0}")]
    Malformed(String),
    /// A key holds what it can't hold.
    #[error("text transformer's config: `{key}` = {value}: {reason}")]
    Value {
        /// The key, as the file spells it.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        reason: &'static str,
    },
}

impl BertEmbedderConfig {
    /// `BERTEmbedder` of this width and depth with its defaults: 30,522 words, 77 tokens, a tokenizer.
    pub fn new(n_embed: usize, n_layer: usize) -> Self {
        Self {
            n_embed,
            n_layer,
            vocab_size: BertTokenizer::BASE_UNCASED,
            max_seq_len: max_seq_len(),
            use_tokenizer: true,
            embedding_dropout: 0.0,
            heads: heads(),
            dim_head: dim_head(),
            device: None,
        }
    }

    /// The same over ids instead of texts: `TransformerEmbedder`, and `BERTEmbedder` for layouts.
    pub fn over_tokens(mut self, vocab_size: usize, max_seq_len: usize) -> Self {
        self.use_tokenizer = false;
        self.vocab_size = vocab_size;
        self.max_seq_len = max_seq_len;
        self
    }

    /// From the `params` of a CompVis YAML file, already read into a JSON value.
    ///
    /// # Errors
    /// [`BertConfigError`] names the key.
    pub fn from_compvis(params: &Value) -> Result<Self, BertConfigError> {
        let config: Self = serde_path_to_error::deserialize(params)
            .map_err(|e| BertConfigError::Malformed(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// From the `config.json` of diffusers' `LDMBertModel` (`bert/` of a pipeline), a JSON object.
    ///
    /// # Errors
    /// [`BertConfigError`] names the key, in diffusers' words.
    pub fn from_diffusers(json: &Value) -> Result<Self, BertConfigError> {
        let size = |key: &'static str, default: usize| match json.get(key) {
            None => Ok(default),
            Some(value) => value.as_u64().map(|v| v as usize).ok_or_else(|| wrong(key, value, "no size")),
        };
        let only = |key, expected: Value, reason| match json.get(key) {
            Some(value) if *value != expected => Err(wrong(key, value, reason)),
            _ => Ok(()),
        };
        if !json.is_object() {
            return Err(BertConfigError::Malformed("no JSON object".into()));
        }
        only("activation_function", json!("gelu"), "only gelu is supported")?;
        only("scale_embedding", json!(false), "the model never reads it")?;
        let config = Self {
            vocab_size: size("vocab_size", BertTokenizer::BASE_UNCASED)?,
            max_seq_len: size("max_position_embeddings", max_seq_len())?,
            heads: size("encoder_attention_heads", heads())?,
            dim_head: size("head_dim", dim_head())?,
            ..Self::new(size("d_model", 1280)?, size("encoder_layers", 32)?)
        };
        if size("encoder_ffn_dim", 5120)? != 4 * config.n_embed {
            let value = json.get("encoder_ffn_dim").cloned().unwrap_or_else(|| json!(5120));
            return Err(wrong("encoder_ffn_dim", &value, "four times `d_model` in this architecture"));
        }
        config.validate()?;
        Ok(config)
    }

    /// The `config.json` that diffusers' `LDMBertModel` reads.
    pub fn to_diffusers(&self) -> Map<String, Value> {
        let config = json!({
            "architectures": ["LDMBertModel"],
            "model_type": "ldmbert",
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_seq_len,
            "d_model": self.n_embed,
            "encoder_layers": self.n_layer,
            "encoder_ffn_dim": 4 * self.n_embed,
            "encoder_attention_heads": self.heads,
            "head_dim": self.dim_head,
            "activation_function": "gelu",
            "pad_token_id": 0,
        });
        match config {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// Checks what the types can't say.
    ///
    /// # Errors
    /// The first wrong key, by name.
    pub fn validate(&self) -> Result<(), BertConfigError> {
        let sizes = [
            ("n_embed", self.n_embed),
            ("n_layer", self.n_layer),
            ("vocab_size", self.vocab_size),
            ("max_seq_len", self.max_seq_len),
            ("heads", self.heads),
            ("dim_head", self.dim_head),
        ];
        // The upper bound keeps products of sizes far from overflow.
        if let Some((key, size)) = sizes.into_iter().find(|(_, size)| *size == 0 || *size > 1 << 24) {
            return Err(wrong(key, size, "not between 1 and 2^24"));
        }
        if self.n_layer > MOST_LAYERS {
            return Err(wrong("n_layer", self.n_layer, "not between 1 and 1024"));
        }
        if self.use_tokenizer && self.max_seq_len < 2 {
            return Err(wrong("max_seq_len", self.max_seq_len, "no place for [CLS] and [SEP]"));
        }
        if !(0.0..1.0).contains(&self.embedding_dropout) {
            return Err(wrong("embedding_dropout", self.embedding_dropout, "not in [0, 1)"));
        }
        Ok(())
    }
}

fn wrong(key: &'static str, value: impl ToString, reason: &'static str) -> BertConfigError {
    BertConfigError::Value { key, value: value.to_string(), reason }
}

fn vocab_size() -> usize {
    BertTokenizer::BASE_UNCASED
}

fn max_seq_len() -> usize {
    77
}

fn yes() -> bool {
    true
}

fn heads() -> usize {
    8
}

fn dim_head() -> usize {
    64
}
