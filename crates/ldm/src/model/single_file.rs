//! Single files with CompVis' names: U-Net, first stage and text encoder under a prefix each.

use std::path::Path;

use burn::module::Module;
use burn::tensor::DType;
use ldm_nn::weights::{Entry, KeyMap, Loader, Saver, WeightFile};
use ldm_scheduler::{SamplerKind, SchedulerConfig};
use ldm_unet::keys::CompVisKeys;
use ldm_unet::{AddedEmbedding, UNet, UNetConfig};
use ldm_vae::{AutoencoderKl, AutoencoderKlConfig, FirstStage, FirstStageConfig, Naming};

use super::ema::EmaKeys;
use super::first_stage;
use super::recognise::Known;
use super::text_tower::{self, Slot, Tower};
use super::unclaimed::warn_of_unclaimed;
use super::yaml::{CondStageTarget, Described, LatentDiffusionConfig, Target};
use super::{Family, LoadOptions, StableDiffusion, default_size};
use crate::Error;
use crate::latent_diffusion::parts;
use crate::pipeline::{TextEncoder, TextStage};

pub(crate) const UNET: &str = "model.diffusion_model.";
pub(crate) const VAE: &str = "first_stage_model.";

/// What a single file holds, told by its YAML or by its keys.
struct Plan {
    unet: UNetConfig,
    vae: AutoencoderKlConfig,
    scheduler: SchedulerConfig,
    family: Family,
    texts: Vec<Slot>,
    use_ema: bool,
}

/// Loads every part that sampling needs.
pub(super) fn load(path: &Path, options: &LoadOptions) -> Result<StableDiffusion, Error> {
    let file = WeightFile::open(path)?;
    let plan = match &options.config {
        Some(yaml) => from_yaml(yaml, &file, options)?,
        None => from_keys(&file, options)?,
    };
    let towers = plan.texts.iter().map(|slot| slot.tower(&file)).collect::<Result<Vec<_>, _>>()?;
    let unet = read_unet(&file, &plan.unet, plan.use_ema, options)?;
    let vae = read_vae(&file, plan.vae, options)?;
    let texts = towers.iter().map(|tower| tower.load(&file, options)).collect::<Result<Vec<_>, _>>()?;
    let prefixes: Vec<_> = [UNET, VAE].into_iter().chain(towers.iter().map(Tower::prefix)).collect();
    warn_of_unclaimed(&file, &prefixes);
    let mut texts = texts.into_iter();
    let first = texts
        .next()
        .ok_or_else(|| Error::NotAModel { path: path.into(), reason: "it holds no text encoder".into() })?;
    let text = TextStage {
        first: TextEncoder::Clip(Box::new(first)),
        second: texts.next(),
        zeros_for_no_negative: plan.family == Family::StableDiffusionXl,
    };
    let default_size = default_size(unet.config().sample_size, &vae);
    Ok(StableDiffusion {
        unet,
        vae,
        text,
        scheduler: plan.scheduler,
        family: plan.family,
        default_size,
        device: options.device.clone(),
        dtype: options.dtype,
    })
}

/// A published model, recognised.
fn from_keys(file: &WeightFile, options: &LoadOptions) -> Result<Plan, Error> {
    // Its other keys are SDXL's, but it predicts something else.
    if file.contains("edm_mean") {
        return Err(Error::Unsupported {
            path: file.path().into(),
            what: "a model in EDM's formulation (`edm_mean`, as Playground 2.5)".into(),
            supported: "Stable Diffusion 1, 2 and XL are".into(),
        });
    }
    let known = Known::recognise(file).ok_or_else(|| Error::NotAModel {
        path: file.path().into(),
        reason: "its keys are those of no Stable Diffusion 1, 2 or XL; give its YAML config".into(),
    })?;
    let (scheduler, prediction) = known.scheduler(file);
    let prediction = options.prediction_type.as_deref().unwrap_or(prediction);
    let lacks =
        |part: &str| Error::NotAModel { path: file.path().into(), reason: format!("it holds no {part}") };
    Ok(Plan {
        unet: known.unet(file, prediction).ok_or_else(|| lacks("U-Net"))?,
        vae: known.vae(file).ok_or_else(|| lacks("first stage"))?,
        scheduler: SchedulerConfig::from_json(scheduler)?.with("prediction_type", prediction),
        family: known.family(),
        texts: text_tower::published(known.family(), file),
        use_ema: options.use_ema.unwrap_or(false),
    })
}

