//! The directories that diffusers' latent diffusion pipelines save: read, and written so that they read them back.

use std::path::Path;

use burn::tensor::DType;
use ldm_conditioning::CondStage;
use ldm_scheduler::SchedulerConfig;
use ldm_unet::{DiffusersClass, UNetConfig};
use ldm_vae::{FirstStageConfig, LatentScaling, Naming};
use serde_json::{Value, json};

use super::LatentDiffusion;
use crate::Error;
use crate::model::{
    ConditioningKey, DirectoryWriter, LoadOptions, ModelIndex, load_bert, load_first_stage, load_scheduler,
    load_unet,
};

const TEXT_TO_IMAGE: &str = "LDMTextToImagePipeline";
const SUPER_RESOLUTION: &str = "LDMSuperResolutionPipeline";
const UNCONDITIONAL: &str = "LDMPipeline";

/// The pipelines, and how each takes its condition.
const PIPELINES: [(&str, Option<ConditioningKey>); 3] = [
    (TEXT_TO_IMAGE, Some(ConditioningKey::CrossAttn)),
    (SUPER_RESOLUTION, Some(ConditioningKey::Concat)),
    (UNCONDITIONAL, None),
];

pub(super) fn load(directory: &Path, options: &LoadOptions) -> Result<LatentDiffusion, Error> {
    let index = ModelIndex::read(directory)?;
    let Some((_, key)) = PIPELINES.iter().find(|(name, _)| *name == index.class_name) else {
        let what = format!("the pipeline class `{}`", index.class_name);
        return Err(unsupported(&directory.join("model_index.json"), what));
    };
    let scheduler: SchedulerConfig = load_scheduler(directory, &index)?;
    let cond_stage = match key {
        Some(ConditioningKey::CrossAttn) => Some(CondStage::BertEmbedder(load_bert(directory, options)?)),
        Some(_) => Some(CondStage::identity()),
        None => None,
    };
    let first_stage = load_first_stage(directory, options)?;
    let scaling = match key {
        // The super-resolution pipeline, alone of the three, leaves latents as they are.
        Some(ConditioningKey::Concat) => LatentScaling::factor(1.0),
        _ => first_stage.scaling().clone(),
    };
    let unet = load_unet(directory, options)?;
    Ok(LatentDiffusion {
        size: unet.config().sample_size.unwrap_or([64; 2]),
        unet,
        first_stage,
        scaling,
        cond_stage,
        conditioning_key: *key,
        scheduler,
        patches: None,
        config: None,
        first_stage_conditions: false,
        truncate: false,
        device: options.device.clone(),
    })
}

fn unsupported(path: &Path, what: String) -> Error {
    Error::Unsupported { path: path.into(), what, supported: PIPELINES.map(|(name, _)| name).join(", ") }
}

/// The pipeline that has this model, or what no pipeline has.
fn pipeline(model: &LatentDiffusion) -> Result<&'static str, String> {
    let class = match (model.conditioning_key, &model.cond_stage) {
        (None, _) => UNCONDITIONAL,
        (Some(ConditioningKey::CrossAttn), Some(CondStage::BertEmbedder(bert)))
            if bert.tokenizer().is_some() =>
        {
            TEXT_TO_IMAGE
        }
        (Some(ConditioningKey::Concat), Some(CondStage::Identity(_))) => {
            let (taken, latent) = (model.unet.in_channels(), model.channels());
            if taken != 2 * latent {
                return Err(format!("a U-Net of {taken} channels for latents of {latent} and a picture"));
            }
            if model.scaling != LatentScaling::factor(1.0) {
                return Err(format!("{SUPER_RESOLUTION} with scaled latents"));
            }
            SUPER_RESOLUTION
        }
        (Some(key), stage) => {
            let encoder = stage.as_ref().map_or("the first stage", CondStage::name);
            return Err(format!("a condition (`{key}`) that {encoder} encodes"));
        }
    };
    let unet = model.unet.config().diffusers_class();
    if (class == TEXT_TO_IMAGE) != (unet == DiffusersClass::UNet2DConditionModel) {
        return Err(format!("{class} with a {}", unet.name()));
    }
    Ok(class)
}

/// Writes every part; each file is whole or absent.
pub(super) fn save(model: &LatentDiffusion, directory: &Path, dtype: DType) -> Result<(), Error> {
    // What can't be written is found before anything is.
    let class = pipeline(model).map_err(|what| unsupported(directory, what))?;
    let (vae_class, vae_config) = first_stage(model, directory)?;
    let kind = model.scheduler.kind()?;
    let sized = UNetConfig { sample_size: Some(model.size), ..model.unet.config().clone() };
    let mut unobserved = |_: &Path, _: usize, _: usize| ();
    let mut writer = DirectoryWriter::new(directory, dtype, &mut unobserved);
    writer.unet(&model.unet, &sized)?;
    let names = model.first_stage.weight_names(Naming::Diffusers);
    writer.part("vqvae", ["diffusers", vae_class], &vae_config, &model.first_stage, &names)?;
    if let Some(CondStage::BertEmbedder(bert)) = &model.cond_stage {
        writer.bert(bert)?;
    }
    writer.scheduler(kind, &model.scheduler.clone().for_diffusers())?;
    writer.finish(class, vec![])
}

/// The class and the config of the first stage.
fn first_stage(model: &LatentDiffusion, directory: &Path) -> Result<(&'static str, Value), Error> {
    Ok(match model.first_stage.config().with_scaling(model.scaling.clone()) {
        FirstStageConfig::Kl(config) => ("AutoencoderKL", json!(config.to_diffusers()?)),
        FirstStageConfig::Vq(config) => ("VQModel", json!(config.to_diffusers()?)),
        FirstStageConfig::Identity(..) => {
            return Err(unsupported(directory, "diffusion of the pixels themselves".into()));
        }
    })
}
