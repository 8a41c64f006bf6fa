//! Configs: the reference's training files, TOML, weights to start from, and that each key is documented.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod tiny;
#[path = "tiny/trained.rs"]
mod trained;

use std::path::Path;
use std::sync::PoisonError;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use ldm_nn::weights::{Saver, WeightError, WeightFile};
use ldm_test_support::{Fixture, seeded_input, with_warnings, write_weights};
use ldm_train::conditions::ConditionConfig;
use ldm_train::config::{
    ConditioningKey, DataSection, DiffusionConfig, EncoderSection, ModelConfig, RunConfig, TrainConfig,
};
use ldm_train::data::{Crop, DataConfig, Filter, LoaderConfig, MapConfig, MapKind, Transform};
use ldm_train::optim::{AdamWConfig, Decay, RateConfig, RateCycle, names};
use ldm_train::run::{At, AutoencoderTraining, Batches, DiffusionTraining, Latents, LoadedBatches, Stage};
use ldm_train::{
    FirstStageLossConfig, FirstStageObjective, KlLossConfig, ObjectiveConfig, RunError, VqLossConfig,
};
use ldm_vae::FirstStageConfig;
use serde_json::{Value, json};
use trained::{DRAWING, trained};

/// A file of the reference: what all of them share, and what one has of its own.
fn reference(params: &str, unet: &str, rest: &str) -> String {
    format!(
        "
model:
  base_learning_rate: 1.0e-06
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.0015
    linear_end: 0.0205
    log_every_t: 100
    timesteps: 1000
    monitor: val/loss
    first_stage_key: image
{params}
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {{model_channels: 32, num_res_blocks: 2, channel_mult: [1, 2], attention_resolutions: [2], {unet}}}
    first_stage_config:
      target: ldm.models.autoencoder.VQModelInterface
      params:
        embed_dim: 3
        n_embed: 8192
        monitor: val/rec_loss
        ddconfig: {{double_z: false, z_channels: 3, resolution: 256, in_channels: 3, out_ch: 3, ch: 128,
                   ch_mult: [1, 2, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}}
        lossconfig: {{target: torch.nn.Identity}}
{rest}
"
    )
}

fn diffusion(text: &str) -> (RunConfig, DiffusionConfig) {
    let config = RunConfig::from_value(&serde_yaml_ng::from_str::<Value>(text).unwrap());
    let config = config.unwrap_or_else(|e| panic!("{e}\n{text}"));
    let ModelConfig::Diffusion(model) = &config.model else { panic!("{text}") };
    let model = (**model).clone();
    (config, model)
}

/// What the files of `models/ldm/` and `configs/` of the reference say of their conditions.
#[test]
fn the_references_training_files_load() {
    use ConditioningKey::{Concat, CrossAttn};
    let inpainting = reference(
        "
    loss_type: l1
    cond_stage_key: masked_image
    image_size: 64
    channels: 3
    concat_mode: true
    scheduler_config:
      target: ldm.lr_scheduler.LambdaWarmUpCosineScheduler
      params: {verbosity_interval: 0, warm_up_steps: 1000, max_decay_steps: 50000, lr_start: 0.001, lr_max: 0.1,
               lr_min: 0.0001}",
        "in_channels: 7, out_channels: 3, num_heads: 8, resblock_updown: true",
        "    cond_stage_config: __is_first_stage__",
    );
    let (config, model) = diffusion(&inpainting);
    assert!(matches!(model.cond_stage, Some(EncoderSection::FirstStage)));
    let rate = config.rate();
    // As the reference's class says it.
    for (step, expected) in
        [(0, 0.001), (500, 0.0505), (1000, 0.1), (25_500, 0.05005), (50_000, 0.0001), (60_000, 0.0001)]
    {
        assert!(
            (rate.factor(step, 100_000) - expected).abs() < 1e-12,
            "{step}: {}",
            rate.factor(step, 100_000)
        );
    }

    let trained = |key: &str, more: &str| {
        format!("    loss_type: l1\n    cond_stage_key: {key}\n    image_size: 64\n    channels: 3\n{more}")
    };
    let class =
        "    cond_stage_config:\n      target: ldm.modules.encoders.modules.ClassEmbedder\n      params: ";
    let bert =
        "    cond_stage_config:\n      target: ldm.modules.encoders.modules.BERTEmbedder\n      params: ";
    let attending =
        "in_channels: 3, out_channels: 3, num_heads: 2, use_spatial_transformer: true, context_dim: 512";
    let cross = "    conditioning_key: crossattn\n    cond_stage_trainable: true\n    num_timesteps_cond: 1";
    let classes = Some(ConditionConfig::Classes { null_class: None });
    let cases = [
        ("inpainting_big", inpainting.clone(), Some(Concat), Some(ConditionConfig::Masked)),
        (
            "bsr_sr",
            reference(
                &trained("LR_image", "    concat_mode: true\n    cond_stage_trainable: false"),
                "in_channels: 6, out_channels: 3, num_head_channels: 32",
                "    cond_stage_config: {target: torch.nn.Identity}",
            ),
            Some(Concat),
            Some(ConditionConfig::LowResolution { factor: 4 }),
        ),
        (
            "semantic_synthesis256",
            reference(
                &trained("segmentation", "    concat_mode: true\n    cond_stage_trainable: true"),
                "in_channels: 6, out_channels: 3, num_heads: 8",
                "    cond_stage_config:
      target: ldm.modules.encoders.modules.SpatialRescaler
      params: {n_stages: 2, in_channels: 182, out_channels: 3}",
            ),
            Some(Concat),
            Some(ConditionConfig::Map { classes: Some(182) }),
        ),
        (
            "cin256",
            reference(
                &trained("class_label", cross),
                attending,
                &format!("{class}{{embed_dim: 512, key: class_label}}"),
            ),
            Some(CrossAttn),
            classes.clone(),
        ),
        (
            "cin256-v2",
            reference(
                &trained("class_label", &format!("{cross}\n    use_ema: False")),
                attending,
                &format!("{class}{{n_classes: 1001, embed_dim: 512, key: class_label}}"),
            ),
            Some(CrossAttn),
            classes,
        ),
        (
            "layout2img",
            reference(
                &trained("coordinates_bbox", cross),
                attending,
                &format!(
                    "{bert}{{n_embed: 512, n_layer: 2, vocab_size: 8192, max_seq_len: 92, use_tokenizer: false}}"
                ),
            ),
            Some(CrossAttn),
            None,
        ),
        (
            "text2img256",
            reference(&trained("caption", cross), attending, &format!("{bert}{{n_embed: 512, n_layer: 2}}")),
            Some(CrossAttn),
            Some(ConditionConfig::Captions),
        ),
        (
            "rdm",
            reference(
                "    cond_stage_key: nix\n    conditioning_key: crossattn\n    cond_stage_trainable: false
    scale_by_std: false\n    scale_factor: 0.22765929",
                attending,
                "    cond_stage_config:\n      target: torch.nn.Identity",
            ),
            Some(CrossAttn),
            None,
        ),
        (
            "celeba256",
            reference(
                &trained("class_label", "    concat_mode: false\n    cond_stage_trainable: false"),
                "in_channels: 3, out_channels: 3, num_head_channels: 32",
                "    cond_stage_config: __is_unconditional__",
            ),
            None,
            Some(ConditionConfig::None),
        ),
    ];
    for (name, text, key, conditions) in cases {
        let (config, model) = diffusion(&text);
        assert_eq!(model.conditioning_key, key, "{name}");
        let unused =
            ["log_every_t", "monitor", "num_timesteps_cond"].map(|key| format!("model.params.{key}"));
        assert!(config.unused.iter().all(|key| unused.contains(key)), "{name}: {:?}", config.unused);
        match (ConditionConfig::of_model(&model, None), conditions) {
            (Ok(found), Some(expected)) => assert_eq!(found, expected, "{name}"),
            (Err(RunError::NoConditions { .. }), None) => {
                // What the file leaves to the reference's data set is said in ours.
                let layouts = ConditionConfig::layouts(601);
                assert_eq!(ConditionConfig::of_model(&model, Some(&layouts)).unwrap(), layouts);
            }
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
    let trained = inpainting.replace("    concat_mode: true", "    cond_stage_trainable: true");
    let error = RunConfig::from_value(&serde_yaml_ng::from_str::<Value>(&trained).unwrap()).unwrap_err();
    assert!(error.contains("__is_first_stage__"), "{error}");
}

/// What the reference's data for super-resolution does to a picture is taken, or refused, and never passed over.
#[test]
fn the_references_worn_pictures_are_no_bicubic_ones() {
    let text = reference(
        "    cond_stage_key: LR_image",
        "in_channels: 6, out_channels: 3, num_head_channels: 32",
        "    cond_stage_config: {target: torch.nn.Identity}
data:
  target: main.DataModuleFromConfig
  params:
    batch_size: 64
    train:
      target: ldm.data.openimages.SuperresOpenImagesAdvancedTrain
      params: {size: 128, degradation: bsrgan_light, downscale_f: 4, min_crop_f: 0.5, max_crop_f: 0.75,
               random_crop: true}",
    );
    let (config, model) = diffusion(&text);
    let worn = ConditionConfig::Degraded { degradation: "bsrgan_light".into(), factor: 4 };
    assert_eq!(config.data.condition, Some(worn));
    assert_eq!(config.data.loader.batch_size, 64);
    let transform = &config.data.loader.transform;
    assert_eq!((transform.size, transform.crop, transform.crop_f), (128, Crop::Random, Some([0.5, 0.75])));
    assert_eq!(transform.filter, Filter::Area);
    let error = ConditionConfig::of_model(&model, config.data.condition.as_ref()).unwrap_err();
    assert!(matches!(error, RunError::Degradation { .. }), "{error}");
    assert!(error.to_string().contains("is bsrgan_light,"), "{error}");

    let (config, model) = diffusion(&text.replace("bsrgan_light", "pil_bicubic"));
    let bicubic = ConditionConfig::of_model(&model, config.data.condition.as_ref()).unwrap();
    assert_eq!(bicubic, ConditionConfig::LowResolution { factor: 4 });
    // What is passed over is named, as deep as it lies.
    let more = text.replace("random_crop: true}", "random_crop: true, sharpen: 2}\n      shuffle: false");
    let (config, _) = diffusion(&more);
    let mut unused: Vec<_> = config.unused.iter().filter(|key| key.starts_with("data.")).collect();
    unused.sort();
    let expected = [
        "data.params.train.params.sharpen",
        "data.params.train.shuffle",
        "data.params.train.target = ldm.data.openimages.SuperresOpenImagesAdvancedTrain",
        "data.target = main.DataModuleFromConfig",
    ];
    assert_eq!(unused, expected);
    // Who is conditioned on something else never sees the small pictures.
    let (config, _) = diffusion(&text.replace("LR_image", "segmentation"));
    assert_eq!(config.data.condition, None);
}

/// The classes with lists: each cycle has its numbers, one line down is the reference's own.
#[test]
fn learning_rates_of_several_cycles_load() {
    let text = |class: &str, params: &str| {
        let scheduler =
            format!("    scheduler_config: {{target: ldm.lr_scheduler.{class}, params: {params}}}");
        reference(&scheduler, "in_channels: 3, out_channels: 3, num_heads: 2", "")
    };
    let two = "{warm_up_steps: [10, 0], cycle_lengths: [50, 100], f_start: [0.1, 0.0], f_max: [2.0, 1.0], \
               f_min: [0.5, 0.25]}";
    let (config, _) = diffusion(&text("LambdaLinearScheduler", two));
    let factors = [0, 10, 30, 50, 51].map(|step| config.rate().factor(step, 1000));
    for (factor, expected) in factors.into_iter().zip([0.1, 1.7, 1.1, 0.5, 0.9925]) {
        assert!((factor - expected).abs() < 1e-12, "{factors:?}");
    }
    let one = "{warm_up_steps: [10], cycle_lengths: [110], f_start: [0.0], f_max: [2.0], f_min: [1.0]}";
    let (config, _) = diffusion(&text("LambdaLinearScheduler", one));
    // 2 - 10 / 110 where the warm-up ends.
    assert!((config.rate().factor(10, 1000) - (2.0 - 10.0 / 110.0)).abs() < 1e-12);
    let (config, _) = diffusion(&text("LambdaWarmUpCosineScheduler2", one));
    assert_eq!(config.rate().factor(10, 1000), 2.0);
    assert!((config.rate().factor(60, 1000) - 1.5).abs() < 1e-12);
    let wrong = two.replace("f_max: [2.0, 1.0]", "f_max: [2.0]");
    let document: Value = serde_yaml_ng::from_str(&text("LambdaLinearScheduler", &wrong)).unwrap();
    let error = RunConfig::from_value(&document).unwrap_err();
    assert!(error.contains("f_max") && error.contains("1 cycles of 2"), "{error}");
}

/// The reference's `VQModel` has a scheduler too; what else it has beside ours is not used, and said to be.
#[test]
fn a_first_stage_takes_the_learning_rates_of_its_file() {
    let root = tempfile::tempdir().unwrap();
    let scheduler = json!({
        "target": "ldm.lr_scheduler.LambdaLinearScheduler",
        "params": {
            "warm_up_steps": [10], "cycle_lengths": [110], "f_start": [0.0], "f_max": [2.0], "f_min": [1.0],
        },
    });
    let change = [
        ("/train/scheduler", Value::Null),
        ("/model/params/scheduler_config", scheduler),
        ("/model/params/lr_g_factor", json!(2.0)),
        ("/model/params/use_ema", json!(true)),
    ];
    let config = tiny::config(root.path(), "vq", &change);
    let factors = [5, 60, 110].map(|step| config.rate().factor(step, 1000));
    for (factor, expected) in factors.into_iter().zip([1.0, 2.0 - 60.0 / 110.0, 1.0]) {
        assert!((factor - expected).abs() < 1e-12, "{factors:?}");
    }
    assert_eq!(config.unused, ["model.params.lr_g_factor", "model.params.use_ema"]);
    // What stands in `train` counts first.
    let ours = tiny::config(root.path(), "vq", &change[1..]);
    assert_eq!(ours.rate().decay, Decay::Cosine);
}

/// What a run goes without is said when it begins.
#[test]
fn what_is_missing_or_not_used_is_warned_of() {
    let loss = |perceptual_weight: f64| {
        let config = FirstStageLossConfig::Kl(KlLossConfig { perceptual_weight, ..KlLossConfig::default() });
        let (objective, warned) = with_warnings(|| FirstStageObjective::new(&config, None));
        assert!(objective.is_ok());
        warned
    };
    let warned = loss(1.0);
    assert!(warned.contains("no LPIPS weights") && warned.contains("`perceptual_weight`"), "{warned}");
    assert_eq!(loss(0.0), "");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.yaml");
    let text = reference(
        "    loss_type: l1\n    concat_mode: false",
        "in_channels: 3, out_channels: 3, num_head_channels: 32",
        "    cond_stage_config: __is_unconditional__",
    );
    std::fs::write(&path, text).unwrap();
    let (config, warned) = with_warnings(|| RunConfig::read(&path).unwrap());
    assert_eq!(config.unused, ["model.params.log_every_t", "model.params.monitor"]);
    for part in ["run.yaml: not used:", "model.params.log_every_t", "model.params.monitor"] {
        assert!(warned.contains(part), "{part}: {warned}");
    }
}

/// The same run in TOML.
#[test]
fn a_toml_config_loads() {
    let text = r#"
[model]
base_learning_rate = 1e-4
target = "ldm.models.diffusion.ddpm.DDPM"

[model.params]
timesteps = 100
conditioning_key = "adm"
cond_stage_key = "class_label"
cond_stage_config = { target = "torch.nn.Identity" }

[model.params.unet_config]
target = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
params = { in_channels = 3, out_channels = 3, model_channels = 32, num_res_blocks = 1, channel_mult = [1, 2], attention_resolutions = [2], num_heads = 2, num_classes = 11 }

[data.source]
path = "pictures"
layout = "classes"
map_suffix = "map"

[data.loader]
batch_size = 12
transform = { size = 32, crop = "five", flip = true, background = [0, 0, 0] }
map = { kind = "labels" }

[data.condition]
kind = "classes"
null_class = 10

[train]
max_steps = 50
optimizer = { betas = [0.9, 0.99] }
scheduler = { warm_up_steps = 10, decay = "linear", f_max = 0.5 }
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.toml");
    std::fs::write(&path, text).unwrap();
    let config = RunConfig::read(&path).unwrap();
    assert!(config.unused.is_empty(), "{:?}", config.unused);
    let ModelConfig::Diffusion(model) = &config.model else { panic!() };
    assert_eq!(model.conditioning_key, Some(ConditioningKey::Adm));
    assert!(matches!(model.first_stage, FirstStageConfig::Identity(3, _)));
    assert_eq!(config.data.loader.batch_size, 12);
    assert_eq!(config.data.loader.map, MapConfig { kind: MapKind::Labels, size: None });
    assert_eq!(config.data.condition, Some(ConditionConfig::Classes { null_class: Some(10) }));
    assert!((config.learning_rate(1) - 12e-4).abs() < 1e-15);
    assert_eq!(config.rate().decay, Decay::Linear);
    assert_eq!(config.rate().factor(10, 50), 0.5);

    std::fs::write(&path, text.replace("null_class", "nul_class")).unwrap();
    let error = RunConfig::read(&path).unwrap_err().to_string();
    assert!(error.contains("run.toml") && error.contains("nul_class"), "{error}");
}

/// Each key of what a run reads stands in docs/training.md.
#[test]
fn every_key_is_documented() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/training.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let cycle = RateCycle { warm_up_steps: 0, length: 1, f_start: 0.0, f_max: 1.0, f_min: 1.0 };
    let rate = RateConfig { f_max: 2.0, cycles: vec![cycle], decay_until: Some(1), ..RateConfig::default() };
    let train = TrainConfig {
        gradient_clip_val: Some(1.0),
        optimizer: Some(AdamWConfig::default()),
        scheduler: Some(rate),
        ..TrainConfig::default()
    };
    let both = ConditionConfig::Both {
        first: Box::new(ConditionConfig::FirstStage {
            of: Box::new(ConditionConfig::Map { classes: Some(2) }),
        }),
        second: Box::new(ConditionConfig::layouts(3)),
    };
    let map = MapConfig { kind: MapKind::Labels, size: Some(8) };
    let data = DataSection {
        source: DataConfig::default(),
        loader: LoaderConfig { map, ..LoaderConfig::default() },
        condition: Some(both),
    };
    let more = [
        json!(ConditionConfig::Classes { null_class: Some(1) }),
        json!(ConditionConfig::LowResolution { factor: 4 }),
        json!(ConditionConfig::Degraded { degradation: "bsrgan".into(), factor: 4 }),
        json!(Transform { crop_f: Some([0.5, 1.0]), ..Transform::default() }),
        json!(ConditionConfig::Masked),
        json!(ConditionConfig::Picture),
        json!(ConditionConfig::Captions),
        json!(ConditionConfig::None),
    ];
    let objective =
        ObjectiveConfig { given_betas: Some(vec![]), snr_gamma: Some(5.0), ..ObjectiveConfig::default() };
    let vq = VqLossConfig { n_classes: Some(1), ..VqLossConfig::default() };
    let documents = [json!(train), json!(data), json!(objective), json!(KlLossConfig::default()), json!(vq)];
    let mut keys = std::collections::BTreeSet::new();
    fn collect(value: &Value, keys: &mut std::collections::BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                keys.insert(key.clone());
                if let ("kind", Value::String(kind)) = (key.as_str(), value) {
                    keys.insert(kind.clone());
                }
                collect(value, keys);
            }),
            Value::Array(list) => list.iter().for_each(|value| collect(value, keys)),
            _ => {}
        }
    }
    documents.iter().chain(&more).for_each(|document| collect(document, &mut keys));
    // And whatever stands in the shipped configs.
    for file in ["emoji_autoencoder.yaml", "emoji_diffusion.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(file);
        let text = std::fs::read_to_string(path).unwrap();
        collect(&serde_yaml_ng::from_str::<Value>(&text).unwrap(), &mut keys);
    }
    // Those of `model` that are read beside the networks' own.
    let model = [
        "base_learning_rate",
        "ckpt_path",
        "vocab_file",
        "lpips_ckpt",
        "lpips_linear_ckpt",
        "conditioning_key",
        "cond_stage_key",
        "cond_stage_config",
        "cond_stage_trainable",
        "first_stage_config",
        "unet_config",
        "scheduler_config",
        "use_ema",
        "use_checkpoint",
        "concat_mode",
        "first_stage_key",
        "image_size",
        "channels",
        "remap",
        "sane_index_shape",
        "beta",
        "legacy",
    ];
    keys.extend(model.map(String::from));
    assert!(keys.len() > 100, "{}", keys.len());
    let missing: Vec<_> = keys.iter().filter(|key| !docs.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "not in docs/training.md: {missing:?}");
}