/// Whatever the YAML describes.
fn from_yaml(yaml: &Path, file: &WeightFile, options: &LoadOptions) -> Result<Plan, Error> {
    let Described::Diffusion(params) = Described::read(yaml)? else {
        return Err(Error::config(yaml, "it describes a first stage, not a whole model"));
    };
    let prediction = match &options.prediction_type {
        Some(prediction) => prediction.clone(),
        None => params.prediction_type(yaml)?.into(),
    };
    let (family, texts) = text_slots(yaml, &params)?;
    // DiffusionEngine's own schedule is Stable Diffusion's; its YAML spells it in a class of its own.
    let (start, end) = match family {
        Family::StableDiffusionXl => (0.00085, 0.012),
        _ => (params.linear_start, params.linear_end),
    };
    let sampler = if family == Family::StableDiffusionXl { SamplerKind::Euler } else { SamplerKind::Ddim };
    let scheduler = SchedulerConfig::compvis(&params.beta_schedule, start, end, params.timesteps)
        .map_err(|e| Error::config(yaml, e))?
        .with("_class_name", sampler.class_name())
        .with("timestep_spacing", "leading")
        .with("prediction_type", prediction);
    Ok(Plan {
        unet: unet_config(yaml, &params)?,
        vae: vae_config(yaml, first_stage_target(yaml, &params)?, scale_factor(&params, file)?, family)?,
        scheduler,
        family,
        texts,
        use_ema: ema_wanted(&params, file, options),
    })
}

/// The text encoders that a YAML describes, and how their model takes its prompt.
pub(super) fn text_slots(yaml: &Path, params: &LatentDiffusionConfig) -> Result<(Family, Vec<Slot>), Error> {
    match (&params.cond_stage_config, &params.conditioner_config) {
        (_, Some(conditioner)) => {
            Ok((Family::StableDiffusionXl, text_tower::from_conditioner(yaml, conditioner)?))
        }
        (Some(CondStageTarget::Encoder(target)), None) => {
            Ok((Family::StableDiffusion, vec![text_tower::from_target(yaml, target)?]))
        }
        (Some(CondStageTarget::Name(name)), None) => {
            Err(unsupported(yaml, &format!("cond_stage_config `{name}`")))
        }
        (None, None) => Err(Error::config(yaml, "there is no cond_stage_config")),
    }
}

/// Whether the U-Net's EMA weights are to be taken: as the caller says, else as the YAML says if they are there.
pub(crate) fn ema_wanted(params: &LatentDiffusionConfig, file: &WeightFile, options: &LoadOptions) -> bool {
    let has_ema = || file.tensors().any(|t| t.name.starts_with(EmaKeys::<CompVisKeys>::PREFIX));
    options.use_ema.unwrap_or_else(|| params.use_ema && has_ema())
}

/// The checkpoint's own buffer where it has one (`scale_by_std`), else the YAML's number.
pub(crate) fn scale_factor(params: &LatentDiffusionConfig, file: &WeightFile) -> Result<f64, Error> {
    if !file.contains("scale_factor") {
        return Ok(params.scale_factor);
    }
    let (_, values) = file.read_f32("scale_factor")?;
    Ok(values.first().map_or(params.scale_factor, |v| f64::from(*v)))
}

fn unet_config(yaml: &Path, params: &LatentDiffusionConfig) -> Result<UNetConfig, Error> {
    let config = parts::unet(params, yaml)?;
    if params.conditioner_config.is_none() {
        return Ok(config);
    }
    // Stability's YAML, the one with a conditioner: it doesn't say its 1024 pixels, and its label is the pooled text
    // with the sizes (`ConcatTimestepEmbedderND`, 256 wide).
    Ok(UNetConfig {
        sample_size: config.sample_size.or(Some([128; 2])),
        addition_embed_type: Some(AddedEmbedding::TextTime),
        addition_time_embed_dim: config.addition_time_embed_dim.or(Some(256)),
        ..config
    })
}

