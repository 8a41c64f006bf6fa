//! A text-to-image model as the directory of a diffusers pipeline.

use std::path::Path;

use burn::tensor::DType;
use ldm_scheduler::SamplerKind;
use ldm_vae::Naming;
use serde_json::{Value, json};

use super::StableDiffusion;
use super::index::Family;
use super::writer::DirectoryWriter;
use crate::Error;
use crate::pipeline::TextEncoder;

/// Writes every part; each file is whole or absent.
pub(super) fn save(
    model: &StableDiffusion,
    directory: &Path,
    dtype: DType,
    observer: &mut dyn FnMut(&Path, usize, usize),
) -> Result<(), Error> {
    let kind = model.scheduler.kind()?;
    let mut writer = DirectoryWriter::new(directory, dtype, observer);
    writer.unet(&model.unet, model.unet.config())?;
    // What diffusers calls a first stage's folder.
    let vae = if model.family == Family::LatentDiffusion { "vqvae" } else { "vae" };
    let config = json!(model.vae.config().to_diffusers()?);
    let names = model.vae.weight_names(Naming::Diffusers);
    writer.part(vae, ["diffusers", "AutoencoderKL"], &config, &model.vae, &names)?;
    match &model.text.first {
        TextEncoder::Bert(bert) => writer.bert(bert)?,
        TextEncoder::Clip(text) => writer.clip(text, ["text_encoder", "tokenizer"], "CLIPTextModel")?,
    }
    if let Some(text) = &model.text.second {
        writer.clip(text, ["text_encoder_2", "tokenizer_2"], "CLIPTextModelWithProjection")?;
    }
    writer.scheduler(kind, &model.scheduler)?;
    writer.finish(pipeline(model, kind), settings(model))
}

/// The class of diffusers that runs the model.
fn pipeline(model: &StableDiffusion, kind: SamplerKind) -> &'static str {
    let unet = model.unet.config();
    let inpaints = unet.in_channels > model.vae.config().embed_dim;
    // The latent consistency pipeline embeds the guidance scale always and hands its scheduler what only LCM's takes;
    // the others run such a U-Net with any sampler.
    let consistent = unet.time_cond_proj_dim.is_some() && kind == SamplerKind::Lcm;
    match model.family {
        Family::LatentDiffusion => "LDMTextToImagePipeline",
        Family::StableDiffusion if inpaints => "StableDiffusionInpaintPipeline",
        Family::StableDiffusion if consistent => "LatentConsistencyModelPipeline",
        Family::StableDiffusion => "StableDiffusionPipeline",
        Family::StableDiffusionXl if inpaints => "StableDiffusionXLInpaintPipeline",
        Family::StableDiffusionXl => "StableDiffusionXLPipeline",
    }
}

/// What the pipeline is told beside its parts, and the parts that it does without.
fn settings(model: &StableDiffusion) -> Vec<(&'static str, Value)> {
    let absent = json!([null, null]);
    match model.family {
        Family::LatentDiffusion => vec![],
        Family::StableDiffusion => vec![
            ("safety_checker", absent.clone()),
            ("feature_extractor", absent.clone()),
            ("image_encoder", absent),
            ("requires_safety_checker", json!(false)),
        ],
        Family::StableDiffusionXl => vec![
            ("feature_extractor", absent.clone()),
            ("image_encoder", absent),
            ("force_zeros_for_empty_prompt", json!(model.text.zeros_for_no_negative)),
        ],
    }
}
