//! The directories that diffusers' latent diffusion pipelines save.

use std::path::Path;

use ldm_conditioning::CondStage;
use ldm_scheduler::SchedulerConfig;
use ldm_vae::LatentScaling;

use super::LatentDiffusion;
use crate::Error;
use crate::model::{
    ConditioningKey, LoadOptions, ModelIndex, load_bert, load_first_stage, load_scheduler, load_unet,
};

/// The pipelines, and how each takes its condition.
const PIPELINES: [(&str, Option<ConditioningKey>); 3] = [
    ("LDMTextToImagePipeline", Some(ConditioningKey::CrossAttn)),
    ("LDMSuperResolutionPipeline", Some(ConditioningKey::Concat)),
    ("LDMPipeline", None),
];

pub(super) fn load(directory: &Path, options: &LoadOptions) -> Result<LatentDiffusion, Error> {
    let index = ModelIndex::read(directory)?;
    let Some((_, key)) = PIPELINES.iter().find(|(name, _)| *name == index.class_name) else {
        return Err(Error::Unsupported {
            path: directory.join("model_index.json"),
            what: format!("the pipeline class `{}`", index.class_name),
            supported: PIPELINES.map(|(name, _)| name).join(", "),
        });
    };
    let scheduler: SchedulerConfig = load_scheduler(directory)?;
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
