//! The registry of the paper's models, and the reference's YAML.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ldm::presets::{FIRST_STAGES, LDMS, LdmPreset, Task, first_stage, ldm};
use ldm::{CondStageTarget, ConditioningKey, Error, LatentDiffusionConfig, Target};
use ldm_conditioning::CondStageConfig;
use ldm_test_support::Fixture;
use ldm_train::config::{ModelConfig, RunConfig};
use ldm_unet::UNetConfig;
use ldm_vae::{FirstStageConfig, KlPreset, VqPreset};
use serde_json::{Value, json};

/// What the repository's configs say, read by hand: name, conditioning key, channels of the U-Net's input, side and
/// channels of the latent, first stage.
type Expected = (&'static str, Option<ConditioningKey>, usize, usize, usize, &'static str);
const EXPECTED: [Expected; 14] = {
    const CONCAT: Option<ConditioningKey> = Some(ConditioningKey::Concat);
    const CROSS: Option<ConditioningKey> = Some(ConditioningKey::CrossAttn);
    [
        ("celebahq256", None, 3, 64, 3, "vq-f4"),
        ("ffhq256", None, 3, 64, 3, "vq-f4"),
        ("lsun_churches256", None, 4, 32, 4, "kl-f8"),
        ("lsun_beds256", None, 3, 64, 3, "vq-f4"),
        ("cin256", CROSS, 4, 32, 4, "vq-f8"),
        ("cin256-v2", CROSS, 3, 64, 3, "vq-f4"),
        ("text2img256", CROSS, 3, 64, 3, "vq-f4"),
        ("txt2img-1p4B", CROSS, 4, 32, 4, "kl-f8"),
        ("layout2img-openimages256", CROSS, 3, 64, 3, "vq-f4"),
        ("semantic_synthesis256", CONCAT, 6, 64, 3, "vq-f4"),
        ("semantic_synthesis512", CONCAT, 6, 128, 3, "vq-f4"),
        ("bsr_sr", CONCAT, 6, 64, 3, "vq-f4"),
        ("inpainting_big", CONCAT, 7, 64, 3, "vq-f4-noattn"),
        ("rdm768x768", CROSS, 16, 48, 16, "kl-f16"),
    ]
};

#[test]
fn the_fourteen_models() {
    assert_eq!(LDMS.len(), 14);
    for (name, key, in_channels, side, channels, first) in EXPECTED {
        let preset = ldm(name).unwrap_or_else(|| panic!("{name}"));
        let config = preset.config();
        assert_eq!(config.conditioning(), key, "{name}");
        let unet = UNetConfig::from_compvis(&config.unet_config.params).unwrap();
        assert_eq!((unet.in_channels, unet.out_channels), (in_channels, channels), "{name}");
        assert_eq!((config.image_size, config.channels), (Some(side), channels), "{name}");
        assert_eq!(preset.first_stage, first, "{name}");
        let class = config.first_stage_config.as_ref().unwrap().class();
        assert_eq!(class == "VQModelInterface", first.starts_with("vq"), "{name}");
        // The latent of the first stage is the latent of the U-Net.
        let embed_dim = match first_stage(first).unwrap().config() {
            FirstStageConfig::Vq(c) => c.embed_dim,
            FirstStageConfig::Kl(c) => c.embed_dim,
            FirstStageConfig::Identity(c, _) => c,
        };
        assert_eq!(embed_dim, channels, "{name}");
        assert_eq!(config.use_ema, !["cin256-v2", "txt2img-1p4B"].contains(&name), "{name}");
    }
    assert_eq!(ldm("celeba256").unwrap().name, "celebahq256");
    assert!(ldm("celeba1024").is_none());
}

#[test]
fn the_nine_first_stages() {
    assert_eq!(FIRST_STAGES.len(), 9);
    for preset in FIRST_STAGES {
        assert!(
            KlPreset::find(preset.name).is_some() != VqPreset::find(preset.name).is_some(),
            "{}",
            preset.name
        );
        let codes = preset.target().params.get("n_embed").and_then(|n| n.as_u64());
        let expected = match preset.name {
            "vq-f8" | "vq-f16" => Some(16384),
            "vq-f8-n256" => Some(256),
            "vq-f4" | "vq-f4-noattn" => Some(8192),
            _ => None,
        };
        assert_eq!(codes, expected, "{}", preset.name);
    }
    assert!(first_stage("vq-f5").is_none());
}

/// The values of the reference's files, by path (tests/reference/configs.py).
fn published() -> BTreeMap<String, Value> {
    serde_json::from_value(Fixture::open("published_configs").json("configs")).unwrap()
}

