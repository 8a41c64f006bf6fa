//! What a cube does with a step's operands in shared memory, and with the sums at the end.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{ALIGNMENT, PlaneTile, SIDE, TileForm};
use super::fetch::Fetch;
use super::plan::{BLOCKS, DEPTH, PLANES, STAGE, STAGE_STRIDE};

/// The first row of a plane's quarter.
#[cube]
fn quarter_row(plane: usize) -> usize {
    plane / 2usize * comptime![BLOCKS * SIDE]
}

/// The first column of a plane's quarter.
#[cube]
fn quarter_column(plane: usize) -> usize {
    plane % 2usize * comptime![BLOCKS * SIDE]
}

/// Adds a step's product to a plane's quarter.
#[cube]
pub fn multiply<E: Float, A: Size, B: Size>(
    tile: &mut PlaneTile,
    left: &Shared<[Vector<E, A>]>,
    right: &Shared<[Vector<E, B>]>,
    plane: usize,
    #[comptime] left_fetch: Fetch,
    #[comptime] right_fetch: Fetch,
) {
    let (left_row, left_deep) = comptime![left_fetch.steps()];
    let (right_row, right_deep) = comptime![right_fetch.steps()];
    let left_start = quarter_row(plane) * left_row;
    let right_start = quarter_column(plane) * right_row;
    #[unroll]
    for k in 0..comptime![DEPTH / SIDE] {
        let left_at = (left_start + comptime![k * SIDE * left_deep]) / A::value();
        let right_at = (right_start + comptime![k * SIDE * right_deep]) / B::value();
        tile.multiply_add::<E, A, B>(
            &left[left_at..left.len()],
            comptime![left_fetch.stride()],
            comptime![left_fetch.left()],
            &right[right_at..right.len()],
            comptime![right_fetch.stride()],
            comptime![right_fetch.right()],
        );
    }
}

/// Writes a plane's quarter of the tile at `first` row and column of split `split` of `[splits, rows, columns]`, with
/// a column's bias and an element's addend.
#[cube]
pub fn write<E: Float, O: Float, Y: Size>(
    tile: &PlaneTile,
    y: &mut [Vector<O, Y>],
    bias: &[E],
    addend: &[Vector<E, Y>],
    split: usize,
    first_row: usize,
    first_column: usize,
    rows: usize,
    columns: usize,
    #[comptime] form: TileForm,
    #[comptime] has_bias: bool,
    #[comptime] has_addend: bool,
) {
    let mut stage = Shared::<[f32]>::new_aligned_slice(comptime![PLANES * STAGE], ALIGNMENT);
    let plane = UNIT_POS_Y as usize;
    let start = plane * STAGE;
    let n = Y::value();
    let across = comptime![BLOCKS * SIDE / n];
    #[unroll]
    for block in 0..BLOCKS {
        if comptime![block > 0] {
            sync_cube();
        }
        tile.store_row(&mut stage[start..comptime![PLANES * STAGE]], STAGE_STRIDE, block);
        sync_cube();
        let mut i = UNIT_POS_X as usize;
        while i < comptime![SIDE * across] {
            let row = first_row + quarter_row(plane) + comptime![block * SIDE] + i / across;
            let column = first_column + quarter_column(plane) + i % across * n;
            if row < rows && column < columns {
                let at = ((split * rows + row) * columns + column) / n;
                let mut v = Vector::<f32, Y>::new(0.0f32);
                #[unroll]
                for k in 0..n {
                    let mut sum = stage[start + i / across * STAGE_STRIDE + i % across * n + k];
                    if comptime![has_bias] {
                        sum += f32::cast_from(bias[column + k]);
                    }
                    v.insert(k, sum);
                }
                if comptime![has_addend] {
                    v += Vector::<f32, Y>::cast_from(addend[at]);
                }
                y[at] = Vector::<O, Y>::cast_from(v);
            }
            i += form.units;
        }
    }
}
