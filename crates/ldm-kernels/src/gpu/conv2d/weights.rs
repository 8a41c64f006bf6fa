//! The gradient of the weights: output channels by taps and channels, summed over pixels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::permute;
use burn_cubecl::tensor::CubeTensor;

use super::super::fours::Four;
use super::super::plane_tile::{ALIGNMENT, PlaneTile};
use super::super::ptx::commit;
use super::super::walk::cubes;
use super::combine::{Parts, combine};
use super::fetch::arrive;
use super::geometry::{Sizes, SizesLaunch, Strides, StridesLaunch};
use super::gradient_supply::{GradientForm, GradientSupply, gradient_output, gradient_part};
use super::group::group_gradient_kernel;
use super::lines::{Lines, dims, strided};
use super::plan::{Depth, OUT};
use super::tile::{multiply, stage, write};
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
    let (gradients, from) = (Lines::channels(&gradient), Lines::channels(&x));
    let plan = work.plan(&client, [outputs, columns], Depth { taps: 1, channels: depth }, |form| {
        // A deep step's operands are packed.
        form.deep.is_none()
            && gradients.suits(form, gradients.left(form))
            && from.suits(form, from.right(form))
    });
    let parts = Parts::new(&x, [outputs, height, width, channels], x.dtype, plan.splits);
    let cube = plan.cube;
    let form = GradientForm { cube, gradient: gradients.left(cube), x: from.right(cube) };
    let sizes = SizesLaunch::of(sizes(x_dims, w_dims, y_dims, options, [1, 1]));
    let (count, dim) = (cubes(&client, plan.cubes()), cube.dim());
    let [inputs, results] = [x.dtype, parts.sums.dtype].map(dtype_to_storage_type);
    let arguments = [&gradient, &x, &x, &parts.sums].map(|x| x.clone().into_buffer_arg());
    let [a, b, unused, y] = arguments;
    // SAFETY: what is read is in the tensors' bounds and what is written in the output's, both by comparisons; cubes
    // beyond the last tile end at once.
    unsafe {
        if cube.group {
            group_gradient_kernel::launch_unchecked(
                &client,
                count,
                dim,
                gradients.vector,
                from.vector,
                parts.vector,
                cube.sums(),
                a,
                b,
                unused,
                y,
                sizes,
                StridesLaunch::of(gradients.strides()),
                StridesLaunch::of(from.strides()),
                plan.splits,
                plan.length,
                form,
                inputs,
                results,
            );
        } else {
            weight_kernel::launch_unchecked(
                &client,
                count,
                dim,
                gradients.vector,
                from.vector,
                parts.vector,
                a,
                b,
                unused,
                y,
                sizes,
                StridesLaunch::of(gradients.strides()),
                StridesLaunch::of(from.strides()),
                plan.splits,
                plan.length,
                form,
                inputs,
                results,
            );
        }
    }
    // Nothing is added to it.
    permute(combine(parts, [gradient.clone(), gradient, x], Added::default()), &[0, 3, 1, 2])
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
    let part = gradient_part(sizes, length, cube);
    // The whole cube ends, so no unit waits for another.
    if part.split >= splits {
        terminate!();
    }
    let (g_fetch, x_fetch) = comptime![(form.gradient, form.x)];
    let mut supply = GradientSupply::<E, G, X>::new(&part, sizes, form);
    let mut left =
        Shared::<[Vector<E, G>]>::new_aligned_slice(comptime![cube.buffers * g_fetch.size()], ALIGNMENT);
    let mut right =
        Shared::<[Vector<E, X>]>::new_aligned_slice(comptime![cube.buffers * x_fetch.size()], ALIGNMENT);
    let mut tile = PlaneTile::zero(comptime![cube.tile]);
    // Steps are on their way from memory while one before them is multiplied.
    let ahead = comptime![cube.ahead()];
    let mut step = part.begin;
    while step < part.end + ahead {
        let multiplied = (step - ahead) % comptime![cube.buffers];
        if step >= part.begin + ahead {
            if comptime![cube.buffers == 1] {
                // The step before has been read by all.
                sync_cube();
            }
            if comptime![!cube.copies] {
                supply.put(&mut left, &mut right, multiplied);
            }
            arrive(cube);
        }
        if step < part.end {
            let buffer = step % comptime![cube.buffers];
            supply.ask(gradient, x, &mut left, &mut right, buffer, sizes, gradients, from);
        }
        if comptime![cube.copies] {
            commit();
        }
        if step >= part.begin + ahead {
            multiply::<E, E, G, X>(
                &mut tile,
                &left,
                &right,
                multiplied * comptime![g_fetch.size()],
                multiplied * comptime![x_fetch.size()],
                UNIT_POS_Y as usize,
                cube,
                g_fetch,
                x_fetch,
            );
        }
        step += 1usize;
    }
    write::<E, E, O, Y, f32, Four>(
        &tile,
        &mut stage(cube),
        y,
        unused,
        unused,
        unused,
        part.split,
        part.row,
        part.column,
        &gradient_output(sizes),
        cube,
        comptime![Added::default()],
        false,
        OUT,
    );
}