/// All float parameters by their paths.
fn values<M: Module>(module: &M) -> Vec<f32> {
    let keys = |path: &str| Some(ldm_nn::weights::Entry::same(path));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.safetensors");
    Saver::new().add(module, &keys, "").write(&path).unwrap();
    let file = WeightFile::open(&path).unwrap();
    names(module).iter().flat_map(|(name, _)| file.read_f32(name).unwrap().1).collect()
}

fn ckpt(pointer: &'static str, path: &Path) -> (&'static str, Value) {
    (pointer, json!(path.to_str().unwrap()))
}

/// Without one tensor of the file.
fn without(file: &Path, name: &str, to: &Path) {
    let bytes = std::fs::read(file).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rest: Vec<_> = all.tensors().into_iter().filter(|(key, _)| key != name).collect();
    assert_eq!(rest.len() + 1, all.len(), "{name}");
    std::fs::write(to, safetensors::serialize(rest, None).unwrap()).unwrap();
}

/// A run from another one's finished model: U-Net, average, tau_theta, log-variances and scale.
#[test]
fn a_diffusion_model_starts_from_a_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let first = trained(root.path(), &[], 3).unwrap();
    first.save_compvis(root.path(), DType::F32).unwrap();
    let file = root.path().join("model.safetensors");
    let start = |path: &Path| trained(root.path(), &[ckpt("/model/params/ckpt_path", path)], 0);
    let second = start(&file).unwrap();
    let fresh = trained(root.path(), &[], 0).unwrap();
    assert_ne!(values(fresh.denoiser()), values(first.denoiser()));
    assert_eq!(values(second.denoiser()), values(first.denoiser()));
    let average = |training: &DiffusionTraining| values(training.average().unwrap());
    assert_eq!(average(&second), average(&first));
    assert_ne!(average(&second), values(&second.denoiser().model));
    // The scale stays the one that the weights know.
    let [scale, before] = [second.scale_factor().unwrap(), first.scale_factor().unwrap()];
    assert!((scale - before).abs() < 1e-6 * before, "{scale} {before}");

    let broken = root.path().join("broken.safetensors");
    for name in [
        "model.diffusion_model.out.2.weight",
        "model_ema.diffusion_modelout2bias",
        "cond_stage_model.transformer.token_emb.weight",
    ] {
        without(&file, name, &broken);
        let error = start(&broken).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, RunError::Weights(WeightError::Tensors { .. })) && text.contains(name),
            "{text}"
        );
    }
}

