//! From a document to a run: `model` as CompVis writes it, `data` and `train` as we do, `lightning` as far as it
//! says what `train` says.

use ldm_conditioning::CondStageConfig;
use ldm_unet::UNetConfig;
use ldm_vae::{FirstStageConfig, LatentScaling};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    AutoencoderConfig, ConditioningKey, DiffusionConfig, EncoderConfig, EncoderSection, ModelConfig,
    RunConfig, Target, TrainConfig, compvis_data,
};
use crate::optim::{Decay, RateConfig, RateCycle};
use crate::{FirstStageLossConfig, ObjectiveConfig};

/// Classes of first stages and of diffusion models that can be trained.
const FIRST_STAGES: [&str; 2] = ["AutoencoderKL", "VQModel"];
const DIFFUSION: [&str; 3] = ["LatentDiffusion", "Layout2ImgDiffusion", "DDPM"];

/// Keys of `model.params` that something here reads, and those that say nothing that is not said elsewhere.
const FIRST_STAGE_KEYS: [&str; 10] = [
    "embed_dim",
    "n_embed",
    "ddconfig",
    "lossconfig",
    "ckpt_path",
    "scheduler_config",
    "remap",
    "sane_index_shape",
    "beta",
    "legacy",
];
const DIFFUSION_KEYS: [&str; 11] = [
    "unet_config",
    "first_stage_config",
    "cond_stage_config",
    "cond_stage_trainable",
    "use_ema",
    "scheduler_config",
    "ckpt_path",
    "conditioning_key",
    "concat_mode",
    "first_stage_key",
    "cond_stage_key",
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
    let (mut data, small) = compvis_data::read(&data, &mut unused)?;
    data.loader.seed = train.seed;
    if let (ModelConfig::Diffusion(model), Some(small)) = (&model, small)
        && model.cond_stage_key.as_deref() == Some("LR_image")
    {
        data.condition = Some(small);
    }
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
    // A `DDPM` draws the pictures themselves: the paper's f = 1.
    let first = match params.get("first_stage_config") {
        None | Some(Value::Null) if class == "DDPM" => None,
        _ => Some(part(params, "first_stage_config")?),
    };
    let (first_stage, first_stage_ckpt) = match &first {
        None => (FirstStageConfig::Identity(3, LatentScaling::default()), None),
        Some(first) => {
            let ckpt = first.params.as_object().map(|params| optional(params, "ckpt_path")).transpose()?;
            (first_stage(first)?, ckpt.flatten())
        }
    };
    let cond_stage = cond_stage(params.get("cond_stage_config"))?;
    let cond_stage_trainable = optional(params, "cond_stage_trainable")?.unwrap_or(false);
    if cond_stage_trainable && matches!(cond_stage, Some(EncoderSection::FirstStage)) {
        return Err(
            "`cond_stage_trainable`: `__is_first_stage__` stays frozen, as the first stage does".into()
        );
    }
    // As `LatentDiffusion.__init__` of the reference.
    let concat_mode = optional(params, "concat_mode")?.unwrap_or(true);
    let key = optional::<ConditioningKey>(params, "conditioning_key")?;
    let old = if concat_mode { ConditioningKey::Concat } else { ConditioningKey::CrossAttn };
    let conditioning_key = cond_stage.as_ref().map(|_| key.unwrap_or(old));
    Ok(ModelConfig::Diffusion(Box::new(DiffusionConfig {
        base_learning_rate,
        objective,
        unet,
        use_checkpoint,
        first_stage,
        first_stage_ckpt,
        cond_stage,
        cond_stage_trainable,
        first_stage_key: optional(params, "first_stage_key")?.unwrap_or_else(|| "image".into()),
        cond_stage_key: optional(params, "cond_stage_key")?,
        conditioning_key,
        use_ema: optional(params, "use_ema")?.unwrap_or(true),
        scheduler: course(params)?,
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
    let [lpips_ckpt, lpips_linear_ckpt] =
        [optional(&numbers, "lpips_ckpt")?, optional(&numbers, "lpips_linear_ckpt")?];
    numbers.retain(|key, _| !["lpips_ckpt", "lpips_linear_ckpt"].contains(&key.as_str()));
    if lpips_linear_ckpt.is_some() && lpips_ckpt.is_none() {
        return Err("`lossconfig.params.lpips_linear_ckpt` needs `lpips_ckpt`, the trunk's weights".into());
    }
    let loss = FirstStageLossConfig::from_target(&loss.target, &Value::Object(numbers));
    Ok(AutoencoderConfig {
        base_learning_rate,
        first_stage: first_stage(target)?,
        loss: loss.map_err(|e| format!("`lossconfig`: {e}"))?,
        lpips_ckpt,
        lpips_linear_ckpt,
        ckpt_path: optional(params, "ckpt_path")?,
        scheduler: course(params)?,
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

/// What encodes the condition; `None` for an unconditional model.
fn cond_stage(section: Option<&Value>) -> Result<Option<EncoderSection>, String> {
    match section {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name == "__is_unconditional__" => Ok(None),
        Some(section) => encoder(section).map(Some),
    }
}

fn encoder(section: &Value) -> Result<EncoderSection, String> {
    if let Value::String(name) = section {
        return match name.as_str() {
            "__is_first_stage__" => Ok(EncoderSection::FirstStage),
            _ => Err(format!("`cond_stage_config` is {name}: not supported")),
        };
    }
    if let Value::Array(list) = section {
        let [first, second] = list.as_slice() else {
            return Err(format!("`cond_stage_config` is a list of {}, expected two encoders", list.len()));
        };
        return Ok(EncoderSection::Both(Box::new([encoder(first)?, encoder(second)?])));
    }
    let Target { target, mut params } = parse("cond_stage_config", section)?;
    let mut file = |key: &str| match params.as_object_mut().and_then(|params| params.remove(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(file) => parse(&format!("cond_stage_config.params.{key}"), &file).map(Some),
    };
    let (vocab_file, ckpt_path) = (file("vocab_file")?, file("ckpt_path")?);
    let stage = CondStageConfig::from_target(&target, &params).map_err(|e| e.to_string())?;
    Ok(EncoderSection::Encoder(EncoderConfig { stage, vocab_file, ckpt_path }))
}

/// Keys of an [`ObjectiveConfig`] that it doesn't write where they are not given.
const OPTIONAL: [&str; 2] = ["given_betas", "snr_gamma"];

/// The course of the learning rate (`scheduler_config`), where there is one.
fn course(params: &Map<String, Value>) -> Result<Option<RateConfig>, String> {
    optional::<Target>(params, "scheduler_config")?.map(|target| rate_of(&target)).transpose()
}

/// The reference's learning-rate classes.
fn rate_of(target: &Target) -> Result<RateConfig, String> {
    let decay = match target.class() {
        "LambdaLinearScheduler" => Decay::Linear,
        "LambdaWarmUpCosineScheduler" | "LambdaWarmUpCosineScheduler2" => Decay::Cosine,
        _ => return Err(format!("`scheduler_config.target` is {}: not supported", target.target)),
    };
    let params = target.params.as_object().cloned().unwrap_or_default();
    // One number a cycle; a class without lists has one cycle and other names.
    let numbers = |keys: &[&str]| -> Result<Option<Vec<f64>>, String> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((*key, params.get(*key)?))) else {
            return Ok(None);
        };
        let all = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        let all: Option<Vec<f64>> = all.iter().map(number).collect();
        match all {
            Some(all) if all.iter().all(|x| x.is_finite() && *x >= 0.0) => Ok(Some(all)),
            _ => Err(format!("`scheduler_config.params.{key}`: expected numbers of at least 0")),
        }
    };
    let lengths = numbers(&["cycle_lengths", "max_decay_steps"])?;
    let count = lengths.as_ref().map_or(1, Vec::len);
    let each = |keys: &[&str], default: f64| -> Result<Vec<f64>, String> {
        let all = numbers(keys)?.unwrap_or_else(|| vec![default; count]);
        match all.len() == count {
            true => Ok(all),
            false => Err(format!("`scheduler_config.params.{}`: {} cycles of {count}", keys[0], all.len())),
        }
    };
    let warm_up = each(&["warm_up_steps"], 0.0)?;
    let (f_start, f_max) = (each(&["f_start", "lr_start"], 0.0)?, each(&["f_max", "lr_max"], 1.0)?);
    let f_min = each(&["f_min", "lr_min"], 1.0)?;
    let cycles: Vec<RateCycle> = (0..count)
        .map(|i| RateCycle {
            warm_up_steps: warm_up[i] as u64,
            // Without a length nothing ends.
            length: lengths.as_ref().map_or(u64::MAX, |lengths| lengths[i] as u64),
            f_start: f_start[i],
            f_max: f_max[i],
            f_min: f_min[i],
        })
        .collect();
    let [RateCycle { warm_up_steps, f_start, f_max, f_min, .. }] = cycles[..] else {
        return Ok(RateConfig { decay, cycles, ..RateConfig::default() });
    };
    let one = RateConfig { warm_up_steps, f_start, f_max, f_min, ..RateConfig::default() };
    let decay_until = lengths.map(|lengths| lengths[0] as u64);
    Ok(match decay {
        // A decay from a number to itself is none.
        _ if f_min == f_max => RateConfig { decay: Decay::Constant, decay_until, ..one },
        // The reference's line begins at the cycle's first step, ours where the warm-up ends.
        Decay::Linear => RateConfig { decay, cycles, ..RateConfig::default() },
        _ => RateConfig { decay, decay_until, ..one },
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

pub(super) fn name_unused(
    place: &str,
    params: &Map<String, Value>,
    used: &[&[&str]],
    unused: &mut Vec<String>,
) {
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

pub(super) fn parse<T: DeserializeOwned>(place: &str, value: &Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|e| format!("`{place}`: {e}"))
}