fn first_stage_target<'a>(yaml: &Path, params: &'a LatentDiffusionConfig) -> Result<&'a Target, Error> {
    params.first_stage_config.as_ref().ok_or_else(|| Error::config(yaml, "there is no first_stage_config"))
}

fn vae_config(
    yaml: &Path,
    target: &Target,
    scale_factor: f64,
    family: Family,
) -> Result<AutoencoderKlConfig, Error> {
    let FirstStageConfig::Kl(mut config) = first_stage::config(yaml, target, scale_factor)? else {
        return Err(unsupported(yaml, &format!("the first stage `{}`", target.target)));
    };
    config.force_upcast |= family == Family::StableDiffusionXl;
    Ok(config)
}

pub(super) fn unsupported(yaml: &Path, what: &str) -> Error {
    Error::Unsupported {
        path: yaml.into(),
        what: what.into(),
        supported:
            "UNetModel, AutoencoderKL, VQModel, VQModelInterface, IdentityFirstStage, FrozenCLIPEmbedder and \
                    FrozenOpenCLIPEmbedder are"
                .into(),
    }
}

/// Loads the U-Net of a single file that need hold nothing else.
///
/// # Errors
/// Where neither the YAML in `options` nor the keys tell its config; [`Error::Weights`].
pub fn load_unet_from_checkpoint(path: &Path, options: &LoadOptions) -> Result<UNet, Error> {
    let file = WeightFile::open(path)?;
    let (config, use_ema) = match &options.config {
        None => {
            let known = Known::recognise(&file);
            let config = known.and_then(|known| known.unet(&file, known.scheduler(&file).1));
            let config = config.ok_or_else(|| Error::NotAModel {
                path: path.into(),
                reason: "its keys are those of no known U-Net; give its YAML config".into(),
            })?;
            (config, options.use_ema.unwrap_or(false))
        }
        Some(yaml) => match Described::read(yaml)? {
            Described::FirstStage(_) => {
                return Err(Error::config(yaml, "it describes a first stage, no U-Net"));
            }
            Described::Diffusion(params) => {
                (unet_config(yaml, &params)?, ema_wanted(&params, &file, options))
            }
        },
    };
    read_unet(&file, &config, use_ema, options)
}

/// Loads the KL first stage of a single file that need hold nothing else.
///
/// # Errors
/// As [`load_unet_from_checkpoint`]; [`Error::Unsupported`] where it is of another kind.
pub fn load_vae_from_checkpoint(path: &Path, options: &LoadOptions) -> Result<AutoencoderKl, Error> {
    match load_first_stage_from_checkpoint(path, options)? {
        FirstStage::Kl(vae) => Ok(vae),
        _ => Err(unsupported(path, "a first stage that is no AutoencoderKL")),
    }
}

/// Loads the first stage of a single file that need hold nothing else, of any kind.
///
/// # Errors
/// As [`load_unet_from_checkpoint`].
pub fn load_first_stage_from_checkpoint(path: &Path, options: &LoadOptions) -> Result<FirstStage, Error> {
    let file = WeightFile::open(path)?;
    let (config, ema) = match &options.config {
        None => {
            let known = Known::recognise(&file).and_then(|known| known.vae(&file)).ok_or_else(|| {
                let reason = "its keys are those of no known first stage; give its YAML config".into();
                Error::NotAModel { path: path.into(), reason }
            })?;
            (FirstStageConfig::Kl(known), false)
        }
        Some(yaml) => match Described::read(yaml)? {
            Described::FirstStage(target) => {
                (first_stage::config(yaml, &target, 1.0)?, first_stage::uses_ema(&target, options))
            }
            Described::Diffusion(params) => {
                (parts::first_stage(&params, scale_factor(&params, &file)?, yaml)?, false)
            }
        },
    };
    first_stage::read(&file, described_by(path, options), config, ema, options)
}

