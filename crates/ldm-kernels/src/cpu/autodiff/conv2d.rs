use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::ModuleOps;
use burn::tensor::Tensor;
use burn::tensor::ops::ConvOptions;

use super::super::bridge;
use super::super::buffer::Buffer;
use super::super::im2col::Geometry;
use super::super::simd::Level;
use super::super::weight_gradient::weight_gradient;
use super::super::winograd;
use super::{Gradient, node, primitive, record, sums, value};
use crate::conv2d::Conv2dOptions;

/// See [`crate::conv2d`]; `None` where the tensors are not f32 on flex under autodiff.
pub fn conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    options: Conv2dOptions,
) -> Option<Tensor<4>> {
    let (x, weight) = (node(x)?, node(weight)?);
    let (input, weights) = (value::<4>(&x), value::<4>(&weight));
    let saved = Conv2d { x: input.clone(), weight: weights.clone(), options };
    match bias {
        None => {
            let output = super::super::conv2d(&input, &weights, None, options, None)?;
            record([&x, &weight], output, saved)
        }
        Some(bias) => {
            let bias = node(bias)?;
            let output = super::super::conv2d(&input, &weights, Some(&value(&bias)), options, None)?;
            record([&x, &weight, &bias], output, saved)
        }
    }
}

#[derive(Debug, Clone)]
struct Conv2d {
    x: Tensor<4>,
    weight: Tensor<4>,
    options: Conv2dOptions,
}

impl<const N: usize> Gradient<N> for Conv2d {
    fn gradients(self, output: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N] {
        std::array::from_fn(|i| match i {
            _ if !wanted[i] => None,
            0 => self.input(&output),
            1 => self.weight(&output),
            _ => {
                let [_, c, h, w] = output.layout().shape().dims::<4>();
                Some(bridge::primitive(sums::channels(bridge::slice(&output), c, h * w), [c]))
            }
        })
    }
}

impl Conv2d {
    /// The output's gradient, spread out by the stride, convolved with the mirrored weights.
    fn input(&self, output: &FlexTensor) -> Option<FlexTensor> {
        let [_, _, height, width] = self.x.dims();
        let [_, _, kh, kw] = self.weight.dims();
        let Conv2dOptions { stride, padding } = self.options;
        let spread = spread(output, stride);
        let [_, _, spread_height, spread_width] = spread.dims();
        let side = |n: usize, spread: usize, k: usize, before: usize| {
            Some([(k - 1).checked_sub(before)?, (n + before).checked_sub(spread)?])
        };
        let rows = side(height, spread_height, kh, padding[0][0]);
        let columns = side(width, spread_width, kw, padding[1][0]);
        let (Some(rows), Some(columns)) = (rows, columns) else {
            // Padding wider than the kernel reaches: rare enough for burn's own.
            let [rows, columns] = padding.map(|[before, after]| (before, after));
            let options = ConvOptions::new_with_padding(stride, [rows, columns], [1, 1], 1);
            let (x, weight) = (primitive(self.x.clone())?, primitive(self.weight.clone())?);
            return Some(Flex::conv2d_x_backward(x, weight, output.clone(), options));
        };
        let mirrored = self.weight.clone().flip([2, 3]).swap_dims(0, 1);
        let options = Conv2dOptions { stride: [1, 1], padding: [rows, columns] };
        primitive(super::super::conv2d(&spread, &mirrored, None, options, None)?)
    }

    fn weight(&self, output: &FlexTensor) -> Option<FlexTensor> {
        let [_, c_in, height, width] = self.x.dims();
        let [c_out, _, kh, kw] = self.weight.dims();
        let [_, _, h, w] = output.layout().shape().dims::<4>();
        let Conv2dOptions { stride, padding } = self.options;
        let geometry = Geometry {
            input: [height, width],
            output: [h, w],
            kernel: [kh, kw],
            stride,
            padding: [padding[0][0], padding[1][0]],
        };
        let x = bridge::contiguous(&self.x)?;
        let mut values = Buffer::take(c_out * c_in * kh * kw);
        let [batch, _, _, _] = self.x.dims();
        let run = if winograd::pays(&geometry, [c_in, c_out], batch) {
            winograd::weight_gradient
        } else {
            weight_gradient
        };
        run(Level::best(), bridge::slice(&x), bridge::slice(output), &mut values, [c_in, c_out], &geometry);
        Some(bridge::primitive(values, [c_out, c_in, kh, kw]))
    }
}

/// `stride - 1` zeros between rows and between columns.
fn spread(x: &FlexTensor, [down, across]: [usize; 2]) -> Tensor<4> {
    if [down, across] == [1, 1] {
        return Tensor::from_primitive::<Flex>(x.clone());
    }
    let [b, c, h, w] = x.layout().shape().dims::<4>();
    let (height, width) = ((h - 1) * down + 1, (w - 1) * across + 1);
    let mut values = vec![0.0; b * c * height * width];
    for (to, from) in values.chunks_exact_mut(height * width).zip(bridge::slice(x).chunks_exact(h * w)) {
        for (to, from) in to.chunks_mut(down * width).zip(from.chunks_exact(w)) {
            to[..width].iter_mut().step_by(across).zip(from).for_each(|(to, v)| *to = *v);
        }
    }
    Tensor::from_primitive::<Flex>(bridge::primitive(values, [b, c, height, width]))
}
