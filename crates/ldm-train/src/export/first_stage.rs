use std::path::Path;

use burn::tensor::{DType, Device};
use ldm_nn::weights::{Loader, WeightError, WeightFile, save_safetensors};
use ldm_vae::{FirstStage, FirstStageConfig, LatentScaling, Naming, WeightNames};
use serde_json::{Value, json};

use super::{create, write_json, write_yaml};
use crate::RunError;

/// What stands before a first stage's names in a whole model's file.
const PREFIX: &str = "first_stage_model.";

/// Reads a first stage's weights: CompVis' or diffusers' names, alone or in a whole model's file.
///
/// # Errors
///
/// A config that can't be built; a file that can't be read, or holds no first stage of this config.
pub fn load_first_stage(
    config: &FirstStageConfig,
    path: &Path,
    device: &Device,
) -> Result<FirstStage, RunError> {
    let model = config.init(device)?;
    if let FirstStage::Identity(_) = model {
        return Ok(model);
    }
    let file = WeightFile::open(path)?;
    let names = || file.tensors().map(|tensor| tensor.name.as_str());
    let wrong = || WeightError::WrongFormat { path: path.into(), what: "it holds no first stage".into() };
    let naming = Naming::detect(names()).ok_or_else(wrong)?;
    let prefix = if names().any(|name| name.starts_with(PREFIX)) { PREFIX } else { "" };
    let names = weight_names(&model, naming)?;
    let (model, _) = Loader::new(&names).prefix(prefix).load(model, &file)?;
    Ok(model)
}

/// Whether [`save_first_stage`] can write all of it: to be asked before days of training.
///
/// # Errors
///
/// What CompVis' YAML or diffusers' config can't express.
pub fn check_first_stage(model: &FirstStage) -> Result<(), RunError> {
    compvis(&model.config())?;
    vae_config(&model.config())?;
    Ok(())
}

/// Writes a first stage as `folder/model.safetensors` and `folder/model.yaml`, CompVis' names and config, and as
/// `folder/vae/`, diffusers' folder.
///
/// # Errors
///
/// What can't be written, and what diffusers' config can't express.
pub fn save_first_stage(model: &FirstStage, folder: &Path, dtype: DType) -> Result<(), RunError> {
    create(folder)?;
    let names = weight_names(model, Naming::CompVis)?;
    save_safetensors(model, &names, folder.join("model.safetensors"), dtype)?;
    write_yaml(&folder.join("model.yaml"), &json!({ "model": compvis(&model.config())? }))?;
    save_vae(model, None, &folder.join("vae"), dtype)?;
    Ok(())
}

/// Writes diffusers' folder of a first stage, with `scaling` in its config; gives the class.
pub(super) fn save_vae(
    model: &FirstStage,
    scaling: Option<LatentScaling>,
    folder: &Path,
    dtype: DType,
) -> Result<&'static str, RunError> {
    create(folder)?;
    let config = match scaling {
        Some(scaling) => model.config().with_scaling(scaling),
        None => model.config(),
    };
    let (class, json) = vae_config(&config)?;
    write_json(&folder.join("config.json"), &json)?;
    let names = weight_names(model, Naming::Diffusers)?;
    save_safetensors(model, &names, folder.join("diffusion_pytorch_model.safetensors"), dtype)?;
    Ok(class)
}

/// The class that diffusers has for a first stage, and its config.
pub(super) fn vae_config(config: &FirstStageConfig) -> Result<(&'static str, Value), RunError> {
    Ok(match config {
        FirstStageConfig::Kl(config) => ("AutoencoderKL", json!(config.to_diffusers()?)),
        FirstStageConfig::Vq(config) => ("VQModel", json!(config.to_diffusers()?)),
        FirstStageConfig::Identity(..) => {
            return Err(RunError::Inexpressible { format: "diffusers", what: "the identity first stage" });
        }
    })
}

/// `model` of the reference's YAML, with no loss: that of a first stage which is trained no more.
fn compvis(config: &FirstStageConfig) -> Result<Value, RunError> {
    let (class, mut params) = match config {
        FirstStageConfig::Kl(config) => {
            ("AutoencoderKL", json!({ "embed_dim": config.embed_dim, "ddconfig": config.ddconfig }))
        }
        FirstStageConfig::Vq(config) => {
            if config.remap.is_some() {
                // The reference reads the used codes from a .npy file.
                return Err(RunError::Inexpressible {
                    format: "CompVis' YAML",
                    what: "the codes of `remap`",
                });
            }
            let (embed_dim, n_embed) = (config.embed_dim, config.n_embed);
            ("VQModel", json!({ "embed_dim": embed_dim, "n_embed": n_embed, "ddconfig": config.ddconfig }))
        }
        FirstStageConfig::Identity(..) => return Err(NO_PARAMETERS),
    };
    params["lossconfig"] = json!({ "target": "torch.nn.Identity" });
    Ok(json!({ "target": format!("ldm.models.autoencoder.{class}"), "params": params }))
}

const NO_PARAMETERS: RunError = RunError::NotTrainable { what: "a first stage without parameters" };

pub(crate) fn weight_names(model: &FirstStage, naming: Naming) -> Result<WeightNames, RunError> {
    match model {
        FirstStage::Kl(model) => Ok(model.weight_names(naming)),
        FirstStage::Vq(model) => Ok(model.weight_names(naming)),
        FirstStage::Identity(_) => Err(NO_PARAMETERS),
    }
}
