//! From a document to a run: `model` as CompVis writes it, `data` and `train` as we do, `lightning` as far as it
//! says what `train` says.

use ldm_conditioning::CondStageConfig;
use ldm_unet::UNetConfig;
use ldm_vae::{FirstStageConfig, LatentScaling};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{AutoencoderConfig, DataSection, DiffusionConfig, ModelConfig, RunConfig, Target, TrainConfig};
use crate::optim::{Decay, RateConfig};
use crate::{FirstStageLossConfig, ObjectiveConfig};

/// Classes of first stages and of diffusion models that can be trained.
const FIRST_STAGES: [&str; 2] = ["AutoencoderKL", "VQModel"];
const DIFFUSION: [&str; 1] = ["LatentDiffusion"];

/// Keys of `model.params` that something here reads, and those that say nothing that is not said elsewhere.
const FIRST_STAGE_KEYS: [&str; 9] = [
    "embed_dim",
    "n_embed",
    "ddconfig",
    "lossconfig",
    "ckpt_path",
    "remap",
    "sane_index_shape",
    "beta",
    "legacy",
];
const DIFFUSION_KEYS: [&str; 8] = [
    "unet_config",
    "first_stage_config",
    "cond_stage_config",
    "cond_stage_trainable",
    "use_ema",
    "scheduler_config",
    "ckpt_path",
    "conditioning_key",
];
/// `image_size` and `channels` repeat what `unet_config` and the first stage say.
const REPEATED: [&str; 2] = ["image_size", "channels"];

pub(super) fn read(document: &Value) -> Result<RunConfig, String> {
    let Some(document) = document.as_object() else { return Err("it has no sections".into()) };
    let mut unused = Vec::new();
    for key in document.keys().filter(|key| !["model", "data", "train", "lightning"].contains(&key.as_str()))
    {
        unused.push(key.clone());
    }
    let section = document.get("model").ok_or("the section `model` is missing")?;
    let model = model(section, &mut unused)?;

    let lightning = document.get("lightning").cloned().unwrap_or_default();
    let mut train = match document.get("train") {
        Some(train) => parse::<TrainConfig>("train", train)?,
        None => TrainConfig::default(),
    };
    of_lightning(&lightning, document.contains_key("train"), &mut train, &mut unused)?;
    train.validate()?;

    let data = document.get("data").cloned().unwrap_or_else(|| json!({}));
    let mut data = data_section(&data, &mut unused)?;
    data.loader.seed = train.seed;
    Ok(RunConfig { model, data, train, unused, document: section.clone() })
}

