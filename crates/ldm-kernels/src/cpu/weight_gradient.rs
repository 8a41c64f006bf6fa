//! The gradient of a convolution's weights, as a product: the image's columns, transposed, times the output's gradient.

use std::ops::Range;

use rayon::prelude::*;

use super::im2col::Geometry;
use super::panels::{Panels, fill_transposed};
use super::product::{Bias, Rows, Target, multiply};
use super::scratch::Scratch;
use super::simd::Level;

/// Values of the columns that are made at a time (16 MiB).
const COLUMNS: usize = 4 << 20;

/// `values` `[c_out, c_in, kh, kw]` from `x` `[b, c_in, h, w]` and the output's gradient `[b, c_out, h', w']`.
pub fn weight_gradient(
    level: Level,
    x: &[f32],
    gradient: &[f32],
    values: &mut [f32],
    channels: [usize; 2],
    geometry: &Geometry,
) {
    let [c_in, c_out] = channels;
    let (pixels, depth) = (geometry.outputs(), c_in * geometry.taps());
    let all = gradient.len() / c_out;
    let step = (COLUMNS / depth).max(256);
    let target = Target::new(values, 1, depth);
    // Pixels are numbered through the batch.
    for start in (0..all).step_by(step) {
        let end = (start + step).min(all);
        let lines = lines(geometry, start..end);
        let count = end - start;
        let mut columns = Scratch::take(depth * count);
        columns.par_chunks_exact_mut(count).enumerate().for_each(|(row, to)| {
            let (channel, tap) = (row / geometry.taps(), row % geometry.taps());
            lines.iter().for_each(|line| line.copy(geometry, [channel, c_in], tap, x, &mut to[line.to..]));
        });
        let mut panels = Panels::whole(level, count, c_out);
        panels.fill(1, |panel, rows, values| {
            let mut done = 0;
            while done < rows.len() {
                let pixel = start + rows.start + done;
                let (image, first) = (pixel / pixels, pixel % pixels);
                let n = (pixels - first).min(rows.len() - done);
                let planes = &gradient[image * c_out * pixels..][..c_out * pixels];
                let to = &mut values[done * panel.width..][..n * panel.width];
                fill_transposed(panel, first..first + n, to, planes, pixels);
                done += n;
            }
        });
        let bias = if start == 0 { Bias::None } else { Bias::Target };
        let rows = Rows { data: &columns, count: depth, stride: count, tiles: false };
        multiply(rows, &panels, bias, &target, |panel| panel.first * depth);
    }
}

/// Neighbouring outputs in one row of one image.
struct Line {
    image: usize,
    y: usize,
    x: Range<usize>,
    /// Where they stand among the outputs of their part.
    to: usize,
}

/// The outputs `range`, numbered through the batch, row by row.
fn lines(g: &Geometry, range: Range<usize>) -> Vec<Line> {
    let (pixels, width) = (g.outputs(), g.output[1]);
    let mut lines = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let (image, y, x) = (at / pixels, at % pixels / width, at % width);
        let n = (width - x).min(range.end - at);
        lines.push(Line { image, y, x: x..x + n, to: at - range.start });
        at += n;
    }
    lines
}

impl Line {
    /// What the tap reads for these outputs, zero in the padding.
    fn copy(&self, g: &Geometry, [channel, c_in]: [usize; 2], tap: usize, x: &[f32], to: &mut [f32]) {
        let to = &mut to[..self.x.len()];
        let [height, width] = g.input;
        let [ky, kx] = [tap / g.kernel[1], tap % g.kernel[1]];
        let source = (self.y * g.stride[0] + ky).checked_sub(g.padding[0]).filter(|y| *y < height);
        let Some(source) = source else { return to.fill(0.0) };
        let row = &x[((self.image * c_in + channel) * height + source) * width..][..width];
        // Output x reads column x * stride + kx - padding: those before `begin` lie left of it, from `end` on right.
        let (stride, padding) = (g.stride[1], g.padding[1]);
        let begin = padding.saturating_sub(kx).div_ceil(stride).clamp(self.x.start, self.x.end);
        let end = (width + padding).saturating_sub(kx).div_ceil(stride).clamp(begin, self.x.end);
        let (before, rest) = to.split_at_mut(begin - self.x.start);
        let (inside, after) = rest.split_at_mut(end - begin);
        before.fill(0.0);
        after.fill(0.0);
        if inside.is_empty() {
            return;
        }
        let from = &row[begin * stride + kx - padding..];
        match stride {
            1 => inside.copy_from_slice(&from[..inside.len()]),
            _ => inside.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, v)| *to = *v),
        }
    }
}
