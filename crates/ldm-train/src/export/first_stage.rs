use std::path::Path;

use burn::tensor::{DType, Device};
use ldm_nn::weights::{Loader, WeightError, WeightFile, save_safetensors};
use ldm_vae::{FirstStage, FirstStageConfig, LatentScaling, Naming, WeightNames};

use super::{create, write_json};
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

/// Writes a first stage as `folder/model.safetensors` with CompVis' names and as `folder/vae/`, diffusers' folder.
///
/// # Errors
///
/// What can't be written, and what diffusers' config can't express.
pub fn save_first_stage(model: &FirstStage, folder: &Path, dtype: DType) -> Result<(), RunError> {
    create(folder)?;
    let names = weight_names(model, Naming::CompVis)?;
    save_safetensors(model, &names, folder.join("model.safetensors"), dtype)?;
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
    let (class, json) = match &config {
        FirstStageConfig::Kl(config) => ("AutoencoderKL", serde_json::to_value(config.to_diffusers()?)),
        FirstStageConfig::Vq(config) => ("VQModel", serde_json::to_value(config.to_diffusers()?)),
        FirstStageConfig::Identity(..) => {
            return Err(RunError::Inexpressible { format: "diffusers", what: "the identity first stage" });
        }
    };
    let path = folder.join("config.json");
    write_json(&path, &json.map_err(|e| RunError::checkpoint(&path, e))?)?;
    let names = weight_names(model, Naming::Diffusers)?;
    save_safetensors(model, &names, folder.join("diffusion_pytorch_model.safetensors"), dtype)?;
    Ok(class)
}

const NO_PARAMETERS: RunError = RunError::NotTrainable { what: "a first stage without parameters" };

pub(crate) fn weight_names(model: &FirstStage, naming: Naming) -> Result<WeightNames, RunError> {
    match model {
        FirstStage::Kl(model) => Ok(model.weight_names(naming)),
        FirstStage::Vq(model) => Ok(model.weight_names(naming)),
        FirstStage::Identity(_) => Err(NO_PARAMETERS),
    }
}
