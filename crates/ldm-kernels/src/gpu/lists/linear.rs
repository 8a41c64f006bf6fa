//! Linear layers of one small input, as the blocks' layers of a time embedding: each alone is a launch that reads a few
//! weights and waits.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::Shape;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::walk::cubes;
use super::launch::{Kind, dense, launches};

/// The most rows of the input: a unit keeps a sum for each.
pub const ROWS: usize = 16;
/// Units that share a dot product.
const ACROSS: usize = 32;
/// Dot products of a cube.
const LINES: usize = 8;
/// Of a cube.
pub const UNITS: u32 = (ACROSS * LINES) as u32;

/// The input `[rows, d_input]`, then each layer's weight `[d_output, d_input]` and, where `biased`, its bias, to the layers'
/// outputs `[rows, d_output]`.
pub fn layers(tensors: Vec<CubeTensor>, biased: bool) -> Vec<CubeTensor> {
    let mut tensors = tensors.into_iter().map(dense);
    let Some(x) = tensors.next() else { return Vec::new() };
    let [rows, depth] = x.meta.shape().dims();
    let mut layers = Vec::new();
    while let Some(weight) = tensors.next() {
        let shape = Shape::from([rows, weight.meta.shape()[0]]);
        let y = empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, x.dtype);
        // The weight stands in for what isn't there.
        let bias = if biased { tensors.next() } else { None }.unwrap_or_else(|| weight.clone());
        layers.push([y, weight, bias]);
    }
    for launch in launches(&layers, x.dtype.size(), |_| (Kind { dtype: x.dtype, together: 1 }, depth)) {
        let client = launch.client();
        let columns = || launch.members.iter().map(|i| layers[*i][1].meta.shape()[0]);
        // SAFETY: rows, columns and the depth are the tensors'; units beyond them read others' and write nothing.
        unsafe {
            linear_kernel::launch_unchecked(
                &client,
                cubes(&client, columns().map(|n| n.div_ceil(LINES)).sum()),
                CubeDim::new_2d(ACROSS as u32, LINES as u32),
                launch.vector,
                x.clone().into_buffer_arg(),
                launch.buffers(1),
                launch.buffers(2),
                launch.buffers(0),
                columns().collect(),
                depth / launch.vector,
                rows,
                biased,
                dtype_to_storage_type(x.dtype),
            );
        }
    }
    layers.into_iter().map(|[y, ..]| y).collect()
}

#[cube(launch_unchecked)]
fn linear_kernel<F: Float, N: Size>(
    x: &[Vector<F, N>],
    weights: &Sequence<Box<[Vector<F, N>]>>,
    biases: &Sequence<Box<[F]>>,
    y: &mut Sequence<Box<[F]>>,
    columns: &Sequence<usize>,
    depth: usize,
    #[comptime] rows: usize,
    #[comptime] biased: bool,
    #[define(F)] _dtype: ElemType,
) {
    let unit = UNIT_POS_X as usize;
    let line = UNIT_POS_Y as usize;
    let mut sums = Array::<f32>::new(rows);
    #[unroll]
    for row in 0..rows {
        sums[row] = 0.0f32;
    }
    let mut before = 0usize;
    #[unroll]
    for i in 0..columns.len() {
        let n = *columns.index(i);
        let after = before + n.div_ceil(LINES);
        if CUBE_POS >= before && CUBE_POS < after {
            let column = min((CUBE_POS - before) * LINES + line, n - 1);
            let mut k = unit;
            while k < depth {
                let weight = Vector::<f32, N>::cast_from(weights.index(i)[column * depth + k]);
                #[unroll]
                for row in 0..rows {
                    let products = weight * Vector::<f32, N>::cast_from(x[row * depth + k]);
                    #[unroll]
                    for lane in 0..N::value() {
                        sums[row] += products.extract(lane);
                    }
                }
                k += ACROSS;
            }
        }
        before = after;
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime![LINES * rows * ACROSS]);
    #[unroll]
    for row in 0..rows {
        shared[(line * rows + row) * ACROSS + unit] = sums[row];
    }
    sync_cube();
    // A unit adds up one row of one line.
    let sum = line * ACROSS + unit;
    if sum < comptime![LINES * rows] {
        let mut total = 0.0f32;
        for k in 0..ACROSS {
            total += shared[sum * ACROSS + k];
        }
        let mut before = 0usize;
        #[unroll]
        for i in 0..columns.len() {
            let n = *columns.index(i);
            let after = before + n.div_ceil(LINES);
            let column = (CUBE_POS - before) * LINES + sum / rows;
            if CUBE_POS >= before && CUBE_POS < after && column < n {
                if comptime![biased] {
                    total += f32::cast_from(biases.index(i)[column]);
                }
                y.index_mut(i)[sum % rows * n + column] = F::cast_from(total);
            }
            before = after;
        }
    }
}
