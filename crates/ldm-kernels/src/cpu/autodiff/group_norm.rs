use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::bridge;
use super::super::buffer::Buffer;
use super::super::exp::exp;
use super::super::moments::moments;
use super::{Gradient, node, record, sums, value};
use crate::group_norm::GroupNormOptions;

/// See [`crate::group_norm`]; `None` where the tensors are not f32 on flex under autodiff.
pub fn group_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    options: GroupNormOptions,
) -> Option<Tensor<D>> {
    let (x, weight, bias) = (node(x)?, node(weight)?, node(bias)?);
    let (input, weights, biases) = (value::<D>(&x), value::<1>(&weight), value::<1>(&bias));
    let output = super::super::group_norm(&input, &weights, &biases, options)?;
    let saved = GroupNorm {
        x: bridge::contiguous(&input)?,
        weight: bridge::contiguous(&weights)?,
        bias: bridge::contiguous(&biases)?,
        options,
    };
    record([&x, &weight, &bias], output, saved)
}

#[derive(Debug, Clone)]
struct GroupNorm {
    /// `[b, c, ..]`.
    x: FlexTensor,
    /// `[c]`.
    weight: FlexTensor,
    /// `[c]`.
    bias: FlexTensor,
    options: GroupNormOptions,
}

impl Gradient<3> for GroupNorm {
    // One pass gives all three.
    fn gradients(self, output: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (x, g) = (bridge::slice(&self.x), bridge::slice(&output));
        let (weight, bias) = (bridge::slice(&self.weight), bridge::slice(&self.bias));
        let GroupNormOptions { groups, eps, silu } = self.options;
        let channels = weight.len();
        let width = channels / groups;
        let plane: usize = self.x.layout().shape()[2..].iter().product();
        let mut input = Buffer::take(x.len());
        let group = width * plane;
        // For each plane, the sums of d and of d * n, where n is the normalised input and d the gradient of the
        // norm's output.
        let per_plane: Vec<Vec<[f64; 2]>> = input
            .par_chunks_mut(group)
            .zip(x.par_chunks(group).zip(g.par_chunks(group)))
            .enumerate()
            .map(|(i, (input, (x, g)))| {
                let (mean, variance) = moments(x);
                let (mean, scale) = (mean as f32, (1.0 / (variance + eps).sqrt()) as f32);
                let first = i % groups * width;
                let planes =
                    input.chunks_exact_mut(plane).zip(x.chunks_exact(plane).zip(g.chunks_exact(plane)));
                let sums = planes.enumerate().map(|(c, (input, (x, g)))| {
                    let (w, b) = (weight[first + c], bias[first + c]);
                    if silu {
                        through_silu(input, x, g, mean, scale, w, b)
                    } else {
                        input.copy_from_slice(g)
                    }
                    [sums::sum(input), dot(input, x, mean, scale)]
                });
                let sums: Vec<[f64; 2]> = sums.collect();
                let weighted = |k: usize| {
                    let terms = sums.iter().zip(&weight[first..]).map(|(s, w)| s[k] * f64::from(*w));
                    (terms.sum::<f64>() / group as f64) as f32
                };
                let (sum, product) = (weighted(0), weighted(1));
                let planes = input.chunks_exact_mut(plane).zip(x.chunks_exact(plane));
                for ((input, x), w) in planes.zip(&weight[first..]) {
                    through_norm(input, x, mean, scale, *w, sum, product);
                }
                sums
            })
            .collect();
        let per_plane: Vec<[f64; 2]> = per_plane.concat();
        let over_batch = |k: usize| {
            let channel =
                |c: usize| per_plane[c..].iter().step_by(channels).map(|s| s[k]).sum::<f64>() as f32;
            Some(bridge::primitive((0..channels).map(channel).collect::<Vec<_>>(), [channels]))
        };
        let input = bridge::primitive(input, self.x.layout().shape().clone());
        [Some(input), over_batch(1), over_batch(0)]
    }
}

multiversion! {
    /// `d = g * silu'(n * weight + bias)` with `n = (x - mean) * scale`.
    fn through_silu(d: &mut [f32], x: &[f32], g: &[f32], mean: f32, scale: f32, weight: f32, bias: f32) {
        let scale = scale * weight;
        for ((d, x), g) in d.iter_mut().zip(x).zip(g) {
            let u = (x - mean) * scale + bias;
            let sigmoid = 1.0 / (1.0 + exp(-u));
            *d = g * sigmoid * (1.0 + u * (1.0 - sigmoid));
        }
    }
}

multiversion! {
    /// The sum of `d * n`.
    fn dot(d: &[f32], x: &[f32], mean: f32, scale: f32) -> f64 {
        const LANES: usize = 16;
        let mut all = 0f64;
        for (d, x) in d.chunks(1024).zip(x.chunks(1024)) {
            let mut lanes = [0f32; LANES];
            let (blocks, xs) = (d.chunks_exact(LANES), x.chunks_exact(LANES));
            for (d, x) in blocks.remainder().iter().zip(xs.remainder()) {
                all += f64::from(d * (x - mean) * scale);
            }
            for (d, x) in blocks.zip(xs) {
                for (lane, (d, x)) in lanes.iter_mut().zip(d.iter().zip(x)) {
                    *lane += d * (x - mean) * scale;
                }
            }
            all += lanes.iter().map(|v| f64::from(*v)).sum::<f64>();
        }
        all
    }
}

multiversion! {
    /// `scale * (d * weight - sum - n * product)`, in place of `d`.
    fn through_norm(d: &mut [f32], x: &[f32], mean: f32, scale: f32, weight: f32, sum: f32, product: f32) {
        for (d, x) in d.iter_mut().zip(x) {
            *d = scale * (*d * weight - sum - (x - mean) * scale * product);
        }
    }
}
