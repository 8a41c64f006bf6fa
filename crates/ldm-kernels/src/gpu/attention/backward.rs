//! The gradients of queries, keys and values.
//!
//! With `P` the probabilities, computed again from the logarithms that the output's kernel left, `dP = dY V^T` and
//! `dS = P * (dP - delta)`: `dV = P^T dY`, `dK = scale dS^T Q`, `dQ = scale dS K`. One kernel serves both ways round. A
//! cube keeps queries and walks the keys, or keeps keys and walks the queries, and everything is transposed then. So
//! scores and `dP` are computed twice; in return no two cubes add to one place, and the sums are the same every time.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::super::fours::{COUNT, Four};
use super::super::plane_tile::ALIGNMENT;
use super::super::waiting::Waiting;
use super::super::walk::cubes;
use super::heads::{Heads, Place, start, vector};
use super::memory::{fetch, load, put};
use super::plan::{Plan, Products};
use super::shares;
use super::softmax::{hide, row_of, scores_of, top, weights_of};
use super::sums::{Sums, scores, steps, wait};

/// What the gradients follow from.
pub struct Given<'a> {
    /// Queries, `[b, heads, n, d]`.
    pub q: &'a Heads,
    /// Keys, `[b, heads, m, d]`.
    pub k: &'a Heads,
    /// Values, as many.
    pub v: &'a Heads,
    /// The output's gradient, `[b, heads, n, d]`.
    pub gradient: &'a Heads,
    /// As the output's kernel left them, f32 `[b, heads, n]`.
    pub logarithms: &'a CubeTensor,
    /// Each row's product of the output and its gradient, f32 `[b, heads, n]`.
    pub deltas: &'a CubeTensor,
}

