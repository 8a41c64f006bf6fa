//! The gradients of queries, keys and values: see [`backward`](super::super::backward), which says what they are.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use core::f32::consts::LOG2_E;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::super::fragments::Plane;
use super::super::super::plane_tile::ALIGNMENT;
use super::super::super::waiting::Waiting;
use super::super::super::walk::cubes;
use super::super::backward::Given;
use super::super::heads::{Heads, Place, pair, start, vector};
use super::super::memory::{fetch, load, put};
use super::super::plan::Plan;
use super::super::scale;
use super::known::Known;
use super::rows::{Blocks, Part, add, multiply, operand, operands, renew, write, zeros};

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
    // Of the lines two tiles: these, and the next.
    let tile = comptime![walked.vectors(size)];
    let mut kept_one = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut kept_two = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut one = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![2 * tile], ALIGNMENT);
    let mut two = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![2 * tile], ALIGNMENT);
    let mut known = Known::new(keys, plan);
    let mut plane = Plane::new(plan.planes, comptime![plan.by.hardware()]);

    let rows_one_start = start(rows_one_place, head, heads);
    let rows_two_start = start(rows_two_place, head, heads);
    let one_start = start(lines_one_place, head, heads);
    let two_start = start(lines_two_place, head, heads);
    load::<E, N>(rows_one, rows_one_place, rows_one_start, first, rows, width, &mut kept_one, 0usize, kept);
    load::<E, N>(rows_two, rows_two_place, rows_two_start, first, rows, width, &mut kept_two, 0usize, kept);
    load::<E, N>(lines_one, lines_one_place, one_start, begin, lines, width, &mut one, 0usize, walked);
    load::<E, N>(lines_two, lines_two_place, two_start, begin, lines, width, &mut two, 0usize, walked);
    known.fetch(logarithms, deltas, head * lines, begin, lines);
    known.put(0usize);
    known.rows(logarithms, deltas, head * rows, first, rows);
    let ahead = comptime![!plan.once && plan.ahead(size)];
    let share = comptime![if ahead { walked.share(size) } else { 1 }];
    let mut next_one = Waiting::<E, N>::new(share, comptime![walked.missing()]);
    let mut next_two = Waiting::<E, N>::new(share, comptime![walked.missing()]);
    if comptime![ahead] {
        let next = begin + comptime![plan.lines()];
        fetch::<E, N>(lines_one, lines_one_place, one_start, next, lines, width, &mut next_one, walked);
        fetch::<E, N>(lines_two, lines_two_place, two_start, next, lines, width, &mut next_two, walked);
        known.fetch(logarithms, deltas, head * lines, next, lines);
    }
    sync_cube();
    let held_one = operands::<E, N>(&plane, &kept_one, plan);
    let held_two = operands::<E, N>(&plane, &kept_two, plan);

    let mut sums_one = zeros(comptime![plan.blocks * plan.eights]);
    let mut sums_two = zeros(comptime![if keys { plan.blocks * plan.eights } else { 0 }]);
    // Lines are taken in steps. Where the rows are held, a step's products are made beside the exponentials of the one before.
    let (early, wide) = comptime![(plan.held, plan.step())];
    let mut scores = zeros(comptime![2 * plan.blocks * wide]);
    let mut products = zeros(comptime![2 * plan.blocks * wide]);
    if comptime![early] {
        let part = comptime![Part::step(0, plan)];
        multiply::<E, N>(&mut plane, &mut scores, &held_one, &kept_one, &one, 0usize, part, plan);
        known.begin(&mut products, 0usize, part);
        multiply::<E, N>(&mut plane, &mut products, &held_two, &kept_two, &two, 0usize, part, plan);
    }
    let mut at = begin;
    let mut side = 0usize;
    while at < end {
        let next = at + comptime![plan.lines()];
        let other = 1 - side;
        if comptime![!plan.once] {
            // Nobody reads the tile before this any more.
            sync_cube();
            let to = other * tile;
            if comptime![ahead] {
                put::<E, N>(&next_one, &mut one, to, walked);
                put::<E, N>(&next_two, &mut two, to, walked);
            } else {
                load::<E, N>(lines_one, lines_one_place, one_start, next, lines, width, &mut one, to, walked);
                load::<E, N>(lines_two, lines_two_place, two_start, next, lines, width, &mut two, to, walked);
                known.fetch(logarithms, deltas, head * lines, next, lines);
            }
            known.put(other);
        }
        #[unroll]
        for step in 0..comptime![plan.columns / wide] {
            let last = comptime![(step + 1) * wide == plan.columns];
            if comptime![last && !plan.once] {
                sync_cube();
                if comptime![ahead] {
                    let then = next + comptime![plan.lines()];
                    fetch::<E, N>(
                        lines_one,
                        lines_one_place,
                        one_start,
                        then,
                        lines,
                        width,
                        &mut next_one,
                        walked,
                    );
                    fetch::<E, N>(
                        lines_two,
                        lines_two_place,
                        two_start,
                        then,
                        lines,
                        width,
                        &mut next_two,
                        walked,
                    );
                    known.fetch(logarithms, deltas, head * lines, then, lines);
                }
            }
            let part = comptime![Part::step(step, plan)];
            let base = side * tile;
            // The step that follows, after the last the other tile's first.
            let more = comptime![early && !(last && plan.once)];
            let then = comptime![Part::step(if last { 0 } else { step + 1 }, plan)];
            let then_side = if comptime![last] { other } else { side };
            let then_base = then_side * tile;

            if comptime![!early] {
                renew::<E, N>(&mut plane, &mut scores, &held_one, &kept_one, &one, base, part, plan);
            }
            let mut weights = known.probabilities(&scores, scale * LOG2_E, side, part);
            if comptime![more] {
                renew::<E, N>(&mut plane, &mut scores, &held_one, &kept_one, &one, then_base, then, plan);
            }
            if comptime![keys] {
                take::<E, N>(&mut plane, &mut sums_two, &weights, &two, base, part, plan);
            }
            if comptime![!early] {
                known.begin(&mut products, side, part);
                multiply::<E, N>(&mut plane, &mut products, &held_two, &kept_two, &two, base, part, plan);
            }
            scale_by(&mut weights, &products, comptime![2 * plan.blocks * wide]);
            if comptime![more] {
                known.begin(&mut products, then_side, then);
                multiply::<E, N>(
                    &mut plane,
                    &mut products,
                    &held_two,
                    &kept_two,
                    &two,
                    then_base,
                    then,
                    plan,
                );
            }
            take::<E, N>(&mut plane, &mut sums_one, &weights, &one, base, part, plan);
        }
        at = next;
        side = other;
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

/// Multiplies values by others.
#[cube]
fn scale_by(values: &mut Blocks, by: &Blocks, #[comptime] count: usize) {
    #[unroll]
    for i in 0..count {
        let value = values.index_mut(i);
        #[unroll]
        for half in 0..2usize {
            value[half] = value[half] * by.index(i)[half];
        }
    }
}

/// Adds a part of the lines by their weights.
#[cube]
fn take<E: Float, N: Size>(
    plane: &mut Plane,
    sums: &mut Blocks,
    weights: &Blocks,
    lines: &Shared<[Vector<E, N>]>,
    base: usize,
    #[comptime] part: Part,
    #[comptime] plan: Plan,
) {
    #[unroll]
    for j in 0..part.count {
        let mut operands = Sequence::new();
        #[unroll]
        for i in 0..plan.blocks {
            let at = comptime![i * part.across + 2 * j];
            operands.push(operand::<E>(weights.index(at), weights.index(comptime![at + 1])));
        }
        add::<E, N>(plane, sums, &operands, lines, base, comptime![part.first + j], plan);
    }
}
