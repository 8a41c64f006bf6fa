//! The gradients of queries, keys and values: see [`backward`](super::super::backward), which says what they are.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use core::f32::consts::LOG2_E;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::super::fragments::{Pair, Plane};
use super::super::super::plane_tile::{ALIGNMENT, SIDE};
use super::super::super::walk::cubes;
use super::super::backward::Given;
use super::super::heads::{Heads, Place, pair, start, vector};
use super::super::memory::{fetch, load, put};
use super::super::plan::Plan;
use super::super::scale;
use super::rows::{
    Blocks, Part, add, column, exp2_pair, multiply, operand, operands, renew, row, top, write, zeros,
};

/// A logarithm of which nothing is left.
const HIGHEST: f32 = 3.0e38;

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
    let mut next_one = Array::<Vector<E, N>>::new(share);
    let mut next_two = Array::<Vector<E, N>>::new(share);
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

/// What is known of the queries: their logarithms, to base 2, and what is taken off each product, negative. Queries that are walked lie in
/// shared memory, two tiles of them, and those that are kept in registers.
#[derive(CubeType)]
struct Known {
    line_logarithms: Shared<[f32]>,
    line_deltas: Shared<[f32]>,
    next_logarithm: f32,
    next_delta: f32,
    row_logarithms: Array<f32>,
    row_deltas: Array<f32>,
    #[cube(comptime)]
    keys: bool,
    #[cube(comptime)]
    plan: Plan,
}

#[cube]
impl Known {
    fn new(#[comptime] keys: bool, #[comptime] plan: Plan) -> Known {
        let (lines, rows) = comptime![if keys { (2 * plan.lines(), 0) } else { (1, 2 * plan.blocks) }];
        Known {
            line_logarithms: Shared::<[f32]>::new_slice(lines),
            line_deltas: Shared::<[f32]>::new_slice(lines),
            next_logarithm: 0.0f32,
            next_delta: 0.0f32,
            row_logarithms: Array::<f32>::new(rows),
            row_deltas: Array::<f32>::new(rows),
            keys,
            plan,
        }
    }

    /// Asks for those of a tile of lines, which are no more than the cube's units, from line `at` on.
    fn fetch(&mut self, logarithms: &[f32], deltas: &[f32], start: usize, at: usize, lines: usize) {
        if comptime![self.keys] {
            let line = at + UNIT_POS as usize;
            let place = start + min(line, lines - 1);
            // Lines that aren't there weigh nothing.
            self.next_logarithm = select(line < lines, logarithms[place] * LOG2_E, HIGHEST);
            self.next_delta = -deltas[place];
        }
    }

    /// Puts them into shared memory.
    fn put(&mut self, side: usize) {
        let unit = UNIT_POS as usize;
        if comptime![self.keys] {
            if unit < comptime![self.plan.lines()] {
                let to = side * comptime![self.plan.lines()] + unit;
                self.line_logarithms[to] = self.next_logarithm;
                self.line_deltas[to] = self.next_delta;
            }
        }
    }

    /// Reads those of this unit's rows; `first` is the cube's first.
    fn rows(&mut self, logarithms: &[f32], deltas: &[f32], start: usize, first: usize, rows: usize) {
        let plan = comptime![self.plan];
        if comptime![!self.keys] {
            #[unroll]
            for turn in 0..comptime![2 * plan.blocks] {
                let row = start + min(first + top(plan) + comptime![turn * 8] + row(), rows - 1);
                self.row_logarithms[turn] = logarithms[row] * LOG2_E;
                self.row_deltas[turn] = -deltas[row];
            }
        }
    }

    /// What products begin with.
    fn begin(&self, products: &mut Blocks, side: usize, #[comptime] part: Part) {
        let plan = comptime![self.plan];
        #[unroll]
        for i in 0..comptime![plan.blocks * part.across] {
            let sum = products.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                sum[half] = self.of_pair(&self.line_deltas, &self.row_deltas, side, i, half, part);
            }
        }
    }

    /// The probabilities from the scores, which `scale` takes to base 2.
    fn probabilities(&self, scores: &Blocks, scale: f32, side: usize, #[comptime] part: Part) -> Blocks {
        let (keys, plan) = comptime![(self.keys, self.plan)];
        let mut found = zeros(comptime![plan.blocks * part.across]);
        #[unroll]
        for i in 0..comptime![plan.blocks * part.across] {
            let to = found.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                let logarithm =
                    self.of_pair(&self.line_logarithms, &self.row_logarithms, side, i, half, part);
                let mut exponents = scores.index(i)[half] * Vector::new(scale) - logarithm;
                // A probability is at most 1. Scores of keys that aren't there are 0 whatever their row's logarithm is: they are
                // to be finite, as zeros are multiplied by them.
                if comptime![!keys] {
                    exponents = min(exponents, Vector::new(0.0f32));
                }
                to[half] = exp2_pair(exponents, plan.ptx);
            }
        }
        found
    }

    /// What is known of the queries of a pair of block `i`: two that are walked, or the one of the row.
    fn of_pair(
        &self,
        lines: &Shared<[f32]>,
        rows: &Array<f32>,
        side: usize,
        #[comptime] i: usize,
        #[comptime] half: usize,
        #[comptime] part: Part,
    ) -> Vector<f32, Pair> {
        if comptime![self.keys] {
            let block = comptime![part.first * SIDE + i % part.across * 8];
            let at = side * comptime![self.plan.lines()] + column() + block;
            let mut pair = Vector::<f32, Pair>::new(lines[at]);
            pair.insert(1usize, lines[at + 1]);
            pair
        } else {
            Vector::new(rows[comptime![i / part.across * 2 + half]])
        }
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