impl Given<'_> {
    /// Writes the queries' gradient.
    pub fn queries(&self, dq: &Heads, plan: Plan) {
        self.launch([self.q, self.gradient], [self.k, self.v], [dq, dq], false, plan, 1);
    }

    /// The keys' and the values' gradients, of which so many cubes walk a share of the queries each.
    pub fn keys(&self, plan: Plan, shares: usize) -> [Heads; 2] {
        let (kept, walked) = ([self.k, self.v], [self.q, self.gradient]);
        let to = kept.map(Heads::empty_like);
        if shares == 1 {
            self.launch(kept, walked, [&to[0], &to[1]], true, plan, 1);
            return to;
        }
        let parts = kept.map(|x| shares::empty(x, shares));
        self.launch(kept, walked, [&parts[0], &parts[1]], true, plan, shares);
        for (parts, to) in parts.iter().zip(&to) {
            shares::add(&parts.tensor, to, shares);
        }
        to
    }

    fn launch(
        &self,
        kept: [&Heads; 2],
        walked: [&Heads; 2],
        to: [&Heads; 2],
        keys: bool,
        plan: Plan,
        shares: usize,
    ) {
        if plan.by.products == Products::Fragments {
            return self.launch_fragments(kept, walked, to, keys, plan, shares);
        }
        let client = &self.q.tensor.client;
        let vector = vector(&[kept[0], kept[1], walked[0], walked[1], to[0], to[1]]);
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
                to[0].place(vector),
                to[1].place(vector),
                heads,
                all,
                rows,
                lines,
                length,
                shares,
                b * heads * rows * d / vector,
                d / vector,
                super::scale(d),
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
fn backward_kernel<E: Float, O: Float, N: Size>(
    rows_one: &[Vector<E, N>],
    rows_two: &[Vector<E, N>],
    lines_one: &[Vector<E, N>],
    lines_two: &[Vector<E, N>],
    logarithms: &[f32],
    deltas: &[f32],
    y_one: &mut [Vector<O, N>],
    y_two: &mut [Vector<O, N>],
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
    width: usize,
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
    let kept = comptime![plan.kept()];
    let walked = comptime![plan.walked()];
    let mut kept_one = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut kept_two = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut one = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    let mut two = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    let mut products = Shared::<[Vector<f32, Four>]>::new_aligned_slice(
        comptime![plan.rows() * plan.score_stride() / COUNT],
        ALIGNMENT,
    );
    let mut weights = Shared::<[Vector<E, Four>]>::new_aligned_slice(
        comptime![plan.rows() * plan.weight_stride() / COUNT],
        ALIGNMENT,
    );
    let mut factors = Shared::<[f32]>::new_slice(comptime![plan.rows()]);
    // Of the queries that are walked.
    let known = comptime![if keys { plan.lines() } else { 1 }];
    let mut line_logarithms = Shared::<[f32]>::new_slice(known);
    let mut line_deltas = Shared::<[f32]>::new_slice(known);

    let rows_one_start = start(rows_one_place, head, heads);
    let rows_two_start = start(rows_two_place, head, heads);
    let lines_one_start = start(lines_one_place, head, heads);
    let lines_two_start = start(lines_two_place, head, heads);
    load::<E, N>(rows_one, rows_one_place, rows_one_start, first, rows, width, &mut kept_one, 0usize, kept);
    load::<E, N>(rows_two, rows_two_place, rows_two_start, first, rows, width, &mut kept_two, 0usize, kept);
    let share = comptime![if plan.ahead(size) { walked.share(size) } else { 1 }];
    let mut next_one = Waiting::<E, N>::new(share, comptime![walked.missing()]);
    let mut next_two = Waiting::<E, N>::new(share, comptime![walked.missing()]);
    if comptime![plan.ahead(size)] {
        fetch::<E, N>(
            lines_one,
            lines_one_place,
            lines_one_start,
            begin,
            lines,
            width,
            &mut next_one,
            walked,
        );
        fetch::<E, N>(
            lines_two,
            lines_two_place,
            lines_two_start,
            begin,
            lines,
            width,
            &mut next_two,
            walked,
        );
    }
    // Of the queries that are kept: a unit has those of its turns.
    let mut row_logarithms = Array::<f32>::new(comptime![plan.turns()]);
    let mut row_deltas = Array::<f32>::new(comptime![plan.turns()]);
    if comptime![!keys] {
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = head * rows + min(first + top(plan) + row_of(turn, plan), rows - 1);
            row_logarithms[turn] = logarithms[row];
            row_deltas[turn] = deltas[row];
        }
    }

    let mut sums_one = Sums::zero(plan);
    let mut sums_two = Sums::zero(plan);
    let mut at = begin;
    while at < end {
        sync_cube();
        if comptime![plan.ahead(size)] {
            put::<E, N>(&next_one, &mut one, 0usize, walked);
            put::<E, N>(&next_two, &mut two, 0usize, walked);
        } else {
            load::<E, N>(
                lines_one,
                lines_one_place,
                lines_one_start,
                at,
                lines,
                width,
                &mut one,
                0usize,
                walked,
            );
            load::<E, N>(
                lines_two,
                lines_two_place,
                lines_two_start,
                at,
                lines,
                width,
                &mut two,
                0usize,
                walked,
            );
        }
        if comptime![keys] {
            let mut i = UNIT_POS as usize;
            while i < comptime![plan.lines()] {
                let line = head * lines + min(at + i, lines - 1);
                line_logarithms[i] = logarithms[line];
                line_deltas[i] = deltas[line];
                i += comptime![walked.units];
            }
        }
        sync_cube();
        let next = at + comptime![plan.lines()];
        if comptime![plan.ahead(size)] {
            fetch::<E, N>(
                lines_one,
                lines_one_place,
                lines_one_start,
                next,
                lines,
                width,
                &mut next_one,
                walked,
            );
            fetch::<E, N>(
                lines_two,
                lines_two_place,
                lines_two_start,
                next,
                lines,
                width,
                &mut next_two,
                walked,
            );
        }
        scores::<E, E, N>(&kept_one, &one, &mut products, plan);
        wait(plan);
        if next > lines {
            hide(&mut products, lines - at, plan);
        }
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = row_of(turn, plan);
            if row < comptime![plan.plane_rows()] {
                let from = scores_of(row, plan);
                let to = weights_of(row, plan);
                for column in 0..steps(comptime![plan.lines() / COUNT], plan) {
                    let mut four = products[from + column];
                    #[unroll]
                    for k in 0..COUNT {
                        let logarithm = if comptime![keys] {
                            line_logarithms[column * COUNT + k]
                        } else {
                            row_logarithms[turn]
                        };
                        // A probability is at most 1. Rows and lines that aren't there have no logarithm of theirs.
                        four.insert(k, min(four.extract(k) * scale - logarithm, 0.0f32).exp());
                    }
                    weights[to + column] = Vector::<E, Four>::cast_from(four);
                }
            }
        }
        wait(plan);
        if comptime![keys] {
            sums_two.add::<E, E, N>(&weights, &two);
        }

        scores::<E, E, N>(&kept_two, &two, &mut products, plan);
        wait(plan);
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = row_of(turn, plan);
            if row < comptime![plan.plane_rows()] {
                let from = scores_of(row, plan);
                let to = weights_of(row, plan);
                for column in 0..steps(comptime![plan.lines() / COUNT], plan) {
                    let p = Vector::<f32, Four>::cast_from(weights[to + column]);
                    let mut four = products[from + column];
                    #[unroll]
                    for k in 0..COUNT {
                        let delta =
                            if comptime![keys] { line_deltas[column * COUNT + k] } else { row_deltas[turn] };
                        four.insert(k, p.extract(k) * (four.extract(k) - delta));
                    }
                    weights[to + column] = Vector::<E, Four>::cast_from(four);
                }
            }
        }
        wait(plan);
        sums_one.add::<E, E, N>(&weights, &one);
        at = next;
    }

    wait(plan);
    set(&mut factors, scale, plan);
    let y_one_start = start(y_one_place, head, heads) + share_of_lines * share_size;
    sums_one.write::<O, N>(&mut products, &factors, y_one, y_one_place, y_one_start, first, rows, width);
    if comptime![keys] {
        wait(plan);
        set(&mut factors, 1.0f32, plan);
        let y_two_start = start(y_two_place, head, heads) + share_of_lines * share_size;
        sums_two.write::<O, N>(&mut products, &factors, y_two, y_two_place, y_two_start, first, rows, width);
    }
}

/// One factor for all rows of the plane.
#[cube]
fn set(factors: &mut Shared<[f32]>, factor: f32, #[comptime] plan: Plan) {
    #[unroll]
    for turn in 0..comptime![plan.turns()] {
        let row = row_of(turn, plan);
        if row < comptime![plan.plane_rows()] {
            factors[top(plan) + row] = factor;
        }
    }
}