pub(crate) fn read_unet(
    file: &WeightFile,
    config: &UNetConfig,
    use_ema: bool,
    options: &LoadOptions,
) -> Result<UNet, Error> {
    let named = |e| Error::config(described_by(file.path(), options), e);
    let unet = config.init(&options.device).map_err(named)?;
    let keys = config.compvis_keys().map_err(named)?;
    if use_ema {
        return read(file, EmaKeys::<CompVisKeys>::PREFIX, unet, &EmaKeys::unet(keys), options.dtype, &[]);
    }
    let prefix = prefix(file, &[UNET, "diffusion_model.", ""], "input_blocks.0.0.weight");
    read(file, prefix, unet, &keys, options.dtype, &[])
}

fn read_vae(
    file: &WeightFile,
    config: AutoencoderKlConfig,
    options: &LoadOptions,
) -> Result<AutoencoderKl, Error> {
    match first_stage::read(
        file,
        described_by(file.path(), options),
        FirstStageConfig::Kl(config),
        false,
        options,
    )? {
        FirstStage::Kl(vae) => Ok(vae),
        _ => Err(unsupported(file.path(), "a first stage that is no AutoencoderKL")),
    }
}

/// Where a config comes from: the YAML, or the file that was recognised by its keys.
pub(super) fn described_by<'a>(file: &'a Path, options: &'a LoadOptions) -> &'a Path {
    options.config.as_deref().unwrap_or(file)
}

/// The first prefix under which the file has `probe`; a file may hold one part alone.
pub(super) fn prefix(file: &WeightFile, prefixes: &[&'static str], probe: &str) -> &'static str {
    let found = prefixes.iter().find(|prefix| file.contains(&format!("{prefix}{probe}")));
    found.or(prefixes.first()).copied().unwrap_or("")
}

/// Loads what lies under `prefix`; tensors that match `unused` are nothing to warn of.
pub(crate) fn read<M: Module>(
    file: &WeightFile,
    prefix: &str,
    module: M,
    keys: &dyn KeyMap,
    dtype: DType,
    unused: &[&str],
) -> Result<M, Error> {
    let loader = Loader::new(keys).prefix(prefix).dtype(dtype).ignore(unused.iter().copied());
    let (module, report) = loader.load(module, file)?;
    if !report.unknown.is_empty() {
        tracing::warn!(prefix, unknown = ?report.unknown, "tensors that nothing asked for");
    }
    Ok(module)
}

/// Writes U-Net, first stage and text encoders under their prefixes.
pub(super) fn save(
    model: &StableDiffusion,
    path: &Path,
    dtype: DType,
    observer: &mut dyn FnMut(&Path, usize, usize),
) -> Result<(), Error> {
    let keys = model.unet.config().compvis_keys().map_err(|e| Error::config(path, e))?;
    let names = model.vae.weight_names(Naming::CompVis);
    let texts = text_tower::written(model);
    let Some((first, _)) = texts.first() else {
        return Err(Error::Unsupported {
            path: path.into(),
            what: "a BERT encoder in a checkpoint of Stable Diffusion's".into(),
            supported: "`LatentDiffusion::save_checkpoint` writes the paper's models".into(),
        });
    };
    let towers: Vec<_> = texts.iter().map(|(_, prefix)| text_tower::keys(prefix)).collect();
    // Stable Diffusion 2 reads the penultimate layer of a tower whose last layer is there all the same; ours ends
    // where it is read, so the file gets one more.
    let layers = &first.encoder.layers;
    let unused =
        |path: &str| -> Option<Entry> { towers[0].entry(&format!("layers.{}.{path}", layers.len())) };

    let mut saver = Saver::new().dtype(dtype).add(&model.unet, &keys, UNET).add(&model.vae, &names, VAE);
    for ((text, prefix), keys) in texts.iter().zip(&towers) {
        saver = saver.add(&text.encoder, keys, *prefix);
        if let (&text_tower::OPEN_CLIP, Some(last)) = (prefix, layers.last()) {
            saver = saver.add(last, &unused, *prefix);
        }
    }
    saver.write_observed(path, &mut |done, of| observer(path, done, of))?;
    Ok(())
}
