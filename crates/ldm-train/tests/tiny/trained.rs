//! A tiny diffusion model after a few steps.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use ldm_train::RunError;
use ldm_train::config::ModelConfig;
use ldm_train::run::{At, Batches, DiffusionTraining, Latents, LoadedBatches, Stage};
use serde_json::Value;

use crate::tiny;

/// burn's generator is one for all threads: what is drawn from a seed must not be interrupted.
pub static DRAWING: Mutex<()> = Mutex::new(());

/// A tiny diffusion model's training after `steps` steps, its first weights the same each time.
pub fn trained(root: &Path, change: &[(&str, Value)], steps: u64) -> Result<DiffusionTraining, RunError> {
    let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let config = tiny::config(root, "diffusion", change);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    device.seed(3);
    let first_stage = model.first_stage.init(&device)?;
    let loader = config.data.open()?;
    let latents = Latents::open(&root.join("latents.safetensors"), &loader, &first_stage, &device)?;
    let mut batches = LoadedBatches::new(loader, latents.cache());
    let tau = model.tau(&device)?;
    let mut training = DiffusionTraining::new(model, &config, first_stage, latents, tau, &device)?;
    for step in 0..steps {
        let batch = batches.next_batch()?;
        training.step(&At { step, micro: step, rate: 1e-3 }, &[batch])?;
    }
    Ok(training)
}
