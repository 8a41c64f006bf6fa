//! The gradient of the weights: output channels by taps and channels, summed over pixels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::super::plane_tile::{ALIGNMENT, PlaneTile, TileForm};
use super::super::walk::cubes;
use super::combine::{Parts, combine};
use super::fetch::{Fetch, put, seat};
use super::geometry::{Sizes, Strides, advance, corner, count, input, output};
use super::lines::{Lines, dims, strided};
use super::plan::{DEPTH, PLANES, Splits, TILE};
use super::tile::{multiply, write};
use super::{Convolution, sizes};

/// The gradient of weights of this shape, `[c_out, c_in, kh, kw]`, physically `[c_out, kh, kw, c_in]`. `x` is the
/// input and `gradient` the output's.
pub fn weight_gradient(
    x: CubeTensor,
    weight: &Shape,
    gradient: CubeTensor,
    convolution: Convolution,
) -> CubeTensor {
    let Convolution { options, work, .. } = convolution;
    let (x, gradient) = (strided(x), strided(gradient));
    let (x_dims, w_dims, y_dims) = (dims(&x), weight.dims(), dims(&gradient));
    let [outputs, channels, height, width] = w_dims;

    let client = x.client.clone();
    let columns = height * width * channels;
    let depth = y_dims[0] * y_dims[2] * y_dims[3];
    let splits = Splits::new(&client, [outputs, columns], depth, work.splits);
    let parts = Parts::new(&x, [outputs, height, width, channels], splits.count);
    let units = work.tile.units * PLANES;
    let (gradients, from) = (Lines::channels(&gradient, units), Lines::channels(&x, units));
    let form = GradientForm { tile: work.tile, gradient: gradients.fetch, x: from.fetch };
    // SAFETY: what is read is in the tensors' bounds and what is written in the output's, both by comparisons; cubes
    // beyond the last tile end at once.
    unsafe {
        weight_kernel::launch_unchecked(
            &client,
            cubes(&client, splits.cubes()),
            CubeDim::new_2d(work.tile.units as u32, PLANES as u32),
            gradients.fetch.vector,
            from.fetch.vector,
            parts.vector,
            gradient.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            parts.sums.clone().into_buffer_arg(),
            sizes(x_dims, w_dims, y_dims, options, [1, 1]),
            gradients.strides(),
            from.strides(),
            splits.count,
            splits.length,
            form,
            dtype_to_storage_type(x.dtype),
            dtype_to_storage_type(parts.sums.dtype),
        );
    }
    // Nothing is added to it.
    permute(combine(parts, gradient, x, false, false), &[0, 3, 1, 2])
}

/// What is known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GradientForm {
    /// Of a plane.
    pub tile: TileForm,
    /// Of the output's gradient.
    pub gradient: Fetch,
    /// Of the input.
    pub x: Fetch,
}

/// A tile of the gradient a cube, or of one split's part of it: `[splits, outputs, taps and channels]`.
#[cube(launch_unchecked)]
pub fn weight_kernel<E: Float, O: Float, G: Size, X: Size, Y: Size>(
    gradient: &[Vector<E, G>],
    x: &[Vector<E, X>],
    unused_bias: &[E],
    unused_addend: &[Vector<E, Y>],
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
    let columns = sizes.kernel_height * sizes.kernel_width * sizes.channels;
    let down = sizes.outputs.div_ceil(TILE);
    let tiles = down * columns.div_ceil(TILE);
    let split = CUBE_POS / tiles;
    // The whole cube ends, so no unit waits for another.
    if split >= splits {
        terminate!();
    }
    let first_output = CUBE_POS % tiles % down * TILE;
    let first_column = CUBE_POS % tiles / down * TILE;
    let steps = (sizes.batch * sizes.height * sizes.width).div_ceil(DEPTH);
    let begin = split * length;
    let end = min(begin + length, steps);
    let plane = UNIT_POS_Y as usize;
    let unit = plane * form.tile.units + UNIT_POS_X as usize;

    let g_fetch = comptime![form.gradient];
    let g_seat = seat(unit, g_fetch);
    let mut g_pixel = Array::<usize>::new(3usize);
    count(&mut g_pixel, 0usize, begin * DEPTH + g_seat.deep, sizes.width, sizes.height);
    let mut g_next = Array::<Vector<E, G>>::new(comptime![g_fetch.passes()]);

    let x_fetch = comptime![form.x];
    let x_seat = seat(unit, x_fetch);
    let mut taps = Array::<usize>::new(comptime![3 * x_fetch.rows()]);
    #[unroll]
    for i in 0..comptime![x_fetch.rows()] {
        let column = first_column + x_seat.row + comptime![i * x_fetch.lines()];
        count(&mut taps, comptime![3 * i], column, sizes.channels, sizes.kernel_width);
    }
    let mut x_pixel = Array::<usize>::new(3usize);
    count(&mut x_pixel, 0usize, begin * DEPTH + x_seat.deep, sizes.width, sizes.height);
    let mut x_corner = Array::<usize>::new(3usize);
    let mut x_next = Array::<Vector<E, X>>::new(comptime![x_fetch.passes()]);

    let mut left = Shared::<[Vector<E, G>]>::new_aligned_slice(comptime![g_fetch.size()], ALIGNMENT);
    let mut right = Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![x_fetch.size()], ALIGNMENT);
    let mut tile = PlaneTile::zero(comptime![form.tile]);
    // A step is on its way from memory while the one before it is multiplied.
    let mut step = begin;
    while step <= end {
        if step > begin {
            // The step before has been read by all.
            sync_cube();
            put::<E, G>(&mut left, &g_next, &g_seat, g_fetch);
            put::<E, X>(&mut right, &x_next, &x_seat, x_fetch);
            sync_cube();
        }
        if step < end {
            #[unroll]
            for i in 0..comptime![g_fetch.passes()] {
                let row = first_output + g_seat.row + comptime![g_fetch.row(i)];
                let channel = row / comptime![g_fetch.side()];
                g_next[i] =
                    output::<E, G>(gradient, channel, row < sizes.outputs, &g_pixel, sizes, gradients);
                let ahead = comptime![g_fetch.ahead(i)];
                if comptime![ahead > 0] {
                    advance(&mut g_pixel, sizes.width, sizes.height, ahead);
                }
            }
            #[unroll]
            for i in 0..comptime![x_fetch.passes()] {
                let row = comptime![if x_fetch.deep { 3 * i } else { 0 }];
                corner(&mut x_corner, 0usize, &x_pixel, sizes, from);
                x_next[i] = input::<E, X>(x, &x_corner, 0usize, &taps, row, sizes, from, false);
                let ahead = comptime![x_fetch.ahead(i)];
                if comptime![ahead > 0] {
                    advance(&mut x_pixel, sizes.width, sizes.height, ahead);
                }
            }
        }
        if step > begin {
            multiply::<E, G, X>(&mut tile, &left, &right, plane, g_fetch, x_fetch);
        }
        step += 1usize;
    }
    write::<E, O, Y>(
        &tile,
        y,
        unused_bias,
        unused_addend,
        split,
        first_output,
        first_column,
        sizes.outputs,
        columns,
        comptime![form.tile],
        false,
        false,
    );
}
