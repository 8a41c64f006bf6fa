//! What a model is conditioned on: from a batch of data to a batch of conditions `y`, before tau_theta.
//!
//! [`ConditionConfig`] is the section `data.condition` (or follows from the model's `cond_stage_key`): captions,
//! classes, maps, low-resolution and masked pictures, layouts. Anything else is a [`Conditions`] of your own, which
//! [`DiffusionTraining::conditioned`](crate::run::DiffusionTraining::conditioned) takes (`ldm::degradation::Worn` is one,
//! for super-resolution as the paper's model was trained); a function will do:
//!
//! ```
//! use ldm_conditioning::Condition;
//! use ldm_train::RunError;
//! use ldm_train::conditions::{Asked, Conditions};
//! use ldm_train::data::Batch;
//! use ldm_train::run::Purpose;
//!
//! /// Each picture under noise, which is drawn anew each time it is seen.
//! fn noisy(batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError> {
//!     let picture = batch.to_tensor(asked.device);
//!     let noise = asked.random.normal(asked.micro, Purpose::Condition, picture.dims(), asked.device)?;
//!     Ok(Condition::Image(picture + noise * 0.3))
//! }
//! let conditions: Box<dyn Conditions> = Box::new(noisy);
//! ```

mod config;
mod drop;
mod mask;
mod mechanism;
mod sources;

use burn::tensor::Device;
use ldm_conditioning::{Condition, ConditioningError};
use ldm_scheduler::NativeRng;
use ldm_unet::UNetError;
use ldm_vae::FirstStage;

pub use config::ConditionConfig;
pub(crate) use drop::replaced;
pub(crate) use mechanism::check;

use crate::RunError;
use crate::data::Batch;
use crate::run::{Purpose, Random};

/// Gives each sample of a batch its condition.
///
/// What it gives must depend on the batch and what was asked alone, so that a run that goes on is given the same.
pub trait Conditions: Send + Sync {
    /// The conditions of a batch, one a sample, in the batch's order.
    ///
    /// # Errors
    ///
    /// [`RunError::Sample`] names a sample whose condition is missing or can't be used.
    fn of(&self, batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError>;

    /// As many conditions that stand for none: what a dropped sample, and guidance, gets instead. `None` where there is
    /// no such thing. Default: empty texts, and zeros in place of pictures, latents and vectors.
    fn null(&self, given: &Condition) -> Option<Condition> {
        drop::null(given)
    }

    /// Whether the batch's pixels are read (default: yes). Where they are not, a cache of latents spares decoding them.
    fn reads_pictures(&self) -> bool {
        true
    }
}

/// What a condition may be made with beside the data.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The micro-batch's number in the run.
    pub micro: u64,
    /// The run's source of random numbers.
    pub random: Random,
    /// The frozen first stage.
    pub first_stage: &'a FirstStage,
    /// Where tensors belong.
    pub device: &'a Device,
}

impl Asked<'_> {
    /// A seed of this micro-batch's conditions.
    pub fn seed(&self) -> u64 {
        self.random.seed(self.micro, Purpose::Condition)
    }

    /// The generator for this micro-batch's conditions.
    pub fn rng(&self) -> NativeRng {
        self.random.at(self.micro, Purpose::Condition)
    }
}

impl<F> Conditions for F
where
    F: Fn(&Batch, &Asked<'_>) -> Result<Condition, RunError> + Send + Sync,
{
    fn of(&self, batch: &Batch, asked: &Asked<'_>) -> Result<Condition, RunError> {
        self(batch, asked)
    }
}

impl std::fmt::Debug for dyn Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conditions")
    }
}

/// An error of a batch's item by the item's name, where it tells which one it was.
pub(crate) fn of_sample(error: RunError, batch: &Batch) -> RunError {
    use ldm_conditioning::bert::BertError;
    let item = match &error {
        RunError::Condition(ConditioningError::Class(class)) => Some(class.item),
        RunError::Condition(ConditioningError::Bert(BertError::IdOutOfVocabulary { item, .. })) => {
            Some(*item)
        }
        RunError::UNet(UNetError::ClassOutOfRange { item, .. }) => Some(*item),
        _ => None,
    };
    match item.and_then(|item| batch.keys.get(item)) {
        Some(key) => RunError::Sample { key: key.clone(), source: error.into() },
        None => error,
    }
}
