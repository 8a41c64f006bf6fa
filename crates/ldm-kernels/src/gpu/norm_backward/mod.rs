//! The gradients of group norm with or without SiLU, and of layer norm.
//!
//! With `n` the normalised input and `d` the gradient of the norm's output (before SiLU): the bias' gradient is the sum
//! of `d`, the weight's that of `d * n`, the input's `scale * (d * w - mean(d * w) - n * mean(d * w * n))`, the means
//! over the group. Group norm needs the two sums of every channel's plane, from which a group's means follow, so the
//! data are read twice, of channels-last pictures by whole pixels; layer norm's rows are short and have their means at hand.

mod columns;
mod groups;
mod parameters;
mod pixels;
mod planes;
mod rows;

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::norm::Norm;
use super::silu::{Silu, sigmoid};
use super::view::View;
use super::walk::Walk;

/// The most cubes that share a sum.
const SHARES: usize = 1 << 8;

/// What the gradients follow from.
pub struct Given {
    x: View,
    weight: CubeTensor,
    bias: CubeTensor,
    /// As [`super::norm::forward`] gave them.
    statistics: CubeTensor,
    /// The output's.
    gradient: View,
    walk: Walk,
    silu: Silu,
}

/// Parts of sums, f32 `[shares, planes, 2]`: of `d` and of `d * n`.
pub struct Sums {
    tensor: CubeTensor,
    shares: usize,
}

impl Sums {
    fn empty(x: &View, shares: usize, planes: usize) -> Self {
        let (client, device) = (x.tensor.client.clone(), x.tensor.device.clone());
        let shape = Shape::from([shares, planes, 2]);
        Self { tensor: empty_device_contiguous_dtype(client, device, shape, DType::F32), shares }
    }
}

/// The gradients of group norm's input, weight and bias.
pub fn of_groups(
    x: View,
    weight: CubeTensor,
    bias: CubeTensor,
    statistics: CubeTensor,
    gradient: View,
    norm: Norm,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (weight, bias) = (into_contiguous(weight), into_contiguous(bias));
    let statistics = into_contiguous(statistics);
    let dx = x.empty_like();
    let walk = Walk::new(&[&x, &gradient, &dx], norm.groups);
    let [batch, channels, _] = walk.shape;
    let silu = Silu::new(&x.tensor.client, norm.silu);
    let given = Given { x, weight, bias, statistics, gradient, walk, silu };
    let sums = if walk.channels_last { columns::sums(&given, false) } else { planes::sums(&given) };
    match pixels::divided(&given, &sums, &dx) {
        Some(pixels) => pixels::write(&given, &sums, &dx, pixels),
        None => groups::write(&given, &sums, &dx),
    }
    let (dw, db) = parameters::gradients(sums.tensor, sums.shares * batch, channels, &given.weight);
    (dx.tensor, dw, db)
}

/// The gradients of layer norm's input, weight and bias.
pub fn of_rows(
    x: View,
    weight: CubeTensor,
    statistics: CubeTensor,
    gradient: View,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let (weight, statistics) = (into_contiguous(weight), into_contiguous(statistics));
    // Without SiLU no gradient depends on the bias: the weight stands in for it.
    let bias = weight.clone();
    let dx = x.empty_like();
    let walk = Walk::new(&[&x, &gradient, &dx], 1);
    let given = Given { x, weight, bias, statistics, gradient, walk, silu: Silu::No };
    rows::write(&given, &dx);
    let sums = columns::sums(&given, true);
    let (dw, db) = parameters::gradients(sums.tensor, sums.shares, walk.shape[1], &given.weight);
    (dx.tensor, dw, db)
}

/// The gradient before SiLU, from that after it.
#[cube]
pub fn before_silu<N: Size>(
    gradient: Vector<f32, N>,
    n: Vector<f32, N>,
    weight: Vector<f32, N>,
    bias: Vector<f32, N>,
    #[comptime] silu: Silu,
) -> Vector<f32, N> {
    if comptime![silu != Silu::No] {
        let one = Vector::<f32, N>::new(1.0f32);
        let u = n * weight + bias;
        let s = sigmoid::<N>(u, silu);
        gradient * s * (one + u * (one - s))
    } else {
        gradient
    }
}
