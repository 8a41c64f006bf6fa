//! The inputs' gradients of group norm.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::chunks::Chunks;
use super::super::silu::Silu;
use super::super::statistics::add_up;
use super::super::view::View;
use super::super::walk::{Extents, Strides, Units, at, channel, cubes, parameter, start};
use super::{Given, SHARES, Sums, before_silu};

/// The fewest vectors of a group whose gradient a cube writes.
const WRITTEN: usize = 1 << 11;

/// With the sums of every plane, into `dx`.
pub fn write(given: &Given, sums: &Sums, dx: &View) {
    let Given { x, weight, bias, statistics, gradient, walk, silu } = given;
    let client = &x.tensor.client;
    let units = Units::together(client);
    let chunks = Chunks::new(walk.group() / walk.vector, WRITTEN, SHARES);
    // SAFETY: every index is in the tensors' views; cubes beyond the last group read and write nothing.
    unsafe {
        group_gradient::launch_unchecked(
            client,
            cubes(client, walk.all() * chunks.count),
            units.dim(),
            walk.vector,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            sums.tensor.clone().into_buffer_arg(),
            dx.buffer(),
            walk.extents(),
            walk.strides(x),
            walk.strides(gradient),
            walk.strides(dx),
            sums.shares,
            chunks.count,
            chunks.length,
            walk.group() as f32,
            units.across,
            walk.channels_last,
            *silu,
            x.elements(),
        );
    }
}

/// The input's gradient, a chunk of a group a cube.
#[cube(launch_unchecked)]
fn group_gradient<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    statistics: &[f32],
    sums: &[f32],
    dx: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    to: &Strides,
    shares: usize,
    chunks: usize,
    length: usize,
    count: f32,
    #[comptime] units: usize,
    #[comptime] channels_last: bool,
    #[comptime] silu: Silu,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let wanted = CUBE_POS / chunks;
    let there = wanted < extents.all;
    let group = min(wanted, extents.all - 1);
    let channels = group % extents.groups * extents.width;
    // The group's two means, from its planes' sums.
    let planes = extents.all * extents.width;
    let mut one = 0.0f32;
    let mut two = 0.0f32;
    let mut j = unit;
    while j < shares * extents.width {
        let c = j % extents.width;
        let w = f32::cast_from(weight[channels + c]);
        let sum = 2 * (j / extents.width * planes + group * extents.width + c);
        one += w * sums[sum];
        two += w * sums[sum + 1];
        j += units;
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime![2 * units]);
    shared[unit] = one;
    shared[units + unit] = two;
    sync_cube();
    add_up(&mut shared, unit, unit, units, units);
    let one = Vector::<f32, N>::new(shared[0] / count);
    let two = Vector::<f32, N>::new(shared[units] / count);
    let mean = Vector::<f32, N>::new(statistics[2 * group]);
    let scale = Vector::<f32, N>::new(statistics[2 * group + 1]);
    let read = start(from, group, extents.groups);
    let read_gradient = start(gradients, group, extents.groups);
    let write = start(to, group, extents.groups);
    let first = CUBE_POS % chunks * length;
    let end = select(there, min(first + length, extents.outer * extents.inner), 0usize);
    let mut i = first + unit;
    while i < end {
        let outer = i / extents.inner;
        let inner = i % extents.inner;
        let c = channels + channel(outer, inner, N::value(), channels_last);
        let w = parameter::<F, N>(weight, c, channels_last);
        let b = parameter::<F, N>(bias, c, channels_last);
        let v = Vector::<f32, N>::cast_from(x[at(from, read, outer, inner)]);
        let g = Vector::<f32, N>::cast_from(gradient[at(gradients, read_gradient, outer, inner)]);
        let n = (v - mean) * scale;
        let d = before_silu::<N>(g, n, w, b, silu);
        dx[at(to, write, outer, inner)] = Vector::<F, N>::cast_from(scale * (d * w - one - n * two));
        i += units;
    }
}
