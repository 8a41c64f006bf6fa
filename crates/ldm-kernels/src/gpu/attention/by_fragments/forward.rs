//! The output, and what the gradients need to know of each row's softmax.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use core::f32::consts::{LN_2, LOG2_E};

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::super::super::fragments::{Operand, Plane};
use super::super::super::plane_tile::ALIGNMENT;
use super::super::super::ptx::exp2;
use super::super::super::waiting::Waiting;
use super::super::super::walk::cubes;
use super::super::heads::{Heads, Place, pair, start, vector};
use super::super::memory::{fetch, load, put};
use super::super::plan::Plan;
use super::super::scale;
use super::super::softmax::LOWEST;
use super::rows::{
    Blocks, Part, add, column, exp2_pair, multiply, operand, operands, renew, row, top, write, zeros,
};

/// How far above its reference an exponent may be before the reference follows: 2^7 is far below f16's largest.
const SLACK: f32 = 7.0;

/// Writes `y` `[b, heads, n, d]` and `sums`, f32 `[b, heads, n]`.
pub fn launch(q: &Heads, k: &Heads, v: &Heads, y: &Heads, sums: &CubeTensor, plan: Plan) {
    let client = &q.tensor.client;
    let (vector, pair) = (vector(&[q, k, v]), pair(&[y]));
    let [_, heads, n, d] = q.shape;
    let count = q.all() * n.div_ceil(plan.rows());
    // SAFETY: every index is in the tensors' views; cubes beyond the last head end at once.
    unsafe {
        forward_kernel::launch_unchecked(
            client,
            cubes(client, count),
            CubeDim::new_2d(plan.units as u32, plan.planes as u32),
            vector,
            pair,
            q.buffer(),
            k.buffer(),
            v.buffer(),
            y.buffer(),
            sums.clone().into_buffer_arg(),
            q.place(vector),
            k.place(vector),
            v.place(vector),
            y.place(pair),
            heads,
            q.all(),
            n,
            k.shape[2],
            d,
            // To base 2.
            scale(d) * LOG2_E,
            plan,
            q.elements(),
        );
    }
}

