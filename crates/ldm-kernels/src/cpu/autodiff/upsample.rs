use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;
use rayon::prelude::*;

use super::super::bridge;
use super::super::buffer::Buffer;
use super::{Gradient, node, record, value};

/// Pixels in a task.
const TASK: usize = 1 << 12;

/// See [`crate::upsample_twice`]; `None` where the tensor is not f32 on flex under autodiff.
pub fn upsample_twice(x: &Tensor<4>) -> Option<Tensor<4>> {
    let shape = x.dims();
    let x = node(x)?;
    let output = super::super::upsample_twice(&value(&x))?;
    record([&x], output, Upsample { shape })
}

#[derive(Debug, Clone)]
struct Upsample {
    /// Of the input.
    shape: [usize; 4],
}

impl Gradient<1> for Upsample {
    /// The sum over a pixel's four copies.
    fn gradients(self, output: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let g = bridge::slice(&output);
        let mut values = Buffer::take(g.len() / 4);
        if !values.is_empty() {
            let w = self.shape[3];
            let rows = TASK.div_ceil(w);
            let tasks = values.par_chunks_mut(rows * w).zip(g.par_chunks(4 * rows * w));
            tasks.for_each(|(to, g)| {
                for (to, g) in to.chunks_exact_mut(w).zip(g.chunks_exact(4 * w)) {
                    let (above, below) = g.split_at(2 * w);
                    sums(to, above, below);
                }
            });
        }
        [Some(bridge::primitive(values, self.shape))]
    }
}

multiversion! {
    fn sums(to: &mut [f32], above: &[f32], below: &[f32]) {
        for (to, (a, b)) in to.iter_mut().zip(above.chunks_exact(2).zip(below.chunks_exact(2))) {
            *to = (a[0] + a[1]) + (b[0] + b[1]);
        }
    }
}
