//! Models: what they are made of, and the ways they are kept on disk.

mod directory;
mod ema;
mod files;
pub(crate) mod first_stage;
#[cfg(feature = "hub")]
mod hub;
mod index;
mod lora;
mod recognise;
mod save;
mod shapes;
mod single_file;
mod text_model;
mod text_tower;
mod unclaimed;
mod writer;
mod yaml;

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device, Tensor};
use ldm_scheduler::SchedulerConfig;
use ldm_unet::UNet;
use ldm_vae::{AutoencoderKl, DiagonalGaussian, LatentScaling};

use crate::Error;
use crate::device::check_dtype;
use crate::pipeline::TextStage;

pub(crate) use directory::load_scheduler;
pub use directory::{load_bert, load_bert_encoder, load_first_stage, load_text_encoder, load_unet, load_vae};
pub use index::{Defaults, Family, ModelIndex};
pub use ldm_nn::ConditioningKey;
pub use recognise::Known;
pub(crate) use single_file::{UNET, VAE, ema_wanted, read, read_unet, scale_factor};
pub use single_file::{
    load_first_stage_from_checkpoint, load_unet_from_checkpoint, load_vae_from_checkpoint,
};
pub use text_model::{TextModel, load_text_encoder_from_checkpoint};
pub(crate) use unclaimed::warn_of_unclaimed;
pub(crate) use writer::DirectoryWriter;
pub use yaml::{CondStageTarget, LatentDiffusionConfig, Target};
pub(crate) use yaml::{Described, FIRST_STAGE, UNCONDITIONAL};

/// A text-to-image model, Stable Diffusion or one of the paper's: its parts, each usable alone.
#[derive(Debug, Clone)]
pub struct StableDiffusion {
    /// epsilon_theta.
    pub unet: UNet,
    /// The first stage, E and D.
    pub vae: AutoencoderKl,
    /// tau_theta.
    pub text: TextStage,
    /// The scheduler config as it was read.
    pub scheduler: SchedulerConfig,
    /// How the model takes its prompt.
    pub family: Family,
    /// Width and height in pixels that the model was trained for.
    pub default_size: [u32; 2],
    /// The device that the parts are on.
    pub(crate) device: Device,
    /// The type that the U-Net and the text encoders compute in.
    pub(crate) dtype: DType,
}

/// Where and how a model is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device (burn's default).
    pub device: Device,
    /// The float type (f32); files of another type are cast.
    pub dtype: DType,
    /// The YAML config of a single file; without it the file is recognised by its keys.
    pub config: Option<PathBuf>,
    /// The variant of a directory's weight files (`fp16`).
    pub variant: Option<String>,
    /// Whether a single file's EMA weights are taken. By default as the YAML's `use_ema` says, if they are
    /// there; without a YAML the plain weights, as diffusers does.
    pub use_ema: Option<bool>,
    /// What a single file's U-Net predicts, in diffusers' words (`epsilon`, `v_prediction`, `sample`), where
    /// its keys can't tell: Stable Diffusion 2 comes with both.
    pub prediction_type: Option<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self::new(Device::default())
    }
}

impl LoadOptions {
    /// In f32 on `device`.
    pub fn new(device: Device) -> Self {
        Self { device, dtype: DType::F32, config: None, variant: None, use_ema: None, prediction_type: None }
    }

    /// Computes in another float type, where the device can.
    pub fn dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Reads a single file's YAML config.
    pub fn config(mut self, yaml: impl Into<PathBuf>) -> Self {
        self.config = Some(yaml.into());
        self
    }

    /// Takes this variant of a directory's weight files.
    pub fn variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// Takes a single file's EMA weights, or its plain ones.
    pub fn use_ema(mut self, use_ema: bool) -> Self {
        self.use_ema = Some(use_ema);
        self
    }

    /// Says what a single file's U-Net predicts.
    pub fn prediction_type(mut self, prediction_type: impl Into<String>) -> Self {
        self.prediction_type = Some(prediction_type.into());
        self
    }

    /// The type of a first stage that overflows in f16 (`force_upcast`).
    pub(crate) fn vae_dtype(&self, force_upcast: bool) -> DType {
        if force_upcast && self.dtype == DType::F16 { DType::F32 } else { self.dtype }
    }
}

/// Width and height in pixels of the latent `[h, w]` that a U-Net was trained for; as diffusers, 64 latent pixels where its
/// config says nothing.
fn default_size(latent: Option<[usize; 2]>, vae: &AutoencoderKl) -> [u32; 2] {
    let [height, width] = latent.unwrap_or([64; 2]);
    [width, height].map(|side| u32::try_from(side.saturating_mul(vae.factor())).unwrap_or(u32::MAX))
}