/// A cube's queries and all keys.
#[cube(launch_unchecked)]
fn forward_kernel<E: Float, N: Size, P: Size>(
    q: &[Vector<E, N>],
    k: &[Vector<E, N>],
    v: &[Vector<E, N>],
    y: &mut [Vector<E, P>],
    logarithms: &mut [f32],
    q_place: &Place,
    k_place: &Place,
    v_place: &Place,
    y_place: &Place,
    heads: usize,
    all: usize,
    n: usize,
    m: usize,
    d: usize,
    scale: f32,
    #[comptime] plan: Plan,
    #[define(E)] _dtype: ElemType,
) {
    let tiles = (n + comptime![plan.rows() - 1]) / comptime![plan.rows()];
    let head = CUBE_POS / tiles;
    if head >= all {
        terminate!();
    }
    let first = CUBE_POS % tiles * comptime![plan.rows()];
    let size = N::value();
    let width = d / size;
    let kept = comptime![plan.kept()];
    let walked = comptime![plan.walked()];
    let mut queries = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![kept.vectors(size)], ALIGNMENT);
    let mut keys = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    let mut values = Shared::<[Vector<E, N>]>::new_aligned_slice(comptime![walked.vectors(size)], ALIGNMENT);
    let mut plane = Plane::new(plan.planes, comptime![plan.by.hardware()]);

    let k_start = start(k_place, head, heads);
    let v_start = start(v_place, head, heads);
    load::<E, N>(q, q_place, start(q_place, head, heads), first, n, width, &mut queries, 0usize, kept);
    load::<E, N>(k, k_place, k_start, 0, m, width, &mut keys, 0usize, walked);
    let ahead = comptime![plan.ahead(size)];
    let share = comptime![if ahead { walked.share(size) } else { 1 }];
    let mut next_keys = Waiting::<E, N>::new(share, comptime![walked.missing()]);
    let mut next_values = Waiting::<E, N>::new(share, comptime![walked.missing()]);
    if comptime![plan.once] {
        load::<E, N>(v, v_place, v_start, 0, m, width, &mut values, 0usize, walked);
    } else if comptime![ahead] {
        fetch::<E, N>(k, k_place, k_start, comptime![plan.lines()], m, width, &mut next_keys, walked);
        fetch::<E, N>(v, v_place, v_start, 0, m, width, &mut next_values, walked);
    }
    sync_cube();
    let held = operands::<E, N>(&plane, &queries, plan);
    let mut blocks = zeros(comptime![2 * plan.blocks * plan.columns]);
    let whole = comptime![Part::whole(plan)];
    multiply::<E, N>(&mut plane, &mut blocks, &held, &queries, &keys, 0usize, whole, plan);

    let mut sums = zeros(comptime![plan.blocks * plan.eights]);
    let mut softmax = Softmax::new(plan);
    let mut at = 0usize;
    while at < m {
        // These lines' scores are there. Their values come now, and the next lines' keys.
        let after = at + comptime![plan.lines()];
        if comptime![!plan.once] {
            sync_cube();
            if comptime![ahead] {
                put::<E, N>(&next_keys, &mut keys, 0usize, walked);
                put::<E, N>(&next_values, &mut values, 0usize, walked);
            } else {
                load::<E, N>(k, k_place, k_start, after, m, width, &mut keys, 0usize, walked);
                load::<E, N>(v, v_place, v_start, at, m, width, &mut values, 0usize, walked);
            }
            sync_cube();
            if comptime![ahead] {
                let then = after + comptime![plan.lines()];
                fetch::<E, N>(k, k_place, k_start, then, m, width, &mut next_keys, walked);
                fetch::<E, N>(v, v_place, v_start, after, m, width, &mut next_values, walked);
            }
        }
        if m < after {
            leave(&mut blocks, m - at, plan);
        }
        if at == 0 {
            softmax.refer(&mut plane, &blocks, scale);
        }
        softmax.shift(&mut plane, &mut blocks, &mut sums, scale);
        // The next lines' scores take the place of those that have become weights, so that a plane's exponentials and its
        // products can go on side by side.
        #[unroll]
        for block in 0..plan.columns {
            let weights = softmax.weights::<E>(&blocks, block);
            if comptime![!plan.once] {
                let part = comptime![Part::block(block, plan)];
                renew::<E, N>(&mut plane, &mut blocks, &held, &queries, &keys, 0usize, part, plan);
            }
            add::<E, N>(&mut plane, &mut sums, &weights, &values, 0usize, block, plan);
        }
        at = after;
    }
    let factors = softmax.finish(&mut plane, logarithms, head * n, first, n);
    write::<E, P>(&sums, &factors, y, y_place, start(y_place, head, heads), first, n, d, plan);
}

/// Lets only so many lines count.
#[cube]
fn leave(blocks: &mut Blocks, there: usize, #[comptime] plan: Plan) {
    let across = comptime![2 * plan.columns];
    #[unroll]
    for i in 0..comptime![plan.blocks * across] {
        let block = blocks.index_mut(i);
        #[unroll]
        for half in 0..2usize {
            let mut scores = block[half];
            #[unroll]
            for e in 0..2usize {
                let line = column() + comptime![i % across * 8 + e];
                scores.insert(e, select(line < there, scores.extract(e), LOWEST));
            }
            block[half] = scores;
        }
    }
}

/// The softmax of the unit's rows so far: each block's first, and that 8 below.
///
/// A row's weights are `exp(score - reference)`, the reference a score that is near the highest so far. Both are kept
/// divided by ln 2, so that powers of 2 do.
#[derive(CubeType)]
struct Softmax {
    reference: Array<f32>,
    /// Of the weights of this unit's columns.
    total: Array<f32>,
    #[cube(comptime)]
    plan: Plan,
}

#[cube]
impl Softmax {
    fn new(#[comptime] plan: Plan) -> Softmax {
        let mut reference = Array::<f32>::new(comptime![2 * plan.blocks]);
        let mut total = Array::<f32>::new(comptime![2 * plan.blocks]);
        #[unroll]
        for turn in 0..comptime![2 * plan.blocks] {
            reference[turn] = 0.0f32;
            total[turn] = 0.0f32;
        }
        Softmax { reference, total, plan }
    }

