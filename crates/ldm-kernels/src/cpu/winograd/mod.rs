//! 3x3 convolution by Winograd's F(4x4, 3x3): a quarter of the multiplications (Lavin and Gray 2016).
//!
//! The image falls into tiles of 4x4 outputs. Transformed, a tile's convolution is 36 independent products, so all
//! tiles and channels together are 36 matrix products. Interpolating at 0, +-3/4, +-3/2 and infinity rather than at
//! the usual 0, +-1, +-2 keeps the error near 4e-6 of the largest output, a quarter of what those give.

#[cfg(feature = "autodiff")]
mod gradient;
mod input;
mod output;
pub(super) mod shuffle;
mod transform;
mod weight;

use rayon::prelude::*;

use super::convolution::Added;
use super::im2col::Geometry;
use super::panels::Panels;
use super::product::{Bias, Block, Rows, Target, multiply_block};
use super::scratch::Scratch;
use super::simd::Level;
use super::tile::ROWS;
#[cfg(feature = "autodiff")]
pub use gradient::weight_gradient;
use output::{Plane, Products};

/// Outputs along a side of a tile.
const SIDE: usize = 4;
/// Inputs along a side of a tile.
const PATCH: usize = SIDE + 2;
/// Values of a transformed tile.
const POINTS: usize = PATCH * PATCH;
/// Tiles that are transformed together, one a lane.
const LANES: usize = 16;
/// Output channels in a task.
const CHANNELS: usize = 32;
/// Most tiles at a time.
const TILES: usize = 512;
/// Most values of transformed input at a time (24 MiB).
const VALUES: usize = 6 << 20;

/// Whether this convolution is one that the algorithm does, and faster.
///
/// Transforming the weights costs as much as about 30 tiles; the U-Net's smaller maps don't earn it.
pub fn pays(geometry: &Geometry, [c_in, c_out]: [usize; 2], batch: usize) -> bool {
    let g = geometry;
    let fits = g.kernel == [3, 3] && g.stride == [1, 1] && g.padding == [1, 1] && g.output == g.input;
    fits && batch * tiles(g) >= 64 && c_in >= CHANNELS && c_out >= CHANNELS
}

fn tiles(geometry: &Geometry) -> usize {
    geometry.output[0].div_ceil(SIDE) * geometry.output[1].div_ceil(SIDE)
}

/// As [`convolution`](super::convolution::convolution), for a 3x3 kernel, stride 1 and one pixel of padding.
pub fn winograd(
    level: Level,
    input: &[f32],
    weight: &[f32],
    Added { bias, addend }: Added,
    output: &mut [f32],
    [c_in, c_out]: [usize; 2],
    geometry: &Geometry,
) {
    let all = input.len() / (c_in * geometry.plane()) * tiles(geometry);
    let most = (VALUES / (POINTS * c_in)).clamp(LANES, TILES);
    let step = all.div_ceil(all.div_ceil(most));
    // Weights that several passes read are transformed once; those of one pass where they are needed, in the cache.
    let transformed = (step < all).then(|| transformed(weight, c_in));
    let len = output.len();
    let target = Target::new(output, geometry.outputs(), 1);
    for start in (0..all).step_by(step) {
        let tiles = start..(start + step).min(all);
        let mut patches = Panels::new(level, POINTS * c_in, [tiles.clone()]);
        patches.fill_whole(|panel, values| input::transform(input, c_in, geometry, panel, values));
        (0..c_out.div_ceil(CHANNELS)).into_par_iter().for_each(|task| {
            let channels = task * CHANNELS..((task + 1) * CHANNELS).min(c_out);
            let (count, width) = (channels.len(), tiles.len());
            let rows = count.next_multiple_of(ROWS);
            let own = POINTS * rows * c_in;
            let mut scratch =
                Scratch::take(if transformed.is_some() { 0 } else { own } + POINTS * count * width);
            let (weights, products) = match &transformed {
                Some(all) => (&all[POINTS * channels.start * c_in..][..own], &mut scratch[..]),
                None => {
                    let (weights, products) = scratch.split_at_mut(own);
                    weight::transform(
                        &weight[channels.start * 9 * c_in..channels.end * 9 * c_in],
                        c_in,
                        weights,
                    );
                    (&*weights, products)
                }
            };
            for point in 0..POINTS {
                let weights =
                    Rows { data: &weights[point * rows * c_in..], count, stride: c_in, tiles: true };
                let products = &mut products[point * count * width..][..count * width];
                let products = Target::new(products, width, 1);
                let depth = point * c_in..(point + 1) * c_in;
                let block = Block { rows: 0..count, panels: 0..patches.panels.len(), depth };
                // SAFETY: the products are this task's own.
                unsafe {
                    multiply_block(weights, &patches, block, Bias::None, &products, &|p| {
                        p.first - tiles.start
                    });
                }
            }
            for (i, channel) in channels.enumerate() {
                let plane = |image: usize| {
                    let start = (image * c_out + channel) * geometry.outputs();
                    debug_assert!(start < len);
                    let range = start..start + geometry.outputs();
                    // SAFETY: this channel belongs to this task.
                    let to = unsafe { target.slice(start, geometry.outputs()) };
                    Plane { to, addend: addend.map(|addend| &addend[range]) }
                };
                let products = Products { values: &products[i * width..], stride: count * width };
                output::transform(
                    products,
                    bias.map_or(0.0, |b| b[channel]),
                    geometry,
                    tiles.clone(),
                    &plane,
                );
            }
        });
    }
}

