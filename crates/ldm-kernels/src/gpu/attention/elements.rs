//! Weights that never leave the matrix units' registers.
//!
//! Each score is made a weight where it is, `exp((score - reference) scale)`: sums begin not at zero but at the references of
//! their rows, taken away. Nobody sees a row's highest score, but a product with ones gives the sum of its weights: if that is too
//! large, a score has outgrown the reference. Only then scores go to shared memory, a block's width at a time.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::MatrixLayout;
use burn_cubecl::cubecl::prelude::*;

use super::super::fours::{COUNT, Four};
use super::super::plane_tile::{PlaneTile, Rounded, SIDE};
use super::plan::Plan;
use super::softmax::{LOWEST, row_of, scores_of, top, weights_of};
use super::sums::{add_scores, steps, wait};

/// A plane's rows: in the matrix units' registers, or where they are emulated in shared memory.
#[derive(CubeType)]
pub struct Rows<E: Float, P: Numeric, N: Size> {
    /// Of all planes.
    pub shared: Shared<[Vector<P, N>]>,
    /// This one's.
    pub held: Rounded<E>,
}

/// `exp(score - reference)` of the lines from one on, of which so many are `there`.
#[cube]
pub fn weigh<E: Float, P: Numeric, N: Size>(
    tile: &mut PlaneTile,
    rows: &Rows<E, P, N>,
    lines: &Shared<[Vector<P, N>]>,
    offsets: &Shared<[f32]>,
    there: usize,
    scale: f32,
    #[comptime] plan: Plan,
) {
    relative::<E, P, N>(tile, rows, lines, offsets, there, plan);
    tile.exponentiate(scale);
}

/// Scores, not yet scaled, less their references.
#[cube]
pub fn relative<E: Float, P: Numeric, N: Size>(
    tile: &mut PlaneTile,
    rows: &Rows<E, P, N>,
    lines: &Shared<[Vector<P, N>]>,
    offsets: &Shared<[f32]>,
    there: usize,
    #[comptime] plan: Plan,
) {
    tile.set_columns(&offsets[top(plan)..offsets.len()]);
    if comptime![plan.holds_rows()] {
        let (lines, stride) = (&lines[0usize..lines.len()], comptime![plan.stride()]);
        tile.add_product::<E, P, N>(&rows.held, lines, stride, MatrixLayout::ColMajor, plan.packed);
    } else {
        add_scores::<E, P, N>(tile, &rows.shared, lines, plan);
    }
    // A branch that is there costs a plane a copy of each of its scores, where its ways join.
    if comptime![!plan.whole] {
        if there < comptime![plan.lines()] {
            tile.hide(there, LOWEST);
        }
    }
}

/// The highest of each row, by way of memory; a unit has those of its turns.
#[cube]
pub fn highest(
    tile: &PlaneTile,
    memory: &mut Shared<[Vector<f32, Four>]>,
    found: &mut Array<f32>,
    #[comptime] plan: Plan,
) {
    let stride = comptime![plan.score_stride()];
    #[unroll]
    for turn in 0..comptime![plan.turns()] {
        found[turn] = f32::new(LOWEST);
    }
    #[unroll]
    for column in 0..plan.columns {
        wait(plan);
        #[unroll]
        for block in 0..plan.blocks {
            let (start, end) =
                ((top(plan) + comptime![block * SIDE]) * comptime![stride / COUNT], memory.len());
            tile.store_blocks::<f32, Four>(&mut memory[start..end], stride, block, column, 1usize);
        }
        wait(plan);
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = row_of(turn, plan);
            if row < comptime![plan.plane_rows()] {
                let from = scores_of(row, plan);
                for i in 0..steps(comptime![SIDE / COUNT], plan) {
                    let four = memory[from + i];
                    #[unroll]
                    for k in 0..COUNT {
                        found[turn] = max(found[turn], four.extract(k));
                    }
                }
            }
        }
    }
}

/// The sum of each row's weights, as operands have them: likewise. Emulated, the weights are in `weights` after it.
#[cube]
pub fn totals<E: Float>(
    tile: &PlaneTile,
    memory: &mut Shared<[Vector<f32, Four>]>,
    weights: &mut Shared<[Vector<E, Four>]>,
    found: &mut Array<f32>,
    #[comptime] plan: Plan,
) {
    if comptime![plan.by.hardware()] {
        let mut counts = PlaneTile::zero(comptime![plan.column()]);
        counts.add_rows::<E>(&tile.rounded::<E>());
        let (start, end) = (scores_of(0usize, plan), memory.len());
        wait(plan);
        counts.store(&mut memory[start..end], comptime![plan.score_stride()]);
        wait(plan);
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = min(row_of(turn, plan), comptime![plan.plane_rows() - 1]);
            found[turn] = memory[scores_of(row, plan)].extract(0usize);
        }
    } else {
        wait(plan);
        let (start, end) = (weights_of(0usize, plan), weights.len());
        tile.round(&mut weights[start..end], comptime![plan.weight_stride()]);
        wait(plan);
        #[unroll]
        for turn in 0..comptime![plan.turns()] {
            let row = min(row_of(turn, plan), comptime![plan.plane_rows() - 1]);
            let mut sum = 0.0f32;
            for i in 0..steps(comptime![plan.lines() / COUNT], plan) {
                let four = Vector::<f32, Four>::cast_from(weights[weights_of(row, plan) + i]);
                #[unroll]
                for k in 0..COUNT {
                    sum += four.extract(k);
                }
            }
            found[turn] = sum;
        }
    }
}
