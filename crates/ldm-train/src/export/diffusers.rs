//! A diffusion model as the directory of a diffusers pipeline.

use std::path::Path;

use burn::tensor::DType;
use ldm_conditioning::CondStage;
use ldm_conditioning::bert::BertKeys;
use ldm_nn::weights::save_safetensors;
use ldm_unet::UNetConfig;
use ldm_vae::LatentScaling;
use serde_json::{Value, json};

use super::first_stage::{save_vae, vae_config};
use super::{create, write_json};
use crate::RunError;
use crate::config::ModelConfig;
use crate::run::DiffusionTraining;

const FORMAT: &str = "diffusers";
const OVER_TOKENS: RunError = RunError::Inexpressible { format: FORMAT, what: "a tau_theta over tokens" };

/// The version of diffusers whose formats these are.
const VERSION: &str = "0.42.1";

impl DiffusionTraining {
    /// Says what keeps this model from being written by [`save_diffusers`](Self::save_diffusers): to be asked before a
    /// run.
    ///
    /// # Errors
    ///
    /// A U-Net or first stage that diffusers can't express, a tau_theta that its pipelines don't have.
    pub fn check_diffusers(&self) -> Result<(), RunError> {
        self.denoiser().model.config().to_diffusers()?;
        self.denoiser().model.config().diffusers_keys()?;
        vae_config(&self.first_stage().config())?;
        let conditional = match &self.config().model {
            ModelConfig::Diffusion(model) => model.conditioning_key.is_some(),
            ModelConfig::FirstStage(_) => false,
        };
        match &self.denoiser().cond_stage_model {
            None if conditional => {
                Err(RunError::Inexpressible { format: FORMAT, what: "a condition without an encoder" })
            }
            None => Ok(()),
            Some(CondStage::BertEmbedder(embedder)) if embedder.tokenizer().is_some() => Ok(()),
            Some(CondStage::BertEmbedder(_)) => Err(OVER_TOKENS),
            Some(other) => Err(RunError::Inexpressible { format: FORMAT, what: other.name() }),
        }
    }

    /// Writes the directory of an `LDMTextToImagePipeline`, or of an `LDMPipeline` where the model is unconditional,
    /// with the averaged U-Net where there is one. diffusers has one set of U-Net weights.
    ///
    /// # Errors
    ///
    /// What can't be written, and as [`check_diffusers`](Self::check_diffusers).
    pub fn save_diffusers(&self, folder: &Path, dtype: DType) -> Result<(), RunError> {
        self.check_diffusers()?;
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

        let scheduler = self.scheduler()?;
        let part = folder.join("scheduler");
        create(&part)?;
        let text: Value =
            serde_json::from_str(&scheduler.to_json()).map_err(|e| RunError::checkpoint(&part, e))?;
        write_json(&part.join("scheduler_config.json"), &text)?;

        let mut index = json!({
            "_class_name": "LDMPipeline",
            "_diffusers_version": VERSION,
            "scheduler": ["diffusers", "DDIMScheduler"],
            "unet": ["diffusers", unet.config().diffusers_class().name()],
            "vqvae": ["diffusers", class],
        });
        match &self.denoiser().cond_stage_model {
            None => {}
            Some(CondStage::BertEmbedder(embedder)) => {
                let part = folder.join("bert");
                create(&part)?;
                write_json(&part.join("config.json"), &Value::Object(embedder.config().to_diffusers()))?;
                save_safetensors(embedder, &BertKeys::Diffusers, part.join("model.safetensors"), dtype)?;
                let tokenizer = embedder.tokenizer().ok_or(OVER_TOKENS)?;
                tokenizer.save(folder.join("tokenizer")).map_err(|e| RunError::Condition(e.into()))?;
                index["_class_name"] = json!("LDMTextToImagePipeline");
                index["bert"] = json!(["latent_diffusion", "LDMBertModel"]);
                index["tokenizer"] = json!(["transformers", "BertTokenizer"]);
            }
            Some(other) => {
                return Err(RunError::Inexpressible { format: FORMAT, what: other.name() });
            }
        }
        write_json(&folder.join("model_index.json"), &index)
    }
}
