//! What the `target`s of a YAML become here.

use std::path::Path;

use ldm_unet::UNetConfig;
use ldm_vae::{FirstStageConfig, LatentScaling};

use crate::model::first_stage;
use crate::{Error, LatentDiffusionConfig};

/// The U-Net of a config; errors name `path`.
pub(crate) fn unet(config: &LatentDiffusionConfig, path: &Path) -> Result<UNetConfig, Error> {
    let target = &config.unet_config;
    if target.class() != "UNetModel" {
        return Err(Error::Unsupported {
            path: path.into(),
            what: format!("the U-Net `{}`", target.target),
            supported: "UNetModel is".into(),
        });
    }
    let unet = UNetConfig::from_compvis(&target.params).map_err(|e| Error::config(path, e))?;
    Ok(UNetConfig { sample_size: config.image_size.map(|side| [side; 2]), ..unet })
}

/// The first stage of a config, with this scale factor.
pub(crate) fn first_stage(
    config: &LatentDiffusionConfig,
    scale_factor: f64,
    path: &Path,
) -> Result<FirstStageConfig, Error> {
    // A DDPM on the pixels themselves has none.
    let first = match &config.first_stage_config {
        Some(target) => first_stage::config(path, target, scale_factor)?,
        None => FirstStageConfig::Identity(config.channels, LatentScaling::factor(scale_factor)),
    };
    Ok(first.for_channels(config.channels))
}
