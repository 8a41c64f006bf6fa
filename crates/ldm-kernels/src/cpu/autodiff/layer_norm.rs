use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::bridge;
use super::super::buffer::Buffer;
use super::super::moments::moments;
use super::{Gradient, node, record, sums, value};

/// Rows in a task.
const ROWS: usize = 32;

/// See [`crate::layer_norm`]; `None` where the tensors are not f32 on flex under autodiff.
pub fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<1>,
    bias: &Tensor<1>,
    eps: f64,
) -> Option<Tensor<D>> {
    let (x, weight, bias) = (node(x)?, node(weight)?, node(bias)?);
    let (input, weights) = (value::<D>(&x), value::<1>(&weight));
    let output = super::super::layer_norm(&input, &weights, &value(&bias), eps)?;
    let saved = LayerNorm { x: bridge::contiguous(&input)?, weight: bridge::contiguous(&weights)?, eps };
    record([&x, &weight, &bias], output, saved)
}

#[derive(Debug, Clone)]
struct LayerNorm {
    /// `[.., c]`.
    x: FlexTensor,
    /// `[c]`.
    weight: FlexTensor,
    eps: f64,
}

impl Gradient<3> for LayerNorm {
    fn gradients(self, output: FlexTensor, wanted: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (x, g, weight) = (bridge::slice(&self.x), bridge::slice(&output), bridge::slice(&self.weight));
        let c = weight.len();
        let gradient = |i| match i {
            0 => {
                let values = self.rows(x, g, |x, g, mean, scale, to| input(to, x, g, weight, mean, scale));
                bridge::primitive(values, self.x.layout().shape().clone())
            }
            1 => {
                let products = self.rows(x, g, |x, g, mean, scale, to| product(to, x, g, mean, scale));
                bridge::primitive(sums::columns(&products, c), [c])
            }
            _ => bridge::primitive(sums::columns(g, c), [c]),
        };
        std::array::from_fn(|i| wanted[i].then(|| gradient(i)))
    }
}

impl LayerNorm {
    /// `f(row of x, row of the output's gradient, mean, 1 / deviation, row of the result)` for every row.
    fn rows(&self, x: &[f32], g: &[f32], f: impl Fn(&[f32], &[f32], f32, f32, &mut [f32]) + Sync) -> Buffer {
        let c = bridge::slice(&self.weight).len();
        let mut values = Buffer::take(x.len());
        let task = ROWS * c;
        let tasks = values.par_chunks_mut(task).zip(x.par_chunks(task).zip(g.par_chunks(task)));
        tasks.for_each(|(to, (x, g))| {
            for (to, (x, g)) in to.chunks_exact_mut(c).zip(x.chunks_exact(c).zip(g.chunks_exact(c))) {
                let (mean, variance) = moments(x);
                f(x, g, mean as f32, (1.0 / (variance + self.eps).sqrt()) as f32, to);
            }
        });
        values
    }
}

multiversion! {
    /// With `n = (x - mean) * scale` and `d = g * weight`: `scale * (d - mean(d) - n * mean(d * n))`.
    fn input(to: &mut [f32], x: &[f32], g: &[f32], weight: &[f32], mean: f32, scale: f32) {
        let (mut sum, mut dot) = (0f32, 0f32);
        for ((to, x), (g, w)) in to.iter_mut().zip(x).zip(g.iter().zip(weight)) {
            let d = g * w;
            *to = d;
            sum += d;
            dot += d * (x - mean) * scale;
        }
        let count = x.len() as f32;
        let (sum, dot) = (sum / count, dot / count);
        for (to, x) in to.iter_mut().zip(x) {
            *to = scale * (*to - sum - (x - mean) * scale * dot);
        }
    }
}

multiversion! {
    /// `g * n`.
    fn product(to: &mut [f32], x: &[f32], g: &[f32], mean: f32, scale: f32) {
        for ((to, x), g) in to.iter_mut().zip(x).zip(g) {
            *to = g * (x - mean) * scale;
        }
    }
}
