//! The splits' parts of the output, put together.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::super::known::{is_known, or_known};
use super::super::walk::{TOGETHER, Units, cubes};
use super::Added;
use super::lines::widest;

/// Where a product is written: the output itself, or its splits' parts in f32.
#[derive(Debug)]
pub struct Parts {
    /// What the product's kernel writes: `[splits, rows, columns]`.
    pub sums: CubeTensor,
    /// Elements of a vector, along the columns.
    pub vector: usize,
    y: CubeTensor,
    splits: usize,
}

impl Parts {
    /// For an output of this shape, the columns last, of this type and on the device of `x`.
    pub fn new(x: &CubeTensor, shape: [usize; 4], dtype: DType, splits: usize) -> Self {
        let empty = |shape: Shape, dtype: DType| {
            empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, dtype)
        };
        let [outer, height, width, columns] = shape;
        let y = empty(Shape::from(shape), dtype);
        let parts = Shape::from([splits, outer * height * width, columns]);
        let sums = if splits > 1 { empty(parts, DType::F32) } else { y.clone() };
        let vector = widest(&sums, |n| columns.is_multiple_of(n));
        Self { sums, vector, y, splits }
    }
}

/// The output. Bias, shift and addend are added where there are splits; else the product's kernel has added them.
pub fn combine(parts: Parts, [bias, shift, addend]: [CubeTensor; 3], added: Added) -> CubeTensor {
    let Parts { sums, vector, y, splits } = parts;
    if splits == 1 {
        return y;
    }
    let client = y.client.clone();
    let shape = y.meta.shape();
    let (count, columns) = (shape.num_elements() / vector, shape[shape.num_dims() - 1] / vector);
    let picture = count / shape[0];
    let units = Units::together(&client);
    // SAFETY: the indices are in the tensors; units beyond the output end at once.
    unsafe {
        combine_kernel::launch_unchecked(
            &client,
            cubes(&client, count.div_ceil(units.across)),
            units.dim(),
            vector,
            sums.into_buffer_arg(),
            bias.into_buffer_arg(),
            shift.into_buffer_arg(),
            addend.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            splits,
            count,
            columns,
            picture,
            added,
            is_known(&client).then_some([splits, count, columns, picture]),
            dtype_to_storage_type(y.dtype),
        );
    }
    y
}

/// The sum of `[splits, pixels, outputs]` over the splits, first to last, with what is added. A vector a unit.
#[cube(launch_unchecked)]
pub fn combine_kernel<E: Float, N: Size>(
    parts: &[Vector<f32, N>],
    bias: &[Vector<E, N>],
    shift: &[Vector<E, N>],
    addend: &[Vector<E, N>],
    y: &mut [Vector<E, N>],
    splits: usize,
    count: usize,
    outputs: usize,
    picture: usize,
    #[comptime] added: Added,
    #[comptime] known: Option<[usize; 4]>,
    #[define(E)] _dtype: ElemType,
) {
    let splits = or_known(splits, comptime![known.map(|n| n[0])]);
    let count = or_known(count, comptime![known.map(|n| n[1])]);
    let outputs = or_known(outputs, comptime![known.map(|n| n[2])]);
    let picture = or_known(picture, comptime![known.map(|n| n[3])]);
    let i = ABSOLUTE_POS;
    if i >= count {
        terminate!();
    }
    // All is asked for before anything is waited for.
    let mut others = Array::<Vector<E, N>>::new(3usize);
    if comptime![added.bias] {
        others[0] = bias[i % outputs];
    }
    if comptime![added.shift] {
        others[1] = shift[i / picture * outputs + i % outputs];
    }
    if comptime![added.addend] {
        others[2] = addend[i];
    }
    let mut sum = Vector::<f32, N>::new(0.0f32);
    let mut split = 0usize;
    while split < splits {
        let mut values = Array::<Vector<f32, N>>::new(TOGETHER);
        #[unroll]
        for k in 0..TOGETHER {
            values[k] = parts[min(split + k, splits - 1) * count + i];
        }
        #[unroll]
        for k in 0..TOGETHER {
            if split + k < splits {
                sum += values[k];
            }
        }
        split += TOGETHER;
    }
    #[unroll]
    for k in 0..3usize {
        if comptime![[added.bias, added.shift, added.addend][k]] {
            sum += Vector::<f32, N>::cast_from(others[k]);
        }
    }
    y[i] = Vector::<E, N>::cast_from(sum);
}
