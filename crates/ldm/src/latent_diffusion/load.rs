//! Whole models from a config and a checkpoint with the reference's names.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use ldm_conditioning::bert::BertTokenizer;
use ldm_conditioning::{CondStage, CondStageConfig, CondStageConfigError, ConditioningError};
use ldm_nn::weights::WeightFile;
use ldm_scheduler::SchedulerConfig;
use ldm_unet::UNetConfig;
use ldm_vae::FirstStage;

use super::{LatentDiffusion, diffusers, parts};
use crate::device::check_dtype;
use crate::model::{
    Described, FIRST_STAGE, UNET, VAE, ema_wanted, first_stage, located, read, read_unet, scale_factor,
    warn_of_unclaimed,
};
use crate::presets;
use crate::{CondStageTarget, ConditioningKey, Error, LatentDiffusionConfig, LoadOptions};

pub(super) const COND_STAGE: &str = "cond_stage_model.";

impl LatentDiffusion {
    /// Loads a model: a checkpoint with the reference's names and the YAML in `options` (a `vocab.txt` beside that
    /// counts instead of bert-base-uncased's vocabulary), or a directory of diffusers' (`LDMTextToImagePipeline`,
    /// `LDMSuperResolutionPipeline`, `LDMPipeline`), or, with the feature `hub`, such a one called `owner/name`.
    ///
    /// # Errors
    /// [`Error::NotAModel`] where the source or its YAML is missing; [`Error::Unsupported`] names a `target` that is not
    /// known here; [`Error::Config`] a `conditioning_key` that encoder or U-Net don't fit; [`Error::Weights`] lists the
    /// tensors that don't fit.
    pub fn load(source: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, Error> {
        check_dtype(options.dtype, &options.device)?;
        let source = located(source.as_ref(), options)?;
        if source.is_dir() {
            return diffusers::load(&source, options);
        }
        let Some(yaml) = &options.config else {
            let reason = "a checkpoint needs its YAML config, or a name of the registry".into();
            return Err(Error::NotAModel { path: source, reason });
        };
        match Described::read(yaml)? {
            Described::Diffusion(config) => load(&config, yaml, &source, options),
            Described::FirstStage(_) => {
                Err(Error::config(yaml, "it describes a first stage, not a whole model"))
            }
        }
    }

    /// Loads the checkpoint of a published model, named as in [`presets`] (`cin256`).
    ///
    /// # Errors
    /// As [`load`](Self::load); [`Error::Argument`] for a name that is not in the registry.
    pub fn load_preset(
        name: &str,
        checkpoint: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let preset = presets::ldm(name).ok_or_else(|| {
            let known: Vec<_> = presets::LDMS.iter().map(|preset| preset.name).collect();
            Error::argument("preset", format!("`{name}` is none of {}", known.join(", ")))
        })?;
        check_dtype(options.dtype, &options.device)?;
        load(&preset.config(), Path::new(preset.file), checkpoint.as_ref(), options)
    }

    /// A model with fresh weights, as training starts from.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names a `target` that is not known here; [`Error::Config`] a key that can't be built.
    pub fn new(config: &LatentDiffusionConfig, device: &Device) -> Result<Self, Error> {
        let path = Path::new("config");
        let unet = parts::unet(config, path)?;
        let cond_stage = cond_stage(config, &unet, path, device)?;
        let unet = unet.init(device).map_err(|e| Error::config(path, e))?;
        let first_stage = parts::first_stage(config, config.scale_factor, path)?.init(device)?;
        assemble(config, path, Parts { unet, first_stage, cond_stage }, device)
    }
}

struct Parts {
    unet: ldm_unet::UNet,
    first_stage: FirstStage,
    cond_stage: Option<CondStage>,
}

fn load(
    config: &LatentDiffusionConfig,
    path: &Path,
    checkpoint: &Path,
    options: &LoadOptions,
) -> Result<LatentDiffusion, Error> {
    // What can't be built is found before anything is read.
    let unet = parts::unet(config, path)?;
    let cond_stage = cond_stage(config, &unet, path, &options.device)?;
    let file = WeightFile::open(checkpoint)?;
    let first = parts::first_stage(config, scale_factor(config, &file)?, path)?;
    let parts = Parts {
        unet: read_unet(&file, &unet, ema_wanted(config, &file, options), options)?,
        first_stage: first_stage::read(&file, path, first, false, options)?,
        cond_stage: cond_stage.map(|stage| read_cond_stage(&file, stage, options)).transpose()?,
    };
    warn_of_unclaimed(&file, &[UNET, VAE, COND_STAGE]);
    assemble(config, path, parts, &options.device)
}

fn assemble(
    config: &LatentDiffusionConfig,
    path: &Path,
    parts: Parts,
    device: &Device,
) -> Result<LatentDiffusion, Error> {
    let Parts { unet, first_stage, cond_stage } = parts;
    if first_stage.latent_channels() != unet.config().out_channels {
        let (latent, predicted) = (first_stage.latent_channels(), unet.config().out_channels);
        let reason =
            format!("the first stage's latent has {latent} channels, the U-Net predicts {predicted}");
        return Err(Error::config(path, reason));
    }
    let scheduler = SchedulerConfig::compvis(
        &config.beta_schedule,
        config.linear_start,
        config.linear_end,
        config.timesteps,
    )
    .map_err(|e| Error::config(path, e))?;
    let first_stage_conditions = is_first_stage(config);
    Ok(LatentDiffusion {
        scaling: first_stage.scaling().clone(),
        size: unet.config().sample_size.unwrap_or([64; 2]),
        unet,
        first_stage,
        cond_stage,
        conditioning_key: config.conditioning(),
        scheduler: scheduler.with("prediction_type", config.prediction_type(path)?),
        patches: None,
        config: Some(config.clone()),
        first_stage_conditions,
        truncate: true,
        device: device.clone(),
    })
}

/// Whether tau_theta gives what `key` says (E where there is none), and the U-Net has a place for it.
fn fits(key: ConditioningKey, cond_stage: Option<&CondStage>, unet: &UNetConfig) -> Result<(), String> {
    use ConditioningKey::{Adm, Concat, CrossAttn, Hybrid};
    let (encoder, gives) = match cond_stage {
        None => ("the first stage", "channels"),
        Some(CondStage::SpatialRescaler(_)) => ("SpatialRescaler", "channels"),
        // What needs no encoder comes as the caller has it, and two encoders as each has it.
        Some(CondStage::Identity(_) | CondStage::Hybrid(_)) => ("", ""),
        Some(stage) => (stage.name(), "a context"),
    };
    let wanted = match key {
        Concat => "channels",
        CrossAttn | Hybrid => "a context",
        Adm => "a class or a vector",
    };
    if !gives.is_empty() && gives != wanted {
        return Err(format!(
            "conditioning_key `{key}` needs {wanted} of its encoder, {encoder} gives {gives}"
        ));
    }
    let lacks = |what: &str| Err(format!("conditioning_key `{key}`, but the U-Net has no {what}"));
    if matches!(key, CrossAttn | Hybrid) && unet.context_dim.is_none() {
        return lacks("cross-attention (context_dim)");
    }
    if matches!(key, Concat | Hybrid) && unet.in_channels <= unet.out_channels {
        return lacks("channels beside the latent's (in_channels)");
    }
    if key == Adm && unet.num_classes.is_none() {
        return lacks("class embedding (num_classes)");
    }
    Ok(())
}

fn is_first_stage(config: &LatentDiffusionConfig) -> bool {
    matches!(&config.cond_stage_config, Some(CondStageTarget::Name(name)) if name == FIRST_STAGE)
}

/// tau_theta, not yet loaded; `None` where there is none, or E takes its place.
fn cond_stage(
    config: &LatentDiffusionConfig,
    unet: &UNetConfig,
    path: &Path,
    device: &Device,
) -> Result<Option<CondStage>, Error> {
    let named = |error| match error {
        CondStageConfigError::Target { target, known } => Error::Unsupported {
            path: path.into(),
            what: format!("the encoder of conditions `{target}`"),
            supported: format!("{known} are"),
        },
        other => Error::config(path, other),
    };
    let Some(key) = config.conditioning() else { return Ok(None) };
    let stage = match &config.cond_stage_config {
        _ if is_first_stage(config) => None,
        None => None,
        Some(CondStageTarget::Encoder(target)) => {
            let stage = CondStageConfig::from_target(&target.target, &target.params).map_err(named)?;
            Some(with_vocabulary(stage.init(device).map_err(named)?, &stage, path)?)
        }
        Some(CondStageTarget::Name(name)) => {
            return Err(Error::Unsupported {
                path: path.into(),
                what: format!("cond_stage_config `{name}`"),
                supported: "__is_first_stage__ and __is_unconditional__ are".into(),
            });
        }
    };
    fits(key, stage.as_ref(), unet).map_err(|reason| Error::config(path, reason))?;
    Ok(stage)
}

/// A vocabulary of one's own lies beside the YAML: the reference's format has no place for it.
fn with_vocabulary(stage: CondStage, config: &CondStageConfig, yaml: &Path) -> Result<CondStage, Error> {
    match (stage, config, yaml.parent()) {
        (CondStage::BertEmbedder(bert), CondStageConfig::BertEmbedder(config), Some(folder))
            if config.use_tokenizer && yaml.is_file() && folder.join("vocab.txt").is_file() =>
        {
            let tokenizer = BertTokenizer::from_dir(folder, config.max_seq_len);
            let tokenizer = Arc::new(tokenizer.map_err(ConditioningError::from)?);
            Ok(CondStage::BertEmbedder(bert.with_tokenizer(tokenizer).map_err(ConditioningError::from)?))
        }
        (stage, ..) => Ok(stage),
    }
}

fn read_cond_stage(file: &WeightFile, stage: CondStage, options: &LoadOptions) -> Result<CondStage, Error> {
    if matches!(stage, CondStage::Identity(_)) {
        return Ok(stage);
    }
    let keys = stage.compvis_keys();
    read(file, COND_STAGE, stage, &keys, options.dtype, &[])
}
