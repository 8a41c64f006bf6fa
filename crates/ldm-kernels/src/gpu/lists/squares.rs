//! The sum of all squares of a list of tensors: a gradient's norm.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::walk::Units;
use super::launch::{Kind, dense, launches, share};

/// `[1]`, in f32. Every cube leaves its part, and one adds the parts up: the same sum every time.
pub fn sum(tensors: Vec<CubeTensor>) -> Option<CubeTensor> {
    let all: Vec<[CubeTensor; 1]> = tensors.into_iter().map(|x| [dense(x)]).collect();
    let [first] = all.first()?;
    let (client, device) = (first.client.clone(), first.device.clone());
    let empty = |n: usize| {
        empty_device_contiguous_dtype(client.clone(), device.clone(), Shape::from([n]), DType::F32)
    };
    let kind = |i: usize| {
        let [x] = &all[i];
        (Kind { dtype: x.dtype, together: 1 }, x.meta.shape().num_elements())
    };
    let launches = launches(&all, size_of::<f32>(), kind);
    let (parts, total) = (empty(launches.iter().map(|launch| launch.needed()).sum()), empty(1));
    let mut before = 0;
    for launch in launches {
        // SAFETY: the tensors are as long as `lengths` says, and a cube writes its own part.
        unsafe {
            parts_kernel::launch_unchecked(
                &client,
                launch.cubes(),
                launch.units.dim(),
                launch.vector,
                launch.buffers(0),
                parts.clone().into_buffer_arg(),
                launch.lengths(),
                before,
                launch.units.across,
                dtype_to_storage_type(launch.kind.dtype),
            );
        }
        before += launch.needed();
    }
    let units = Units::together(&client);
    // SAFETY: there are `before` parts.
    unsafe {
        total_kernel::launch_unchecked(
            &client,
            CubeCount::new_single(),
            units.dim(),
            parts.into_buffer_arg(),
            total.clone().into_buffer_arg(),
            before,
            units.across,
        );
    }
    Some(total)
}

#[cube(launch_unchecked)]
fn parts_kernel<F: Float, N: Size>(
    tensors: &Sequence<Box<[Vector<F, N>]>>,
    parts: &mut [f32],
    lengths: &Sequence<usize>,
    first: usize,
    #[comptime] units: usize,
    #[define(F)] _dtype: ElemType,
) {
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut before = 0usize;
    #[unroll]
    for i in 0..lengths.len() {
        let length = *lengths.index(i);
        let share = share(length, before, units);
        let mut at = share.first;
        while at < share.end {
            let x = Vector::<f32, N>::cast_from(tensors.index(i)[at]);
            squares += x * x;
            at += units;
        }
        before = share.after;
    }
    let mut sum = 0.0f32;
    #[unroll]
    for lane in 0..N::value() {
        sum += squares.extract(lane);
    }
    let sum = of_all_units(sum, units);
    if UNIT_POS == 0 && CUBE_POS < before {
        parts[first + CUBE_POS] = sum;
    }
}

#[cube(launch_unchecked)]
fn total_kernel(parts: &[f32], total: &mut [f32], count: usize, #[comptime] units: usize) {
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += parts[i];
        i += units;
    }
    let sum = of_all_units(sum, units);
    if UNIT_POS == 0 {
        total[0] = sum;
    }
}

/// The sum of a cube's units, a power of two, for its first one.
#[cube]
fn of_all_units(value: f32, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    let mut shared = Shared::<[f32]>::new_slice(units);
    shared[unit] = value;
    #[unroll]
    for step in 0..comptime![units.ilog2() as usize] {
        let width = comptime![units >> (step + 1)];
        sync_cube();
        if unit < width {
            shared[unit] = shared[unit] + shared[unit + width];
        }
    }
    // The others' own: the first one's they would have to wait for.
    shared[unit]
}
