//! A diffusion model as one file with the reference's names, and the YAML that goes with it.

use std::fs;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use ldm_nn::weights::{Entry, KeyMap, Saver};
use ldm_vae::{FirstStage, Naming};
use serde_json::{Value, json};

use super::create;
use super::first_stage::weight_names;
use crate::RunError;
use crate::run::DiffusionTraining;

/// Keys that the reference's constructors don't take: ours, and places of weights that the file itself holds.
const OURS: [&str; 7] = [
    "vocab_file",
    "lpips_ckpt",
    "lpips_linear_ckpt",
    "ckpt_path",
    "conditioning_dropout_prob",
    "snr_gamma",
    "noise_offset",
];

impl DiffusionTraining {
    /// Writes `folder/model.safetensors` with the reference's names (`model.diffusion_model.`, `model_ema.`,
    /// `first_stage_model.`, `cond_stage_model.`, `scale_factor`) and `folder/model.yaml`.
    ///
    /// # Errors
    ///
    /// What can't be written, and a U-Net that the reference can't express.
    pub fn save_compvis(&self, folder: &Path, dtype: DType) -> Result<(), RunError> {
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

        let mut document = json!({ "model": self.config().document() });
        without(&mut document, &OURS);
        let path = folder.join("model.yaml");
        let text = serde_yaml_ng::to_string(&document).map_err(|e| RunError::checkpoint(&path, e))?;
        fs::write(&path, text).map_err(RunError::io(&path))
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
