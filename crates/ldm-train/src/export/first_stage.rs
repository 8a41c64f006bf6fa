use std::fs;
use std::path::Path;

use burn::tensor::{DType, Device};
use ldm_nn::weights::{Loader, WeightError, WeightFile, save_safetensors};
use ldm_vae::{FirstStage, FirstStageConfig, Naming, WeightNames};

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
    let vae = folder.join("vae");
    fs::create_dir_all(&vae).map_err(RunError::io(&vae))?;
    let compvis = weight_names(model, Naming::CompVis)?;
    let diffusers = weight_names(model, Naming::Diffusers)?;
    save_safetensors(model, &compvis, folder.join("model.safetensors"), dtype)?;
    save_safetensors(model, &diffusers, vae.join("diffusion_pytorch_model.safetensors"), dtype)?;
    let config = vae.join("config.json");
    let json = match model {
        FirstStage::Kl(model) => serde_json::to_string_pretty(&model.config().to_diffusers()?),
        FirstStage::Vq(model) => serde_json::to_string_pretty(&model.config().to_diffusers()?),
        FirstStage::Identity(_) => return Err(NO_PARAMETERS),
    };
    let json = json.map_err(|e| RunError::checkpoint(&config, e))?;
    fs::write(&config, json).map_err(RunError::io(&config))
}

const NO_PARAMETERS: RunError = RunError::NotTrainable { what: "a first stage without parameters" };

pub(crate) fn weight_names(model: &FirstStage, naming: Naming) -> Result<WeightNames, RunError> {
    match model {
        FirstStage::Kl(model) => Ok(model.weight_names(naming)),
        FirstStage::Vq(model) => Ok(model.weight_names(naming)),
        FirstStage::Identity(_) => Err(NO_PARAMETERS),
    }
}
