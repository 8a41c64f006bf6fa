//! What a cube's products are made of, and how it gets it step by step.
//!
//! A step is one tap of 32 or 64 channels. The taps of the same channels follow each other: what they read overlaps, and the
//! second to the last find most of it in the nearest cache.

// A part of a kernel takes the bindings that it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::plane_tile::Columns;
use super::super::waiting::{Missing, Waiting};
use super::fetch::{Seat, bring, bring_rows, put, seat};
use super::geometry::{Sizes, Spot, Strides, corner, count, input, next_tap, weight};
use super::plan::{CubeForm, HALF};
use super::product::Form;

/// A cube's part of the work.
#[derive(CubeType)]
pub struct Part {
    /// Which split of the depth; there may be none.
    pub split: usize,
    /// The tile's first row.
    pub row: usize,
    /// The tile's first column.
    pub column: usize,
    /// The first step.
    pub begin: usize,
    /// The step after the last.
    pub end: usize,
}

#[cube]
impl Part {
    /// This cube's, of so many rows and columns, in splits of `length` of the steps.
    pub fn new(rows: usize, columns: usize, steps: usize, length: usize, #[comptime] cube: CubeForm) -> Part {
        let down = rows.div_ceil(comptime![cube.rows()]);
        let tiles = down * columns.div_ceil(comptime![cube.columns()]);
        let split = CUBE_POS / tiles;
        let begin = split * length;
        Part {
            split,
            // Cubes that run at the same time read the same columns' operand.
            row: CUBE_POS % tiles % down * comptime![cube.rows()],
            column: CUBE_POS % tiles / down * comptime![cube.columns()],
            begin,
            end: min(begin + length, steps),
        }
    }
}

/// This cube's part of pixels by output channels, of splits of so many steps.
#[cube]
pub fn part(sizes: &Sizes, length: usize, #[comptime] cube: CubeForm) -> Part {
    let pixels = sizes.batch * sizes.height * sizes.width;
    let steps = sizes.kernel_height * sizes.kernel_width * sizes.channels.div_ceil(comptime![cube.depth]);
    Part::new(pixels, sizes.outputs, steps, length, cube)
}

/// One unit's share of it.
#[derive(CubeType)]
pub struct Supply<P: Numeric, X: Size, W: Size> {
    /// Of the step to come: `[channel, column, row]`.
    tap: Array<usize>,
    /// Of the unit's pixels.
    corners: Array<usize>,
    x_seat: Seat,
    w_seat: Seat,
    /// What waits in registers, and where what is asked for next is.
    x_next: Waiting<P, X>,
    w_next: Waiting<P, W>,
    x_spots: Spots,
    w_spots: Spots,
    output: usize,
    #[cube(comptime)]
    form: Form,
}

/// Where a unit's vectors are, if they are.
#[derive(CubeType)]
struct Spots {
    at: Array<usize>,
    there: Array<bool>,
}

#[cube]
impl Spots {
    fn new(#[comptime] count: usize) -> Spots {
        Spots { at: Array::new(count), there: Array::new(count) }
    }

    fn put(&mut self, #[comptime] which: usize, spot: &Spot) {
        self.at[which] = spot.at;
        self.there[which] = spot.there;
    }
}

#[cube]
impl<P: Numeric, X: Size, W: Size> Supply<P, X, W> {
    /// From the part's first step on.
    pub fn new(part: &Part, sizes: &Sizes, from: &Strides, #[comptime] form: Form) -> Supply<P, X, W> {
        let unit = UNIT_POS_Y as usize * comptime![form.cube.tile.units] + UNIT_POS_X as usize;
        let all_taps = sizes.kernel_height * sizes.kernel_width;
        let mut tap = Array::<usize>::new(3usize);
        tap[0] = part.begin / all_taps * comptime![form.cube.depth];
        tap[1] = part.begin % all_taps % sizes.kernel_width;
        tap[2] = part.begin % all_taps / sizes.kernel_width;

        let x = comptime![form.x];
        let x_seat = seat(unit, x);
        let mut corners = Array::<usize>::new(comptime![3 * x.seats()]);
        let pixels = sizes.batch * sizes.height * sizes.width;
        #[unroll]
        for i in 0..comptime![x.seats()] {
            let row = part.row + x_seat.row + comptime![i * x.lines()];
            if comptime![form.flat] {
                // All pixels are one row, and none has a corner elsewhere.
                corners[comptime![3 * i]] = row * from.column;
                corners[comptime![3 * i + 1]] = 0usize;
                corners[comptime![3 * i + 2]] = select(row < pixels, 0usize, sizes.input_width);
            } else {
                let mut pixel = Array::<usize>::new(3usize);
                count(&mut pixel, 0usize, row, sizes.width, sizes.height);
                if comptime![form.columns == Columns::Pixels] {
                    // What those below and to the right are made of begins one further.
                    let which = part.column / (sizes.outputs / comptime![form.columns.count()]);
                    pixel[0] += which % 2;
                    pixel[1] += which / 2;
                }
                corner(&mut corners, comptime![3 * i], &pixel, sizes, from, comptime![form.spread]);
            }
        }
        Supply::<P, X, W> {
            tap,
            corners,
            x_seat,
            w_seat: seat(unit, comptime![form.weight]),
            x_next: Waiting::<P, X>::new(comptime![x.waiting()], comptime![form.missing[0]]),
            w_next: Waiting::<P, W>::new(comptime![form.weight.waiting()], comptime![form.missing[1]]),
            x_spots: Spots::new(comptime![x.waiting()]),
            w_spots: Spots::new(comptime![form.weight.waiting()]),
            output: part.column,
            form,
        }
    }

