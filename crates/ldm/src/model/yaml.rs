//! The reference's YAML: `target` names and their parameters.

use std::path::Path;

use ldm_nn::ConditioningKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// An object that the reference makes by name: `target` and the arguments of its constructor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// A Python class, `ldm.models.autoencoder.AutoencoderKL`.
    pub target: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

impl Target {
    /// The class of this name, with its arguments.
    pub fn new(target: impl Into<String>, params: Value) -> Self {
        Self { target: target.into(), params }
    }

    /// The class without its module.
    pub fn class(&self) -> &str {
        self.target.rsplit('.').next().unwrap_or(&self.target)
    }
}

/// `cond_stage_config`: an encoder, or a name that stands for something else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a class with its `target`, or a name")]
pub enum CondStageTarget {
    /// tau_theta.
    Encoder(Target),
    /// `__is_first_stage__` (E encodes the condition too) or `__is_unconditional__`.
    Name(String),
}

/// `model.params` of a latent diffusion YAML: CompVis' `LatentDiffusion`, Stability's `DiffusionEngine`.
///
/// Absent keys are the defaults of `DDPM.__init__` and `LatentDiffusion.__init__` in the reference's `ddpm.py`; keys
/// of training that change no picture (`monitor`, `log_every_t`, ...) are read over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatentDiffusionConfig {
    /// The first beta.
    #[serde(default = "defaults::linear_start")]
    pub linear_start: f64,
    /// The last beta.
    #[serde(default = "defaults::linear_end")]
    pub linear_end: f64,
    /// In the reference's words: `linear`, `sqrt_linear`, `cosine`.
    #[serde(default = "defaults::beta_schedule")]
    pub beta_schedule: String,
    /// Steps of the diffusion.
    #[serde(default = "defaults::timesteps")]
    pub timesteps: usize,
    /// `eps`, `x0` or `v`.
    #[serde(default = "defaults::parameterization")]
    pub parameterization: String,
    /// `l1` or `l2`.
    #[serde(default = "defaults::loss_type")]
    pub loss_type: String,
    /// What the first stage's latents are multiplied by.
    #[serde(default = "defaults::scale_factor")]
    pub scale_factor: f64,
    /// Whether training measured `scale_factor` (1 / the latents' standard deviation); the checkpoint has it then.
    #[serde(default)]
    pub scale_by_std: bool,
    /// Whether the U-Net's EMA weights are the ones to sample with.
    #[serde(default = "defaults::yes")]
    pub use_ema: bool,
    /// The key of the pictures in a batch of training data.
    #[serde(default = "defaults::image")]
    pub first_stage_key: String,
    /// The key of the conditions.
    #[serde(default = "defaults::image")]
    pub cond_stage_key: String,
    /// Whether tau_theta is trained with the U-Net.
    #[serde(default)]
    pub cond_stage_trainable: bool,
    /// What no `conditioning_key` means: `concat`, or else `crossattn`.
    #[serde(default = "defaults::yes")]
    pub concat_mode: bool,
    /// How the condition reaches the U-Net; see [`conditioning`](Self::conditioning).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditioning_key: Option<ConditioningKey>,
    /// Side of the latent. (The U-Net's own `image_size` is Stable Diffusion's "32 # unused".)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// Channels of the latent (`DDPM.__init__`'s default is 3).
    #[serde(default = "defaults::channels")]
    pub channels: usize,
    /// The U-Net; Stability calls it `network_config`.
    #[serde(alias = "network_config")]
    pub unet_config: Target,
    /// E and D; absent for a `DDPM` on the pixels themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_stage_config: Option<Target>,
    /// tau_theta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cond_stage_config: Option<CondStageTarget>,
    /// Stability's list of encoders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditioner_config: Option<Target>,
    /// Stability keeps the prediction in here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denoiser_config: Option<Target>,
    /// Betas given one by one: not supported, so an error if it is there.
    #[serde(default, skip_serializing)]
    given_betas: Value,
}

mod defaults {
    pub fn linear_start() -> f64 {
        1e-4
    }
    pub fn linear_end() -> f64 {
        2e-2
    }
    pub fn beta_schedule() -> String {
        "linear".into()
    }
    pub fn timesteps() -> usize {
        1000
    }
    pub fn parameterization() -> String {
        "eps".into()
    }
    pub fn loss_type() -> String {
        "l2".into()
    }
    pub fn scale_factor() -> f64 {
        1.0
    }
    pub fn yes() -> bool {
        true
    }
    pub fn image() -> String {
        "image".into()
    }
    pub fn channels() -> usize {
        3
    }
}

/// What a YAML describes.
pub(crate) enum Described {
    /// A first stage alone.
    FirstStage(Target),
    /// A diffusion model with all its parts.
    Diffusion(Box<LatentDiffusionConfig>),
}

/// The classes of a whole model, and of a first stage alone.
const DIFFUSION: [&str; 6] = [
    "LatentDiffusion",
    "Layout2ImgDiffusion",
    "LatentInpaintDiffusion",
    "LatentFinetuneDiffusion",
    "DDPM",
    "DiffusionEngine",
];
const FIRST_STAGES: [&str; 5] =
    ["AutoencoderKL", "AutoencoderKLInferenceWrapper", "VQModel", "VQModelInterface", "IdentityFirstStage"];

