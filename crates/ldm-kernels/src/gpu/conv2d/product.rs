//! The product: pixels by output channels, summed over channels and taps.
//!
//! A step is one tap of 32 channels. The taps of the same channels follow each other: what they read overlaps, and the
//! second to the last find most of it in the nearest cache.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{ALIGNMENT, PlaneTile};
use super::super::ptx::commit;
use super::Added;
use super::fetch::{Fetch, arrive, bring, put, seat};
use super::geometry::{Sizes, Strides, corner, count, input, next_tap, weight};
use super::plan::{CubeForm, DEPTH};
use super::tile::{multiply, write};

/// What is known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Of a cube.
    pub cube: CubeForm,
    /// Of the input.
    pub x: Fetch,
    /// Of the weights.
    pub weight: Fetch,
    /// Whether the weights' taps are taken from the last to the first.
    pub mirrored: bool,
    /// Whether zeros lie between the input's rows or columns.
    pub spread: bool,
    /// What is added.
    pub added: Added,
}

/// A tile of the output a cube, or of one split's part of it: `[splits, pixels, outputs]`.
#[cube(launch_unchecked)]
pub fn product_kernel<E: Float, O: Float, X: Size, W: Size, Y: Size>(
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
    let pixels = sizes.batch * sizes.height * sizes.width;
    let down = pixels.div_ceil(comptime![cube.rows()]);
    let tiles = down * sizes.outputs.div_ceil(comptime![cube.columns()]);
    let split = CUBE_POS / tiles;
    // The whole cube ends, so no unit waits for another.
    if split >= splits {
        terminate!();
    }
    // Cubes that run at the same time read the same weights.
    let first_pixel = CUBE_POS % tiles % down * comptime![cube.rows()];
    let first_output = CUBE_POS % tiles / down * comptime![cube.columns()];
    let all_taps = sizes.kernel_height * sizes.kernel_width;
    let steps = all_taps * sizes.channels.div_ceil(DEPTH);
    let begin = split * length;
    let end = min(begin + length, steps);
    let plane = UNIT_POS_Y as usize;
    let unit = plane * comptime![cube.tile.units] + UNIT_POS_X as usize;

    let mut tap = Array::<usize>::new(3usize);
    tap[0] = begin / all_taps * DEPTH;
    tap[1] = begin % all_taps % sizes.kernel_width;
    tap[2] = begin % all_taps / sizes.kernel_width;

    let x_fetch = comptime![form.x];
    let x_seat = seat(unit, x_fetch);
    let mut corners = Array::<usize>::new(comptime![3 * x_fetch.seats()]);
    #[unroll]
    for i in 0..comptime![x_fetch.seats()] {
        let mut pixel = Array::<usize>::new(3usize);
        let row = first_pixel + x_seat.row + comptime![i * x_fetch.lines()];
        count(&mut pixel, 0usize, row, sizes.width, sizes.height);
        corner(&mut corners, comptime![3 * i], &pixel, sizes, from, comptime![form.spread]);
    }
    let mut x_next = Array::<Vector<E, X>>::new(comptime![x_fetch.waiting()]);

    let w_fetch = comptime![form.weight];
    let w_seat = seat(unit, w_fetch);
    let mut w_next = Array::<Vector<E, W>>::new(comptime![w_fetch.waiting()]);

    let mut left =
        Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![cube.buffers * x_fetch.size()], ALIGNMENT);
    let mut right =
        Shared::<[Vector<E, W>]>::new_aligned_slice(comptime![cube.buffers * w_fetch.size()], ALIGNMENT);
    let mut tile = PlaneTile::zero(comptime![cube.tile]);
    // Steps are on their way from memory while one before them is multiplied.
    let ahead = comptime![cube.ahead()];
    let mut step = begin;
    while step < end + ahead {
        let multiplied = (step - ahead) % comptime![cube.buffers];
        let (left_begin, right_begin) =
            (multiplied * comptime![x_fetch.size()], multiplied * comptime![w_fetch.size()]);
        if step >= begin + ahead {
            if comptime![cube.buffers == 1] {
                // The step before has been read by all.
                sync_cube();
            }
            if comptime![!cube.copies] {
                put::<E, X>(&mut left, left_begin, &x_next, &x_seat, x_fetch);
                put::<E, W>(&mut right, right_begin, &w_next, &w_seat, w_fetch);
            }
            arrive(cube);
        }
        if step < end {
            let filled = step % comptime![cube.buffers];
            let to = filled * comptime![x_fetch.size()];
            #[unroll]
            for i in 0..comptime![x_fetch.passes()] {
                let row = comptime![if x_fetch.deep { 3 * i } else { 0 }];
                let further = x_seat.deep + comptime![x_fetch.deeper(i)];
                let spot =
                    input::<X>(&corners, row, &tap, 0usize, further, sizes, from, comptime![form.spread]);
                bring::<E, X>(x, &spot, &mut left, to, &mut x_next, &x_seat, i, x_fetch);
            }
            let to = filled * comptime![w_fetch.size()];
            #[unroll]
            for i in 0..comptime![w_fetch.passes()] {
                let output = first_output + w_seat.row + comptime![w_fetch.row(i)];
                let spot = weight::<W>(
                    output / comptime![w_fetch.side()],
                    output < sizes.outputs,
                    &tap,
                    w_seat.deep + comptime![w_fetch.deeper(i)],
                    sizes,
                    taps,
                    comptime![w_fetch.deep],
                    comptime![form.mirrored],
                );
                bring::<E, W>(weights, &spot, &mut right, to, &mut w_next, &w_seat, i, w_fetch);
            }
            next_tap(&mut tap, sizes, DEPTH);
        }
        if comptime![cube.copies] {
            commit();
        }
        if step >= begin + ahead {
            multiply::<E, X, W>(
                &mut tile,
                &left,
                &right,
                left_begin,
                right_begin,
                plane,
                cube,
                x_fetch,
                w_fetch,
            );
        }
        step += 1usize;
    }
    write::<E, O, Y>(
        &tile,
        y,
        bias,
        shift,
        addend,
        split,
        first_pixel,
        first_output,
        pixels,
        sizes.outputs,
        sizes.height * sizes.width,
        cube,
        comptime![form.added],
    );
}
