//! The loop: batches in, a trained model and its checkpoints out.
//!
//! ```text
//! batches -> stage.step (gradients of each micro-batch, averaged; clip; optimiser; EMA) -> logs, checkpoints
//! ```
//!
//! The loop knows nothing of what is trained: that is a [`Stage`], of which there are two, as in the paper.

mod autoencoder;
mod batches;
mod codebook;
mod diffusion;
mod error;
mod latents;
mod lock;
mod places;
mod random;
mod recompute;
mod start;
mod stop;

use std::path::Path;
use std::time::Instant;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use serde_json::json;

pub use autoencoder::AutoencoderTraining;
pub use batches::{Batches, LoadedBatches};
pub use diffusion::{Denoiser, DiffusionTraining};
pub use error::RunError;
pub use latents::Latents;
pub use random::{Purpose, Random};
pub use stop::Stop;

use crate::checkpoint::{Checkpoint, CheckpointWriter, Checkpoints};
use crate::config::{ModelConfig, RunConfig, TrainConfig, difference};
use crate::data::Batch;
use crate::log::{Log, Metrics};
use crate::optim::{Precision, RateConfig};
use crate::parallel::Devices;
use lock::Lock;

/// Where a run is.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// Steps that are done.
    pub step: u64,
    /// The number of the step's first micro-batch, counted over the whole run.
    pub micro: u64,
    /// This step's learning rate.
    pub rate: f64,
}

/// Pictures that a stage shows of itself.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// `reconstructions`, `samples`.
    pub name: &'static str,
    /// `[n, 3, h, w]` in [-1, 1].
    pub pictures: Tensor<4>,
    /// Pictures in a row.
    pub columns: usize,
}

/// What the loop trains.
pub trait Stage {
    /// One step of the optimiser, or of each optimiser, over the step's micro-batches; gives the losses.
    ///
    /// # Errors
    ///
    /// [`RunError::NotFinite`] before the weights are changed that the number is about: all of a diffusion model's. A
    /// discriminator learns from what the updated autoencoder makes, so when its loss is not finite the autoencoder
    /// has moved; [`run`] then ends without saving either. Whatever the networks refuse.
    fn step(&mut self, at: &At, batches: &[Batch]) -> Result<Metrics, RunError>;

    /// Writes everything that the next step depends on.
    ///
    /// # Errors
    ///
    /// What can't be written.
    fn save(&self, writer: &mut CheckpointWriter) -> Result<(), RunError>;

    /// Takes back what [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// What is missing or does not fit.
    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError>;

    /// Pictures to look at: reconstructions, samples.
    ///
    /// # Errors
    ///
    /// Whatever the networks refuse.
    fn sheets(&self, at: &At, batch: &Batch) -> Result<Vec<Sheet>, RunError>;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop and has saved; the same command goes on from there.
    Stopped {
        /// Steps that are done.
        step: u64,
    },
}

/// What an observer is told after each step.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Steps that are done.
    pub step: u64,
    /// Steps of the whole run.
    pub max_steps: u64,
    /// The step's numbers: all of them at the first step and at those with a line in the logs, else what is checked at
    /// every step, the losses and the gradients' norms. Each number that is read waits for the device.
    pub metrics: &'a Metrics,
    /// Seconds that the step took, and how many of them it waited for data.
    pub seconds: [f64; 2],
}

