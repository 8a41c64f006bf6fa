//! The splits' parts of the output, put together.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// The sum of `[splits, pixels, outputs]` over the splits, first to last, with bias and addend. A vector a unit.
#[cube(launch_unchecked)]
pub fn combine_kernel<E: Float, N: Size>(
    parts: &[Vector<f32, N>],
    bias: &[E],
    addend: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    splits: usize,
    count: usize,
    outputs: usize,
    #[comptime] has_bias: bool,
    #[comptime] has_addend: bool,
    #[define(E)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let mut sum = Vector::<f32, N>::new(0.0f32);
    for split in 0..splits {
        sum += parts[split * count + i];
    }
    if comptime![has_bias] {
        let output = i * N::value() % outputs;
        let mut all = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for k in 0..N::value() {
            all.insert(k, f32::cast_from(bias[output + k]));
        }
        sum += all;
    }
    if comptime![has_addend] {
        sum += Vector::<f32, N>::cast_from(addend[i]);
    }
    y[i] = Vector::<E, N>::cast_from(sum);
}
