use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::bridge;
use super::super::buffer::Buffer;
use super::super::exp::exp;
use super::super::geglu::phi;
use super::{Gradient, node, record, value};

/// Values in a task.
const TASK: usize = 1 << 14;

/// See [`crate::geglu`]; `None` where the tensor is not f32 on flex under autodiff.
pub fn geglu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    let x = node(x)?;
    let input = value::<D>(&x);
    let output = super::super::geglu(&input)?;
    record([&x], output, Geglu { x: bridge::contiguous(&input)? })
}

#[derive(Debug, Clone)]
struct Geglu {
    /// `[.., 2 c]`: values and gates.
    x: FlexTensor,
}

impl Gradient<1> for Geglu {
    fn gradients(self, output: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let (x, g) = (bridge::slice(&self.x), bridge::slice(&output));
        let shape = self.x.layout().shape().clone();
        let width = shape[shape.num_dims() - 1] / 2;
        let mut values = Buffer::take(x.len());
        if !values.is_empty() {
            let rows = TASK.div_ceil(width);
            let inputs = x.par_chunks(2 * rows * width).zip(g.par_chunks(rows * width));
            values.par_chunks_mut(2 * rows * width).zip(inputs).for_each(|(to, (x, g))| {
                let inputs = x.chunks_exact(2 * width).zip(g.chunks_exact(width));
                for (to, (x, g)) in to.chunks_exact_mut(2 * width).zip(inputs) {
                    let (to_value, to_gate) = to.split_at_mut(width);
                    let (value, gate) = x.split_at(width);
                    row(to_value, to_gate, value, gate, g);
                }
            });
        }
        [Some(bridge::primitive(values, shape))]
    }
}

multiversion! {
    /// Of `value * gelu(gate)`, where `gelu'(u) = Phi(u) + u * density(u)`.
    fn row(to_value: &mut [f32], to_gate: &mut [f32], value: &[f32], gate: &[f32], g: &[f32]) {
        const DENSITY: f32 = 0.398_942_3;
        for ((v, to_value), ((u, to_gate), g)) in
            value.iter().zip(to_value).zip(gate.iter().zip(to_gate).zip(g))
        {
            let cumulative = phi(*u);
            *to_value = g * u * cumulative;
            *to_gate = g * v * (cumulative + u * DENSITY * exp(-0.5 * u * u));
        }
    }
}
