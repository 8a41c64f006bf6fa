//! The product: pixels by output channels, summed over channels and taps.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{ALIGNMENT, PlaneTile};
use super::super::ptx::commit;
use super::Added;
use super::fetch::{Fetch, arrive};
use super::geometry::{Sizes, Strides};
use super::plan::CubeForm;
use super::supply::{Supply, part};
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
    /// How many matrices the output's columns are shared out among, one after the other in memory.
    pub matrices: usize,
    /// Whether the output is GEGLU of the product.
    pub gated: bool,
}

/// A tile of the output a cube, or of one split's part of it: `[splits, pixels, outputs]`.
#[cube(launch_unchecked)]
pub fn product_kernel<E: Float, P: Numeric, O: Float, X: Size, W: Size, Y: Size>(
    x: &[Vector<P, X>],
    weights: &[Vector<P, W>],
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
    #[define(P)] _moved: ElemType,
    #[define(O)] _outputs: ElemType,
) {
    let cube = comptime![form.cube];
    let part = part(sizes, length, cube);
    // The whole cube ends, so no unit waits for another.
    if part.split >= splits {
        terminate!();
    }
    let (x_fetch, w_fetch) = comptime![(form.x, form.weight)];
    let mut supply = Supply::<P, X, W>::new(&part, sizes, from, form);
    let mut left =
        Shared::<[Vector<P, X>]>::new_aligned_slice(comptime![cube.buffers * x_fetch.size()], ALIGNMENT);
    let mut right =
        Shared::<[Vector<P, W>]>::new_aligned_slice(comptime![cube.buffers * w_fetch.size()], ALIGNMENT);
    let mut tile = PlaneTile::zero(comptime![cube.tile]);
    // Steps are on their way from memory while one before them is multiplied.
    if comptime![cube.copies] {
        let ahead = comptime![cube.ahead()];
        let mut step = part.begin;
        while step < part.end + ahead {
            if step >= part.begin + ahead {
                arrive(cube);
            }
            if step < part.end {
                let buffer = step % comptime![cube.buffers];
                supply.ask(x, weights, &mut left, &mut right, buffer, sizes, from, taps);
            }
            commit();
            if step >= part.begin + ahead {
                let buffer = (step - ahead) % comptime![cube.buffers];
                multiply::<E, P, X, W>(
                    &mut tile,
                    &left,
                    &right,
                    buffer * comptime![x_fetch.size()],
                    buffer * comptime![w_fetch.size()],
                    UNIT_POS_Y as usize,
                    cube,
                    x_fetch,
                    w_fetch,
                );
            }
            step += 1usize;
        }
    } else {
        supply.ask(x, weights, &mut left, &mut right, 0usize, sizes, from, taps);
        let mut step = part.begin;
        while step < part.end {
            let buffer = step % comptime![cube.buffers];
            if comptime![cube.buffers == 1] {
                // The step before has been read by all.
                sync_cube();
            }
            supply.put(&mut left, &mut right, buffer);
            arrive(cube);
            // What follows the last step too, which is not there or another split's: behind a branch compilers may wait for
            // what was asked for where its ways join.
            supply.ask(x, weights, &mut left, &mut right, 0usize, sizes, from, taps);
            multiply::<E, P, X, W>(
                &mut tile,
                &left,
                &right,
                buffer * comptime![x_fetch.size()],
                buffer * comptime![w_fetch.size()],
                UNIT_POS_Y as usize,
                cube,
                x_fetch,
                w_fetch,
            );
            step += 1usize;
        }
    }
    write::<E, O, Y>(
        &tile,
        y,
        bias,
        shift,
        addend,
        part.split,
        part.row,
        part.column,
        sizes.batch * sizes.height * sizes.width,
        sizes.outputs,
        sizes.height * sizes.width,
        cube,
        comptime![form.added],
        comptime![form.matrices],
        comptime![form.gated],
    );
}
