//! AdamW on a list of parameters.

// A kernel's arguments are its bindings.
#![allow(clippy::too_many_arguments)]

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::launch::{Kind, dense, launches, rooms, share, sole};
use crate::optimizer::AdamWFactors;

/// Value, gradient and moments of each parameter, one after the other, to value and moments. The moments are written over.
pub fn step(tensors: Vec<CubeTensor>, factors: AdamWFactors) -> Vec<CubeTensor> {
    let Some(like) = tensors.first() else { return tensors };
    let shapes: Vec<_> = tensors.iter().step_by(4).map(|value| value.meta.shape().clone()).collect();
    let mut rooms = rooms(like, &shapes, like.dtype).into_iter();
    let mut tensors = tensors.into_iter().map(dense);
    let mut parameters = Vec::new();
    while let (Some(to), Some(value), Some(gradient), Some(first), Some(second)) =
        (rooms.next(), tensors.next(), tensors.next(), tensors.next(), tensors.next())
    {
        parameters.push([to, sole(first), sole(second), value, gradient]);
    }
    let kind = |i: usize| {
        let [to, .., gradient]: &[CubeTensor; 5] = &parameters[i];
        (Kind { dtype: gradient.dtype, together: 1 }, to.meta.shape().num_elements())
    };
    for launch in launches(&parameters, size_of::<f32>(), kind) {
        let (client, elements) = (launch.client(), dtype_to_storage_type(launch.kind.dtype));
        // SAFETY: all of a parameter's tensors are as long as `lengths` says, and a unit stays below it.
        unsafe {
            adamw_kernel::launch_unchecked(
                &client,
                launch.cubes(),
                launch.units.dim(),
                launch.vector,
                launch.buffers(0),
                launch.buffers(1),
                launch.buffers(2),
                launch.buffers(3),
                launch.buffers(4),
                launch.lengths(),
                Factors::launch(factors),
                launch.units.across,
                elements,
            );
        }
    }
    parameters.into_iter().flat_map(|[to, first, second, ..]| [to, first, second]).collect()
}

/// [`AdamWFactors`] on a device.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Factors {
    first_kept: f32,
    first_new: f32,
    second_kept: f32,
    second_new: f32,
    eps: f32,
    rate: f32,
    root: f32,
    kept: f32,
}

impl Factors {
    fn launch(factors: AdamWFactors) -> FactorsLaunch {
        let AdamWFactors { betas: [first, second], eps, rate, root, kept } = factors;
        let [first, first_new, second, second_new, eps, rate, root, kept] =
            [first, 1.0 - first, second, 1.0 - second, eps, rate, root, kept].map(|x| x as f32);
        FactorsLaunch::new(first, first_new, second, second_new, eps, rate, root, kept)
    }
}

#[cube(launch_unchecked)]
fn adamw_kernel<G: Float, N: Size>(
    to: &mut Sequence<Box<[Vector<f32, N>]>>,
    firsts: &mut Sequence<Box<[Vector<f32, N>]>>,
    seconds: &mut Sequence<Box<[Vector<f32, N>]>>,
    values: &Sequence<Box<[Vector<f32, N>]>>,
    gradients: &Sequence<Box<[Vector<G, N>]>>,
    lengths: &Sequence<usize>,
    by: &Factors,
    #[comptime] units: usize,
    #[define(G)] _gradient: ElemType,
) {
    let mut before = 0usize;
    #[unroll]
    for i in 0..lengths.len() {
        let length = *lengths.index(i);
        let share = share(length, before, units);
        let mut at = share.first;
        while at < share.end {
            let gradient = Vector::<f32, N>::cast_from(gradients.index(i)[at]);
            let first =
                firsts.index(i)[at] * Vector::new(by.first_kept) + gradient * Vector::new(by.first_new);
            let second = seconds.index(i)[at] * Vector::new(by.second_kept)
                + gradient * gradient * Vector::new(by.second_new);
            firsts.index_mut(i)[at] = first;
            seconds.index_mut(i)[at] = second;
            let change =
                first / (second.sqrt() / Vector::new(by.root) + Vector::new(by.eps)) * Vector::new(by.rate);
            to.index_mut(i)[at] = values.index(i)[at] * Vector::new(by.kept) - change;
            at += units;
        }
        before = share.after;
    }
}
