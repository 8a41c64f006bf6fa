//! Large groups of a channels-last picture: a cube reads whole pixels, so that what it asks of memory lies together.
//!
//! A group is a few channels wide, and a cube that took one alone would use a part of every line that it touches. Here one
//! kernel takes the moments of all groups over a chunk of pixels, a second puts a group's together, a third writes the output.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::chunks::Chunks;
use super::super::known::or_known;
use super::super::processors::processors;
use super::super::silu::{Silu, activate};
use super::super::statistics::merge;
use super::super::view::View;
use super::super::walk::{Extents, Known, Strides, TOGETHER, Units, Walk, cubes, groups_of, together};
use super::{Job, WHOLE};

/// Groups of fewer elements are a kernel's each, however few they are.
const SMALL: usize = 1 << 14;
/// Cubes for each multiprocessor.
const CUBES: usize = 8;
/// The most chunks of a picture.
const CHUNKS: usize = 1 << 11;

/// How a picture's pixels are divided among cubes.
#[derive(Debug, Clone, Copy)]
pub struct Pixels {
    /// Over pictures: all channels are one group.
    pub walk: Walk,
    /// Pixels that a cube reads side by side; a power of two.
    pub rows: usize,
    /// The chunks of a picture.
    pub chunks: Chunks,
}

impl Pixels {
    /// For a norm whose groups are large, or so few that a cube for each leaves a device idle.
    pub fn new(job: &Job) -> Option<Self> {
        let Job { x, y, walk, .. } = job;
        let many = walk.all() >= 2 * processors(&x.tensor.client.properties().hardware);
        if !walk.channels_last || walk.group() <= if many { WHOLE } else { SMALL } {
            return None;
        }
        Self::of(&[x, y], 0)
    }

    /// Through channels-last pictures, of which a cube is to have `least` pixels, and as many as its units ask for at a time; `None`
    /// where a cube has not as many units as a pixel has vectors.
    pub fn of(views: &[&View], least: usize) -> Option<Self> {
        let client = &views[0].tensor.client;
        let walk = Walk::new(views, 1);
        let [pixels, vectors] = walk.axes();
        let most = Units::together(client).across;
        if vectors > most {
            return None;
        }
        let rows = 1 << (most / vectors).ilog2();
        let share = (CUBES * processors(&client.properties().hardware) / walk.all()).clamp(1, CHUNKS);
        Some(Self { walk, rows, chunks: Chunks::new(pixels, least.max(rows * TOGETHER), share) })
    }

    /// Units of a cube.
    pub fn units(&self) -> usize {
        self.walk.axes()[1] * self.rows
    }
}

/// What kernels may know when they are compiled: the walk through whole pictures, and what else divides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Divided {
    /// Over pictures.
    pub walk: Known,
    /// Groups of a picture.
    pub groups: usize,
    /// Chunks of a picture.
    pub chunks: usize,
    /// Pixels of each but the last.
    pub length: usize,
}

impl Divided {
    /// Of this norm.
    pub fn new(job: &Job, pixels: &Pixels) -> Option<Self> {
        let Pixels { walk, chunks, .. } = pixels;
        let walk = walk.known(&job.x, &job.y)?;
        Some(Self { walk, groups: job.walk.groups, chunks: chunks.count, length: chunks.length })
    }
}

/// The moments of all groups over every chunk: how many elements, their mean, the sum of their squared distances from it, f32
/// `[pictures, chunks, groups, 3]`.
pub fn moments(job: &Job, pixels: &Pixels) -> CubeTensor {
    let Job { x, walk, .. } = job;
    let Pixels { walk: whole, rows, chunks } = *pixels;
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    let units = pixels.units();
    let shape = Shape::from([whole.all(), chunks.count, walk.groups, 3]);
    let parts = empty_device_contiguous_dtype(client.clone(), device, shape, DType::F32);
    // SAFETY: every index is in the tensor's view; cubes beyond the last picture read and write nothing.
    unsafe {
        moments_kernel::launch_unchecked(
            &client,
            cubes(&client, whole.all() * chunks.count),
            CubeDim::new_1d(units as u32),
            whole.vector,
            x.buffer(),
            parts.clone().into_buffer_arg(),
            whole.extents(),
            whole.strides(x),
            walk.groups,
            chunks.count,
            chunks.length,
            units,
            rows,
            Divided::new(job, pixels),
            x.elements(),
        );
    }
    parts
}