/// A frozen tau_theta: of its own file, by any of the names that it has, or of the whole model's.
#[test]
fn a_frozen_encoder_starts_from_a_file() {
    let root = tempfile::tempdir().unwrap();
    let first = trained(root.path(), &[], 3).unwrap();
    let tau = values(first.denoiser().cond_stage_model.as_ref().unwrap());
    first.save_compvis(root.path(), DType::F32).unwrap();
    first.save_diffusers(&root.path().join("diffusers"), DType::F32).unwrap();
    let frozen = ("/model/params/cond_stage_trainable", json!(false));
    let own = "/model/params/cond_stage_config/params/ckpt_path";
    let whole = root.path().join("model.safetensors");
    let diffusers = root.path().join("diffusers/bert/model.safetensors");
    for weights in [ckpt(own, &whole), ckpt(own, &diffusers), ckpt("/model/params/ckpt_path", &whole)] {
        let training = trained(root.path(), &[frozen.clone(), weights], 3).unwrap();
        assert_eq!(values(training.denoiser().cond_stage_model.as_ref().unwrap()), tau);
        assert_ne!(values(&training.denoiser().model), values(&first.denoiser().model));
    }
    let error = trained(root.path(), &[frozen], 0).unwrap_err();
    assert!(matches!(error, RunError::NoWeights { what: "BERTEmbedder" }), "{error}");
}

