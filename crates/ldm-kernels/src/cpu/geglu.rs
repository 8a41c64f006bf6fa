use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;
use super::exp::exp;

/// Values in a task: fewer aren't worth another thread.
const TASK: usize = 1 << 14;

/// See [`crate::geglu`]; `None` where the tensor is not a plain f32 flex tensor.
pub fn geglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let input = bridge::contiguous(x)?;
    let input = bridge::slice(&input);
    let mut shape = x.shape();
    let width = shape[D - 1] / 2;
    shape[D - 1] = width;
    let mut output = Buffer::take(input.len() / 2);
    if !output.is_empty() {
        let rows = TASK.div_ceil(width);
        let tasks = output.par_chunks_mut(rows * width).zip(input.par_chunks(2 * rows * width));
        tasks.for_each(|(output, input)| {
            for (output, input) in output.chunks_exact_mut(width).zip(input.chunks_exact(2 * width)) {
                let (value, gate) = input.split_at(width);
                gated(output, value, gate);
            }
        });
    }
    Some(bridge::tensor(output, shape, &x.device()))
}

multiversion! {
    fn gated(y: &mut [f32], value: &[f32], gate: &[f32]) {
        for ((y, v), g) in y.iter_mut().zip(value).zip(gate) {
            *y = v * gelu(*g);
        }
    }
}

/// `x * Phi(x)`, the exact GELU, to 2e-7 of the larger of |x| and 1.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * phi(x)
}

/// The normal distribution's cumulative function.
///
/// The complementary error function is Numerical Recipes' Chebyshev fit (erfcc, relative error 1.2e-7).
#[inline(always)]
pub fn phi(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let p = 0.170_872_77;
    let p = -0.822_152_2 + t * p;
    let p = 1.488_515_9 + t * p;
    let p = -1.135_204 + t * p;
    let p = 0.278_868_07 + t * p;
    let p = -0.186_288_06 + t * p;
    let p = 0.096_784_18 + t * p;
    let p = 0.374_091_96 + t * p;
    let p = 1.000_023_7 + t * p;
    let p = -1.265_512_2 + t * p;
    let tail = 0.5 * t * exp(p - z * z);
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::geglu::plain;

    #[test]
    fn equals_plain_burn() {
        let device = Device::flex();
        for [b, n, c] in [[1, 1, 2], [2, 3, 10], [1, 77, 642]] {
            let x = seeded_input("x", [b, n, c], &device) * 3.0;
            let ours = geglu(&x).expect("plain f32 on flex");
            assert_close(&format!("{b} {n} {c}"), &ours, &plain(x), 1e-5);
        }
    }

    #[test]
    fn gelu_is_the_exact_one() {
        // torch.nn.functional.gelu in f64
        let table = [
            (-8.0, -4.976_812e-15),
            (-3.0, -0.004_049_694),
            (-1.0, -0.158_655_25),
            (-0.1, -0.046_017_22),
            (0.0, 0.0),
            (0.5, 0.345_731_23),
            (2.0, 1.954_499_7),
            (9.0, 9.0),
        ];
        for (x, expected) in table {
            assert!((gelu(x) - expected).abs() <= 4e-7 * x.abs().max(1.0), "gelu({x}) = {}", gelu(x));
        }
        assert!(gelu(f32::NAN).is_nan());
    }
}
