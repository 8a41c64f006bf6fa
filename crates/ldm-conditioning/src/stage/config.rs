use std::sync::Arc;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::CondStage;
use crate::bert::{BertConfigError, BertEmbedderConfig, BertTokenizer};
use crate::clip::{
    ClipImageEmbedder, ClipTextConfig, ClipTextEmbedder, ClipTokenizer, ClipVisionConfig, ConfigError,
};
use crate::{ClassEmbedderConfig, ConditioningError, SpatialRescalerConfig, SpatialRescalerError};

/// A `cond_stage_config` of a CompVis YAML file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum CondStageConfig {
    /// `torch.nn.Identity`.
    Identity,
    /// `ClassEmbedder`.
    ClassEmbedder(ClassEmbedderConfig),
    /// `BERTEmbedder`, and `TransformerEmbedder` with `use_tokenizer` false.
    BertEmbedder(BertEmbedderConfig),
    /// `SpatialRescaler`.
    SpatialRescaler(SpatialRescalerConfig),
    /// `FrozenCLIPTextEmbedder`.
    ClipTextEmbedder(ClipTextEmbedderConfig),
    /// `FrozenClipImageEmbedder`.
    ClipImageEmbedder(ClipImageEmbedderConfig),
}

/// The params of `FrozenCLIPTextEmbedder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClipTextEmbedderConfig {
    /// `ViT-B/32`, `ViT-B/16` or `ViT-L/14`.
    pub version: String,
    /// Where the reference puts its model; not read here.
    #[serde(skip_serializing)]
    pub device: Option<String>,
    /// Tokens of a text.
    pub max_length: usize,
    /// How often the embedding is repeated.
    pub n_repeat: usize,
    /// Whether embeddings get length 1.
    pub normalize: bool,
}

/// The params of `FrozenClipImageEmbedder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipImageEmbedderConfig {
    /// `ViT-B/32`, `ViT-B/16`, `ViT-L/14` or `ViT-L/14@336px`.
    pub model: String,
    /// Where and how the reference loads its model; not read here.
    #[serde(default, skip_serializing)]
    pub device: Option<String>,
    /// The same.
    #[serde(default, skip_serializing)]
    pub jit: bool,
    /// A blur before resizing: only false is supported.
    #[serde(default)]
    pub antialias: bool,
}