#[test]
fn a_first_stage_starts_from_a_checkpoint() {
    let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let (device, root) = (Device::default(), tempfile::tempdir().unwrap());
    let config = |change: &[(&str, Value)]| tiny::config(root.path(), "first_stage", change);
    let start = |config: &RunConfig| {
        let ModelConfig::FirstStage(model) = &config.model else { panic!() };
        AutoencoderTraining::new(model, config, None, &device)
    };
    let mut first = start(&config(&[])).unwrap();
    let mut batches = LoadedBatches::new(config(&[]).data.open().unwrap(), None);
    let batch = batches.next_batch().unwrap();
    first.step(&At { step: 50, micro: 50, rate: 1e-3 }, &[batch]).unwrap();
    ldm_train::export::save_first_stage(first.model(), root.path(), DType::F32).unwrap();
    let fresh = start(&config(&[])).unwrap();
    for file in ["model.safetensors", "vae/diffusion_pytorch_model.safetensors"] {
        let second = start(&config(&[ckpt("/model/params/ckpt_path", &root.path().join(file))])).unwrap();
        assert!(values(second.model()) == values(first.model()), "{file}");
        assert!(values(second.model()) != values(fresh.model()), "{file}");
        // The discriminator begins anew.
        assert!(values(second.discriminator().unwrap()) != values(first.discriminator().unwrap()));
    }
    let broken = root.path().join("broken.safetensors");
    without(&root.path().join("model.safetensors"), "decoder.conv_out.bias", &broken);
    let error = start(&config(&[ckpt("/model/params/ckpt_path", &broken)])).unwrap_err().to_string();
    assert!(error.contains("decoder.conv_out.bias"), "{error}");
}

