//! The 36 products, transformed back into pixels.

use std::ops::Range;

use super::super::im2col::Geometry;
use super::shuffle::Shuffle;
#[cfg(feature = "autodiff")]
use super::transform::output_adjoint;
use super::transform::{Lane, copy, each, lane, output};
use super::{LANES, PATCH, POINTS, SIDE, strips};

/// The products of one channel: one value a tile, for each point.
#[derive(Clone, Copy)]
pub struct Products<'a> {
    pub values: &'a [f32],
    /// From one point's first value to the next one's.
    pub stride: usize,
}

/// Where the pixels of one channel of one image go.
pub struct Plane<'a> {
    pub to: &'a mut [f32],
    /// What is added to them, pixel by pixel.
    pub addend: Option<&'a [f32]>,
}

multiversion! {
    /// Writes one channel's pixels of `tiles`; `plane(image)` takes them.
    pub fn transform<S: Shuffle, 'a>(products: Products<'_>, bias: f32, geometry: &Geometry, tiles: Range<usize>, plane: &dyn Fn(usize) -> Plane<'a>) {
        let [height, width] = geometry.output;
        for first in tiles.clone().step_by(LANES) {
            let count = LANES.min(tiles.end - first);
            let mut points = [[0.0; LANES]; POINTS];
            for (point, to) in points.iter_mut().enumerate() {
                *to = lane(&products.values[point * products.stride + first - tiles.start..][..count]);
            }
            let columns = columns(&points);
            for y in 0..SIDE {
                let mut lanes = each(std::array::from_fn(|x| &columns[y * PATCH + x]), output);
                lanes.iter_mut().flatten().for_each(|v| *v += bias);
                // SAFETY: this version runs where the machine has its instructions.
                let row = unsafe { S::join(&lanes) };
                for strip in strips(geometry, first..first + count) {
                    let (x, y) = (strip.column * SIDE, strip.row * SIDE + y);
                    if y < height {
                        let len = (strip.len * SIDE).min(width - x);
                        let (Plane { to, addend }, from) = (plane(strip.image), &row[strip.lane * SIDE..][..len]);
                        let range = y * width + x..y * width + x + len;
                        match addend {
                            None => copy::<{ LANES * SIDE }>(&mut to[range], from),
                            Some(addend) => {
                                let sums = addend[range.clone()].iter().zip(from);
                                to[range].iter_mut().zip(sums).for_each(|(to, (a, b))| *to = a + b);
                            }
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
            let mut columns = [[0.0; LANES]; PATCH * SIDE];
            for x in 0..SIDE {
                let column = each(std::array::from_fn(|y| &pixels[y * SIDE + x]), output_adjoint);
                for y in 0..PATCH {
                    columns[y * SIDE + x] = column[y];
                }
            }
            for y in 0..PATCH {
                let row = each(std::array::from_fn(|x| &columns[y * SIDE + x]), output_adjoint);
                for (x, lane) in row.iter().enumerate() {
                    let to = &mut to[(y * PATCH + x) * tiles.len() + first - tiles.start..][..count];
                    copy::<LANES>(to, &lane[..count]);
                }
            }
        }
    }
}

/// Along columns; what is left are rows.
#[inline(always)]
fn columns(points: &[Lane; POINTS]) -> [Lane; SIDE * PATCH] {
    let mut columns = [[0.0; LANES]; SIDE * PATCH];
    for x in 0..PATCH {
        let column = each(std::array::from_fn(|y| &points[y * PATCH + x]), output);
        for y in 0..SIDE {
            columns[y * PATCH + x] = column[y];
        }
    }
    columns
}