fn yaml(document: &Value) -> String {
    serde_yaml_ng::to_string(document).unwrap()
}

/// Keys of the files that change no picture, which the registry leaves out: those of training, logs and memory. The
/// first stages' own losses stand in their own files.
const LEFT_OUT: [&str; 6] =
    ["monitor", "log_every_t", "num_timesteps_cond", "scheduler_config", "use_checkpoint", "lossconfig"];

/// Every leaf of `file` that `preset` has not (unless it is false), or has otherwise, by its path; counts the others.
fn walk(path: &str, file: &Value, preset: Option<&Value>, apart: &mut Vec<String>, equal: &mut usize) {
    if let Value::Object(keys) = file {
        for (key, value) in keys {
            walk(&format!("{path}.{key}"), value, preset.and_then(|p| p.get(key)), apart, equal);
        }
        return;
    }
    let numbers = |v: &Value| -> Option<Vec<f64>> {
        match v {
            Value::Array(items) => items.iter().map(Value::as_f64).collect(),
            v => v.as_f64().map(|n| vec![n]),
        }
    };
    let same = match preset {
        Some(preset) => preset == file || (numbers(preset).is_some() && numbers(preset) == numbers(file)),
        None => *file == Value::Bool(false),
    };
    if same { *equal += 1 } else { apart.push(path.into()) }
}

/// Key by key, and once more as parsed, where an absent key is its default.
#[test]
fn the_fourteen_models_are_the_references_files() {
    let published = published();
    for preset in LDMS {
        let document = &published[preset.file];
        let read = LatentDiffusionConfig::from_yaml(&yaml(document), Path::new(preset.file)).unwrap();
        let config = preset.config();
        let params = &document["model"]["params"];
        let (mut apart, mut equal) = (Vec::new(), 0);
        walk("", params, Some(&json!(config)), &mut apart, &mut equal);
        apart.retain(|path| !LEFT_OUT.iter().any(|key| path.split('.').any(|part| part == *key)));
        assert!(apart.is_empty() && equal >= 25, "{}: {equal} equal, {apart:?}", preset.name);

        let unet =
            |config: &LatentDiffusionConfig| UNetConfig::from_compvis(&config.unet_config.params).unwrap();
        assert_eq!(unet(&read), unet(&config), "{}", preset.name);
        let first =
            |config: &LatentDiffusionConfig| first_stage_config(config.first_stage_config.as_ref().unwrap());
        assert_eq!(first(&read), first(&config), "{}", preset.name);
        let cond = |config: &LatentDiffusionConfig| match config.cond_stage_config.as_ref().unwrap() {
            CondStageTarget::Name(name) => Err(name.clone()),
            CondStageTarget::Encoder(t) => Ok(CondStageConfig::from_target(&t.target, &t.params).unwrap()),
        };
        assert_eq!(cond(&read), cond(&config), "{}", preset.name);
        assert_eq!(without_parts(read), without_parts(config), "{}", preset.name);
    }
}

fn without_parts(mut config: LatentDiffusionConfig) -> LatentDiffusionConfig {
    config.unet_config = Target::new("", Value::Null);
    (config.first_stage_config, config.cond_stage_config) = (None, None);
    config
}

fn first_stage_config(target: &Target) -> FirstStageConfig {
    match target.class() {
        "AutoencoderKL" => FirstStageConfig::Kl(serde_json::from_value(target.params.clone()).unwrap()),
        _ => FirstStageConfig::Vq(serde_json::from_value(target.params.clone()).unwrap()),
    }
}

#[test]
fn the_nine_first_stages_are_the_references_files() {
    let published = published();
    for preset in FIRST_STAGES {
        let document = &published[&format!("models/first_stage_models/{}/config.yaml", preset.name)];
        let read: Target = serde_json::from_value(document["model"].clone()).unwrap();
        assert_eq!(read.target, preset.target().target, "{}", preset.name);
        let (mut apart, mut equal) = (Vec::new(), 0);
        walk("", &read.params, Some(&preset.target().params), &mut apart, &mut equal);
        apart.retain(|path| path != ".monitor" && !path.starts_with(".lossconfig"));
        assert!(apart.is_empty() && equal >= 11, "{}: {equal} equal, {apart:?}", preset.name);
        assert_eq!(first_stage_config(&read), preset.config(), "{}", preset.name);
    }
}

