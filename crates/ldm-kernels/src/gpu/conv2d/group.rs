//! The [product](super::product) by groups of four planes, which read their operands in shared memory themselves: Hopper's
//! `wgmma`.
//!
//! A group makes 64 rows of all the tile's columns. It multiplies a step while its units ask for another, so that they
//! wait only for each other and for what comes late.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::SIDE;
use super::super::ptx::{commit, group_product, group_wait, show, wait};
use super::Added;
use super::geometry::{Sizes, Strides};
use super::plan::CubeForm;
use super::product::Form;
use super::supply::{Part, Supply, part};
use super::tile::out;

/// What the tiles in shared memory are aligned to, in bytes.
const ALIGNMENT: usize = 1024;
/// Planes of a group.
const PLANES: usize = 4;

/// A tile of the output a cube, or of one split's part of it: `[splits, pixels, outputs]`. A unit has `S` sums.
#[cube(launch_unchecked)]
pub fn group_kernel<E: Float, O: Float, X: Size, W: Size, Y: Size, S: Size>(
    x: &[Vector<E, X>],
    weights: &[Vector<E, W>],
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<E, Y>],
    y: &mut [Vector<O, Y>],
    sizes: &Sizes,
    from: &Strides,
    taps: &Strides,
    splits: usize,
    length: usize,
    #[comptime] form: Form,
    #[define(E)] _inputs: ElemType,
    #[define(O)] _outputs: ElemType,
) {
    let cube = comptime![form.cube];
    let part = part(sizes, length, cube);
    // The whole cube ends, so no unit waits for another.
    if part.split >= splits {
        terminate!();
    }
    let (x_size, w_size) = comptime![(form.x.size(), form.weight.size())];
    let mut supply = Supply::<E, X, W>::new(&part, sizes, from, form);
    let mut left = Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![cube.buffers * x_size], ALIGNMENT);
    let mut right = Shared::<[Vector<E, W>]>::new_aligned_slice(comptime![cube.buffers * w_size], ALIGNMENT);
    // The group's rows of the tile, in vectors.
    let rows = UNIT_POS_Y as usize / PLANES * comptime![PLANES * SIDE * form.x.stride() / form.x.vector];
    let mut sums = Vector::<f32, S>::new(0.0f32);
    let ahead = comptime![cube.ahead()];
    let mut step = part.begin;
    while step < part.end + ahead {
        if step >= part.begin + ahead {
            wait(comptime![cube.buffers - 2]);
            show();
            // All have the step then, and none reads the one before any more, whose buffer is filled next.
            sums = group_wait(sums);
            sync_cube();
            let multiplied = (step - ahead) % comptime![cube.buffers];
            let at = multiplied * x_size + rows;
            let beside = multiplied * w_size;
            sums = group_product::<E, S, X, W>(sums, &left[at..left.len()], &right[beside..right.len()]);
        }
        if step < part.end {
            let buffer = step % comptime![cube.buffers];
            supply.ask(x, weights, &mut left, &mut right, buffer, sizes, from, taps);
        }
        commit();
        step += 1usize;
    }
    let sums = group_wait(sums);
    write::<E, O, Y, S>(sums, y, bias, shift, addend, &part, sizes, cube, comptime![form.added]);
}

/// Writes a plane's 16 rows, 32 columns at a time, by way of shared memory of its own.
#[cube]
fn write<E: Float, O: Float, Y: Size, S: Size>(
    sums: Vector<f32, S>,
    y: &mut [Vector<O, Y>],
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<E, Y>],
    part: &Part,
    sizes: &Sizes,
    #[comptime] cube: CubeForm,
    #[comptime] added: Added,
) {
    let mut stage = Shared::<[f32]>::new_aligned_slice(comptime![cube.planes() * cube.stage()], ALIGNMENT);
    let plane = UNIT_POS_Y as usize;
    let start = plane * comptime![cube.stage()];
    let stride = comptime![cube.stage_stride()];
    let (row, column) = (UNIT_POS_X as usize / 4, UNIT_POS_X as usize % 4 * 2);
    #[unroll]
    for turn in 0..comptime![cube.columns() / cube.stage_columns()] {
        sync_plane();
        #[unroll]
        for block in 0..comptime![cube.stage_columns() / 8] {
            #[unroll]
            for i in 0..4usize {
                let at = (row + comptime![i / 2 * 8]) * stride + column + comptime![block * 8 + i % 2];
                stage[start + at] =
                    sums.extract(comptime![(turn * cube.stage_columns() / 8 + block) * 4 + i]);
            }
        }
        sync_plane();
        out::<E, O, Y>(
            &stage,
            start,
            y,
            bias,
            shift,
            addend,
            part.split,
            part.pixel + plane * SIDE,
            part.output + comptime![turn * cube.stage_columns()],
            sizes.batch * sizes.height * sizes.width,
            sizes.outputs,
            sizes.height * sizes.width,
            cube,
            added,
        );
    }
}
