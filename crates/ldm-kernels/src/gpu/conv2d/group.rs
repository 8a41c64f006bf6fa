//! The [product](super::product) by groups of four planes, which read their operands in shared memory themselves: Hopper's
//! `wgmma`.
//!
//! A group makes 64 rows of all the tile's columns. It multiplies a step, and has the next one waiting, while its units
//! ask for another: they wait only for each other and for what comes late.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::fours::{COUNT, Four};
use super::super::fragments::Pair;
use super::super::plane_tile::{Output, SIDE};
use super::super::ptx::{BLOCK, commit, group_pass, group_product, group_wait, show, wait};
use super::Added;
use super::geometry::{Sizes, Strides};
#[cfg(feature = "autodiff")]
use super::gradient_supply::{GradientForm, GradientSupply, gradient_output, gradient_part};
use super::plan::{CubeForm, OUT};
use super::product::{Form, output};
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
    let rows = UNIT_POS_Y as usize / PLANES * comptime![BLOCK * form.x.depth / form.x.vector];
    let mut sums = Vector::<f32, S>::new(0.0f32);
    let ahead = comptime![cube.ahead()];
    let mut step = part.begin;
    while step < part.end + ahead {
        if step >= part.begin + ahead {
            ready(cube);
            let multiplied = (step - ahead) % comptime![cube.buffers];
            let at = multiplied * x_size + rows;
            let beside = multiplied * w_size;
            sums = group_product::<E, S, X, W>(
                sums,
                &left[at..left.len()],
                &right[beside..right.len()],
                comptime![[!form.x.deep, !form.weight.deep]],
            );
        }
        if step < part.end {
            let buffer = step % comptime![cube.buffers];
            supply.ask(x, weights, &mut left, &mut right, buffer, sizes, from, taps);
        }
        commit();
        step += 1usize;
    }
    let sums = group_wait(sums);
    let output = output(sizes, comptime![form.columns]);
    write::<E, O, Y, S>(
        sums,
        y,
        bias,
        shift,
        addend,
        &part,
        &output,
        cube,
        comptime![form.added],
        comptime![form.gated],
    );
}

/// The [weights' gradient](super::weights) likewise.
#[cfg(feature = "autodiff")]
#[cube(launch_unchecked)]
pub fn group_gradient_kernel<E: Float, O: Float, G: Size, X: Size, Y: Size, S: Size>(
    gradient: &[Vector<E, G>],
    x: &[Vector<E, X>],
    unused: &[Vector<E, Y>],
    y: &mut [Vector<O, Y>],
    sizes: &Sizes,
    gradients: &Strides,
    from: &Strides,
    splits: usize,
    length: usize,
    #[comptime] form: GradientForm,
    #[define(E)] _inputs: ElemType,
    #[define(O)] _outputs: ElemType,
) {
    let cube = comptime![form.cube];
    let part = gradient_part(sizes, length, cube);
    // The whole cube ends, so no unit waits for another.
    if part.split >= splits {
        terminate!();
    }
    let (g_size, x_size) = comptime![(form.gradient.size(), form.x.size())];
    let mut supply = GradientSupply::<E, G, X>::new(&part, sizes, form);
    let mut left = Shared::<[Vector<E, G>]>::new_aligned_slice(comptime![cube.buffers * g_size], ALIGNMENT);
    let mut right = Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![cube.buffers * x_size], ALIGNMENT);
    // The group's rows of the tile, in vectors.
    let rows = UNIT_POS_Y as usize / PLANES * comptime![BLOCK * form.gradient.depth / form.gradient.vector];
    let mut sums = Vector::<f32, S>::new(0.0f32);
    let ahead = comptime![cube.ahead()];
    let mut step = part.begin;
    while step < part.end + ahead {
        if step >= part.begin + ahead {
            ready(cube);
            let multiplied = (step - ahead) % comptime![cube.buffers];
            let at = multiplied * g_size + rows;
            let beside = multiplied * x_size;
            sums = group_product::<E, S, G, X>(
                sums,
                &left[at..left.len()],
                &right[beside..right.len()],
                comptime![[!form.gradient.deep, !form.x.deep]],
            );
        }
        if step < part.end {
            let buffer = step % comptime![cube.buffers];
            supply.ask(gradient, x, &mut left, &mut right, buffer, sizes, gradients, from);
        }
        commit();
        step += 1usize;
    }
    let sums = group_wait(sums);
    let output = gradient_output(sizes);
    let nothing = comptime![Added::default()];
    write::<E, O, Y, S>(sums, y, unused, unused, unused, &part, &output, cube, nothing, false);
}

/// Waits until all have the step that was asked for first, and none reads the one two before it any more, whose buffer is
/// filled next. The product of the one before it goes on.
#[cube]
fn ready(#[comptime] cube: CubeForm) {
    wait(comptime![cube.ahead() - 1]);
    show();
    group_pass(1usize);
    sync_cube();
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
    output: &Output,
    #[comptime] cube: CubeForm,
    #[comptime] added: Added,
    #[comptime] gated: bool,
) {
    let size = comptime![cube.planes() * cube.stage() / COUNT];
    let mut stage = Shared::<[Vector<f32, Four>]>::new_aligned_slice(size, ALIGNMENT);
    let plane = UNIT_POS_Y as usize;
    let start = plane * comptime![cube.stage()];
    let stride = comptime![cube.stage_stride(OUT)];
    let (row, column) = (UNIT_POS_X as usize / 4, UNIT_POS_X as usize % 4 * 2);
    #[unroll]
    for turn in 0..comptime![cube.columns() / cube.stage_columns()] {
        sync_plane();
        #[unroll]
        for block in 0..comptime![cube.stage_columns() / 8] {
            #[unroll]
            for i in 0..2usize {
                let at = (row + comptime![i * 8]) * stride + column + comptime![block * 8];
                let from = comptime![(turn * cube.stage_columns() / 8 + block) * 4 + 2 * i];
                let mut pair = Vector::<f32, Pair>::new(0.0f32);
                pair.insert(0usize, sums.extract(from));
                pair.insert(1usize, sums.extract(comptime![from + 1]));
                // A unit has neighbours two by two.
                stage[0usize..size].with_vector_size_mut::<Pair>()[(start + at) / 2] = pair;
            }
        }
        sync_plane();
        out::<E, E, O, Y, f32, Four>(
            &stage,
            start,
            stride,
            y,
            bias,
            shift,
            addend,
            part.split,
            part.row + plane * SIDE,
            part.column + comptime![turn * cube.stage_columns()],
            output,
            cube,
            comptime![cube.stage_columns()],
            added,
            gated,
        );
    }
}
