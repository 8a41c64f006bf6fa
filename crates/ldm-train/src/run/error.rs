use std::error::Error;
use std::path::{Path, PathBuf};

use burn::tensor::DType;
use ldm_nn::weights::WeightError;
use ldm_unet::{ConfigError, UNetError};
use ldm_vae::VaeError;

/// What can stop a run. The last checkpoint is whole in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A config that can't be read, or asks for what can't be done.
    #[error("{path}: {what}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key and what is wrong with it.
        what: String,
    },
    /// A config file that can't be read, or a run's folder that can't be made.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A checkpoint can't be written: the disk is full, or the folder is not ours.
    #[error(
        "{path}: the checkpoint of step {step} can't be written: {source}; the one before it is untouched"
    )]
    Save {
        /// The checkpoint.
        path: PathBuf,
        /// Its step.
        step: u64,
        /// What the system says, or what can't be written.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A checkpoint can't be read.
    #[error("{path}: {what}")]
    Checkpoint {
        /// The checkpoint, or a file in it.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The run would go on with another config, first stage or data than it began with.
    #[error(
        "{path}: {key} was {before} when the run began and is {now} now; \
         give the run another folder, or take the change back"
    )]
    Changed {
        /// The checkpoint.
        path: PathBuf,
        /// The first key that differs, or what else does: `the data`.
        key: String,
        /// Its value in the checkpoint.
        before: String,
        /// Its value now.
        now: String,
    },
    /// Another process trains in the run's folder.
    #[error("{folder}: another process trains here; wait for it, or give the run another folder")]
    Busy {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A loss or a gradient is NaN or infinite.
    #[error("step {step}: {what} is {value}; nothing of this step is kept, the last checkpoint is untouched")]
    NotFinite {
        /// The step, counted from 0.
        step: u64,
        /// The number's name.
        what: String,
        /// The number.
        value: f64,
    },
    /// Other devices than the config says.
    #[error("{given} devices are given, the config's `train.devices` says {expected}")]
    Devices {
        /// How many there are.
        given: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A step's micro-batches are not the same number for each device.
    #[error("{batches} micro-batches can't be shared evenly by {devices} devices")]
    Shares {
        /// The step's micro-batches.
        batches: usize,
        /// The devices.
        devices: usize,
    },
    /// The device lacks the float type of the config.
    #[error("{device} has no {dtype:?}: set `train.precision` to f32")]
    Precision {
        /// The type.
        dtype: DType,
        /// The device.
        device: String,
    },
    /// The data can't be read.
    #[error("data: {0}")]
    Data(#[from] crate::data::DataError),
    /// A condition can't be encoded.
    #[error(transparent)]
    Condition(#[from] ldm_conditioning::ConditioningError),
    /// tau_theta's config can't be built.
    #[error(transparent)]
    CondStage(#[from] ldm_conditioning::CondStageConfigError),
    /// A weight file can't be read or written.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The first stage refuses its config or input.
    #[error("first stage: {0}")]
    FirstStage(#[from] VaeError),
    /// The U-Net refuses its input.
    #[error("U-Net: {0}")]
    UNet(#[from] UNetError),
    /// The U-Net's config can't be built.
    #[error("U-Net: {0}")]
    UNetConfig(#[from] ConfigError),
    /// The first stage's loss refuses its config or input.
    #[error(transparent)]
    FirstStageLoss(#[from] crate::FirstStageError),
    /// What the config names can't be trained.
    #[error("{what} can't be trained")]
    NotTrainable {
        /// What it is.
        what: &'static str,
    },
    /// An encoder that stays as it is and was never trained.
    #[error(
        "{what} stays frozen (`cond_stage_trainable` is false) and has no weights: give \
         `cond_stage_config.params.ckpt_path`, or `ckpt_path` of a whole model, or train it along"
    )]
    NoWeights {
        /// The encoder.
        what: &'static str,
    },
    /// Where the condition reaches the U-Net is not where the encoder puts it.
    #[error("`conditioning_key` is {key} (what no key means: concat), {encoder} gives {gives}")]
    Mechanism {
        /// `conditioning_key`, or `none` for an unconditional model.
        key: String,
        /// What encodes the condition.
        encoder: &'static str,
        /// Where it puts it.
        gives: String,
    },
    /// Nothing says what the conditions are made of.
    #[error("{what}: say it in `data.condition`, or give the training your own")]
    NoConditions {
        /// What is missing.
        what: String,
    },
    /// The conditions are worn pictures, which this crate does not make.
    #[error(
        "`degradation` is {degradation}, which the trainer does not make itself: give it conditions of your own that \
         do (the example `train_diffusion` gives it `ldm::degradation::Worn`, which has bsrgan, bsrgan_light, \
         cv_bilinear, cv_bicubic and cv_area), or say another `data.condition`"
    )]
    Degradation {
        /// What the config says.
        degradation: String,
    },
    /// Conditions are to be dropped, and nothing stands for none.
    #[error(
        "`conditioning_dropout_prob` is above 0, and no {condition} stand for none (`data.condition.null_class`?)"
    )]
    NoNull {
        /// The kind of condition.
        condition: &'static str,
    },
    /// A sample whose condition is missing, or can't be used.
    #[error("{key}: {source}")]
    Sample {
        /// The sample's name.
        key: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A format has no place for a part of the model.
    #[error("{format} can't express {what}")]
    Inexpressible {
        /// The format.
        format: &'static str,
        /// The part.
        what: &'static str,
    },
    /// The objective refuses its config or input.
    #[error(transparent)]
    Objective(#[from] crate::ObjectiveError),
    /// The average does not follow the model.
    #[error(transparent)]
    Ema(#[from] crate::EmaError),
    /// The schedule refuses its config or input.
    #[error("schedule: {0}")]
    Schedule(#[from] ldm_scheduler::Error),
}

impl RunError {
    pub(crate) fn config(path: &Path, what: impl ToString) -> Self {
        Self::Config { path: path.into(), what: what.to_string() }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::Io { path, source }
    }

    pub(crate) fn checkpoint(path: &Path, what: impl ToString) -> Self {
        Self::Checkpoint { path: path.into(), what: what.to_string() }
    }
}
