//! The inputs' gradients of layer norm.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::kept::{Kept, across, counts, member};
use super::super::statistics::{add_up, lanes};
use super::super::view::View;
use super::super::walk::{Extents, Strides, Units, at, cubes, parameter, start};
use super::Given;

/// Into `dx`.
pub fn write(given: &Given, dx: &View) {
    let Given { x, weight, statistics, gradient, walk, .. } = given;
    let client = &x.tensor.client;
    if let Some(kept) = Kept::new(client, walk) {
        // SAFETY: every index is in the tensors' views; rows beyond the last read and write nothing.
        unsafe {
            kept_gradient::launch_unchecked(
                client,
                cubes(client, walk.all().div_ceil(kept.rows)),
                kept.dim(),
                walk.vector,
                x.buffer(),
                gradient.buffer(),
                weight.clone().into_buffer_arg(),
                statistics.clone().into_buffer_arg(),
                dx.buffer(),
                walk.extents(),
                walk.strides(x),
                walk.strides(gradient),
                walk.strides(dx),
                kept,
                x.elements(),
            );
        }
        return;
    }
    let units = Units::for_rows(client, walk.group() / walk.vector);
    // SAFETY: every index is in the tensors' views; rows beyond the last read and write nothing.
    unsafe {
        row_gradient::launch_unchecked(
            client,
            cubes(client, walk.all().div_ceil(units.rows)),
            units.dim(),
            walk.vector,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            dx.buffer(),
            walk.extents(),
            walk.strides(x),
            walk.strides(gradient),
            walk.strides(dx),
            walk.group() as f32,
            units.across,
            units.rows,
            x.elements(),
        );
    }
}

/// The input's gradient, a row of the data some planes of the cube, which keep it in registers.
#[cube(launch_unchecked)]
fn kept_gradient<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    statistics: &[f32],
    dx: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    to: &Strides,
    #[comptime] kept: Kept,
    #[define(F)] _dtype: ElemType,
) {
    let units = comptime![kept.units()];
    let member = member(extents, kept);
    let group = member.group;
    let unit = member.unit;
    let there = member.there;
    let read = start(from, group, extents.groups);
    let read_gradient = start(gradients, group, extents.groups);
    let write = start(to, group, extents.groups);
    // Only the last vector can be one that isn't there: then it is the first again, and counts for nothing.
    let last = comptime![kept.vectors - 1];
    let full = unit + comptime![last * units] < extents.inner;

    // All that a unit needs is asked for before it waits for any.
    let mut values = Array::<Vector<F, N>>::new(comptime![kept.vectors]);
    let mut given = Array::<Vector<F, N>>::new(comptime![kept.vectors]);
    let mut weights = Array::<Vector<F, N>>::new(comptime![kept.vectors]);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        let i = select(counts(k, full, kept), unit + comptime![k * units], 0usize);
        values[k] = x[at(from, read, 0usize, i)];
        given[k] = gradient[at(gradients, read_gradient, 0usize, i)];
        weights[k] = weight[i];
    }
    let mean = Vector::<f32, N>::new(statistics[2 * group]);
    let scale = Vector::<f32, N>::new(statistics[2 * group + 1]);

    let mut shared = Shared::<[f32]>::new_slice(comptime![2 * kept.rows * kept.planes]);
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        if counts(k, full, kept) {
            let d = Vector::<f32, N>::cast_from(given[k]) * Vector::<f32, N>::cast_from(weights[k]);
            one += d;
            two += d * (Vector::<f32, N>::cast_from(values[k]) - mean) * scale;
        }
    }
    let share = 1.0f32 / f32::cast_from(extents.inner * N::value());
    let one = Vector::<f32, N>::new(across(lanes::<N>(one), &mut shared, &member, 0usize, kept) * share);
    let two = Vector::<f32, N>::new(across(lanes::<N>(two), &mut shared, &member, 1usize, kept) * share);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        if there && counts(k, full, kept) {
            let d = Vector::<f32, N>::cast_from(given[k]) * Vector::<f32, N>::cast_from(weights[k]);
            let n = (Vector::<f32, N>::cast_from(values[k]) - mean) * scale;
            dx[at(to, write, 0usize, unit + comptime![k * units])] =
                Vector::<F, N>::cast_from(scale * (d - one - n * two));
        }
    }
}

/// The same of rows that are too long for that, a row of the data a row of the cube.
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