    /// Asks for the next step, towards a buffer.
    pub fn ask(
        &mut self,
        x: &[Vector<P, X>],
        weights: &[Vector<P, W>],
        left: &mut Shared<[Vector<P, X>]>,
        right: &mut Shared<[Vector<P, W>]>,
        buffer: usize,
        sizes: &Sizes,
        from: &Strides,
        taps: &Strides,
    ) {
        let form = comptime![self.form];
        let fetch = comptime![form.x];
        let to = buffer * comptime![fetch.size()];
        #[unroll]
        for i in 0..comptime![fetch.passes()] {
            let spot = self.of_x(i, sizes, from);
            bring::<P, X>(x, &spot, left, to, &mut self.x_next, &self.x_seat, i, fetch);
        }
        let fetch = comptime![form.weight];
        let to = buffer * comptime![fetch.size()];
        #[unroll]
        for i in 0..comptime![fetch.passes()] {
            let spot = self.of_weights(i, sizes, taps);
            bring_rows::<P, W>(weights, &spot, right, to, &mut self.w_next, &self.w_seat, i, fetch);
        }
        next_tap(&mut self.tap, sizes, comptime![form.cube.depth]);
    }

    /// Finds where the next step is, which [`fetch`](Self::fetch) then asks for: what is computed before reads makes everybody wait for
    /// them, but beside the products it costs nothing.
    pub fn aim(&mut self, sizes: &Sizes, from: &Strides, taps: &Strides) {
        let form = comptime![self.form];
        #[unroll]
        for i in 0..comptime![form.x.passes()] {
            let spot = self.of_x(i, sizes, from);
            self.x_spots.put(i, &spot);
        }
        #[unroll]
        for i in 0..comptime![form.weight.passes()] {
            let spot = self.of_weights(i, sizes, taps);
            if comptime![form.weight.partial(i)] {
                let there = self.w_seat.row + comptime![form.weight.row(i)] < comptime![form.weight.rows];
                let spot = Spot { at: select(there, spot.at, 0usize), there: spot.there && there };
                self.w_spots.put(i, &spot);
            } else {
                self.w_spots.put(i, &spot);
            }
        }
        next_tap(&mut self.tap, sizes, comptime![form.cube.depth]);
    }

    /// Asks for what was aimed at, to wait in registers.
    pub fn fetch(&mut self, x: &[Vector<P, X>], weights: &[Vector<P, W>]) {
        let form = comptime![self.form];
        #[unroll]
        for i in 0..comptime![form.x.passes()] {
            self.x_next.read(i, x, self.x_spots.at[i]);
        }
        #[unroll]
        for i in 0..comptime![form.weight.passes()] {
            self.w_next.read(i, weights, self.w_spots.at[i]);
        }
    }

    /// Notes what of that is there.
    pub fn note(&mut self) {
        let form = comptime![self.form];
        #[unroll]
        for i in 0..comptime![form.x.passes()] {
            self.x_next.note(i, self.x_spots.there[i]);
        }
        #[unroll]
        for i in 0..comptime![form.weight.passes()] {
            self.w_next.note(i, self.w_spots.there[i]);
        }
    }

    /// Puts what waited in registers into a buffer.
    pub fn put(&self, left: &mut Shared<[Vector<P, X>]>, right: &mut Shared<[Vector<P, W>]>, buffer: usize) {
        let form = comptime![self.form];
        put::<P, X>(left, buffer * comptime![form.x.size()], &self.x_next, &self.x_seat, form.x);
        put::<P, W>(right, buffer * comptime![form.weight.size()], &self.w_next, &self.w_seat, form.weight);
    }

    /// Where the input's vector of `pass` is.
    fn of_x(&self, #[comptime] pass: usize, sizes: &Sizes, from: &Strides) -> Spot {
        let form = comptime![self.form];
        let fetch = comptime![form.x];
        let row = comptime![if fetch.deep { 3 * pass } else { 0 }];
        let further = self.x_seat.deep + comptime![fetch.deeper(pass)];
        let (spread, vector) = comptime![(form.spread, fetch.vector)];
        let all = comptime![form.missing[0] == Missing::None];
        input(&self.corners, row, &self.tap, 0usize, further, sizes, from, spread, vector, all)
    }

    /// Where the weights' vector of `pass` is.
    fn of_weights(&self, #[comptime] pass: usize, sizes: &Sizes, taps: &Strides) -> Spot {
        let form = comptime![self.form];
        let fetch = comptime![form.weight];
        let output = self.output + self.w_seat.row + comptime![fetch.row(pass)];
        let row = if comptime![form.gated] { gated(output, sizes.outputs) } else { output };
        weight(
            row / comptime![fetch.side()],
            output < sizes.outputs,
            &self.tap,
            self.w_seat.deep + comptime![fetch.deeper(pass)],
            sizes,
            taps,
            comptime![fetch.deep],
            comptime![fetch.vector],
            comptime![form.mirrored],
            comptime![form.missing[1] == Missing::None],
        )
    }
}

/// The channel at a place of a gated product's columns: [`HALF`] of its first half, as many of the second, and so on.
#[cube]
fn gated(column: usize, columns: usize) -> usize {
    let half = column % comptime![2 * HALF] / HALF;
    half * (columns / 2) + column / comptime![2 * HALF] * HALF + column % HALF
}
