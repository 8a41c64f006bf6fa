//! Pixels of a row to a lane a column of the tiles, and back: four columns of sixteen tiles at a time.

use super::transform::Lane;
use super::{LANES, SIDE};

/// Pixels of a row of tiles.
pub type Row = [f32; LANES * SIDE];

/// How registers are shuffled.
pub trait Shuffle {
    /// `lanes[x][tile] = row[4 tile + x]`.
    ///
    /// # Safety
    /// The machine must have the instructions of this type.
    unsafe fn split(row: &Row) -> [Lane; SIDE];

    /// The other way round.
    ///
    /// # Safety
    /// The machine must have the instructions of this type.
    unsafe fn join(lanes: &[Lane; SIDE]) -> Row;
}

/// What the compiler makes of it.
pub struct Portable;

impl Shuffle for Portable {
    #[inline(always)]
    unsafe fn split(row: &Row) -> [Lane; SIDE] {
        std::array::from_fn(|x| std::array::from_fn(|tile| row[tile * SIDE + x]))
    }

    #[inline(always)]
    unsafe fn join(lanes: &[Lane; SIDE]) -> Row {
        std::array::from_fn(|i| lanes[i % SIDE][i / SIDE])
    }
}

/// Eight shuffles of two registers each.
#[cfg(target_arch = "x86_64")]
pub struct Avx512;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Avx512, LANES, Lane, Row, SIDE, Shuffle};

    // SAFETY (every block): the caller vouches for the instructions; arrays and registers are as long.
    impl Shuffle for Avx512 {
        #[inline(always)]
        unsafe fn split(row: &Row) -> [Lane; SIDE] {
            unsafe {
                // Of two registers with four tiles each: column 0 of all eight, then column 1; 2 and 3 likewise.
                let low = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
                let high = _mm512_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
                let r: [__m512; SIDE] = std::array::from_fn(|i| _mm512_loadu_ps(row.as_ptr().add(i * LANES)));
                let pair = |index, i: usize| _mm512_permutex2var_ps(r[i], index, r[i + 1]);
                let (low, high) = ([pair(low, 0), pair(low, 2)], [pair(high, 0), pair(high, 2)]);
                [
                    lane(_mm512_shuffle_f32x4::<0x44>(low[0], low[1])),
                    lane(_mm512_shuffle_f32x4::<0xee>(low[0], low[1])),
                    lane(_mm512_shuffle_f32x4::<0x44>(high[0], high[1])),
                    lane(_mm512_shuffle_f32x4::<0xee>(high[0], high[1])),
                ]
            }
        }

        #[inline(always)]
        unsafe fn join(lanes: &[Lane; SIDE]) -> Row {
            unsafe {
                let l: [__m512; SIDE] = std::array::from_fn(|i| _mm512_loadu_ps(lanes[i].as_ptr()));
                // Columns 0 and 1 (2 and 3) of tiles 0 to 7, then of tiles 8 to 15, side by side.
                let (a, b) = (_mm512_unpacklo_ps(l[0], l[1]), _mm512_unpackhi_ps(l[0], l[1]));
                let (c, d) = (_mm512_unpacklo_ps(l[2], l[3]), _mm512_unpackhi_ps(l[2], l[3]));
                // Tile 0, 4, 8, 12; 1, 5, 9, 13; and so on, whole.
                let unpacklo =
                    |x, y| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
                let unpackhi =
                    |x, y| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
                let (t0, t1, t2, t3) = (unpacklo(a, c), unpackhi(a, c), unpacklo(b, d), unpackhi(b, d));
                // The 128-bit quarters transposed.
                let (p, q) = (_mm512_shuffle_f32x4::<0x88>(t0, t1), _mm512_shuffle_f32x4::<0xdd>(t0, t1));
                let (r, s) = (_mm512_shuffle_f32x4::<0x88>(t2, t3), _mm512_shuffle_f32x4::<0xdd>(t2, t3));
                let rows = [
                    _mm512_shuffle_f32x4::<0x88>(p, r),
                    _mm512_shuffle_f32x4::<0x88>(q, s),
                    _mm512_shuffle_f32x4::<0xdd>(p, r),
                    _mm512_shuffle_f32x4::<0xdd>(q, s),
                ];
                let mut row = [0.0; LANES * SIDE];
                for (i, values) in rows.into_iter().enumerate() {
                    _mm512_storeu_ps(row.as_mut_ptr().add(i * LANES), values);
                }
                row
            }
        }
    }

    #[inline(always)]
    unsafe fn lane(values: __m512) -> Lane {
        // SAFETY: sixteen values either way.
        unsafe { std::mem::transmute(values) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_comes_back() {
        let row: Row = std::array::from_fn(|i| i as f32);
        // SAFETY: nothing beyond the target's instructions.
        let lanes = unsafe { Portable::split(&row) };
        assert_eq!((lanes[3][0], lanes[1][15]), (3.0, 61.0));
        // SAFETY: as above.
        assert_eq!(unsafe { Portable::join(&lanes) }, row);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") {
            #[target_feature(enable = "avx512f")]
            fn both(row: &Row) -> ([Lane; SIDE], Row) {
                // SAFETY: the machine has the instructions.
                unsafe {
                    let lanes = Avx512::split(row);
                    (lanes, Avx512::join(&lanes))
                }
            }
            // SAFETY: as asked above.
            assert_eq!(unsafe { both(&row) }, (lanes, row));
        }
    }
}
