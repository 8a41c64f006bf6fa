//! Copies of a list of weights in another float type, those of convolutions laid out anew on the way.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{Kind, dense, launches, rooms, share};

/// Each tensor `[rows, columns, taps]` in the order `[rows, taps, columns]`.
pub fn copies(tensors: Vec<CubeTensor>, shapes: &[[usize; 3]], dtype: DType) -> Vec<CubeTensor> {
    let Some(like) = tensors.first() else { return tensors };
    let lengths: Vec<_> = tensors.iter().map(|x| x.meta.shape().clone()).collect();
    let rooms = rooms(like, &lengths, dtype);
    let pairs = rooms.into_iter().zip(tensors).map(|(to, from)| [to, dense(from)]);
    copy(pairs.collect(), shapes)
}

/// From the second of each pair to the first. All second ones are of one type, and all first ones.
pub fn copy(pairs: Vec<[CubeTensor; 2]>, shapes: &[[usize; 3]]) -> Vec<CubeTensor> {
    let Some([to, from]) = pairs.first() else { return Vec::new() };
    let (dtype, from) = (to.dtype, from.dtype);
    let kind = |i: usize| {
        let [rows, columns, taps] = shapes[i];
        // Where there is but one of either, it lies as it is to lie.
        let (together, along) =
            if taps == 1 || columns == 1 { (1, rows * columns * taps) } else { (taps, columns) };
        (Kind { dtype, together }, along)
    };
    for launch in launches(&pairs, dtype.size().max(from.size()), kind) {
        let client = launch.client();
        let columns = launch.members.iter().map(|i| shapes[*i][1] / launch.vector).collect();
        // SAFETY: both tensors are as long as `lengths` says, and a unit stays below it.
        unsafe {
            copies_kernel::launch_unchecked(
                &client,
                launch.cubes(),
                launch.units.dim(),
                launch.vector,
                launch.buffers(0),
                launch.buffers(1),
                launch.lengths(),
                columns,
                launch.units.across,
                launch.kind.together,
                launch.vector,
                dtype_to_storage_type(dtype),
                dtype_to_storage_type(from),
            );
        }
    }
    pairs.into_iter().map(|[to, _]| to).collect()
}

#[cube(launch_unchecked)]
fn copies_kernel<E: Float, W: Float, N: Size>(
    to: &mut Sequence<Box<[Vector<E, N>]>>,
    weights: &Sequence<Box<[Vector<W, N>]>>,
    lengths: &Sequence<usize>,
    columns: &Sequence<usize>,
    #[comptime] units: usize,
    #[comptime] taps: usize,
    #[comptime] width: usize,
    #[define(E)] _to: ElemType,
    #[define(W)] _from: ElemType,
) {
    let mut before = 0usize;
    #[unroll]
    for i in 0..lengths.len() {
        let length = *lengths.index(i);
        let columns = *columns.index(i);
        let share = share(length, before, units);
        let mut at = share.first;
        while at < share.end {
            if comptime![taps == 1] {
                to.index_mut(i)[at] = Vector::<E, N>::cast_from(weights.index(i)[at]);
            } else {
                // The taps of as many columns as a vector has elements, those of each together.
                let mut found = Sequence::<Vector<W, N>>::new();
                #[unroll]
                for k in 0..taps {
                    found.push(weights.index(i)[at * taps + k]);
                }
                let row = at / columns * taps * columns + at % columns;
                #[unroll]
                for tap in 0..taps {
                    let mut values = Vector::<E, N>::new(E::from_int(0));
                    #[unroll]
                    for n in 0..width {
                        let place = comptime![n * taps + tap];
                        let vector = found.index(comptime![place / width]);
                        values.insert(n, E::cast_from(vector.extract(comptime![place % width])));
                    }
                    to.index_mut(i)[row + tap * columns] = values;
                }
            }
            at += units;
        }
        before = share.after;
    }
}