/// Why a `cond_stage_config` describes no encoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CondStageConfigError {
    /// A class that this crate doesn't have.
    #[error("cond_stage_config: unknown target `{target}` (known: {known})")]
    Target {
        /// The class, as the file spells it.
        target: String,
        /// What there is.
        known: String,
    },
    /// Params that the class doesn't take, or lacks.
    #[error("cond_stage_config: `{target}`: {reason}")]
    Params {
        /// The class.
        target: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The text transformer's config.
    #[error(transparent)]
    Bert(#[from] BertConfigError),
    /// The map's config.
    #[error(transparent)]
    SpatialRescaler(#[from] SpatialRescalerError),
    /// CLIP's config.
    #[error(transparent)]
    Clip(#[from] ConfigError),
    /// The tokenizer can't be made or doesn't fit.
    #[error(transparent)]
    Tokenizer(#[from] ConditioningError),
}

const IDENTITY: &str = "torch.nn.Identity";
const CLASS: &str = "ldm.modules.encoders.modules.ClassEmbedder";
const BERT: &str = "ldm.modules.encoders.modules.BERTEmbedder";
const TRANSFORMER: &str = "ldm.modules.encoders.modules.TransformerEmbedder";
const RESCALER: &str = "ldm.modules.encoders.modules.SpatialRescaler";
const CLIP_TEXT: &str = "ldm.modules.encoders.modules.FrozenCLIPTextEmbedder";
const CLIP_IMAGE: &str = "ldm.modules.encoders.modules.FrozenClipImageEmbedder";
const KNOWN: [&str; 7] = [IDENTITY, CLASS, BERT, TRANSFORMER, RESCALER, CLIP_TEXT, CLIP_IMAGE];

impl CondStageConfig {
    /// From `target` and `params` of the YAML file; `params` null where there are none.
    ///
    /// # Errors
    /// [`CondStageConfigError`] names the target, or the key.
    pub fn from_target(target: &str, params: &Value) -> Result<Self, CondStageConfigError> {
        let empty = Value::Object(Map::new());
        let params = if params.is_null() { &empty } else { params };
        Ok(match target {
            IDENTITY => Self::Identity,
            CLASS => Self::ClassEmbedder(read(CLASS, params)?),
            BERT => Self::BertEmbedder(BertEmbedderConfig::from_compvis(params)?),
            TRANSFORMER => Self::BertEmbedder(transformer(params)?),
            RESCALER => Self::SpatialRescaler(read(RESCALER, params)?),
            CLIP_TEXT => Self::ClipTextEmbedder(read(CLIP_TEXT, params)?),
            CLIP_IMAGE => Self::ClipImageEmbedder(read(CLIP_IMAGE, params)?),
            _ => {
                return Err(CondStageConfigError::Target { target: target.into(), known: KNOWN.join(", ") });
            }
        })
    }

    /// `target` and `params` for a YAML file.
    pub fn to_target(&self) -> (&'static str, Value) {
        match self {
            Self::Identity => (IDENTITY, Value::Null),
            Self::ClassEmbedder(config) => (CLASS, json!(config)),
            Self::BertEmbedder(config) => (BERT, json!(config)),
            Self::SpatialRescaler(config) => (RESCALER, json!(config)),
            Self::ClipTextEmbedder(config) => (CLIP_TEXT, json!(config)),
            Self::ClipImageEmbedder(config) => (CLIP_IMAGE, json!(config)),
        }
    }

    /// Creates the encoder, its parameters drawn as the reference draws them (lazily).
    ///
    /// A text transformer whose vocabulary is bert-base-uncased's gets that tokenizer; another one has to be
    /// given its own with [`with_tokenizer`](crate::bert::BertEmbedder::with_tokenizer).
    ///
    /// # Errors
    /// [`CondStageConfigError`] names the key.
    pub fn init(&self, device: &Device) -> Result<CondStage, CondStageConfigError> {
        Ok(match self {
            Self::Identity => CondStage::identity(),
            Self::ClassEmbedder(config) => {
                if config.embed_dim == 0 || config.n_classes == 0 {
                    let reason = "`embed_dim` and `n_classes`: at least 1".into();
                    return Err(CondStageConfigError::Params { target: CLASS, reason });
                }
                CondStage::ClassEmbedder(config.init(device))
            }
            Self::BertEmbedder(config) => {
                let mut embedder = config.init(device)?;
                if config.use_tokenizer && config.vocab_size == BertTokenizer::BASE_UNCASED {
                    let tokenizer = BertTokenizer::base_uncased(config.max_seq_len);
                    let tokenizer = Arc::new(tokenizer.map_err(ConditioningError::from)?);
                    embedder = embedder.with_tokenizer(tokenizer).map_err(ConditioningError::from)?;
                }
                CondStage::BertEmbedder(embedder)
            }
            Self::SpatialRescaler(config) => CondStage::SpatialRescaler(config.init(device)?),
            Self::ClipTextEmbedder(config) => CondStage::ClipTextEmbedder(config.init(device)?),
            Self::ClipImageEmbedder(config) => CondStage::ClipImageEmbedder(config.init(device)?),
        })
    }
}

impl Default for ClipTextEmbedderConfig {
    fn default() -> Self {
        Self { version: "ViT-L/14".into(), device: None, max_length: 77, n_repeat: 1, normalize: true }
    }
}

impl ClipTextEmbedderConfig {
    fn init(&self, device: &Device) -> Result<ClipTextEmbedder, CondStageConfigError> {
        let wrong = |reason| CondStageConfigError::Params { target: CLIP_TEXT, reason };
        let mut config = match self.version.as_str() {
            "ViT-B/32" | "ViT-B/16" => ClipTextConfig::default(),
            "ViT-L/14" => ClipTextConfig::vit_l_14(),
            other => return Err(wrong(format!("`version` = {other}: ViT-B/32, ViT-B/16 or ViT-L/14"))),
        };
        if self.max_length != config.max_position_embeddings || self.n_repeat == 0 {
            let (max, repeat) = (self.max_length, self.n_repeat);
            return Err(wrong(format!("`max_length` = {max}, `n_repeat` = {repeat}: 77, and at least 1")));
        }
        config.architectures = vec!["CLIPTextModelWithProjection".into()];
        let tokenizer = ClipTokenizer::open_ai().map_err(ConditioningError::from)?;
        let embedder =
            ClipTextEmbedder::new(tokenizer, config.init(device)?).map_err(ConditioningError::from)?;
        Ok(embedder.with_repeat(self.n_repeat).with_normalize(self.normalize))
    }
}

impl ClipImageEmbedderConfig {
    fn init(&self, device: &Device) -> Result<ClipImageEmbedder, CondStageConfigError> {
        let wrong = |reason| CondStageConfigError::Params { target: CLIP_IMAGE, reason };
        if self.antialias {
            return Err(wrong("`antialias` = true is not supported".into()));
        }
        let config = match self.model.as_str() {
            "ViT-B/32" => ClipVisionConfig::default(),
            "ViT-B/16" => ClipVisionConfig { patch_size: 16, ..ClipVisionConfig::default() },
            "ViT-L/14" => ClipVisionConfig::vit_l_14(),
            "ViT-L/14@336px" => ClipVisionConfig { image_size: 336, ..ClipVisionConfig::vit_l_14() },
            other => return Err(wrong(format!("`model` = {other}: only the ViT models are supported"))),
        };
        Ok(ClipImageEmbedder::new(config.init(device)?))
    }
}

fn read<'de, T: Deserialize<'de>>(
    target: &'static str,
    params: &'de Value,
) -> Result<T, CondStageConfigError> {
    serde_path_to_error::deserialize(params)
        .map_err(|e| CondStageConfigError::Params { target, reason: e.to_string() })
}

/// `TransformerEmbedder` has no tokenizer to switch off.
fn transformer(params: &Value) -> Result<BertEmbedderConfig, CondStageConfigError> {
    let mut params = params.clone();
    if let Some(map) = params.as_object_mut() {
        for key in ["use_tokenizer", "embedding_dropout"] {
            if map.contains_key(key) {
                let reason = format!("unknown field `{key}`");
                return Err(CondStageConfigError::Params { target: TRANSFORMER, reason });
            }
        }
        if !map.contains_key("vocab_size") {
            let reason = "missing field `vocab_size`".into();
            return Err(CondStageConfigError::Params { target: TRANSFORMER, reason });
        }
        map.insert("use_tokenizer".into(), json!(false));
    }
    Ok(BertEmbedderConfig::from_compvis(&params)?)
}
