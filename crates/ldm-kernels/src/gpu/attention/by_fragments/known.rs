//! What the gradients know of the queries' softmax.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use core::f32::consts::LOG2_E;

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::super::fragments::Pair;
use super::super::super::plane_tile::SIDE;
use super::super::plan::Plan;
use super::rows::{Blocks, Part, column, exp2_pair, row, top, zeros};

/// A logarithm of which nothing is left.
const HIGHEST: f32 = 3.0e38;

/// What is known of the queries: their logarithms, to base 2, and what is taken off each product, negative. Queries that are walked lie in
/// shared memory, two tiles of them, and those that are kept in registers.
#[derive(CubeType)]
pub struct Known {
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
    /// Of nothing yet.
    pub fn new(#[comptime] keys: bool, #[comptime] plan: Plan) -> Known {
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
    pub fn fetch(&mut self, logarithms: &[f32], deltas: &[f32], start: usize, at: usize, lines: usize) {
        if comptime![self.keys] {
            let line = at + UNIT_POS as usize;
            let place = start + min(line, lines - 1);
            // Lines that aren't there weigh nothing.
            self.next_logarithm = select(line < lines, logarithms[place] * LOG2_E, HIGHEST);
            self.next_delta = -deltas[place];
        }
    }

    /// Puts them into shared memory.
    pub fn put(&mut self, side: usize) {
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
    pub fn rows(&mut self, logarithms: &[f32], deltas: &[f32], start: usize, first: usize, rows: usize) {
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
    pub fn begin(&self, products: &mut Blocks, side: usize, #[comptime] part: Part) {
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
    pub fn probabilities(&self, scores: &Blocks, scale: f32, side: usize, #[comptime] part: Part) -> Blocks {
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
