//! What a cube does with a step's operands in shared memory, and with the sums at the end.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::fours::{COUNT, Four, neighbours};
use super::super::geglu::gelu;
use super::super::plane_tile::{ALIGNMENT, Output, PlaneTile, SIDE, meet};
use super::Added;
use super::fetch::Fetch;
use super::plan::{CubeForm, HALF};

/// The first row of a plane's part of the tile.
#[cube]
pub fn part_row(plane: usize, #[comptime] cube: CubeForm) -> usize {
    plane / comptime![cube.planes[1]] * comptime![cube.tile.rows * SIDE]
}

/// The first column of a plane's part of the tile.
#[cube]
pub fn part_column(plane: usize, #[comptime] cube: CubeForm) -> usize {
    plane % comptime![cube.planes[1]] * comptime![cube.tile.columns * SIDE]
}

/// Adds the product of a step's operands, which begin there (in vectors), to a plane's part.
#[cube]
pub fn multiply<E: Float, P: Numeric, A: Size, B: Size>(
    tile: &mut PlaneTile,
    left: &Shared<[Vector<P, A>]>,
    right: &Shared<[Vector<P, B>]>,
    left_begin: usize,
    right_begin: usize,
    plane: usize,
    #[comptime] cube: CubeForm,
    #[comptime] left_fetch: Fetch,
    #[comptime] right_fetch: Fetch,
) {
    let (left_row, left_deep) = comptime![left_fetch.steps()];
    let (right_row, right_deep) = comptime![right_fetch.steps()];
    let left_start = part_row(plane, cube) * left_row;
    let right_start = part_column(plane, cube) * right_row;
    #[unroll]
    for k in 0..comptime![cube.depth / SIDE] {
        let left_at =
            left_begin + (left_start + comptime![k * SIDE * left_deep]) / comptime![left_fetch.vector];
        let right_at =
            right_begin + (right_start + comptime![k * SIDE * right_deep]) / comptime![right_fetch.vector];
        tile.multiply_add::<E, P, A, P, B>(
            &left[left_at..left.len()],
            comptime![left_fetch.stride()],
            comptime![left_fetch.left()],
            &right[right_at..right.len()],
            comptime![right_fetch.stride()],
            comptime![right_fetch.right()],
            comptime![[left_fetch.packed, right_fetch.packed]],
        );
    }
}

/// Writes a plane's part of the tile at `first` row and column of split `split` of an output, with a column's bias, that of a column
/// and picture, and an element's addend. It goes by way of a stage, so many blocks of a row at
/// a time.
#[cube]
pub fn write<E: Float, A: Numeric, O: Numeric, Y: Size, S: Numeric, N: Size>(
    tile: &PlaneTile,
    stage: &mut Shared<[Vector<S, N>]>,
    y: &mut [Vector<O, Y>],
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<A, Y>],
    split: usize,
    first_row: usize,
    first_column: usize,
    output: &Output,
    #[comptime] cube: CubeForm,
    #[comptime] added: Added,
    #[comptime] gated: bool,
    #[comptime] across: usize,
) {
    let plane = UNIT_POS_Y as usize;
    let stride = comptime![cube.stage_stride(across)];
    let start = plane * comptime![SIDE * stride];
    #[unroll]
    for block in 0..comptime![cube.tile.rows] {
        #[unroll]
        for turn in 0..comptime![cube.tile.columns.div_ceil(across)] {
            let first = comptime![turn * across];
            let there = comptime![across.min(cube.tile.columns - first)];
            if comptime![block + turn > 0] {
                meet(comptime![cube.tile.native.is_some()]);
            }
            let end = stage.len();
            let to = &mut stage[start / COUNT..end];
            tile.store_blocks::<S, N>(to, stride, block, first, there);
            meet(comptime![cube.tile.native.is_some()]);
            let row = first_row + part_row(plane, cube) + comptime![block * SIDE];
            let column = first_column + part_column(plane, cube) + comptime![first * SIDE];
            out::<E, A, O, Y, S, N>(
                &*stage,
                start,
                stride,
                y,
                bias,
                shift,
                addend,
                split,
                row,
                column,
                output,
                cube,
                comptime![there * SIDE],
                added,
                gated,
            );
        }
    }
}

/// A stage of a cube's own.
#[cube]
pub fn stage(#[comptime] cube: CubeForm) -> Shared<[Vector<f32, Four>]> {
    let size = comptime![cube.planes() * cube.stage() / COUNT];
    Shared::<[Vector<f32, Four>]>::new_aligned_slice(size, ALIGNMENT)
}

/// Writes what lies in a plane's stage, 16 rows from one on of so many columns, with a stride from row to row.
#[cube]
pub fn out<E: Float, A: Numeric, O: Numeric, Y: Size, S: Numeric, N: Size>(
    stage: &Shared<[Vector<S, N>]>,
    start: usize,
    #[comptime] stride: usize,
    y: &mut [Vector<O, Y>],
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<A, Y>],
    split: usize,
    first_row: usize,
    first_column: usize,
    output: &Output,
    #[comptime] cube: CubeForm,
    #[comptime] staged_columns: usize,
    #[comptime] added: Added,
    #[comptime] gated: bool,
) {
    let n = Y::value();
    let (rows, columns) = (output.rows, output.columns);
    // Columns that are written of those on the stage.
    let written = comptime![if gated { staged_columns / 2 } else { staged_columns }];
    let across = comptime![written / n];
    let mut i = UNIT_POS_X as usize;
    while i < comptime![SIDE * across] {
        let row = first_row + i / across;
        let beside = i % across * n;
        let line = start + i / across * stride;
        if comptime![gated] {
            let place = beside / HALF * comptime![2 * HALF] + beside % HALF;
            if row < rows && first_column + place < columns {
                let column = first_column / 2 + beside;
                let mut v = neighbours::<S, N, Y>(&stage[0usize..stage.len()], line + place);
                let mut u = neighbours::<S, N, Y>(&stage[0usize..stage.len()], line + place + HALF);
                if comptime![added.bias] {
                    v += Vector::<f32, Y>::cast_from(bias[column / n]);
                    u += Vector::<f32, Y>::cast_from(bias[(columns / 2 + column) / n]);
                }
                y[(row * (columns / 2) + column) / n] =
                    Vector::<O, Y>::cast_from(v * gelu::<Y>(u, comptime![cube.copies]));
            }
        } else {
            let column = first_column + beside;
            if row < rows && column < columns {
                let at = (split * rows * columns + output.at(row, column)) / n;
                let mut v = neighbours::<S, N, Y>(&stage[0usize..stage.len()], line + beside);
                if comptime![added.bias] {
                    v += Vector::<f32, Y>::cast_from(bias[output.channel(column) / n]);
                }
                if comptime![added.shift] {
                    v += Vector::<f32, Y>::cast_from(shift[(row / output.picture * columns + column) / n]);
                }
                if comptime![added.addend] {
                    v += Vector::<f32, Y>::cast_from(addend[at]);
                }
                y[at] = Vector::<O, Y>::cast_from(v);
            }
        }
        i += comptime![cube.tile.units];
    }
}
