use burn::tensor::Tensor;
use rayon::prelude::*;

use super::bridge;
use super::buffer::Buffer;

/// Pixels in a task: fewer aren't worth another thread.
const TASK: usize = 1 << 14;

/// See [`crate::upsample_twice`]; `None` where the tensor is not a plain f32 flex tensor.
pub fn upsample_twice(x: &Tensor<4>) -> Option<Tensor<4>> {
    let [b, c, h, w] = x.dims();
    let input = bridge::contiguous(x)?;
    let input = bridge::slice(&input);
    let mut output = Buffer::take(4 * input.len());
    if !output.is_empty() {
        let rows = TASK.div_ceil(w);
        let tasks = output.par_chunks_mut(4 * rows * w).zip(input.par_chunks(rows * w));
        tasks.for_each(|(to, from)| {
            for (to, from) in to.chunks_exact_mut(4 * w).zip(from.chunks_exact(w)) {
                let (above, below) = to.split_at_mut(2 * w);
                twice(above, from);
                below.copy_from_slice(above);
            }
        });
    }
    Some(bridge::tensor(output, [b, c, 2 * h, 2 * w], &x.device()))
}

multiversion! {
    fn twice(to: &mut [f32], from: &[f32]) {
        for (to, from) in to.chunks_exact_mut(2).zip(from) {
            to[0] = *from;
            to[1] = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use ldm_test_support::{assert_close, seeded_input};

    use super::*;
    use crate::upsample::plain;

    #[test]
    fn equals_plain_burn() {
        for shape in [[1, 1, 1, 1], [2, 3, 5, 7], [1, 2, 130, 150]] {
            let x = seeded_input("x", shape, &Device::flex());
            let ours = upsample_twice(&x).expect("plain f32 on flex");
            assert_close(&format!("{shape:?}"), &ours, &plain(x), 0.0);
        }
    }
}
