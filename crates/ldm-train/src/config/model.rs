use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use ldm_conditioning::bert::BertTokenizer;
use ldm_conditioning::{CondStage, CondStageConfig, ConditioningError};
use ldm_unet::UNetConfig;
use ldm_vae::FirstStageConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::optim::RateConfig;
use crate::{FirstStageLossConfig, ObjectiveConfig, RunError};

/// What the reference makes by name: a Python class and the arguments of its constructor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// `ldm.models.autoencoder.AutoencoderKL`.
    pub target: String,
    /// Its arguments.
    #[serde(default)]
    pub params: Value,
}

impl Target {
    /// The class without its module.
    pub fn class(&self) -> &str {
        self.target.rsplit('.').next().unwrap_or(&self.target)
    }
}

/// The section `model`.
#[derive(Debug, Clone)]
pub enum ModelConfig {
    /// `AutoencoderKL` or `VQModel` of `ldm.models.autoencoder`.
    FirstStage(Box<AutoencoderConfig>),
    /// `ldm.models.diffusion.ddpm.LatentDiffusion`.
    Diffusion(Box<DiffusionConfig>),
}

impl ModelConfig {
    /// The learning rate before any scaling.
    pub fn base_learning_rate(&self) -> f64 {
        match self {
            Self::FirstStage(config) => config.base_learning_rate,
            Self::Diffusion(config) => config.base_learning_rate,
        }
    }
}

/// `model` of a first stage's YAML.
#[derive(Debug, Clone)]
pub struct AutoencoderConfig {
    /// Learning rate (of one picture, with `scale_lr`).
    pub base_learning_rate: f64,
    /// `params`: `embed_dim`, `ddconfig`, `n_embed`.
    pub first_stage: FirstStageConfig,
    /// `params.lossconfig`.
    pub loss: FirstStageLossConfig,
    /// `params.lossconfig.params.lpips_ckpt`, which is ours: a file with the weights of LPIPS (torchvision's VGG16
    /// and the linear layers).
    pub lpips_ckpt: Option<PathBuf>,
    /// `params.ckpt_path`: weights to start from; a file with CompVis' names or of a diffusers `vae` folder.
    pub ckpt_path: Option<PathBuf>,
}

/// `model` of a latent diffusion YAML.
#[derive(Debug, Clone)]
pub struct DiffusionConfig {
    /// Learning rate (of one picture, with `scale_lr`).
    pub base_learning_rate: f64,
    /// The keys of `params` that the loss reads.
    pub objective: ObjectiveConfig,
    /// `params.unet_config.params`.
    pub unet: UNetConfig,
    /// `params.unet_config.params.use_checkpoint`: keep what goes from block to block alone and compute the rest anew
    /// for the gradient, one block at a time.
    pub use_checkpoint: bool,
    /// `params.first_stage_config.params`: `embed_dim`, `ddconfig`.
    pub first_stage: FirstStageConfig,
    /// `params.first_stage_config.params.ckpt_path`: the trained first stage's weights, in CompVis' or diffusers'
    /// names.
    pub first_stage_ckpt: Option<PathBuf>,
    /// `params.cond_stage_config`; `None` for `__is_unconditional__`.
    pub cond_stage: Option<CondStageConfig>,
    /// `params.cond_stage_config.params.vocab_file`, which is ours: the WordPiece vocabulary of a `BERTEmbedder`,
    /// one piece a line (not given: bert-base-uncased's 30,522).
    pub vocab_file: Option<PathBuf>,
    /// Whether tau_theta is trained along (`params.cond_stage_trainable`).
    pub cond_stage_trainable: bool,
    /// Whether a moving average of the U-Net is kept (`params.use_ema`).
    pub use_ema: bool,
    /// `params.scheduler_config`.
    pub scheduler: Option<RateConfig>,
    /// `params.ckpt_path`: weights of a whole model to start from.
    pub ckpt_path: Option<PathBuf>,
}

impl DiffusionConfig {
    /// tau_theta with fresh weights, and with its tokenizer; `None` for an unconditional model.
    ///
    /// # Errors
    ///
    /// A config that can't be built, a vocabulary that can't be read or doesn't fit.
    pub fn tau(&self, device: &Device) -> Result<Option<CondStage>, RunError> {
        let Some(config) = &self.cond_stage else { return Ok(None) };
        Ok(Some(match (config.init(device)?, config, &self.vocab_file) {
            (CondStage::BertEmbedder(embedder), CondStageConfig::BertEmbedder(config), Some(file)) => {
                let tokenizer = BertTokenizer::from_file(file, config.max_seq_len);
                let tokenizer = Arc::new(tokenizer.map_err(ConditioningError::from)?);
                let embedder = embedder.with_tokenizer(tokenizer).map_err(ConditioningError::from)?;
                CondStage::BertEmbedder(embedder)
            }
            (stage, ..) => stage,
        }))
    }
}
