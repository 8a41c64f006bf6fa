use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor};

use super::Quantized;
use super::indices::to_i64;

/// Perplexity and number of codes of one batch, `[1]` each, f32; nothing is read from the device.
///
/// `codes` `[n]` are indices into a codebook of `n_embed`. Source: `measure_perplexity` in the reference's
/// `vqperceptual.py`, whose one-hot rows `[n, n_embed]` are counted here without being made.
pub fn measure_perplexity(codes: Tensor<1, Int>, n_embed: usize) -> [Tensor<1>; 2] {
    let (n, device) = (codes.dims()[0], codes.device().inner());
    let ones = Tensor::<1>::ones([n], (&device, DType::F32));
    let none = Tensor::<1>::zeros([n_embed], (&device, DType::F32));
    let p = none.select_assign(0, codes.inner(), ones, IndexingUpdateOp::Add) / n.max(1) as f64;
    let entropy = -(p.clone() * (p.clone() + 1e-10).log()).sum();
    let used = p.greater_elem(0.0).int().sum().float().cast(DType::F32);
    [entropy.exp(), used]
}

/// How often each code was chosen: over a batch, or over all that were counted.
///
/// Source: `measure_perplexity` in the reference's `vqperceptual.py`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodebookUsage {
    counts: Vec<u64>,
}

impl CodebookUsage {
    /// Nothing counted yet, of `n_embed` codes.
    pub fn new(n_embed: usize) -> Self {
        Self { counts: vec![0; n_embed] }
    }

    /// Goes on with counts that [`counts`](Self::counts) gave.
    pub fn resume(counts: Vec<u64>) -> Self {
        Self { counts }
    }

    /// Counts the codes that a batch was quantised to. Codes that a larger codebook has are not counted.
    pub fn count(&mut self, quantized: &Quantized) {
        self.count_codes(&quantized.codes);
    }

    /// Counts these codes `[n]`, which are read from their device.
    pub fn count_codes(&mut self, codes: &Tensor<1, Int>) {
        for code in to_i64(codes) {
            if let Some(count) = usize::try_from(code).ok().and_then(|code| self.counts.get_mut(code)) {
                *count += 1;
            }
        }
    }

    /// How often each code was chosen.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The number of codes that were chosen at all (`cluster_use`).
    pub fn used(&self) -> usize {
        self.counts.iter().filter(|count| **count > 0).count()
    }

    /// The codes that were never chosen.
    pub fn dead(&self) -> Vec<usize> {
        (0..self.counts.len()).filter(|code| self.counts[*code] == 0).collect()
    }

    /// `exp(-sum p ln p)`, from 1 (one code serves all) to the number of codes; 1 where nothing was counted.
    pub fn perplexity(&self) -> f64 {
        let total: u64 = self.counts.iter().sum();
        let p = self.counts.iter().map(|count| *count as f64 / total.max(1) as f64);
        (-p.map(|p| p * (p + 1e-10).ln()).sum::<f64>()).exp()
    }
}
