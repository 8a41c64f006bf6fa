use std::path::PathBuf;

use ldm_conditioning::ConditioningError;
use ldm_nn::lora::LoraError;
use ldm_nn::weights::WeightError;
use ldm_scheduler::Error as SchedulerError;
use ldm_unet::UNetError;
use ldm_vae::VaeError;

/// Everything that can go wrong between a model on disk and a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder can't be read or written.
    #[error("{path}: {source}")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// Nothing that looks like a model lies at the path.
    #[error("{path} is no model: {reason}")]
    NotAModel {
        /// The file or folder.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// A model directory lacks a part.
    #[error("{directory} lacks the part `{part}`: {looked_for}")]
    MissingPart {
        /// The model directory.
        directory: PathBuf,
        /// `unet`, `vae`, `text_encoder`, ...
        part: String,
        /// The files that would have done.
        looked_for: String,
    },
    /// A config file is no valid JSON or YAML, or its values make no model.
    #[error("{path}: {reason}")]
    Config {
        /// The config file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A model of a kind that this crate does not run.
    #[error("{path}: {what} is not supported ({supported})")]
    Unsupported {
        /// Where it was found.
        path: PathBuf,
        /// The class or feature.
        what: String,
        /// What is supported instead.
        supported: String,
    },
    /// A weight file can't be read, or does not fit its model.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// A LoRA file can't be read, or does not fit the model.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The U-Net refused its config or its input.
    #[error(transparent)]
    UNet(#[from] UNetError),
    /// The first stage refused its config or its input.
    #[error(transparent)]
    Vae(#[from] VaeError),
    /// The prompt can't be encoded.
    #[error(transparent)]
    Conditioning(#[from] ConditioningError),
    /// The scheduler refused its config or its arguments.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// A retrieval database can't be read or asked.
    #[error(transparent)]
    Retrieval(#[from] crate::retrieval::RetrievalError),
    /// A picture can't be read or written.
    #[error("{path}: {reason}")]
    Image {
        /// The picture's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An argument of a pipeline makes no sense.
    #[error("{name}: {reason}")]
    Argument {
        /// The argument's name.
        name: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A device name that this build does not know, or a device that isn't there.
    #[error("device `{name}`: {reason}")]
    Device {
        /// The name as given.
        name: String,
        /// Why it can't be used.
        reason: String,
    },
    /// The device can't compute in the requested float type.
    #[error("the device {device} does not compute in {dtype}")]
    DType {
        /// The float type's name.
        dtype: String,
        /// The device.
        device: String,
    },
    /// A model could not be had from the hub.
    #[error("model `{name}`: {reason}")]
    Hub {
        /// `owner/name`.
        name: String,
        /// Why, and what to download by hand.
        reason: String,
    },
    /// The observer asked to stop.
    #[error("cancelled after step {step} of {of}")]
    Cancelled {
        /// Steps done: calls of the denoiser, as an observer counts them.
        step: usize,
        /// Steps of the whole run.
        of: usize,
    },
    /// The device's backend gave up (out of memory, lost device).
    #[error("the backend failed: {0}")]
    Backend(String),
}

impl Error {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn config(path: impl Into<PathBuf>, reason: impl ToString) -> Self {
        Self::Config { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn argument(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Argument { name, reason: reason.into() }
    }
}
