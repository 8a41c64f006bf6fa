use std::f64::consts::PI;

use burn::tensor::DType;

use crate::{Error, Noise};

/// Our own generator: xoshiro256++ (Blackman & Vigna 2021), seeded by SplitMix64, and Box-Muller in f64.
///
/// A seed gives the same numbers on every device, and a draw doesn't depend on how the draws
/// before it were shaped.
#[derive(Debug, Clone)]
pub struct NativeRng {
    state: [u64; 4],
    spare: Option<f64>,
}

impl NativeRng {
    /// The generator of this seed; all 64 bits count.
    pub fn new(seed: u64) -> Self {
        let mut z = seed;
        let state = std::array::from_fn(|_| {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = z;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        });
        Self { state, spare: None }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    fn standard_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (radius, theta) = ((-2.0 * (1.0 - self.uniform()).ln()).sqrt(), 2.0 * PI * self.uniform());
        self.spare = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

impl Noise for NativeRng {
    fn normal(&mut self, shape: &[usize], _: DType) -> Result<Vec<f32>, Error> {
        let size: usize = shape.iter().product();
        Ok((0..size).map(|_| self.standard_normal() as f32).collect())
    }

    fn keep(&mut self, shape: &[usize], probability: f64) -> Result<Vec<bool>, Error> {
        let size: usize = shape.iter().product();
        Ok((0..size).map(|_| self.uniform() < probability).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_normal_and_reproducible() {
        let draw = NativeRng::new(7).normal(&[100_000], DType::F32).unwrap();
        let mean = draw.iter().sum::<f32>() / 1e5;
        let variance = draw.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");

        let mut rng = NativeRng::new(7);
        let pieces =
            [rng.normal(&[3], DType::F32).unwrap(), rng.normal(&[2, 5], DType::F32).unwrap()].concat();
        assert_eq!(pieces, draw[..13]);
        assert_ne!(NativeRng::new(8).normal(&[13], DType::F32).unwrap(), pieces);
    }
}
