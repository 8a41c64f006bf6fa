//! The products of a plane: scores, and sums over the lines with the scores' weights.

// A kernel's arguments are its bindings, and a part of one takes those it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::cmma::MatrixLayout;
use burn_cubecl::cubecl::prelude::*;

use super::super::fours::{COUNT, Four, neighbours};
use super::super::plane_tile::{PlaneTile, Rounded, SIDE, meet, veiled};
use super::heads::Place;
use super::plan::Plan;

/// Waits for the other units of the plane, whose memory no other plane touches; where planes are emulated, for all.
#[cube]
pub fn wait(#[comptime] plan: Plan) {
    meet(comptime![plan.by.hardware()]);
}

/// The same number; where matrix units are emulated, for tests, one that a shader compiler can't unroll a loop by.
#[cube]
pub fn steps(#[comptime] count: usize, #[comptime] plan: Plan) -> usize {
    if comptime![plan.by.hardware()] { count.runtime() } else { veiled(count) }
}

/// The plane's rows times every line, from row `UNIT_POS_Y * plane_rows` of `scores` on.
#[cube]
pub fn scores<E: Float, P: Numeric, N: Size>(
    rows: &Shared<[Vector<P, N>]>,
    lines: &Shared<[Vector<P, N>]>,
    scores: &mut Shared<[Vector<f32, Four>]>,
    #[comptime] plan: Plan,
) {
    let first = UNIT_POS_Y as usize * comptime![plan.plane_rows()];
    let mut tile = PlaneTile::zero(comptime![plan.scores()]);
    add_scores::<E, P, N>(&mut tile, rows, lines, plan);
    let (start, end) = (first * comptime![plan.score_stride() / COUNT], scores.len());
    tile.store(&mut scores[start..end], comptime![plan.score_stride()]);
}

/// Adds the plane's rows times every line.
#[cube]
pub fn add_scores<E: Float, P: Numeric, N: Size>(
    tile: &mut PlaneTile,
    rows: &Shared<[Vector<P, N>]>,
    lines: &Shared<[Vector<P, N>]>,
    #[comptime] plan: Plan,
) {
    let numbers = N::value();
    let n = comptime![numbers * plan.packed];
    let left = UNIT_POS_Y as usize * comptime![plan.plane_rows() * plan.stride() / n];
    if comptime![plan.by.hardware()] {
        #[unroll]
        for k in 0..comptime![plan.depth] {
            score::<E, P, N>(tile, rows, lines, left, comptime![k * SIDE / n].runtime(), plan);
        }
    } else {
        for k in 0..veiled(plan.depth) {
            score::<E, P, N>(tile, rows, lines, left, k * comptime![SIDE / n], plan);
        }
    }
}

/// The plane's rows, where they stay in the matrix units' registers.
#[cube]
pub fn held_rows<E: Float, P: Numeric, N: Size>(
    rows: &Shared<[Vector<P, N>]>,
    #[comptime] plan: Plan,
) -> Rounded<E> {
    if comptime![plan.holds_rows()] {
        let numbers = N::value();
        let start =
            UNIT_POS_Y as usize * comptime![plan.plane_rows() * plan.stride() / (numbers * plan.packed)];
        let form = comptime![plan.row_blocks()];
        Rounded::load::<P, N>(&rows[start..rows.len()], comptime![plan.stride()], plan.packed, form)
    } else {
        Rounded::none(comptime![plan.row_blocks()])
    }
}

/// Adds the products of sixteen elements of the plane's rows, which begin at `left`, and of every line, so many vectors further each.
#[cube]
fn score<E: Float, P: Numeric, N: Size>(
    tile: &mut PlaneTile,
    rows: &Shared<[Vector<P, N>]>,
    lines: &Shared<[Vector<P, N>]>,
    left: usize,
    further: usize,
    #[comptime] plan: Plan,
) {
    tile.multiply_add::<E, P, N, P, N>(
        &rows[left + further..rows.len()],
        comptime![plan.stride()],
        MatrixLayout::RowMajor,
        &lines[further..lines.len()],
        comptime![plan.stride()],
        MatrixLayout::ColMajor,
        comptime![[plan.packed, plan.packed]],
    );
}

/// `[plane_rows, d]` in f32, as tiles side by side. They stay in the matrix units' registers while the lines go by.
#[derive(CubeType)]
pub struct Sums {
    tiles: Sequence<PlaneTile>,
    #[cube(comptime)]
    plan: Plan,
}

#[cube]
impl Sums {
    /// Zeros.
    pub fn zero(#[comptime] plan: Plan) -> Sums {
        let mut tiles = Sequence::<PlaneTile>::new();
        #[unroll]
        for part in 0..comptime![plan.parts()] {
            tiles.push(PlaneTile::zero(comptime![plan.part(part)]));
        }
        Sums { tiles, plan }
    }

