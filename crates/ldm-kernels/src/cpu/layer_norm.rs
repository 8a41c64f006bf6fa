use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;
use super::moments::moments;

/// Values in a task: fewer aren't worth another thread.
const TASK: usize = 1 << 14;

/// See [`crate::layer_norm`]; `None` where the tensors are not plain f32 flex tensors.
pub fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<D>> {
    let (input, weight, bias) =
        (bridge::contiguous(x)?, bridge::contiguous(weight)?, bridge::contiguous(bias)?);
    let (input, weight, bias) = (bridge::slice(&input), bridge::slice(&weight), bridge::slice(&bias));
    let width = weight.len();
    let mut output = Buffer::take(input.len());
    if !output.is_empty() {
        let task = TASK.div_ceil(width) * width;
        output.par_chunks_mut(task).zip(input.par_chunks(task)).for_each(|(output, input)| {
            for (output, input) in output.chunks_exact_mut(width).zip(input.chunks_exact(width)) {
                let (mean, variance) = moments(input);
                let scale = 1.0 / (variance + eps).sqrt();
                normalise(output, input, mean as f32, scale as f32, weight, bias);
            }
        });
    }
    Some(bridge::tensor(output, x.shape(), &x.device()))
}

multiversion! {
    fn normalise(y: &mut [f32], x: &[f32], mean: f32, scale: f32, weight: &[f32], bias: &[f32]) {
        for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
            *y = (x - mean) * scale * w + b;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::layer_norm::plain;

    #[test]
    fn equals_plain_burn() {
        let device = Device::flex();
        for [b, n, c] in [[1, 1, 1], [2, 3, 5], [1, 77, 768], [1, 200, 321]] {
            let x = seeded_input("x", [b, n, c], &device) + 0.5;
            let (w, bias) = (seeded_input("w", [c], &device), seeded_input("b", [c], &device));
            let ours = layer_norm(&x, &w, &bias, 1e-5).expect("plain f32 on flex");
            assert_close(&format!("{b} {n} {c}"), &ours, &plain(x, w, bias, 1e-5), 1e-5);
        }
    }
}
