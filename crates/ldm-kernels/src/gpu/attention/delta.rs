//! Each row's product of the output and its gradient.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::statistics::lanes;
use super::super::walk::{Units, cubes};
use super::heads::{Heads, Place, start, vector};

/// The sum over each row of `y * gradient`, both `[b, heads, n, d]`: f32 `[b, heads, n]`.
pub fn sums(y: &Heads, gradient: &Heads) -> CubeTensor {
    let (client, device) = (y.tensor.client.clone(), y.tensor.device.clone());
    let [b, heads, n, d] = y.shape;
    let sums = empty_device_contiguous_dtype(client.clone(), device, Shape::from([b, heads, n]), DType::F32);
    let vector = vector(&[y, gradient]);
    let count = b * heads * n;
    let units = Units::together(&client);
    // SAFETY: the indices are in the views; units beyond the last row end at once.
    unsafe {
        delta_kernel::launch_unchecked(
            &client,
            cubes(&client, count.div_ceil(units.across)),
            units.dim(),
            vector,
            y.buffer(),
            gradient.buffer(),
            sums.clone().into_buffer_arg(),
            y.place(vector),
            gradient.place(vector),
            heads,
            n,
            count,
            d / vector,
            y.elements(),
        );
    }
    sums
}

/// A row a unit.
#[cube(launch_unchecked)]
fn delta_kernel<E: Float, N: Size>(
    y: &[Vector<E, N>],
    gradient: &[Vector<E, N>],
    sums: &mut [f32],
    place: &Place,
    gradient_place: &Place,
    heads: usize,
    n: usize,
    count: usize,
    width: usize,
    #[define(E)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let from = start(place, i / n, heads) + i % n * place.row;
    let gradient_from = start(gradient_place, i / n, heads) + i % n * gradient_place.row;
    let mut sum = Vector::<f32, N>::new(0.0f32);
    for column in 0..width {
        let g = Vector::<f32, N>::cast_from(gradient[gradient_from + column * gradient_place.column]);
        sum += Vector::<f32, N>::cast_from(y[from + column * place.column]) * g;
    }
    sums[i] = lanes::<N>(sum);
}
