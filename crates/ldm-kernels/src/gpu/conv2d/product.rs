//! The product: pixels by output channels, summed over taps and channels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{ALIGNMENT, PlaneTile, TileForm};
use super::fetch::{Fetch, put, seat};
use super::geometry::{Sizes, Strides, advance, corner, count, input, weight};
use super::plan::{DEPTH, TILE};
use super::tile::{multiply, write};

/// What is known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Of a plane.
    pub tile: TileForm,
    /// Of the input.
    pub x: Fetch,
    /// Of the weights.
    pub weight: Fetch,
    /// Whether the weights' taps are taken from the last to the first.
    pub mirrored: bool,
    /// Whether zeros lie between the input's rows or columns.
    pub spread: bool,
    /// Whether a bias is added.
    pub bias: bool,
    /// Whether an addend is.
    pub addend: bool,
}

/// A tile of the output a cube, or of one split's part of it: `[splits, pixels, outputs]`.
#[cube(launch_unchecked)]
pub fn product_kernel<E: Float, O: Float, X: Size, W: Size, Y: Size>(
    x: &[Vector<E, X>],
    weights: &[Vector<E, W>],
    bias: &[E],
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
    let pixels = sizes.batch * sizes.height * sizes.width;
    let down = pixels.div_ceil(TILE);
    let tiles = down * sizes.outputs.div_ceil(TILE);
    let split = CUBE_POS / tiles;
    // The whole cube ends, so no unit waits for another.
    if split >= splits {
        terminate!();
    }
    // Cubes that run at the same time read the same weights.
    let first_pixel = CUBE_POS % tiles % down * TILE;
    let first_output = CUBE_POS % tiles / down * TILE;
    let steps = (sizes.kernel_height * sizes.kernel_width * sizes.channels).div_ceil(DEPTH);
    let begin = split * length;
    let end = min(begin + length, steps);
    let plane = UNIT_POS_Y as usize;
    let unit = plane * form.tile.units + UNIT_POS_X as usize;

    let x_fetch = comptime![form.x];
    let x_seat = seat(unit, x_fetch);
    let mut corners = Array::<usize>::new(comptime![3 * x_fetch.rows()]);
    #[unroll]
    for i in 0..comptime![x_fetch.rows()] {
        let mut pixel = Array::<usize>::new(3usize);
        let row = first_pixel + x_seat.row + comptime![i * x_fetch.lines()];
        count(&mut pixel, 0usize, row, sizes.width, sizes.height);
        corner(&mut corners, comptime![3 * i], &pixel, sizes, from);
    }
    let mut x_tap = Array::<usize>::new(3usize);
    count(&mut x_tap, 0usize, begin * DEPTH + x_seat.deep, sizes.channels, sizes.kernel_width);
    let mut x_next = Array::<Vector<E, X>>::new(comptime![x_fetch.passes()]);

    let w_fetch = comptime![form.weight];
    let w_seat = seat(unit, w_fetch);
    let mut w_tap = Array::<usize>::new(3usize);
    count(&mut w_tap, 0usize, begin * DEPTH + w_seat.deep, sizes.channels, sizes.kernel_width);
    let mut w_next = Array::<Vector<E, W>>::new(comptime![w_fetch.passes()]);

    let mut left = Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![x_fetch.size()], ALIGNMENT);
    let mut right = Shared::<[Vector<E, W>]>::new_aligned_slice(comptime![w_fetch.size()], ALIGNMENT);
    let mut tile = PlaneTile::zero(comptime![form.tile]);
    // A step is on its way from memory while the one before it is multiplied.
    let mut step = begin;
    while step <= end {
        if step > begin {
            // The step before has been read by all.
            sync_cube();
            put::<E, X>(&mut left, &x_next, &x_seat, x_fetch);
            put::<E, W>(&mut right, &w_next, &w_seat, w_fetch);
            sync_cube();
        }
        if step < end {
            #[unroll]
            for i in 0..comptime![x_fetch.passes()] {
                let row = comptime![if x_fetch.deep { 3 * i } else { 0 }];
                x_next[i] =
                    input::<E, X>(x, &corners, row, &x_tap, 0usize, sizes, from, comptime![form.spread]);
                let ahead = comptime![x_fetch.ahead(i)];
                if comptime![ahead > 0] {
                    advance(&mut x_tap, sizes.channels, sizes.kernel_width, ahead);
                }
            }
            #[unroll]
            for i in 0..comptime![w_fetch.passes()] {
                let output = first_output + w_seat.row + comptime![w_fetch.row(i)];
                let outer = output / comptime![w_fetch.side()];
                w_next[i] = weight::<E, W>(
                    weights,
                    outer,
                    output < sizes.outputs,
                    &w_tap,
                    sizes,
                    taps,
                    comptime![w_fetch.deep],
                    comptime![form.mirrored],
                );
                let ahead = comptime![w_fetch.ahead(i)];
                if comptime![ahead > 0] {
                    advance(&mut w_tap, sizes.channels, sizes.kernel_width, ahead);
                }
            }
        }
        if step > begin {
            multiply::<E, X, W>(&mut tile, &left, &right, plane, x_fetch, w_fetch);
        }
        step += 1usize;
    }
    write::<E, O, Y>(
        &tile,
        y,
        bias,
        addend,
        split,
        first_pixel,
        first_output,
        pixels,
        sizes.outputs,
        comptime![form.tile],
        comptime![form.bias],
        comptime![form.addend],
    );
}
