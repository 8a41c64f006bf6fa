//! Writes a whole tile turned: each of its columns to consecutive places.

use super::product::Bias;
use super::simd::Level;
use super::tile::{ROWS, Tile};

/// What is added to each column.
#[derive(Clone, Copy)]
pub struct Add<'a> {
    /// A value a row.
    rows: [f32; ROWS],
    /// A value a column.
    columns: Option<&'a [f32]>,
    /// Whether what lies there is added too.
    there: bool,
}

impl<'a> Add<'a> {
    /// `bias` of the rows from `row` on and the columns from `column` on.
    pub fn new(bias: Bias<'a>, row: usize, column: usize) -> Self {
        let none = Self { rows: [0.0; ROWS], columns: None, there: false };
        match bias {
            Bias::None => none,
            Bias::Target => Self { there: true, ..none },
            Bias::Row(bias) => Self { rows: std::array::from_fn(|i| bias[row + i]), ..none },
            Bias::Column(bias) => Self { columns: Some(&bias[column..]), ..none },
        }
    }
}

/// `out[j * stride + i] = tile[i * width + j] + add` for the [`ROWS`] rows i and `columns` columns j.
///
/// # Safety
/// `out` must be valid for these places, which nobody else may touch, and the machine must have `level`.
pub unsafe fn turned(
    level: Level,
    tile: &Tile,
    [width, columns]: [usize; 2],
    add: Add,
    out: *mut f32,
    stride: usize,
) {
    // All rows of eight columns are read at a time, padding included.
    assert!(columns <= width && ROWS * width <= tile.len() && add.columns.is_none_or(|b| columns <= b.len()));
    // SAFETY: as the caller vouches.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx2 => avx2(tile, [width, columns], add, out, stride),
            Level::Baseline => plain(tile, [width, columns], add, out, stride),
        }
    }
}

unsafe fn plain(tile: &Tile, [width, columns]: [usize; 2], add: Add, out: *mut f32, stride: usize) {
    for j in 0..columns {
        let of_column = add.columns.map_or(0.0, |bias| bias[j]);
        for (i, of_row) in add.rows.iter().enumerate() {
            // SAFETY: as the caller of `turned` vouches.
            unsafe {
                let out = out.add(j * stride + i);
                let value = tile[i * width + j] + (of_row + of_column);
                *out = if add.there { *out + value } else { value };
            }
        }
    }
}

/// Eight columns by 24 shuffles.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(tile: &Tile, [width, columns]: [usize; 2], add: Add, out: *mut f32, stride: usize) {
    use std::arch::x86_64::*;
    const LANES: usize = 8;
    const { assert!(ROWS == LANES) };
    // SAFETY: a register is as long as the rows of `add`; `width` is a multiple of it at this level, so that all that is read
    // lies in the tile (asserted by `turned`); what is written is the caller's.
    unsafe {
        let of_rows = _mm256_loadu_ps(add.rows.as_ptr());
        for first in (0..columns).step_by(LANES) {
            let row = |i: usize| _mm256_loadu_ps(tile.as_ptr().add(i * width + first));
            // Pairs of rows, then fours: each half holds a column of four rows.
            let pairs: [__m256; LANES] = std::array::from_fn(|i| {
                let (a, b) = (row(i / 2 * 2), row(i / 2 * 2 + 1));
                if i % 2 == 0 { _mm256_unpacklo_ps(a, b) } else { _mm256_unpackhi_ps(a, b) }
            });
            let fours: [__m256; LANES] = std::array::from_fn(|i| {
                let (a, b) = (pairs[i / 4 * 4 + i % 4 / 2], pairs[i / 4 * 4 + 2 + i % 4 / 2]);
                if i % 2 == 0 { _mm256_shuffle_ps::<0x44>(a, b) } else { _mm256_shuffle_ps::<0xee>(a, b) }
            });
            for j in 0..LANES.min(columns - first) {
                let (a, b) = (fours[j % 4], fours[4 + j % 4]);
                let column = if j < 4 {
                    _mm256_permute2f128_ps::<0x20>(a, b)
                } else {
                    _mm256_permute2f128_ps::<0x31>(a, b)
                };
                let of_column = add.columns.map_or(0.0, |bias| *bias.get_unchecked(first + j));
                let added = _mm256_add_ps(of_rows, _mm256_set1_ps(of_column));
                let out = out.add((first + j) * stride);
                let value = _mm256_add_ps(column, added);
                let value = if add.there { _mm256_add_ps(_mm256_loadu_ps(out), value) } else { value };
                _mm256_storeu_ps(out, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tile::{MAX_COLUMNS, widths};

    /// Every level, width and bias against the definition; what lies between the columns stays.
    #[test]
    fn every_column_is_written_where_it_belongs() {
        let tile: Tile = std::array::from_fn(|i| (i * 7 % 1000) as f32);
        let (rows, across): (Vec<f32>, Vec<f32>) =
            ((0..20).map(|i| i as f32 * 0.5).collect(), (0..60).map(|j| j as f32 * 0.25).collect());
        for &level in Level::available() {
            let (lanes, most) = widths(level);
            for width in (1..=most).map(|vectors| vectors * lanes) {
                for columns in [width, width - 1, width / 2 + 1] {
                    for bias in [Bias::None, Bias::Target, Bias::Row(&rows), Bias::Column(&across)] {
                        let (row, column, stride) = (3, 5, 11);
                        let before: Vec<f32> = (0..MAX_COLUMNS * stride).map(|i| i as f32).collect();
                        let mut found = before.clone();
                        let add = Add::new(bias, row, column);
                        // SAFETY: the buffer has room for all columns.
                        unsafe { turned(level, &tile, [width, columns], add, found.as_mut_ptr(), stride) };
                        for (at, (found, before)) in found.iter().zip(&before).enumerate() {
                            let (j, i) = (at / stride, at % stride);
                            let added = match bias {
                                Bias::None => 0.0,
                                Bias::Target => *before,
                                Bias::Row(bias) => bias[row + i.min(ROWS)],
                                Bias::Column(bias) => bias[(column + j).min(bias.len() - 1)],
                            };
                            let inside = j < columns && i < ROWS;
                            let expected = if inside { tile[i * width + j] + added } else { *before };
                            assert_eq!(*found, expected, "{level:?}, {columns} of {width}: {j}, {i}");
                        }
                    }
                }
            }
        }
    }
}
