//! Norms of pictures that are few megabytes, by whole pixels: the kernel that writes puts the chunks' moments together itself, every
//! cube all of a picture's, which is a launch less.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::super::chunks::Chunks;
use super::super::known::or_known;
use super::super::processors::processors;
use super::super::silu::Silu;
use super::super::walk::{Extents, Strides, TOGETHER, cubes, groups_of};
use super::Job;
use super::pixels::{Divided, Pixels, moments, place, write};

/// The most bytes of all pictures: a device's nearest memory holds them from one kernel to the next.
const BYTES: usize = 16 << 20;
/// The fewest and the most chunks of a picture whose moments are put together.
const FEW: [usize; 2] = [16, 64];
/// Cubes of the output for each multiprocessor.
const CUBES: usize = 2;

/// Whether these pixels are so few, and a cube has a unit for each group.
pub fn takes(job: &Job, pixels: &Pixels) -> bool {
    let bytes = job.x.shape.iter().product::<usize>() * job.x.tensor.dtype.size();
    bytes <= BYTES && pixels.units() >= job.walk.groups
}

/// Output and statistics of all groups.
pub fn launch(job: &Job, pixels: Pixels) {
    let Job { x, weight, bias, y, statistics, walk, eps, silu } = job;
    let client = x.tensor.client.clone();
    let all = pixels.walk.all();
    let processors = processors(&client.properties().hardware);
    let divided = |share: usize| {
        let chunks = Chunks::new(pixels.walk.axes()[0], pixels.rows * TOGETHER, share.max(1));
        Pixels { chunks, ..pixels }
    };
    let few = divided((processors / all).clamp(FEW[0], FEW[1]));
    let parts = moments(job, &few);
    let pixels = divided(CUBES * processors / all);
    let Pixels { walk: whole, rows, chunks } = pixels;
    // SAFETY: every index is in the tensors' views; cubes beyond the last picture read and write nothing.
    unsafe {
        merged_kernel::launch_unchecked(
            &client,
            cubes(&client, all * chunks.count),
            CubeDim::new_1d(pixels.units() as u32),
            whole.vector,
            x.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            parts.into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            y.buffer(),
            whole.extents(),
            whole.strides(x),
            whole.strides(y),
            *eps,
            chunks.count,
            chunks.length,
            few.chunks.count,
            walk.groups,
            pixels.units(),
            rows,
            *silu,
            Divided::new(job, &pixels),
            x.elements(),
        );
    }
}

/// A chunk of the output's pixels a cube, whose units first share out groups and chunks of moments.
#[cube(launch_unchecked)]
fn merged_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    parts: &[f32],
    statistics: &mut [f32],
    y: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    eps: f32,
    chunks: usize,
    length: usize,
    #[comptime] few: usize,
    #[comptime] groups: usize,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] silu: Silu,
    #[comptime] known: Option<Divided>,
    #[define(F)] _dtype: ElemType,
) {
    let extents = extents.or_known(comptime![known.map(|known| known.walk)]);
    let from = from.or_known(comptime![known.map(|known| known.walk.from)]);
    let to = to.or_known(comptime![known.map(|known| known.walk.to)]);
    let chunks = or_known(chunks, comptime![known.map(|known| known.chunks)]);
    let length = or_known(length, comptime![known.map(|known| known.length)]);
    let place = place(&extents, chunks, length);
    let picture = select(place.there, place.picture, 0usize);

    let sharing = comptime![units / groups];
    let unit = UNIT_POS_X as usize;
    let (group, first) = (unit % groups, unit / groups);
    let mut count = 0.0f32;
    let mut mean = 0.0f32;
    let mut square = 0.0f32;
    if first < sharing {
        let mut chunk = first;
        while chunk < few {
            // All are asked for before the first is waited for.
            let mut found = Array::<f32>::new(comptime![3 * TOGETHER]);
            #[unroll]
            for k in 0..TOGETHER {
                let at = min(chunk + comptime![k * sharing], few - 1);
                let part = 3 * ((picture * few + at) * groups + group);
                #[unroll]
                for i in 0..3usize {
                    found[comptime![3 * k + i]] = parts[part + i];
                }
            }
            #[unroll]
            for k in 0..TOGETHER {
                if chunk + comptime![k * sharing] < few {
                    let theirs = found[comptime![3 * k]];
                    let share = theirs / (count + theirs);
                    let off = found[comptime![3 * k + 1]] - mean;
                    square += found[comptime![3 * k + 2]] + off * off * count * share;
                    mean += off * share;
                    count += theirs;
                }
            }
            chunk += comptime![TOGETHER * sharing];
        }
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * units]);
    shared[unit] = count;
    shared[units + unit] = mean;
    shared[2 * units + unit] = square;
    sync_cube();
    // Means, then 1 / deviations.
    let mut of_groups = Shared::<[f32]>::new_slice(comptime![2 * groups]);
    if unit < groups {
        #[unroll]
        for other in 1..sharing {
            let other = unit + comptime![other * groups];
            let theirs = shared[other];
            if theirs > 0.0f32 {
                let share = theirs / (count + theirs);
                let off = shared[units + other] - mean;
                square += shared[2 * units + other] + off * off * count * share;
                mean += off * share;
                count += theirs;
            }
        }
        let scale = 1.0f32 / (square / count + eps).sqrt();
        of_groups[unit] = mean;
        of_groups[groups + unit] = scale;
        if place.there && CUBE_POS % chunks == 0 {
            let at = 2 * (picture * groups + unit);
            statistics[at] = mean;
            statistics[at + 1] = scale;
        }
    }
    sync_cube();
    let of = groups_of::<N>(0usize, place.column * N::value(), extents.width / groups);
    let mut mean = Vector::<f32, N>::new(0.0f32);
    let mut scale = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..N::value() {
        mean.insert(k, of_groups[of[k]]);
        scale.insert(k, of_groups[groups + of[k]]);
    }
    write::<F, N>(x, weight, bias, y, &from, &to, &place, mean, scale, rows, silu);
}
