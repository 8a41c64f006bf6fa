//! The sums of every channel's plane, where neighbours in memory are elements of one.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::chunks::Chunks;
use super::super::silu::Silu;
use super::super::statistics::{add_up, lanes};
use super::super::walk::{Extents, Strides, Units, at, cubes, parameter, start};
use super::{Given, SHARES, Sums, before_silu};

/// The fewest vectors of a plane that a cube adds up.
const CHUNK: usize = 1 << 11;

/// Of every plane.
pub fn sums(given: &Given) -> Sums {
    let Given { x, weight, bias, statistics, gradient, walk, silu } = given;
    let client = &x.tensor.client;
    let [_, inner] = walk.axes();
    let planes = walk.shape[0] * walk.shape[1];
    // A plane long enough to share takes whole cubes.
    let chunks = Chunks::new(inner, CHUNK, SHARES);
    let units = Units::for_rows(client, chunks.length);
    let sums = Sums::empty(x, chunks.count, planes);
    // SAFETY: every index is in the tensors' views; rows beyond the last plane read and write nothing.
    unsafe {
        planes_kernel::launch_unchecked(
            client,
            cubes(client, planes.div_ceil(units.rows) * chunks.count),
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
            chunks.count,
            chunks.length,
            units.across,
            units.rows,
            *silu,
            x.elements(),
        );
    }
    sums
}

/// A share of a plane a row of the cube.
#[cube(launch_unchecked)]
fn planes_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    statistics: &[f32],
    sums: &mut [f32],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    chunks: usize,
    length: usize,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] silu: Silu,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let size = comptime![units * rows];
    let planes = extents.all * extents.width;
    let chunk = CUBE_POS % chunks;
    let wanted = CUBE_POS / chunks * rows + row;
    let there = wanted < planes;
    let plane = min(wanted, planes - 1);
    let group = plane / extents.width;
    let outer = plane % extents.width;
    let c = plane % (extents.groups * extents.width);
    let weight = parameter::<F, N>(weight, c, false);
    let bias = parameter::<F, N>(bias, c, false);
    let mean = Vector::<f32, N>::new(statistics[2 * group]);
    let scale = Vector::<f32, N>::new(statistics[2 * group + 1]);
    let read = start(from, group, extents.groups);
    let read_gradient = start(gradients, group, extents.groups);
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    let first = chunk * length;
    let end = select(there, min(first + length, extents.inner), 0usize);
    let mut i = first + unit;
    while i < end {
        let v = Vector::<f32, N>::cast_from(x[at(from, read, outer, i)]);
        let g = Vector::<f32, N>::cast_from(gradient[at(gradients, read_gradient, outer, i)]);
        let n = (v - mean) * scale;
        let d = before_silu::<N>(g, n, weight, bias, silu);
        one += d;
        two += d * n;
        i += units;
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime![2 * size]);
    let slot = row * units + unit;
    shared[slot] = lanes::<N>(one);
    shared[size + slot] = lanes::<N>(two);
    sync_cube();
    add_up(&mut shared, slot, unit, units, size);
    if there && unit == 0 {
        let sum = 2 * (chunk * planes + plane);
        sums[sum] = shared[slot];
        sums[sum + 1] = shared[size + slot];
    }
}
