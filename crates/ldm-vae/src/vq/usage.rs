use super::Quantized;
use super::indices::to_i64;

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

    /// Counts the codes that a batch was quantised to. Codes that a larger codebook has are not counted.
    pub fn count(&mut self, quantized: &Quantized) {
        for code in to_i64(&quantized.codes) {
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