/// Runs `stage` on `batches` in `folder` until the config's last step, going on from the folder's last checkpoint
/// if there is one.
///
/// # Errors
///
/// [`RunError`]; the last checkpoint is whole in every case.
pub fn run<S: Stage>(
    stage: &mut S,
    batches: &mut dyn Batches,
    config: &RunConfig,
    folder: &Path,
    stop: &Stop,
    observer: &mut dyn FnMut(&Progress<'_>),
) -> Result<Outcome, RunError> {
    let train = &config.train;
    let _alone = Lock::take(folder)?;
    let checkpoints = Checkpoints::open(folder.join("checkpoints"), train.keep)?;
    let (fingerprint, data) = (config.fingerprint()?, batches.fingerprint()?);
    let mut step = 0;
    if let Some(checkpoint) = checkpoints.latest()? {
        if let Some((key, before, now)) = difference(&checkpoint.state("config")?, &fingerprint) {
            return Err(RunError::Changed { path: checkpoint.path().into(), key, before, now });
        }
        // Checkpoints older than this entry don't have it.
        if let (Some(before), Some(now)) = (checkpoint.optional_state::<String>("data")?, &data)
            && before != *now
        {
            let (path, key, now) = (checkpoint.path().into(), "the data".into(), now.clone());
            return Err(RunError::Changed { path, key, before, now });
        }
        stage.restore(&checkpoint)?;
        batches.seek(checkpoint.state("batch")?)?;
        step = checkpoint.step();
    }
    let devices = train.device_count();
    let each = train.accumulate_grad_batches * devices;
    let highest = config.learning_rate(devices);
    let save = |step: u64, stage: &S, batches: &dyn Batches| {
        checkpoints.save(step, |writer| {
            writer.state("config", fingerprint.clone());
            if let Some(data) = &data {
                writer.state("data", json!(data));
            }
            writer.state("batch", json!(batches.number()));
            writer.state("rate", json!(highest));
            stage.save(writer)
        })
    };
    let mut log = Log::open(folder, step)?;
    let mut saved = step;
    let rate = config.rate();
    while step < train.max_steps {
        let began = Instant::now();
        let micro = step * each as u64;
        let at = At { step, micro, rate: highest * rate.factor(step, train.max_steps) };
        let mut micro_batches = Vec::with_capacity(each);
        for _ in 0..each {
            micro_batches.push(batches.next_batch()?);
        }
        let waited = began.elapsed().as_secs_f64();
        let mut metrics = stage.step(&at, &micro_batches)?;
        metrics.push(("learning_rate".into(), at.rate));
        step += 1;
        let done = step == train.max_steps;
        let seconds = [began.elapsed().as_secs_f64(), waited];
        observer(&Progress { step, max_steps: train.max_steps, metrics: &metrics, seconds });
        if train.is_logged(step) {
            metrics.push(("seconds".into(), seconds[0]));
            metrics.push(("seconds_for_data".into(), seconds[1]));
            log.metrics(step, &metrics)?;
        }
        let stopped = stop.is_asked();
        if step % train.save_every == 0 || done || stopped {
            save(step, stage, batches)?;
            saved = step;
        }
        // After the checkpoint, and no reason to end: a run that goes on would come to the same sheet again.
        if train.images_every > 0 && (step % train.images_every == 0 || done) {
            match stage.sheets(&At { step, ..at }, &micro_batches[0]) {
                Ok(sheets) => {
                    for sheet in sheets {
                        log.images(step, sheet.name, sheet.pictures, sheet.columns)?;
                    }
                }
                Err(error) => tracing::warn!("step {step}: no pictures: {error}"),
            }
        }
        if stopped && !done {
            return Ok(Outcome::Stopped { step });
        }
    }
    if saved != step {
        save(step, stage, batches)?;
    }
    Ok(Outcome::Finished)
}

impl RunConfig {
    /// The learning rate's course: `train.scheduler`, else the model's own, else constant.
    pub fn rate(&self) -> RateConfig {
        let of_model = match &self.model {
            ModelConfig::Diffusion(model) => &model.scheduler,
            ModelConfig::FirstStage(model) => &model.scheduler,
        };
        self.train.scheduler.as_ref().or(of_model.as_ref()).cloned().unwrap_or_default()
    }
}

impl TrainConfig {
    /// How many devices share a step (`devices`).
    pub fn device_count(&self) -> usize {
        self.devices.as_ref().map_or(1, Devices::count)
    }

    /// Whether the logs have a line for the step after which `done` steps are done.
    fn is_logged(&self, done: u64) -> bool {
        done.is_multiple_of(self.log_every) || done == self.max_steps
    }

    /// `None` where all of a step's numbers are read, else the one that is checked for being a number.
    fn read_only(&self, step: u64, loss: &'static str) -> Option<&'static str> {
        let done = step + 1;
        (done != 1 && !self.is_logged(done)).then_some(loss)
    }
}

/// Whether the device has the float types of a step.
fn check_device(precision: Precision, device: &Device) -> Result<(), RunError> {
    if precision.is_supported(device) {
        return Ok(());
    }
    Err(RunError::Precision { dtype: precision.needs(), device: format!("{device:?}") })
}

/// Makes lazy parameters now, in the module's order, and not when somebody asks.
fn drawn<M: Module>(module: M) -> M {
    struct Draw;
    impl ModuleMapper for Draw {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value)
        }
    }
    module.map(&mut Draw)
}

/// `Err` where a number is NaN or infinite.
fn finite(step: u64, what: &str, value: f64) -> Result<f64, RunError> {
    if value.is_finite() { Ok(value) } else { Err(RunError::NotFinite { step, what: what.into(), value }) }
}

/// The means of several devices' numbers.
fn mean(all: Vec<Metrics>) -> Metrics {
    let count = all.len().max(1) as f64;
    let mut all = all.into_iter();
    let mut mean = all.next().unwrap_or_default();
    for metrics in all {
        for ((_, sum), (_, value)) in mean.iter_mut().zip(metrics) {
            *sum += value;
        }
    }
    mean.iter_mut().for_each(|(_, sum)| *sum /= count);
    mean
}
