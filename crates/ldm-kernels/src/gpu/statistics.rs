//! Mean, variance and sums over the units of a cube.

// A kernel's arguments are its bindings, and a part of one takes those it needs.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::walk::{Strides, TOGETHER, together};

/// Leaves in `shared`, at `slot` of three runs of `size`, how many of the group's vectors `first`, `first + units`, ..
/// before `end` this unit saw (in elements), their mean and the sum of their squared distances from it.
///
/// Welford's recurrence, a lane by itself: a large mean costs no digits and the data are read once.
#[cube]
pub fn moments<F: Float, N: Size>(
    x: &[Vector<F, N>],
    strides: &Strides,
    start: usize,
    inner: usize,
    first: usize,
    end: usize,
    shared: &mut Shared<[f32]>,
    slot: usize,
    #[comptime] units: usize,
    #[comptime] size: usize,
) {
    let mut count = 0.0f32;
    let mut mean = Vector::<f32, N>::new(0.0f32);
    let mut square = Vector::<f32, N>::new(0.0f32);
    let mut i = first;
    while i < end {
        let values = together::<F, N>(x, strides, start, inner, i, end, units);
        #[unroll]
        for k in 0..TOGETHER {
            if i + comptime![k * units] < end {
                let v = Vector::<f32, N>::cast_from(values[k]);
                count += 1.0f32;
                let delta = v - mean;
                // One division for all lanes.
                mean += delta * Vector::new(1.0f32 / count);
                square += delta * (v - mean);
            }
        }
        i += comptime![TOGETHER * units];
    }
    // The lanes saw equally many.
    let lanes = N::value() as f32;
    let mut average = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        average += mean.extract(k);
    }
    average /= lanes;
    let mut total = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        let off = mean.extract(k) - average;
        total += square.extract(k) + count * off * off;
    }
    shared[slot] = count * lanes;
    shared[size + slot] = average;
    shared[2 * size + slot] = total;
    sync_cube();
}

/// Of what [`moments`] left, makes that of the row's units together, in the row's first slot.
///
/// Source: Chan, Golub, LeVeque 1979.
#[cube]
pub fn merge(
    shared: &mut Shared<[f32]>,
    slot: usize,
    unit: usize,
    #[comptime] units: usize,
    #[comptime] size: usize,
) {
    #[unroll]
    for k in 0..comptime![units.ilog2() as usize] {
        let step = comptime![units >> (k + 1)];
        if unit < step {
            let other = slot + step;
            let ours = shared[slot];
            let theirs = shared[other];
            if theirs > 0.0f32 {
                let both = ours + theirs;
                let mean = shared[size + slot];
                let off = shared[size + other] - mean;
                let share = theirs / both;
                let within = shared[2 * size + slot] + shared[2 * size + other];
                shared[slot] = both;
                shared[size + slot] = mean + off * share;
                shared[2 * size + slot] = within + off * off * ours * share;
            }
        }
        sync_cube();
    }
}

/// Adds up a row's slots of two runs of `size`, in the row's first.
#[cube]
pub fn add_up(
    shared: &mut Shared<[f32]>,
    slot: usize,
    unit: usize,
    #[comptime] units: usize,
    #[comptime] size: usize,
) {
    #[unroll]
    for k in 0..comptime![units.ilog2() as usize] {
        let step = comptime![units >> (k + 1)];
        if unit < step {
            let one = shared[slot] + shared[slot + step];
            let two = shared[size + slot] + shared[size + slot + step];
            shared[slot] = one;
            shared[size + slot] = two;
        }
        sync_cube();
    }
}

/// The sum of a vector's lanes.
#[cube]
pub fn lanes<N: Size>(v: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        sum += v.extract(k);
    }
    sum
}