impl Described {
    /// Reads a YAML file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Self::parse(&text, path)
    }

    /// Reads a YAML document; errors name `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Document {
            model: Target,
        }
        let Document { model } = serde_yaml_ng::from_str(text).map_err(|e| Error::config(path, e))?;
        if FIRST_STAGES.contains(&model.class()) {
            return Ok(Self::FirstStage(model));
        }
        if !DIFFUSION.contains(&model.class()) {
            return Err(Error::Unsupported {
                path: path.into(),
                what: format!("the model `{}`", model.target),
                supported: [&DIFFUSION[..], &FIRST_STAGES[..]].concat().join(", "),
            });
        }
        let config: LatentDiffusionConfig = serde_path_to_error::deserialize(model.params)
            .map_err(|e| Error::config(path, format!("model.params of `{}`: {e}", model.target)))?;
        if !config.given_betas.is_null() {
            return Err(Error::config(path, "`given_betas` is not supported"));
        }
        Ok(Self::Diffusion(Box::new(config)))
    }
}

impl LatentDiffusionConfig {
    /// A model of these parts, every other key its default.
    pub fn new(unet_config: Target, first_stage_config: Option<Target>, cond_stage: CondStageTarget) -> Self {
        Self {
            linear_start: defaults::linear_start(),
            linear_end: defaults::linear_end(),
            beta_schedule: defaults::beta_schedule(),
            timesteps: defaults::timesteps(),
            parameterization: defaults::parameterization(),
            loss_type: defaults::loss_type(),
            scale_factor: defaults::scale_factor(),
            scale_by_std: false,
            use_ema: true,
            first_stage_key: defaults::image(),
            cond_stage_key: defaults::image(),
            cond_stage_trainable: false,
            concat_mode: true,
            conditioning_key: None,
            image_size: None,
            channels: defaults::channels(),
            unet_config,
            first_stage_config,
            cond_stage_config: Some(cond_stage),
            conditioner_config: None,
            denoiser_config: None,
            given_betas: Value::Null,
        }
    }

    /// Reads `model` of a YAML document: the reference's own files as they are.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no such document, [`Error::Unsupported`] for a model class that is not
    /// known here; both name it and `path`.
    pub fn from_yaml(text: &str, path: &Path) -> Result<Self, Error> {
        match Described::parse(text, path)? {
            Described::Diffusion(config) => Ok(*config),
            Described::FirstStage(target) => {
                let reason = format!("`{}` is a first stage, not a whole model", target.target);
                Err(Error::config(path, reason))
            }
        }
    }

    /// The YAML document that the reference's code reads.
    ///
    /// # Errors
    /// [`Error::Config`], which a config that was read or made here does not give.
    pub fn to_yaml(&self) -> Result<String, Error> {
        let params = serde_json::to_value(self).map_err(|e| Error::config("config.yaml", e))?;
        let model = Target::new("ldm.models.diffusion.ddpm.LatentDiffusion", params);
        serde_yaml_ng::to_string(&serde_json::json!({ "model": model }))
            .map_err(|e| Error::config("config.yaml", e))
    }

    /// How the condition reaches the U-Net; `None` for an unconditional model.
    ///
    /// Without a key, and not unconditional, it is `concat` unless `concat_mode` is false (`LatentDiffusion.__init__`).
    pub fn conditioning(&self) -> Option<ConditioningKey> {
        let unconditional = match &self.cond_stage_config {
            None => true,
            Some(CondStageTarget::Name(name)) => name == UNCONDITIONAL,
            Some(CondStageTarget::Encoder(_)) => false,
        };
        if unconditional {
            return None;
        }
        let old = if self.concat_mode { ConditioningKey::Concat } else { ConditioningKey::CrossAttn };
        Some(self.conditioning_key.unwrap_or(old))
    }

    /// The prediction in diffusers' words.
    pub(crate) fn prediction_type(&self, path: &Path) -> Result<&'static str, Error> {
        let scaling = self.denoiser_config.as_ref().and_then(|d| d.params.get("scaling_config"));
        let scaling = scaling.and_then(|s| s.get("target")).and_then(Value::as_str);
        let named = match scaling {
            Some(scaling) => scaling.rsplit('.').next().unwrap_or(scaling),
            None => self.parameterization.as_str(),
        };
        match named {
            "eps" | "EpsScaling" | "DiscreteEpsScaling" => Ok("epsilon"),
            "v" | "VScaling" => Ok("v_prediction"),
            "x0" => Ok("sample"),
            other => Err(Error::config(path, format!("the parameterization `{other}` is not supported"))),
        }
    }
}

/// The names that stand in the place of a `cond_stage_config`.
pub(crate) const UNCONDITIONAL: &str = "__is_unconditional__";
pub(crate) const FIRST_STAGE: &str = "__is_first_stage__";
