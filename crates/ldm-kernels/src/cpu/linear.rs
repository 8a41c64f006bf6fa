use burn::tensor::Tensor;

use super::bridge;
use super::buffer::Buffer;
use super::panels::{Panels, fill_straight, fill_transposed};
use super::product::{Bias, Rows, Target, multiply};
use super::simd::Level;

/// See [`crate::linear`]; `None` where the tensors are not plain f32 flex tensors.
pub fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let (input, weights) = (bridge::flex(x)?, bridge::contiguous(weight)?);
    let bias = match bias {
        Some(bias) => Some(bridge::contiguous(bias)?),
        None => None,
    };
    let bias = bias.as_ref().map(bridge::slice);
    let [d_output, d_input] = weight.dims();
    let mut shape = x.shape();
    shape[D - 1] = d_output;
    let count: usize = shape[..D - 1].iter().product();
    let mut output = Buffer::take(count * d_output);
    if output.is_empty() || d_input == 0 {
        return None;
    }
    let layer = Layer { weight: bridge::slice(&weights), bias, d_input, d_output };
    // A feature map seen as tokens: `[1, c, n]` with its last two axes swapped.
    let strides = input.layout().strides();
    let map = D >= 2
        && input.as_slice::<f32>().is_none()
        && strides[D - 1] == count as isize
        && (count == 1 || strides[D - 2] == 1)
        && shape[..D - 2].iter().all(|n| *n == 1);
    if map {
        let map = &input.storage::<f32>()[input.layout().start_offset()..][..count * d_input];
        layer.on_map(Level::best(), map, &mut output);
    } else {
        let tokens = bridge::contiguous(x)?;
        layer.on_tokens(Level::best(), bridge::slice(&tokens), &mut output);
    }
    Some(bridge::tensor(output, shape, &x.device()))
}

struct Layer<'a> {
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    d_input: usize,
    d_output: usize,
}

impl Layer<'_> {
    /// `x` `[n, d_input]` -> `y` `[n, d_output]`.
    fn on_tokens(&self, level: Level, x: &[f32], y: &mut [f32]) {
        let Self { d_input, d_output, .. } = *self;
        let n = x.len() / d_input;
        // The smaller matrix becomes panels: that is the one whose values are moved.
        let (rows, columns) = if n <= d_output { (self.weight, x) } else { (x, self.weight) };
        let count = columns.len() / d_input;
        let mut panels = Panels::whole(level, d_input, count);
        panels.fill(1, |panel, k, values| fill_transposed(panel, k, values, columns, d_input));
        let rows = Rows { data: rows, count: rows.len() / d_input, stride: d_input, tiles: false };
        if n <= d_output {
            let bias = self.bias.map_or(Bias::None, Bias::Row);
            multiply(rows, &panels, bias, &Target::new(y, 1, d_output), |panel| panel.first * d_output);
        } else {
            let bias = self.bias.map_or(Bias::None, Bias::Column);
            multiply(rows, &panels, bias, &Target::new(y, d_output, 1), |panel| panel.first);
        }
    }

    /// `x` `[d_input, n]` -> `y` `[n, d_output]`.
    fn on_map(&self, level: Level, x: &[f32], y: &mut [f32]) {
        let Self { d_input, d_output, .. } = *self;
        let n = x.len() / d_input;
        let mut panels = Panels::whole(level, d_input, n);
        panels.fill(1, |panel, k, values| fill_straight(panel, k, values, x, n));
        let rows = Rows { data: self.weight, count: d_output, stride: d_input, tiles: false };
        let bias = self.bias.map_or(Bias::None, Bias::Row);
        multiply(rows, &panels, bias, &Target::new(y, 1, d_output), |panel| panel.first * d_output);
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::linear::plain;

    fn check(x: Tensor<3>, d_output: usize) {
        let device = x.device();
        let [b, n, d_input] = x.dims();
        let w = seeded_input("w", [d_output, d_input], &device);
        let bias = seeded_input("bias", [d_output], &device);
        for bias in [None, Some(bias)] {
            let ours = linear(&x, &w, bias.as_ref()).expect("plain f32 on flex");
            let twin = plain(x.clone(), w.clone(), bias);
            assert_close(&format!("{b} {n} {d_input} -> {d_output}"), &ours, &twin, 1e-5);
        }
    }

    #[test]
    fn equals_plain_burn() {
        let device = Device::flex();
        for ([b, n, i], o) in
            [([1, 1, 1], 1), ([2, 5, 70], 9), ([1, 77, 300], 33), ([1, 9, 8], 200), ([3, 50, 31], 47)]
        {
            check(seeded_input("x", [b, n, i], &device), o);
        }
    }

    #[test]
    fn reads_feature_maps_as_tokens() {
        let device = Device::flex();
        for [b, c, n] in [[1, 70, 51], [1, 3, 1], [1, 1, 5], [2, 9, 16]] {
            check(seeded_input("x", [b, c, n], &device).swap_dims(1, 2), 20);
            check(seeded_input("x", [b, c, n + 3], &device).narrow(2, 1, n).swap_dims(1, 2), 20);
        }
    }
}