fn model(section: &Value, unused: &mut Vec<String>) -> Result<ModelConfig, String> {
    let target: Target = parse("model", section)?;
    let rate = section.get("base_learning_rate").ok_or("`model.base_learning_rate` is missing")?;
    // YAML 1.1 reads 4.5e-06 as a number only with the dot; PyYAML takes the rest as text.
    let rate = rate.as_f64().or_else(|| rate.as_str()?.parse().ok());
    let base_learning_rate = rate
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or("`model.base_learning_rate`: expected a number above 0")?;
    let params = target.params.as_object().ok_or("`model.params` is missing")?;
    let class = target.class();
    if FIRST_STAGES.contains(&class) {
        return Ok(ModelConfig::FirstStage(Box::new(autoencoder(
            &target,
            params,
            base_learning_rate,
            unused,
        )?)));
    }
    if !DIFFUSION.contains(&class) {
        let known = [FIRST_STAGES.as_slice(), &DIFFUSION].concat().join(", ");
        return Err(format!("`model.target` is {}, this program trains {known}", target.target));
    }
    let objective: ObjectiveConfig = parse("model.params", &target.params)?;
    let read = serde_json::to_value(ObjectiveConfig::default()).map_err(|e| e.to_string())?;
    let read: Vec<&str> =
        read.as_object().into_iter().flat_map(Map::keys).map(String::as_str).chain(OPTIONAL).collect();
    name_unused("model.params", params, &[&DIFFUSION_KEYS, &REPEATED, &read], unused);

    let unet = part(params, "unet_config")?;
    let use_checkpoint = unet.params.get("use_checkpoint").and_then(Value::as_bool).unwrap_or(false);
    let mut unet = UNetConfig::from_compvis(&unet.params).map_err(|e| format!("`unet_config`: {e}"))?;
    // The latent's size is the model's `image_size`; the U-Net's own is a number that nothing reads.
    if let (None, Some(side)) = (unet.sample_size, optional(params, "image_size")?) {
        unet.sample_size = Some([side, side]);
    }
    let first = part(params, "first_stage_config")?;
    let first_stage = first_stage(&first)?;
    let first_stage_ckpt = match first.params.as_object() {
        Some(params) => optional(params, "ckpt_path")?,
        None => None,
    };
    let cond_stage = match params.get("cond_stage_config") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) if name == "__is_unconditional__" => None,
        Some(Value::String(name)) => return Err(format!("`cond_stage_config` is {name}: not supported")),
        Some(_) => Some(part(params, "cond_stage_config")?),
    };
    let (cond_stage, vocab_file) = match cond_stage {
        None => (None, None),
        Some(Target { target, mut params }) => {
            let file = params.as_object_mut().and_then(|params| params.remove("vocab_file"));
            let config = CondStageConfig::from_target(&target, &params).map_err(|e| e.to_string())?;
            (Some(config), file.map(|file| parse("vocab_file", &file)).transpose()?)
        }
    };
    let scheduler = match params.get("scheduler_config") {
        Some(scheduler) if !scheduler.is_null() => Some(rate_of(&parse("scheduler_config", scheduler)?)?),
        _ => None,
    };
    Ok(ModelConfig::Diffusion(Box::new(DiffusionConfig {
        base_learning_rate,
        objective,
        unet,
        use_checkpoint,
        first_stage,
        first_stage_ckpt,
        cond_stage,
        vocab_file,
        cond_stage_trainable: optional(params, "cond_stage_trainable")?.unwrap_or(false),
        use_ema: optional(params, "use_ema")?.unwrap_or(true),
        scheduler,
        ckpt_path: optional(params, "ckpt_path")?,
    })))
}

/// `model` of a first stage.
fn autoencoder(
    target: &Target,
    params: &Map<String, Value>,
    base_learning_rate: f64,
    unused: &mut Vec<String>,
) -> Result<AutoencoderConfig, String> {
    name_unused("model.params", params, &[&FIRST_STAGE_KEYS], unused);
    let loss = part(params, "lossconfig")?;
    let mut numbers = loss.params.as_object().cloned().unwrap_or_default();
    let lpips_ckpt = optional(&numbers, "lpips_ckpt")?;
    numbers.remove("lpips_ckpt");
    let loss = FirstStageLossConfig::from_target(&loss.target, &Value::Object(numbers));
    Ok(AutoencoderConfig {
        base_learning_rate,
        first_stage: first_stage(target)?,
        loss: loss.map_err(|e| format!("`lossconfig`: {e}"))?,
        lpips_ckpt,
        ckpt_path: optional(params, "ckpt_path")?,
    })
}

/// A first stage by its class.
fn first_stage(target: &Target) -> Result<FirstStageConfig, String> {
    match target.class() {
        "AutoencoderKL" => Ok(FirstStageConfig::Kl(parse("first stage", &target.params)?)),
        "VQModel" | "VQModelInterface" => Ok(FirstStageConfig::Vq(parse("first stage", &target.params)?)),
        "IdentityFirstStage" => Ok(FirstStageConfig::Identity(3, LatentScaling::default())),
        _ => Err(format!("the first stage's `target` is {}: not supported", target.target)),
    }
}

/// Keys of an [`ObjectiveConfig`] that it doesn't write where they are not given.
const OPTIONAL: [&str; 2] = ["given_betas", "snr_gamma"];

