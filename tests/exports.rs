//! Finished training runs in both formats, loaded as any model is: by users of the models, not by the trainer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../crates/ldm-train/tests/tiny/mod.rs"]
mod tiny;

use std::path::Path;

use burn::tensor::{DType, Device, Tensor};
use ldm::{LatentDiffusion, LoadOptions};
use ldm_conditioning::Condition;
use ldm_scheduler::{NoiseSchedule, Prediction};
use ldm_test_support::{assert_close, relative_difference, seeded_input};
use ldm_train::config::ModelConfig;
use ldm_train::export::save_first_stage;
use ldm_train::run::{At, Batches, DiffusionTraining, Latents, LoadedBatches, Stage};
use serde_json::json;

/// A tiny model after three steps, its average and its scale no longer what they began with.
fn trained(root: &Path, parameterization: &str) -> DiffusionTraining {
    let change = [("/model/params/parameterization", json!(parameterization))];
    let config = tiny::config(root, "diffusion", &change);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    let first_stage = model.first_stage.init(&device).unwrap();
    let loader = config.data.open().unwrap();
    let latents = Latents::open(&root.join("latents.safetensors"), &loader, &first_stage, &device).unwrap();
    let mut batches = LoadedBatches::new(loader, latents.cache());
    let tau = model.tau(&device).unwrap();
    let mut training = DiffusionTraining::new(model, &config, first_stage, latents, tau, &device).unwrap();
    for step in 0..3 {
        let batch = batches.next_batch().unwrap();
        training.step(&At { step, micro: step, rate: 1e-2 }, &[batch]).unwrap();
    }
    training
}

#[test]
fn both_formats_hold_the_model_that_was_trained() {
    let device = Device::default();
    for (parameterization, prediction) in [("eps", Prediction::Epsilon), ("v", Prediction::VPrediction)] {
        let root = tempfile::tempdir().unwrap();
        let training = trained(root.path(), parameterization);
        let (compvis, diffusers) = (root.path().join("compvis"), root.path().join("diffusers"));
        training.save_compvis(&compvis, DType::F32).unwrap();
        training.save_diffusers(&diffusers, DType::F32).unwrap();

        // Words of its own vocabulary: with bert-base-uncased's their numbers would be others, and out of range.
        let condition = Condition::Text(vec!["red heart".into(), "a picture".into()]);
        let z = seeded_input::<4>("z", [2, 2, 8, 8], &device);
        let t = || Tensor::<1>::from_data([17.0, 42.0], (&device, DType::F32));
        let context = training.denoiser().cond_stage_model.as_ref().unwrap().encode(&condition).unwrap();
        let average = training.average().unwrap().forward(z.clone(), t(), &context).unwrap();
        let latest = training.denoiser().model.forward(z.clone(), t(), &context).unwrap();
        assert!(relative_difference(&latest, &average) > 1e-2, "the average is the model");
        let scale = training.scale_factor().unwrap();
        assert!((scale - 1.0).abs() > 1e-2);
        let picture = training.first_stage().decode(z.clone() / scale).unwrap();
        let schedule = NoiseSchedule::from_config(&training.scheduler().unwrap()).unwrap();

        let options = LoadOptions::default().config(compvis.join("model.yaml"));
        let models = [
            ("CompVis", LatentDiffusion::load(compvis.join("model.safetensors"), &options)),
            ("diffusers", LatentDiffusion::load(&diffusers, &LoadOptions::default())),
        ];
        for (format, model) in models {
            let model = model.unwrap_or_else(|error| panic!("{format}: {error}"));
            let name = |what: &str| format!("{parameterization}, {format}: {what}");
            assert_eq!(model.prediction().unwrap(), prediction, "{format}");
            assert_eq!(model.latent_size(), [8, 8], "{format}");
            let context = model.condition(&condition).unwrap();
            let output = model.unet.forward(z.clone(), t(), &context).unwrap();
            assert_close(&name("U-Net"), &output, &average, 1e-4);
            assert_close(&name("picture"), &model.decode(z.clone()).unwrap(), &picture, 1e-4);
            let read = NoiseSchedule::from_config(&model.scheduler).unwrap();
            let pairs = read.alphas_bar().iter().zip(schedule.alphas_bar());
            let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(read.alphas_bar().len() == 50 && off < 1e-6, "{}", name("schedule"));
        }
    }
}

#[test]
fn a_first_stage_loads_by_the_config_beside_it() {
    let (root, device) = (tempfile::tempdir().unwrap(), Device::default());
    for kind in ["first_stage", "vq"] {
        let config = tiny::config(root.path(), kind, &[]);
        let ModelConfig::FirstStage(model) = &config.model else { panic!() };
        let first_stage = model.first_stage.init(&device).unwrap();
        let folder = root.path().join(kind);
        save_first_stage(&first_stage, &folder, DType::F32).unwrap();
        let options = LoadOptions::default().config(folder.join("model.yaml"));
        let read =
            ldm::load_first_stage_from_checkpoint(&folder.join("model.safetensors"), &options).unwrap();
        let z = seeded_input::<4>("z", [1, 2, 8, 8], &device);
        let [actual, expected] = [&read, &first_stage].map(|model| model.decode(z.clone()).unwrap());
        assert_close(kind, &actual, &expected, 1e-5);
    }
}
