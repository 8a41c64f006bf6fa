//! The sums of every channel's plane, where neighbours in memory are channels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::chunks::Chunks;
use super::super::silu::Silu;
use super::super::walk::{Extents, Strides, Units, at, cubes, parameter, start};
use super::{CHUNK, Given, SHARES, Sums, before_silu};

/// Of every plane; `by_row`, where the groups are rows, of a channel's elements in all rows together.
pub fn sums(given: &Given, by_row: bool) -> Sums {
    let Given { x, weight, bias, statistics, gradient, walk, silu } = given;
    let client = &x.tensor.client;
    let [batch, channels, plane] = walk.shape;
    let (batch, elements) = if by_row { (1, batch) } else { (batch, plane) };
    let across = channels / walk.vector;
    let units = Units::for_columns(client, across);
    let chunks = Chunks::new(elements, CHUNK, SHARES);
    let sums = Sums::empty(x, chunks.count, batch * channels);
    // SAFETY: every index is in the tensors' views; units beyond the last column read and write nothing.
    unsafe {
        columns_kernel::launch_unchecked(
            client,
            cubes(client, batch * across.div_ceil(units.across) * chunks.count),
            units.dim(),
            walk.vector,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            sums.tensor.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            walk.strides(gradient),
            batch,
            elements,
            chunks.count,
            chunks.length,
            units.across,
            units.rows,
            by_row,
            *silu,
            x.elements(),
        );
    }
    sums
}

/// A share of as many columns as a cube is wide; its rows take turns at the elements.
#[cube(launch_unchecked)]
fn columns_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    statistics: &[f32],
    sums: &mut [f32],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    batch: usize,
    elements: usize,
    chunks: usize,
    length: usize,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] by_row: bool,
    #[comptime] silu: Silu,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let across = extents.groups * extents.inner;
    let tiles = (across + comptime![units - 1]) / units;
    let chunk = CUBE_POS % chunks;
    let tile = CUBE_POS / chunks % tiles;
    let wanted_picture = CUBE_POS / chunks / tiles;
    let wanted = tile * units + unit;
    let there = wanted < across && wanted_picture < batch;
    let picture = min(wanted_picture, batch - 1);
    let column = min(wanted, across - 1);
    let group = picture * extents.groups + column / extents.inner;
    let inner = column % extents.inner;
    let c = column * N::value();
    let weight = parameter::<F, N>(weight, c, true);
    let bias = parameter::<F, N>(bias, c, true);
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    let first = chunk * length;
    let end = select(there, min(first + length, elements), 0usize);
    let mut i = first + row;
    while i < end {
        let of = if comptime![by_row] { i } else { group };
        let outer = i * comptime![if by_row { 0usize } else { 1usize }];
        let place = at(from, start(from, of, extents.groups), outer, inner);
        let gradient_place = at(gradients, start(gradients, of, extents.groups), outer, inner);
        let v = Vector::<f32, N>::cast_from(x[place]);
        let g = Vector::<f32, N>::cast_from(gradient[gradient_place]);
        let mean = Vector::<f32, N>::new(statistics[2 * of]);
        let scale = Vector::<f32, N>::new(statistics[2 * of + 1]);
        let n = (v - mean) * scale;
        let d = before_silu::<N>(g, n, weight, bias, silu);
        one += d;
        two += d * n;
        i += rows;
    }
    let mut ones = Shared::<[Vector<f32, N>]>::new_slice(comptime![units * rows]);
    let mut twos = Shared::<[Vector<f32, N>]>::new_slice(comptime![units * rows]);
    ones[row * units + unit] = one;
    twos[row * units + unit] = two;
    sync_cube();
    if there && row == 0 {
        let mut one = Vector::<f32, N>::new(0.0f32);
        let mut two = Vector::<f32, N>::new(0.0f32);
        let mut k = unit;
        while k < comptime![units * rows] {
            one += ones[k];
            two += twos[k];
            k += units;
        }
        let channels = extents.groups * extents.width;
        let sum = 2 * ((chunk * batch + picture) * channels + c);
        #[unroll]
        for k in 0..N::value() {
            sums[sum + 2 * k] = one.extract(k);
            sums[sum + 2 * k + 1] = two.extract(k);
        }
    }
}