    /// Makes the highest of the first scores the reference.
    fn refer(&mut self, plane: &mut Plane, blocks: &Blocks, scale: f32) {
        let plan = comptime![self.plan];
        #[unroll]
        for turn in 0..comptime![2 * plan.blocks] {
            self.reference[turn] = plane.quad_max(highest(blocks, turn, plan)) * scale;
        }
    }

    /// Makes scores exponents. Where one is so high that the weights may not hold it, the references follow, and the
    /// sums are scaled.
    fn shift(&mut self, plane: &mut Plane, blocks: &mut Blocks, sums: &mut Blocks, scale: f32) {
        let plan = comptime![self.plan];
        let across = comptime![2 * plan.columns];
        let mut top = f32::new(LOWEST);
        #[unroll]
        for turn in 0..comptime![2 * plan.blocks] {
            let reference = self.reference[turn];
            #[unroll]
            for j in 0..across {
                let block = blocks.index_mut(comptime![turn / 2 * across + j]);
                block[comptime![turn % 2]] =
                    block[comptime![turn % 2]] * Vector::new(scale) - Vector::new(reference);
            }
            top = max(top, highest(&*blocks, turn, plan));
        }
        if plane.any(top > SLACK) {
            #[unroll]
            for turn in 0..comptime![2 * plan.blocks] {
                let rise = max(plane.quad_max(highest(&*blocks, turn, plan)), 0.0f32);
                let factor = exp2(-rise, plan.ptx);
                self.reference[turn] += rise;
                self.total[turn] *= factor;
                #[unroll]
                for j in 0..across {
                    let block = blocks.index_mut(comptime![turn / 2 * across + j]);
                    block[comptime![turn % 2]] -= Vector::new(rise);
                }
                #[unroll]
                for c in 0..plan.eights {
                    let sum = sums.index_mut(comptime![turn / 2 * plan.eights + c]);
                    sum[comptime![turn % 2]] *= Vector::new(factor);
                }
            }
        }
    }

    /// The weights of sixteen lines from their exponents, as left operands.
    fn weights<E: Float>(&mut self, blocks: &Blocks, #[comptime] block: usize) -> Sequence<Operand<E>> {
        let plan = comptime![self.plan];
        let across = comptime![2 * plan.columns];
        let mut found = Sequence::<Operand<E>>::new();
        #[unroll]
        for i in 0..plan.blocks {
            let mut halves = zeros(2usize);
            #[unroll]
            for j in 0..2usize {
                let exponents = blocks.index(comptime![i * across + 2 * block + j]);
                let half = halves.index_mut(j);
                #[unroll]
                for r in 0..2usize {
                    let weights = exp2_pair(exponents[r], plan.ptx);
                    self.total[comptime![2 * i + r]] += weights.extract(0usize) + weights.extract(1usize);
                    half[r] = weights;
                }
            }
            found.push(operand::<E>(halves.index(0usize), halves.index(1usize)));
        }
        found
    }

    /// Writes the logarithm of each row's sum of exponentials; gives 1 / the sum of its weights.
    fn finish(
        &self,
        plane: &mut Plane,
        logarithms: &mut [f32],
        start: usize,
        first: usize,
        rows: usize,
    ) -> Array<f32> {
        let plan = comptime![self.plan];
        let mut factors = Array::<f32>::new(comptime![2 * plan.blocks]);
        #[unroll]
        for turn in 0..comptime![2 * plan.blocks] {
            let total = plane.quad_sum(self.total[turn]);
            factors[turn] = 1.0f32 / total;
            let row = first + top(plan) + comptime![turn * 8] + row();
            if column() == 0 && row < rows {
                logarithms[start + row] = self.reference[turn] * LN_2 + total.ln();
            }
        }
        factors
    }
}

/// The highest of a row that are this unit's.
#[cube]
fn highest(blocks: &Blocks, #[comptime] turn: usize, #[comptime] plan: Plan) -> f32 {
    let across = comptime![2 * plan.columns];
    let mut highest = f32::new(LOWEST);
    #[unroll]
    for j in 0..across {
        let pair = blocks.index(comptime![turn / 2 * across + j])[comptime![turn % 2]];
        highest = max(highest, max(pair.extract(0usize), pair.extract(1usize)));
    }
    highest
}
