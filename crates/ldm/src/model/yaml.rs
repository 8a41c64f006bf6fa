//! The reference's YAML: `target` names and their parameters.

use std::path::Path;

use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::Error;

/// An object that the reference makes by name: `target` and the arguments of its constructor.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Target {
    /// A Python class, `ldm.models.autoencoder.AutoencoderKL`.
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

    /// The arguments as JSON, in which the models' configs are read.
    pub fn json(&self, path: &Path) -> Result<serde_json::Value, Error> {
        serde_json::to_value(&self.params).map_err(|e| Error::config(path, format!("{}: {e}", self.target)))
    }
}

/// `model.params` of a latent diffusion YAML: CompVis' `LatentDiffusion`, Stability's `DiffusionEngine`.
///
/// Absent keys are the defaults of `DDPM.__init__` and `LatentDiffusion.__init__` in the reference's `ddpm.py`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelParams {
    #[serde(default = "defaults::linear_start")]
    pub linear_start: f64,
    #[serde(default = "defaults::linear_end")]
    pub linear_end: f64,
    #[serde(default = "defaults::beta_schedule")]
    pub beta_schedule: String,
    #[serde(default = "defaults::timesteps")]
    pub timesteps: usize,
    #[serde(default = "defaults::parameterization")]
    pub parameterization: String,
    #[serde(default = "defaults::scale_factor")]
    pub scale_factor: f64,
    #[serde(default = "defaults::use_ema")]
    pub use_ema: bool,
    /// Side of the latent. (The U-Net's own `image_size` is Stable Diffusion's "32 # unused".)
    pub image_size: Option<usize>,
    /// The U-Net; Stability calls it `network_config`.
    #[serde(alias = "network_config")]
    pub unet_config: Target,
    pub first_stage_config: Target,
    /// The text encoder, or a name that stands for none (`__is_unconditional__`).
    pub cond_stage_config: Option<CondStage>,
    /// Stability's list of encoders.
    pub conditioner_config: Option<Target>,
    /// Stability keeps the prediction in here.
    pub denoiser_config: Option<Target>,
}

/// The conditioning stage.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum CondStage {
    Encoder(Target),
    Name(String),
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
    pub fn scale_factor() -> f64 {
        1.0
    }
    pub fn use_ema() -> bool {
        true
    }
}

/// What a YAML describes.
pub(super) enum Described {
    /// A first stage alone.
    FirstStage(Target),
    /// A diffusion model with all its parts.
    Diffusion(Box<ModelParams>),
}

impl Described {
    /// Reads a YAML file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Document {
            model: Target,
        }
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let Document { model } = serde_yaml_ng::from_str(&text).map_err(|e| Error::config(path, e))?;
        if model.class() == "AutoencoderKL" {
            return Ok(Self::FirstStage(model));
        }
        match serde_yaml_ng::from_value(model.params) {
            Ok(params) => Ok(Self::Diffusion(Box::new(params))),
            Err(e) => Err(Error::config(path, format!("model.params of `{}`: {e}", model.target))),
        }
    }
}

impl ModelParams {
    /// The prediction in diffusers' words.
    pub fn prediction_type(&self, path: &Path) -> Result<&'static str, Error> {
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