    /// Adds the lines, weighed by the plane's rows of `weights`.
    pub fn add<E: Float, P: Numeric, N: Size>(
        &mut self,
        weights: &Shared<[Vector<E, Four>]>,
        lines: &Shared<[Vector<P, N>]>,
    ) {
        let plan = comptime![self.plan];
        let numbers = N::value();
        let n = comptime![numbers * plan.packed];
        let first = UNIT_POS_Y as usize * comptime![plan.plane_rows() * plan.weight_stride()];
        for k in 0..steps(plan.columns, plan) {
            let left = (first + k * SIDE) / COUNT;
            #[unroll]
            for part in 0..comptime![plan.parts()] {
                let right = k * comptime![SIDE * plan.stride() / n] + comptime![plan.part_start(part) / n];
                self.tiles.index_mut(part).multiply_add::<E, E, Four, P, N>(
                    &weights[left..weights.len()],
                    comptime![plan.weight_stride()],
                    MatrixLayout::RowMajor,
                    &lines[right..lines.len()],
                    comptime![plan.stride()],
                    MatrixLayout::RowMajor,
                    comptime![[1, plan.packed]],
                );
            }
        }
    }

    /// [`add`](Self::add) of weights that are in the matrix units' registers.
    pub fn add_product<E: Float, P: Numeric, N: Size>(
        &mut self,
        weights: &Rounded<E>,
        lines: &Shared<[Vector<P, N>]>,
    ) {
        let plan = comptime![self.plan];
        let numbers = N::value();
        #[unroll]
        for part in 0..comptime![plan.parts()] {
            let start = comptime![plan.part_start(part) / (numbers * plan.packed)];
            let lines = &lines[start..lines.len()];
            self.tiles.index_mut(part).add_product::<E, P, N>(
                weights,
                lines,
                comptime![plan.stride()],
                MatrixLayout::RowMajor,
                plan.packed,
            );
        }
    }

    /// Multiplies each row by its factor, of which a unit has those of its turns, by way of the scores' memory.
    pub fn scale(&mut self, memory: &mut Shared<[Vector<f32, Four>]>, factors: &Array<f32>) {
        let plan = comptime![self.plan];
        let stride = comptime![plan.score_stride()];
        let first = UNIT_POS_Y as usize * comptime![plan.plane_rows() * stride / COUNT];
        #[unroll]
        for part in 0..comptime![plan.parts()] {
            let width = comptime![plan.part(part).columns * SIDE / COUNT];
            let end = memory.len();
            wait(plan);
            self.tiles.index(part).store(&mut memory[first..end], stride);
            wait(plan);
            #[unroll]
            for turn in 0..comptime![plan.turns()] {
                let row = UNIT_POS_X as usize + comptime![turn * plan.units];
                if row < comptime![plan.plane_rows()] {
                    let factor = Vector::<f32, Four>::new(factors[turn]);
                    for column in 0..steps(width, plan) {
                        memory[first + row * comptime![stride / COUNT] + column] *= factor;
                    }
                }
            }
            wait(plan);
            self.tiles.index_mut(part).load(&memory[first..end], stride);
        }
    }

    /// Writes the plane's rows, each times its factor of `factors` `[rows of the cube]`, by way of the scores' memory.
    /// `first` is the cube's first row, of `rows` in all; a row is of `columns` vectors.
    pub fn write<O: Float, N: Size>(
        &self,
        memory: &mut Shared<[Vector<f32, Four>]>,
        factors: &Shared<[f32]>,
        y: &mut [Vector<O, N>],
        place: &Place,
        start: usize,
        first: usize,
        rows: usize,
        columns: usize,
    ) {
        let plan = comptime![self.plan];
        let n = N::value();
        let stride = comptime![plan.score_stride()];
        let top = UNIT_POS_Y as usize * comptime![plan.plane_rows()];
        #[unroll]
        for part in 0..comptime![plan.parts()] {
            let across = comptime![plan.part(part).columns * SIDE / n];
            let end = memory.len();
            wait(plan);
            self.tiles.index(part).store(&mut memory[top * comptime![stride / COUNT]..end], stride);
            wait(plan);
            let mut i = UNIT_POS_X as usize;
            while i < comptime![plan.plane_rows() * across] {
                let row = top + i / across;
                let column = comptime![plan.part_start(part) / n] + i % across;
                if first + row < rows && column < columns {
                    let value =
                        neighbours::<f32, Four, N>(&memory[0usize..end], row * stride + i % across * n);
                    let value = value * Vector::new(factors[row]);
                    y[start + (first + row) * place.row + column * place.column] =
                        Vector::<O, N>::cast_from(value);
                }
                i += plan.units;
            }
        }
    }
}
