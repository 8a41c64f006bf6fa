//! Finished training runs in both formats, loaded as any model is: by users of the models, not by the trainer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../crates/ldm-train/tests/tiny/mod.rs"]
mod tiny;

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use ldm::{LatentDiffusion, LoadOptions};
use ldm_conditioning::Condition;
use ldm_scheduler::{NoiseSchedule, Prediction};
use ldm_test_support::{assert_close, relative_difference, seeded_input, seeded_weight};
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_train::export::save_first_stage;
use ldm_train::run::{At, Batches, DiffusionTraining, Latents, LoadedBatches, Stage};
use serde_json::{Value, json};

/// Gives every parameter values of its own, the same every time.
struct Seeded(usize);

impl ModuleMapper for Seeded {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let shape = param.lazy_shape();
        let values = seeded_weight(&format!("parameter {}", self.0), shape.as_slice());
        let values = Tensor::from_data(TensorData::new(values, shape), (&param.lazy_device(), DType::F32));
        Param::initialized(param.id, values)
    }
}

/// A tiny model after three steps, its average and its scale no longer what they began with.
fn trained(root: &Path, parameterization: &str) -> DiffusionTraining {
    let change = [("/model/params/parameterization", json!(parameterization))];
    let config = tiny::config(root, "diffusion", &change);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    // Its latents' size, and so the scale, would be another with every draw.
    let first_stage = model.first_stage.init(&device).unwrap().map(&mut Seeded(0));
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

/// Super-resolution with a VQ first stage of f = 2: `change` on top.
fn upscaler(root: &Path, change: &[(&str, Value)]) -> RunConfig {
    let unet = json!({
        "in_channels": 6, "out_channels": 3, "model_channels": 4, "num_res_blocks": 1, "attention_resolutions": [2],
        "channel_mult": [1, 2], "num_heads": 1, "norm_num_groups": 4,
    });
    let first_stage = json!({
        "embed_dim": 3, "n_embed": 16,
        "ddconfig": {
            "double_z": false, "z_channels": 3, "resolution": 16, "in_channels": 3, "out_ch": 3, "ch": 4,
            "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0, "norm_num_groups": 4,
        },
    });
    let of = |target: &str, params: &Value| json!({"target": target, "params": params});
    let params = |key: &str| format!("/model/params/{key}");
    let changes: Vec<(String, Value)> = vec![
        (params("unet_config"), of("UNetModel", &unet)),
        (params("first_stage_config"), of("ldm.models.autoencoder.VQModelInterface", &first_stage)),
        (params("cond_stage_config"), json!({"target": "torch.nn.Identity"})),
        (params("conditioning_key"), json!("concat")),
        (params("cond_stage_key"), json!("LR_image")),
        (params("scale_by_std"), json!(false)),
    ];
    let ours = changes.iter().map(|(path, value)| (path.as_str(), value.clone()));
    tiny::config(root, "diffusion", &ours.chain(change.iter().cloned()).collect::<Vec<_>>())
}

/// Its training before the first step.
fn fresh(config: &RunConfig) -> DiffusionTraining {
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    let device = Device::default();
    let (first_stage, tau) = (model.first_stage.init(&device).unwrap(), model.tau(&device).unwrap());
    DiffusionTraining::new(model, config, first_stage, Latents::Encoded, tau, &device).unwrap()
}

/// What super-resolution learned is upscaled with alike by both formats; diffusers has a pipeline for it.
#[test]
fn super_resolution_becomes_a_pipeline() {
    let device = Device::default();
    let root = tempfile::tempdir().unwrap();
    let config = upscaler(root.path(), &[]);
    let mut training = fresh(&config);
    let mut batches = LoadedBatches::new(config.data.open().unwrap(), None);
    for step in 0..3 {
        let batch = batches.next_batch().unwrap();
        training.step(&At { step, micro: step, rate: 1e-2 }, &[batch]).unwrap();
    }
    let (compvis, diffusers) = (root.path().join("compvis"), root.path().join("diffusers"));
    training.save_compvis(&compvis, DType::F32).unwrap();
    training.save_diffusers(&diffusers, DType::F32).unwrap();
    let index = std::fs::read_to_string(diffusers.join("model_index.json")).unwrap();
    for part in ["LDMSuperResolutionPipeline", "VQModel", "UNet2DModel", "DDIMScheduler"] {
        assert!(index.contains(part), "{part}: {index}");
    }
    let options = LoadOptions::default().config(compvis.join("model.yaml"));
    let ours = LatentDiffusion::load(compvis.join("model.safetensors"), &options).unwrap();
    let theirs = LatentDiffusion::load(&diffusers, &LoadOptions::default()).unwrap();
    let low = seeded_input::<4>("low", [2, 3, 8, 8], &device).clamp(-1.0, 1.0);
    let [ours, theirs] = [ours, theirs]
        .map(|model| model.upscale(low.clone()).unwrap().steps(10).seed(3).eta(1.0).run().unwrap().pictures);
    assert_eq!(ours.dims(), [2, 3, 16, 16]);
    assert_close("pictures", &theirs, &ours, 1e-4);

    // Its latents are the first stage's own.
    let scaled = fresh(&upscaler(root.path(), &[("/model/params/scale_factor", json!(0.5))]));
    let error = scaled.check_diffusers().unwrap_err().to_string();
    assert!(error.contains("scaled latents"), "{error}");
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