#[test]
fn the_place_of_a_value_is_named() {
    let root = tempfile::tempdir().unwrap();
    for (place, value, part) in [
        ("/model/params/ddconfig/ch_mult", json!([1, "2"]), "ddconfig.ch_mult[1]: invalid type"),
        ("/model/params/lossconfig/params/kl_weight", json!("small"), "kl_weight: invalid type"),
        ("/data/loader/batch_size", json!(-1), "loader.batch_size: invalid value"),
        ("/train/devices", json!(1.5), "devices: expected a number of devices, or a list"),
    ] {
        let document = tiny::document(root.path(), "first_stage", &[(place, value)]);
        let error = RunConfig::from_value(&document).unwrap_err();
        assert!(error.contains(part), "{place}: {error}");
    }
}

/// LPIPS from the two files that are published.
#[test]
fn lpips_is_read_from_the_files_that_the_config_names() {
    let (device, root) = (Device::default(), tempfile::tempdir().unwrap());
    let shapes = Fixture::open("lpips").shapes("shapes");
    let named = |name: &dyn Fn(&str) -> Option<String>| -> Vec<(String, Vec<usize>)> {
        shapes.iter().filter_map(|(key, shape)| Some((name(key)?, shape.clone()))).collect()
    };
    let trunk =
        named(&|key| Some(format!("features.{}", key.split_once(".net.slice")?.1.split_once('.')?.1)));
    let linear =
        named(&|key| key.strip_prefix("lpips.").filter(|key| key.starts_with("lin")).map(String::from));
    assert_eq!((trunk.len(), linear.len()), (26, 5));
    let at = |name: &str| root.path().join(name);
    write_weights(&at("vgg16.safetensors"), &trunk);
    write_weights(&at("vgg.safetensors"), &linear);
    let config = |files: &[(&str, &str)]| {
        let mut loss =
            json!({"target": "ldm.modules.losses.LPIPSWithDiscriminator", "params": {"disc_factor": 0.0}});
        files.iter().for_each(|(key, file)| loss["params"][*key] = json!(at(file)));
        let change = [("/model/params/lossconfig", loss)];
        tiny::config(root.path(), "first_stage", &change)
    };
    let lpips = |config: &RunConfig| {
        let ModelConfig::FirstStage(model) = &config.model else { panic!() };
        model.lpips(&device)
    };
    let both = config(&[("lpips_ckpt", "vgg16.safetensors"), ("lpips_linear_ckpt", "vgg.safetensors")]);
    let lpips_of_both = lpips(&both).unwrap().unwrap();
    let picture = |name: &str| -> Tensor<4> { seeded_input(name, [1, 3, 16, 16], &device) };
    let distance = lpips_of_both.forward(picture("a"), picture("b")).into_scalar::<f32>();
    assert!(distance.is_finite() && distance != 0.0, "{distance}");
    // It counts: with it the loss of a step is another.
    let loss = |lpips| {
        let ModelConfig::FirstStage(model) = &both.model else { panic!() };
        let mut training = AutoencoderTraining::new(model, &both, lpips, &device).unwrap();
        let mut batches = LoadedBatches::new(both.data.open().unwrap(), None);
        let batch = batches.next_batch().unwrap();
        let metrics = training.step(&At { step: 0, micro: 0, rate: 1e-3 }, &[batch]).unwrap();
        metrics.into_iter().find(|(name, _)| name == "rec_loss").unwrap().1
    };
    let alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    assert!((loss(Some(lpips_of_both)) - loss(None)).abs() > 1e-6);
    drop(alone);

    assert!(lpips(&config(&[])).unwrap().is_none());
    let error = lpips(&config(&[("lpips_ckpt", "vgg16.safetensors")])).unwrap_err().to_string();
    assert!(error.contains("lin0.model.1.weight"), "{error}");
}

