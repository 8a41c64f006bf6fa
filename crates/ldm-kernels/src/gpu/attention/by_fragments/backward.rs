//! The gradients of queries, keys and values: see [`backward`](super::super::backward), which says what they are.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use core::f32::consts::LOG2_E;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::super::fragments::{Pair, Plane};
use super::super::super::plane_tile::ALIGNMENT;
use super::super::super::walk::cubes;
use super::super::backward::Given;
use super::super::heads::{Heads, Place, pair, start, vector};
use super::super::memory::{fetch, load, put};
use super::super::plan::Plan;
use super::super::scale;
use super::rows::{Blocks, add, column, exp2_pair, operand, operands, row, scores, top, write, zeros};

impl Given<'_> {
    /// What [`launch`](Self::launch) does, by fragments.
    pub fn launch_fragments(
        &self,
        kept: [&Heads; 2],
        walked: [&Heads; 2],
        to: [&Heads; 2],
        keys: bool,
        plan: Plan,
        shares: usize,
    ) {
        let client = &self.q.tensor.client;
        let (vector, pair) = (vector(&[kept[0], kept[1], walked[0], walked[1]]), pair(&to));
        let [b, heads, rows, d] = kept[0].shape;
        let (all, lines) = (kept[0].all(), walked[0].shape[2]);
        // Whole tiles, but for the last share's last. A share may have none and is zero then.
        let length = lines.div_ceil(shares).next_multiple_of(plan.lines());
        // SAFETY: every index is in the tensors' views; cubes beyond the last share end at once.
        unsafe {
            backward_kernel::launch_unchecked(
                client,
                cubes(client, shares * all * rows.div_ceil(plan.rows())),
                CubeDim::new_2d(plan.units as u32, plan.planes as u32),
                vector,
                pair,
                kept[0].buffer(),
                kept[1].buffer(),
                walked[0].buffer(),
                walked[1].buffer(),
                self.logarithms.clone().into_buffer_arg(),
                self.deltas.clone().into_buffer_arg(),
                to[0].buffer(),
                to[1].buffer(),
                kept[0].place(vector),
                kept[1].place(vector),
                walked[0].place(vector),
                walked[1].place(vector),
                to[0].place(pair),
                to[1].place(pair),
                heads,
                all,
                rows,
                lines,
                length,
                shares,
                b * heads * rows * d / pair,
                d,
                scale(d),
                keys,
                plan,
                kept[0].elements(),
                to[0].elements(),
            );
        }
    }
}