/// What the trainer makes of every file of the reference that it can train from.
#[test]
fn the_trainer_reads_the_references_files() {
    let mut trained = BTreeSet::new();
    for (path, document) in published() {
        let document: Value = serde_yaml_ng::from_str(&yaml(&document)).unwrap();
        let run = RunConfig::from_value(&document).unwrap_or_else(|e| panic!("{path}: {e}"));
        let rate = document["model"]["base_learning_rate"].as_f64().unwrap();
        assert_eq!(run.model.base_learning_rate(), rate, "{path}");
        let (stem, name) = path.strip_suffix(".yaml").unwrap().rsplit_once('/').unwrap();
        let folder = stem.rsplit('/').next().unwrap();
        match run.model {
            ModelConfig::FirstStage(config) => {
                let expected = match first_stage(folder) {
                    Some(preset) => preset.config(),
                    None => FirstStageConfig::Kl(KlPreset::find(name).unwrap().config()),
                };
                assert_eq!(config.first_stage, expected, "{path}");
                let start = document.pointer("/model/params/lossconfig/params/disc_start").unwrap();
                assert_eq!(json!(config.loss)["disc_start"], *start, "{path}");
            }
            ModelConfig::Diffusion(config) => {
                let preset = LDMS.iter().find(|preset| preset.file == path);
                let preset = preset.unwrap_or_else(|| of_training(name));
                let expected = preset.config();
                let mut unet = config.unet.clone();
                unet.sample_size = None;
                assert_eq!(unet, UNetConfig::from_compvis(&expected.unet_config.params).unwrap(), "{path}");
                assert_eq!(config.first_stage, first_stage(preset.first_stage).unwrap().config(), "{path}");
                let objective = json!(config.objective);
                for (key, value) in
                    [("linear_start", expected.linear_start), ("linear_end", expected.linear_end)]
                {
                    assert_eq!(objective[key].as_f64(), Some(value), "{path}: {key}");
                }
                assert_eq!(objective["loss_type"], expected.loss_type, "{path}");
                assert_eq!(config.use_ema, expected.use_ema, "{path}");
                assert_eq!(config.cond_stage_trainable, expected.cond_stage_trainable, "{path}");
            }
        }
        trained.insert(path);
    }
    // 9 first stages, 4 and 5 to train from, 14 models.
    assert_eq!(trained.len(), 32, "{trained:?}");
}

/// The published model that a file of `configs/latent-diffusion` trains.
fn of_training(name: &str) -> &'static LdmPreset {
    let found = match name {
        "celebahq-ldm-vq-4" => ldm("celebahq256"),
        "ffhq-ldm-vq-4" => ldm("ffhq256"),
        "lsun_bedrooms-ldm-vq-4" => ldm("lsun_beds256"),
        "lsun_churches-ldm-kl-8" => ldm("lsun_churches256"),
        "cin-ldm-vq-f8" => ldm("cin256"),
        _ => None,
    };
    found.unwrap_or_else(|| panic!("{name}"))
}

/// Figures as the paper and the model zoo have them.
#[test]
fn figures() {
    assert_eq!(ldm("lsun_beds256").unwrap().figures[0].fid, Some(2.95));
    let cin = ldm("cin256-v2").unwrap();
    let guided = cin.figures.iter().find(|f| f.guidance.is_some()).unwrap();
    assert_eq!((guided.fid, guided.inception_score, guided.steps), (Some(3.60), Some(247.67), Some(250)));
    assert_eq!(cin.task, Task::ClassConditional);
    assert_eq!(first_stage("kl-f4").unwrap().figures.psnr, [27.53, 4.54]);
    assert_eq!(LDMS.iter().filter(|p| p.task == Task::Unconditional).count(), 4);
}

#[test]
fn a_preset_survives_its_yaml() {
    for preset in LDMS {
        let config = preset.config();
        let yaml = config.to_yaml().unwrap();
        let back = LatentDiffusionConfig::from_yaml(&yaml, Path::new("preset.yaml")).unwrap();
        assert_eq!(back, config, "{}:\n{yaml}", preset.name);
    }
}

/// A document in the reference's words, with keys of training that don't matter here.
const YAML: &str = "
model:
  base_learning_rate: 1.0e-06
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_end: 0.0205
    log_every_t: 100
    loss_type: l1
    cond_stage_key: segmentation
    image_size: 8
    concat_mode: true
    scheduler_config:
      target: ldm.lr_scheduler.LambdaLinearScheduler
      params: { warm_up_steps: [10000], cycle_lengths: [10000000000000] }
    unet_config:
      target: UNET
      params: { image_size: 8, in_channels: 6, out_channels: 3, model_channels: 32, num_res_blocks: 1,
                attention_resolutions: [2], channel_mult: [1, 2], num_heads: 8 }
    first_stage_config:
      target: FIRST
      params:
        embed_dim: 3
        n_embed: 16
        ddconfig: { double_z: false, z_channels: 3, resolution: 32, in_channels: 3, out_ch: 3, ch: 32,
                    ch_mult: [1, 2], num_res_blocks: 1, attn_resolutions: [], dropout: 0.0 }
        lossconfig: { target: torch.nn.Identity }
    cond_stage_config: COND