/// What a run's fingerprint holds of what is not in its config.
#[test]
fn another_first_stage_or_course_of_the_rate_is_refused() {
    use ldm_train::run::{Outcome, Stop, run};
    let root = tempfile::tempdir().unwrap();
    let _alone = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    let go = |seed: u64, change: &[(&str, Value)]| -> Result<Outcome, RunError> {
        let config = tiny::config(root.path(), "diffusion", change);
        let ModelConfig::Diffusion(model) = &config.model else { panic!() };
        let device = Device::default();
        device.seed(seed);
        let first_stage = model.first_stage.init(&device)?;
        // Drawn now, from this seed.
        values(&first_stage);
        let loader = config.data.open()?;
        let mut batches = LoadedBatches::new(loader, None);
        let tau = model.tau(&device)?;
        let mut training =
            DiffusionTraining::new(model, &config, first_stage, Latents::Encoded, tau, &device)?;
        run(&mut training, &mut batches, &config, root.path(), &Stop::new(), &mut |_| ())
    };
    let until_the_end = ("/train/scheduler", json!({"decay": "cosine"}));
    let steps = |n: u64| ("/train/max_steps", json!(n));
    assert_eq!(go(3, &[until_the_end.clone(), steps(2)]).unwrap(), Outcome::Finished);
    assert_eq!(go(3, &[until_the_end.clone(), steps(2)]).unwrap(), Outcome::Finished);
    let Err(RunError::Changed { key, before, now, .. }) = go(3, &[until_the_end.clone(), steps(3)]) else {
        panic!()
    };
    assert_eq!((key.as_str(), before.as_str(), now.as_str()), ("resolved.decay_until", "2", "3"));
    let Err(RunError::Changed { key, .. }) = go(4, &[until_the_end, steps(2)]) else { panic!() };
    assert!(key.contains("first stage"), "{key}");
}
