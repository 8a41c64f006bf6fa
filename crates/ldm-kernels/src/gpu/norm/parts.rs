//! Groups that several cubes share.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;

use super::super::chunks::Chunks;
use super::super::silu::Silu;
use super::super::statistics::{merge, moments};
use super::super::walk::{Extents, Strides, Units, cubes, start};
use super::{Job, apply};

/// The fewest elements of a chunk.
const CHUNK: usize = 1 << 13;

/// Output and statistics of all groups.
pub fn launch(job: &Job) {
    let Job { x, weight, bias, y, statistics, walk, eps, silu } = job;
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let units = Units::together(&client);
    let chunks = Chunks::new(walk.group() / walk.vector, CHUNK / walk.vector, units.across);
    let count = cubes(&client, walk.all() * chunks.count);
    let shape = Shape::from([walk.all(), chunks.count, 3]);
    let parts = empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32);
    // SAFETY: every index is in the tensors' views; cubes beyond the last group read and write nothing.
    unsafe {
        parts_of::launch_unchecked(
            &client,
            count.clone(),
            units.dim(),
            walk.vector,
            x.buffer(),
            parts.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            chunks.count,
            chunks.length,
            units.across,
            x.elements(),
        );
    }
    // SAFETY: as above; a group's parts are no more than a cube's units.
    unsafe {
        from_parts::launch_unchecked(
            &client,
            count,
            units.dim(),
            walk.vector,
            x.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            parts.into_buffer_arg(),
            y.buffer(),
            statistics.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            walk.strides(y),
            *eps,
            chunks.count,
            chunks.length,
            units.across,
            walk.channels_last,
            *silu,
            x.elements(),
        );
    }
}

/// The moments of a chunk a cube: how many elements, their mean, the sum of their squared distances from it.
#[cube(launch_unchecked)]
fn parts_of<F: Float, N: Size>(
    x: &[Vector<F, N>],
    parts: &mut [f32],
    extents: &Extents,
    from: &Strides,
    chunks: usize,
    length: usize,
    #[comptime] units: usize,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let group = CUBE_POS / chunks;
    let there = group < extents.all;
    let first = CUBE_POS % chunks * length;
    let end = select(there, min(first + length, extents.outer * extents.inner), 0usize);
    let read = start(from, group, extents.groups);
    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * units]);
    moments::<F, N>(x, from, read, extents.inner, first + unit, end, &mut shared, unit, units, units);
    merge(&mut shared, unit, unit, units, units);
    if there && unit == 0 {
        parts[3 * CUBE_POS] = shared[0];
        parts[3 * CUBE_POS + 1] = shared[units];
        parts[3 * CUBE_POS + 2] = shared[2 * units];
    }
}

/// A chunk of the output a cube, with the moments of all the group's chunks.
#[cube(launch_unchecked)]
fn from_parts<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    parts: &[f32],
    y: &mut [Vector<F, N>],
    statistics: &mut [f32],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    eps: f32,
    chunks: usize,
    length: usize,
    #[comptime] units: usize,
    #[comptime] channels_last: bool,
    #[comptime] silu: Silu,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let group = CUBE_POS / chunks;
    let chunk = CUBE_POS % chunks;
    let there = group < extents.all;
    let first = chunk * length;
    let end = select(there, min(first + length, extents.outer * extents.inner), 0usize);
    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * units]);
    shared[unit] = 0.0f32;
    shared[units + unit] = 0.0f32;
    shared[2 * units + unit] = 0.0f32;
    if there && unit < chunks {
        let part = 3 * (group * chunks + unit);
        shared[unit] = parts[part];
        shared[units + unit] = parts[part + 1];
        shared[2 * units + unit] = parts[part + 2];
    }
    sync_cube();
    merge(&mut shared, unit, unit, units, units);
    let mean = shared[units];
    let scale = 1.0f32 / (shared[2 * units] / shared[0] + eps).sqrt();
    if there && chunk == 0 && unit == 0 {
        statistics[2 * group] = mean;
        statistics[2 * group + 1] = scale;
    }
    apply::<F, N>(
        x,
        weight,
        bias,
        y,
        extents,
        from,
        to,
        group,
        first + unit,
        end,
        mean,
        scale,
        units,
        channels_last,
        silu,
    );
}
