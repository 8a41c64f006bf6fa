//! From a head's rows to tiles in shared memory.

// A kernel's arguments are its bindings, and a part of one takes those it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::veiled;
use super::super::waiting::Waiting;
use super::heads::Place;
use super::plan::Lines;

/// Vectors that a unit asks for before it waits for the first: one by one it would wait for each.
const TOGETHER: usize = 8;

/// Asks for vector `i` of the tile from row `first` on; zero beyond the head's rows and columns.
#[cube]
fn ask<P: Numeric, N: Size>(
    waiting: &mut Waiting<P, N>,
    which: usize,
    x: &[Vector<P, N>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    columns: usize,
    i: usize,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    let across = comptime![lines.across(n)];
    let row = first + i / across;
    let column = i % across;
    let there = row < rows && column < columns;
    let mut at = start + row * place.row + column * place.column;
    if comptime![!lines.branches] {
        at = select(there, at, start);
    }
    waiting.ask(which, x, at, there);
}

/// The tile from row `first` on into shared memory, from vector `base` of it on.
#[cube]
pub fn load<P: Numeric, N: Size>(
    x: &[Vector<P, N>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    columns: usize,
    to: &mut Shared<[Vector<P, N>]>,
    base: usize,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    let across = comptime![lines.across(n)];
    let share = comptime![lines.share(n * lines.packed)];
    if comptime![lines.unrolled] {
        let mut waiting = Waiting::<P, N>::new(TOGETHER, comptime![lines.missing()]);
        #[unroll]
        for batch in 0..comptime![share.div_ceil(TOGETHER)] {
            let begin = comptime![batch * TOGETHER];
            let count = comptime![TOGETHER.min(share - begin)];
            #[unroll]
            for k in 0..count {
                let i = UNIT_POS as usize + comptime![(begin + k) * lines.units];
                ask::<P, N>(&mut waiting, k, x, place, start, first, rows, columns, i, lines);
            }
            #[unroll]
            for k in 0..count {
                let i = UNIT_POS as usize + comptime![(begin + k) * lines.units];
                if i < comptime![lines.count * across] {
                    to[base + i / across * comptime![lines.step(n)] + i % across] = waiting.take(k);
                }
            }
        }
    } else {
        let mut one = Waiting::<P, N>::new(1usize, comptime![lines.missing()]);
        let mut i = UNIT_POS as usize;
        while i < comptime![lines.count * across] {
            ask::<P, N>(&mut one, 0usize, x, place, start, first, rows, columns, i, lines);
            to[base + i / across * comptime![lines.step(n)] + i % across] = one.take(0usize);
            i += lines.units;
        }
    }
}

/// This unit's share of the tile from row `first` on into registers.
#[cube]
pub fn fetch<P: Numeric, N: Size>(
    x: &[Vector<P, N>],
    place: &Place,
    start: usize,
    first: usize,
    rows: usize,
    columns: usize,
    to: &mut Waiting<P, N>,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    let share = comptime![lines.share(n * lines.packed)];
    if comptime![lines.unrolled] {
        #[unroll]
        for k in 0..share {
            let i = UNIT_POS as usize + comptime![k * lines.units];
            ask::<P, N>(to, k, x, place, start, first, rows, columns, i, lines);
        }
    } else {
        for k in 0..veiled(share) {
            let i = UNIT_POS as usize + k * lines.units;
            ask::<P, N>(to, k, x, place, start, first, rows, columns, i, lines);
        }
    }
}

/// What [`fetch`] brought into shared memory, from vector `base` of it on.
#[cube]
pub fn put<P: Numeric, N: Size>(
    from: &Waiting<P, N>,
    to: &mut Shared<[Vector<P, N>]>,
    base: usize,
    #[comptime] lines: Lines,
) {
    let n = N::value();
    let across = comptime![lines.across(n)];
    let share = comptime![lines.share(n * lines.packed)];
    if comptime![lines.unrolled] {
        #[unroll]
        for k in 0..share {
            let i = UNIT_POS as usize + comptime![k * lines.units];
            if i < comptime![lines.count * across] {
                to[base + i / across * comptime![lines.step(n)] + i % across] = from.take(k);
            }
        }
    } else {
        for k in 0..veiled(share) {
            let i = UNIT_POS as usize + k * lines.units;
            if i < comptime![lines.count * across] {
                to[base + i / across * comptime![lines.step(n)] + i % across] = from.take(k);
            }
        }
    }
}
