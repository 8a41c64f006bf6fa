//! Diffusers directories, read.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::DType;
use ldm_conditioning::ConditioningError;
use ldm_conditioning::bert::{BertEmbedder, BertEmbedderConfig, BertKeys, BertTokenizer};
use ldm_conditioning::clip::{
    ClipKeys, ClipText, ClipTextConfig, ClipTextEncoder, ClipTokenizer, HiddenState,
};
use ldm_nn::weights::{KeyMap, Loader, WeightFile};
use ldm_scheduler::SchedulerConfig;
use ldm_unet::{UNet, UNetConfig};
use ldm_vae::{
    AutoencoderKl, AutoencoderKlConfig, DiffusersAutoencoderKl, DiffusersVqModel, FirstStage,
    FirstStageConfig, Naming, VqModelConfig,
};
use serde_json::Value;
use serde_path_to_error::deserialize;

use super::files::{part_folder, part_json, part_weights};
use super::index::{Family, ModelIndex};
use super::{LoadOptions, StableDiffusion, default_size};
use crate::Error;
use crate::pipeline::{TextEncoder, TextStage};

/// Loads every part that sampling needs.
pub(super) fn load(directory: &Path, options: &LoadOptions) -> Result<StableDiffusion, Error> {
    let index = ModelIndex::read(directory)?;
    let family = index.family(directory)?;
    let scheduler = load_scheduler(directory, &index)?;
    let text = load_text(directory, family, &index, options)?;
    let vae = load_vae(directory, options)?;
    let unet = load_unet(directory, options)?;
    let device = options.device.clone();
    let default_size = default_size(latent_size(directory, &index, family, &unet)?, &vae);
    Ok(StableDiffusion { unet, vae, text, scheduler, family, default_size, device, dtype: options.dtype })
}