/// A cube's rows, which are queries with their outputs' gradients, or keys with values, and all lines or a share of
/// them, which are the others.
#[cube(launch_unchecked)]
fn backward_kernel<E: Float, O: Float, N: Size, P: Size>(
    rows_one: &[Vector<E, N>],
    rows_two: &[Vector<E, N>],
    lines_one: &[Vector<E, N>],
    lines_two: &[Vector<E, N>],
    logarithms: &[f32],
    deltas: &[f32],
    y_one: &mut [Vector<O, P>],
    y_two: &mut [Vector<O, P>],
    rows_one_place: &Place,
    rows_two_place: &Place,
    lines_one_place: &Place,
    lines_two_place: &Place,
    y_one_place: &Place,
    y_two_place: &Place,
    heads: usize,
    all: usize,
    rows: usize,
    lines: usize,
    length: usize,
    shares: usize,
    share_size: usize,
    d: usize,
    scale: f32,
    #[comptime] keys: bool,
    #[comptime] plan: Plan,
    #[define(E)] _dtype: ElemType,
    #[define(O)] _output: ElemType,
) {
    let tiles = (rows + comptime![plan.rows() - 1]) / comptime![plan.rows()];
    let head = CUBE_POS / tiles % all;
    let share_of_lines = CUBE_POS / tiles / all;
    if share_of_lines >= shares {
        terminate!();
    }
    let begin = share_of_lines * length;
    let end = min(begin + length, lines);
    let first = CUBE_POS % tiles * comptime![plan.rows()];
    let size = N::value();
    let width = d / size;
    let kept = comptime![plan.kept()];
    let walked = comptime![plan.walked()];
    let mut kept_one = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut kept_two = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut one = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    let mut two = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    // Of the queries that are walked; logarithms to base 2.
    let known = comptime![if keys { plan.lines() } else { 1 }];
    let mut line_logarithms = Shared::<[f32]>::new_slice(known);
    let mut line_deltas = Shared::<[f32]>::new_slice(known);
    let mut plane = Plane::new(plan.planes, comptime![plan.by.hardware()]);

    let rows_one_start = start(rows_one_place, head, heads);
    let rows_two_start = start(rows_two_place, head, heads);
    let one_start = start(lines_one_place, head, heads);
    let two_start = start(lines_two_place, head, heads);
    load::<E, N>(rows_one, rows_one_place, rows_one_start, first, rows, width, &mut kept_one, kept);
    load::<E, N>(rows_two, rows_two_place, rows_two_start, first, rows, width, &mut kept_two, kept);
    let share = comptime![if plan.ahead(size) { walked.share(size) } else { 1 }];
    let mut next_one = Array::<Vector<E, N>>::new(share);
    let mut next_two = Array::<Vector<E, N>>::new(share);
    if comptime![plan.ahead(size)] {
        fetch::<E, N>(lines_one, lines_one_place, one_start, begin, lines, width, &mut next_one, walked);
        fetch::<E, N>(lines_two, lines_two_place, two_start, begin, lines, width, &mut next_two, walked);
    }
    // Of the queries that are kept.
    let mut row_logarithms = Array::<f32>::new(comptime![2 * plan.blocks]);
    let mut row_deltas = Array::<f32>::new(comptime![2 * plan.blocks]);
    if comptime![!keys] {
        #[unroll]
        for turn in 0..comptime![2 * plan.blocks] {
            let row = head * rows + min(first + top(plan) + comptime![turn * 8] + row(), rows - 1);
            row_logarithms[turn] = logarithms[row] * LOG2_E;
            row_deltas[turn] = deltas[row];
        }
    }

    let mut sums_one = zeros(comptime![plan.blocks * plan.eights]);
    let mut sums_two = zeros(comptime![if keys { plan.blocks * plan.eights } else { 0 }]);
    let mut at = begin;
    while at < end {
        sync_cube();
        if comptime![plan.ahead(size)] {
            put::<E, N>(&next_one, &mut one, walked);
            put::<E, N>(&next_two, &mut two, walked);
        } else {
            load::<E, N>(lines_one, lines_one_place, one_start, at, lines, width, &mut one, walked);
            load::<E, N>(lines_two, lines_two_place, two_start, at, lines, width, &mut two, walked);
        }
        if comptime![keys] {
            let mut i = UNIT_POS as usize;
            while i < comptime![plan.lines()] {
                let line = head * lines + min(at + i, lines - 1);
                line_logarithms[i] = logarithms[line] * LOG2_E;
                line_deltas[i] = deltas[line];
                i += comptime![walked.units];
            }
        }
        sync_cube();
        let next = at + comptime![plan.lines()];
        if comptime![plan.ahead(size)] {
            fetch::<E, N>(lines_one, lines_one_place, one_start, next, lines, width, &mut next_one, walked);
            fetch::<E, N>(lines_two, lines_two_place, two_start, next, lines, width, &mut next_two, walked);
        }
        let there = min(lines - at, comptime![plan.lines()]);

        let rows_one = operands::<E, N>(&plane, &kept_one, plan);
        let mut shares = scores::<E, N>(&mut plane, &rows_one, &one, plan);
        let across = comptime![2 * plan.columns];
        #[unroll]
        for i in 0..comptime![plan.blocks * across] {
            let block = shares.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                let from = column() + comptime![i % across * 8];
                let logarithm =
                    of_pair(&line_logarithms, &row_logarithms, from, comptime![i / across * 2 + half], keys);
                // A probability is at most 1. Rows and lines that aren't there have no logarithm of theirs.
                let exponents = block[half] * Vector::new(scale * LOG2_E) - logarithm;
                let mut p = exp2_pair(min(exponents, Vector::new(0.0f32)), plan.ptx);
                if there < comptime![plan.lines()] {
                    #[unroll]
                    for e in 0..2usize {
                        p.insert(e, select(from + e < there, p.extract(e), 0.0f32));
                    }
                }
                block[half] = p;
            }
        }
        if comptime![keys] {
            take::<E, N>(&mut plane, &mut sums_two, &shares, &two, plan);
        }
        let rows_two = operands::<E, N>(&plane, &kept_two, plan);
        let products = scores::<E, N>(&mut plane, &rows_two, &two, plan);
        #[unroll]
        for i in 0..comptime![plan.blocks * across] {
            let block = shares.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                let from = column() + comptime![i % across * 8];
                let delta = of_pair(&line_deltas, &row_deltas, from, comptime![i / across * 2 + half], keys);
                block[half] = block[half] * (products.index(i)[half] - delta);
            }
        }
        take::<E, N>(&mut plane, &mut sums_one, &shares, &one, plan);
        at = next;
    }

    let mut factors = Array::<f32>::new(comptime![2 * plan.blocks]);
    #[unroll]
    for turn in 0..comptime![2 * plan.blocks] {
        factors[turn] = scale;
    }
    let y_one_start = start(y_one_place, head, heads) + share_of_lines * share_size;
    write::<O, P>(&sums_one, &factors, y_one, y_one_place, y_one_start, first, rows, d, plan);
    if comptime![keys] {
        #[unroll]
        for turn in 0..comptime![2 * plan.blocks] {
            factors[turn] = 1.0f32;
        }
        let y_two_start = start(y_two_place, head, heads) + share_of_lines * share_size;
        write::<O, P>(&sums_two, &factors, y_two, y_two_place, y_two_start, first, rows, d, plan);
    }
}

/// What is known of the queries of a pair of scores: two that are walked, from this one on, or the one of the row.
#[cube]
fn of_pair(
    lines: &Shared<[f32]>,
    rows: &Array<f32>,
    line: usize,
    #[comptime] turn: usize,
    #[comptime] keys: bool,
) -> Vector<f32, Pair> {
    if comptime![keys] {
        let mut pair = Vector::<f32, Pair>::new(lines[line]);
        pair.insert(1usize, lines[line + 1]);
        pair
    } else {
        Vector::new(rows[turn])
    }
}

/// Adds all lines of the tile by their weights.
#[cube]
fn take<E: Float, N: Size>(
    plane: &mut Plane,
    sums: &mut Blocks,
    weights: &Blocks,
    lines: &Shared<[Vector<E, N>]>,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for j in 0..plan.columns {
        let mut operands = Sequence::new();
        #[unroll]
        for i in 0..plan.blocks {
            let at = comptime![i * 2 * plan.columns + 2 * j];
            operands.push(operand::<E>(weights.index(at), weights.index(comptime![at + 1])));
        }
        add::<E, N>(plane, sums, &operands, lines, j, plan);
    }
}
