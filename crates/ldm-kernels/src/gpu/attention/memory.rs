//! From a head's rows to tiles in shared memory.

// A kernel's arguments are its bindings, and a part of one takes those it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::veiled;
use super::heads::Place;
use super::plan::Lines;

/// Vectors that a unit asks for before it waits for the first: one by one it would wait for each.
const TOGETHER: usize = 8;

/// Vector `i` of the tile from row `first` on; zero beyond the head's rows and columns.
#[cube]
fn vector<E: Float, N: Size>(
    x: &[Vector<E, N>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    columns: usize,
    i: usize,
    #[comptime] lines: Lines,
) -> Vector<E, N> {
    let n = N::value();
    let across = comptime![lines.width / n];
    let row = first + i / across;
    let column = i % across;
    let mut value = Vector::<E, N>::cast_from(Vector::<f32, N>::new(0.0f32));
    if row < rows && column < columns {
        value = x[start + row * place.row + column * place.column];
    }
    value
}

/// The tile from row `first` on into shared memory, from vector `base` of it on.
#[cube]
pub fn load<E: Float, N: Size>(
    x: &[Vector<E, N>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    columns: usize,
    to: &mut Shared<[Vector<E, N>]>,
    base: usize,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    let across = comptime![lines.width / n];
    let share = comptime![lines.share(n)];
    if comptime![lines.unrolled] {
        let mut waiting = Array::<Vector<E, N>>::new(TOGETHER);
        #[unroll]
        for batch in 0..comptime![share.div_ceil(TOGETHER)] {
            let begin = comptime![batch * TOGETHER];
            let count = comptime![TOGETHER.min(share - begin)];
            #[unroll]
            for k in 0..count {
                let i = UNIT_POS as usize + comptime![(begin + k) * lines.units];
                waiting[k] = vector::<E, N>(x, place, start, first, rows, columns, i, lines);
            }
            #[unroll]
            for k in 0..count {
                let i = UNIT_POS as usize + comptime![(begin + k) * lines.units];
                if i < comptime![lines.count * across] {
                    to[base + i / across * comptime![lines.stride / n] + i % across] = waiting[k];
                }
            }
        }
    } else {
        let mut i = UNIT_POS as usize;
        while i < comptime![lines.count * across] {
            to[base + i / across * comptime![lines.stride / n] + i % across] =
                vector::<E, N>(x, place, start, first, rows, columns, i, lines);
            i += lines.units;
        }
    }
}

/// This unit's share of the tile from row `first` on into registers.
#[cube]
pub fn fetch<E: Float, N: Size>(
    x: &[Vector<E, N>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    columns: usize,
    to: &mut Array<Vector<E, N>>,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    if comptime![lines.unrolled] {
        #[unroll]
        for k in 0..comptime![lines.share(n)] {
            let i = UNIT_POS as usize + comptime![k * lines.units];
            to[k] = vector::<E, N>(x, place, start, first, rows, columns, i, lines);
        }
    } else {
        for k in 0..veiled(comptime![lines.share(n)]) {
            let i = UNIT_POS as usize + k * lines.units;
            to[k] = vector::<E, N>(x, place, start, first, rows, columns, i, lines);
        }
    }
}

/// What [`fetch`] brought into shared memory, from vector `base` of it on.
#[cube]
pub fn put<E: Float, N: Size>(
    from: &Array<Vector<E, N>>,
    to: &mut Shared<[Vector<E, N>]>,
    base: usize,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    let across = comptime![lines.width / n];
    if comptime![lines.unrolled] {
        #[unroll]
        for k in 0..comptime![lines.share(n)] {
            let i = UNIT_POS as usize + comptime![k * lines.units];
            if i < comptime![lines.count * across] {
                to[base + i / across * comptime![lines.stride / n] + i % across] = from[k];
            }
        }
    } else {
        for k in 0..veiled(comptime![lines.share(n)]) {
            let i = UNIT_POS as usize + k * lines.units;
            if i < comptime![lines.count * across] {
                to[base + i / across * comptime![lines.stride / n] + i % across] = from[k];
            }
        }
    }
}
