//! The input's gradient of group norm, of a channels-last picture: a cube takes whole pixels, so that what it asks of memory lies
//! together. Each of them puts the means of all groups of its picture together.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::norm::pixels::{Pixels, place};
use super::super::silu::Silu;
use super::super::view::View;
use super::super::walk::{Extents, Strides, TOGETHER, cubes, groups_of, together};
use super::{Given, Sums, before_silu};

/// Pixels for each share of the sums, at least: a cube reads all shares, and should read more of the picture.
const PIXELS: usize = 4;

/// How the pixels are divided; `None` where they lie otherwise, or are too wide for a cube.
pub fn divided(given: &Given, sums: &Sums, dx: &View) -> Option<Pixels> {
    if !given.walk.channels_last {
        return None;
    }
    let pixels = Pixels::of(&[&given.x, &given.gradient, dx], PIXELS * sums.shares)?;
    (given.walk.groups <= pixels.units()).then_some(pixels)
}

/// With the sums of every plane, into `dx`.
pub fn write(given: &Given, sums: &Sums, dx: &View, pixels: Pixels) {
    let Given { x, weight, bias, statistics, gradient, walk, silu } = given;
    let Pixels { walk: whole, rows, chunks } = pixels;
    let client = &x.tensor.client;
    let units = pixels.units();
    // SAFETY: every index is in the tensors' views; cubes beyond the last picture write nothing.
    unsafe {
        pixels_kernel::launch_unchecked(
            client,
            cubes(client, whole.all() * chunks.count),
            CubeDim::new_1d(units as u32),
            whole.vector,
            // Mean and 1 / deviation, and two sums.
            2,
            x.buffer(),
            gradient.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            sums.tensor.clone().into_buffer_arg(),
            dx.buffer(),
            whole.extents(),
            whole.strides(x),
            whole.strides(gradient),
            whole.strides(dx),
            walk.groups,
            sums.shares,
            chunks.count,
            chunks.length,
            1.0 / walk.group() as f32,
            units,
            rows,
            *silu,
            x.elements(),
        );
    }
}

/// A chunk of the pixels a cube.
#[cube(launch_unchecked)]
fn pixels_kernel<F: Float, N: Size, P: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    statistics: &[Vector<f32, P>],
    sums: &[Vector<f32, P>],
    dx: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    gradients: &Strides,
    to: &Strides,
    groups: usize,
    shares: usize,
    chunks: usize,
    length: usize,
    share: f32,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] silu: Silu,
    #[define(F)] _dtype: ElemType,
) {
    let n = N::value();
    let unit = UNIT_POS_X as usize;
    let place = place(extents, chunks, length);
    let column = place.column;
    let picture = select(place.there, place.picture, 0usize);
    let channels = extents.width;
    let width = channels / groups;
    let weight = Vector::<f32, N>::cast_from(weight[column]);
    let bias = Vector::<f32, N>::cast_from(bias[column]);

    // The sums of the unit's channels, of some of the shares.
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    let mut s = place.row;
    while s < shares {
        let first = (s * extents.all + picture) * channels + column * n;
        #[unroll]
        for k in 0..n {
            let both = sums[first + k];
            one.insert(k, one.extract(k) + both.extract(0usize));
            two.insert(k, two.extract(k) + both.extract(1usize));
        }
        s += rows;
    }
    let one = one * weight;
    let two = two * weight;
    let mut ones = Shared::<[f32]>::new_slice(comptime![units * n]);
    let mut twos = Shared::<[f32]>::new_slice(comptime![units * n]);
    #[unroll]
    for k in 0..n {
        ones[unit * n + k] = one.extract(k);
        twos[unit * n + k] = two.extract(k);
    }
    sync_cube();
    // Those of the groups: as many units as there are take a part of a group's channels each.
    let mut parts = Shared::<[f32]>::new_slice(comptime![2 * units]);
    let helpers = units / groups;
    if unit < helpers * groups {
        let group = unit % groups;
        let mut one = 0.0f32;
        let mut two = 0.0f32;
        let mut c = unit / groups;
        while c < width {
            for row in 0..rows {
                let at = row * channels + group * width + c;
                one += ones[at];
                two += twos[at];
            }
            c += helpers;
        }
        parts[unit] = one;
        parts[units + unit] = two;
    }
    sync_cube();
    let mut means = Shared::<[f32]>::new_slice(comptime![2 * units]);
    if unit < groups {
        let mut one = 0.0f32;
        let mut two = 0.0f32;
        for helper in 0..helpers {
            one += parts[helper * groups + unit];
            two += parts[units + helper * groups + unit];
        }
        means[unit] = one * share;
        means[units + unit] = two * share;
    }
    sync_cube();

    let of = groups_of::<N>(0usize, column * n, width);
    let mut mean = Vector::<f32, N>::new(0.0f32);
    let mut scale = Vector::<f32, N>::new(0.0f32);
    let mut one = Vector::<f32, N>::new(0.0f32);
    let mut two = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..n {
        let group = of[k];
        let both = statistics[picture * groups + group];
        mean.insert(k, both.extract(0usize));
        scale.insert(k, both.extract(1usize));
        one.insert(k, means[group]);
        two.insert(k, means[units + group]);
    }
    let read = picture * from.batch + column * from.inner;
    let read_gradient = picture * gradients.batch + column * gradients.inner;
    let write = picture * to.batch + column * to.inner;
    let mut i = place.first + place.row;
    while i < place.end {
        let values = together::<F, N>(x, from, read, 1usize, i, place.end, rows);
        let given = together::<F, N>(gradient, gradients, read_gradient, 1usize, i, place.end, rows);
        #[unroll]
        for k in 0..TOGETHER {
            let i = i + comptime![k * rows];
            if i < place.end {
                let n = (Vector::<f32, N>::cast_from(values[k]) - mean) * scale;
                let d = before_silu::<N>(Vector::cast_from(given[k]), n, weight, bias, silu);
                dx[write + i * to.outer] = Vector::<F, N>::cast_from(scale * (d * weight - one - n * two));
            }
        }
        i += comptime![TOGETHER * rows];
    }
}