/// All weights, task by task, each as [`weight::transform`] has them.
fn transformed(weight: &[f32], c_in: usize) -> Scratch {
    let c_out = weight.len() / (9 * c_in);
    let mut all = Scratch::take(c_out.next_multiple_of(ROWS) * c_in * POINTS);
    let tasks = all.par_chunks_mut(CHANNELS * c_in * POINTS).zip(weight.par_chunks(CHANNELS * c_in * 9));
    tasks.for_each(|(to, weight)| weight::transform(weight, c_in, to));
    all
}

/// Tiles that lie side by side: `len` of them from lane `lane` on.
struct Strip {
    lane: usize,
    image: usize,
    /// Row and column of the first tile, in tiles.
    row: usize,
    column: usize,
    len: usize,
}

/// The strips of up to [`LANES`] tiles.
fn strips(geometry: &Geometry, tiles: std::ops::Range<usize>) -> impl Iterator<Item = Strip> {
    let [rows, columns] = geometry.output.map(|n| n.div_ceil(SIDE));
    let mut next = tiles.start;
    std::iter::from_fn(move || {
        if next == tiles.end {
            return None;
        }
        let column = next % columns;
        let len = (columns - column).min(tiles.end - next);
        let strip = Strip {
            lane: next - tiles.start,
            image: next / (rows * columns),
            row: next / columns % rows,
            column,
            len,
        };
        next += len;
        Some(strip)
    })
}

#[cfg(test)]
mod tests {
    use super::super::convolution::convolution;
    use super::*;

    pub fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32)
            .map(|i| ((i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 8) as f32) / 8_388_608.0 - 1.0)
            .collect()
    }

    #[test]
    fn equals_the_plain_product_at_every_level() {
        for (b, channels, input) in [
            (1, [3, 5], [8, 8]),
            (1, [40, 33], [7, 9]),
            (2, [5, 40], [33, 18]),
            (3, [4, 4], [1, 1]),
            (1, [8, 2], [5, 130]),
            (1, [320, 34], [70, 70]),
        ] {
            let g = Geometry { input, output: input, kernel: [3, 3], stride: [1, 1], padding: [1, 1] };
            let [c_in, c_out] = channels;
            let x = values(b * c_in * g.plane(), 1);
            let w = values(c_out * c_in * 9, 2);
            let bias = values(c_out, 3);
            let added = Added { bias: Some(&bias), addend: None };
            for level in Level::available() {
                let mut expected = vec![f32::NAN; b * c_out * g.outputs()];
                convolution(*level, &x, &w, added, &mut expected, channels, &g);
                let mut y = vec![f32::NAN; expected.len()];
                winograd(*level, &x, &w, added, &mut y, channels, &g);
                let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
                let worst = y.iter().zip(&expected).fold(0f32, |m, (y, e)| {
                    if y.is_nan() { f32::INFINITY } else { m.max((y - e).abs() / largest) }
                });
                println!("{level:?} {b} {channels:?} {input:?}: {worst:.1e}");
                assert!(worst <= 1e-5, "{level:?} {b} {channels:?} {input:?}: {worst:e}");
            }
        }
    }
}