/// Output and statistics of all groups.
pub fn launch(job: &Job, pixels: Pixels) {
    let Job { x, weight, bias, y, statistics, walk, eps, silu } = job;
    let Pixels { walk: whole, rows, chunks } = pixels;
    let client = x.tensor.client.clone();
    let (parts, known) = (moments(job, &pixels), Divided::new(job, &pixels));
    let whole_cube = Units::together(&client);
    // SAFETY: every index is in the tensors; cubes beyond the last group write nothing.
    unsafe {
        together_kernel::launch_unchecked(
            &client,
            cubes(&client, walk.all()),
            whole_cube.dim(),
            parts.into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            walk.all(),
            walk.groups,
            *eps,
            chunks.count,
            whole_cube.across,
            known,
        );
    }
    // SAFETY: as of the moments.
    unsafe {
        output_kernel::launch_unchecked(
            &client,
            cubes(&client, whole.all() * chunks.count),
            CubeDim::new_1d(pixels.units() as u32),
            whole.vector,
            // Mean and 1 / deviation.
            2,
            x.buffer(),
            weight.clone().into_buffer_arg(),
            bias.clone().into_buffer_arg(),
            statistics.clone().into_buffer_arg(),
            y.buffer(),
            whole.extents(),
            whole.strides(x),
            whole.strides(y),
            walk.groups,
            chunks.count,
            chunks.length,
            rows,
            *silu,
            known,
            x.elements(),
        );
    }
}

/// What a unit takes: the channels of one vector, of every so many pixels of its cube's chunk.
#[derive(CubeType, Clone, Copy)]
pub struct Place {
    /// Which vector of a pixel.
    pub column: usize,
    /// Which of the pixels side by side.
    pub row: usize,
    /// Which picture.
    pub picture: usize,
    /// Whether there is such a picture.
    pub there: bool,
    /// The first pixel of the chunk.
    pub first: usize,
    /// The one behind the last; 0 where there is no such picture.
    pub end: usize,
}

/// This unit's.
#[cube]
pub fn place(extents: &Extents, chunks: usize, length: usize) -> Place {
    let unit = UNIT_POS_X as usize;
    let picture = CUBE_POS / chunks;
    let there = picture < extents.all;
    let first = CUBE_POS % chunks * length;
    let end = select(there, min(first + length, extents.outer), 0usize);
    Place { column: unit % extents.inner, row: unit / extents.inner, picture, there, first, end }
}

/// The moments of all groups over a chunk of pixels a cube: how many elements, their mean, the sum of their squared
/// distances from it. A unit has the same channels in every pixel.
#[cube(launch_unchecked)]
fn moments_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    parts: &mut [f32],
    extents: &Extents,
    from: &Strides,
    groups: usize,
    chunks: usize,
    length: usize,
    #[comptime] units: usize,
    #[comptime] rows: usize,
    #[comptime] known: Option<Divided>,
    #[define(F)] _dtype: ElemType,
) {
    let extents = extents.or_known(comptime![known.map(|known| known.walk)]);
    let from = from.or_known(comptime![known.map(|known| known.walk.from)]);
    let (extents, from) = (&extents, &from);
    let groups = or_known(groups, comptime![known.map(|known| known.groups)]);
    let chunks = or_known(chunks, comptime![known.map(|known| known.chunks)]);
    let length = or_known(length, comptime![known.map(|known| known.length)]);
    let unit = UNIT_POS_X as usize;
    let place = place(extents, chunks, length);
    let row = place.row;
    let read = place.picture * from.batch + place.column * from.inner;

    let mut count = 0.0f32;
    let mut mean = Vector::<f32, N>::new(0.0f32);
    let mut square = Vector::<f32, N>::new(0.0f32);
    let mut i = place.first + place.row;
    while i < place.end {
        let values = together::<F, N>(x, from, read, 1usize, i, place.end, rows);
        #[unroll]
        for k in 0..TOGETHER {
            if i + comptime![k * rows] < place.end {
                let v = Vector::<f32, N>::cast_from(values[k]);
                count += 1.0f32;
                let delta = v - mean;
                mean += delta * Vector::new(1.0f32 / count);
                square += delta * (v - mean);
            }
        }
        i += comptime![TOGETHER * rows];
    }

    // A lane's values of all units lie together.
    let n = N::value();
    let mut counts = Shared::<[f32]>::new_slice(units);
    let mut means = Shared::<[f32]>::new_slice(comptime![units * n]);
    let mut squares = Shared::<[f32]>::new_slice(comptime![units * n]);
    counts[unit] = count;
    #[unroll]
    for k in 0..N::value() {
        means[k * units + unit] = mean.extract(k);
        squares[k * units + unit] = square.extract(k);
    }
    sync_cube();
    // The rows' of a channel, as by Chan, Golub and LeVeque.
    #[unroll]
    for k in 0..comptime![rows.ilog2() as usize] {
        let step = comptime![rows >> (k + 1)];
        if row < step {
            let other = unit + step * extents.inner;
            let ours = counts[unit];
            let theirs = counts[other];
            if theirs > 0.0f32 {
                let share = theirs / (ours + theirs);
                #[unroll]
                for lane in 0..N::value() {
                    let at = lane * units + unit;
                    let beside = lane * units + other;
                    let off = means[beside] - means[at];
                    means[at] = means[at] + off * share;
                    squares[at] = squares[at] + squares[beside] + off * off * ours * share;
                }
                counts[unit] = ours + theirs;
            }
        }
        sync_cube();
    }
    // A group's channels, of which each has as many elements.
    let width = extents.width / groups;
    let pixels = counts[0];
    let mut group = unit;
    while group < groups {
        let mut sum = 0.0f32;
        for c in group * width..(group + 1) * width {
            sum += means[c % n * units + c / n];
        }
        let average = sum / f32::cast_from(width);
        let mut total = 0.0f32;
        for c in group * width..(group + 1) * width {
            let at = c % n * units + c / n;
            let off = means[at] - average;
            total += squares[at] + pixels * off * off;
        }
        if place.there {
            let part = 3 * (CUBE_POS * groups + group);
            parts[part] = pixels * f32::cast_from(width);
            parts[part + 1] = average;
            parts[part + 2] = total;
        }
        group += units;
    }
}

