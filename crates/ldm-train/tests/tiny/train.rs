//! A tiny run from its config to its end.

use std::path::Path;

use burn::tensor::Device;
use ldm_train::RunError;
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::run::{
    AutoencoderTraining, Batches, DiffusionTraining, Latents, LoadedBatches, Outcome, Progress, Stop, run,
};

/// Trains `kind` in `root/kind`; several devices are threads.
pub fn train(
    root: &Path,
    kind: &str,
    config: &RunConfig,
    stop: &Stop,
    wrap: impl FnOnce(LoadedBatches) -> Box<dyn Batches>,
    observer: &mut dyn FnMut(&Progress<'_>),
) -> Result<Outcome, RunError> {
    let (device, folder) = (Device::default(), root.join(kind));
    let devices = vec![device.clone(); config.train.device_count()];
    let loader = config.data.open()?;
    match &config.model {
        ModelConfig::FirstStage(model) => {
            let stage = AutoencoderTraining::new(model, config, None, &device)?;
            let mut stage = stage.with_devices(devices)?;
            let mut batches = wrap(LoadedBatches::new(loader, None));
            run(&mut stage, batches.as_mut(), config, &folder, stop, observer)
        }
        ModelConfig::Diffusion(model) => {
            // Fresh weights, the same for every process.
            device.seed(3);
            let first_stage = model.first_stage.init(&device)?;
            std::fs::create_dir_all(&folder).unwrap();
            let latents = Latents::open(&folder.join("latents.safetensors"), &loader, &first_stage, &device)?;
            let mut batches = wrap(LoadedBatches::new(loader, latents.cache()));
            let tau = model.tau(&device)?;
            let stage = DiffusionTraining::new(model, config, first_stage, latents, tau, &device)?;
            let mut stage = stage.with_devices(devices)?;
            run(&mut stage, batches.as_mut(), config, &folder, stop, observer)
        }
    }
}
