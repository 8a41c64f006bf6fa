use burn::tensor::DType;
use ldm_scheduler::{NativeRng, Noise};

/// Where a degradation's random numbers come from.
///
/// The reference draws from Python's and numpy's global generators, whose numbers no other language has; with the same
/// draws given, both make the same picture.
pub trait Draws {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64;

    /// `n` numbers of N(0, 1).
    fn normals(&mut self, n: usize) -> Vec<f32>;

    /// A Poisson count for each mean.
    fn poissons(&mut self, means: &[f64]) -> Vec<f64>;

    /// Uniform in [low, high).
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number from `low` to `high`, both included.
    fn integer(&mut self, low: usize, high: usize) -> usize {
        low + (self.unit() * (high - low + 1) as f64) as usize
    }

    /// The numbers `0..n` in a random order.
    fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.integer(0, i));
        }
        order
    }
}

/// Draws from a seed: the same on every machine.
#[derive(Debug, Clone)]
pub struct SeededDraws(NativeRng);

impl SeededDraws {
    /// The draws of this seed.
    pub fn new(seed: u64) -> Self {
        Self(NativeRng::new(seed))
    }
}

impl Draws for SeededDraws {
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    fn normals(&mut self, n: usize) -> Vec<f32> {
        // The generator refuses no shape.
        self.0.normal(&[n], DType::F32).unwrap_or_default()
    }

    fn poissons(&mut self, means: &[f64]) -> Vec<f64> {
        means.iter().map(|mean| self.poisson(*mean)).collect()
    }
}

impl SeededDraws {
    /// Below 10 by multiplying uniforms (Knuth), above by transformed rejection (Hörmann 1993, PTRS).
    fn poisson(&mut self, mean: f64) -> f64 {
        if mean < 10.0 {
            let end = (-mean).exp();
            let (mut count, mut product) = (0.0, self.unit());
            while product > end {
                count += 1.0;
                product *= self.unit();
            }
            return count;
        }
        let b = 0.931 + 2.53 * mean.sqrt();
        let a = -0.059 + 0.02483 * b;
        let inverse_alpha = 1.1239 + 1.1328 / (b - 3.4);
        let v_r = 0.9277 - 3.6224 / (b - 2.0);
        loop {
            let (u, v) = (self.unit() - 0.5, self.unit());
            let us = 0.5 - u.abs();
            let k = ((2.0 * a / us + b) * u + mean + 0.43).floor();
            if us >= 0.07 && v <= v_r {
                return k;
            }
            if k < 0.0 || (us < 0.013 && v > us) {
                continue;
            }
            let accepted = (v * inverse_alpha / (a / (us * us) + b)).ln();
            if accepted <= k * mean.ln() - mean - ln_factorial(k) {
                return k;
            }
        }
    }
}

/// ln k!, by Stirling's series above 9.
fn ln_factorial(k: f64) -> f64 {
    if k < 10.0 {
        return (2..=k as u64).map(|i| (i as f64).ln()).sum();
    }
    let n = k + 1.0;
    let series = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    (n - 0.5) * n.ln() - n + 0.5 * (2.0 * std::f64::consts::PI).ln() + series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poisson_counts_have_their_mean_and_variance() {
        let mut draws = SeededDraws::new(3);
        for mean in [0.0, 0.3, 4.0, 9.9, 10.1, 60.0, 2500.0] {
            let counts = draws.poissons(&vec![mean; 40_000]);
            let average = counts.iter().sum::<f64>() / 4e4;
            let variance = counts.iter().map(|k| (k - average).powi(2)).sum::<f64>() / 4e4;
            // Five standard errors.
            assert!((average - mean).abs() <= 5.0 * (mean / 4e4).sqrt(), "{mean}: {average}");
            assert!((variance - mean).abs() <= 0.06 * mean, "{mean}: variance {variance}");
            assert!(counts.iter().all(|k| *k >= 0.0 && k.fract() == 0.0));
        }
    }

    #[test]
    fn logarithms_of_factorials() {
        let mut exact = 0.0;
        for k in 1..200u64 {
            exact += (k as f64).ln();
            assert!((ln_factorial(k as f64) - exact).abs() < 1e-9 * exact.max(1.0), "{k}");
        }
    }

    #[test]
    fn orders_hold_every_number() {
        let mut draws = SeededDraws::new(5);
        let mut firsts = [0; 7];
        for _ in 0..700 {
            let mut order = draws.order(7);
            firsts[order[0]] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4, 5, 6]);
        }
        assert!(firsts.iter().all(|n| (60..140).contains(n)), "{firsts:?}");
    }
}