/// Rows and columns of the latents that the U-Net was trained for, where its config says so. diffusers' pipelines of Stable Diffusion 1
/// and 2 take what was written before version 0.9.0 for models of 64 at least.
fn latent_size(
    directory: &Path,
    index: &ModelIndex,
    family: Family,
    unet: &UNet,
) -> Result<Option<[usize; 2]>, Error> {
    let json: Value = part_json(directory, "unet", "config.json")?;
    let version = json.get("_diffusers_version").and_then(Value::as_str).unwrap_or_default();
    let outdated = version.strip_prefix("0.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    let side = json.get("sample_size").and_then(Value::as_u64);
    let mended = family == Family::StableDiffusion && !index.class_name.starts_with("LatentConsistencyModel");
    if mended && outdated.is_some_and(|minor| minor < 9) && side.is_some_and(|side| side < 64) {
        return Ok(Some([64; 2]));
    }
    Ok(unet.config().sample_size)
}

/// Loads `directory/unet` alone.
///
/// # Errors
/// [`Error::MissingPart`] where the folder, its config or its weights are missing; [`Error::UNet`] and
/// [`Error::Weights`] where they make no U-Net.
pub fn load_unet(directory: &Path, options: &LoadOptions) -> Result<UNet, Error> {
    let json: Value = part_json(directory, "unet", "config.json")?;
    let named = |e| Error::config(directory.join("unet/config.json"), e);
    let config = UNetConfig::from_diffusers(&json).map_err(named)?;
    let unet = config.init(&options.device).map_err(named)?;
    let keys = config.diffusers_keys().map_err(named)?;
    load_part(directory, "unet", unet, &keys, options.dtype, options)
}

/// Loads the KL first stage of a directory, `vae/` or `vqvae/`, alone; in f32 where it would overflow f16.
///
/// # Errors
/// As [`load_unet`], with [`Error::Vae`]; [`Error::Unsupported`] where it is not a KL first stage.
pub fn load_vae(directory: &Path, options: &LoadOptions) -> Result<AutoencoderKl, Error> {
    match load_first_stage(directory, options)? {
        FirstStage::Kl(vae) => Ok(vae),
        _ => Err(Error::Unsupported {
            path: directory.into(),
            what: "a VQModel as the first stage".into(),
            supported: "an AutoencoderKL is; `LatentDiffusion` takes both".into(),
        }),
    }
}

/// Loads the first stage of a directory, `vae/` or `vqvae/`, alone: KL or VQ, as its `_class_name` says.
///
/// # Errors
/// As [`load_unet`], with [`Error::Vae`].
pub fn load_first_stage(directory: &Path, options: &LoadOptions) -> Result<FirstStage, Error> {
    let only_vq = !directory.join("vae").is_dir() && directory.join("vqvae").is_dir();
    load_stage(directory, if only_vq { "vqvae" } else { "vae" }, options)
}

fn load_stage(directory: &Path, part: &str, options: &LoadOptions) -> Result<FirstStage, Error> {
    let path = directory.join(part).join("config.json");
    let json: Value = part_json(directory, part, "config.json")?;
    let named = |e| Error::config(&path, e);
    // The folder doesn't tell: the `vqvae` of text-to-image LDM is a KL model.
    let is_vq = match json.get("_class_name").and_then(Value::as_str) {
        Some(class) => class == "VQModel",
        None => json.get("num_vq_embeddings").is_some(),
    };
    let config = if is_vq {
        let theirs: DiffusersVqModel = deserialize(json).map_err(|e| Error::config(&path, e))?;
        FirstStageConfig::Vq(VqModelConfig::try_from(&theirs).map_err(named)?)
    } else {
        let theirs: DiffusersAutoencoderKl = deserialize(json).map_err(|e| Error::config(&path, e))?;
        FirstStageConfig::Kl(AutoencoderKlConfig::try_from(&theirs).map_err(named)?)
    };
    let stage = config.init(&options.device).map_err(named)?;
    let file = part_weights(directory, part, options.variant.as_deref())?;
    let naming = Naming::detect(file.tensors().map(|t| t.name.as_str())).unwrap_or(Naming::Diffusers);
    let names = stage.weight_names(naming);
    load_file(&file, part, stage, &names, options.vae_dtype(config.force_upcast()))
}

/// Loads `directory/part` (`text_encoder`, `text_encoder_2`) alone.
///
/// # Errors
/// As [`load_unet`], with [`Error::Conditioning`].
pub fn load_text_encoder(
    directory: &Path,
    part: &str,
    options: &LoadOptions,
) -> Result<ClipTextEncoder, Error> {
    let path = part_folder(directory, part)?.join("config.json");
    if !path.is_file() {
        let looked_for = format!("there is no file {}", path.display());
        return Err(Error::MissingPart { directory: directory.into(), part: part.into(), looked_for });
    }
    let named = |e| Error::config(&path, e);
    let config = ClipTextConfig::from_file(&path).map_err(named)?;
    let encoder = config.init(&options.device).map_err(named)?;
    let file = part_weights(directory, part, options.variant.as_deref())?;
    let keys =
        ClipKeys::detect(file.tensors().map(|t| t.name.as_str()), "").unwrap_or(ClipKeys::Transformers);
    load_file(&file, part, encoder, &keys, options.dtype)
}

/// Loads `directory/bert` with `directory/tokenizer`.
///
/// # Errors
/// As [`load_unet`], with [`Error::Conditioning`].
pub fn load_bert(directory: &Path, options: &LoadOptions) -> Result<BertEmbedder, Error> {
    let embedder = load_bert_encoder(directory, options)?;
    let length = embedder.config().max_seq_len;
    let tokenizer = BertTokenizer::from_dir(part_folder(directory, "tokenizer")?, length);
    let tokenizer = Arc::new(tokenizer.map_err(ConditioningError::from)?);
    Ok(embedder.with_tokenizer(tokenizer).map_err(ConditioningError::from)?)
}

/// Loads `directory/bert` alone, which takes ids, no texts.
///
/// # Errors
/// As [`load_unet`], with [`Error::Config`] for what is no `LDMBertModel`.
pub fn load_bert_encoder(directory: &Path, options: &LoadOptions) -> Result<BertEmbedder, Error> {
    let json: Value = part_json(directory, "bert", "config.json")?;
    let named = |e| Error::config(directory.join("bert/config.json"), e);
    let embedder = BertEmbedderConfig::from_diffusers(&json).and_then(|config| config.init(&options.device));
    load_part(directory, "bert", embedder.map_err(named)?, &BertKeys::Diffusers, options.dtype, options)
}

fn load_text(
    directory: &Path,
    family: Family,
    index: &ModelIndex,
    options: &LoadOptions,
) -> Result<TextStage, Error> {
    let part = |encoder: &str, tokenizer: &str, state| -> Result<ClipText, Error> {
        let tokenizer = ClipTokenizer::from_dir(part_folder(directory, tokenizer)?)
            .map_err(|e| Error::Conditioning(e.into()))?;
        Ok(ClipText::new(tokenizer, load_text_encoder(directory, encoder, options)?, state))
    };
    match family {
        Family::LatentDiffusion => Ok(TextStage {
            first: TextEncoder::Bert(Box::new(load_bert(directory, options)?)),
            second: None,
            zeros_for_no_negative: false,
        }),
        Family::StableDiffusion if masks(directory)? => Err(Error::Unsupported {
            path: directory.join("text_encoder/config.json"),
            what: "`use_attention_mask`".into(),
            supported: "texts whose padding is attended to, as all published models have them".into(),
        }),
        Family::StableDiffusion => Ok(TextStage {
            first: TextEncoder::Clip(Box::new(part("text_encoder", "tokenizer", HiddenState::LAST)?)),
            second: None,
            zeros_for_no_negative: false,
        }),
        Family::StableDiffusionXl => {
            let state = HiddenState::PENULTIMATE;
            let second = part("text_encoder_2", "tokenizer_2", state)?;
            if !index.has("text_encoder") {
                return Err(Error::Unsupported {
                    path: directory.join("model_index.json"),
                    what: "SDXL without its first text encoder (a refiner)".into(),
                    supported: "SDXL base has two".into(),
                });
            }
            Ok(TextStage {
                first: TextEncoder::Clip(Box::new(part("text_encoder", "tokenizer", state)?)),
                second: Some(second),
                zeros_for_no_negative: index.flag("force_zeros_for_empty_prompt", true),
            })
        }
    }
}

/// Whether diffusers' Stable Diffusion pipelines would hide the padding of texts.
fn masks(directory: &Path) -> Result<bool, Error> {
    let json: Value = part_json(directory, "text_encoder", "config.json")?;
    Ok(json.get("use_attention_mask").and_then(Value::as_bool).unwrap_or(false))
}

/// The scheduler's config; its class is the one that the directory's index names, as in diffusers.
pub(crate) fn load_scheduler(directory: &Path, index: &ModelIndex) -> Result<SchedulerConfig, Error> {
    let path = part_folder(directory, "scheduler")?.join("scheduler_config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let config = SchedulerConfig::from_json(&text).map_err(|e| Error::config(&path, e))?;
    let config = match index.class("scheduler") {
        Some(class) => config.with("_class_name", class),
        None => config,
    };
    if let Err(error) = config.kind() {
        // No error yet: a request may name another sampler.
        tracing::warn!("{}: {error}", path.display());
    }
    Ok(config)
}

fn load_part<M: Module>(
    directory: &Path,
    part: &str,
    module: M,
    keys: &dyn KeyMap,
    dtype: DType,
    options: &LoadOptions,
) -> Result<M, Error> {
    let file = part_weights(directory, part, options.variant.as_deref())?;
    load_file(&file, part, module, keys, dtype)
}

/// Loads a module whose weights are a file of their own.
fn load_file<M: Module>(
    file: &WeightFile,
    part: &str,
    module: M,
    keys: &dyn KeyMap,
    dtype: DType,
) -> Result<M, Error> {
    let (module, report) = Loader::new(keys).dtype(dtype).load(module, file)?;
    if !report.unknown.is_empty() {
        tracing::warn!(part, unknown = ?report.unknown, "tensors that nothing asked for");
    }
    Ok(module)
}
