//! The gradients of group norm with or without SiLU, and of layer norm.
//!
//! With `n` the normalised input and `d` the gradient of the norm's output (before SiLU): the bias' gradient is the sum
//! of `d`, the weight's that of `d * n`, the input's `scale * (d * w - mean(d * w) - n * mean(d * w * n))`, the means
//! over the group. Group norm needs the two sums of every channel's plane, from which a group's means follow, so the
//! data are read twice; layer norm's rows are short and have their means at hand.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::norm::{Chunks, Norm};
use super::statistics::{add_up, lanes, sigmoid};
use super::view::View;
use super::walk::{Extents, Strides, Units, Walk, at, channel, cubes, parameter, start};

/// The fewest vectors of a plane, or elements of a column, that a cube adds up.
const CHUNK: usize = 1 << 8;
/// The fewest vectors of a group whose gradient a cube writes.
const WRITTEN: usize = 1 << 11;
/// The most cubes that share a sum.
const SHARES: usize = 1 << 8;

/// The gradients of group norm's input, weight and bias.
pub fn groups(
    x: View,
    weight: CubeTensor,
    bias: CubeTensor,
    statistics: CubeTensor,
    gradient: View,
    norm: Norm,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let client = x.tensor.client.clone();
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let statistics = into_contiguous(statistics);
    let dx = x.empty_like();
    let walk = Walk::new(&[&x, &gradient, &dx], norm.groups);
    let [batch, channels, _] = walk.shape;
    let (sums, shares) = if walk.channels_last {
        column_sums(&walk, &x, &gradient, &weight, &bias, &statistics, false, norm.silu)
    } else {
        plane_sums(&walk, &x, &gradient, &weight, &bias, &statistics, norm.silu)
    };
    let units = Units::together(&client);
    let chunks = Chunks::new(walk.group() / walk.vector, WRITTEN, SHARES);
    // SAFETY: every index is in the tensors' views; cubes beyond the last group read and write nothing.
    unsafe {
        group_gradient::launch_unchecked(
            &client,
            cubes(&client, walk.all() * chunks.count),
            units.dim(),
            walk.vector,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            bias.into_buffer_arg(),
            statistics.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            dx.buffer(),
            walk.extents(),
            walk.strides(&x),
            walk.strides(&gradient),
            walk.strides(&dx),
            shares,
            chunks.count,
            chunks.length,
            walk.group() as f32,
            units.across,
            walk.channels_last,
            norm.silu,
            x.elements(),
        );
    }
    let (dw, db) = over_shares(sums, shares * batch, channels, &weight);
    (dx.tensor, dw, db)
}

/// The gradients of layer norm's input, weight and bias.
pub fn rows(
    x: View,
    weight: CubeTensor,
    statistics: CubeTensor,
    gradient: View,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let client = x.tensor.client.clone();
    let weight = into_contiguous(weight);
    let statistics = into_contiguous(statistics);
    let dx = x.empty_like();
    let walk = Walk::new(&[&x, &gradient, &dx], 1);
    let units = Units::for_rows(&client, walk.group() / walk.vector);
    // SAFETY: every index is in the tensors' views; rows beyond the last read and write nothing.
    unsafe {
        row_gradient::launch_unchecked(
            &client,
            cubes(&client, walk.all().div_ceil(units.rows)),
            units.dim(),
            walk.vector,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            dx.buffer(),
            walk.extents(),
            walk.strides(&x),
            walk.strides(&gradient),
            walk.strides(&dx),
            walk.group() as f32,
            units.across,
            units.rows,
            x.elements(),
        );
    }
    // Without SiLU the sums need no parameter: the weight stands in for the bias too.
    let (sums, shares) = column_sums(&walk, &x, &gradient, &weight, &weight, &statistics, true, false);
    let (dw, db) = over_shares(sums, shares, walk.shape[1], &weight);
    (dx.tensor, dw, db)
}

/// f32 `[shares, planes, 2]`: the parts of every plane's sums of `d` and of `d * n`, and how many shares there are.
fn plane_sums(
    walk: &Walk,
    x: &View,
    gradient: &View,
    weight: &CubeTensor,
    bias: &CubeTensor,
    statistics: &CubeTensor,
    silu: bool,
) -> (CubeTensor, usize) {
    let client = &x.tensor.client;
    let [_, inner] = walk.axes();
    let planes = walk.shape[0] * walk.shape[1];
    // A plane long enough to share takes whole cubes.
    let chunks = Chunks::new(inner, 8 * CHUNK, SHARES);
    let units = Units::for_rows(client, chunks.length);
    let sums = sums_of(x, chunks.count, planes);
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
            sums.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            walk.strides(gradient),
            chunks.count,
            chunks.length,
            units.across,
            units.rows,
            silu,
            x.elements(),
        );
    }
    (sums, chunks.count)
}