/// Mean and 1 / deviation of a group a cube, of its chunks' moments.
#[cube(launch_unchecked)]
fn together_kernel(
    parts: &[f32],
    statistics: &mut [f32],
    all: usize,
    groups: usize,
    eps: f32,
    chunks: usize,
    #[comptime] units: usize,
    #[comptime] known: Option<Divided>,
) {
    let all = or_known(all, comptime![known.map(|known| known.groups * known.walk.extents[1])]);
    let groups = or_known(groups, comptime![known.map(|known| known.groups)]);
    let chunks = or_known(chunks, comptime![known.map(|known| known.chunks)]);
    let unit = UNIT_POS_X as usize;
    let there = CUBE_POS < all;
    let first = CUBE_POS / groups * chunks;
    let group = CUBE_POS % groups;
    let mut count = 0.0f32;
    let mut mean = 0.0f32;
    let mut square = 0.0f32;
    let mut chunk = unit;
    while there && chunk < chunks {
        let part = 3 * ((first + chunk) * groups + group);
        let theirs = parts[part];
        let share = theirs / (count + theirs);
        let off = parts[part + 1] - mean;
        square += parts[part + 2] + off * off * count * share;
        mean += off * share;
        count += theirs;
        chunk += units;
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime![3 * units]);
    shared[unit] = count;
    shared[units + unit] = mean;
    shared[2 * units + unit] = square;
    sync_cube();
    merge(&mut shared, unit, unit, units, units);
    if there && unit == 0 {
        statistics[2 * CUBE_POS] = shared[units];
        statistics[2 * CUBE_POS + 1] = 1.0f32 / (shared[2 * units] / shared[0] + eps).sqrt();
    }
}

/// A chunk of the output's pixels a cube.
#[cube(launch_unchecked)]
fn output_kernel<F: Float, N: Size, P: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    statistics: &[Vector<f32, P>],
    y: &mut [Vector<F, N>],
    extents: &Extents,
    from: &Strides,
    to: &Strides,
    groups: usize,
    chunks: usize,
    length: usize,
    #[comptime] rows: usize,
    #[comptime] silu: Silu,
    #[comptime] known: Option<Divided>,
    #[define(F)] _dtype: ElemType,
) {
    let extents = extents.or_known(comptime![known.map(|known| known.walk)]);
    let from = from.or_known(comptime![known.map(|known| known.walk.from)]);
    let to = to.or_known(comptime![known.map(|known| known.walk.to)]);
    let (extents, from, to) = (&extents, &from, &to);
    let groups = or_known(groups, comptime![known.map(|known| known.groups)]);
    let chunks = or_known(chunks, comptime![known.map(|known| known.chunks)]);
    let length = or_known(length, comptime![known.map(|known| known.length)]);
    let place = place(extents, chunks, length);
    let zeroth = select(place.there, place.picture, 0usize) * groups;
    let of = groups_of::<N>(zeroth, place.column * N::value(), extents.width / groups);
    let mut mean = Vector::<f32, N>::new(0.0f32);
    let mut scale = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..N::value() {
        let both = statistics[of[k]];
        mean.insert(k, both.extract(0usize));
        scale.insert(k, both.extract(1usize));
    }
    write::<F, N>(x, weight, bias, y, from, to, &place, mean, scale, rows, silu);
}

/// The output of a unit's place, of its channels' means and 1 / deviations.
#[cube]
pub fn write<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weight: &[Vector<F, N>],
    bias: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    from: &Strides,
    to: &Strides,
    place: &Place,
    mean: Vector<f32, N>,
    scale: Vector<f32, N>,
    #[comptime] rows: usize,
    #[comptime] silu: Silu,
) {
    let column = place.column;
    let read = place.picture * from.batch + column * from.inner;
    let write = place.picture * to.batch + column * to.inner;
    let scale = scale * Vector::<f32, N>::cast_from(weight[column]);
    let bias = Vector::<f32, N>::cast_from(bias[column]);
    let mut i = place.first + place.row;
    while i < place.end {
        let values = together::<F, N>(x, from, read, 1usize, i, place.end, rows);
        #[unroll]
        for k in 0..TOGETHER {
            let i = i + comptime![k * rows];
            if i < place.end {
                let u = activate::<N>((Vector::<f32, N>::cast_from(values[k]) - mean) * scale + bias, silu);
                y[write + i * to.outer] = Vector::<F, N>::cast_from(u);
            }
        }
        i += comptime![TOGETHER * rows];
    }
}