/// Where the files of `source` lie: there, or, with the feature `hub`, where those of the model called so were
/// fetched to.
#[cfg_attr(not(feature = "hub"), expect(unused_variables, reason = "what is fetched depends on them"))]
pub(crate) fn located(source: &Path, options: &LoadOptions) -> Result<PathBuf, Error> {
    if source.exists() {
        return Ok(source.into());
    }
    #[cfg(feature = "hub")]
    let reason = match hub::Repository::named(source) {
        Some(repository) => return repository.download(options.variant.as_deref()),
        None => "there is no such folder or file; a model on the hub is called `owner/name`",
    };
    #[cfg(not(feature = "hub"))]
    let reason = "there is no such folder or file; models on the hub need the Cargo feature `hub`";
    Err(Error::NotAModel { path: source.into(), reason: reason.into() })
}

impl StableDiffusion {
    /// Loads a model: a diffusers directory, a single checkpoint file, or, with the feature `hub`, a model
    /// called `owner/name`.
    ///
    /// # Errors
    /// [`Error::NotAModel`] where `source` is none of these; else the error names the file, the part or the
    /// tensors that are wrong.
    pub fn load(source: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, Error> {
        check_dtype(options.dtype, &options.device)?;
        let source = located(source.as_ref(), options)?;
        if source.is_dir() { directory::load(&source, options) } else { single_file::load(&source, options) }
    }

    /// Writes a diffusers directory, with weights in `dtype`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Weights`] name the file.
    pub fn save_directory(&self, directory: impl AsRef<Path>, dtype: DType) -> Result<(), Error> {
        self.save_directory_observed(directory, dtype, &mut |_, _, _| ())
    }

    /// As [`save_directory`](Self::save_directory); `observer` is told the file that is being written, how many of the
    /// model's parameters are in it by now, and of how many. Several parameters may lie in one tensor.
    ///
    /// # Errors
    /// As [`save_directory`](Self::save_directory).
    pub fn save_directory_observed(
        &self,
        directory: impl AsRef<Path>,
        dtype: DType,
        observer: &mut dyn FnMut(&Path, usize, usize),
    ) -> Result<(), Error> {
        save::save(self, directory.as_ref(), dtype, observer)
    }

    /// Writes a single `.safetensors` with CompVis' names, with weights in `dtype`.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Weights`] name the file.
    pub fn save_checkpoint(&self, file: impl AsRef<Path>, dtype: DType) -> Result<(), Error> {
        self.save_checkpoint_observed(file, dtype, &mut |_, _, _| ())
    }

    /// As [`save_checkpoint`](Self::save_checkpoint), with an observer as in
    /// [`save_directory_observed`](Self::save_directory_observed).
    ///
    /// # Errors
    /// As [`save_checkpoint`](Self::save_checkpoint).
    pub fn save_checkpoint_observed(
        &self,
        file: impl AsRef<Path>,
        dtype: DType,
        observer: &mut dyn FnMut(&Path, usize, usize),
    ) -> Result<(), Error> {
        single_file::save(self, file.as_ref(), dtype, observer)
    }

    /// The device that the model is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The type that the U-Net and the text encoders compute in.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The posterior of pictures `[b, 3, h, w]` in [-1, 1]; its latents are not scaled.
    ///
    /// # Errors
    /// [`Error::Vae`] where the size does not divide.
    pub fn encode(&self, pictures: Tensor<4>) -> Result<DiagonalGaussian, Error> {
        Ok(self.vae.encode(pictures.cast(self.vae.dtype()))?)
    }

    /// What of the first stage's scaling diffusers' pipelines of the family heed: the factor, and where they do the channels'
    /// statistics; never a shift.
    pub(crate) fn scaling(&self, statistics: bool) -> LatentScaling {
        let theirs = self.vae.scaling();
        match statistics {
            true => LatentScaling { shift_factor: None, ..theirs.clone() },
            false => LatentScaling::factor(theirs.scaling_factor),
        }
    }

    /// Pictures `[b, 3, h, w]` in about [-1, 1] from the U-Net's latents `[b, z, h / f, w / f]`.
    ///
    /// # Errors
    /// [`Error::Vae`] where the channels don't fit.
    pub fn decode(&self, latents: Tensor<4>) -> Result<Tensor<4>, Error> {
        let z = self.scaling(self.family == Family::StableDiffusionXl).unscale(latents);
        Ok(self.vae.decode(z.cast(self.vae.dtype()))?.cast(DType::F32))
    }
}