/// The reference's learning-rate classes, of one cycle.
fn rate_of(target: &Target) -> Result<RateConfig, String> {
    let decay = match target.class() {
        "LambdaLinearScheduler" => Decay::Linear,
        "LambdaWarmUpCosineScheduler" => Decay::Cosine,
        _ => return Err(format!("`scheduler_config.target` is {}: not supported", target.target)),
    };
    let params = target.params.as_object().cloned().unwrap_or_default();
    let number = |keys: &[&str]| -> Result<Option<f64>, String> {
        for key in keys {
            let Some(value) = params.get(*key) else { continue };
            let value = match value.as_array().map(Vec::as_slice) {
                Some([only]) => only,
                Some(_) => return Err(format!("`scheduler_config.params.{key}`: one cycle is supported")),
                None => value,
            };
            let value = value.as_f64().or_else(|| value.as_str()?.parse().ok());
            return value.map(Some).ok_or_else(|| format!("`scheduler_config.params.{key}`: not a number"));
        }
        Ok(None)
    };
    let f_max = number(&["f_max", "lr_max"])?.unwrap_or(1.0);
    if f_max != 1.0 {
        return Err(format!("`scheduler_config.params.f_max` is {f_max}, only 1 is supported"));
    }
    let f_min = number(&["f_min", "lr_min"])?.unwrap_or(1.0);
    let length = number(&["cycle_lengths", "max_decay_steps"])?;
    Ok(RateConfig {
        warm_up_steps: number(&["warm_up_steps"])?.unwrap_or(0.0) as u64,
        f_start: number(&["f_start", "lr_start"])?.unwrap_or(0.0),
        // A decay from 1 to 1 is none.
        decay: if f_min == 1.0 { Decay::Constant } else { decay },
        f_min,
        decay_until: length.map(|steps| steps as u64),
    })
}

/// What `lightning` says of `train`; where the file has a section `train`, that one counts.
fn of_lightning(
    lightning: &Value,
    has_train: bool,
    train: &mut TrainConfig,
    unused: &mut Vec<String>,
) -> Result<(), String> {
    let keys = [
        ("/trainer/accumulate_grad_batches", "accumulate_grad_batches"),
        ("/trainer/max_steps", "max_steps"),
        ("/trainer/gradient_clip_val", "gradient_clip_val"),
        ("/callbacks/image_logger/params/batch_frequency", "images_every"),
        ("/callbacks/image_logger/params/max_images", "images"),
        ("/modelcheckpoint/params/every_n_train_steps", "save_every"),
    ];
    let mut leaves = Vec::new();
    collect_leaves("", lightning, &mut leaves);
    let mut document = serde_json::to_value(&*train).map_err(|e| e.to_string())?;
    for (path, value) in leaves {
        match keys.iter().find(|(known, _)| *known == path) {
            Some((_, key)) if !has_train => document[*key] = value,
            _ => unused.push(format!("lightning{}", path.replace('/', "."))),
        }
    }
    *train = parse("lightning", &document)?;
    Ok(())
}

fn collect_leaves(path: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| collect_leaves(&format!("{path}/{key}"), value, leaves));
        }
        Value::Null => {}
        value => leaves.push((path.into(), value.clone())),
    }
}

fn data_section(section: &Value, unused: &mut Vec<String>) -> Result<DataSection, String> {
    let Some(keys) = section.as_object() else { return Err("`data`: expected keys and values".into()) };
    if !keys.contains_key("target") {
        return parse("data", section);
    }
    let target: Target = parse("data", section)?;
    let mut data = DataSection::default();
    for (key, value) in target.params.as_object().into_iter().flatten() {
        match key.as_str() {
            "batch_size" => data.loader.batch_size = parse("data.params.batch_size", value)?,
            _ => unused.push(format!("data.params.{key}")),
        }
    }
    unused.push(format!("data.target = {}", target.target));
    Ok(data)
}

fn name_unused(place: &str, params: &Map<String, Value>, used: &[&[&str]], unused: &mut Vec<String>) {
    let is_used = |key: &str| used.iter().any(|keys| keys.contains(&key));
    unused.extend(params.keys().filter(|key| !is_used(key)).map(|key| format!("{place}.{key}")));
}

fn part(params: &Map<String, Value>, key: &str) -> Result<Target, String> {
    let value = params.get(key).ok_or_else(|| format!("`model.params.{key}` is missing"))?;
    parse(key, value)
}

fn optional<T: DeserializeOwned>(params: &Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    match params.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => parse(key, value).map(Some),
    }
}

fn parse<T: DeserializeOwned>(place: &str, value: &Value) -> Result<T, String> {
    T::deserialize(value).map_err(|e| format!("`{place}`: {e}"))
}
