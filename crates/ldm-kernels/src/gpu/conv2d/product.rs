//! The product: pixels by output channels, summed over taps and channels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{ALIGNMENT, PlaneTile, SIDE, TileForm};
use super::fetch::{Fetch, Sizes, Strides, advance, depth, pixel, pixels, weight};
use super::plan::{BLOCKS, DEPTH, PLANES, STAGE, STAGE_STRIDE, TILE};

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
    let down = (sizes.pixels + comptime![TILE - 1]) / TILE;
    let tiles = down * ((sizes.outputs + comptime![TILE - 1]) / TILE);
    let split = CUBE_POS / tiles;
    // The whole cube ends, so no unit waits for another.
    if split >= splits {
        terminate!();
    }
    // Cubes that run at the same time read the same weights.
    let first_pixel = CUBE_POS % tiles % down * TILE;
    let first_output = CUBE_POS % tiles / down * TILE;
    let elements = sizes.kernel_height * sizes.kernel_width * sizes.channels;
    let steps = (elements + comptime![DEPTH - 1]) / DEPTH;
    let begin = split * length;
    let end = min(begin + length, steps);

    let plane = UNIT_POS_Y as usize;
    let unit = plane * form.tile.units + UNIT_POS_X as usize;

    let (x_fetch, x_passes) = comptime![(form.x, form.x.passes())];
    let x_line = unit / comptime![x_fetch.across()];
    let x_vector = unit % comptime![x_fetch.across()];
    let x_along = x_vector * comptime![x_fetch.vector];
    let (x_row, x_deep) = if comptime![x_fetch.deep] { (x_line, x_along) } else { (x_along, x_line) };
    let x_slot = x_line * comptime![x_fetch.stride() / x_fetch.vector] + x_vector;
    let rows = pixels(first_pixel + x_row, sizes, from, x_fetch);
    let mut x_place = depth(begin * DEPTH + x_deep, sizes);
    let mut x_next = Array::<Vector<E, X>>::new(x_passes);

    let (w_fetch, w_passes) = comptime![(form.weight, form.weight.passes())];
    let w_line = unit / comptime![w_fetch.across()];
    let w_vector = unit % comptime![w_fetch.across()];
    let w_along = w_vector * comptime![w_fetch.vector];
    let (w_row, w_deep) = if comptime![w_fetch.deep] { (w_line, w_along) } else { (w_along, w_line) };
    let w_slot = w_line * comptime![w_fetch.stride() / w_fetch.vector] + w_vector;
    let mut w_place = depth(begin * DEPTH + w_deep, sizes);
    let mut w_next = Array::<Vector<E, W>>::new(w_passes);

    let mut left = Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![x_fetch.size()], ALIGNMENT);
    let mut right = Shared::<[Vector<E, W>]>::new_aligned_slice(comptime![w_fetch.size()], ALIGNMENT);
    let (left_row, left_deep) = comptime![x_fetch.steps()];
    let (right_row, right_deep) = comptime![w_fetch.steps()];
    let quarter_row = plane / 2usize * comptime![BLOCKS * SIDE];
    let quarter_column = plane % 2usize * comptime![BLOCKS * SIDE];
    let left_start = quarter_row * left_row;
    let right_start = quarter_column * right_row;

    let mut tile = PlaneTile::zero(comptime![form.tile]);
    // A step is on its way from memory while the one before it is multiplied.
    let mut step = begin;
    while step <= end {
        if step > begin {
            // The step before has been read by all.
            sync_cube();
            #[unroll]
            for i in 0..x_passes {
                left[x_slot + comptime![x_fetch.pass(i)]] = x_next[i];
            }
            #[unroll]
            for i in 0..w_passes {
                right[w_slot + comptime![w_fetch.pass(i)]] = w_next[i];
            }
            sync_cube();
        }
        if step < end {
            #[unroll]
            for i in 0..x_passes {
                let row = comptime![if x_fetch.deep { 3 * i } else { 0 }];
                x_next[i] = pixel::<E, X>(
                    x,
                    rows[row],
                    rows[comptime![row + 1]],
                    rows[comptime![row + 2]],
                    &x_place,
                    sizes,
                    from,
                );
                let ahead = comptime![x_fetch.ahead(i)];
                if comptime![ahead > 0] {
                    advance(&mut x_place, sizes, ahead);
                }
            }
            #[unroll]
            for i in 0..w_passes {
                let row = comptime![if w_fetch.deep { i * w_fetch.lines() } else { 0 }];
                let output = first_output + w_row + row;
                let outer = output / comptime![if w_fetch.deep { 1 } else { w_fetch.vector }];
                w_next[i] = weight::<E, W>(
                    weights,
                    outer,
                    output < sizes.outputs,
                    &w_place,
                    sizes,
                    taps,
                    comptime![w_fetch.deep],
                    comptime![form.mirrored],
                );
                let ahead = comptime![w_fetch.ahead(i)];
                if comptime![ahead > 0] {
                    advance(&mut w_place, sizes, ahead);
                }
            }
        }
        if step > begin {
            #[unroll]
            for k in 0..comptime![DEPTH / SIDE] {
                let left_at = (left_start + comptime![k * SIDE * left_deep]) / X::value();
                let right_at = (right_start + comptime![k * SIDE * right_deep]) / W::value();
                tile.multiply_add::<E, X, W>(
                    &left[left_at..left.len()],
                    comptime![x_fetch.stride()],
                    comptime![x_fetch.left()],
                    &right[right_at..right.len()],
                    comptime![w_fetch.stride()],
                    comptime![w_fetch.right()],
                );
            }
        }
        step += 1usize;
    }

    let mut stage = Shared::<[f32]>::new_aligned_slice(comptime![PLANES * STAGE], ALIGNMENT);
    let stage_start = plane * STAGE;
    let n = Y::value();
    let across = comptime![BLOCKS * SIDE / n];
    #[unroll]
    for block in 0..BLOCKS {
        if comptime![block > 0] {
            sync_cube();
        }
        tile.store_row(&mut stage[stage_start..comptime![PLANES * STAGE]], STAGE_STRIDE, block);
        sync_cube();
        let mut i = UNIT_POS_X as usize;
        while i < comptime![SIDE * across] {
            let row = i / across;
            let column = i % across * n;
            let pixel = first_pixel + quarter_row + comptime![block * SIDE] + row;
            let output = first_output + quarter_column + column;
            if pixel < sizes.pixels && output < sizes.outputs {
                let at = ((split * sizes.pixels + pixel) * sizes.outputs + output) / n;
                let mut v = Vector::<f32, Y>::new(0.0f32);
                #[unroll]
                for k in 0..n {
                    let mut sum = stage[stage_start + row * STAGE_STRIDE + column + k];
                    if comptime![form.bias] {
                        sum += f32::cast_from(bias[output + k]);
                    }
                    v.insert(k, sum);
                }
                if comptime![form.addend] {
                    v += Vector::<f32, Y>::cast_from(addend[at]);
                }
                y[at] = Vector::<O, Y>::cast_from(v);
            }
            i += form.tile.units;
        }
    }
}
