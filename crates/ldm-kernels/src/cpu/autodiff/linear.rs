use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use super::super::bridge;
use super::super::buffer::Buffer;
use super::super::panels::{Panels, fill_straight};
use super::super::product::{Bias, Rows, Target, multiply};
use super::super::scratch::Scratch;
use super::super::simd::Level;
use super::{Gradient, node, record, sums, value};

/// See [`crate::linear`]; `None` where the tensors are not f32 on flex under autodiff.
pub fn linear<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<&Tensor<1>>,
) -> Option<Tensor<D>> {
    let (x, weight) = (node(x)?, node(weight)?);
    let (input, weights) = (value::<D>(&x), value::<2>(&weight));
    let saved = Linear { x: bridge::contiguous(&input)?, weight: bridge::contiguous(&weights)? };
    match bias {
        None => {
            let output = super::super::linear(&input, &weights, None)?;
            record([&x, &weight], output, saved)
        }
        Some(bias) => {
            let bias = node(bias)?;
            let output = super::super::linear(&input, &weights, Some(&value(&bias)))?;
            record([&x, &weight, &bias], output, saved)
        }
    }
}

#[derive(Debug, Clone)]
struct Linear {
    /// `[.., d_input]`.
    x: FlexTensor,
    /// `[d_output, d_input]`.
    weight: FlexTensor,
}

impl<const N: usize> Gradient<N> for Linear {
    fn gradients(self, output: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N] {
        let [d_output, d_input] = self.weight.layout().shape().dims::<2>();
        let g = bridge::slice(&output);
        let gradient = |i| match i {
            0 => {
                let values = inputs(g, bridge::slice(&self.weight), [d_input, d_output]);
                bridge::primitive(values, self.x.layout().shape().clone())
            }
            1 => {
                let values = weights(g, bridge::slice(&self.x), [d_input, d_output]);
                bridge::primitive(values, [d_output, d_input])
            }
            _ => bridge::primitive(sums::columns(g, d_output), [d_output]),
        };
        std::array::from_fn(|i| wanted[i].then(|| gradient(i)))
    }
}

/// `g W`: `g` `[n, d_output]`, `W` `[d_output, d_input]` -> `[n, d_input]`.
fn inputs(g: &[f32], weight: &[f32], [d_input, d_output]: [usize; 2]) -> Buffer {
    let n = g.len() / d_output;
    let mut panels = Panels::whole(Level::best(), d_output, d_input);
    panels.fill(1, |panel, k, values| fill_straight(panel, k, values, weight, d_input));
    let mut values = Buffer::take(n * d_input);
    let rows = Rows { data: g, count: n, stride: d_output, tiles: false };
    multiply(rows, &panels, Bias::None, &Target::new(&mut values, d_input, 1), |panel| panel.first);
    values
}

/// `g^T x`: `g` `[n, d_output]`, `x` `[n, d_input]` -> `[d_output, d_input]`.
fn weights(g: &[f32], x: &[f32], [d_input, d_output]: [usize; 2]) -> Buffer {
    let n = g.len() / d_output;
    let mut transposed = Scratch::take(g.len());
    transpose(g, &mut transposed, d_output);
    let mut panels = Panels::whole(Level::best(), n, d_input);
    panels.fill(1, |panel, k, values| fill_straight(panel, k, values, x, d_input));
    let mut values = Buffer::take(d_output * d_input);
    let rows = Rows { data: &transposed, count: d_output, stride: n, tiles: false };
    multiply(rows, &panels, Bias::None, &Target::new(&mut values, d_input, 1), |panel| panel.first);
    values
}

/// `[n, c]` -> `[c, n]`.
fn transpose(from: &[f32], to: &mut [f32], c: usize) {
    const BLOCK: usize = 32;
    let n = from.len() / c;
    for start in (0..n).step_by(BLOCK) {
        let rows = &from[start * c..((start + BLOCK).min(n)) * c];
        for (j, column) in to.chunks_exact_mut(n).enumerate() {
            let to = &mut column[start..];
            rows.iter().skip(j).step_by(c).zip(to).for_each(|(v, to)| *to = *v);
        }
    }
}
