//! Group norm with or without SiLU, and layer norm, which is group norm of a row.
//!
//! A small group is one kernel's: its units read it for mean and variance, and again, from the cache, to write the
//! output. A large one would leave most of a device idle that way, so its moments come in chunks from one kernel, and
//! the next puts them together and writes a chunk of the output.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::statistics::{merge, moments, sigmoid};
use super::view::View;
use super::walk::{Extents, Strides, Units, Walk, at, channel, cubes, parameter, start};
use crate::group_norm::GroupNormOptions;

/// The most elements of a group that one kernel takes.
const WHOLE: usize = 1 << 15;
/// The fewest elements of a larger one's chunks.
const CHUNK: usize = 1 << 13;

/// Which norm.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// Groups of the channels.
    pub groups: usize,
    /// Whether `x * sigmoid(x)` follows.
    pub silu: bool,
}

impl Norm {
    /// Group norm.
    pub fn of_groups(options: GroupNormOptions) -> Self {
        Self { groups: options.groups, silu: options.silu }
    }

    /// Layer norm: a row is a group.
    pub fn of_rows() -> Self {
        Self { groups: 1, silu: false }
    }
}

/// A large group's chunks.
#[derive(Debug, Clone, Copy)]
pub struct Chunks {
    /// How many there are.
    pub count: usize,
    /// Vectors of each but the last.
    pub length: usize,
}

impl Chunks {
    /// Of so many vectors: at most `most`, and of at least `least` each where there are more than one.
    pub fn new(vectors: usize, least: usize, most: usize) -> Self {
        let length = vectors.div_ceil(most).max(least.min(vectors));
        Self { count: vectors.div_ceil(length), length }
    }
}

/// Norm, scale, shift, and perhaps SiLU. Gives the output and, f32 `[groups of the batch, 2]`, mean and 1 / deviation.
pub fn forward(
    x: View,
    weight: CubeTensor,
    bias: CubeTensor,
    norm: Norm,
    eps: f64,
) -> (CubeTensor, CubeTensor) {
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let f32s =
        |shape: Shape| empty_device_contiguous_dtype(client.clone(), device.clone(), shape, DType::F32);
    let y = x.empty_like();
    let walk = Walk::new(&[&x, &y], norm.groups);
    let statistics = f32s(Shape::from([walk.all(), 2]));
    let vectors = walk.group() / walk.vector;
    if walk.group() <= WHOLE {
        let units = Units::for_rows(&client, vectors);
        // SAFETY: every index is in the tensors' views; rows beyond the last group read and write nothing.
        unsafe {
            whole::launch_unchecked(
                &client,
                cubes(&client, walk.all().div_ceil(units.rows)),
                units.dim(),
                walk.vector,
                x.buffer(),
                weight.into_buffer_arg(),
                bias.into_buffer_arg(),
                y.buffer(),
                statistics.clone().into_buffer_arg(),
                walk.extents(),
                walk.strides(&x),
                walk.strides(&y),
                eps as f32,
                units.across,
                units.rows,
                walk.channels_last,
                norm.silu,
                x.elements(),
            );
        }
        return (y.tensor, statistics);
    }
    let units = Units::together(&client);
    let chunks = Chunks::new(vectors, CHUNK / walk.vector, units.across);
    let count = cubes(&client, walk.all() * chunks.count);
    let parts = f32s(Shape::from([walk.all(), chunks.count, 3]));
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
            walk.strides(&x),
            chunks.count,
            chunks.length,
            units.across,
            x.elements(),
        );
        from_parts::launch_unchecked(
            &client,
            count,
            units.dim(),
            walk.vector,
            x.buffer(),
            weight.into_buffer_arg(),
            bias.into_buffer_arg(),
            parts.into_buffer_arg(),
            y.buffer(),
            statistics.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(&x),
            walk.strides(&y),
            eps as f32,
            chunks.count,
            chunks.length,
            units.across,
            walk.channels_last,
            norm.silu,
            x.elements(),
        );
    }
    (y.tensor, statistics)
}

/// A group a row of the cube.
#[cube(launch_unchecked)]
fn whole<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    y: &mut [Vector<F, N>],
    statistics: &mut [f32],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] channels_last: bool,
    #[comptime] silu: bool,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let size = comptime![units * rows];
    let group = CUBE_POS * rows + row;
    let there = group < extents.all;
    let end = select(there, extents.outer * extents.inner, 0usize);
    let read = start(from, group, extents.groups);
    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * size]);
    let slot = row * units + unit;
    moments::<F, N>(x, from, read, extents.inner, unit, end, &mut shared, slot, units, size);
    merge(&mut shared, slot, unit, units, size);
    let first = row * units;
    let mean = shared[size + first];
    let scale = 1.0f32 / (shared[2 * size + first] / shared[first] + eps).sqrt();
    if there && unit == 0 {
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
        unit,
        end,
        mean,
        scale,
        units,
        channels_last,
        silu,
    );
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
    #[comptime] silu: bool,
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

/// The output of the group's vectors `first`, `first + units`, .. before `end`.
#[cube]
fn apply<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[F],
    bias: &[F],
    y: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    group: usize,
    first: usize,
    end: usize,
    mean: f32,
    scale: f32,
    #[comptime] units: usize,
    #[comptime] channels_last: bool,
    #[comptime] silu: bool,
) {
    let read = start(from, group, extents.groups);
    let write = start(to, group, extents.groups);
    let channels = group % extents.groups * extents.width;
    let mean = Vector::<f32, N>::new(mean);
    let scale = Vector::<f32, N>::new(scale);
    let mut i = first;
    while i < end {
        let outer = i / extents.inner;
        let inner = i % extents.inner;
        let c = channels + channel(outer, inner, N::value(), channels_last);
        let weight = parameter::<F, N>(weight, c, channels_last);
        let bias = parameter::<F, N>(bias, c, channels_last);
        let v = Vector::<f32, N>::cast_from(x[at(from, read, outer, inner)]);
        let mut u = (v - mean) * scale * weight + bias;
        if comptime![silu] {
            u = u * sigmoid::<N>(u);
        }
        y[at(to, write, outer, inner)] = Vector::<F, N>::cast_from(u);
        i += units;
    }
}
