//! The kernels, transformed into the rows of the 36 products.

use super::super::tile::ROWS;
use super::transform::{Lane, each, weight};
use super::{LANES, PATCH, POINTS};

multiversion! {
    /// `weights` `[count, c_in, 3, 3]` -> `tiles` `[36, count / 8, c_in, 8]`, rounded up: the tiles of the product's
    /// innermost loop. Rows beyond the last are anything.
    pub fn transform(weights: &[f32], c_in: usize, tiles: &mut [f32]) {
        let count = weights.len() / (9 * c_in);
        let rows = count.next_multiple_of(ROWS);
        debug_assert_eq!(tiles.len(), POINTS * rows * c_in);
        for first in (0..count).step_by(LANES) {
            let lanes = LANES.min(count - first);
            for channel in 0..c_in {
                // Lanes beyond the last output take its kernel once more.
                let taps: [Lane; 9] = std::array::from_fn(|tap| {
                    let at = |lane: usize| ((first + lane.min(lanes - 1)) * c_in + channel) * 9 + tap;
                    std::array::from_fn(|lane| weights[at(lane)])
                });
                for (point, lane) in both(&taps).iter().enumerate() {
                    // Of the sixteen lanes, eight in each tile.
                    for (half, values) in lane.chunks_exact(ROWS).enumerate() {
                        let row = first + half * ROWS;
                        if row < rows {
                            let to = (point * rows + row) * c_in + channel * ROWS;
                            tiles[to..to + ROWS].copy_from_slice(values);
                        }
                    }
                }
            }
        }
    }
}

/// Along columns, then along rows.
#[inline(always)]
fn both(taps: &[Lane; 9]) -> [Lane; POINTS] {
    let mut columns = [[0.0; LANES]; PATCH * 3];
    for x in 0..3 {
        let column = each([&taps[x], &taps[3 + x], &taps[6 + x]], weight);
        for y in 0..PATCH {
            columns[y * 3 + x] = column[y];
        }
    }
    let mut points = [[0.0; LANES]; POINTS];
    for y in 0..PATCH {
        let row = each([&columns[y * 3], &columns[y * 3 + 1], &columns[y * 3 + 2]], weight);
        for x in 0..PATCH {
            points[y * PATCH + x] = row[x];
        }
    }
    points
}
