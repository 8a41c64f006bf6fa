//! GEGLU and its gradient, a vector of the output a unit.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use burn::tensor::Shape;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;

use super::elementary::{exp, reciprocal};
use super::ptx;
use super::view::View;
use super::walk::{Units, cubes};

/// `[.., 2 c] -> [.., c]`.
pub fn forward(x: CubeTensor) -> CubeTensor {
    let x = View::rows(x);
    let mut shape = x.tensor.meta.shape().clone();
    let last = shape.num_dims() - 1;
    shape[last] /= 2;
    let y = View::rows(empty(&x, shape));
    let vector = vector(&x, &[&x, &y]);
    let client = x.tensor.client.clone();
    let ([row, column], width) = (strides(&x, vector), y.shape[1] / vector);
    let count = x.shape[0] * width;
    let units = Units::together(&client);
    // SAFETY: the indices are in the views; units beyond the output end at once.
    unsafe {
        forward_kernel::launch_unchecked(
            &client,
            cubes(&client, count.div_ceil(units.across)),
            units.dim(),
            vector,
            x.buffer(),
            y.buffer(),
            count,
            width,
            row,
            column,
            ptx::takes(&client),
            x.elements(),
        );
    }
    y.tensor
}

/// The input's gradient from the output's.
#[cfg(feature = "autodiff")]
pub fn backward(x: CubeTensor, gradient: CubeTensor) -> CubeTensor {
    let (x, gradient) = (View::rows(x), View::rows(gradient));
    let dx = View::rows(empty(&x, x.tensor.meta.shape().clone()));
    let vector = vector(&x, &[&x, &gradient, &dx]);
    let client = x.tensor.client.clone();
    let [row, column] = strides(&x, vector);
    let [gradient_row, gradient_column] = strides(&gradient, vector);
    let width = gradient.shape[1] / vector;
    let count = x.shape[0] * width;
    let units = Units::together(&client);
    // SAFETY: the indices are in the views; units beyond the output end at once.
    unsafe {
        backward_kernel::launch_unchecked(
            &client,
            cubes(&client, count.div_ceil(units.across)),
            units.dim(),
            vector,
            x.buffer(),
            gradient.buffer(),
            dx.buffer(),
            count,
            width,
            row,
            column,
            gradient_row,
            gradient_column,
            ptx::takes(&client),
            x.elements(),
        );
    }
    dx.tensor
}

fn empty(x: &View, shape: Shape) -> CubeTensor {
    let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
    empty_device_contiguous_dtype(client, device, shape, x.tensor.dtype)
}

/// The widest vector that divides half a row of `x` and lies dense in all of them.
fn vector(x: &View, views: &[&View]) -> usize {
    let width = x.shape[1] / 2;
    let fits = |n: usize| {
        let fits = |view: &&View| view.strides[1] == 1 && view.strides[0].is_multiple_of(n);
        width.is_multiple_of(n) && views.iter().all(fits)
    };
    x.tensor.client.io_optimized_vector_sizes(x.tensor.dtype.size()).find(|n| fits(*n)).unwrap_or(1)
}

/// To the next row and to the next vector of it, in vectors, of which there are more than one only where they lie
/// dense.
fn strides(view: &View, vector: usize) -> [usize; 2] {
    [view.strides[0] / vector, view.strides[1]]
}

/// Of each element: `u * Phi(u)`, `Phi` being the normal distribution's cumulative function.
#[cube]
pub fn gelu<N: Size>(u: Vector<f32, N>, #[comptime] ptx: bool) -> Vector<f32, N> {
    // Far out the tail is 0, and infinity times that is not.
    let far = u.abs().min(Vector::new(100.0f32));
    // The first is u where it is positive, else 0; a maximum would make a number of what is none.
    (u + u.abs()) * Vector::new(0.5f32) - far * tail::<N>(far, ptx)
}

/// `Phi(-u)` for positive `u`, to 7.5e-8.
///
/// Source: Abramowitz and Stegun 26.2.17, its constants over the root of 2 pi.
#[cube]
fn tail<N: Size>(u: Vector<f32, N>, #[comptime] ptx: bool) -> Vector<f32, N> {
    let t = reciprocal::<N>(Vector::new(1.0f32) + u * Vector::new(0.231_641_9f32), ptx);
    let mut sum = t * Vector::new(0.530_702_7f32) + Vector::new(-0.726_576f32);
    sum = sum * t + Vector::new(0.710_706_9f32);
    sum = sum * t + Vector::new(-0.142_248_37f32);
    sum = sum * t + Vector::new(0.127_414_8f32);
    sum * t * exp::<N>(u * u * Vector::new(-0.5f32), ptx)
}

/// The normal distribution's cumulative function.
#[cfg(feature = "autodiff")]
#[cube]
fn phi<N: Size>(u: Vector<f32, N>, #[comptime] ptx: bool) -> Vector<f32, N> {
    let beyond = tail::<N>(u.abs(), ptx);
    let mut all = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..N::value() {
        let lane = beyond.extract(k);
        all.insert(k, select(u.extract(k) < 0.0f32, lane, 1.0f32 - lane));
    }
    all
}

#[cube(launch_unchecked)]
fn forward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    y: &mut [Vector<F, N>],
    count: usize,
    width: usize,
    row: usize,
    column: usize,
    #[comptime] ptx: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let value = i / width * row + i % width * column;
    let v = Vector::<f32, N>::cast_from(x[value]);
    let u = Vector::<f32, N>::cast_from(x[value + width * column]);
    y[i] = Vector::<F, N>::cast_from(v * gelu::<N>(u, ptx));
}

/// `gelu'(u) = Phi(u) + u * density(u)`.
#[cfg(feature = "autodiff")]
#[cube(launch_unchecked)]
fn backward_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    gradient: &[Vector<F, N>],
    dx: &mut [Vector<F, N>],
    count: usize,
    width: usize,
    row: usize,
    column: usize,
    gradient_row: usize,
    gradient_column: usize,
    #[comptime] ptx: bool,
    #[define(F)] _dtype: ElemType,
) {
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    let value = i / width * row + i % width * column;
    let v = Vector::<f32, N>::cast_from(x[value]);
    let u = Vector::<f32, N>::cast_from(x[value + width * column]);
    let g = Vector::<f32, N>::cast_from(gradient[i / width * gradient_row + i % width * gradient_column]);
    let cumulative = phi::<N>(u, ptx);
    let density = Vector::<f32, N>::new(0.398_942_3f32) * exp::<N>(Vector::new(-0.5f32) * u * u, ptx);
    let to = i / width * 2 * width + i % width;
    dx[to] = Vector::<F, N>::cast_from(g * u * cumulative);
    dx[to + width] = Vector::<F, N>::cast_from(g * v * (cumulative + u * density));
}
