//! Everything random in a run, drawn from (seed, step, purpose).
//!
//! No generator lives from one step to the next, so there is no random state to lose: a resumed run draws what
//! the uninterrupted one drew, and threads that decode pictures can't change the order.

use burn::tensor::{DType, Device, Tensor};
use ldm_scheduler::{Error, NativeRng, Noise, randn};

/// What numbers are drawn for. The values are part of what a seed means: never renumber (9 is free).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// The first stage's posterior sample.
    Posterior = 1,
    /// The posterior sample of the discriminator's own step.
    DiscriminatorPosterior = 2,
    /// Timesteps.
    Timesteps = 3,
    /// The noise that is to be predicted.
    Noise = 4,
    /// One number an item and channel, added to the noise (offset noise).
    NoiseOffset = 5,
    /// Which items lose their condition.
    Unconditional = 6,
    /// The start of the pictures that a run draws of itself.
    Samples = 7,
    /// The parameters' first values.
    Weights = 8,
    /// What dropout zeroes: burn draws it itself, from its device's generator, which is seeded with this.
    Dropout = 10,
    /// The pixels of a latent whose values dead codes take.
    Codes = 11,
    /// What conditions are drawn with: masks, the order of objects.
    Condition = 20,
}

/// The source of one run's random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// The source of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed of the generator for `purpose` at `index` (a step, or a micro-batch's number).
    pub fn seed(&self, index: u64, purpose: Purpose) -> u64 {
        mix(mix(mix(self.seed) ^ index) ^ purpose as u64)
    }

    /// The generator for `purpose` at `index`.
    pub fn at(&self, index: u64, purpose: Purpose) -> NativeRng {
        NativeRng::new(self.seed(index, purpose))
    }

    /// Standard normal numbers.
    ///
    /// # Errors
    ///
    /// None with this generator; the type is the scheduler's.
    pub fn normal<const D: usize>(
        &self,
        index: u64,
        purpose: Purpose,
        shape: [usize; D],
        device: &Device,
    ) -> Result<Tensor<D>, Error> {
        randn(&mut self.at(index, purpose) as &mut dyn Noise, shape, device, DType::F32)
    }

    /// `n` whole numbers below `below`, each as likely.
    pub fn below(&self, index: u64, purpose: Purpose, n: usize, below: usize) -> Vec<usize> {
        let mut rng = self.at(index, purpose);
        // The high half of a 128-bit product: no bias that 2^64 numbers could show.
        let mut draw = || ((u128::from(rng.next_u64()) * below as u128) >> 64) as usize;
        (0..n).map(|_| draw()).collect()
    }

    /// `n` numbers in [0, 1).
    pub fn uniform(&self, index: u64, purpose: Purpose, n: usize) -> Vec<f64> {
        let mut rng = self.at(index, purpose);
        (0..n).map(|_| (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64).collect()
    }
}

/// SplitMix64's finaliser, with its increment: neighbours become unrelated.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_by_seed_step_and_purpose_alone() {
        let seeds = |seed| {
            let random = Random::new(seed);
            [
                random.seed(0, Purpose::Noise),
                random.seed(1, Purpose::Noise),
                random.seed(0, Purpose::Posterior),
            ]
        };
        let mut all = [seeds(0), seeds(1)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        assert_eq!(seeds(1), seeds(1));
    }

    #[test]
    fn numbers_below_cover_the_range_evenly() {
        let draws = Random::new(3).below(5, Purpose::Timesteps, 100_000, 10);
        for n in 0..10 {
            let share = draws.iter().filter(|d| **d == n).count() as f64 / 1e5;
            assert!((share - 0.1).abs() < 0.005, "{n}: {share}");
        }
    }
}
