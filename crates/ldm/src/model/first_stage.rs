//! First stages as the reference's YAML describes them and its checkpoints hold them.

use std::path::Path;

use ldm_nn::weights::WeightFile;
use ldm_vae::{FirstStage, FirstStageConfig, LatentScaling, Naming, UsedCodes, WeightNames};
use npyz::NpyFile;
use serde::de::DeserializeOwned;

use super::LoadOptions;
use super::ema::EmaKeys;
use super::single_file::{VAE, prefix, read as read_module, unsupported};
use super::yaml::Target;
use crate::Error;

/// The config of a first stage by its class; `scale_factor` is the diffusion model's.
pub(crate) fn config(yaml: &Path, target: &Target, scale_factor: f64) -> Result<FirstStageConfig, Error> {
    let config = match target.class() {
        "AutoencoderKL" | "AutoencoderKLInferenceWrapper" => FirstStageConfig::Kl(params(yaml, target)?),
        "VQModel" | "VQModelInterface" => FirstStageConfig::Vq(params(yaml, target)?),
        "IdentityFirstStage" => FirstStageConfig::Identity(3, LatentScaling::default()),
        _ => return Err(unsupported(yaml, &format!("the first stage `{}`", target.target))),
    };
    Ok(config.with_scaling(LatentScaling::factor(scale_factor)))
}

fn params<T: DeserializeOwned>(yaml: &Path, target: &Target) -> Result<T, Error> {
    serde_path_to_error::deserialize(&target.params)
        .map_err(|e| Error::config(yaml, format!("{}: {e}", target.target)))
}

/// Whether the first stage's own average is asked for: `use_ema` of `VQModel`, false by default.
pub(super) fn uses_ema(target: &Target, options: &LoadOptions) -> bool {
    let own = target.params.get("use_ema").and_then(serde_json::Value::as_bool);
    options.use_ema.unwrap_or(own.unwrap_or(false))
}

/// Loads a first stage from a file of its own or of a whole model. `yaml` is what errors about the config name;
/// `ema` asks for averaged weights, which are taken if they are there.
pub(crate) fn read(
    file: &WeightFile,
    yaml: &Path,
    mut config: FirstStageConfig,
    ema: bool,
    options: &LoadOptions,
) -> Result<FirstStage, Error> {
    let prefix = prefix(file, &[VAE, ""], "encoder.conv_in.weight");
    if let FirstStageConfig::Vq(vq) = &mut config
        && let Some(UsedCodes::File(name)) = &vq.remap
    {
        vq.remap = Some(UsedCodes::Indices(used_codes(file, yaml, prefix, name)?));
    }
    let stage = config.init(&options.device).map_err(|e| Error::config(yaml, e))?;
    if let FirstStage::Identity(_) = stage {
        return Ok(stage);
    }
    let names = stage.weight_names(Naming::CompVis);
    let dtype = options.vae_dtype(config.force_upcast());
    let averaged = EmaKeys::<WeightNames>::PREFIX;
    if ema && file.tensors().any(|t| t.name.starts_with(averaged)) {
        // The plain weights lie beside it, so what is not asked for says nothing here.
        return read_module(file, averaged, stage, &EmaKeys::first_stage(names), dtype, &["*"]);
    }
    read_module(file, prefix, stage, &names, dtype, &["quantize.used", "colorize"])
}

/// The codes that a remapped model uses: the checkpoint's buffer, else the file that the YAML names, looked for
/// as it stands and beside the YAML.
fn used_codes(file: &WeightFile, yaml: &Path, prefix: &str, name: &str) -> Result<Vec<i64>, Error> {
    let key = format!("{prefix}quantize.used");
    if file.contains(&key) {
        return Ok(file.read_i64(&key)?.1);
    }
    let beside = yaml.with_file_name(name);
    let path = if Path::new(name).is_file() { Path::new(name) } else { &beside };
    let opened = || -> std::io::Result<Vec<i64>> {
        let npy = NpyFile::new(std::io::BufReader::new(std::fs::File::open(path)?))?;
        match npy.try_data::<i64>() {
            Ok(values) => values.collect(),
            Err(npy) => {
                npy.data::<i32>().map_err(std::io::Error::other)?.map(|value| value.map(i64::from)).collect()
            }
        }
    };
    opened().map_err(|e| Error::config(yaml, format!("remap: {}: {e}", path.display())))
}
