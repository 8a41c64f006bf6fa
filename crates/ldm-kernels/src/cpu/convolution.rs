//! Convolution as a product: weights, as the file has them, times the image's columns.

use rayon::prelude::*;

use super::im2col::{Geometry, Runs};
use super::panels::Panels;
use super::product::{Bias, Rows, Target, multiply};
use super::simd::Level;

/// Values of the columns that are made at a time (16 MiB): a part of the image where it is large.
const COLUMNS: usize = 4 << 20;

/// What a convolution adds to its sums.
#[derive(Debug, Clone, Copy)]
pub struct Added<'a> {
    /// One value an output channel.
    pub bias: Option<&'a [f32]>,
    /// One value an output.
    pub addend: Option<&'a [f32]>,
}

/// `output` `[b, c_out, h', w']` = `input` `[b, c_in, h, w]` * `weight` `[c_out, c_in, kh, kw]` + what is `added`.
pub fn convolution(
    level: Level,
    input: &[f32],
    weight: &[f32],
    Added { bias, addend }: Added,
    output: &mut [f32],
    channels: [usize; 2],
    geometry: &Geometry,
) {
    let [c_in, c_out] = channels;
    let (plane, pixels, taps) = (geometry.plane(), geometry.outputs(), geometry.taps());
    let depth = c_in * taps;
    let batch = input.len().checked_div(plane * c_in).unwrap_or(0);
    let weight = Rows { data: weight, count: c_out, stride: depth, tiles: false };
    let bias = bias.map_or(Bias::None, Bias::Row);
    let target = Target::new(output, pixels, 1);

    // Columns are numbered through the batch, so that small images of one batch share each read of the weights.
    let all = batch * pixels;
    let step = (COLUMNS / depth).max(512).next_multiple_of(480);
    for start in (0..all).step_by(step) {
        let end = (start + step).min(all);
        let images = start / pixels..end.div_ceil(pixels);
        let runs = images.map(|i| (i * pixels).max(start)..((i + 1) * pixels).min(end));
        let mut columns = Panels::new(level, depth, runs);
        columns.fill(taps, |panel, rows, values| {
            let image = &input[panel.first / pixels * c_in * plane..][..c_in * plane];
            let runs = Runs::new(geometry, panel, panel.first % pixels);
            let planes = image.chunks_exact(plane).skip(rows.start / taps);
            for (values, plane) in values.chunks_exact_mut(taps * panel.width).zip(planes) {
                runs.copy(plane, values);
            }
        });
        multiply(weight, &columns, bias, &target, |panel| {
            panel.first / pixels * c_out * pixels + panel.first % pixels
        });
    }
    if let Some(addend) = addend {
        let planes = output.par_chunks_mut(pixels).zip(addend.par_chunks(pixels));
        planes.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, summed in f64.
    fn definition(x: &[f32], w: &[f32], bias: &[f32], [c_in, c_out]: [usize; 2], g: &Geometry) -> Vec<f32> {
        let mut y = Vec::new();
        for image in x.chunks(c_in * g.plane()) {
            for o in 0..c_out {
                for oy in 0..g.output[0] {
                    for ox in 0..g.output[1] {
                        let mut sum = f64::from(bias[o]);
                        for i in 0..c_in {
                            for ky in 0..g.kernel[0] {
                                for kx in 0..g.kernel[1] {
                                    let y = (oy * g.stride[0] + ky).wrapping_sub(g.padding[0]);
                                    let x = (ox * g.stride[1] + kx).wrapping_sub(g.padding[1]);
                                    if y < g.input[0] && x < g.input[1] {
                                        let v = image[(i * g.input[0] + y) * g.input[1] + x];
                                        let w = w[((o * c_in + i) * g.kernel[0] + ky) * g.kernel[1] + kx];
                                        sum += f64::from(v) * f64::from(w);
                                    }
                                }
                            }
                        }
                        y.push(sum as f32);
                    }
                }
            }
        }
        y
    }

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32) / 8_388_608.0 - 1.0)
            .collect()
    }

    #[test]
    fn equals_the_definition_at_every_level() {
        // batch, channels, input, kernel, stride, padding (above and left), output
        let cases = [
            (1, [3, 5], [7, 9], [3, 3], [1, 1], [1, 1], [7, 9]),
            (2, [70, 9], [8, 8], [3, 3], [1, 1], [1, 1], [8, 8]),
            (3, [8, 17], [4, 4], [3, 3], [1, 1], [1, 1], [4, 4]),
            (1, [4, 8], [33, 65], [3, 3], [2, 2], [1, 1], [17, 33]),
            (1, [4, 8], [10, 12], [3, 3], [2, 2], [0, 0], [5, 6]),
            (2, [300, 20], [5, 3], [1, 1], [1, 1], [0, 0], [5, 3]),
            (1, [2, 3], [1, 1], [3, 3], [1, 1], [1, 1], [1, 1]),
            (1, [2, 3], [9, 8], [5, 4], [3, 2], [2, 0], [3, 3]),
        ];
        for (b, channels, input, kernel, stride, padding, output) in cases {
            let g = Geometry { input, output, kernel, stride, padding };
            let [c_in, c_out] = channels;
            let x = values(b * c_in * g.plane(), 1);
            let w = values(c_out * c_in * g.taps(), 2);
            let bias = values(c_out, 3);
            let expected = definition(&x, &w, &bias, channels, &g);
            let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
            for level in Level::available() {
                let mut y = vec![f32::NAN; expected.len()];
                convolution(*level, &x, &w, Added { bias: Some(&bias), addend: None }, &mut y, channels, &g);
                for (y, e) in y.iter().zip(&expected) {
                    assert!((y - e).abs() <= 2e-6 * largest, "{level:?} {g:?}: {y} {e}");
                }
            }
        }
    }
}
