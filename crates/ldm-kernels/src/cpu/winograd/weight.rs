//! The kernels, transformed into the rows of the 36 products.

use super::super::tile::ROWS;
use super::transform::{Lane, both, weight};
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
                both(|y, x| taps[y * 3 + x], weight, |y, x, lane| {
                    // Of the sixteen lanes, eight in each tile.
                    for (half, values) in lane.chunks_exact(ROWS).enumerate() {
                        let row = first + half * ROWS;
                        if row < rows {
                            let to = ((y * PATCH + x) * rows + row) * c_in + channel * ROWS;
                            tiles[to..to + ROWS].copy_from_slice(values);
                        }
                    }
                });
            }
        }
    }
}
