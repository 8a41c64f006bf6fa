//! The gradient of a 3x3 convolution's weights, through the same 36 products.
//!
//! With the forward pass `y = A^T ((G g G^T) * (B^T d B)) A` a tile, the gradient is `G^T M G`, where M is the sum over all
//! tiles of `(A dy A^T) * (B^T d B)`: a quarter of the multiplications of the plain product, as in the forward pass.

use rayon::prelude::*;

use super::super::im2col::Geometry;
use super::super::panels::{Panels, fill_transposed};
use super::super::product::{Bias, Block, Rows, Target, multiply_block};
use super::super::scratch::Scratch;
use super::super::simd::Level;
use super::transform::{both, lane, weight_adjoint};
use super::{LANES, PATCH, POINTS, input, output, tiles};

/// Most transformed values at a time (24 MiB).
const VALUES: usize = 6 << 20;

/// As [`weight_gradient`](super::super::weight_gradient::weight_gradient), for a 3x3 kernel, stride 1 and one pixel of padding.
pub fn weight_gradient(
    level: Level,
    x: &[f32],
    gradient: &[f32],
    values: &mut [f32],
    [c_in, c_out]: [usize; 2],
    geometry: &Geometry,
) {
    let all = gradient.len() / (c_out * geometry.outputs()) * tiles(geometry);
    let most = (VALUES / (POINTS * (c_in + c_out))).max(LANES);
    let step = all.div_ceil(all.div_ceil(most));
    // [36, c_in, c_out]
    let mut sums = Scratch::take(POINTS * c_in * c_out);
    for start in (0..all).step_by(step) {
        let tiles = start..(start + step).min(all);
        let count = tiles.len();
        // [channels, 36, tiles] each.
        let mut patches = Scratch::take(c_in * POINTS * count);
        patches.par_chunks_exact_mut(POINTS * count).enumerate().for_each(|(channel, to)| {
            input::channel(x, [channel, c_in], geometry, tiles.clone(), to);
        });
        let mut gradients = Scratch::take(c_out * POINTS * count);
        gradients.par_chunks_exact_mut(POINTS * count).enumerate().for_each(|(channel, to)| {
            output::adjoint(gradient, [channel, c_out], geometry, tiles.clone(), to);
        });
        let stride = POINTS * count;
        sums.par_chunks_exact_mut(c_in * c_out).enumerate().for_each(|(point, sums)| {
            let mut columns = Panels::whole(level, count, c_out);
            let gradients = &gradients[point * count..];
            columns.fill(1, |panel, k, values| fill_transposed(panel, k, values, gradients, stride));
            let rows = Rows { data: &patches[point * count..], count: c_in, stride, tiles: false };
            let block = Block { rows: 0..c_in, panels: 0..columns.panels.len(), depth: 0..count };
            let bias = if start == 0 { Bias::None } else { Bias::Target };
            let target = Target::new(sums, c_out, 1);
            // SAFETY: this point's sums are this task's own.
            unsafe { multiply_block(rows, &columns, block, bias, &target, &|panel| panel.first) };
        });
    }
    let task = LANES * c_in * 9;
    values.par_chunks_mut(task).enumerate().for_each(|(task, values)| {
        kernels(&sums, [c_in, c_out], task * LANES, values);
    });
}

multiversion! {
    /// `G^T M G` for up to 16 outputs from `first` on.
    fn kernels(sums: &[f32], channels: [usize; 2], first: usize, values: &mut [f32]) {
        let [c_in, c_out] = channels;
        let outputs = values.len() / (c_in * 9);
        for channel in 0..c_in {
            let point = |y, x| lane(&sums[((y * PATCH + x) * c_in + channel) * c_out + first..][..outputs]);
            both(point, weight_adjoint, |y, x, lane| {
                for (output, value) in lane.iter().enumerate().take(outputs) {
                    values[(output * c_in + channel) * 9 + y * 3 + x] = *value;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::weight_gradient as plain;
    use super::*;

    #[test]
    fn equals_the_plain_product_at_every_level() {
        for (b, [c_in, c_out], input) in [
            (1, [3, 5], [8, 8]),
            (2, [40, 33], [7, 9]),
            (3, [5, 40], [33, 18]),
            (5, [4, 4], [1, 1]),
            (1, [8, 2], [5, 130]),
            (8, [64, 50], [16, 16]),
            (1, [300, 34], [150, 70]),
        ] {
            let g = Geometry { input, output: input, kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
            let x = super::super::tests::values(b * c_in * g.plane(), 1);
            let dy = super::super::tests::values(b * c_out * g.outputs(), 2);
            for level in Level::available() {
                let mut expected = vec![f32::NAN; c_out * c_in * 9];
                plain::weight_gradient(*level, &x, &dy, &mut expected, [c_in, c_out], &g);
                let mut ours = vec![f32::NAN; expected.len()];
                weight_gradient(*level, &x, &dy, &mut ours, [c_in, c_out], &g);
                let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
                let worst = ours.iter().zip(&expected).fold(0f32, |m, (y, e)| {
                    if y.is_nan() { f32::INFINITY } else { m.max((y - e).abs() / largest) }
                });
                println!("{level:?} {b} {c_in} {c_out} {input:?}: {worst:.1e}");
                assert!(worst <= 1e-5, "{level:?} {b} {c_in} {c_out} {input:?}: {worst:e}");
            }
        }
    }
}
