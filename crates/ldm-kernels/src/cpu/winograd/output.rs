//! The 36 products, transformed back into pixels.

use std::ops::Range;

use super::super::im2col::Geometry;
use super::super::product::Target;
use super::shuffle::Shuffle;
#[cfg(feature = "autodiff")]
use super::transform::output_adjoint;
use super::transform::{both, copy, lane, output};
use super::{LANES, PATCH, SIDE, strips};

/// The products of one channel: one value a tile, for each point.
#[derive(Clone, Copy)]
pub struct Products<'a> {
    pub values: &'a [f32],
    /// From one point's first value to the next one's.
    pub stride: usize,
}

/// Where the pixels of one channel go.
pub struct Pixels<'a> {
    to: &'a Target<'a>,
    /// What is added to them, laid out as they are.
    addend: Option<&'a [f32]>,
    /// Which, and of how many.
    channel: [usize; 2],
    geometry: &'a Geometry,
}

impl<'a> Pixels<'a> {
    /// # Safety
    /// Nothing else may use the pixels of the channel's tiles that are written through it while it lives.
    pub unsafe fn new(
        to: &'a Target<'a>,
        addend: Option<&'a [f32]>,
        channel: [usize; 2],
        geometry: &'a Geometry,
    ) -> Self {
        Self { to, addend, channel, geometry }
    }
}

multiversion! {
    /// Writes one channel's pixels of `tiles`.
    pub fn transform<S: Shuffle, 'a>(products: Products<'_>, bias: f32, pixels: &Pixels<'a>, tiles: Range<usize>) {
        let Pixels { to, addend, channel: [channel, channels], geometry } = *pixels;
        let [height, width] = geometry.output;
        for first in tiles.clone().step_by(LANES) {
            let count = LANES.min(tiles.end - first);
            let mut tile = [[[0.0; LANES]; SIDE]; SIDE];
            let point =
                |y, x| lane(&products.values[(y * PATCH + x) * products.stride + first - tiles.start..][..count]);
            both(point, output, |y, x, lane| {
                for (to, v) in tile[y][x].iter_mut().zip(lane) {
                    *to = v + bias;
                }
            });
            for strip in strips(geometry, first..first + count) {
                let (x, top) = (strip.column * SIDE, strip.row * SIDE);
                let len = (strip.len * SIDE).min(width - x);
                let plane = (strip.image * channels + channel) * geometry.outputs();
                for (y, lanes) in tile.iter().enumerate().take(height - top) {
                    // SAFETY: this version runs where the machine has its instructions.
                    let row = unsafe { S::join(lanes) };
                    let from = &row[strip.lane * SIDE..][..len];
                    let start = plane + (top + y) * width + x;
                    // SAFETY: as whoever made `pixels` vouched.
                    let to = unsafe { to.slice(start, len) };
                    match addend {
                        None => copy::<{ LANES * SIDE }>(to, from),
                        Some(addend) => {
                            let sums = addend[start..start + len].iter().zip(from);
                            to.iter_mut().zip(sums).for_each(|(to, (a, b))| *to = a + b);
                        }
                    }
                }
            }
        }
    }
}

multiversion! {
    /// The transpose of [`transform`], for the gradient of the output: one channel (`at` is which, and of how many) of
    /// `tiles`; `to` is `[36, tiles]`.
    #[cfg(feature = "autodiff")]
    pub fn adjoint<S: Shuffle>(gradient: &[f32], at: [usize; 2], geometry: &Geometry, tiles: Range<usize>, to: &mut [f32]) {
        let ([channel, channels], [height, width]) = (at, geometry.output);
        for first in tiles.clone().step_by(LANES) {
            let count = LANES.min(tiles.end - first);
            let mut pixels = [[0.0; LANES]; SIDE * SIDE];
            for strip in strips(geometry, first..first + count) {
                let plane = (strip.image * channels + channel) * geometry.outputs();
                let x = strip.column * SIDE;
                let len = (strip.len * SIDE).min(width - x);
                for (y, row) in pixels.chunks_exact_mut(SIDE).enumerate().take(height - strip.row * SIDE) {
                    let line = &gradient[plane + (strip.row * SIDE + y) * width + x..][..len];
                    match line.first_chunk() {
                        // SAFETY: this version runs where the machine has its instructions.
                        Some(line) => row.copy_from_slice(&unsafe { S::split(line) }),
                        None => line.iter().enumerate().for_each(|(i, v)| row[i % SIDE][strip.lane + i / SIDE] = *v),
                    }
                }
            }
            both(|y, x| pixels[y * SIDE + x], output_adjoint, |y, x, lane| {
                let to = &mut to[(y * PATCH + x) * tiles.len() + first - tiles.start..][..count];
                copy::<LANES>(to, &lane[..count]);
            });
        }
    }
}
