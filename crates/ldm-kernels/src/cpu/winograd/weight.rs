//! The kernels, transformed into the rows of the 36 products.

use super::transform::{copy, each, weight};
use super::{LANES, PATCH, POINTS};

multiversion! {
    /// `weights` `[count, c_in, 3, 3]` -> `rows` `[36, count, c_in]`.
    pub fn transform(weights: &[f32], c_in: usize, rows: &mut [f32]) {
        let count = weights.len() / (9 * c_in);
        for output in 0..count {
            let kernels = &weights[output * 9 * c_in..(output + 1) * 9 * c_in];
            for first in (0..c_in).step_by(LANES) {
                let lanes = LANES.min(c_in - first);
                let mut taps = [[0.0; LANES]; 9];
                for (lane, kernel) in kernels[first * 9..(first + lanes) * 9].chunks_exact(9).enumerate() {
                    for tap in 0..9 {
                        taps[tap][lane] = kernel[tap];
                    }
                }
                let mut columns = [[0.0; LANES]; PATCH * 3];
                for x in 0..3 {
                    let column = each([&taps[x], &taps[3 + x], &taps[6 + x]], weight);
                    for y in 0..PATCH {
                        columns[y * 3 + x] = column[y];
                    }
                }
                for y in 0..PATCH {
                    let row = each([&columns[y * 3], &columns[y * 3 + 1], &columns[y * 3 + 2]], weight);
                    for (x, lane) in row.iter().enumerate() {
                        let at = ((y * PATCH + x) * count + output) * c_in + first;
                        copy::<LANES>(&mut rows[at..at + lanes], &lane[..lanes]);
                    }
                }
            }
        }
        debug_assert_eq!(rows.len(), POINTS * count * c_in);
    }
}
