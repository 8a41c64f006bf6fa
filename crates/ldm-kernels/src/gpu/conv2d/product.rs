//! The product: pixels by output channels, summed over channels and taps.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::fours::Four;
use super::super::known::or_known;
use super::super::plane_tile::{ALIGNMENT, Columns, Output, Place, PlaneTile, SIDE};
use super::super::ptx::commit;
use super::super::spirv::keep_loops;
use super::super::waiting::Missing;
use super::Added;
use super::fetch::{Fetch, arrive};
use super::geometry::{Known, Sizes, Strides};
use super::plan::{CubeForm, OUT};
use super::supply::{Part, Supply, part};
use super::tile::{multiply, part_column, part_row, stage, write};

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
    /// What the output's columns are.
    pub columns: Columns,
    /// Whether the output is GEGLU of the product.
    pub gated: bool,
    /// What becomes of vectors of the input, and of the weights, that aren't there.
    pub missing: [Missing; 2],
    /// Whether all pixels lie in one row, of which each is its own tap.
    pub flat: bool,
    /// Sizes, strides, splits and their length. A kernel that knows them reads none, one after the other, before the first operands,
    /// and computes little; `None` where there would be too many kernels of them.
    pub known: Option<(Known, [usize; 2])>,
    /// Whether tiles end where the output does.
    pub inside: bool,
    /// How the sums leave.
    pub way_out: WayOut,
    /// By matrices, elements of the output and of the addend in one number of their memory.
    pub packed: [usize; 2],
}

/// Which way sums go to memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WayOut {
    /// By way of shared memory of their own.
    Stage,
    /// Where operands lay.
    Operands,
    /// By matrices, which begin with what is added.
    Matrices,
}

/// A tile of the output a cube, or of one split's part of it: `[splits, pixels, outputs]`.
#[cube(launch_unchecked)]
pub fn product_kernel<E: Float, P: Numeric, O: Float, M: Numeric, A: Numeric, X: Size, W: Size, Y: Size>(
    x: &[Vector<P, X>],
    weights: &[Vector<P, W>],
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<A, Y>],
    y: &mut [Vector<M, Y>],
    sizes: &Sizes,
    from: &Strides,
    taps: &Strides,
    splits: usize,
    length: usize,
    #[comptime] form: Form,
    #[define(E)] _inputs: ElemType,
    #[define(P)] _moved: ElemType,
    #[define(O)] _outputs: ElemType,
    #[define(M)] _written: ElemType,
    #[define(A)] _added: ElemType,
) {
    let cube = comptime![form.cube];
    let known = comptime![form.known];
    let sizes = sizes.or_known(comptime![known.map(|(known, _)| known.sizes)]);
    let from = from.or_known(comptime![known.map(|(known, _)| known.from)]);
    let taps = taps.or_known(comptime![known.map(|(known, _)| known.taps)]);
    let (sizes, from, taps) = (&sizes, &from, &taps);
    let splits = or_known(splits, comptime![known.map(|(_, parts)| parts[0])]);
    let part = part(sizes, or_known(length, comptime![known.map(|(_, parts)| parts[1])]), cube);
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
    if comptime![!cube.copies] {
        supply.aim(sizes, from, taps);
        supply.fetch(x, weights);
    }
    // What is added is on its way behind the first operands.
    let mut tile = begun::<E, A, Y>(bias, shift, addend, &part, sizes, form);
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
        supply.note();
        supply.aim(sizes, from, taps);
        let mut step = part.begin;
        while step < part.end {
            let buffer = step % comptime![cube.buffers];
            if comptime![cube.buffers == 1] {
                // The step before has been read by all.
                sync_cube();
            }
            supply.put(&mut left, &mut right, buffer);
            arrive(cube);
            // Without the branch NVIDIA's Vulkan compiler asks later, between the products.
            if step + 1 < part.end {
                supply.fetch(x, weights);
            }
            supply.note();
            supply.aim(sizes, from, taps);
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
        if comptime![x_fetch.packed > 1] {
            keep_loops();
        }
    }
    let output = output(sizes, comptime![form.columns]);
    match comptime![form.way_out] {
        WayOut::Stage => write::<E, A, M, Y, f32, Four>(
            &tile,
            &mut stage(cube),
            y,
            bias,
            shift,
            addend,
            part.split,
            part.row,
            part.column,
            &output,
            cube,
            comptime![form.added],
            comptime![form.gated],
            OUT,
        ),
        WayOut::Operands => {
            // The last step has been read by all.
            sync_cube();
            write::<E, A, M, Y, P, W>(
                &tile,
                &mut right,
                y,
                bias,
                shift,
                addend,
                part.split,
                part.row,
                part.column,
                &output,
                cube,
                comptime![form.added],
                comptime![form.gated],
                comptime![cube.blocks_out(w_fetch.size() * w_fetch.vector)],
            );
        }
        WayOut::Matrices => {
            let at = place(&part, sizes, form);
            let begin = part.split * output.rows * output.columns;
            tile.write::<O, M, Y>(y, &at, begin, comptime![form.packed[0]]);
        }
    }
}

/// What the product makes.
#[cube]
pub fn output(sizes: &Sizes, #[comptime] columns: Columns) -> Output {
    let picture = sizes.height * sizes.width;
    Output { rows: sizes.batch * picture, columns: sizes.outputs, picture, width: sizes.width, are: columns }
}

/// Where a plane's part of the tile is in the output.
#[cube]
fn place(part: &Part, sizes: &Sizes, #[comptime] form: Form) -> Place {
    let cube = comptime![form.cube];
    let plane = UNIT_POS_Y as usize;
    Place {
        row: part.row + part_row(plane, cube),
        column: part.column + part_column(plane, cube),
        of: output(sizes, comptime![form.columns]),
        inside: comptime![form.inside],
    }
}

/// A plane's sums: zeros, or what is added to those that leave by matrices.
#[cube]
fn begun<E: Float, A: Numeric, Y: Size>(
    bias: &[Vector<E, Y>],
    shift: &[Vector<E, Y>],
    addend: &[Vector<A, Y>],
    part: &Part,
    sizes: &Sizes,
    #[comptime] form: Form,
) -> PlaneTile {
    let added = comptime![if form.way_out == WayOut::Matrices { form.added } else { Added::default() }];
    let cube = comptime![form.cube];
    let at = place(part, sizes, form);
    let mut tile = if comptime![added.addend] {
        PlaneTile::of::<E, A, Y>(addend, &at, comptime![form.packed[1]], comptime![cube.tile])
    } else {
        PlaneTile::zero(comptime![cube.tile])
    };
    #[unroll]
    for block in 0..comptime![cube.tile.rows] {
        if comptime![added.bias] {
            tile.add_vector::<E, Y>(bias, 0usize, &at, block);
        }
        if comptime![added.shift] {
            let row = at.begin_row(comptime![block * SIDE], SIDE);
            let picture = row / (sizes.height * sizes.width);
            tile.add_vector::<E, Y>(shift, picture * sizes.outputs, &at, block);
        }
    }
    tile
}
