use std::f64::consts::PI;

use burn::tensor::DType;

use crate::{Error, Noise, mt19937::Mt19937};

/// PyTorch's CPU generator: `torch.Generator("cpu").manual_seed(seed)` and what `torch.randn` draws from
/// it in f32, to 5e-7.
///
/// PyTorch fills a tensor of 16 or more numbers in blocks of 16 (Box-Muller in f32, 8 cosines then
/// 8 sines), and one of fewer number by number in f64, keeping the sine of the last pair as a spare that
/// later calls take first (ATen/native/cpu/DistributionTemplates.h, ATen/core/DistributionsHelper.h).
#[derive(Debug, Clone)]
pub struct TorchRng {
    engine: Mt19937,
    spare: Option<f64>,
}

impl TorchRng {
    /// `manual_seed(seed)`; as in PyTorch, only its low 32 bits count.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed as u32), spare: None }
    }

    /// 24 random bits in [0, 1).
    fn uniform_f32(&mut self) -> f32 {
        (self.engine.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// 53 random bits in [0, 1).
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.engine.next_u32()), u64::from(self.engine.next_u32()));
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 / 9_007_199_254_740_992.0
    }

    fn normal_f64(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let (radius, theta) = ((-2.0 * (-u2).ln_1p()).sqrt(), 2.0 * PI * u1);
        self.spare = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

impl Noise for TorchRng {
    fn normal(&mut self, shape: &[usize], dtype: DType) -> Result<Vec<f32>, Error> {
        let size = shape.iter().product();
        if size < 16 {
            return Ok((0..size).map(|_| self.normal_f64() as f32).collect());
        }
        // f16 and bf16 are filled block by block; f32 draws first for the whole tensor, so for what is
        // left over beyond the blocks too.
        let half = matches!(dtype, DType::F16 | DType::BF16);
        let drawn = if half { size - size % 16 } else { size };
        let mut values = vec![0.0; size];
        values[..drawn].fill_with(|| self.uniform_f32());
        values.chunks_exact_mut(16).for_each(box_muller);
        if !size.is_multiple_of(16) {
            // The last 16 are drawn anew, over numbers that are already there.
            let last = &mut values[size - 16..];
            last.fill_with(|| self.uniform_f32());
            box_muller(last);
        }
        Ok(values)
    }

    /// PyTorch's `bernoulli_`: a number in f64 each.
    fn keep(&mut self, shape: &[usize], probability: f64) -> Result<Vec<bool>, Error> {
        let size: usize = shape.iter().product();
        Ok((0..size).map(|_| self.uniform_f64() < probability).collect())
    }
}

/// 16 uniform numbers to 16 normal ones. Rounded to f32 wherever PyTorch rounds; the functions in between
/// go through f64, so that every platform gives the same bits.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(8);
    for (u1, u2) in first.iter_mut().zip(second) {
        let log = f64::from(1.0 - *u1).ln() as f32;
        let radius = (-2.0 * log).sqrt();
        let theta = f64::from(2.0 * std::f32::consts::PI * *u2);
        (*u1, *u2) = (radius * theta.cos() as f32, radius * theta.sin() as f32);
    }
}
