use std::sync::Arc;

use super::RunError;
use crate::data::{self, Batch, LatentCache, Loader};

/// Where a run's pictures come from.
///
/// What is in a batch must depend on its number alone: a run that resumes goes to the number that its checkpoint
/// noted and must be given what an uninterrupted run would have been given.
pub trait Batches {
    /// The next batch.
    ///
    /// # Errors
    ///
    /// What keeps the data from being read.
    fn next_batch(&mut self) -> Result<Batch, RunError>;

    /// The number of the next batch: what a checkpoint notes.
    fn number(&self) -> u64;

    /// Goes to the batch of this number.
    ///
    /// # Errors
    ///
    /// What keeps the data from being read.
    fn seek(&mut self, number: u64) -> Result<(), RunError>;

    /// What tells the data from another, to be noted by a checkpoint: a run does not go on over other data. `None`:
    /// nothing is compared.
    ///
    /// # Errors
    ///
    /// What keeps the data from being read.
    fn fingerprint(&self) -> Result<Option<String>, RunError> {
        Ok(None)
    }
}

/// The batches of a [`Loader`], decoded ahead; with a cache of latents, without their pictures.
#[derive(Debug)]
pub struct LoadedBatches {
    loader: Loader,
    latents: Option<Arc<LatentCache>>,
    /// Not running until the first batch is asked for.
    batches: Option<data::Batches>,
    number: u64,
}

impl LoadedBatches {
    /// The batches of this loader from the first on.
    pub fn new(loader: Loader, latents: Option<Arc<LatentCache>>) -> Self {
        Self { loader, latents, batches: None, number: 0 }
    }
}

impl Batches for LoadedBatches {
    fn next_batch(&mut self) -> Result<Batch, RunError> {
        let batches = match &mut self.batches {
            Some(batches) => batches,
            None => {
                let batches = match &self.latents {
                    Some(latents) => {
                        let latents = latents.clone();
                        self.loader.views_from(self.number, move |view| latents.contains(view))?
                    }
                    None => self.loader.batches_from(self.number)?,
                };
                self.batches.insert(batches)
            }
        };
        let batch = batches.next().unwrap_or(Err(data::DataError::Stopped))?;
        self.number = batches.number();
        Ok(batch)
    }

    fn number(&self) -> u64 {
        self.number
    }

    fn seek(&mut self, number: u64) -> Result<(), RunError> {
        self.batches = None;
        self.number = number;
        Ok(())
    }

    fn fingerprint(&self) -> Result<Option<String>, RunError> {
        let source = self.loader.source();
        Ok(Some(format!("{} pictures ({})", source.items(), source.fingerprint()?)))
    }
}
