//! The three one-dimensional transforms, each on a lane of every tile at once.
//!
//! Toom-Cook for the points 0, P, -P, Q, -Q and infinity: `y = A^T ((G g) * (B^T d))`.

use super::{LANES, PATCH, SIDE};

const P: f32 = 0.75;
const Q: f32 = 1.5;
const P2: f32 = P * P;
const Q2: f32 = Q * Q;
const SCALE_P: f32 = 1.0 / (2.0 * P2 * (P2 - Q2));
const SCALE_Q: f32 = 1.0 / (2.0 * Q2 * (Q2 - P2));

/// One value a lane.
pub type Lane = [f32; LANES];

/// `B^T d`.
#[inline(always)]
pub fn input(d: [f32; PATCH]) -> [f32; PATCH] {
    let (even_p, odd_p) = (d[4] - Q2 * d[2], P * (d[3] - Q2 * d[1]));
    let (even_q, odd_q) = (d[4] - P2 * d[2], Q * (d[3] - P2 * d[1]));
    [
        P2 * Q2 * d[0] - (P2 + Q2) * d[2] + d[4],
        even_p + odd_p,
        even_p - odd_p,
        even_q + odd_q,
        even_q - odd_q,
        P2 * Q2 * d[1] - (P2 + Q2) * d[3] + d[5],
    ]
}

/// `G g`.
#[inline(always)]
pub fn weight(g: [f32; 3]) -> [f32; PATCH] {
    let (even_p, odd_p) = ((g[0] + P2 * g[2]) * SCALE_P, P * SCALE_P * g[1]);
    let (even_q, odd_q) = ((g[0] + Q2 * g[2]) * SCALE_Q, Q * SCALE_Q * g[1]);
    [g[0] * (1.0 / (P2 * Q2)), even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, g[2]]
}

/// `A^T m`.
#[inline(always)]
pub fn output(m: [f32; PATCH]) -> [f32; SIDE] {
    let (sum_p, difference_p) = (m[1] + m[2], m[1] - m[2]);
    let (sum_q, difference_q) = (m[3] + m[4], m[3] - m[4]);
    [
        m[0] + sum_p + sum_q,
        P * difference_p + Q * difference_q,
        P2 * sum_p + Q2 * sum_q,
        P * P2 * difference_p + Q * Q2 * difference_q + m[5],
    ]
}

/// `G^T m`, the transpose of [`weight`].
#[cfg(feature = "autodiff")]
#[inline(always)]
pub fn weight_adjoint(m: [f32; PATCH]) -> [f32; 3] {
    let (sum_p, difference_p) = ((m[1] + m[2]) * SCALE_P, (m[1] - m[2]) * (P * SCALE_P));
    let (sum_q, difference_q) = ((m[3] + m[4]) * SCALE_Q, (m[3] - m[4]) * (Q * SCALE_Q));
    [m[0] * (1.0 / (P2 * Q2)) + sum_p + sum_q, difference_p + difference_q, P2 * sum_p + Q2 * sum_q + m[5]]
}

/// `A y`, the transpose of [`output`].
#[cfg(feature = "autodiff")]
#[inline(always)]
pub fn output_adjoint(y: [f32; SIDE]) -> [f32; PATCH] {
    let (even_p, odd_p) = (y[0] + P2 * y[2], P * (y[1] + P2 * y[3]));
    let (even_q, odd_q) = (y[0] + Q2 * y[2], Q * (y[1] + Q2 * y[3]));
    [y[0], even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, y[3]]
}

/// A transform of both axes: along columns, then along rows. `read(y, x)` gives what is transformed, `write(y, x, _)` takes
/// the result, both a lane a tile.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "x and y name columns and rows")]
pub fn both<const N: usize, const M: usize>(
    read: impl Fn(usize, usize) -> Lane,
    f: impl Fn([f32; N]) -> [f32; M],
    mut write: impl FnMut(usize, usize, Lane),
) {
    let mut columns = [[[0.0; LANES]; N]; M];
    for x in 0..N {
        let mut column = [[0.0; LANES]; N];
        for y in 0..N {
            column[y] = read(y, x);
        }
        let column = each(column, &f);
        for y in 0..M {
            columns[y][x] = column[y];
        }
    }
    for y in 0..M {
        let row = each(columns[y], &f);
        for x in 0..M {
            write(y, x, row[x]);
        }
    }
}

/// Applies `f` to `N` rows of lanes.
#[inline(always)]
fn each<const N: usize, const M: usize>(x: [Lane; N], f: impl Fn([f32; N]) -> [f32; M]) -> [Lane; M] {
    let mut y = [[0.0; LANES]; M];
    for lane in 0..LANES {
        let mut values = [0.0; N];
        for i in 0..N {
            values[i] = x[i][lane];
        }
        let values = f(values);
        for i in 0..M {
            y[i][lane] = values[i];
        }
    }
    y
}

/// `to = from`; where the length is the usual one, which the compiler then knows, a register at a time and no call.
#[inline(always)]
pub fn copy<const USUAL: usize>(to: &mut [f32], from: &[f32]) {
    if to.len() != USUAL || from.len() != USUAL || USUAL < LANES {
        return to.copy_from_slice(from);
    }
    // The last register may overlap the one before.
    for i in (0..USUAL).step_by(LANES).map(|i| i.min(USUAL - LANES)) {
        if let (Some(to), Some(from)) = (to[i..].first_chunk_mut::<LANES>(), from[i..].first_chunk::<LANES>())
        {
            *to = *from;
        }
    }
}

/// The first values, and zeros where there are fewer than a register's.
#[inline(always)]
pub fn lane(values: &[f32]) -> Lane {
    match values.first_chunk() {
        Some(lane) => *lane,
        None => few(values),
    }
}

/// Out of line: together the compiler makes of both one loop over single values.
#[cold]
#[inline(never)]
fn few(values: &[f32]) -> Lane {
    std::array::from_fn(|i| values.get(i).copied().unwrap_or(0.0))
}
