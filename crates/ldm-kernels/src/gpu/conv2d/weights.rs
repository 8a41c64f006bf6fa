//! The gradient of the weights: output channels by taps and channels, summed over pixels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::super::plane_tile::{ALIGNMENT, PlaneTile};
use super::super::ptx::commit;
use super::super::walk::cubes;
use super::combine::{Parts, combine};
use super::fetch::{Fetch, arrive, bring, put, seat};
use super::geometry::{Sizes, Strides, advance, corner, count, input, output};
use super::lines::{Lines, dims, strided};
use super::plan::{CubeForm, DEPTH};
use super::tile::{multiply, write};
use super::{Added, Convolution, sizes};

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
    let plan = work.plan(&client, [outputs, columns], depth.div_ceil(DEPTH), false);
    let parts = Parts::new(&x, [outputs, height, width, channels], x.dtype, plan.splits);
    let (gradients, from) = (Lines::channels(&gradient), Lines::channels(&x));
    let cube = plan.cube;
    let form = GradientForm { cube, gradient: gradients.left(cube), x: from.right(cube) };
    // SAFETY: what is read is in the tensors' bounds and what is written in the output's, both by comparisons; cubes
    // beyond the last tile end at once.
    unsafe {
        weight_kernel::launch_unchecked(
            &client,
            cubes(&client, plan.cubes()),
            cube.dim(),
            gradients.vector,
            from.vector,
            parts.vector,
            gradient.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            x.clone().into_buffer_arg(),
            parts.sums.clone().into_buffer_arg(),
            sizes(x_dims, w_dims, y_dims, options, [1, 1]),
            gradients.strides(),
            from.strides(),
            plan.splits,
            plan.length,
            form,
            dtype_to_storage_type(x.dtype),
            dtype_to_storage_type(parts.sums.dtype),
        );
    }
    // Nothing is added to it.
    permute(combine(parts, [gradient.clone(), gradient, x], Added::default()), &[0, 3, 1, 2])
}

/// What is known when the kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GradientForm {
    /// Of a cube.
    pub cube: CubeForm,
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
    let columns = sizes.kernel_height * sizes.kernel_width * sizes.channels;
    let down = sizes.outputs.div_ceil(comptime![cube.rows()]);
    let tiles = down * columns.div_ceil(comptime![cube.columns()]);
    let split = CUBE_POS / tiles;
    // The whole cube ends, so no unit waits for another.
    if split >= splits {
        terminate!();
    }
    let first_output = CUBE_POS % tiles % down * comptime![cube.rows()];
    let first_column = CUBE_POS % tiles / down * comptime![cube.columns()];
    let steps = (sizes.batch * sizes.height * sizes.width).div_ceil(DEPTH);
    let begin = split * length;
    let end = min(begin + length, steps);
    let plane = UNIT_POS_Y as usize;
    let unit = plane * comptime![cube.tile.units] + UNIT_POS_X as usize;

    let g_fetch = comptime![form.gradient];
    let g_seat = seat(unit, g_fetch);
    let mut g_pixel = Array::<usize>::new(3usize);
    count(&mut g_pixel, 0usize, begin * DEPTH + g_seat.deep, sizes.width, sizes.height);
    let mut g_next = Array::<Vector<E, G>>::new(comptime![g_fetch.waiting()]);

    let x_fetch = comptime![form.x];
    let x_seat = seat(unit, x_fetch);
    let mut taps = Array::<usize>::new(comptime![3 * x_fetch.seats()]);
    #[unroll]
    for i in 0..comptime![x_fetch.seats()] {
        let column = first_column + x_seat.row + comptime![i * x_fetch.lines()];
        count(&mut taps, comptime![3 * i], column, sizes.channels, sizes.kernel_width);
        if column >= columns {
            // Beyond the last: a channel that there isn't.
            taps[comptime![3 * i]] = sizes.channels;
        }
    }
    let mut x_pixel = Array::<usize>::new(3usize);
    count(&mut x_pixel, 0usize, begin * DEPTH + x_seat.deep, sizes.width, sizes.height);
    let mut x_corner = Array::<usize>::new(3usize);
    let mut x_next = Array::<Vector<E, X>>::new(comptime![x_fetch.waiting()]);

    let mut left =
        Shared::<[Vector<E, G>]>::new_aligned_slice(comptime![cube.buffers * g_fetch.size()], ALIGNMENT);
    let mut right =
        Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![cube.buffers * x_fetch.size()], ALIGNMENT);
    let mut tile = PlaneTile::zero(comptime![cube.tile]);
    // Steps are on their way from memory while one before them is multiplied.
    let ahead = comptime![cube.ahead()];
    let mut step = begin;
    while step < end + ahead {
        let multiplied = (step - ahead) % comptime![cube.buffers];
        let (left_begin, right_begin) =
            (multiplied * comptime![g_fetch.size()], multiplied * comptime![x_fetch.size()]);
        if step >= begin + ahead {
            if comptime![cube.buffers == 1] {
                // The step before has been read by all.
                sync_cube();
            }
            if comptime![!cube.copies] {
                put::<E, G>(&mut left, left_begin, &g_next, &g_seat, g_fetch);
                put::<E, X>(&mut right, right_begin, &x_next, &x_seat, x_fetch);
            }
            arrive(cube);
        }
        if step < end {
            let filled = step % comptime![cube.buffers];
            let to = filled * comptime![g_fetch.size()];
            #[unroll]
            for i in 0..comptime![g_fetch.passes()] {
                let row = first_output + g_seat.row + comptime![g_fetch.row(i)];
                let channel = row / comptime![g_fetch.side()];
                let spot = output(channel, row < sizes.outputs, &g_pixel, sizes, gradients);
                bring::<E, G>(gradient, &spot, &mut left, to, &mut g_next, &g_seat, i, g_fetch);
                let further = comptime![g_fetch.ahead(i)];
                if comptime![further > 0] {
                    advance(&mut g_pixel, sizes.width, sizes.height, further);
                }
            }
            let to = filled * comptime![x_fetch.size()];
            #[unroll]
            for i in 0..comptime![x_fetch.passes()] {
                let row = comptime![if x_fetch.deep { 3 * i } else { 0 }];
                corner(&mut x_corner, 0usize, &x_pixel, sizes, from, false);
                let spot = input::<X>(&x_corner, 0usize, &taps, row, 0usize, sizes, from, false);
                bring::<E, X>(x, &spot, &mut right, to, &mut x_next, &x_seat, i, x_fetch);
                let further = comptime![x_fetch.ahead(i)];
                if comptime![further > 0] {
                    advance(&mut x_pixel, sizes.width, sizes.height, further);
                }
            }
        }
        if comptime![cube.copies] {
            commit();
        }
        if step >= begin + ahead {
            multiply::<E, G, X>(
                &mut tile,
                &left,
                &right,
                left_begin,
                right_begin,
                plane,
                cube,
                g_fetch,
                x_fetch,
            );
        }
        step += 1usize;
    }
    write::<E, O, Y>(
        &tile,
        y,
        unused,
        unused,
        unused,
        split,
        first_output,
        first_column,
        sizes.outputs,
        columns,
        1usize,
        cube,
        comptime![Added::default()],
    );
}
