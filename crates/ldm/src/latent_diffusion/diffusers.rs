//! The directories that diffusers' latent diffusion pipelines save.

use std::path::Path;
use std::sync::Arc;

use ldm_conditioning::bert::{BertEmbedderConfig, BertKeys, BertTokenizer};
use ldm_conditioning::{CondStage, ConditioningError};
use ldm_scheduler::SchedulerConfig;
use ldm_vae::LatentScaling;
use serde_json::Value;

use super::LatentDiffusion;
use crate::Error;
use crate::model::{
    ConditioningKey, LoadOptions, ModelIndex, load_file, load_first_stage, load_scheduler, load_unet,
    part_folder, part_json, part_weights,
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
        Some(ConditioningKey::CrossAttn) => Some(bert(directory, options)?),
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

/// `bert/` and `tokenizer/`.
fn bert(directory: &Path, options: &LoadOptions) -> Result<CondStage, Error> {
    let json: Value = part_json(directory, "bert", "config.json")?;
    let path = directory.join("bert/config.json");
    let config = BertEmbedderConfig::from_diffusers(&json).map_err(|e| Error::config(&path, e))?;
    let tokenizer = BertTokenizer::from_dir(part_folder(directory, "tokenizer")?, config.max_seq_len);
    let tokenizer = Arc::new(tokenizer.map_err(ConditioningError::from)?);
    let embedder = config.init(&options.device).map_err(|e| Error::config(&path, e))?;
    let embedder = embedder.with_tokenizer(tokenizer).map_err(ConditioningError::from)?;
    let file = part_weights(directory, "bert", options.variant.as_deref())?;
    let embedder = load_file(&file, "bert", embedder, &BertKeys::Diffusers, options.dtype)?;
    Ok(CondStage::BertEmbedder(embedder))
}
