//! A diffusion model as one file with the reference's names, and the YAML that goes with it.

use std::path::Path;

use burn::tensor::{DType, TensorData};
use ldm_conditioning::CondStage;
use ldm_nn::weights::{Entry, KeyMap, Saver};
use ldm_vae::{FirstStage, Naming};
use serde_json::{Value, json};

use super::first_stage::weight_names;
use super::{create, write_yaml};
use crate::RunError;
use crate::run::DiffusionTraining;

const FORMAT: &str = "CompVis' format";

/// Keys that the reference's constructors don't take: ours, and places of weights that the file itself holds.
const OURS: [&str; 9] = [
    "vocab_file",
    "lpips_ckpt",
    "lpips_linear_ckpt",
    "ckpt_path",
    "conditioning_dropout_prob",
    "snr_gamma",
    "noise_offset",
    "rescale_betas_zero_snr",
    "reseed_every",
];

impl DiffusionTraining {
    /// Says what keeps this model from being written by [`save_compvis`](Self::save_compvis): to be asked before a
    /// run.
    ///
    /// # Errors
    ///
    /// A U-Net that the reference can't express, and a schedule of zero terminal SNR, which its constructors can't
    /// make.
    pub fn check_compvis(&self) -> Result<(), RunError> {
        self.denoiser().model.config().compvis_keys()?;
        if self.objective().rescale_betas_zero_snr {
            return Err(RunError::Inexpressible { format: FORMAT, what: "`rescale_betas_zero_snr`" });
        }
        Ok(())
    }

    /// Writes `folder/model.safetensors` with the reference's names (`model.diffusion_model.`, `model_ema.`,
    /// `first_stage_model.`, `cond_stage_model.`, `scale_factor`), `folder/model.yaml`, and for a model of texts
    /// `folder/vocab.txt`, since a vocabulary of one's own is nowhere in the reference's format.
    ///
    /// `parameterization: v` is written as it is: the reference's code knows eps and x0, Stability's fork of it also v.
    /// Sizes that the reference's constructors have no argument for (`norm_num_groups`, BERT's `heads`) are written
    /// too; this program reads them.
    ///
    /// # Errors
    ///
    /// What can't be written, and as [`check_compvis`](Self::check_compvis).
    pub fn save_compvis(&self, folder: &Path, dtype: DType) -> Result<(), RunError> {
        self.check_compvis()?;
        create(folder)?;
        let denoiser = self.denoiser();
        let keys = denoiser.model.config().compvis_keys()?;
        let averaged = |path: &str| -> Option<Entry> {
            let mut entry = keys.entry(path)?;
            // LitEma's names lose their dots.
            entry.key = format!("diffusion_model{}", entry.key).replace('.', "");
            Some(entry)
        };
        let first_stage = match self.first_stage() {
            FirstStage::Identity(_) => None,
            model => Some((model, weight_names(model, Naming::CompVis)?)),
        };
        let tau = denoiser.cond_stage_model.as_ref().map(|tau| (tau, tau.compvis_keys()));

        let mut saver = Saver::new().dtype(dtype).add(&denoiser.model, &keys, "model.diffusion_model.");
        if let Some((average, updates)) = self.average_after() {
            let number = |value: i32| TensorData::new(vec![value], Vec::<usize>::new());
            saver = saver.add(average, &averaged, "model_ema.");
            saver = saver.add_tensor("model_ema.num_updates", number(updates as i32));
            saver = saver.add_tensor("model_ema.decay", scalar(self.config().train.ema_decay));
        }
        if let Some((model, names)) = &first_stage {
            saver = saver.add(*model, names, "first_stage_model.");
        }
        if let Some((tau, keys)) = &tau {
            saver = saver.add(*tau, keys, "cond_stage_model.");
        }
        if let Some(logvar) = &denoiser.logvar {
            saver = saver.add_tensor("logvar", logvar.logvar.val().into_data());
        }
        if let Some(scale) = self.scale_factor() {
            saver = saver.add_tensor("scale_factor", scalar(scale));
        }
        saver.write(folder.join("model.safetensors"))?;

        if let Some(CondStage::BertEmbedder(embedder)) = &denoiser.cond_stage_model
            && let Some(tokenizer) = embedder.tokenizer()
        {
            tokenizer.save(folder).map_err(|e| RunError::Condition(e.into()))?;
        }
        let mut document = json!({ "model": self.config().document() });
        without(&mut document, &OURS);
        self.complete(&mut document);
        write_yaml(&folder.join("model.yaml"), &document)
    }

    /// Says what the reference would otherwise take from its own defaults: `channels` 3, `image_size` 256.
    fn complete(&self, document: &mut Value) {
        let unet = self.denoiser().model.config();
        let Some(params) = document.pointer_mut("/model/params").and_then(Value::as_object_mut) else {
            return;
        };
        let missing = [("channels", json!(unet.out_channels)), ("image_size", json!(self.latent_size()[0]))];
        for (key, value) in missing {
            params.entry(key).or_insert(value);
        }
    }
}

fn scalar(value: f64) -> TensorData {
    TensorData::new(vec![value as f32], Vec::<usize>::new())
}

/// Drops keys at any depth.
fn without(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !keys.contains(&key.as_str()));
            map.values_mut().for_each(|value| without(value, keys));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| without(value, keys)),
        _ => {}
    }
}
