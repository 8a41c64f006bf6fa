//! The sums of every channel's plane, where neighbours in memory are channels.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::chunks::Chunks;
use super::super::processors::processors;
use super::super::silu::Silu;
use super::super::walk::{Extents, Strides, TOGETHER, Units, Walk, cubes, groups_of};
use super::{Given, SHARES, Sums, before_silu};

/// The fewest elements of a column that a cube adds up.
const CHUNK: usize = 1 << 6;
/// Cubes for each multiprocessor; more would only leave more to add up.
const CUBES: usize = 2;

/// Of every plane; `by_row`, where the groups are rows, of a channel's elements in all rows together.
pub fn sums(given: &Given, by_row: bool) -> Sums {
    let Given { x, weight, bias, statistics, gradient, walk, silu } = given;
    let (client, groups) = (&x.tensor.client, walk.groups);
    // All channels side by side, so that vectors are no narrower than groups.
    let walk = Walk::new(&[x, gradient], 1);
    let [batch, channels, plane] = walk.shape;
    let (batch, elements) = if by_row { (1, batch) } else { (batch, plane) };
    let across = channels / walk.vector;
    let units = Units::for_columns(client, across);
    let alone = batch * across.div_ceil(units.across);
    let most = (CUBES * processors(&client.properties().hardware)).div_ceil(alone).min(SHARES);
    let chunks = Chunks::new(elements, CHUNK, most);
    let sums = Sums::empty(x, chunks.count, batch * channels);
    // SAFETY: every index is in the tensors' views; units beyond the last column read and write nothing.
    unsafe {
        columns_kernel::launch_unchecked(
            client,
            cubes(client, batch * across.div_ceil(units.across) * chunks.count),
            units.dim(),
            walk.vector,
            // Mean and 1 / deviation.
            2,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            sums.tensor.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            walk.strides(gradient),
            groups,
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
fn columns_kernel<F: Float, N: Size, P: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    statistics: &[Vector<f32, P>],
    sums: &mut [f32],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    groups: usize,
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
    let across = extents.inner;
    let tiles = (across + comptime![units - 1]) / units;
    let chunk = CUBE_POS % chunks;
    let tile = CUBE_POS / chunks % tiles;
    let wanted_picture = CUBE_POS / chunks / tiles;
    let wanted = tile * units + unit;
    let there = wanted < across && wanted_picture < batch;
    let picture = min(wanted_picture, batch - 1);
    let column = min(wanted, across - 1);
    let c = column * N::value();
    let weight = Vector::<f32, N>::cast_from(weight[column]);
    let bias = Vector::<f32, N>::cast_from(bias[column]);
    let mut mean = Vector::<f32, N>::new(0.0f32);
    let mut scale = Vector::<f32, N>::new(0.0f32);
    if comptime![!by_row] {
        let of = groups_of::<N>(picture * groups, c, extents.width / groups);
        #[unroll]
        for k in 0..N::value() {
            let both = statistics[of[k]];
            mean.insert(k, both.extract(0usize));
            scale.insert(k, both.extract(1usize));
        }
    }
    let read = picture * from.batch + column * from.inner;
    let read_gradient = picture * gradients.batch + column * gradients.inner;
    // From an element of a column to the next.
    let step = if comptime![by_row] { from.batch } else { from.outer };
    let step_gradient = if comptime![by_row] { gradients.batch } else { gradients.outer };
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    let first = chunk * length;
    let end = select(there, min(first + length, elements), 0usize);
    let mut i = first + row;
    while i < end {
        // All are asked for before the first is waited for.
        let mut values = Array::<Vector<F, N>>::new(TOGETHER);
        let mut given = Array::<Vector<F, N>>::new(TOGETHER);
        let mut known = Array::<Vector<f32, P>>::new(TOGETHER);
        #[unroll]
        for k in 0..TOGETHER {
            let i = min(i + comptime![k * rows], end - 1);
            values[k] = x[read + i * step];
            given[k] = gradient[read_gradient + i * step_gradient];
            if comptime![by_row] {
                known[k] = statistics[i];
            }
        }
        #[unroll]
        for k in 0..TOGETHER {
            if i + comptime![k * rows] < end {
                if comptime![by_row] {
                    mean = Vector::new(known[k].extract(0usize));
                    scale = Vector::new(known[k].extract(1usize));
                }
                let n = (Vector::<f32, N>::cast_from(values[k]) - mean) * scale;
                let d = before_silu::<N>(Vector::cast_from(given[k]), n, weight, bias, silu);
                one += d;
                two += d * n;
            }
        }
        i += comptime![TOGETHER * rows];
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
        let sum = 2 * ((chunk * batch + picture) * extents.width + c);
        #[unroll]
        for k in 0..N::value() {
            sums[sum + 2 * k] = one.extract(k);
            sums[sum + 2 * k + 1] = two.extract(k);
        }
    }
}
