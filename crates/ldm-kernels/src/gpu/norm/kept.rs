//! Norms of groups that planes keep in registers ([`super::super::kept`]): read once, written once.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::kept::{Kept, across, counts, member};
use super::super::silu::{Silu, activate};
use super::super::statistics::lanes;
use super::super::walk::{Extents, Known, Strides, at, channel, cubes, start};
use super::Job;

/// Output and statistics of all groups.
pub fn launch(job: &Job, kept: Kept) {
    let Job { x, weight, bias, y, statistics, walk, eps, silu } = job;
    let client = x.tensor.client.clone();
    // SAFETY: every index is in the tensors' views; rows beyond the last group read and write nothing.
    unsafe {
        kept_kernel::launch_unchecked(
            &client,
            cubes(&client, walk.all().div_ceil(kept.rows)),
            kept.dim(),
            walk.vector,
            // A vector is of as many channels, or all of one.
            if walk.channels_last { walk.vector } else { 1 },
            x.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            y.buffer(),
            statistics.clone().into_buffer_arg(),
            walk.extents(),
            walk.strides(x),
            walk.strides(y),
            *eps,
            kept,
            walk.channels_last,
            *silu,
            walk.known(x, y),
            x.elements(),
        );
    }
}

/// Where in the walk a unit is, and what a step over all units of its group adds to that.
#[derive(CubeType, Clone, Copy)]
struct Spot {
    outer: usize,
    inner: usize,
    step_outer: usize,
    step_inner: usize,
}

/// A unit's first place. Two divisions here are instead of two for each vector.
#[cube]
fn first(extents: &Extents, unit: usize, #[comptime] kept: Kept) -> Spot {
    let units = comptime![kept.units()];
    if comptime![kept.single] {
        Spot {
            outer: 0usize.runtime(),
            inner: unit,
            step_outer: 0usize.runtime(),
            step_inner: units.runtime(),
        }
    } else {
        Spot {
            outer: unit / extents.inner,
            inner: unit % extents.inner,
            step_outer: units / extents.inner,
            step_inner: units % extents.inner,
        }
    }
}

/// Its next.
#[cube]
fn next(spot: &mut Spot, extents: &Extents, #[comptime] kept: Kept) {
    spot.inner += spot.step_inner;
    if comptime![!kept.single] {
        spot.outer += spot.step_outer;
        if spot.inner >= extents.inner {
            spot.inner -= extents.inner;
            spot.outer += 1;
        }
    }
}

/// A group some planes of the cube.
#[cube(launch_unchecked)]
fn kept_kernel<F: Float, N: Size, W: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, W>],
    bias: &[Vector<F, W>],
    y: &mut [Vector<F, N>],
    statistics: &mut [f32],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    eps: f32,
    #[comptime] kept: Kept,
    #[comptime] channels_last: bool,
    #[comptime] silu: Silu,
    #[comptime] known: Option<Known>,
    #[define(F)] _dtype: ElemType,
) {
    let extents = extents.or_known(known);
    let from = from.or_known(comptime![known.map(|known| known.from)]);
    let to = to.or_known(comptime![known.map(|known| known.to)]);
    let (extents, from, to) = (&extents, &from, &to);
    let units = comptime![kept.units()];
    let member = member(extents, kept);
    let group = member.group;
    let unit = member.unit;
    let there = member.there;
    let read = start(from, group, extents.groups);
    let write = start(to, group, extents.groups);
    let channels = group % extents.groups * extents.width;
    // Only the last vector can be one that isn't there: then it is the first again, and counts for nothing.
    let last = comptime![kept.vectors - 1];
    let full = unit + comptime![last * units] < extents.outer * extents.inner;

    // All that a unit needs is asked for before it waits for any.
    let mut values = Array::<Vector<F, N>>::new(comptime![kept.vectors]);
    let mut weights = Array::<Vector<F, W>>::new(comptime![kept.vectors]);
    let mut biases = Array::<Vector<F, W>>::new(comptime![kept.vectors]);
    let mut spot = first(extents, unit, kept);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        if comptime![k == last] {
            spot.outer = select(full, spot.outer, 0usize);
            spot.inner = select(full, spot.inner, 0usize);
        }
        let c = (channels + channel(spot.outer, spot.inner, N::value(), channels_last)) / W::value();
        values[k] = x[at(from, read, spot.outer, spot.inner)];
        weights[k] = weight[c];
        biases[k] = bias[c];
        next(&mut spot, extents, kept);
    }

    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * kept.rows * kept.planes]);
    let share = 1.0f32 / f32::cast_from(extents.outer * extents.inner * N::value());
    let mut sum = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        if counts(k, full, kept) {
            sum += Vector::<f32, N>::cast_from(values[k]);
        }
    }
    // The sum of values far from zero has lost digits; their distances from it have not, so they tell the rest.
    let near = across(lanes::<N>(sum), &mut shared, &member, 0usize, kept) * share;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut squares = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        if counts(k, full, kept) {
            let off = Vector::<f32, N>::cast_from(values[k]) - Vector::new(near);
            sum += off;
            squares += off * off;
        }
    }
    let rest = across(lanes::<N>(sum), &mut shared, &member, 1usize, kept) * share;
    let square = across(lanes::<N>(squares), &mut shared, &member, 2usize, kept) * share;
    let scale = 1.0f32 / ((square - rest * rest).max(0.0f32) + eps).sqrt();
    if there && unit == 0 {
        statistics[2 * group] = near + rest;
        statistics[2 * group + 1] = scale;
    }

    let mut spot = first(extents, unit, kept);
    #[unroll]
    for k in 0..comptime![kept.vectors] {
        let off = Vector::<f32, N>::cast_from(values[k]) - Vector::new(near) - Vector::new(rest);
        let u = off * Vector::new(scale) * spread::<F, N, W>(weights[k]) + spread::<F, N, W>(biases[k]);
        let u = activate::<N>(u, silu);
        if there && counts(k, full, kept) {
            y[at(to, write, spot.outer, spot.inner)] = Vector::<F, N>::cast_from(u);
        }
        next(&mut spot, extents, kept);
    }
}

/// The parameters of a vector's channels: one each, or the same for all.
#[cube]
fn spread<F: Float, N: Size, W: Size>(found: Vector<F, W>) -> Vector<f32, N> {
    let given = W::value();
    let mut all = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..N::value() {
        all.insert(k, f32::cast_from(found.extract(comptime![if given == 1 { 0 } else { k }])));
    }
    all
}
