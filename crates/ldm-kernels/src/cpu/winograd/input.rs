//! Patches of the image, transformed into the columns of the 36 products.

use super::super::im2col::Geometry;
use super::super::panels::Panel;
use super::transform::{Lane, copy, each, input};
use super::{LANES, PATCH, POINTS, SIDE, strips};

/// The pixels that a strip of tiles needs of one row.
const ROW: usize = LANES * SIDE + 2;

multiversion! {
    /// Fills a panel: rows `point * c_in + channel`, one column a tile.
    pub fn transform(images: &[f32], c_in: usize, geometry: &Geometry, panel: &Panel, values: &mut [f32]) {
        let width = panel.width;
        values.fill(0.0);
        for group in (0..panel.columns).step_by(LANES) {
            let count = LANES.min(panel.columns - group);
            let first = panel.first + group;
            for channel in 0..c_in {
                let mut patch = [[0.0; LANES]; POINTS];
                for strip in strips(geometry, first..first + count) {
                    let plane = (strip.image * c_in + channel) * geometry.plane();
                    let plane = &images[plane..plane + geometry.plane()];
                    for y in 0..PATCH {
                        let row = row(plane, geometry, strip.row * SIDE + y, strip.column * SIDE, strip.len);
                        spread(&row, strip.lane, strip.len, &mut patch, y * PATCH);
                    }
                }
                let patch = both(&patch);
                // A panel of fewer lanes than ours (another level) takes the first ones.
                let lanes = LANES.min(width - group);
                for (point, lane) in patch.iter().enumerate() {
                    let to = &mut values[(point * c_in + channel) * width + group..][..lanes];
                    copy::<LANES>(to, &lane[..lanes]);
                }
            }
        }
    }
}

/// The pixels from one above and left of a strip's first output; zeros outside the image.
#[inline(always)]
fn row(plane: &[f32], geometry: &Geometry, y: usize, x: usize, len: usize) -> [f32; ROW] {
    let [height, width] = geometry.input;
    let mut row = [0.0; ROW];
    let Some(y) = y.checked_sub(1).filter(|y| *y < height) else { return row };
    let begin = x.saturating_sub(1);
    let end = (x + len * SIDE + 1).min(width);
    copy::<ROW>(&mut row[begin + 1 - x..end + 1 - x], &plane[y * width + begin..y * width + end]);
    row
}

/// Gives each tile of a strip its pixels of one row.
#[inline(always)]
fn spread(row: &[f32; ROW], lane: usize, len: usize, patch: &mut [Lane; POINTS], at: usize) {
    if len == LANES {
        for x in 0..PATCH {
            for i in 0..LANES {
                patch[at + x][i] = row[i * SIDE + x];
            }
        }
        return;
    }
    for i in 0..len {
        for x in 0..PATCH {
            patch[at + x][lane + i] = row[i * SIDE + x];
        }
    }
}

/// Along columns, then along rows.
#[inline(always)]
fn both(patch: &[Lane; POINTS]) -> [Lane; POINTS] {
    let mut columns = [[0.0; LANES]; POINTS];
    for x in 0..PATCH {
        let column = each(std::array::from_fn(|y| &patch[y * PATCH + x]), input);
        for y in 0..PATCH {
            columns[y * PATCH + x] = column[y];
        }
    }
    let mut points = [[0.0; LANES]; POINTS];
    for y in 0..PATCH {
        let row = each(std::array::from_fn(|x| &columns[y * PATCH + x]), input);
        points[y * PATCH..(y + 1) * PATCH].copy_from_slice(&row);
    }
    points
}
