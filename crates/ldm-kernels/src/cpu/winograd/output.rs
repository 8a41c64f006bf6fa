//! The 36 products, transformed back into pixels.

use std::ops::Range;

use super::super::im2col::Geometry;
use super::transform::{Lane, copy, each, output};
use super::{LANES, PATCH, POINTS, SIDE, strips};

/// Writes one channel's pixels of `tiles`: `products(point)` has a value a tile, `plane(image)` takes the pixels.
pub fn transform<'a>(
    products: impl Fn(usize) -> &'a [f32],
    bias: f32,
    geometry: &Geometry,
    tiles: Range<usize>,
    plane: impl Fn(usize) -> &'a mut [f32],
) {
    let [height, width] = geometry.output;
    for first in tiles.clone().step_by(LANES) {
        let count = LANES.min(tiles.end - first);
        let mut points = [[0.0; LANES]; POINTS];
        for (point, lane) in points.iter_mut().enumerate() {
            copy::<LANES>(&mut lane[..count], &products(point)[first - tiles.start..][..count]);
        }
        let mut rows = [[0.0; LANES * SIDE]; SIDE];
        pixels(&points, bias, &mut rows);
        for strip in strips(geometry, first..first + count) {
            let plane = plane(strip.image);
            let x = strip.column * SIDE;
            let len = (strip.len * SIDE).min(width - x);
            for (y, row) in (strip.row * SIDE..height).zip(&rows) {
                copy::<{ LANES * SIDE }>(
                    &mut plane[y * width + x..][..len],
                    &row[strip.lane * SIDE..][..len],
                );
            }
        }
    }
}

multiversion! {
    /// Along columns, then along rows, the tiles side by side.
    fn pixels(points: &[Lane; POINTS], bias: f32, rows: &mut [[f32; LANES * SIDE]; SIDE]) {
        let mut columns = [[0.0; LANES]; SIDE * PATCH];
        for x in 0..PATCH {
            let column = each(std::array::from_fn(|y| &points[y * PATCH + x]), output);
            for y in 0..SIDE {
                columns[y * PATCH + x] = column[y];
            }
        }
        for (y, row) in rows.iter_mut().enumerate() {
            let lanes = each(std::array::from_fn(|x| &columns[y * PATCH + x]), output);
            for lane in 0..LANES {
                for x in 0..SIDE {
                    row[lane * SIDE + x] = lanes[x][lane] + bias;
                }
            }
        }
    }
}
