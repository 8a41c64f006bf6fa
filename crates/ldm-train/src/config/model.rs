use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use ldm_conditioning::bert::BertTokenizer;
use ldm_conditioning::{CondStage, CondStageConfig, ConditioningError};
use ldm_nn::ConditioningKey;
use ldm_nn::weights::WeightFile;
use ldm_unet::UNetConfig;
use ldm_vae::{FirstStage, FirstStageConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::weights;
use crate::export::load_first_stage;
use crate::optim::{RateConfig, names};
use crate::{FirstStageLossConfig, Lpips, ObjectiveConfig, RunError};

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
    /// `params.lossconfig.params.lpips_ckpt`, which is ours: a file with the weights of LPIPS' trunk (torchvision's VGG16),
    /// or with all of LPIPS.
    pub lpips_ckpt: Option<PathBuf>,
    /// `params.lossconfig.params.lpips_linear_ckpt`, which is ours: the linear layers' weights, where they lie in a file
    /// of their own (the `lpips` package's `weights/v0.1/vgg.pth`).
    pub lpips_linear_ckpt: Option<PathBuf>,
    /// `params.ckpt_path`: weights to start from; a file with CompVis' names or of a diffusers `vae` folder. The
    /// discriminator begins anew.
    pub ckpt_path: Option<PathBuf>,
    /// `params.scheduler_config`, which the reference's `VQModel` has.
    pub scheduler: Option<RateConfig>,
}

impl AutoencoderConfig {
    /// The first stage that training starts with: of `ckpt_path`, else with fresh weights, made lazily.
    ///
    /// # Errors
    ///
    /// A config that can't be built; a file that can't be read, or lacks tensors, which are named.
    pub fn start(&self, device: &Device) -> Result<FirstStage, RunError> {
        match &self.ckpt_path {
            Some(path) => load_first_stage(&self.first_stage, path, device),
            None => Ok(self.first_stage.init(device)?),
        }
    }

    /// LPIPS with the weights that the config names; `None` where it names none.
    ///
    /// # Errors
    ///
    /// Files that can't be read, or lack tensors, which are named.
    pub fn lpips(&self, device: &Device) -> Result<Option<Lpips>, RunError> {
        let Some(trunk) = &self.lpips_ckpt else { return Ok(None) };
        Ok(Some(Lpips::load(trunk, self.lpips_linear_ckpt.as_deref(), device)?))
    }
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
    pub cond_stage: Option<EncoderSection>,
    /// Whether tau_theta is trained along (`params.cond_stage_trainable`).
    pub cond_stage_trainable: bool,
    /// What the reference's data calls the picture (`params.first_stage_key`).
    pub first_stage_key: String,
    /// What it calls the condition (`params.cond_stage_key`); says what conditions are made of where `data.condition`
    /// doesn't.
    pub cond_stage_key: Option<String>,
    /// How the condition reaches the U-Net: `params.conditioning_key`, without which it is `concat`, or `crossattn` with
    /// `concat_mode: false`; `None` for an unconditional model.
    pub conditioning_key: Option<ConditioningKey>,
    /// Whether a moving average of the U-Net is kept (`params.use_ema`).
    pub use_ema: bool,
    /// `params.scheduler_config`.
    pub scheduler: Option<RateConfig>,
    /// `params.ckpt_path`: weights of a whole model to start from.
    pub ckpt_path: Option<PathBuf>,
}

/// `cond_stage_config`: what encodes the condition.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "one a config")]
pub enum EncoderSection {
    /// tau_theta by its class.
    Encoder(EncoderConfig),
    /// `__is_first_stage__`: E encodes a picture.
    FirstStage,
    /// A list of two, which is ours: one for each of two conditions (`conditioning_key: hybrid`).
    Both(Box<[EncoderSection; 2]>),
}

/// tau_theta.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// `target` and `params`.
    pub stage: CondStageConfig,
    /// `params.vocab_file`, which is ours: the WordPiece vocabulary of a `BERTEmbedder`, one piece a line (not given:
    /// bert-base-uncased's 30,522).
    pub vocab_file: Option<PathBuf>,
    /// `params.ckpt_path`, which is ours: the encoder's weights. A whole model's file, or one with CompVis' names; CLIP's
    /// also with transformers' or OpenAI's, a `BERTEmbedder`'s with diffusers'.
    pub ckpt_path: Option<PathBuf>,
}

impl EncoderConfig {
    /// The encoder with fresh weights, and with its tokenizer.
    fn init(&self, device: &Device) -> Result<CondStage, RunError> {
        Ok(match (self.stage.init(device)?, &self.stage, &self.vocab_file) {
            (CondStage::BertEmbedder(embedder), CondStageConfig::BertEmbedder(config), Some(file)) => {
                let tokenizer = BertTokenizer::from_file(file, config.max_seq_len);
                let tokenizer = Arc::new(tokenizer.map_err(ConditioningError::from)?);
                let embedder = embedder.with_tokenizer(tokenizer).map_err(ConditioningError::from)?;
                CondStage::BertEmbedder(embedder)
            }
            (stage, ..) => stage,
        })
    }
}

impl DiffusionConfig {
    /// tau_theta as training starts with it: with the weights of its own `ckpt_path`, else of the model's, else fresh
    /// ones. `None` for an unconditional model.
    ///
    /// # Errors
    ///
    /// A config that can't be built, a vocabulary that can't be read or doesn't fit, weights that are missing, which are
    /// named; [`RunError::NoWeights`] for one that has parameters, stays frozen and has no file.
    pub fn tau(&self, device: &Device) -> Result<Option<CondStage>, RunError> {
        let Some(section) = &self.cond_stage else { return Ok(None) };
        let model = match &self.ckpt_path {
            Some(path) => Some(WeightFile::open(path)?),
            None => None,
        };
        Ok(Some(self.encoder(section, weights::TAU.into(), model.as_ref(), device)?))
    }

    fn encoder(
        &self,
        section: &EncoderSection,
        prefix: String,
        model: Option<&WeightFile>,
        device: &Device,
    ) -> Result<CondStage, RunError> {
        let config = match section {
            EncoderSection::FirstStage => return Ok(CondStage::identity()),
            EncoderSection::Both(both) => {
                let [first, second] = &**both;
                let first = self.encoder(first, format!("{prefix}0."), model, device)?;
                return Ok(CondStage::hybrid(
                    first,
                    self.encoder(second, format!("{prefix}1."), model, device)?,
                ));
            }
            EncoderSection::Encoder(config) => config,
        };
        let stage = config.init(device)?;
        match (&config.ckpt_path, model) {
            _ if names(&stage).is_empty() => Ok(stage),
            (Some(path), _) => weights::encoder(stage, path),
            (None, Some(file)) => weights::encoder_of_model(stage, file, &prefix),
            (None, None) if self.cond_stage_trainable => Ok(stage),
            (None, None) => Err(RunError::NoWeights { what: stage.name() }),
        }
    }
}
