//! What a cube's part of the weights' gradient is made of, and how it gets it step by step: 32 or 64 pixels each.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::{Columns, Output};
use super::super::waiting::{Missing, Waiting};
use super::fetch::{Fetch, Seat, bring, put, seat};
use super::geometry::{Sizes, Strides, advance, corner, count, input, output};
use super::plan::CubeForm;
use super::supply::Part;

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

/// This cube's part of output channels by taps and channels, of splits of so many steps.
#[cube]
pub fn gradient_part(sizes: &Sizes, length: usize, #[comptime] cube: CubeForm) -> Part {
    let columns = sizes.kernel_height * sizes.kernel_width * sizes.channels;
    let steps = (sizes.batch * sizes.height * sizes.width).div_ceil(comptime![cube.depth]);
    Part::new(sizes.outputs, columns, steps, length, cube)
}

/// What they make, which nothing is added to.
#[cube]
pub fn gradient_output(sizes: &Sizes) -> Output {
    Output {
        rows: sizes.outputs,
        columns: sizes.kernel_height * sizes.kernel_width * sizes.channels,
        picture: 1usize,
        width: 1usize,
        are: comptime![Columns::One],
    }
}

/// One unit's share of it.
#[derive(CubeType)]
pub struct GradientSupply<E: Float, G: Size, X: Size> {
    /// Of the step to come, where the unit reads: `[column, row, picture]`.
    g_pixel: Array<usize>,
    x_pixel: Array<usize>,
    /// Of the unit's columns of the gradient: `[channel, column, row]`.
    taps: Array<usize>,
    g_seat: Seat,
    x_seat: Seat,
    /// What waits in registers.
    g_next: Waiting<E, G>,
    x_next: Waiting<E, X>,
    row: usize,
    #[cube(comptime)]
    form: GradientForm,
}

#[cube]
impl<E: Float, G: Size, X: Size> GradientSupply<E, G, X> {
    /// From the part's first step on.
    pub fn new(part: &Part, sizes: &Sizes, #[comptime] form: GradientForm) -> GradientSupply<E, G, X> {
        let unit = UNIT_POS_Y as usize * comptime![form.cube.tile.units] + UNIT_POS_X as usize;
        let g_seat = seat(unit, comptime![form.gradient]);
        let mut g_pixel = Array::<usize>::new(3usize);
        count(
            &mut g_pixel,
            0usize,
            part.begin * comptime![form.cube.depth] + g_seat.deep,
            sizes.width,
            sizes.height,
        );

        let x = comptime![form.x];
        let x_seat = seat(unit, x);
        let columns = sizes.kernel_height * sizes.kernel_width * sizes.channels;
        let mut taps = Array::<usize>::new(comptime![3 * x.seats()]);
        #[unroll]
        for i in 0..comptime![x.seats()] {
            let column = part.column + x_seat.row + comptime![i * x.lines()];
            count(&mut taps, comptime![3 * i], column, sizes.channels, sizes.kernel_width);
            if column >= columns {
                // Beyond the last: a channel that there isn't.
                taps[comptime![3 * i]] = sizes.channels;
            }
        }
        let mut x_pixel = Array::<usize>::new(3usize);
        count(
            &mut x_pixel,
            0usize,
            part.begin * comptime![form.cube.depth] + x_seat.deep,
            sizes.width,
            sizes.height,
        );
        GradientSupply::<E, G, X> {
            g_pixel,
            x_pixel,
            taps,
            g_seat,
            x_seat,
            g_next: Waiting::<E, G>::new(comptime![form.gradient.waiting()], Missing::Selected),
            x_next: Waiting::<E, X>::new(comptime![x.waiting()], Missing::Selected),
            row: part.row,
            form,
        }
    }

    /// Asks for the next step, towards a buffer.
    pub fn ask(
        &mut self,
        gradient: &[Vector<E, G>],
        x: &[Vector<E, X>],
        left: &mut Shared<[Vector<E, G>]>,
        right: &mut Shared<[Vector<E, X>]>,
        buffer: usize,
        sizes: &Sizes,
        gradients: &Strides,
        from: &Strides,
    ) {
        let fetch = comptime![self.form.gradient];
        let to = buffer * comptime![fetch.size()];
        #[unroll]
        for i in 0..comptime![fetch.passes()] {
            let row = self.row + self.g_seat.row + comptime![fetch.row(i)];
            let channel = row / comptime![fetch.side()];
            let spot = output(channel, row < sizes.outputs, &self.g_pixel, sizes, gradients);
            bring::<E, G>(gradient, &spot, left, to, &mut self.g_next, &self.g_seat, i, fetch);
            let further = comptime![fetch.ahead(i)];
            if comptime![further > 0] {
                advance(&mut self.g_pixel, sizes.width, sizes.height, further);
            }
        }
        let fetch = comptime![self.form.x];
        let to = buffer * comptime![fetch.size()];
        let mut at = Array::<usize>::new(3usize);
        #[unroll]
        for i in 0..comptime![fetch.passes()] {
            let row = comptime![if fetch.deep { 3 * i } else { 0 }];
            corner(&mut at, 0usize, &self.x_pixel, sizes, from, false);
            let vector = comptime![fetch.vector];
            let spot = input(&at, 0usize, &self.taps, row, 0usize, sizes, from, false, vector, false);
            bring::<E, X>(x, &spot, right, to, &mut self.x_next, &self.x_seat, i, fetch);
            let further = comptime![fetch.ahead(i)];
            if comptime![further > 0] {
                advance(&mut self.x_pixel, sizes.width, sizes.height, further);
            }
        }
    }

    /// Puts what waited in registers into a buffer.
    pub fn put(&self, left: &mut Shared<[Vector<E, G>]>, right: &mut Shared<[Vector<E, X>]>, buffer: usize) {
        let form = comptime![self.form];
        put::<E, G>(
            left,
            buffer * comptime![form.gradient.size()],
            &self.g_next,
            &self.g_seat,
            form.gradient,
        );
        put::<E, X>(right, buffer * comptime![form.x.size()], &self.x_next, &self.x_seat, form.x);
    }
}
