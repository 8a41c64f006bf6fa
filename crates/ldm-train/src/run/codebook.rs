//! A codebook's entries that nothing chooses, given another place.

use burn::tensor::{Int, Tensor};
use ldm_vae::{CodebookUsage, FirstStage, VectorQuantizer};
use serde_json::json;

use super::{Purpose, Random, RunError};
use crate::FirstStageLossConfig;
use crate::checkpoint::{Checkpoint, CheckpointWriter};

/// The codebook's path in what is trained: an optimiser's moments go by it.
pub(super) const CODES: &str = "model.quantize.embedding.weight";
const STATE: &str = "codebook_usage";

/// Which codes were chosen since the dead ones were last moved (`reseed_every`).
#[derive(Debug)]
pub(super) struct Codebook {
    every: u64,
    usage: CodebookUsage,
}

impl Codebook {
    /// `None` where the loss asks for no re-seeding.
    pub fn new(model: &FirstStage, loss: &FirstStageLossConfig) -> Option<Self> {
        let (FirstStage::Vq(model), Some(every)) = (model, loss.reseed_every()) else { return None };
        Some(Self { every, usage: CodebookUsage::new(model.quantize.n_embed()) })
    }

    /// Counts the codes of a step's micro-batches.
    pub fn count(&mut self, codes: &[Option<Tensor<1, Int>>]) {
        codes.iter().flatten().for_each(|codes| self.usage.count_codes(codes));
    }

    /// Whether it is time, after `done` steps.
    pub fn is_due(&self, done: u64) -> bool {
        done.is_multiple_of(self.every)
    }

    /// The codebook with every dead code at a pixel of the latent `z`, and which codes those are; counting begins anew.
    ///
    /// # Errors
    ///
    /// A latent of another width.
    pub fn reseed(
        &mut self,
        quantizer: VectorQuantizer,
        z: Tensor<4>,
        step: u64,
        random: &Random,
    ) -> Result<(VectorQuantizer, Vec<usize>), RunError> {
        let mut draws = random.at(step, Purpose::Codes);
        let pick = |n: usize| ((u128::from(draws.next_u64()) * n as u128) >> 64) as usize;
        let reseeded = quantizer.reseed(&self.usage, z, pick)?;
        self.usage = CodebookUsage::new(self.usage.counts().len());
        Ok(reseeded)
    }

    pub fn save(&self, writer: &mut CheckpointWriter) {
        writer.state(STATE, json!(self.usage.counts()));
    }

    /// # Errors
    ///
    /// Counts that are missing, or of another codebook.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), RunError> {
        let counts: Vec<u64> = checkpoint.state(STATE)?;
        let codes = self.usage.counts().len();
        if counts.len() != codes {
            let what = format!("`{STATE}` counts {} codes, the codebook has {codes}", counts.len());
            return Err(RunError::checkpoint(checkpoint.path(), what));
        }
        self.usage = CodebookUsage::resume(counts);
        Ok(())
    }
}