";

fn document(unet: &str, first: &str, cond: &str) -> String {
    YAML.replace("UNET", unet).replace("FIRST", first).replace("COND", cond)
}

#[test]
fn a_yaml_of_the_reference() {
    let yaml =
        document("a.b.UNetModel", "ldm.models.autoencoder.VQModelInterface", "{ target: torch.nn.Identity }");
    let config = LatentDiffusionConfig::from_yaml(&yaml, Path::new("a.yaml")).unwrap();
    // Absent keys are the reference's defaults.
    assert_eq!((config.linear_start, config.linear_end, config.timesteps), (1e-4, 0.0205, 1000));
    assert!(config.use_ema && config.loss_type == "l1" && config.scale_factor == 1.0);
    // No key, and not unconditional: concatenation.
    assert_eq!(config.conditioning(), Some(ConditioningKey::Concat));
    let unconditional = document("a.UNetModel", "b.AutoencoderKL", "__is_unconditional__");
    let config = LatentDiffusionConfig::from_yaml(&unconditional, Path::new("a.yaml")).unwrap();
    assert_eq!(config.conditioning(), None);
    assert_eq!(config.cond_stage_config, Some(CondStageTarget::Name("__is_unconditional__".into())));
    let crossattn = yaml.replace("concat_mode: true", "concat_mode: false");
    let config = LatentDiffusionConfig::from_yaml(&crossattn, Path::new("a.yaml")).unwrap();
    assert_eq!(config.conditioning(), Some(ConditioningKey::CrossAttn));
}

/// The ways of writing values that the reference's files have, as PyYAML reads them.
#[test]
fn a_yaml_in_the_references_notations() {
    let plain = document("a.b.UNetModel", "ldm.models.autoencoder.VQModelInterface", "__is_unconditional__");
    let written = plain
        .replace("concat_mode: true", "concat_mode: True # a comment")
        .replace("double_z: false", "double_z: False")
        .replace("1.0e-06", "1.e-06")
        .replace("loss_type: l1", "loss_type: \"l1\"")
        .replace(
            "warm_up_steps: [10000]",
            "warm_up_steps: [ 1.e+4 ], f_start: [1.e-6], f_max: [ 1.], f_min: [1.]",
        )
        .replace("a.b.UNetModel", "'a.b.UNetModel'");
    assert_ne!(written, plain);
    let read = |yaml: &str| {
        let value: Value = serde_yaml_ng::from_str(yaml).unwrap();
        let ModelConfig::Diffusion(model) = RunConfig::from_value(&value).unwrap().model else {
            panic!("a diffusion model")
        };
        let config = LatentDiffusionConfig::from_yaml(yaml, Path::new("a.yaml")).unwrap();
        (config, model)
    };
    // A file may end without a line break.
    let ((config, model), (expected, plain)) = (read(written.trim_end()), read(&plain));
    assert_eq!((config, &model.unet, &model.first_stage), (expected, &plain.unet, &plain.first_stage));
    assert_eq!(model.base_learning_rate, 1e-6);
    let scheduler = model.scheduler.unwrap();
    assert_eq!((scheduler.warm_up_steps, scheduler.f_start, scheduler.f_max), (10_000, 1e-6, 1.0));
}

#[test]
fn what_a_yaml_can_not_say() {
    let read = |yaml: &str| LatentDiffusionConfig::from_yaml(yaml, Path::new("my.yaml")).unwrap_err();
    let error = read("model: { target: ldm.models.diffusion.edm.Karras, params: {} }");
    assert!(
        matches!(&error, Error::Unsupported { what, .. } if what.contains("ldm.models.diffusion.edm.Karras"))
    );
    assert!(error.to_string().contains("my.yaml"), "{error}");
    let good = document("a.UNetModel", "b.VQModelInterface", "__is_unconditional__");
    let betas = read(&good.replace("image_size: 8\n", "image_size: 8\n    given_betas: [0.1]\n")).to_string();
    assert!(betas.contains("given_betas") && betas.contains("my.yaml"), "{betas}");
    let key = read(&good.replace("concat_mode: true", "conditioning_key: telepathy")).to_string();
    assert!(key.contains("telepathy"), "{key}");
    let alone = read("model: { target: ldm.models.autoencoder.AutoencoderKL, params: {} }").to_string();
    assert!(alone.contains("AutoencoderKL") && alone.contains("first stage"), "{alone}");
}
