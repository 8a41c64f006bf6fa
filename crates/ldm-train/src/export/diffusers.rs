//! A diffusion model as the directory of a diffusers pipeline.

use std::path::Path;

use burn::tensor::DType;
use ldm_conditioning::CondStage;
use ldm_conditioning::bert::BertKeys;
use ldm_nn::DIFFUSERS_VERSION;
use ldm_nn::weights::save_safetensors;
use ldm_unet::{DiffusersClass, UNetConfig};
use ldm_vae::LatentScaling;
use serde_json::{Value, json};

use super::first_stage::{save_vae, vae_config};
use super::{create, write_json};
use crate::RunError;
use crate::conditions::ConditionConfig;
use crate::config::{ConditioningKey, DiffusionConfig, EncoderSection, ModelConfig};
use crate::run::DiffusionTraining;

const FORMAT: &str = "diffusers";
const OVER_TOKENS: RunError = RunError::Inexpressible { format: FORMAT, what: "a tau_theta over tokens" };

impl DiffusionTraining {
    /// Says what keeps this model from being written by [`save_diffusers`](Self::save_diffusers): to be asked before a
    /// run.
    ///
    /// # Errors
    ///
    /// A U-Net or first stage that diffusers can't express, a tau_theta or a condition that its pipelines don't have.
    pub fn check_diffusers(&self) -> Result<(), RunError> {
        self.denoiser().model.config().to_diffusers()?;
        self.denoiser().model.config().diffusers_keys()?;
        vae_config(&self.first_stage().config())?;
        self.pipeline().map(|_| ())
    }

    /// The class of the pipeline that has this model.
    fn pipeline(&self) -> Result<&'static str, RunError> {
        let lacks = |what| RunError::Inexpressible { format: FORMAT, what };
        let (key, upscales) = match &self.config().model {
            ModelConfig::Diffusion(model) => {
                (model.conditioning_key, upscales(model, self.config().data.condition.as_ref()))
            }
            ModelConfig::FirstStage(_) => (None, false),
        };
        match &self.denoiser().cond_stage_model {
            None if key.is_some() => Err(lacks("a condition without an encoder")),
            None => Ok("LDMPipeline"),
            Some(CondStage::BertEmbedder(embedder)) if embedder.tokenizer().is_some() => {
                Ok("LDMTextToImagePipeline")
            }
            Some(CondStage::BertEmbedder(_)) => Err(OVER_TOKENS),
            Some(CondStage::Identity(_)) if upscales => {
                let unet = self.denoiser().model.config();
                if unet.in_channels != 2 * unet.out_channels {
                    return Err(lacks(
                        "super-resolution whose latents have not as many channels as pictures",
                    ));
                }
                if unet.diffusers_class() != DiffusersClass::UNet2DModel {
                    return Err(lacks("super-resolution by a U-Net with cross-attention"));
                }
                // The pipeline hands them to the decoder as they are.
                if self.objective().scale_by_std || self.scale_factor() != Some(1.0) {
                    return Err(lacks("super-resolution of scaled latents"));
                }
                Ok("LDMSuperResolutionPipeline")
            }
            Some(other) => Err(lacks(other.name())),
        }
    }

    /// Writes the directory of an `LDMTextToImagePipeline`, of an `LDMSuperResolutionPipeline` where the condition is the
    /// picture made smaller, or of an `LDMPipeline` where the model is unconditional, with the averaged U-Net where there is
    /// one. diffusers has one set of U-Net weights.
    ///
    /// # Errors
    ///
    /// What can't be written, and as [`check_diffusers`](Self::check_diffusers).
    pub fn save_diffusers(&self, folder: &Path, dtype: DType) -> Result<(), RunError> {
        self.check_diffusers()?;
        let pipeline = self.pipeline()?;
        let unet = self.average().unwrap_or(&self.denoiser().model);
        let part = folder.join("unet");
        create(&part)?;
        // A pipeline draws at this size where it is not told another.
        let config = UNetConfig { sample_size: Some(self.latent_size()), ..unet.config().clone() };
        write_json(&part.join("config.json"), &config.to_diffusers()?)?;
        let keys = unet.config().diffusers_keys()?;
        save_safetensors(unet, &keys, part.join("diffusion_pytorch_model.safetensors"), dtype)?;

        let scaling = LatentScaling::factor(self.scale_factor().unwrap_or(1.0));
        let class = save_vae(self.first_stage(), Some(scaling), &folder.join("vqvae"), dtype)?;

        let scheduler = self.scheduler()?.for_diffusers();
        let part = folder.join("scheduler");
        create(&part)?;
        let text: Value =
            serde_json::from_str(&scheduler.to_json()).map_err(|e| RunError::checkpoint(&part, e))?;
        write_json(&part.join("scheduler_config.json"), &text)?;

        let mut index = json!({
            "_class_name": pipeline,
            "_diffusers_version": DIFFUSERS_VERSION,
            "scheduler": ["diffusers", "DDIMScheduler"],
            "unet": ["diffusers", unet.config().diffusers_class().name()],
            "vqvae": ["diffusers", class],
        });
        if let Some(CondStage::BertEmbedder(embedder)) = &self.denoiser().cond_stage_model {
            let part = folder.join("bert");
            create(&part)?;
            write_json(&part.join("config.json"), &Value::Object(embedder.config().to_diffusers()))?;
            save_safetensors(embedder, &BertKeys::Diffusers, part.join("model.safetensors"), dtype)?;
            let tokenizer = embedder.tokenizer().ok_or(OVER_TOKENS)?;
            tokenizer.save(folder.join("tokenizer")).map_err(|e| RunError::Condition(e.into()))?;
            index["bert"] = json!(["latent_diffusion", "LDMBertModel"]);
            index["tokenizer"] = json!(["transformers", "BertTokenizer"]);
        }
        write_json(&folder.join("model_index.json"), &index)
    }
}

/// Whether the condition is the picture made smaller, which is joined to the latent as it is.
fn upscales(model: &DiffusionConfig, given: Option<&ConditionConfig>) -> bool {
    let smaller = match given {
        Some(given) => {
            matches!(given, ConditionConfig::LowResolution { .. } | ConditionConfig::Degraded { .. })
        }
        None => model.cond_stage_key.as_deref() == Some("LR_image"),
    };
    smaller
        && model.conditioning_key == Some(ConditioningKey::Concat)
        && matches!(model.cond_stage, Some(EncoderSection::Encoder(_)))
}