/// As [`plane_sums`] where neighbours in memory are channels; of all rows together where the groups are rows.
fn column_sums(
    walk: &Walk,
    x: &View,
    gradient: &View,
    weight: &CubeTensor,
    bias: &CubeTensor,
    statistics: &CubeTensor,
    by_row: bool,
    silu: bool,
) -> (CubeTensor, usize) {
    let client = &x.tensor.client;
    let [batch, channels, plane] = walk.shape;
    let (batch, elements) = if by_row { (1, batch) } else { (batch, plane) };
    let across = channels / walk.vector;
    let units = Units::for_columns(client, across);
    let chunks = Chunks::new(elements, CHUNK, SHARES);
    let sums = sums_of(x, chunks.count, batch * channels);
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
            sums.clone().into_buffer_arg(),
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
            silu,
            x.elements(),
        );
    }
    (sums, chunks.count)
}

fn sums_of(x: &View, shares: usize, planes: usize) -> CubeTensor {
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::from([shares, planes, 2]), DType::F32)
}

/// The weight's and the bias' gradient: `sums` `[terms, channels, 2]` over the terms.
fn over_shares(
    sums: CubeTensor,
    terms: usize,
    channels: usize,
    weight: &CubeTensor,
) -> (CubeTensor, CubeTensor) {
    let client = weight.client.clone();
    let like = || {
        let shape = Shape::from([channels]);
        empty_device_contiguous_dtype(client.clone(), weight.device.clone(), shape, weight.dtype)
    };
    let (dw, db) = (like(), like());
    let units = Units::for_columns(&client, channels);
    let dim = CubeDim::new_1d(units.across as u32);
    // SAFETY: the sums are `[terms, channels, 2]`; units beyond the last channel end at once.
    unsafe {
        shares_kernel::launch_unchecked(
            &client,
            cubes(&client, channels.div_ceil(units.across)),
            dim,
            sums.into_buffer_arg(),
            dw.clone().into_buffer_arg(),
            db.clone().into_buffer_arg(),
            terms,
            channels,
            burn::backend::cubecl::dtype_to_storage_type(weight.dtype),
        );
    }
    (dw, db)
}

/// The gradient before SiLU, from that after it.
#[cube]
fn before_silu<N: Size>(
    gradient: Vector<f32, N>,
    n: Vector<f32, N>,
    weight: Vector<f32, N>,
    bias: Vector<f32, N>,
    #[comptime] silu: bool,
) -> Vector<f32, N> {
    if comptime![silu] {
        let one = Vector::<f32, N>::new(1.0f32);
        let u = n * weight + bias;
        let s = sigmoid::<N>(u);
        gradient * s * (one + u * (one - s))
    } else {
        gradient
    }
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
    #[comptime] silu: bool,
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
    #[comptime] silu: bool,
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
    #[comptime] silu: bool,
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

/// The input's gradient, a row of the data a row of the cube.
#[cube(launch_unchecked)]
fn row_gradient<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[F],
    statistics: &[f32],
    dx: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    to: &Strides,
    count: f32,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let row = UNIT_POS_Y as usize;
    let size = comptime![units * rows];
    let wanted = CUBE_POS * rows + row;
    let there = wanted < extents.all;
    let group = min(wanted, extents.all - 1);
    let end = select(there, extents.inner, 0usize);
    let mean = Vector::<f32, N>::new(statistics[2 * group]);
    let scale = Vector::<f32, N>::new(statistics[2 * group + 1]);
    let read = start(from, group, extents.groups);
    let read_gradient = start(gradients, group, extents.groups);
    let write = start(to, group, extents.groups);
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    let mut i = unit;
    while i < end {
        let v = Vector::<f32, N>::cast_from(x[at(from, read, 0usize, i)]);
        let g = Vector::<f32, N>::cast_from(gradient[at(gradients, read_gradient, 0usize, i)]);
        let d = g * parameter::<F, N>(weight, i * N::value(), true);
        one += d;
        two += d * (v - mean) * scale;
        i += units;
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime![2 * size]);
    let slot = row * units + unit;
    shared[slot] = lanes::<N>(one);
    shared[size + slot] = lanes::<N>(two);
    sync_cube();
    add_up(&mut shared, slot, unit, units, size);
    let one = Vector::<f32, N>::new(shared[row * units] / count);
    let two = Vector::<f32, N>::new(shared[size + row * units] / count);
    let mut i = unit;
    while i < end {
        let v = Vector::<f32, N>::cast_from(x[at(from, read, 0usize, i)]);
        let g = Vector::<f32, N>::cast_from(gradient[at(gradients, read_gradient, 0usize, i)]);
        let d = g * parameter::<F, N>(weight, i * N::value(), true);
        let n = (v - mean) * scale;
        dx[at(to, write, 0usize, i)] = Vector::<F, N>::cast_from(scale * (d - one - n * two));
        i += units;
    }
}

/// A channel a unit.
#[cube(launch_unchecked)]
fn shares_kernel<F: Float>(
    sums: &[f32],
    dw: &mut [F],
    db: &mut [F],
    terms: usize,
    channels: usize,
    #[define(F)] _dtype: ElemType,
) {
    let c = ABSOLUTE_POS;
    if c >= channels {
        terminate!();
    }
    let mut one = 0.0f32;
    let mut two = 0.0f32;
    let mut i = 0usize;
    while i < terms {
        let sum = 2 * (i * channels + c);
        one += sums[sum];
        two += sums[sum + 1];
        i += 1usize;
    }
    db[c] = F::cast_from(one);
    dw[c] = F::cast_from(two);
}
