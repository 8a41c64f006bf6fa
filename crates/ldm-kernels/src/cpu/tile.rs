//! The innermost loop of every product here: a small tile of `A B`, kept in registers.

use super::lanes::{Lanes, Plain};
use super::simd::Level;

/// Rows of A in a tile.
pub const ROWS: usize = 8;
/// Most columns of B in a tile, for any level.
pub const MAX_COLUMNS: usize = 48;

/// Room for one tile.
pub type Tile = [f32; ROWS * MAX_COLUMNS];

/// Rows of A.
#[derive(Clone, Copy)]
pub struct Left<const R: usize> {
    /// Where each of them begins.
    pub rows: [*const f32; R],
    /// From one value of a row to the next.
    pub step: usize,
}

/// Lanes of a register, and most registers across a tile.
pub const fn widths(level: Level) -> (usize, usize) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => (16, 3),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => (8, 2),
        Level::Baseline => (4, 2),
    }
}

/// `tile = A B` for `ROWS` rows and `vectors * lanes` columns.
///
/// `a.rows[i]` points to `depth` values of row i, each `a.step` after the one before; `b` to `depth` rows of `vectors * lanes` values, one after
/// the other; row i of the tile is written to `tile + i * stride`.
///
/// # Safety
/// The pointers must be valid for those values, `vectors` at most what [`widths`] says, and the machine must have `level`.
pub unsafe fn product(
    level: Level,
    vectors: usize,
    depth: usize,
    a: &Left<ROWS>,
    b: *const f32,
    tile: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(vectors, depth, a, b, tile, stride),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(vectors, depth, a, b, tile, stride),
            Level::Baseline => halves::<Plain>(vectors, depth, a, b, tile, stride),
        }
    }
}

/// 24 of 32 registers hold the tile.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512(vectors: usize, depth: usize, a: &Left<ROWS>, b: *const f32, tile: *mut f32, stride: usize) {
    use std::arch::x86_64::__m512;
    // SAFETY: as the caller vouches.
    unsafe {
        match vectors {
            1 => rows::<__m512, ROWS, 1>(depth, a, b, tile, stride),
            2 => rows::<__m512, ROWS, 2>(depth, a, b, tile, stride),
            _ => rows::<__m512, ROWS, 3>(depth, a, b, tile, stride),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(vectors: usize, depth: usize, a: &Left<ROWS>, b: *const f32, tile: *mut f32, stride: usize) {
    // SAFETY: as the caller vouches.
    unsafe { halves::<std::arch::x86_64::__m256>(vectors, depth, a, b, tile, stride) }
}

/// 16 registers hold half a tile at a time.
#[inline(always)]
unsafe fn halves<V: Lanes>(
    vectors: usize,
    depth: usize,
    a: &Left<ROWS>,
    b: *const f32,
    tile: *mut f32,
    stride: usize,
) {
    const HALF: usize = ROWS / 2;
    for start in [0, HALF] {
        let a: &Left<HALF> = &Left { rows: std::array::from_fn(|i| a.rows[start + i]), step: a.step };
        // SAFETY: as the caller vouches.
        unsafe {
            let tile = tile.add(start * stride);
            match vectors {
                1 => rows::<V, HALF, 1>(depth, a, b, tile, stride),
                _ => rows::<V, HALF, 2>(depth, a, b, tile, stride),
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "i and j name the tile's rows and columns")]
unsafe fn rows<V: Lanes, const R: usize, const W: usize>(
    depth: usize,
    a: &Left<R>,
    b: *const f32,
    tile: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller of `product` vouches.
    unsafe {
        let mut sums = [[V::zero(); W]; R];
        for k in 0..depth {
            let b: [V; W] = std::array::from_fn(|j| V::load(b.add((k * W + j) * V::N)));
            for i in 0..R {
                let a = V::splat(a.rows[i].add(k * a.step));
                for j in 0..W {
                    sums[i][j] = sums[i][j].add_product(a, b[j]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(tile.add(i * stride + j * V::N));
            }
        }
    }
}
