//! 3x3 convolution by Winograd's F(4x4, 3x3): a quarter of the multiplications (Lavin and Gray 2016).
//!
//! The image falls into tiles of 4x4 outputs. Transformed, a tile's convolution is 36 independent products, so all
//! tiles and channels together are 36 matrix products. Interpolating at 0, +-3/4, +-3/2 and infinity rather than at
//! the usual 0, +-1, +-2 keeps the error near 4e-6 of the largest output, a quarter of what those give.

#[cfg(feature = "autodiff")]
mod gradient;
mod input;
mod layer;
mod output;
pub(super) mod shuffle;
mod transform;
mod weight;

use super::convolution::Added;
use super::im2col::Geometry;
use super::product::Target;
use super::simd::Level;
#[cfg(feature = "autodiff")]
pub use gradient::weight_gradient;
use layer::Layer;

/// Outputs along a side of a tile.
const SIDE: usize = 4;
/// Inputs along a side of a tile.
const PATCH: usize = SIDE + 2;
/// Values of a transformed tile.
const POINTS: usize = PATCH * PATCH;
/// Tiles that are transformed together, one a lane.
const LANES: usize = 16;
/// Output channels at a time.
const CHANNELS: usize = 32;

/// Whether this convolution is one that the algorithm does, and faster.
///
/// Transforming the weights costs as much as about 30 tiles; the U-Net's smaller maps don't earn it. Few output channels
/// earn the input's transform on a large map only, where the plain product moves nine times the image.
pub fn pays(geometry: &Geometry, [c_in, c_out]: [usize; 2], batch: usize) -> bool {
    let g = geometry;
    let fits = g.kernel == [3, 3] && g.stride == [1, 1] && g.padding == [1, 1] && g.output == g.input;
    let least = if c_out >= CHANNELS { 64 } else { 1024 };
    fits && c_in >= CHANNELS && batch * tiles(g) >= least
}

fn tiles(geometry: &Geometry) -> usize {
    geometry.output[0].div_ceil(SIDE) * geometry.output[1].div_ceil(SIDE)
}

/// As [`convolution`](super::convolution::convolution), for a 3x3 kernel, stride 1 and one pixel of padding.
pub fn winograd(
    level: Level,
    input: &[f32],
    weight: &[f32],
    added: Added,
    output: &mut [f32],
    [c_in, c_out]: [usize; 2],
    geometry: &Geometry,
) {
    let tiles = input.len() / (c_in * geometry.plane()) * tiles(geometry);
    let output = Target::new(output, geometry.outputs(), 1);
    let layer = Layer { level, input, weight, added, output, c_in, c_out, geometry, tiles };
    // Weights that many tiles need are transformed once; those of a few where they are needed, in the cache.
    if tiles >= 4 * layer.width() * rayon::current_num_threads() {
        layer.by_tiles()
    } else {
        layer.by_channels()
    }
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
